"""The SQL that turns the segments of an index into the views ``spans``, ``traces`` and ``facets``.

One place for every process that reads an index: a Snapshot, and the workers that run a model's SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halo_mcp.index import columns
from halo_mcp.index.duck import quoted
from halo_mcp.index.outcomes import DEFAULT_VIEW, OutcomeView
from halo_mcp.index.privacy import OPEN, Privacy
from halo_mcp.index.segments import SegmentInfo, SourceState

KEY_SHIFT: Final = 32
"""trace_key = (segment number << 32) | trace number."""


@dataclass(frozen=True, slots=True)
class SqlState:
    """One state of an index, as another process may open it for reading."""

    directory: Path
    segment_files: tuple[str, ...]
    statements: tuple[str, ...]
    """To be run in this order in a fresh in-memory database, before it is cut off from all files."""
    sources: tuple[SourceState, ...]
    """``source_no`` counts in these; none where payloads are withheld."""
    privacy: Privacy = OPEN


def opening_statements(directory: Path, segments: Sequence[SegmentInfo]) -> list[str]:
    """Attach the segments, read-only, as s0, s1, ...; then the table ``superseded``: traces that a later one holds."""
    attached = [
        f"ATTACH {quoted(str(directory / segment.file))} AS s{no} (READ_ONLY)" for no, segment in enumerate(segments)
    ]
    parts = [f"SELECT {no} AS segment, * FROM s{no}.superseded" for no in range(len(segments))]
    empty = "SELECT 0 AS segment, '' AS file, 0 AS trace_no WHERE false"
    return [*attached, f"CREATE TABLE superseded AS {' UNION ALL '.join(parts or [empty])}"]


def view_statements(
    segments: Sequence[SegmentInfo],
    dead: Collection[str],
    failures: columns.FailureColumns = columns.DEFAULT_FAILURES,
    privacy: Privacy = OPEN,
    outcomes: OutcomeView = DEFAULT_VIEW,
) -> list[str]:
    """Create the views. ``dead``: the segment files with superseded traces; ``facets`` is there only without any.

    Where ``outcomes`` are labelled the table ``labels`` must be there.
    """
    spans, facets = list[str](), list[str]()
    traces = trace_selects(segments, dead, outcomes)
    for no, segment in enumerate(segments):
        key, alive = _trace_key(no), _alive(segment, dead)
        spans.append(
            f"SELECT {privacy.own_columns('o')}, t.*, {key} AS trace_key, {failures.select} FROM s{no}.own AS o "
            f"JOIN s{no}.tree AS t ON o.rowid = t.row {alive}"
        )
        facets.append(f"FROM s{no}.facets")
    if not segments:
        spans.append(
            f"SELECT {_nulls((*columns.OWN_COLUMNS, *columns.TREE_COLUMNS, *columns.VIEW_COLUMNS))} WHERE false"
        )
        traces.append(f"SELECT {_nulls(columns.TRACE_COLUMNS)} WHERE false")
        facets.append(f"SELECT {_nulls(columns.FACET_COLUMNS)} WHERE false")
    views = {"spans": spans, "traces": traces} | ({} if dead else {"facets": facets})
    return [f"CREATE VIEW {name} AS {' UNION ALL '.join(parts)}" for name, parts in views.items()]


def trace_selects(
    segments: Sequence[SegmentInfo], dead: Collection[str], outcomes: OutcomeView = DEFAULT_VIEW
) -> list[str]:
    """The traces of each segment as the view shows them."""
    return [outcomes.select(no, _trace_key(no), _alive(segment, dead)) for no, segment in enumerate(segments)]


def _trace_key(segment_no: int) -> str:
    return f"(({segment_no}::BIGINT << {KEY_SHIFT}) | trace_no)"


def _alive(segment: SegmentInfo, dead: Collection[str]) -> str:
    if segment.file not in dead:
        return ""
    return f"WHERE trace_no NOT IN (SELECT trace_no FROM superseded WHERE file = {quoted(segment.file)})"


def _nulls(wanted: Sequence[columns.Column]) -> str:
    selected = ", ".join(f"NULL::{column.type} AS {column.name}" for column in {c.name: c for c in wanted}.values())
    return f"{selected}, 0::BIGINT AS trace_key"
