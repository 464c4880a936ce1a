"""Records of MAST: runs of multi-agent systems, annotated with the ways in which they failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, members, outcome
from halo_mcp.index.formats.turns import Turns
from halo_mcp.index.formats.values import attribute_value, given, per_record
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "mast"
_SPEAKER: Final = ("role", "name", "agent", "sender", "speaker")
_CONTENT: Final = ("content", "message", "text", "value")


def _sniff(head: Head) -> bool:
    return any("mas_name" in value and "trace" in value for value in head.objects)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(as_mapping(value), report, report.records - 1))


def _spans(record: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    if "trace" not in record:
        raise ValueError("not a MAST record: it has no trace")
    trace = as_mapping(_decoded(record["trace"])) or {"trajectory": record["trace"]}
    said = _decoded(trace.get("trajectory"))
    system, mark = as_text(record.get("mas_name")), digest(record)
    label = "-".join(filter(None, (system, as_text(record.get("trace_id")), mark)))
    trajectory = Trajectory(label, mark=mark, report=report, number=number)
    model = as_text(record.get("llm_name"))
    turns = [_turn(item) for item in as_list(said)]
    if turns:
        Turns(trajectory, model).take(turns)
    elif said:
        trajectory.add("SPAN", "trajectory", {semconv.OUTPUT_VALUE[0]: attribute_value(said)}, step=0)
    else:
        raise ValueError("its trace has no trajectory")
    root = trajectory.root
    root.name = f"invoke_agent {system}".strip()
    root.attributes = given({semconv.AGENT_NAME[0]: system, semconv.SOURCE_TRACE_ID: record.get("trace_id")})
    root.attributes |= members(record, without=("trace", "trace_id", "mast_annotation"))
    root.attributes |= members(as_mapping(record.get("mast_annotation")), prefix="mast_annotation.")
    root.attributes |= members(trace, without=("trajectory",), prefix="trace.") | outcome(record, trace)
    yield from trajectory.spans(resource=given({semconv.SERVICE_NAME: system}), scope={"name": _NAME})


def _turn(item: Json) -> Json:
    """A turn as a message. Text alone is what an unnamed agent said."""
    turn = as_mapping(item)
    if not turn:
        return {"role": "assistant", "content": item}
    speaker = next((key for key in _SPEAKER if isinstance(turn.get(key), str)), "")
    content = next((key for key in _CONTENT if key in turn), "")
    if not content:
        return {"role": as_text(turn.get(speaker)) or "assistant", "content": attribute_value(item)}
    rest = {key: value for key, value in turn.items() if key not in (speaker, content)}
    return {"role": as_text(turn.get(speaker)) or "assistant", "content": turn[content]} | rest


def _decoded(value: Json) -> Json:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


FORMAT: Final = Format(
    name=_NAME,
    title="MAST",
    description="records with `mas_name`, `trace` (also as JSON text) and `mast_annotation`",
    sniff=_sniff,
    convert=_convert,
)
