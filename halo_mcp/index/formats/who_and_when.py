"""Who&When: failed runs of several agents (also Magentic-One's), with the agent and step that were found at fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, members, outcome
from halo_mcp.index.formats.turns import Turns, is_turn
from halo_mcp.index.formats.values import given, per_record
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "who-and-when"
_MARKS: Final = ("mistake_agent", "mistake_step", "question", "question_ID", "is_correct", "is_corrected")


def _sniff(head: Head) -> bool:
    return any(_is_run(value) for value in head.objects)


def _is_run(value: Mapping[str, Json]) -> bool:
    history = as_list(value.get("history"))
    return bool(history) and is_turn(history[0]) and any(key in value for key in _MARKS)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(as_mapping(value), report, report.records - 1))


def _spans(run: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    history = as_list(run.get("history"))
    if not history:
        raise ValueError("not a run: it has no history")
    mark, task = digest(run), as_text(run.get("question_ID") or run.get("question_id"))
    trajectory = Trajectory(f"{task or 'run'}-{mark}", mark=mark, report=report, number=number)
    Turns(trajectory).take(history)
    root = trajectory.root
    root.name = "invoke_agent team"
    root.attributes = given({semconv.TASK_KEY[0]: task, semconv.INPUT_VALUE[0]: run.get("question")})
    root.attributes |= members(run, without=("history", "question", "question_ID", "question_id"))
    # The data has it under both spellings.
    root.attributes |= outcome(run, {"is_correct": run.get("is_corrected")})
    yield from trajectory.spans(resource={}, scope={"name": _NAME})


FORMAT: Final = Format(
    name=_NAME,
    title="Who&When",
    description="runs of several agents with `history` and who made the mistake, also of Magentic-One",
    sniff=_sniff,
    convert=_convert,
)
