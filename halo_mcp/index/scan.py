"""Which spans of a dataset, or which traces, have a payload that meets a condition: one pass over the raw bytes.

A raw search finds candidates at the speed of memory; a candidate is confirmed by decoding only where the raw match
proves nothing. Where only traces are asked for, the other spans of a trace that is known to match are passed over.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from halo_mcp.errors import DeadlineExceeded
from halo_mcp.index.finding import Finder, finder
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.places import Places
from halo_mcp.index.reading import Sources
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.patterns import Pattern

_BLOCK_BYTES: Final = 2 * 1024 * 1024
_GAP_BYTES: Final = 256 * 1024
"""Spans that are not asked about are read along with their neighbours up to this distance: cheaper than a new read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What to look for in each span's bytes."""

    find: Finder
    """Finds something in the bytes of every span that meets the condition, and maybe in others."""
    confirm: Callable[[bytes], bool] | None
    """Decides on the bytes of a candidate span; None when what was found is proof enough."""


def pattern_condition(pattern: Pattern) -> Condition:
    """The pattern matches a span's raw JSON or some decoded value."""
    from halo_mcp.index.patterns import pattern_matches_span

    def confirm(text: bytes) -> bool:
        if pattern.text.search(text) is not None:
            return True
        record = parse_record(text)
        return record is not None and pattern_matches_span(pattern, text, record)

    return Condition(finder(pattern), None if pattern.raw_is_exact else confirm)


@dataclass(frozen=True, slots=True)
class Scanned:
    """How far a scan came, and what it found up to there."""

    upto: int
    """The places before this one were searched, and no others."""
    rows: NDArray[np.int64]
    """The places that match, sorted."""


def matching_traces(
    sources: Sources, places: Places, trace: NDArray[np.int64], condition: Condition, work: Work
) -> NDArray[np.int64]:
    """Those values of ``trace`` (one per place) of which some span meets the condition, sorted.

    Raises: SourceChanged, SourceUnreadable, Cancelled; DeadlineExceeded, which says how much was scanned.
    """
    work.check()
    if not places.are_sorted:
        order = np.lexsort((places.offset, places.source_no))
        places, trace = places.where(order), trace[order]
    scanned = matching_spans(sources, places, condition, work, once_per=trace)
    if scanned.upto < len(places):
        done, total = places.length[: scanned.upto].sum(), places.length.sum()
        raise DeadlineExceeded(
            work.deadline_s or 0.0,
            f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB were searched. "
            "Narrow the search with other filters first (time, tools, models).",
        )
    return np.unique(trace[scanned.rows])


def matching_spans(
    sources: Sources,
    places: Places,
    condition: Condition,
    work: Work,
    *,
    first: int = 0,
    once_per: NDArray[np.int64] | None = None,
) -> Scanned:
    """The places, from number ``first`` on, whose spans meet the condition. Places must be sorted.

    With ``once_per`` (one value per place) only some of the places with an equal value need to be found. The deadline
    ends the scan early, but never before its first block, so that a scan which is resumed comes to an end.
    Raises: SourceChanged, SourceUnreadable, Cancelled.
    """
    runs = [
        (first + start, first + stop) for start, stop in places.where(slice(first, None)).runs(_GAP_BYTES, _BLOCK_BYTES)
    ]
    total, done = int(places.length[first:].sum()), 0
    scanner = _Scanner(sources, places, condition, once_per)
    found, upto = [np.zeros(0, np.int64)], first

    def scan(run: tuple[int, int]) -> NDArray[np.int64]:
        if run[0] > first or work.stopped:
            work.check()
        return np.array(scanner.scan(*run), np.int64)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="halo-mcp-scan") as pool:
        pending = [pool.submit(scan, run) for run in runs]
        try:
            for (start, stop), future in zip(runs, pending, strict=True):
                found.append(future.result())
                upto = stop
                done += int(places.length[start:stop].sum())
                work.report(done, total, f"searching {total / 1e6:,.0f} MB")
        except DeadlineExceeded:
            pass  # what lies behind the first block that was not searched is searched again
        finally:
            for future in pending:
                future.cancel()
            wait(pending, return_when=FIRST_EXCEPTION)
    return Scanned(upto, np.concatenate(found))


class _Scanner:
    """Looks for the condition block by block, in several threads at once."""

    def __init__(
        self, sources: Sources, places: Places, condition: Condition, once_per: NDArray[np.int64] | None
    ) -> None:
        self._sources = sources
        self._places = places
        self._condition = condition
        self._once_per = once_per
        self._known: set[int] = set()
        self._local = threading.local()

    def scan(self, first: int, last: int) -> list[int]:
        """Those of the places [first, last), neighbours in one source, whose spans meet the condition."""
        places, find = self._places.where(slice(first, last)), self._condition.find
        base = int(places.offset[0])
        view = self._read(int(places.source_no[0]), base, int(places.offset[-1] + places.length[-1]) - base)
        size, found = len(view), list[int]()
        match = find(view, 0, size)
        if match is None:
            return found
        starts: list[int] = (places.offset - base).tolist()
        ends: list[int] = (places.offset - base + places.length).tolist()
        owners: list[int] | None = None if self._once_per is None else self._once_per[first:last].tolist()
        index = 0
        while match is not None:
            index = bisect_right(ends, match[0], index)
            if index == len(ends):
                break
            start, end = starts[index], ends[index]
            if match[0] < start or match[1] > end:
                match = find(view, start, end)  # it reaches out of the span: is there another one inside?
            if match is not None and self._holds(view[start:end]):
                found.append(first + index)
                if owners is not None:
                    self._known.add(owners[index])
            index += 1
            while owners is not None and index < len(ends) and owners[index] in self._known:
                index += 1
            match = find(view, starts[index], size) if index < len(ends) else None
        return found

    def _holds(self, text: memoryview) -> bool:
        return self._condition.confirm is None or self._condition.confirm(bytes(text))

    def _read(self, source_no: int, offset: int, size: int) -> memoryview:
        """Each thread has one buffer for all blocks but the largest: fresh memory costs as much as reading into it."""
        if size > _BLOCK_BYTES:
            buffer = bytearray(size)
        else:
            buffer = getattr(self._local, "buffer", None) or bytearray(_BLOCK_BYTES)
            self._local.buffer = buffer
        view = memoryview(buffer)[:size]
        with self._sources.open(source_no) as file:
            self._sources.read_into(file, source_no, offset, view)
        return view
