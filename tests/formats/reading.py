"""What a format makes of a text: the way every format is tested, through the real conversion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from halo_mcp.index.conversion import CopyState, convert
from halo_mcp.index.segments import IndexDirectory, IngestReport
from halo_mcp.index.sources import list_sources
from halo_mcp.index.work import Work
from tests.builders import Record


@dataclass(frozen=True, slots=True)
class Read:
    """A converted file."""

    format: str
    """Name of the format that knew it; "" when the file is read as it is."""
    spans: list[Record]
    """In the order in which they were written."""
    report: IngestReport

    @property
    def span(self) -> Record:
        """The only one."""
        (only,) = self.spans
        return only

    @property
    def by_id(self) -> dict[str, Record]:
        """By span id."""
        found = {span["span_id"]: span for span in self.spans}
        assert len(found) == len(self.spans)
        return found

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(where, why) of what was left out."""
        return [(problem.where, problem.reason) for problem in self.report.problems]


def read(content: Any, *, indent: int | None = None) -> Read:
    """What becomes of a file with this content: bytes and text as they are, a list of records or a dict as JSON."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "source"  # without a suffix: a name must not matter
        path.write_bytes(as_bytes(content, indent))
        return read_file(path, Path(directory) / "index")


def read_lines(*records: Any) -> Read:
    """What becomes of JSON lines with these records (or bytes as they are)."""
    return read(b"".join(as_bytes(record) + b"\n" for record in records))


def as_bytes(content: Any, indent: int | None = None) -> bytes:
    """Bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def read_file(path: Path, index: Path) -> Read:
    """What becomes of a file, with its copy kept in the directory ``index``."""
    state, directory = converted(path, index)
    if state is None:
        return Read("", [], IngestReport())
    lines = (directory.path / state.file).read_bytes().splitlines()
    return Read(state.format, [json.loads(line) for line in lines], state.ingest_report)


def converted(path: Path, index: Path, work: Work | None = None) -> tuple[CopyState | None, IndexDirectory]:
    """The state of the copy of a file, brought up to date, and the directory that it is in."""
    directory, work = IndexDirectory(index, str(path), "data"), work or Work()
    (listed,) = list_sources([str(path)])
    with directory.writing(work):
        return convert(directory, listed, work), directory
