"""Rows of the view ``traces``: pages, counts, and single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from halo_mcp.index.filters import DURATION_MS, TOKENS
from halo_mcp.index.selection import Selection
from halo_mcp.index.snapshot import Snapshot, TraceRows, among_spans
from halo_mcp.index.store import Count, GroupKey, SortKey, TracePage, TraceRow
from halo_mcp.index.work import Work

_SORT_SQL: Final[dict[SortKey, str]] = {
    "start_time": "start_time_unix_nano",
    "-start_time": "-start_time_unix_nano",
    "-duration_ms": f"-({DURATION_MS})",
    "-tokens": f"-({TOKENS})",
    "-error_span_count": "-error_span_count",
    "-span_count": "-span_count",
    "-raw_jsonl_bytes": "-raw_bytes",
}
_LAST: Final = 1 << 62
"""Stands for an unknown sort value: such traces come last."""

_TRACE_GROUPS: Final[dict[str, str]] = {
    "outcome": "outcome",
    "has_errors": "(error_span_count > 0)::VARCHAR",
    "task_key": "task_key",
    "run_id": "run_id",
    "session_id": "session_id",
    "project_id": "project_id",
    "day": "strftime(make_timestamp_ns(start_time_unix_nano), '%Y-%m-%d')",
    "hour": "strftime(make_timestamp_ns(start_time_unix_nano), '%Y-%m-%dT%H:00Z')",
}
_SPAN_GROUPS: Final[dict[str, str]] = {
    "service_name": "service_name",
    "agent_name": "agent_name",
    "model_name": "model_name",
    "tool_name": "tool_name",
    "span_name": "name",
}
_TRACE_FIELDS: Final = [field.name for field in fields(TraceRow) if not field.name.endswith(("_names", "_ids"))]
_TRACE_ROWS: Final = "trace_key, first_row, last_row"
_NAMES: Final = {
    "service_names": "service_name",
    "agent_names": "agent_name",
    "agent_ids": "agent_id",
    "model_names": "model_name",
}


def read_page(
    snapshot: Snapshot,
    selection: Selection,
    sort_by: SortKey,
    limit: int,
    after: tuple[float, str] | None,
    work: Work,
) -> TracePage:
    """``limit`` of the selected traces, behind the position ``after``; unknown sort values come last."""
    condition, values = selection
    ((total,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {condition}", values, work)
    order = f"coalesce({_SORT_SQL[sort_by]}, {_LAST})"
    behind = "" if after is None else f"AND ({order}, trace_id) > (?, ?)"
    rows = snapshot.query(
        f"SELECT {order}, {_TRACE_ROWS}, {', '.join(_TRACE_FIELDS)} FROM traces WHERE {condition} {behind} "
        f"ORDER BY 1, trace_id LIMIT {limit + 1}",
        [*values, *(after or ())],
        work,
    )
    page = rows[:limit]
    names = _names(snapshot, [TraceRows(*row[1:4]) for row in page])
    return TracePage(
        traces=tuple(_trace_row(row[4:], names.get(row[1], {})) for row in page),
        positions=tuple((row[0], row[4]) for row in page),
        total=total,
        more=len(rows) > limit,
    )


def read_counts(snapshot: Snapshot, selection: Selection, group_by: GroupKey | None, work: Work) -> list[Count]:
    """How many of the selected traces are in each group, largest first; one Count with value None without groups."""
    condition, values = selection
    if group_by is None:
        ((total,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {condition}", values, work)
        return [Count(None, total)]
    if group_by in _TRACE_GROUPS:
        sql = f"SELECT {_TRACE_GROUPS[group_by]} AS value, count(*) AS n FROM traces WHERE {condition} GROUP BY 1"
    else:
        column = _SPAN_GROUPS[group_by]
        sql = (
            f"SELECT value, count(*) AS n FROM (SELECT DISTINCT trace_key, {column} AS value FROM spans "
            f"WHERE {among_spans(condition)} AND {column} IS NOT NULL) GROUP BY 1"
        )
    return [Count(value, n) for value, n in snapshot.query(f"{sql} ORDER BY n DESC, value", values, work)]


def read_trace(snapshot: Snapshot, key: int) -> TraceRow:
    """The trace with this key."""
    ((*row,),) = snapshot.query(
        f"SELECT {_TRACE_ROWS}, {', '.join(_TRACE_FIELDS)} FROM traces WHERE trace_key = ?", [key]
    )
    return _trace_row(row[3:], _names(snapshot, [TraceRows(*row[:3])]).get(key, {}))


def _names(snapshot: Snapshot, traces: Sequence[TraceRows]) -> dict[int, dict[str, tuple[str, ...]]]:
    """The distinct services, agents and models of a few traces, by trace key."""
    found: dict[int, list[set[str]]] = {trace.key: [set() for _ in _NAMES] for trace in traces}
    for spans in snapshot.spans_of_many(traces):
        for key, *names in snapshot.query(f"SELECT DISTINCT trace_key, {', '.join(_NAMES.values())} FROM {spans}"):
            for known, name in zip(found[key], names, strict=True):
                known.add(name)
    return {
        key: {field: tuple(sorted(known - {None})) for field, known in zip(_NAMES, sets, strict=True)}
        for key, sets in found.items()
    }


def _trace_row(row: Sequence[Any], names: Mapping[str, Any]) -> TraceRow:
    return TraceRow(**dict(zip(_TRACE_FIELDS, row, strict=True)), **names)
