"""One state of an index, open for reading: attached segments, the views over them, and where each trace's text is.

Immutable: when the index grows, a new snapshot replaces this one, and calls that still use the old one finish on it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.duck import bounded, connect, failing_as_index, fetch_arrays, quoted
from halo_mcp.index.places import Places
from halo_mcp.index.segments import IndexDirectory, Manifest
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

_Answer = TypeVar("_Answer")
_ANSWERS_KEPT: Final = 16

KEY_SHIFT: Final = 32
_NUMBER_MASK: Final = (1 << KEY_SHIFT) - 1
"""trace_key = (segment number << 32) | trace number."""


@dataclass(frozen=True, slots=True)
class TracePlaces:
    """Where the spans of one segment are: those of trace t are ``order[first[t]:first[t + 1]]``."""

    trace_ids: list[str]
    """Sorted; the position is the trace number."""
    rows: NDArray[np.int64]
    """First and last row of each trace: two columns."""
    places: Places
    """Of every span, sorted."""
    trace_no: NDArray[np.int32]
    """The trace of every span."""
    order: NDArray[np.int32]
    """All spans, by trace, then in the order of their places."""
    first: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TraceRows:
    """A trace, and between which rows of its segment all its spans are."""

    key: int
    first: int
    last: int


def among_spans(condition: str) -> str:
    """A condition on the view ``traces`` as one on ``spans``."""
    return condition if condition == "true" else f"trace_key IN (SELECT trace_key FROM traces WHERE {condition})"


class Snapshot:
    """A manifest opened for reading. Raises IndexFailure when a segment cannot be opened."""

    def __init__(
        self,
        directory: IndexDirectory,
        manifest: Manifest,
        older: Snapshot | None = None,
        failures: columns.FailureColumns = columns.DEFAULT_FAILURES,
    ) -> None:
        """``older``, a snapshot of the same directory, saves reading again what both have."""
        self.failures = failures
        self.manifest = manifest
        self.directory = directory
        self._located = {} if older is None else older.located_files()
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, object] = OrderedDict()
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
        named = {row[0] for row in self._db.execute("SELECT DISTINCT file FROM superseded").fetchall()}
        dead = named & {segment.file for segment in segments}
        self.facets_known = not dead
        """Whether the view ``facets`` is there: it counts no span that is superseded."""
        spans, traces, facets = list[str](), list[str](), list[str]()
        for no, segment in enumerate(segments):
            key = f"(({no}::BIGINT << {KEY_SHIFT}) | trace_no)"
            alive = f"WHERE trace_no NOT IN (SELECT trace_no FROM superseded WHERE file = {quoted(segment.file)})"
            alive = alive if segment.file in dead else ""
            spans.append(
                f"SELECT o.*, t.*, {key} AS trace_key, {self.failures.select} FROM s{no}.own AS o "
                f"JOIN s{no}.tree AS t ON o.rowid = t.row {alive}"
            )
            traces.append(f"SELECT *, {key} AS trace_key FROM s{no}.traces {alive}")
            facets.append(f"FROM s{no}.facets")
        if not segments:
            spans.append(
                f"SELECT {_nulls((*columns.OWN_COLUMNS, *columns.TREE_COLUMNS, *columns.VIEW_COLUMNS))} WHERE false"
            )
            traces.append(f"SELECT {_nulls(columns.TRACE_COLUMNS)} WHERE false")
            facets.append(f"SELECT {_nulls(columns.FACET_COLUMNS)} WHERE false")
        self._db.execute(f"CREATE VIEW spans AS {' UNION ALL '.join(spans)}")
        self._db.execute(f"CREATE VIEW traces AS {' UNION ALL '.join(traces)}")
        if self.facets_known:
            self._db.execute(f"CREATE VIEW facets AS {' UNION ALL '.join(facets)}")

    def remembered(self, question: str, answer: Callable[[], _Answer]) -> _Answer:
        """The answer to ``question`` about this state of the index; computed at most once while it is remembered."""
        with self._lock:
            known = self._answers.get(question)
        if known is None:
            known = answer()  # without the lock: two callers may compute the same answer, none waits for another
            with self._lock:
                self._answers[question] = known
                while len(self._answers) > _ANSWERS_KEPT:
                    self._answers.popitem(last=False)
        return cast("_Answer", known)

    def query(self, sql: str, values: Sequence[Any] = (), work: Work | None = None) -> list[tuple[Any, ...]]:
        """All rows of one of our own statements. Raises: Cancelled, DeadlineExceeded, IndexFailure."""
        with self._running(sql, values, work) as result:
            return result.fetchall()

    def arrays(self, sql: str, values: Sequence[Any] = (), work: Work | None = None) -> dict[str, NDArray[Any]]:
        """As ``query``, as one array per column; there must be no NULLs."""
        with self._running(sql, values, work) as result:
            return fetch_arrays(result)

    @contextmanager
    def _running(
        self, sql: str, values: Sequence[Any], work: Work | None
    ) -> Generator[duckdb.DuckDBPyConnection, None, None]:
        with self._lock:
            cursor = self._db.cursor()
        with failing_as_index(self.directory.path), bounded(cursor, work or Work()):
            yield cursor.execute(sql, list(values))

    # --- where text is -------------------------------------------------------------------------------------------
    @cached_property
    def located(self) -> tuple[TracePlaces, ...]:
        """Per segment, the place of every span. About 30 bytes a span; read at first use."""
        files = [segment.file for segment in self.manifest.segments]
        self._located = {file: self._located.get(file) or self._locate(no) for no, file in enumerate(files)}
        return tuple(self._located.values())

    def located_files(self) -> dict[str, TracePlaces]:
        """What is known so far of ``located``, by segment file."""
        return self._located

    def _locate(self, no: int) -> TracePlaces:
        traces = self.arrays(f"SELECT trace_id, first_row, last_row FROM s{no}.traces ORDER BY trace_no")
        spans = self.arrays(f"SELECT trace_no, source_no, byte_offset, byte_length FROM s{no}.tree")
        trace_no = spans["trace_no"]
        places = Places(spans["source_no"], spans["byte_offset"], spans["byte_length"].astype(np.int64))
        if not places.are_sorted:
            by_place = np.lexsort((places.offset, places.source_no))
            trace_no, places = trace_no[by_place], places.where(by_place)
        order = np.argsort(trace_no, kind="stable")
        return TracePlaces(
            trace_ids=traces["trace_id"].tolist(),
            rows=np.column_stack([traces["first_row"], traces["last_row"]]).astype(np.int64),
            places=places,
            trace_no=trace_no,
            order=order.astype(np.int32),
            first=np.searchsorted(trace_no, np.arange(len(traces["trace_id"]) + 1), sorter=order),
        )

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

    def spans_of(self, key: int) -> str:
        """FROM and WHERE for the spans of one trace."""
        first, last = self.located[key >> KEY_SHIFT].rows[key & _NUMBER_MASK].tolist()
        return self.spans_of_many([TraceRows(key, first, last)])[0]

    def spans_of_many(self, traces: Sequence[TraceRows]) -> list[str]:
        """FROM and WHERE for the spans of a few traces, one for each segment that has some."""
        by_segment: dict[int, list[TraceRows]] = {}
        for trace in traces:
            by_segment.setdefault(trace.key >> KEY_SHIFT, []).append(trace)
        return [_spans_in(no, some, self.failures) for no, some in by_segment.items()]

    def trace_id(self, key: int) -> str:
        return self.located[key >> KEY_SHIFT].trace_ids[key & _NUMBER_MASK]

    def places_of(self, key: int) -> Places:
        """Where the spans of a trace are, in the order of sources and offsets."""
        segment, trace_no = self.located[key >> KEY_SHIFT], key & _NUMBER_MASK
        return segment.places.where(segment.order[segment.first[trace_no] : segment.first[trace_no + 1]])

    def places_of_many(self, keys: NDArray[np.int64]) -> tuple[Places, NDArray[np.int64]]:
        """The spans of several traces, and the trace key of each; sorted within each segment."""
        parts: list[Places] = []
        owners: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        for no, segment in enumerate(self.located):
            wanted = np.zeros(len(segment.trace_ids), dtype=np.bool_)
            wanted[keys[keys >> KEY_SHIFT == no] & _NUMBER_MASK] = True
            chosen = slice(None) if wanted.all() else wanted[segment.trace_no]
            parts.append(segment.places.where(chosen))
            owners.append(segment.trace_no[chosen].astype(np.int64) | (no << KEY_SHIFT))
        return Places.joined(parts), np.concatenate(owners)

    def close(self) -> None:
        self._db.close()


def _spans_in(no: int, traces: Sequence[TraceRows], failures: columns.FailureColumns) -> str:
    # Bounds on the rows let DuckDB skip nearly all of both tables.
    rows = f"BETWEEN {min(trace.first for trace in traces)} AND {max(trace.last for trace in traces)}"
    numbers = ", ".join(str(trace.key & _NUMBER_MASK) for trace in traces)
    return (
        f"(SELECT *, ({no}::BIGINT << {KEY_SHIFT}) | trace_no AS trace_key, {failures.select} FROM s{no}.own AS o "
        f"JOIN s{no}.tree AS t ON o.rowid = t.row "
        f"WHERE o.rowid {rows} AND t.row {rows} AND t.trace_no IN ({numbers})) WHERE true"
    )


def _nulls(wanted: Sequence[columns.Column]) -> str:
    selected = ", ".join(f"NULL::{column.type} AS {column.name}" for column in {c.name: c for c in wanted}.values())
    return f"{selected}, 0::BIGINT AS trace_key"
