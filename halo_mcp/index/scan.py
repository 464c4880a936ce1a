"""Which traces of a dataset have a span whose payload meets a condition: one pass over the raw bytes.

A raw regex finds candidates at the speed of memory; a candidate is confirmed by decoding only where the raw match
proves nothing. Once a trace is known to match, its other spans are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from halo_mcp.errors import DeadlineExceeded
from halo_mcp.index.places import Places
from halo_mcp.index.reading import Sources
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.patterns import Regex

_BLOCK_BYTES: Final = 8 * 1024 * 1024
_GAP_BYTES: Final = 256 * 1024
"""Spans that are not asked about are read along with their neighbours up to this distance: cheaper than another read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What to look for in each span's bytes."""

    candidate: Regex
    """Matches the bytes of every span that meets the condition, and maybe of others."""
    confirm: Callable[[bytes], bool] | None
    """Decides on the bytes of a candidate span; None when the candidate's match is proof enough."""


def matching_traces(
    sources: Sources, places: Places, trace: NDArray[np.int64], condition: Condition, work: Work
) -> NDArray[np.int64]:
    """Those values of ``trace`` (one per place) of which some span meets the condition, sorted.

    Raises: SourceChanged, SourceUnreadable, Cancelled; DeadlineExceeded, which says how much was scanned.
    """
    order = np.lexsort((places.offset, places.source_no))
    places, trace = places.where(order), trace[order]
    keys, numbers = np.unique(trace, return_inverse=True)
    found = np.zeros(len(keys), dtype=np.bool_)
    runs = list(places.runs(_GAP_BYTES, _BLOCK_BYTES))
    total = int(places.length.sum())
    done = 0

    def scan(run: tuple[int, int]) -> int:
        work.check()
        return _scan_block(sources, places.where(np.arange(*run)), numbers[slice(*run)], found, condition)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="halo-mcp-scan") as pool:
        pending = [pool.submit(scan, run) for run in runs]
        try:
            for future in pending:
                done += future.result()
                work.report(done, total, f"searching {total / 1e6:,.0f} MB")
        except DeadlineExceeded as error:
            share = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            raise DeadlineExceeded(
                error.seconds, f"{share} were searched. Narrow the search with other filters first (time, tools, models)."
            ) from error
        finally:
            for future in pending:
                future.cancel()
            wait(pending, return_when=FIRST_EXCEPTION)
    return keys[found]


def _scan_block(
    sources: Sources, places: Places, numbers: NDArray[np.int64], found: NDArray[np.bool_], condition: Condition
) -> int:
    """Scan neighbouring places of one source; returns how many bytes of them there are."""
    source_no, base = int(places.source_no[0]), int(places.offset[0])
    block = bytearray(int(places.offset[-1] + places.length[-1]) - base)
    view = memoryview(block)
    with sources.open(source_no) as file:
        sources.read_into(file, source_no, base, view)
    starts = places.offset - base
    ends = starts + places.length
    index, count, position = 0, len(places), 0
    search = condition.candidate.search
    while match := search(view, position):
        index = int(np.searchsorted(ends, match.start(), side="right"))
        if index >= count:
            break
        inside = match.start() >= starts[index]
        if (
            inside
            and not found[numbers[index]]
            and (condition.confirm is None or condition.confirm(bytes(view[starts[index] : ends[index]])))
        ):
            found[numbers[index]] = True
        index += inside
        while index < count and found[numbers[index]]:
            index += 1
        if index >= count:
            break
        position = max(int(starts[index]), match.start() + 1 if not inside else 0)
    return int(places.length.sum())

