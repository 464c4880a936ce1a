"""Where spans stand in their sources, as parallel arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Places:
    """One place per span or line: source number, byte offset, byte length."""

    source_no: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    @staticmethod
    def of(rows: Iterable[tuple[int, int, int]] = ()) -> Places:
        """From (source number, offset, length) triples."""
        table = np.array(list(rows), dtype=np.int64).reshape(-1, 3)
        return Places(table[:, 0].astype(np.int32), table[:, 1], table[:, 2])

    @staticmethod
    def in_source(source_no: int, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Places:
        return Places(np.full(len(offset), source_no, dtype=np.int32), offset, length)

    @staticmethod
    def joined(parts: Sequence[Places]) -> Places:
        """All places of ``parts``, in order."""
        if len(parts) == 1:
            return parts[0]
        parts = [Places.of(), *parts]
        return Places(
            np.concatenate([part.source_no for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.length for part in parts]),
        )

    @property
    def are_sorted(self) -> bool:
        """By source, then offset."""
        same = self.source_no[1:] == self.source_no[:-1]
        later = self.source_no[1:] > self.source_no[:-1]
        return bool(np.all(later | (same & (self.offset[1:] >= self.offset[:-1]))))

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64] | NDArray[np.int32] | slice) -> Places:
        return Places(self.source_no[rows], self.offset[rows], self.length[rows])

    def runs(self, gap_bytes: int, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Ranges [first, last) of consecutive places of one source that can be read at once.

        Places must be sorted. A run ends at another source, after a gap of more than ``gap_bytes``, and before it
        would exceed ``max_bytes`` (a single longer place is a run of its own).
        """
        ends = self.offset + self.length
        breaks = (self.source_no[1:] != self.source_no[:-1]) | (self.offset[1:] - ends[:-1] > gap_bytes)
        edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(self)]
        for first, last in pairwise(edges):
            while first < last:
                limit = int(self.offset[first]) + max_bytes
                stop = first + int(np.searchsorted(ends[first:last], limit, side="right"))
                stop = max(stop, first + 1)
                yield first, stop
                first = stop
