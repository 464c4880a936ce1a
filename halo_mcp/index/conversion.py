"""Sources that are not plain canonical JSON lines, converted once into a copy that is.

Copies live in the index directory, one for each such source, and are indexed like any other source. Beside a copy a
state file says how many bytes of the source (uncompressed) are covered by how many bytes of the copy. The state is
written after the copy, so a conversion that was killed or ran out of time goes on where the state says, and what the
copy holds behind that is cut off. All of it happens with the index directory's lock held.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import orjson
from pydantic import BaseModel, ValidationError

from halo_mcp.errors import IndexFailure, SourceTooLarge, SourceUnreadable
from halo_mcp.index.columns import INDEX_VERSION
from halo_mcp.index.formats.head import Head, read_head
from halo_mcp.index.formats.names import CANONICAL, UNKNOWN
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.sniff import is_canonical, why_unknown
from halo_mcp.index.formats.table import named, recognised
from halo_mcp.index.formats.trace_file import TooLarge, TraceFile
from halo_mcp.index.segments import (
    IndexDirectory,
    IngestReport,
    Listed,
    Problem,
    copy_name,
    fingerprint,
    state_name,
)
from halo_mcp.index.span import Json
from halo_mcp.index.work import Work

COPY_BYTES_LIMIT: Final = 64 * 1024 * 1024 * 1024
"""No copy grows larger: what does is a decompression bomb, or needs another tool."""
FREE_BYTES: Final = 512 * 1024 * 1024
"""So much of the disk is left free."""
_CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
_CHECK_BYTES: Final = 1024 * 1024
_NO_ID: Final = (None, "")


class CopyState(BaseModel):
    """How far a source is converted."""

    version: int = INDEX_VERSION
    format: str
    compression: str
    resumable: bool
    size: int
    mtime_ns: int
    inode: int
    covered_bytes: int
    """Of the file, as far as its fingerprint tells whether it only grew: for compressed files all of it."""
    fingerprint: str
    position: int = 0
    """Uncompressed bytes of which the copy holds the spans."""
    file: str
    """Name of the copy in the index directory."""
    copy_bytes: int = 0
    copy_lines: int = 0
    complete: bool = False
    pending_bytes: int = 0
    report: dict[str, Json] = {}
    """The Report so far."""

    @property
    def ingest_report(self) -> IngestReport:
        """What became of the records, as the index tells it (the spans are counted there)."""
        report = Report.from_json(self.report)
        return IngestReport(
            format=self.format,
            compression=self.compression,
            lines_read=report.records,
            lines_skipped=report.skipped_records,
            pending_bytes=self.pending_bytes,
            reasons=dict(report.reasons),
            problems=[Problem(**asdict(one)) for one in report.skipped],
            bookkeeping=dict(report.bookkeeping),
            repairs=dict(report.repairs),
        )


@dataclass(frozen=True, slots=True)
class Detected:
    """What a source is: ``format`` None means canonical JSON lines, possibly compressed."""

    head: Head
    format: Format | None
    name: str


def detect(path: Path) -> Detected | None:
    """What to convert a file from; None when it is read as it is: plain text, canonical or of no known format.

    Raises: OSError.
    """
    head = read_head(path)
    if is_canonical(head):
        return Detected(head, None, CANONICAL) if head.compression else None
    if found := recognised(head):
        return Detected(head, found, found.name)
    return None if why_unknown(head) is None else Detected(head, None, UNKNOWN)


def continues(directory: IndexDirectory, source: str, copy: str) -> bool:
    """Whether the copy of a source is still the one at path ``copy``, so that more can be appended to it."""
    state = _read_state(directory, source)
    return state is not None and directory.path / state.file == Path(copy) and state.resumable


def convert(directory: IndexDirectory, source: Listed, work: Work) -> CopyState | None:
    """Bring the copy of a source up to date, and return its state; None when the source is read as it is.

    Call with the directory's lock held. Raises: SourceUnreadable, SourceTooLarge, IndexFailure; Cancelled and
    DeadlineExceeded, after which the next call goes on where this one stopped.
    """
    path = Path(source.path)
    try:
        state = _read_state(directory, source.path)
        if state is not None and not _still_holds(state, source, directory):
            state = None
        if state is not None and state.complete and _same(state, source):
            return state
        detected = detect(path)
        if detected is None and state is not None and state.resumable:  # canonical lines were appended to others
            detected = Detected(read_head(path), named(state.format), state.format)
        if detected is None:
            return None
        if state is None or state.format != detected.name:
            state = _new_state(source, detected)
    except OSError as error:
        raise SourceUnreadable(source.path, error.strerror or str(error)) from error
    return _Conversion(directory, source, detected, state, work).run()


def state_file(directory: IndexDirectory, source: str) -> Path:
    """Where the state of a source's copy is."""
    return directory.path / state_name(copy_name(source))


def _read_state(directory: IndexDirectory, source: str) -> CopyState | None:
    try:
        state = CopyState.model_validate_json(state_file(directory, source).read_bytes())
        size = (directory.path / state.file).stat().st_size
    except (OSError, ValidationError):
        return None
    return state if state.version == INDEX_VERSION and size >= state.copy_bytes else None


def _same(state: CopyState, source: Listed) -> bool:
    return (state.size, state.mtime_ns, state.inode) == (source.size, source.mtime_ns, source.inode)


def _still_holds(state: CopyState, source: Listed, directory: IndexDirectory) -> bool:
    """Whether what was converted so far is still the beginning of the source. Raises: OSError."""
    if _same(state, source):
        return state.complete or state.resumable
    grew = source.size > state.size and state.resumable
    return grew and fingerprint(Path(source.path), state.covered_bytes) == state.fingerprint


def _new_state(source: Listed, detected: Detected) -> CopyState:
    line_based = detected.format is None or (detected.format.resumable and detected.head.shape == "lines")
    return CopyState(
        format=detected.name,
        compression=detected.head.compression,
        resumable=line_based and detected.name != UNKNOWN,
        size=source.size,
        mtime_ns=source.mtime_ns,
        inode=source.inode,
        covered_bytes=0,
        fingerprint="",
        file=copy_name(source.path),
    )


class _Conversion:
    """One source on its way into its copy. Use once."""

    def __init__(
        self, directory: IndexDirectory, source: Listed, detected: Detected, state: CopyState, work: Work
    ) -> None:
        self._directory = directory
        self._source = source
        self._detected = detected
        self._state = state
        self._work = work
        self._report = Report.from_json(state.report)
        self._target = directory.path / state.file
        self._checked = self._saved = 0

    def run(self) -> CopyState:
        """Raises: SourceUnreadable, IndexFailure, Cancelled, DeadlineExceeded."""
        state, path = self._state, Path(self._source.path)
        try:
            file = TraceFile(
                path,
                self._detected.head,
                self._report,
                position=state.position,
                resumable=state.resumable,
                on_line=self._between_lines,
            )
        except OSError as error:
            raise SourceUnreadable(self._source.path, error.strerror or str(error)) from error
        self._bytes, self._lines = state.copy_bytes, state.copy_lines
        try:
            with file, self._copy() as copy:
                self._file, self._output = file, copy
                self._checked = self._saved = self._bytes
                self._write(self._chunks())
                if file.stream.damage:
                    self._report.skip(file.stream.damage, whole=False)
                self._save(complete=True)
        except OSError as error:  # closing the copy writes what is left of it
            raise IndexFailure(str(self._directory.path), error.strerror or str(error)) from error
        return self._state

    def _copy(self) -> IO[bytes]:
        try:
            copy = self._target.open("r+b" if self._state.copy_bytes else "wb", buffering=1024 * 1024)
            copy.truncate(self._state.copy_bytes)
            copy.seek(self._state.copy_bytes)
        except OSError as error:
            raise IndexFailure(str(self._directory.path), error.strerror or str(error)) from error
        return copy

    def _chunks(self) -> Iterator[bytes]:
        """What to write, whole lines of it or blocks of a copy that keeps the lines as they are."""
        if self._detected.name == UNKNOWN:
            self._report.skip(why_unknown(self._detected.head) or "", whole=False)
            return
        try:
            if self._detected.format is None:
                yield from self._file.blocks()
                return
            for span in self._detected.format.convert(self._file, self._report):
                if line := self._line(span):
                    yield line
        except (TooLarge, zipfile.BadZipFile) as error:
            self._report.skip(str(error) or "not a zip archive", whole=False)
        except OSError as error:
            raise SourceUnreadable(self._source.path, error.strerror or str(error)) from error

    def _line(self, span: Record) -> bytes | None:
        if span.get("trace_id") in _NO_ID or span.get("span_id") in _NO_ID:
            self._report.skip("a span without ids", whole=False)
            return None
        self._report.spans += 1
        for option in (orjson.OPT_APPEND_NEWLINE, orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS):
            try:
                return orjson.dumps(span, option=option)
            except orjson.JSONEncodeError:  # nested too deeply, an integer of more than 64 bits, half a surrogate pair
                pass
        try:
            return json.dumps(span, default=str).encode() + b"\n"
        except (RecursionError, ValueError) as error:
            self._report.spans -= 1
            self._report.skip(f"a span that cannot be written as JSON ({type(error).__name__})", whole=False)
            return None

    def _write(self, chunks: Iterable[bytes]) -> None:
        raw = self._detected.format is None
        for chunk in chunks:
            try:
                self._output.write(chunk)
            except OSError as error:
                raise IndexFailure(str(self._directory.path), error.strerror or str(error)) from error
            self._bytes += len(chunk)
            self._lines += chunk.count(b"\n") if raw else 1
            if self._bytes - self._checked >= _CHECK_BYTES:
                self._check()

    def _check(self) -> None:
        """Now and then: is it still wanted, and is there room? Raises: Cancelled, DeadlineExceeded, IndexFailure."""
        self._checked = self._bytes
        done, size = self._file.stream.file_position, max(self._source.size, 1)
        self._work.report(min(done / size, 1.0), 1.0, f"converting {Path(self._source.path).name}")
        if self._bytes > COPY_BYTES_LIMIT:
            self._discard()
            raise SourceTooLarge(self._source.path, COPY_BYTES_LIMIT >> 30)
        if shutil.disk_usage(self._directory.path).free < FREE_BYTES:
            reason = f"no room for the converted copy of {self._source.path}, {self._bytes >> 20} MiB so far"
            self._discard()
            raise IndexFailure(str(self._directory.path), reason)
        if not self._state.resumable:
            self._work.check()

    def _discard(self) -> None:
        self._target.unlink(missing_ok=True)
        state_file(self._directory, self._source.path).unlink(missing_ok=True)

    def _between_lines(self) -> None:
        if not self._state.resumable:
            self._work.check()
            return
        if self._work.stopped or self._work.expired:
            self._save(complete=False)
            self._work.check()
        if self._bytes - self._saved >= _CHECKPOINT_BYTES:
            self._save(complete=False)

    def _save(self, *, complete: bool) -> None:
        """Write the copy, then the state that says so. Raises: IndexFailure, SourceUnreadable."""
        self._saved = self._bytes
        position = self._file.position
        covered = self._source.size if self._state.compression or not self._state.resumable else position
        try:
            mark = fingerprint(Path(self._source.path), covered)
        except OSError as error:
            raise SourceUnreadable(self._source.path, error.strerror or str(error)) from error
        self._state = self._state.model_copy(
            update={
                "size": self._source.size,
                "mtime_ns": self._source.mtime_ns,
                "inode": self._source.inode,
                "covered_bytes": covered,
                "fingerprint": mark,
                "position": position,
                "copy_bytes": self._bytes,
                "copy_lines": self._lines,
                "complete": complete,
                "pending_bytes": self._file.pending_bytes,
                "report": self._report.as_json(),
            }
        )
        target = state_file(self._directory, self._source.path)
        temporary = self._directory.temporary(".json")
        try:
            self._output.flush()
            temporary.write_bytes(self._state.model_dump_json().encode())
            os.replace(temporary, target)
        except OSError as error:
            raise IndexFailure(str(self._directory.path), error.strerror or str(error)) from error
