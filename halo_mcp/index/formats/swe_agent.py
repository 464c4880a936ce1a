"""Trajectories of SWE-agent (``.traj``): steps of thought, action and observation, without a clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import first_text
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, end_with, members, outcome
from halo_mcp.index.formats.values import FAULTS, given, per_record, reason_of
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "SWE-agent"
_COMMAND: Final = re.compile(r"\s*([A-Za-z_][\w.+-]*)(?=\s|$)")
_STEP_KEYS: Final = ("action", "observation", "response", "thought", "query", "messages")
_USER: Final = frozenset(("user",))


def _sniff(head: Head) -> bool:
    return any(
        isinstance(value.get("trajectory"), list)
        and any("action" in one and "observation" in one for one in map(as_mapping, as_list(value["trajectory"])))
        for value in head.objects
    )


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(
        file.values(), report, lambda value: _spans(as_mapping(value), file.path, report, report.records - 1)
    )


def _spans(document: Mapping[str, Json], path: Path, report: Report, number: int) -> Iterator[Record]:
    steps, history = as_list(document.get("trajectory")), as_list(document.get("history"))
    if not steps:
        raise ValueError("no steps in the trajectory")
    info, mark = as_mapping(document.get("info")), digest(document)
    # The document does not say which task it is: SWE-agent names the file after it.
    task = as_text(document.get("instance_id")) or (path.name.removesuffix(".traj") if path.suffix == ".traj" else "")
    trajectory = Trajectory(f"{task or _NAME}-{mark}", mark=mark, report=report, number=number)
    model = _model(document)
    said = _before_first_answer(history) or as_list(as_mapping(steps[0]).get("query"))
    for position, item in enumerate(steps):
        step = as_mapping(item)
        try:
            _add_step(trajectory, step, said, model, position)
        except FAULTS as fault:
            report.skip(reason_of(fault), whole=False, place=f"step {position + 1}")
        said = [{"role": "user", "content": step["observation"]}] if step.get("observation") else []
    root = trajectory.root
    root.name = f"invoke_agent {_NAME}"
    stats = as_mapping(info.get("model_stats"))
    root.attributes = given(
        {
            semconv.AGENT_NAME[0]: _NAME,
            semconv.TASK_KEY[0]: task,
            semconv.INPUT_VALUE[0]: first_text([one for one in history if not _is_demo(one)], _USER),
            semconv.OUTPUT_VALUE[0]: as_text(info.get("submission")),
            # Only the sum is known.
            semconv.INPUT_TOKENS[0]: stats.get("tokens_sent"),
            semconv.OUTPUT_TOKENS[0]: stats.get("tokens_received"),
        }
    )
    root.attributes |= members(stats, without=("tokens_sent", "tokens_received"), prefix="model_stats.")
    root.attributes |= members(info, without=("submission", "exit_status", "model_stats"))
    root.attributes |= members(document, without=("info", "trajectory", "history")) | outcome(info, document)
    end_with(root, info.get("exit_status"))
    yield from trajectory.spans(resource={semconv.SERVICE_NAME: _NAME}, scope={"name": _NAME})


def _add_step(trajectory: Trajectory, step: Mapping[str, Json], said: list[Json], model: str, position: int) -> None:
    if not any(key in step for key in _STEP_KEYS):
        raise ValueError("a step has neither an action nor a response")
    action, thought = as_text(step.get("action")), as_text(step.get("thought"))
    answer = as_text(step.get("response")) or thought
    own = members(step, without=_STEP_KEYS)
    if thought and thought not in answer:
        own["thought"] = thought
    if answer:
        attributes: dict[str, Json] = {
            semconv.MODEL_NAME[0]: model,
            semconv.INPUT_MESSAGES[0]: json_text(said) if said else None,
            semconv.OUTPUT_MESSAGES[0]: json_text([{"role": "assistant", "content": answer}]),
            semconv.NEW_MESSAGES_ONLY: True,
        }
        trajectory.add("LLM", f"chat {model}".strip(), attributes | ({} if action else own), step=position)
    if action or step.get("observation"):
        found = _COMMAND.match(action)
        tool = found[1] if found else "bash" if action else ""
        attributes = {semconv.TOOL_NAME[0]: tool, semconv.INPUT_VALUE[0]: action}
        kind = "TOOL" if action else "SPAN"
        name = f"execute_tool {tool}" if action else "observation"
        added = trajectory.add(kind, name, attributes | own, step=position)
        if "observation" in step:
            added.attributes[semconv.OUTPUT_VALUE[0]] = as_text(step["observation"])


def _before_first_answer(history: list[Json]) -> list[Json]:
    """What the model was told before its first step: also demonstrations, in which a model may speak."""
    for position, item in enumerate(history):
        if as_mapping(item).get("role") == "assistant" and not _is_demo(item):
            return history[:position]
    return history


def _is_demo(message: Json) -> bool:
    return as_mapping(message).get("is_demo") is True


def _model(document: Mapping[str, Json]) -> str:
    """Newer versions keep the configuration of the run, as JSON text; older ones do not say."""
    config = document.get("replay_config")
    if isinstance(config, str):
        try:
            config = orjson.loads(config)
        except orjson.JSONDecodeError:
            config = None
    agent = as_mapping(as_mapping(config).get("agent"))
    return as_text(as_mapping(agent.get("model")).get("name"))


FORMAT: Final = Format(
    name="swe-agent",
    title="SWE-agent",
    description="`.traj` documents of thoughts, actions and observations",
    sniff=_sniff,
    convert=_convert,
)
