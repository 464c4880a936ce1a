"""Which traces of a dataset have a span whose payload meets a condition: one pass over the raw bytes.

A raw regex finds candidates at the speed of memory; a candidate is confirmed by decoding only where the raw match
proves nothing. Once a trace is known to match, its other spans are passed over.
"""

from __future__ import annotations

import os
import threading
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

_BLOCK_BYTES: Final = 2 * 1024 * 1024
_GAP_BYTES: Final = 256 * 1024
"""Spans that are not asked about are read along with their neighbours up to this distance: cheaper than a new read."""


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
    if not places.are_sorted:
        order = np.lexsort((places.offset, places.source_no))
        places, trace = places.where(order), trace[order]
    found: set[int] = set()
    runs = list(places.runs(_GAP_BYTES, _BLOCK_BYTES))
    total = int(places.length.sum())
    done = 0
    scanner = _Scanner(sources, condition, found)

    def scan(run: tuple[int, int]) -> int:
        work.check()
        part = slice(*run)
        scanner.scan(places.where(part), trace[part])
        return int(places.length[part].sum())

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="halo-mcp-scan") as pool:
        pending = [pool.submit(scan, run) for run in runs]
        try:
            for future in pending:
                done += future.result()
                work.report(done, total, f"searching {total / 1e6:,.0f} MB")
        except DeadlineExceeded as error:
            share = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            raise DeadlineExceeded(
                error.seconds,
                f"{share} were searched. Narrow the search with other filters first (time, tools, models).",
            ) from error
        finally:
            for future in pending:
                future.cancel()
            wait(pending, return_when=FIRST_EXCEPTION)
    return np.array(sorted(found), dtype=np.int64)


class _Scanner:
    """Looks for the condition block by block, in several threads at once; adds the traces to ``found``."""

    def __init__(self, sources: Sources, condition: Condition, found: set[int]) -> None:
        self._sources = sources
        self._condition = condition
        self._found = found
        self._local = threading.local()

    def scan(self, places: Places, trace: NDArray[np.int64]) -> None:
        """Scan neighbouring places of one source."""
        base = int(places.offset[0])
        view = self._read(int(places.source_no[0]), base, int(places.offset[-1] + places.length[-1]) - base)
        search, found = self._condition.candidate.search, self._found
        match = search(view)
        if not match:
            return
        starts = places.offset - base
        ends = starts + places.length
        count = len(places)
        while match:
            index = int(np.searchsorted(ends, match.start(), side="right"))
            if index >= count:
                return
            if match.start() >= starts[index]:
                owner = int(trace[index])
                if owner not in found and self._holds(view[starts[index] : ends[index]]):
                    found.add(owner)
                index += 1
            while index < count and int(trace[index]) in found:
                index += 1
            if index >= count:
                return
            match = search(view, int(starts[index]))

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
