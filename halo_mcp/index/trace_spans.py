"""The spans of one trace, or of several: their rows, their payloads, and where a pattern occurs in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Final

import numpy as np

from halo_mcp.errors import UnknownSpan
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.patterns import Pattern
from halo_mcp.index.places import Places
from halo_mcp.index.search import SpanSearch
from halo_mcp.index.selection import Selection, keys_of
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.span import Json, Span
from halo_mcp.index.store import SearchResult, SpanRow
from halo_mcp.index.work import Work

_SPAN_FIELDS: Final = [field.name for field in fields(SpanRow) if field.name not in ("error_text", "raw_bytes")]


@dataclass(frozen=True, slots=True)
class ChosenSpans:
    """Some spans of one trace, in the order in which they were written."""

    key: int
    """Of the trace."""
    places: Places
    numbers: Sequence[int]
    """Which spans of the trace they are, counted from 0."""
    unknown_ids: tuple[str, ...] = ()


def choose_spans(snapshot: Snapshot, key: int, span_ids: Sequence[str]) -> ChosenSpans:
    """The asked spans of a trace, all without ids. Raises: UnknownSpan when none of the ids is known."""
    places = snapshot.places_of(key)
    if not span_ids:
        return ChosenSpans(key, places, range(len(places)))
    wanted = {normalize_id(span_id.strip()): span_id for span_id in span_ids}
    rows = snapshot.query(
        f"SELECT span_id, source_no, byte_offset FROM {snapshot.spans_of(key)} AND list_contains(?, span_id)",
        [list(wanted)],
    )
    known = {row[0] for row in rows}
    if not known:
        raise UnknownSpan(snapshot.trace_id(key), span_ids)
    at = {(source_no, offset) for _, source_no, offset in rows}
    stands = zip(places.source_no.tolist(), places.offset.tolist(), strict=True)
    positions = [position for position, place in enumerate(stands) if place in at]
    return ChosenSpans(
        key,
        places.where(np.array(positions, dtype=np.int64)),
        positions,
        tuple(wanted[i] for i in wanted if i not in known),
    )


def read_spans(snapshot: Snapshot, key: int) -> list[SpanRow]:
    """All spans of a trace in time order."""
    rows = snapshot.query(
        f"SELECT {', '.join(_SPAN_FIELDS)}, CASE WHEN status_code = 'ERROR' THEN failure_text END, byte_length "
        f"FROM {snapshot.spans_of(key)} "
        "ORDER BY start_time_unix_nano NULLS LAST, source_no, byte_offset"
    )
    return [SpanRow(*row) for row in rows]


def read_payloads(snapshot: Snapshot, chosen: ChosenSpans) -> list[Span]:
    """The spans themselves."""
    sources, places = snapshot.sources(), chosen.places
    stands = zip(places.source_no.tolist(), places.length.tolist(), sources.texts(places), strict=True)
    return [
        Span.from_json(sources.record(source_no, text, snapshot.trace_id(chosen.key)), length)
        for source_no, length, text in stands
    ]


def read_records(
    snapshot: Snapshot, selection: Selection, offset: int, limit: int, work: Work
) -> Iterator[Mapping[str, Json]]:
    """``limit`` spans of the selected traces, from number ``offset`` on, as the JSON objects of their sources."""
    places, keys = snapshot.places_of_many(keys_of(snapshot, selection, work))
    chosen, owners = places.where(slice(offset, offset + limit)), keys[offset : offset + limit].tolist()
    sources = snapshot.sources()
    for source_no, key, text in zip(chosen.source_no.tolist(), owners, sources.texts(chosen), strict=True):
        work.check()
        yield sources.record(source_no, text, snapshot.trace_id(key))


def search_spans(
    snapshot: Snapshot,
    chosen: ChosenSpans,
    pattern: Pattern,
    *,
    context_chars: int,
    max_matches: int,
    work: Work,
) -> SearchResult:
    """Where a pattern occurs in the chosen spans; the deadline ends the search, not the answer."""
    found = SpanSearch(pattern, context_chars, max_matches)
    sources, own_id = snapshot.sources(), snapshot.trace_id(chosen.key)
    stands = zip(chosen.numbers, chosen.places.source_no.tolist(), sources.texts(chosen.places), strict=True)
    for number, source_no, text in stands:
        if work.expired:
            break
        work.check()
        found.add(number, text, partial(sources.record, source_no, trace_id=own_id))
    return SearchResult(
        matches=tuple(found.matches),
        total=found.total,
        spans_searched=found.searched,
        spans_total=len(chosen.numbers),
        spans_matched=found.matched,
        incomplete=found.searched < len(chosen.numbers),
        unknown_span_ids=chosen.unknown_ids,
    )
