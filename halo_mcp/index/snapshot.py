"""One state of an index, open for reading: attached segments, the views over them, and where each trace's text is.

Immutable: when the index grows, a new snapshot replaces this one, and calls that still use the old one finish on it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.duck import bounded, connect, failing_as_index, fetch_arrays
from halo_mcp.index.labelling import NO_LABELS, Ids, Labelling, join_labels
from halo_mcp.index.labels import LabelFile
from halo_mcp.index.outcomes import FULL_SCORE, UNIT_SCORES_END, OutcomeView
from halo_mcp.index.places import Places
from halo_mcp.index.privacy import OPEN, Privacy
from halo_mcp.index.reading import Sources
from halo_mcp.index.segments import IndexDirectory, Manifest
from halo_mcp.index.views import KEY_SHIFT, SqlState, opening_statements, trace_selects, view_statements
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

_Answer = TypeVar("_Answer")
Tables: TypeAlias = "Mapping[str, Mapping[str, NDArray[Any]]]"
NO_TABLES: Final[Tables] = {}
_ANSWERS_KEPT: Final = 16
_LARGE_ANSWERS_KEPT: Final = 3
"""Of those with something for every trace or span: tens of megabytes each for a large dataset."""
STATEMENTS: Final = 1_000
"""After so many a snapshot is worn. DuckDB 2.0 keeps memory for each statement until its instance is closed: 0.3 KB for
the simplest one on a table, 4 KB on the view of spans, 25 KB for failure modes; not without its optimizer
``statistics_propagation``, which is worth more than that."""

_NUMBER_MASK: Final = (1 << KEY_SHIFT) - 1


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
        privacy: Privacy = OPEN,
        labels: Sequence[LabelFile] = (),
        pass_score: float | None = None,
    ) -> None:
        """``older``, a snapshot of the same directory, saves reading again what both have.

        ``pass_score``: a score on spans from here on passes; None: a full one on a scale from 0 to 1 does.
        """
        self.failures = failures
        self.privacy = privacy
        self.manifest = manifest
        self.directory = directory
        self._located = {} if older is None else older.located_files()
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, object] = OrderedDict()
        self._large_answers: OrderedDict[str, object] = OrderedDict()
        self._remembers = True
        self._ran = 0
        self._db: duckdb.DuckDBPyConnection = connect()
        with failing_as_index(directory.path):
            for statement in opening_statements(directory.path, manifest.segments):
                self._db.execute(statement)
            named = {row[0] for row in self._db.execute("SELECT DISTINCT file FROM superseded").fetchall()}
            self._dead = named & {segment.file for segment in manifest.segments}
            self._highest = self._highest_score()
            usual = FULL_SCORE if self._highest <= UNIT_SCORES_END else None
            self._outcomes = OutcomeView(usual if pass_score is None else pass_score, labelled=bool(labels))
            self.labelling = self._joined(labels)
            for statement in self._statements():
                self._db.execute(statement)
            # From here on no statement can reach a file, whatever it says.
            self._db.execute("SET enable_external_access = false")
            self._db.execute("SET lock_configuration = true")
        self.facets_known = not self._dead
        """Whether the view ``facets`` is there: it counts no span that is superseded."""

    @property
    def undecided_score(self) -> float | None:
        """The highest score on spans, where scores decide nothing because nobody said from where on they pass."""
        return self._highest if self._outcomes.pass_score is None else None

    def _highest_score(self) -> float:
        """Of all traces, as their spans say; 0 without any."""
        tables = range(len(self.manifest.segments))
        scores = " UNION ALL ".join(f"SELECT max(score) AS s FROM s{no}.traces" for no in tables)
        row = self._db.execute(f"SELECT coalesce(max(s), 0) FROM ({scores})").fetchone() if scores else None
        return float(row[0]) if row else 0.0

    def _joined(self, labels: Sequence[LabelFile]) -> Labelling:
        if not labels:
            return NO_LABELS
        selects = trace_selects(self.manifest.segments, self._dead)
        sql = " UNION ALL ".join(f"SELECT {', '.join(Ids._fields)} FROM ({select})" for select in selects)
        return join_labels(labels, [Ids(*row) for row in self._db.execute(sql).fetchall()] if sql else [])

    def _statements(self) -> list[str]:
        views = view_statements(self.manifest.segments, self._dead, self.failures, self.privacy, self._outcomes)
        return [self.labelling.statement(), *views] if self._outcomes.labelled else views

    @cached_property
    def sql_state(self) -> SqlState:
        """This state, for another process to open. Its files may be gone when a later state has replaced them."""
        segments = self.manifest.segments
        return SqlState(
            self.directory.path,
            tuple(segment.file for segment in segments),
            (*opening_statements(self.directory.path, segments), *self._statements()),
            tuple(self.manifest.sources) if self.privacy.payloads else (),
            self.privacy,
        )

    def remembered(self, question: str, answer: Callable[[], _Answer], *, large: bool = False) -> _Answer:
        """The answer to ``question`` about this state of the index; computed at most once while it is remembered.

        The answers used last are kept, and only a few of those that are ``large``: that hold every trace or span.
        """
        answers, most = (self._large_answers, _LARGE_ANSWERS_KEPT) if large else (self._answers, _ANSWERS_KEPT)
        with self._lock:
            known = answers.get(question)
            if known is not None:
                answers.move_to_end(question)
        if known is None:
            known = answer()  # without the lock: two callers may compute the same answer, none waits for another
            with self._lock:
                if self._remembers:
                    answers[question] = known
                while len(answers) > most:
                    answers.popitem(last=False)
        return cast("_Answer", known)

    def forget_answers(self) -> None:
        """Remember nothing of what was or will be asked, for a snapshot that another one replaces.

        Some answers hold the snapshot, which would live until the garbage collector finds them.
        """
        with self._lock:
            self._remembers = False
            self._answers.clear()
            self._large_answers.clear()

    @property
    def worn(self) -> bool:
        """Whether it has answered so much that it should be opened anew."""
        return self._ran >= STATEMENTS

    def query(
        self, sql: str, values: Sequence[Any] = (), work: Work | None = None, tables: Tables = NO_TABLES
    ) -> list[tuple[Any, ...]]:
        """All rows of one of our own statements. Raises: Cancelled, DeadlineExceeded, IndexFailure.

        ``tables`` are arrays that the statement may read as tables: columns by name, by the table's name.
        """
        with self._running(sql, values, work, tables) as result:
            return result.fetchall()

    def arrays(
        self, sql: str, values: Sequence[Any] = (), work: Work | None = None, tables: Tables = NO_TABLES
    ) -> dict[str, NDArray[Any]]:
        """As ``query``, as one array per column; there must be no NULLs."""
        with self._running(sql, values, work, tables) as result:
            return fetch_arrays(result)

    @contextmanager
    def _running(
        self, sql: str, values: Sequence[Any], work: Work | None, tables: Tables
    ) -> Generator[duckdb.DuckDBPyConnection, None, None]:
        with self._lock:
            self._ran += 1
            cursor = self._db.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, dict(table))
            with failing_as_index(self.directory.path), bounded(cursor, work or Work()):
                yield cursor.execute(sql, list(values))
        finally:
            cursor.close()  # whoever still holds it would keep the segments open

    def sources(self) -> Sources:
        """The source files, for a call that reads payloads. Raises: PayloadsWithheld."""
        self.privacy.require_payloads()
        return Sources(self.manifest.sources, self.privacy)

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
        return [_spans_in(no, some, self.failures, self.privacy) for no, some in by_segment.items()]

    def spans_at(self, table: str) -> str:
        """A FROM item like ``spans``, of those only whose trace_key, source_no and byte_offset stand in ``table``.

        Far faster than to join the view when they are few.
        """
        # A segment is joined with its own rows of the table: a superseded trace stands in two segments.
        parts = (
            f"SELECT {self.privacy.own_columns('o')}, t.*, m.trace_key, {self.failures.select} FROM {table} AS m "
            f"JOIN s{no}.tree AS t USING (source_no, byte_offset) "
            f"JOIN s{no}.own AS o ON o.rowid = t.row WHERE m.trace_key >> {KEY_SHIFT} = {no}"
            for no in range(len(self.manifest.segments))
        )
        return f"({' UNION ALL '.join(parts)})" if self.manifest.segments else "spans"

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


def _spans_in(no: int, traces: Sequence[TraceRows], failures: columns.FailureColumns, privacy: Privacy) -> str:
    # Bounds on the rows let DuckDB skip nearly all of both tables.
    rows = f"BETWEEN {min(trace.first for trace in traces)} AND {max(trace.last for trace in traces)}"
    numbers = ", ".join(str(trace.key & _NUMBER_MASK) for trace in traces)
    return (
        f"(SELECT {privacy.own_columns('o')}, t.*, ({no}::BIGINT << {KEY_SHIFT}) | trace_no AS trace_key, "
        f"{failures.select} FROM s{no}.own AS o "
        f"JOIN s{no}.tree AS t ON o.rowid = t.row "
        f"WHERE o.rowid {rows} AND t.row {rows} AND t.trace_no IN ({numbers})) WHERE true"
    )
