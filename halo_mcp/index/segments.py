"""Where an index lives, what it covers, and what is missing. Decisions are pure functions; I/O is at the end.

An index directory belongs to one dataset (its source arguments). It holds immutable segment files and one manifest that
lists them. Both appear by rename, under a file lock, so that no reader ever sees a half-written index and a killed
writer leaves only a temporary file behind. The index is a cache: deleting it loses nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from halo_mcp.errors import IndexFailure
from halo_mcp.index.columns import INDEX_VERSION
from halo_mcp.index.formats.names import CANONICAL, UNKNOWN
from halo_mcp.index.work import Work

MANIFEST_NAME: Final = "manifest.json"
PROBLEMS_KEPT: Final = 20
"""Skipped lines described per source; the rest are only counted."""
SEGMENTS_LIMIT: Final = 8
"""With more segments than this, all but the largest are merged into one."""
_FINGERPRINT_BYTES: Final = 4096


_INDEX_NAME: Final = re.compile(r"-[0-9a-f]{16}$")


class Problem(BaseModel):
    """A record that was skipped, wholly or in part."""

    line_number: int
    """0 when the record is no line; ``place`` then tells which it is."""
    byte_offset: int
    """In the uncompressed text of the source."""
    reason: str
    place: str = ""

    @property
    def where(self) -> str:
        """For people: ``line 3 (byte 120)``, ``item 17``."""
        line = f"line {self.line_number:,} (byte {self.byte_offset})" if self.line_number else ""
        return ", ".join(part for part in (line, self.place) if part) or "the file"


class IngestReport(BaseModel):
    """What became of the records of one source: lines, or items and documents in formats that are no lines."""

    format: str = CANONICAL
    """Name of its format; ``unknown`` when nothing in it could be read."""
    compression: str = ""
    converted_bytes: int = 0
    """Size of the converted copy; 0 when the source is read as it is."""
    lines_read: int = 0
    spans_indexed: int = 0
    lines_skipped: int = 0
    lines_repaired: int = 0
    """Lines whose spans only a lenient reader could get out."""
    pending_bytes: int = 0
    """Bytes of an incomplete last line, left until it is completed."""
    reasons: dict[str, int] = {}
    problems: list[Problem] = []
    bookkeeping: dict[str, int] = {}
    """Records of the source that tell nothing of a trace, by what they are; not among the skipped ones."""
    repairs: dict[str, int] = {}
    """What a converter mended, by kind."""

    @property
    def is_plain(self) -> bool:
        """Canonical JSON lines, read as they are."""
        return self.format == CANONICAL and not self.compression

    @property
    def records_word(self) -> str:
        """What the records of this format are called."""
        return "lines" if self.format in (CANONICAL, UNKNOWN) else "records"

    def plus(self, later: IngestReport) -> IngestReport:
        """This report and that of a later range of the same source."""
        return IngestReport(
            format=later.format,
            compression=later.compression,
            converted_bytes=later.converted_bytes,
            lines_read=self.lines_read + later.lines_read,
            spans_indexed=self.spans_indexed + later.spans_indexed,
            lines_skipped=self.lines_skipped + later.lines_skipped,
            lines_repaired=self.lines_repaired + later.lines_repaired,
            pending_bytes=later.pending_bytes,
            reasons=_summed(self.reasons, later.reasons),
            problems=(self.problems + later.problems)[:PROBLEMS_KEPT],
            bookkeeping=_summed(self.bookkeeping, later.bookkeeping),
            repairs=_summed(self.repairs, later.repairs),
        )

    def of_copy(self, indexed: IngestReport) -> IngestReport:
        """This report of a whole conversion, completed by what became of the lines of the converted copy."""
        whole = self.plus(indexed)
        return whole.model_copy(
            update={
                "format": self.format,
                "compression": self.compression,
                "pending_bytes": self.pending_bytes or indexed.pending_bytes,
                # The records are the source's; its lines where the copy has the same lines.
                "lines_read": self.lines_read or indexed.lines_read,
                "lines_skipped": self.lines_skipped + indexed.lines_skipped,
            }
        )


def _summed(some: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {key: some.get(key, 0) + more.get(key, 0) for key in (*some, *more)}


class Copied(BaseModel):
    """The converted copy of a source: what is indexed in its place."""

    path: str
    covered_bytes: int
    covered_lines: int
    resumable: bool
    """What is appended to the source is appended to the copy; else the source is converted anew."""
    indexed: IngestReport
    """What became of the lines of the copy."""


class SourceState(BaseModel):
    """A source as it was when it was last indexed."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    covered_bytes: int
    covered_lines: int
    fingerprint: str
    """Hash of the first and the last bytes of the covered range: equal means the file only grew."""
    report: IngestReport
    copied: Copied | None = None

    @property
    def indexed_path(self) -> str:
        """Where the text of its spans is: the source itself, or its converted copy."""
        return self.copied.path if self.copied else self.path


class SegmentInfo(BaseModel):
    """One published segment file."""

    file: str
    span_count: int


class Manifest(BaseModel):
    """Everything an index directory holds. ``source_no`` in a segment is a position in ``sources``."""

    model_config = ConfigDict(extra="forbid")

    version: int = INDEX_VERSION
    sources: list[SourceState] = []
    segments: list[SegmentInfo] = []


@dataclass(frozen=True, slots=True)
class Listed:
    """A source as the file system shows it now."""

    path: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of one source that are to be indexed."""

    source_no: int
    path: Path
    start: int
    stop: int
    first_line: int
    """Lines before ``start``."""
    whole_file: bool
    """The range is the whole file as it was listed."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What to do so that the index covers the listed sources."""

    rebuild: bool
    """Start from nothing: a source was replaced, shrank or vanished."""
    ranges: tuple[Range, ...]

    @property
    def nothing_to_do(self) -> bool:
        return not self.rebuild and not self.ranges


def compute_delta(
    listed: Sequence[Listed], manifest: Manifest | None, only_grew: Callable[[SourceState], bool]
) -> Delta:
    """Compare what is listed with what is indexed. Pure: ``only_grew`` is asked about files that became longer.

    New sources are numbered after the known ones. A manifest of another version counts as none.
    """
    if manifest is None or manifest.version != INDEX_VERSION:
        return _from_nothing(listed)
    known = {state.path: (no, state) for no, state in enumerate(manifest.sources)}
    if known.keys() - {item.path for item in listed}:
        return _from_nothing(listed)
    ranges: list[Range] = []
    next_no = len(known)
    for item in listed:
        if item.path not in known:
            ranges.append(Range(next_no, Path(item.path), 0, item.size, 0, whole_file=True))
            next_no += 1
            continue
        no, state = known[item.path]
        if (item.size, item.mtime_ns, item.inode) == (state.size, state.mtime_ns, state.inode):
            continue
        if item.size <= state.size or not only_grew(state):
            return _from_nothing(listed)
        ranges.append(Range(no, Path(item.path), state.covered_bytes, item.size, state.covered_lines, whole_file=False))
    return Delta(rebuild=False, ranges=tuple(ranges))


def _from_nothing(listed: Sequence[Listed]) -> Delta:
    ranges = (Range(no, Path(item.path), 0, item.size, 0, whole_file=True) for no, item in enumerate(listed))
    return Delta(rebuild=True, ranges=tuple(ranges))


def fingerprint(path: Path, covered_bytes: int) -> str:
    """Hash of the first and last bytes of the first ``covered_bytes`` bytes. Raises: OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(min(_FINGERPRINT_BYTES, covered_bytes)))
        file.seek(max(0, covered_bytes - _FINGERPRINT_BYTES))
        digest.update(file.read(min(_FINGERPRINT_BYTES, covered_bytes)))
    return digest.hexdigest()


def copy_name(source: str) -> str:
    """A new name for the converted copy of a source."""
    key = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"copy-{key}-{uuid.uuid4().hex[:8]}.jsonl"


def state_name(copy: str) -> str:
    """The name of the file that says how far a copy goes: the same for all copies of one source."""
    return f"{copy[: copy.rindex('-')]}.json"


def in_an_index(file: Path) -> bool:
    """Whether a file is one of an index directory's own: no source, though its copies hold spans."""
    return _INDEX_NAME.search(file.parent.name) is not None and (file.parent / "lock").is_file()


def only_grew(state: SourceState) -> bool:
    """Whether the file still starts with what was indexed."""
    try:
        return fingerprint(Path(state.path), state.covered_bytes) == state.fingerprint
    except OSError:
        return False


class IndexDirectory:
    """One dataset's index directory. Raises IndexFailure when it cannot be used."""

    def __init__(self, root: Path, key: str, label: str) -> None:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)[:40]
        self.path = root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        with self._failing_clearly():
            self.path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _failing_clearly(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            raise IndexFailure(str(self.path), error.strerror or str(error)) from error

    def read_manifest(self) -> Manifest | None:
        """The published manifest; None when there is none, or when it or a file that it lists is damaged or missing."""
        try:
            manifest = Manifest.model_validate_json((self.path / MANIFEST_NAME).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        except OSError as error:
            raise IndexFailure(str(self.path), error.strerror or str(error)) from error
        needed = [self.path / segment.file for segment in manifest.segments]
        needed += [Path(state.copied.path) for state in manifest.sources if state.copied]
        if manifest.version != INDEX_VERSION or not all(path.is_file() for path in needed):
            return None
        return manifest

    def discard(self, manifest: Manifest, work: Work, source: str = "") -> None:
        """Let the next build start from nothing, unless another index than ``manifest`` was published meanwhile.

        A converted copy of ``source`` is made anew, too. Readers keep what they have open.
        Raises: IndexFailure, Cancelled, DeadlineExceeded.
        """
        with self.writing(work):
            if self.read_manifest() == manifest:
                with self._failing_clearly():
                    (self.path / state_name(copy_name(source))).unlink(missing_ok=True)
                self.discard_any()

    def discard_any(self) -> None:
        """Let the next build start from nothing, whatever is published. Raises: IndexFailure."""
        with self._failing_clearly():
            (self.path / MANIFEST_NAME).unlink(missing_ok=True)

    def drop(self, work: Work) -> int:
        """Remove the index and the converted copies; returns the bytes freed. Readers keep what they have open.

        Raises: IndexFailure, Cancelled, DeadlineExceeded.
        """
        with self.writing(work), self._failing_clearly():
            freed = sum(entry.stat().st_size for entry in self.path.iterdir())
            self.discard_any()
            self.sweep(Manifest())
        return freed

    @contextmanager
    def writing(self, work: Work) -> Generator[None, None, None]:
        """Hold the write lock; waits for another process, and says so. Raises: Cancelled, DeadlineExceeded."""
        from filelock import FileLock, Timeout

        with self._failing_clearly():
            lock = FileLock(self.path / "lock")
            started = time.monotonic()
            while True:
                work.check()
                try:
                    lock.acquire(timeout=0.2)
                    break
                except Timeout:
                    work.report(0, 1, f"waiting for another process to index ({time.monotonic() - started:.0f} s)")
        try:
            yield
        finally:
            lock.release()

    def temporary(self, suffix: str) -> Path:
        """A name for a file that is not part of the index yet."""
        return self.path / f"tmp-{uuid.uuid4().hex}{suffix}"

    def publish(self, manifest: Manifest) -> None:
        """Make ``manifest`` the index, then remove the files that no manifest needs any more."""
        with self._failing_clearly():
            temporary = self.temporary(".json")
            temporary.write_bytes(manifest.model_dump_json().encode())
            os.replace(temporary, self.path / MANIFEST_NAME)
        self.sweep(manifest)

    def sweep(self, manifest: Manifest) -> None:
        """Remove what a killed writer or an older manifest left behind; call with the lock held.

        Readers keep deleted segments open. Where the system refuses to delete an open file, a later sweep does it.
        """
        wanted = {MANIFEST_NAME, "lock", *(segment.file for segment in manifest.segments)}
        for copied in (state.copied for state in manifest.sources):
            if copied is not None:
                name = Path(copied.path).name
                wanted |= {name, state_name(name)}
        for entry in self.path.iterdir():
            if entry.name not in wanted:
                with suppress(OSError):
                    rmtree(entry) if entry.is_dir() else entry.unlink()
