"""Byte ranges of JSON lines in, rows of ``own`` and their places out.

The bulk goes through DuckDB's JSON reader: it uses all cores, skips the payloads, and returns one row per non-blank
line in file order, with NULLs where it refuses a line. A scan of line starts gives each row its place. Where the two
disagree (the file was changing), the lines are copied and read again. Refused lines are read one by one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from halo_mcp.errors import SourceUnreadable
from halo_mcp.index import columns, semconv
from halo_mcp.index.duck import watched
from halo_mcp.index.formats.canonical import LINE_BYTES_LIMIT, Lines, parse_record, read_line, scan_lines
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.outcomes import USUAL_KEYS, OutcomeKeys
from halo_mcp.index.places import Places
from halo_mcp.index.segments import PROBLEMS_KEPT, IngestReport, Problem, Range
from halo_mcp.index.sources import open_source
from halo_mcp.index.span import Json, as_mapping
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

BULK_LINE_BYTES: Final = 8 * 1024 * 1024
"""Longer lines are read one by one: DuckDB's buffers grow with the longest line it meets."""
_READER_OBJECT_BYTES: Final = 512 * 1024
"""Sizes DuckDB's read buffers; small ones are faster and take less memory. It still reads objects up to 16 MiB."""
_COPY_BYTES: Final = 8 * 1024 * 1024
_SAMPLES: Final = 16
_NOWHERE: Final = (-1, 0, 0)
"""The place of a row that is no line of its own."""
_SLIM_CHARS: Final = 1_000_000
"""Of one text, more than this is not needed to tell what failed; all of them stay within the reader's limit."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the ranges; the tuples are in their order."""

    places: Places
    """Place of each row of ``own``; rows with an empty trace or span id are no spans."""
    reports: tuple[IngestReport, ...]
    ends: tuple[int, ...]
    """Where the covered bytes of each range end."""
    line_counts: tuple[int, ...]


class Ingest:
    """Fills the table ``seg.own`` of ``db`` from ranges. ``directory`` takes temporary files. Use once."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        directory: Path,
        ranges: Sequence[Range],
        work: Work,
        keys: OutcomeKeys = USUAL_KEYS,
    ) -> None:
        self._db = db
        self._keys = keys
        self._directory = directory
        self._ranges = ranges
        self._work = work
        self._paths = {item.source_no: item.path for item in ranges}
        self._scratch: list[Path] = []

    def run(self) -> Ingested:
        """Raises: SourceUnreadable, Cancelled, DeadlineExceeded; duckdb.Error and OSError of the index directory."""
        try:
            scans, places = self._read_bulk()
            recovered, reports = self._read_refused(scans, places)
        finally:
            for path in self._scratch:
                path.unlink(missing_ok=True)
        return Ingested(
            Places.joined([places, recovered]),
            tuple(reports),
            tuple(scan.end for scan in scans),
            tuple(scan.line_count for scan in scans),
        )

    def _scan(self, item: Range) -> Lines:
        try:
            return scan_lines(item.path, item.start, item.stop, self._work)
        except OSError as error:
            raise SourceUnreadable(str(item.path), error.strerror or str(error)) from error

    # --- bulk ----------------------------------------------------------------------------------------------------
    def _read_bulk(self) -> tuple[list[Lines], Places]:
        """One row of ``own`` per line of at most BULK_LINE_BYTES; returns all lines, and the rows' places in row order.

        Whole files are read while they are scanned.
        """
        import duckdb

        whole = all(item.whole_file for item in self._ranges)
        with ThreadPoolExecutor(1, thread_name_prefix="halo-mcp-lines") as pool:
            scanning = pool.submit(self._scan_all)
            try:
                rows = self._insert_all([item.path for item in self._ranges]) if whole else 0
            except duckdb.IOException:
                scanning.result()  # knows better why a source cannot be read
                raise
            scans = scanning.result()
        places = Places.joined([_bulk(item, scan) for item, scan in zip(self._ranges, scans, strict=True)])
        # An incomplete last line is a row as well, which does no harm only at the very end.
        aligned = whole and not any(scan.pending_bytes for scan in scans[:-1])
        extra_rows = 1 if scans and scans[-1].pending_bytes else 0
        if aligned and self._rows_agree(rows, places, extra_rows):
            return scans, Places.joined([places, Places.of([_NOWHERE] * (rows - len(places)))])
        if self._rows_agree(self._insert_all([self._copied(places)]), places, 0):
            return scans, places
        self._create_own()  # one by one, then
        return scans, Places.of()

    def _scan_all(self) -> list[Lines]:
        return [self._scan(item) for item in self._ranges]

    def _insert_all(self, paths: Sequence[Path]) -> int:
        """Read ``paths`` into ``own``, and nothing else; returns the number of its rows, -1 when a line is too long."""
        import duckdb

        self._create_own()
        try:
            self._insert(paths, (0.05, 0.8))
        except duckdb.InvalidInputException:
            return -1
        return _count(self._db, "SELECT count(*) FROM seg.own")

    def _rows_agree(self, rows: int, places: Places, extra_rows: int) -> bool:
        """Whether the rows of ``own`` agree with ``places``, by count and by the ids of a sample."""
        if rows not in {len(places), len(places) + extra_rows}:
            return False
        if rows > len(places):  # not deleted: rows that come after it must keep their numbers
            self._db.execute("UPDATE seg.own SET trace_id = '', span_id = '' WHERE rowid >= ?", [len(places)])
        return self._samples_agree(places)

    def _create_own(self) -> None:
        self._db.execute("DROP TABLE IF EXISTS seg.own")
        self._db.execute(f"CREATE TABLE seg.own ({columns.table(columns.OWN_COLUMNS)})")

    def _insert(self, paths: Sequence[Path], share: tuple[float, float]) -> None:
        megabytes = sum(_size(path) for path in paths) / 1e6
        if not megabytes:
            return
        with watched(self._db, self._work, f"reading {megabytes:,.1f} MB of spans", share):
            rows = (
                "read_json(?, format = 'newline_delimited', compression = 'none', ignore_errors = true, "
                f"maximum_object_size = {_READER_OBJECT_BYTES}, columns = {columns.reader_columns(self._keys)})"
            )
            own = columns.own_select(rows, self._keys)
            self._db.execute(f"INSERT INTO seg.own {own}", [[str(path) for path in paths]])

    def _copied(self, places: Places) -> Path:
        """A file of our own with just these lines: nothing changes under the reader."""
        copy = self._scratch_file()
        with copy.open("wb") as target:
            for first, last in places.runs(gap_bytes=1, max_bytes=1 << 62):
                start, end = int(places.offset[first]), int(places.offset[last - 1] + places.length[last - 1])
                with open_source(self._paths[int(places.source_no[first])]) as source:
                    source.seek(start)
                    self._copy_bytes(source, target, end - start)
                target.write(b"\n")
        return copy

    def _copy_bytes(self, source: BinaryIO, target: BinaryIO, length: int) -> None:
        while length > 0 and (block := source.read(min(length, _COPY_BYTES))):
            self._work.check()
            target.write(block)
            length -= len(block)

    def _samples_agree(self, places: Places) -> bool:
        rows = sorted({int(row) for row in np.linspace(0, len(places) - 1, _SAMPLES)}) if len(places) else []
        for row, *ids in self._db.execute(
            "SELECT rowid, trace_id, span_id FROM seg.own WHERE rowid IN (SELECT unnest(?::BIGINT[])) "
            "AND trace_id <> '' AND span_id <> ''",
            [rows],
        ).fetchall():
            record = parse_record(self._text(places, row))
            if record is None or [normalize_id(record.get(key)) for key in ("trace_id", "span_id")] != ids:
                return False
        return True

    def _text(self, places: Places, row: int) -> bytes:
        with open_source(self._paths[int(places.source_no[row])]) as file:
            file.seek(int(places.offset[row]))
            return file.read(int(places.length[row]))

    def _scratch_file(self) -> Path:
        path = self._directory / f"tmp-{len(self._scratch)}-{id(self):x}.jsonl"
        self._scratch.append(path)
        return path

    # --- what the bulk reader refused --------------------------------------------------------------------------
    def _read_refused(self, scans: Sequence[Lines], bulk: Places) -> tuple[Places, list[IngestReport]]:
        """Read refused lines leniently; appends what they hold to ``own``, returns its places and the reports."""
        refused = _refused_rows(self._db, len(bulk))
        at = {(int(bulk.source_no[row]), int(bulk.offset[row])) for row in refused}
        slim, places, reports = self._scratch_file(), list[tuple[int, int, int]](), list[IngestReport]()
        with slim.open("wb") as output:
            for item, scan in zip(self._ranges, scans, strict=True):
                lines = self._refused_lines(item, scan, at, all_lines=not len(bulk))
                report = _Reporter(item, scan)
                with open_source(item.path) as source:
                    for index in lines:
                        self._work.check()
                        for start, length, record in report.read(source, int(index)):
                            places.append((item.source_no, start, length))
                            output.write(_slim(record, self._keys.attributes()) + b"\n")
                reports.append(report.done(len(lines)))
        if places:
            before = _count(self._db, "SELECT count(*) FROM seg.own")
            self._insert([slim], (0.8, 0.82))
            after = _count(self._db, "SELECT count(*) FROM seg.own")
            if after - before != len(places):
                raise AssertionError(f"{len(places)} recovered spans became {after - before} rows")
        return Places.of(places), reports

    def _refused_lines(
        self, item: Range, scan: Lines, at: set[tuple[int, int]], *, all_lines: bool
    ) -> NDArray[np.int64]:
        if all_lines:
            return np.arange(len(scan.offsets))
        giant = scan.lengths > BULK_LINE_BYTES
        here = np.array([offset for source_no, offset in at if source_no == item.source_no], dtype=np.int64)
        return np.flatnonzero(giant | np.isin(scan.offsets, here))


class _Reporter:
    """Reads refused lines of one range and counts what became of them."""

    def __init__(self, item: Range, scan: Lines) -> None:
        self._item = item
        self._scan = scan
        self._reasons: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._skipped = self._repaired = self._spans = 0

    def read(self, source: BinaryIO, index: int) -> Iterable[tuple[int, int, Mapping[str, Json]]]:
        """(byte offset, length, record) of each span in line ``index`` of the scan."""
        offset, length = int(self._scan.offsets[index]), int(self._scan.lengths[index])
        source.seek(offset)
        reading = read_line(source.read(min(length, LINE_BYTES_LIMIT + 1)))
        self._spans += len(reading.found)
        self._repaired += bool(reading.found)
        if reading.problem:
            self._skipped += not reading.found
            self._reasons[reading.problem] += 1
            if len(self._problems) < PROBLEMS_KEPT:
                number = self._item.first_line + int(self._scan.numbers[index])
                self._problems.append(Problem(line_number=number, byte_offset=offset, reason=reading.problem))
        return [(offset + found.start, found.length, found.record) for found in reading.found]

    def done(self, refused: int) -> IngestReport:
        return IngestReport(
            lines_read=len(self._scan.offsets),
            spans_indexed=len(self._scan.offsets) - refused + self._spans,
            lines_skipped=self._skipped,
            lines_repaired=self._repaired,
            pending_bytes=self._scan.pending_bytes,
            reasons=dict(self._reasons),
            problems=self._problems,
        )


def _bulk(item: Range, scan: Lines) -> Places:
    small = scan.lengths <= BULK_LINE_BYTES
    return Places.in_source(item.source_no, scan.offsets[small], scan.lengths[small])


def _refused_rows(db: duckdb.DuckDBPyConnection, row_count: int) -> list[int]:
    rows = db.execute(
        "SELECT rowid FROM seg.own WHERE coalesce(trace_id, '') = '' OR coalesce(span_id, '') = ''"
    ).fetchall()
    return [row for (row,) in rows if row < row_count]


def _size(path: Path) -> int:
    """0 for a file that is gone: whoever opens it says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _count(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = db.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _slim(record: Mapping[str, Json], keys: Sequence[str]) -> bytes:
    """A line the bulk reader accepts, with no more than the index needs of this record."""
    attributes = as_mapping(record.get("attributes"))
    kept = {key: _cut(attributes[key]) for key in keys if key in attributes}
    kept[semconv.EVENTS_ATTRIBUTE] = attributes.get(semconv.EVENTS_ATTRIBUTE)
    slim = {key: _cut(record.get(key)) for key in ("trace_id", "span_id", "parent_span_id", "name", "kind")}
    slim |= {key: record.get(key) for key in ("start_time", "end_time", "status", "resource", "events")}
    text = json.dumps(slim | {"attributes": kept}, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace")  # a lone surrogate is no text; "?" stands in for it


def _cut(value: Json) -> Json:
    return value[:_SLIM_CHARS] if isinstance(value, str) else value
