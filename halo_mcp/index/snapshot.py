"""One state of an index, open for reading: attached segments, the views over them, and where each trace's text is.

Immutable: when the index grows, a new snapshot replaces this one, and calls that still use the old one finish on it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from halo_mcp.errors import Interrupted
from halo_mcp.index import columns
from halo_mcp.index.duck import connect, failing_as_index, quoted
from halo_mcp.index.places import Places
from halo_mcp.index.segments import IndexDirectory, Manifest
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

KEY_SHIFT: Final = 32
_NUMBER_MASK: Final = (1 << KEY_SHIFT) - 1
"""trace_key = (segment number << 32) | trace number."""


@dataclass(frozen=True, slots=True)
class TracePlaces:
    """The spans of the whole dataset in trace order: those of trace t of a segment are ``first[t]:first[t + 1]``."""

    trace_ids: list[str]
    """Sorted; the position is the trace number."""
    first: NDArray[np.int64]
    places: Places


class Snapshot:
    """A manifest opened for reading. Raises IndexFailure when a segment cannot be opened."""

    def __init__(self, directory: IndexDirectory, manifest: Manifest) -> None:
        self.manifest = manifest
        self.directory = directory
        self._lock = threading.Lock()
        self._db: duckdb.DuckDBPyConnection = connect()
        with failing_as_index(directory.path):
            for no, segment in enumerate(manifest.segments):
                self._db.execute(f"ATTACH {quoted(str(directory.path / segment.file))} AS s{no} (READ_ONLY)")
            self._create_views()
            # From here on no statement can reach a file, whatever it says.
            self._db.execute("SET enable_external_access = false")
            self._db.execute("SET lock_configuration = true")

    def _create_views(self) -> None:
        segments = self.manifest.segments
        parts = [f"SELECT {no} AS segment, * FROM s{no}.superseded" for no in range(len(segments))]
        empty = "SELECT 0 AS segment, '' AS file, 0 AS trace_no WHERE false"
        self._db.execute(f"CREATE TABLE superseded AS {' UNION ALL '.join(parts or [empty])}")
        dead = {row[0] for row in self._db.execute("SELECT DISTINCT file FROM superseded").fetchall()}
        spans, traces = [], []
        for no, segment in enumerate(segments):
            key = f"(({no}::BIGINT << {KEY_SHIFT}) | trace_no)"
            alive = f"WHERE trace_no NOT IN (SELECT trace_no FROM superseded WHERE file = {quoted(segment.file)})"
            alive = alive if segment.file in dead else ""
            spans.append(
                f"SELECT o.*, t.*, {key} AS trace_key FROM s{no}.own AS o JOIN s{no}.tree AS t ON o.rowid = t.row {alive}"
            )
            traces.append(f"SELECT *, {key} AS trace_key FROM s{no}.traces {alive}")
        if not segments:
            spans.append(f"SELECT {_nulls((*columns.OWN_COLUMNS, *columns.TREE_COLUMNS))} WHERE false")
            traces.append(f"SELECT {_nulls(columns.TRACE_COLUMNS)} WHERE false")
        self._db.execute(f"CREATE VIEW spans AS {' UNION ALL '.join(spans)}")
        self._db.execute(f"CREATE VIEW traces AS {' UNION ALL '.join(traces)}")

    def query(self, sql: str, values: Sequence[Any] = (), work: Work | None = None) -> list[tuple[Any, ...]]:
        """All rows of one of our own statements. Raises: Cancelled, DeadlineExceeded, IndexFailure."""
        return self._run(sql, values, work).fetchall()

    def arrays(self, sql: str, values: Sequence[Any] = (), work: Work | None = None) -> dict[str, NDArray[Any]]:
        """As ``query``, as one array per column; there must be no NULLs."""
        result = self._run(sql, values, work).fetchnumpy()
        return {name: np.asarray(column) for name, column in result.items()}

    def _run(self, sql: str, values: Sequence[Any], work: Work | None) -> duckdb.DuckDBPyConnection:
        import duckdb

        with self._lock:
            cursor = self._db.cursor()
        if work is not None:
            work.check()
            work.on_stop(cursor.interrupt)
        try:
            with failing_as_index(self.directory.path):
                return cursor.execute(sql, list(values))
        except duckdb.InterruptException as error:
            if work is not None:
                work.check()
            raise Interrupted("The query was interrupted.") from error

    # --- where text is -------------------------------------------------------------------------------------------
    @cached_property
    def located(self) -> tuple[TracePlaces, ...]:
        """Per segment, the place of every span, in trace order. About 25 bytes a span; read at first use."""
        return tuple(self._locate(no) for no in range(len(self.manifest.segments)))

    def _locate(self, no: int) -> TracePlaces:
        ids = [row[0] for row in self.query(f"SELECT trace_id FROM s{no}.traces ORDER BY trace_no")]
        spans = self.arrays(
            f"SELECT trace_no, source_no, byte_offset, byte_length FROM s{no}.tree ORDER BY trace_no, source_no, byte_offset"
        )
        first = np.searchsorted(spans["trace_no"], np.arange(len(ids) + 1))
        places = Places(
            spans["source_no"].astype(np.int32), spans["byte_offset"].astype(np.int64), spans["byte_length"].astype(np.int64)
        )
        return TracePlaces(ids, first.astype(np.int64), places)

    @cached_property
    def dead_keys(self) -> frozenset[int]:
        """Keys of traces that a later segment holds in full."""
        numbers = {segment.file: no for no, segment in enumerate(self.manifest.segments)}
        rows = self.query("SELECT file, trace_no FROM superseded")
        return frozenset((numbers[file] << KEY_SHIFT) | trace_no for file, trace_no in rows if file in numbers)

    def find(self, trace_id: str) -> int | None:
        """The key of a trace, or None."""
        for no, segment in enumerate(self.located):
            trace_no = bisect_left(segment.trace_ids, trace_id)
            if trace_no < len(segment.trace_ids) and segment.trace_ids[trace_no] == trace_id:
                key = (no << KEY_SHIFT) | trace_no
                if key not in self.dead_keys:
                    return key
        return None

    def similar(self, trace_id: str, limit: int = 3) -> list[str]:
        """Ids that begin like ``trace_id``."""
        found: list[str] = []
        for prefix in (trace_id, trace_id[:8]):
            for segment in self.located:
                start = bisect_left(segment.trace_ids, prefix)
                found += [t for t in segment.trace_ids[start : start + limit] if prefix and t.startswith(prefix)]
        return list(dict.fromkeys(found))[:limit]

    @property
    def spans_of_trace(self) -> str:
        """FROM and WHERE for the spans of one trace; its key is the first bound value."""
        return "spans WHERE trace_key = ?"

    def trace_id(self, key: int) -> str:
        return self.located[key >> KEY_SHIFT].trace_ids[key & _NUMBER_MASK]

    def places_of(self, key: int) -> Places:
        """Where the spans of a trace are, in the order of sources and offsets."""
        segment, trace_no = self.located[key >> KEY_SHIFT], key & _NUMBER_MASK
        return segment.places.where(np.arange(segment.first[trace_no], segment.first[trace_no + 1]))

    def places_of_many(self, keys: NDArray[np.int64]) -> tuple[Places, NDArray[np.int64]]:
        """The spans of several traces, and the trace key of each."""
        parts: list[Places] = []
        owners: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        for no, segment in enumerate(self.located):
            numbers = np.sort(keys[keys >> KEY_SHIFT == no] & _NUMBER_MASK)
            counts = segment.first[numbers + 1] - segment.first[numbers]
            owner = np.repeat(numbers, counts)
            within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
            parts.append(segment.places.where(np.repeat(segment.first[numbers], counts) + within))
            owners.append(owner | (no << KEY_SHIFT))
        return Places.joined(parts), np.concatenate(owners)

    def close(self) -> None:
        self._db.close()


def _nulls(wanted: Sequence[columns.Column]) -> str:
    selected = ", ".join(f"NULL::{column.type} AS {column.name}" for column in {c.name: c for c in wanted}.values())
    return f"{selected}, 0::BIGINT AS trace_key"
