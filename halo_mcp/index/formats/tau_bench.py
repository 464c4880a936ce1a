"""Results of tau-bench: an array of trials, each a conversation of OpenAI messages with its reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import Result, Talk, first_text
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, members, verdict
from halo_mcp.index.formats.values import given, per_record
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "tau-bench"
_PASSES: Final = 1 - 1e-6
"""tau-bench's own rule: a trial succeeds with a reward of 1."""
_ERROR: Final = "Error"
_USER: Final = frozenset(("user",))


def _sniff(head: Head) -> bool:
    return any(_is_trial(value) for value in head.objects)


def _is_trial(value: Mapping[str, Json]) -> bool:
    return "task_id" in value and "reward" in value and isinstance(value.get("traj"), list)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(as_mapping(value), report, report.records - 1))


def _spans(trial: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    if not isinstance(trial.get("traj"), list):
        raise ValueError("not a trial: it has no traj")
    messages, mark = as_list(trial["traj"]), digest(trial)
    task, repeated = as_text(trial.get("task_id")), as_text(trial.get("trial"))
    trajectory = Trajectory(f"task-{task}-trial-{repeated}-{mark}", mark=mark, report=report, number=number)
    _Talk(trajectory).take(messages)
    root = trajectory.root
    root.name = f"invoke_agent {_NAME}"
    root.attributes = given(
        {
            semconv.AGENT_NAME[0]: _NAME,
            semconv.TASK_KEY[0]: task,
            semconv.INPUT_VALUE[0]: first_text(messages, _USER),
        }
    )
    root.attributes |= members(trial, without=("traj", "task_id", "info"))
    root.attributes |= members(as_mapping(trial.get("info")), prefix="info.")
    reward = trial.get("reward")
    if isinstance(reward, int | float):
        root.attributes |= verdict(reward >= _PASSES)
    yield from trajectory.spans(resource={semconv.SERVICE_NAME: _NAME}, scope={"name": _NAME})


@dataclass(slots=True)
class _Talk(Talk):
    def results(self, message: Mapping[str, Json]) -> list[Result]:
        # Its tools answer so, and in no other way, when they refuse or fail.
        found = Talk.results(self, message)
        return [
            Result(one.output, one.id, one.name, one.output if as_text(one.output).startswith(_ERROR) else "")
            for one in found
        ]


FORMAT: Final = Format(
    name=_NAME,
    title="tau-bench",
    description="results: an array of trials with `traj` and `reward`",
    sniff=_sniff,
    convert=_convert,
)
