"""Search over the payloads of many traces: which spans match, counted in groups, with snippets from where texts begin.

The scan goes through the sources in the order of their bytes. What it has found is remembered with the snapshot, so
that a later call goes on where the deadline ended this one, and further pages of snippets need no scan at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from halo_mcp.errors import InvalidCursor
from halo_mcp.index import semconv
from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroup, MatchGroupKey, Snippet, TraceCounts, Where
from halo_mcp.index.places import Places
from halo_mcp.index.reading import Sources
from halo_mcp.index.scan import matching_spans, pattern_condition
from halo_mcp.index.search import match_in, occurrences
from halo_mcp.index.selection import Selection, keys_of
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.span import Span
from halo_mcp.index.store import Match
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.patterns import Pattern

_PER_TRACE: Final = 2
"""Snippets of one trace on a page."""
_GROUP_SQL: Final[Mapping[MatchGroupKey, str]] = {
    "trace": "spans.trace_id",
    "span_name": "spans.name",
    "tool": "spans.tool_name",
    "kind": "spans.observation_kind",
    "failure_mode": "spans.failure_mode",
    "agent": "spans.agent_name",
    "model": "spans.model_name",
    "outcome": "traces.outcome",
}
_TRACES_BY_OUTCOME: Final = "count(*), count(*) FILTER (outcome = 'fail'), count(*) FILTER (outcome = 'pass')"
_BY_OUTCOME: Final = (
    "count(DISTINCT trace_key), count(DISTINCT trace_key) FILTER (verdict = 'fail'), "
    "count(DISTINCT trace_key) FILTER (verdict = 'pass')"
)
_INPUTS: Final = (*semconv.INPUT_MESSAGES, *semconv.FLAT_INPUT_PREFIXES, *semconv.INPUT_VALUE)
_UNKNOWN_LAST: Final = 1 << 62


@dataclass(frozen=True)
class _Found:
    """The spans that match among the first ``searched_spans``."""

    snapshot: Snapshot
    searched_spans: int = 0
    searched_bytes: int = 0
    places: Places = field(default_factory=Places.of)
    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The trace of each."""

    @property
    def tables(self) -> dict[str, dict[str, NDArray[Any]]]:
        places = {"source_no": self.places.source_no, "byte_offset": self.places.offset}
        return {"found": {"trace_key": self.keys, **places}}

    @cached_property
    def pages(self) -> _Pages:
        return _in_page_order(self)


@dataclass(frozen=True, slots=True)
class _Pages:
    """The matching spans in the order of their snippets."""

    places: Places
    keys: NDArray[np.int64]
    turn: NDArray[np.int64]
    """Which of its trace's matching spans each is."""
    llm: NDArray[np.bool_]

    @property
    def may_repeat(self) -> int:
        """How many are LLM spans that are not the first of their trace."""
        return int(np.count_nonzero(self.llm & (self.turn > 0)))


@dataclass(slots=True)
class _Search:
    """One question; calls that work on it at once each put back what is further along."""

    selected: TraceCounts
    total_spans: int
    total_bytes: int
    found: _Found


def search_dataset(
    snapshot: Snapshot,
    selected: Selection,
    pattern: Pattern,
    *,
    question: str,
    group_by: MatchGroupKey | None,
    max_groups: int,
    max_snippets: int,
    context_chars: int,
    after: Where | None,
    work: Work,
) -> DatasetMatches:
    """Search the traces for which the condition ``selected`` holds; ``question`` names pattern and filters.

    ``after`` goes on where an earlier answer ended: with the scan if that was incomplete, else with the snippets. The
    deadline ends the scan, not the answer. Raises: InvalidCursor when the earlier answer was about other data.
    """
    search = snapshot.remembered(f"search {question}", lambda: _begun(snapshot, selected, work), large=True)
    restarted = after is not None and search.found.searched_spans < after.searched_spans
    found = search.found
    if found.searched_spans < search.total_spans:
        found = _scanned_on(snapshot, selected, pattern, found, work)
        if found.searched_spans > search.found.searched_spans:
            search.found = found
    at = 0
    if after is not None and found.searched_spans == search.total_spans == after.searched_spans:
        at, restarted = after.snippet, False
        if after.matching_spans != len(found.keys):
            raise InvalidCursor("search_dataset")
    # What is left of the time went into the scan: counting what it found must not fail for it.
    finishing = work.renewed(work.deadline_s) if work.deadline_s is not None else work
    groups, group_count = _groups(found, group_by, max_groups, finishing)
    snippets = _snippets(found, pattern, at, max_snippets, context_chars)
    end = at + len(snippets)
    more = end < len(found.keys) or found.searched_spans < search.total_spans
    return DatasetMatches(
        selected=search.selected,
        matching=_by_outcome(snapshot, found, finishing),
        matching_spans=len(found.keys),
        searched_spans=found.searched_spans,
        total_spans=search.total_spans,
        searched_bytes=found.searched_bytes,
        total_bytes=search.total_bytes,
        groups=groups,
        group_count=group_count,
        may_repeat=found.pages.may_repeat,
        snippets=snippets,
        here=Where(*_state(found), at),
        following=Where(*_state(found), end) if more else None,
        restarted=restarted,
    )


def _state(found: _Found) -> tuple[int, int]:
    return found.searched_spans, len(found.keys)


# --- scanning ---------------------------------------------------------------------------------------------------------


def _begun(snapshot: Snapshot, selected: Selection, work: Work) -> _Search:
    condition, values = selected
    ((traces, failing, passing, spans, size),) = snapshot.query(
        f"SELECT {_TRACES_BY_OUTCOME}, "
        f"coalesce(sum(span_count), 0)::BIGINT, coalesce(sum(raw_bytes), 0)::BIGINT FROM traces WHERE {condition}",
        values,
        work,
    )
    return _Search(TraceCounts(traces, failing, passing), spans, size, _Found(snapshot))


def _scanned_on(snapshot: Snapshot, selected: Selection, pattern: Pattern, found: _Found, work: Work) -> _Found:
    places, keys = snapshot.places_of_many(keys_of(snapshot, selected, work))
    if not places.are_sorted:
        order = np.lexsort((places.offset, places.source_no))
        places, keys = places.where(order), keys[order]
    sources = snapshot.sources()
    scanned = matching_spans(sources, places, pattern_condition(pattern), work, first=found.searched_spans)
    return _Found(
        snapshot,
        scanned.upto,
        int(places.length[: scanned.upto].sum()),
        Places.joined([found.places, places.where(scanned.rows)]),
        np.concatenate([found.keys, keys[scanned.rows]]),
    )


# --- counting ---------------------------------------------------------------------------------------------------------


def _by_outcome(snapshot: Snapshot, found: _Found, work: Work) -> TraceCounts:
    traces = {"found_traces": {"trace_key": np.unique(found.keys)}}
    ((*counts,),) = snapshot.query(
        f"SELECT {_TRACES_BY_OUTCOME} FROM traces WHERE trace_key IN (SELECT trace_key FROM found_traces)",
        work=work,
        tables=traces,
    )
    return TraceCounts(*counts)


def _groups(
    found: _Found, group_by: MatchGroupKey | None, limit: int, work: Work
) -> tuple[tuple[MatchGroup, ...], int]:
    """The largest groups, and how many there are."""
    if group_by is None or not len(found.keys):
        return (), 0
    rows = found.snapshot.query(
        f"SELECT value, count(*), {_BY_OUTCOME}, count(*) OVER () FROM ("
        f"SELECT {_GROUP_SQL[group_by]} AS value, spans.trace_key, traces.outcome AS verdict "
        f"FROM {found.snapshot.spans_at('found')} AS spans JOIN traces ON spans.trace_key = traces.trace_key) "
        f"GROUP BY value ORDER BY 3 DESC, 2 DESC, value NULLS LAST LIMIT {limit}",
        work=work,
        tables=found.tables,
    )
    groups = tuple(MatchGroup(row[0], row[1], TraceCounts(*row[2:5])) for row in rows)
    return groups, rows[0][5] if rows else 0


# --- snippets ---------------------------------------------------------------------------------------------------------


def _in_page_order(found: _Found) -> _Pages:
    """First one matching span of every trace, then a second one of those that have more, and so on.

    Of a trace, the span that ended first comes first: a text stands in a tool's output before later calls repeat it,
    and in a child before its parent. Behind it LLM spans, which repeat message history, come last. Traces are in the
    order of their bit-reversed number in time: however few come onto a page, they are spread evenly over all of them.
    """
    rows = found.snapshot.arrays(
        "SELECT spans.trace_key, spans.source_no, spans.byte_offset, spans.byte_length, observation_kind = 'LLM' AS llm"
        f" FROM {found.snapshot.spans_at('found')} AS spans JOIN traces ON spans.trace_key = traces.trace_key "
        f"ORDER BY coalesce(traces.start_time_unix_nano, {_UNKNOWN_LAST}), spans.trace_id, "
        f"coalesce(spans.end_time_unix_nano, {_UNKNOWN_LAST}), spans.start_time_unix_nano DESC NULLS LAST, "
        "spans.source_no, spans.byte_offset",
        tables=found.tables,
    )
    keys, llm = rows["trace_key"].astype(np.int64), rows["llm"].astype(np.bool_)
    places = Places(rows["source_no"], rows["byte_offset"], rows["byte_length"].astype(np.int64))
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    trace = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(keys)))
    position = np.arange(len(keys))
    behind = llm & (position > firsts[trace])
    turn = np.empty_like(position)
    turn[np.lexsort((position, behind, trace))] = position - firsts[trace]
    order = np.lexsort((_bits_reversed(len(firsts))[trace], turn))
    return _Pages(places.where(order), keys[order], turn[order], llm[order])


def _bits_reversed(count: int) -> NDArray[np.int64]:
    numbers = np.arange(count, dtype=np.int64)
    result: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
    for _ in range(max(0, count - 1).bit_length()):
        result = result * 2 + numbers % 2
        numbers = numbers // 2
    return result


def _snippets(found: _Found, pattern: Pattern, first: int, limit: int, context_chars: int) -> tuple[Snippet, ...]:
    if first >= len(found.keys):
        return ()
    pages = found.pages
    last = int(np.searchsorted(pages.turn, int(pages.turn[first]) + _PER_TRACE))
    rows = np.arange(first, min(last, first + limit), dtype=np.int64)
    by_place = rows[np.lexsort((pages.places.offset[rows], pages.places.source_no[rows]))]
    sources = found.snapshot.sources()
    numbers: list[int] = by_place.tolist()
    texts = dict(zip(numbers, sources.texts(pages.places.where(by_place)), strict=True))
    return tuple(_snippet(found, sources, pattern, row, texts[row], context_chars) for row in rows.tolist())


def _snippet(found: _Found, sources: Sources, pattern: Pattern, row: int, text: bytes, context_chars: int) -> Snippet:
    pages, key = found.pages, int(found.pages.keys[row])
    source_no, offset = int(pages.places.source_no[row]), int(pages.places.offset[row])
    trace_id = found.snapshot.trace_id(key)
    record = sources.record(source_no, text, trace_id)
    span = Span.from_json(record, int(pages.places.length[row]))
    of_trace = found.snapshot.places_of(key)
    index = int(np.flatnonzero((of_trace.source_no == source_no) & (of_trace.offset == offset))[0])
    hits = list(occurrences(pattern, record, text))
    own = [hit for hit in hits if not (pages.llm[row] and _is_input(hit[0]))]
    first = pages.turn[row] == 0
    return Snippet(
        trace_id=trace_id,
        match=_first_match(span, index, own or hits, context_chars),
        matches_in_span=sum(len(positions) for _, _, positions in hits),
        first_in_trace=bool(first),
        repeated=bool(hits and not own and not first),
    )


def _first_match(
    span: Span, index: int, hits: list[tuple[str, str, list[tuple[int, int]]]], context_chars: int
) -> Match:
    path, value, positions = hits[0] if hits else ("", "", [(0, 0)])
    return match_in(span, index, path, value, positions[0], context_chars)


def _is_input(path: str) -> bool:
    """Whether a value of an LLM span is what the model was given."""
    return path.removeprefix("attributes.").startswith(_INPUTS)
