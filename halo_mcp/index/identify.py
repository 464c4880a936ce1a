"""What a text is the id of: exactly, or as the beginning of one. From a snapshot of a local index."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection
from typing import Final

from halo_mcp.index.ids import normalize_id
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.store import IdKind, IdMatch
from halo_mcp.index.views import KEY_SHIFT
from halo_mcp.index.work import Work

MIN_PREFIX: Final = 8
"""Characters of the shortest beginning that may stand for an id."""
MATCHES: Final = 3
"""So many of one kind are told."""
_SAMPLES: Final = 500
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")
_MARKS_OF_A_CUT: Final = "….*"
_TRACE_COLUMNS: Final[dict[IdKind, str]] = {
    "session": "session_id",
    "run": "run_id",
    "task": "task_key",
    "project": "project_id",
}


def find_ids(
    snapshot: Snapshot, texts: Collection[str], trace_key: int | None, work: Work
) -> dict[str, tuple[IdMatch, ...]]:
    """See ``SpanStore.find_ids``; with ``trace_key`` only spans of that trace."""
    exact = {text: normalize_id(text.strip()) for text in texts}
    spans = _spans(snapshot, "s.span_id = w.id", set(exact.values()), trace_key, work)
    others = {} if trace_key is not None else _others(snapshot, set(exact.values()), work)
    found: dict[str, tuple[IdMatch, ...]] = {}
    for text, wanted in exact.items():
        traces = [IdMatch("trace", wanted)] if trace_key is None and snapshot.find(wanted) is not None else []
        found[text] = (*traces, *spans.get(wanted, ()), *others.get(wanted, ()))
    begun = {text: _beginning(text) for text in texts if not found[text]}
    begun = {text: start for text, start in begun.items() if len(start) >= MIN_PREFIX}
    if begun:
        same_start = f"left(s.span_id, {MIN_PREFIX}) = left(w.id, {MIN_PREFIX}) AND starts_with(s.span_id, w.id)"
        spans = _spans(snapshot, same_start, set(begun.values()), trace_key, work)
        for text, start in begun.items():
            traces = list[IdMatch]() if trace_key is not None else _traces_from(snapshot, start)
            found[text] = (*traces, *spans.get(start, ()))
    return found


def sample_ids(snapshot: Snapshot, work: Work) -> list[str]:
    """Ids of traces spread over the dataset, and of some spans: what ids look like here."""
    found: list[str] = []
    for segment in snapshot.located:
        found += segment.trace_ids[:: max(1, len(segment.trace_ids) // _SAMPLES)]
    rows = snapshot.query(f"SELECT span_id FROM spans WHERE span_id IS NOT NULL LIMIT {_SAMPLES}", (), work)
    return found + [span_id for (span_id,) in rows]


def _beginning(text: str) -> str:
    start = text.strip().rstrip(_MARKS_OF_A_CUT)
    return start.lower() if _HEX.fullmatch(start) else start


def _spans(
    snapshot: Snapshot, condition: str, wanted: Collection[str], trace_key: int | None, work: Work
) -> dict[str, list[IdMatch]]:
    source = "spans" if trace_key is None else snapshot.spans_of(trace_key)
    rows = snapshot.query(
        f"SELECT DISTINCT w.id, s.trace_id, s.span_id FROM (SELECT unnest(?::VARCHAR[]) AS id) AS w "
        f"JOIN (SELECT trace_id, span_id FROM {source}) AS s ON {condition} "
        f"QUALIFY dense_rank() OVER (PARTITION BY w.id ORDER BY s.trace_id, s.span_id) <= {MATCHES} ORDER BY ALL",
        [sorted(wanted)],
        work,
    )
    found: dict[str, list[IdMatch]] = {}
    for wanted_id, trace_id, span_id in rows:
        found.setdefault(wanted_id, []).append(IdMatch("span", trace_id, span_id))
    return found


def _others(snapshot: Snapshot, wanted: Collection[str], work: Work) -> dict[str, list[IdMatch]]:
    listed, found = sorted(wanted), dict[str, list[IdMatch]]()
    for kind, column in _TRACE_COLUMNS.items():
        sql = f"SELECT {column}, min(trace_id) FROM traces WHERE list_contains(?, {column}) GROUP BY 1"
        for value, trace_id in snapshot.query(sql, [listed], work):
            found.setdefault(value, []).append(IdMatch(kind, trace_id))
    sql = "SELECT failure_mode, min(trace_id) FROM spans WHERE list_contains(?, failure_mode) GROUP BY 1"
    for value, trace_id in snapshot.query(sql, [listed], work):
        found.setdefault(value, []).append(IdMatch("failure mode", trace_id))
    return found


def _traces_from(snapshot: Snapshot, start: str) -> list[IdMatch]:
    """Traces whose ids begin so, at most MATCHES."""
    found: set[str] = set()
    for no, segment in enumerate(snapshot.located):
        trace_no, here = bisect_left(segment.trace_ids, start), 0
        while here < MATCHES and trace_no < len(segment.trace_ids) and segment.trace_ids[trace_no].startswith(start):
            if (no << KEY_SHIFT) | trace_no not in snapshot.dead_keys:
                found.add(segment.trace_ids[trace_no])
                here += 1
            trace_no += 1
    return [IdMatch("trace", trace_id) for trace_id in sorted(found)[:MATCHES]]
