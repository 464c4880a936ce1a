"""Phoenix spans: its JSON (REST, client), and dumps of its data frames and tables.

Attributes may be nested or dotted. A data frame may be written as records, as columns, as an index of rows, or split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    attribute_value,
    dotted,
    event,
    given,
    nanoseconds,
    parsed,
    per_part,
    per_record,
    span,
    status_code,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_SPAN_ID: Final = "context.span_id"
_TRACE_ID: Final = "context.trace_id"
_KIND: Final = semconv.KIND_RULES[1][0]
_WHOLE: Final = (
    "metadata",
    "input.value",
    "output.value",
    "llm.invocation_parameters",
    "tool.parameters",
    "llm.prompt_template.variables",
)
"""Attributes that stay one value, however nested they are."""
_READ: Final = frozenset(
    (
        *("name", "span_kind", "parent_id", "start_time", "end_time", "status_code", "status_message", "events"),
        *("context", "attributes", "trace_id", "span_id", _SPAN_ID, _TRACE_ID, "id", "trace_rowid"),
    )
)
_LEFT_OUT: Final = ("cumulative_",)
"""Columns computed over a span and all below it."""


def _sniff(head: Head) -> bool:
    return any(bool(_rows(value)) for value in head.objects)


def _is_row(value: Json) -> bool:
    row = as_mapping(value)
    if "span_kind" not in row or not ("start_time" in row and "status_code" in row):
        return False
    return _SPAN_ID in row or "span_id" in as_mapping(row.get("context")) or {"span_id", "attributes"} <= row.keys()


def _rows(value: Json) -> list[Json]:
    """The rows in a value, each an object; none when it is of no shape that we know."""
    members = as_mapping(value)
    if _is_row(members):
        return [members]
    for key in ("data", "spans"):
        if rows := as_list(members.get(key)):
            columns = as_list(members.get("columns"))
            if columns and _SPAN_ID in columns:
                names = [as_text(column) for column in columns]
                return [dict(zip(names, as_list(row), strict=False)) for row in rows]
            return rows if any(map(_is_row, rows)) else []
    if "span_kind" in members and isinstance(members["span_kind"], dict):
        return _of_columns(members)
    first = next(iter(members.values()), None)
    if _is_row({_SPAN_ID: "", **as_mapping(first)}):
        return [_with_key(key, row) for key, row in members.items()]
    return []


def _of_columns(columns: Mapping[str, Json]) -> list[Json]:
    keys = as_mapping(columns["span_kind"])
    return [_with_key(key, {name: as_mapping(column).get(key) for name, column in columns.items()}) for key in keys]


def _with_key(key: str, row: Json) -> Json:
    """The row with the frame's index, which is the span id, where no column has that."""
    members = as_mapping(row)
    return row if not members or members.get(_SPAN_ID) else {**members, _SPAN_ID: key}


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    rows = _rows(value)
    if not rows:
        raise ValueError("no span of Phoenix")
    return per_part(rows, report, "span", lambda row: _span(row, report))


def _span(item: Json, report: Report) -> Record:
    row = as_mapping(item)
    if not row:
        raise ValueError("a span that is no object")
    context = as_mapping(parsed(row.get("context")))
    attributes = _attributes(row)
    kind = as_text(row.get("span_kind")).upper()
    if kind and kind != "UNKNOWN":
        attributes[_KIND] = kind
    return span(
        trace_id=context.get("trace_id") or row.get(_TRACE_ID) or row.get("trace_id") or row.get("trace_rowid"),
        span_id=context.get("span_id") or row.get(_SPAN_ID) or row.get("span_id"),
        parent_span_id=row.get("parent_id"),
        name=row.get("name"),
        kind="CLIENT" if kind == "LLM" else "INTERNAL",
        start=nanoseconds(row.get("start_time"), report),
        end=nanoseconds(row.get("end_time"), report),
        status=status_code(row.get("status_code")),
        message=row.get("status_message"),
        attributes=attributes,
        events=[_event(one, report) for one in as_list(parsed(row.get("events")))],
        report=report,
    )


def _attributes(row: Mapping[str, Json]) -> dict[str, Json]:
    """Dotted attributes of either spelling, and the other columns of a row under their names."""
    given_attributes = as_mapping(parsed(row.get("attributes")))
    columns = {key.removeprefix("attributes."): held for key, held in row.items() if key.startswith("attributes.")}
    found = given(_dotted({**given_attributes, **columns}))
    for key, value in row.items():
        if key not in _READ and not key.startswith(("attributes.", *_LEFT_OUT)):
            found |= given({f"phoenix.{key}": attribute_value(value)})
    return found


def _dotted(members: Mapping[str, Json]) -> dict[str, Json]:
    flat: dict[str, Any] = dotted(members, keep=_WHOLE)
    return {key: attribute_value(value) if isinstance(value, dict) else value for key, value in flat.items()}


def _event(item: Json, report: Report) -> dict[str, Json]:
    members = as_mapping(item)
    time = nanoseconds(members.get("timestamp") or members.get("time"), report)
    return event(as_text(members.get("name")), time, as_mapping(members.get("attributes")))


FORMAT: Final = Format(
    name="phoenix",
    title="Phoenix",
    description="spans as JSON (one object, an array, lines, `{data: [...]}`), data frames as records, columns, index "
    "or split, rows of its table; nested or dotted attributes",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
