"""Trajectories of mini-swe-agent: one document each, its verdict in a report file beside it.

A model's commands stand in a fenced block of its text (or, in newer versions, in tool calls); the next message of the
user (or tool) is what the shell said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import Call, Result, Talk, first_text, first_time, plain
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.names import TRAJECTORY_ENDING, VERDICT_ENDING
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, end_with, members, outcome, usage
from halo_mcp.index.formats.values import given, per_record
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "mini-swe-agent"
_REPORT_BYTES: Final = 16 * 1024 * 1024
_REPORT_KEYS: Final = ("patch_exists", "patch_successfully_applied", "tests_status")
_BLOCK: Final = re.compile(r"```(?:bash|sh|mswea_bash_command)[ \t]*\n(.*?)\n?```", re.DOTALL)
_USER: Final = frozenset(("user",))


def _sniff(head: Head) -> bool:
    return any(_is_trajectory(value) or _is_report(value) for value in head.objects)


def _is_trajectory(value: Mapping[str, Json]) -> bool:
    if as_text(value.get("trajectory_format")).startswith(_NAME):
        return isinstance(value.get("messages"), list)
    info = as_mapping(value.get("info"))
    return isinstance(value.get("messages"), list) and ("mini_version" in info or "model_stats" in info)


def _is_report(value: Mapping[str, Json]) -> bool:
    inside = as_mapping(next(iter(value.values()), None)) if len(value) == 1 else value
    return isinstance(inside.get("resolved"), bool) and any(key in inside for key in _REPORT_KEYS)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    def spans(value: Json) -> Iterator[Record]:
        document = as_mapping(value)
        if _is_report(document) and "messages" not in document:
            if not file.path.with_name(file.path.name.removesuffix(VERDICT_ENDING) + TRAJECTORY_ENDING).is_file():
                raise ValueError("a report without a trajectory: its verdict is read where the trajectory is beside it")
            report.ignored("a verdict, read with the trajectory beside it")
            return iter(())
        return _spans(document, _verdict_beside(file.path), report, report.records - 1)

    return per_record(file.values(), report, spans)


def _spans(document: Mapping[str, Json], judged: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    info, messages = as_mapping(document.get("info")), as_list(document.get("messages"))
    config = as_mapping(info.get("config"))
    task = as_text(document.get("instance_id"))
    mark = digest(document)
    times = [time for item in messages if (time := _time(as_mapping(item))) is not None]
    trajectory = Trajectory(
        f"{task or _NAME}-{mark}", mark=mark, report=report, number=number, begin=min(times, default=None)
    )
    talk = _Talk(trajectory, as_text(as_mapping(config.get("model")).get("model_name")))
    talk.take(messages)
    root = trajectory.root
    root.name = f"invoke_agent {_NAME}"
    root.attributes = given(
        {
            semconv.AGENT_NAME[0]: _NAME,
            semconv.TASK_KEY[0]: task,
            semconv.SOURCE_TRACE_ID: task,
            semconv.INPUT_VALUE[0]: first_text(messages, _USER),
            semconv.OUTPUT_VALUE[0]: as_text(info.get("submission")),
        }
    )
    root.attributes |= members(info, without=("submission", "exit_status", "model_stats"))
    root.attributes |= members(as_mapping(info.get("model_stats")), prefix="model_stats.")
    root.attributes |= members(document, without=("info", "messages", "instance_id"))
    root.attributes |= _verdict_attributes(judged) | outcome(judged, info, document)
    end_with(root, info.get("exit_status"))
    version = as_text(info.get("mini_version"))
    yield from trajectory.spans(
        resource=given({semconv.SERVICE_NAME: _NAME, semconv.SERVICE_VERSION: version}),
        scope=given({"name": _NAME, "version": version}),
    )


def _verdict_beside(path: Path) -> Mapping[str, Json]:
    """The report of a trajectory ``x.traj.json``: what ``x.report.json`` beside it says; nothing when there is none."""
    if not path.name.endswith(TRAJECTORY_ENDING):
        return {}
    beside = path.with_name(path.name.removesuffix(TRAJECTORY_ENDING) + VERDICT_ENDING)
    try:
        if beside.is_symlink() or not beside.is_file() or beside.stat().st_size > _REPORT_BYTES:
            return {}
        found = as_mapping(orjson.loads(beside.read_bytes()))
    except (OSError, ValueError):
        return {}
    if not _is_report(found):
        return {}
    return found if "resolved" in found else as_mapping(next(iter(found.values())))


def _verdict_attributes(judged: Mapping[str, Json]) -> dict[str, Json]:
    """The verdict, and of each group of tests how many went which way: their names would be thousands."""
    found = members(judged, without=("tests_status",))
    for group, results in as_mapping(judged.get("tests_status")).items():
        for way, tests in as_mapping(results).items():
            if tests:
                found[f"tests_status.{group}.{way}"] = len(as_list(tests))
    return found


def _time(message: Mapping[str, Json]) -> int | None:
    extra = as_mapping(message.get("extra"))
    return first_time(
        message.get("timestamp"), extra.get("timestamp"), as_mapping(extra.get("response")).get("created")
    )


@dataclass(slots=True)
class _Talk(Talk):
    _asked: bool = False
    """The last answer has one command in its text: the next message is what the shell said."""
    _refused: bool = False
    """The last answer has no command or several: the next message says so."""

    def take_message(self, message: Mapping[str, Json]) -> None:
        Talk.take_message(self, message)
        if message.get("role") == "user" and self._refused:
            attributes: dict[str, Json] = {semconv.OUTPUT_VALUE[0]: plain(message.get("content"))}
            notice = self.trajectory.add("SPAN", "format_error", attributes, step=self._step, time=_time(message))
            notice.fail("the answer has no command, or more than one")
            self._unseen.pop()
        if not self.is_answer(message):
            self._asked = self._refused = False

    def calls(self, message: Mapping[str, Json]) -> list[Call]:
        called = Talk.calls(self, message)
        commands = _BLOCK.findall(as_text(plain(message.get("content")))) if not called else []
        self._asked = len(commands) == 1
        self._refused = not called and not self._asked
        return called or ([Call("bash", commands[0])] if self._asked else [])

    def results(self, message: Mapping[str, Json]) -> list[Result]:
        if message.get("role") in ("user", "exit") and self._asked:
            return [Result(plain(message.get("content")))]
        return Talk.results(self, message)

    def shown(self, message: Mapping[str, Json]) -> Json:
        return {key: value for key, value in message.items() if key != "extra"}

    def model_of(self, message: Mapping[str, Json]) -> str:
        return as_text(_response(message).get("model")) or Talk.model_of(self, message)

    def time_of(self, message: Mapping[str, Json]) -> int | None:
        return _time(message)

    def answer_attributes(self, message: Mapping[str, Json]) -> dict[str, Json]:
        response = _response(message)
        choice = as_mapping(next(iter(as_list(response.get("choices"))), None))
        reason = as_text(choice.get("finish_reason"))
        answered = as_mapping(choice.get("message"))
        kept = members(answered, without=("role", "content", "tool_calls", "function_call"), prefix="response.")
        kept |= members(response, without=("choices", "usage", "model", "created", "object"), prefix="response.")
        extra = members(as_mapping(message.get("extra")), without=("response", "timestamp"), prefix="extra.")
        return usage(response.get("usage")) | kept | extra | given({semconv.FINISH_REASON[0]: reason})


def _response(message: Mapping[str, Json]) -> Mapping[str, Json]:
    return as_mapping(as_mapping(message.get("extra")).get("response"))


FORMAT: Final = Format(
    name=_NAME,
    title="mini-swe-agent",
    description="trajectories; the verdict of `X.report.json` beside `X.traj.json` is taken as the outcome",
    sniff=_sniff,
    convert=_convert,
)
