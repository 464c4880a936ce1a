"""A file opened for a format: its lines, JSON values, document or archive, read as a stream.

Wherever a record is handed out, the report learns its place, so that a format need not carry places around.
"""

from __future__ import annotations

import codecs
import io
import json
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import orjson

from halo_mcp.index.formats.canonical import LINE_BYTES_LIMIT, read_values
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import RECOVERED, Report
from halo_mcp.index.formats.streams import Stream, zip_errors, zip_module
from halo_mcp.index.span import Json

DOCUMENT_BYTES_LIMIT: Final = 1024 * 1024 * 1024
"""Files that are one JSON value are read whole, if they are no larger than this uncompressed."""
_BLOCK_BYTES: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = " \t\r\n"


class TooLarge(Exception):
    """A part of the file is larger than what may be in memory at once; the text says which and how large."""


class TraceFile:
    """One file, read once from its beginning (or from where an earlier reading ended) to its end."""

    def __init__(
        self,
        path: Path,
        head: Head,
        report: Report,
        *,
        position: int = 0,
        resumable: bool = False,
        on_line: Callable[[], None] = lambda: None,
    ) -> None:
        """``position``: uncompressed bytes that were read before. With ``resumable`` an incomplete last line waits for
        its rest. ``on_line`` is called before every line or item, when all before it has been dealt with.

        Raises: OSError.
        """
        self.path = path
        self.head = head
        self.report = report
        self.position = position
        """Uncompressed bytes whose records have been handed out, up to a line end."""
        self.pending_bytes = 0
        self._resumable = resumable
        self._on_line = on_line
        self.stream = Stream(path)
        self._reader = self.stream.buffered()
        if position:
            self._skip(position)

    def _skip(self, count: int) -> None:
        if not self.stream.compression:
            self.stream.seek_to(count)
            return
        while count > 0 and (block := self._reader.read(min(count, _BLOCK_BYTES))):
            count -= len(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stream.close()

    # --- as bytes ------------------------------------------------------------------------------------------------
    def blocks(self) -> Iterator[bytes]:
        """The uncompressed bytes, a few megabytes at a time."""
        while block := self._reader.read(_BLOCK_BYTES):
            yield block
            self.position += len(block)
            self._on_line()

    def document_bytes(self) -> bytes:
        """All of it. Raises: TooLarge."""
        data = self._reader.read(DOCUMENT_BYTES_LIMIT + 1)
        if len(data) > DOCUMENT_BYTES_LIMIT:
            raise TooLarge(f"one document of more than {DOCUMENT_BYTES_LIMIT >> 20} MiB")
        return data

    # --- as messages, each behind its length ------------------------------------------------------------------------
    def next_record(self, place: str) -> None:
        """Tell that a record of a binary file begins here."""
        self._on_line()
        self.report.records += 1
        self.report.place, self.report.byte_offset = place, self.position

    def take(self, count: int) -> bytes:
        """The next bytes; fewer at the end. Raises: TooLarge."""
        if count > DOCUMENT_BYTES_LIMIT:
            raise TooLarge(f"a message of more than {DOCUMENT_BYTES_LIMIT >> 20} MiB")
        data = self._reader.read(count)
        self.position += len(data)
        return data

    # --- as lines ------------------------------------------------------------------------------------------------
    def lines(self) -> Iterator[bytes]:
        """The lines that are not blank, without their newline. Overlong ones are skipped, and reported."""
        limit = LINE_BYTES_LIMIT if b"\n" in self.head.data else DOCUMENT_BYTES_LIMIT
        report, first = self.report, not self.position
        while True:
            self._on_line()
            line = self._reader.readline(limit + 1)
            if not line:
                return
            report.line_number += 1
            report.byte_offset = self.position
            length = len(line)
            if length > limit:
                length += self._to_line_end(line)
                report.records += 1
                report.skip(f"longer than {limit >> 20} MiB")
                line = b""
            elif self._waits(line):
                self.pending_bytes = length
                report.line_number -= 1
                return
            if first:
                line, first = line.removeprefix(_BOM), False
            if line and not line.isspace():
                report.records += 1
                yield line
            self.position += length

    def _waits(self, line: bytes) -> bool:
        """An incomplete last line of a file that may still grow."""
        if not self._resumable or self.stream.compression or line.endswith(b"\n"):
            return False
        return not line.rstrip().endswith((b"}", b"]")) or read_values(line)[1] is not None

    def _to_line_end(self, line: bytes) -> int:
        length = 0
        while line and not line.endswith(b"\n"):
            line = self._reader.readline(_BLOCK_BYTES)
            length += len(line)
        return length

    # --- as JSON -------------------------------------------------------------------------------------------------
    def values(self) -> Iterator[Json]:
        """The JSON values: one a line, the items of an array, or the document; of glued and damaged lines all that are
        whole. What is no JSON is reported. Arrays and lines are never in memory as a whole. Raises: TooLarge.
        """
        if self.head.shape == "array":
            yield from self._items()
        elif self.head.shape == "document":
            self.report.records += 1
            self.report.line_number = 1
            yield from self._values_in(self.document_bytes().removeprefix(_BOM))
        else:
            for line in self.lines():
                try:
                    value = orjson.loads(line)
                except orjson.JSONDecodeError:
                    yield from self._values_in(line)
                else:
                    yield value

    def document(self) -> Json:
        """The one JSON value that the file is; None, and reported, when it cannot be read. Raises: TooLarge."""
        self.report.records += 1
        return next(self._values_in(self.document_bytes().removeprefix(_BOM)), None)

    def _values_in(self, text: bytes) -> Iterator[Json]:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            values, problem = read_values(text)
            if problem:
                self.report.skip(problem, whole=not values)
            if values:
                self.report.repaired(RECOVERED, len(values))
            yield from values
        else:
            yield value

    def _items(self) -> Iterator[Json]:
        """The items of an array, each read by itself."""
        text, number, refused = _Text(self._reader), 0, 0
        text.fill()
        text.enter()
        while text.behind(_SPACE + ","):
            if text.starts("]"):
                break
            self._on_line()
            number += 1
            self.report.place, self.report.byte_offset = f"item {number}", 0
            self.report.records += 1
            try:
                value = text.value()
            except ValueError:
                refused += 1
                self.report.skip("cut off or not JSON: what follows in the array is lost")
                break
            yield value
        self.report.place = ""

    # --- as a zip archive ------------------------------------------------------------------------------------------
    @contextmanager
    def archive(self) -> Generator[zipfile.ZipFile]:
        """The file as a zip archive; read its members with ``member``. Raises: zipfile.BadZipFile."""
        try:
            opened: zipfile.ZipFile = zip_module().ZipFile(self.path)
        except zip_module().BadZipFile as error:
            raise zipfile.BadZipFile(str(error)) from error
        with opened as archive:
            yield archive

    def member(self, archive: zipfile.ZipFile, name: str) -> Json:
        """The JSON in one member; None, and reported, when it cannot be read. Raises: TooLarge."""
        self._on_line()
        self.report.records += 1
        self.report.place = name
        try:
            with archive.open(name) as member:
                data = _limited(member)
        except (*zip_errors(), OSError, ValueError, RuntimeError, KeyError) as error:
            self.report.skip(f"unreadable member of the archive ({type(error).__name__})")
            return None
        return next(self._values_in(data.removeprefix(_BOM)), None)


def _limited(member: IO[bytes]) -> bytes:
    data = member.read(DOCUMENT_BYTES_LIMIT + 1)
    if len(data) > DOCUMENT_BYTES_LIMIT:
        raise TooLarge(f"a member of more than {DOCUMENT_BYTES_LIMIT >> 20} MiB")
    return data


class _Text:
    """The text of a stream behind a moving position, with no more of it in memory than the value there needs."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._at = 0
        self._ended = False

    def fill(self, wanted: int = _BLOCK_BYTES) -> bool:
        """Read at least ``wanted`` bytes more; False at the end. Raises: TooLarge."""
        if self._ended:
            return False
        block = self._reader.read(wanted)
        self._ended = len(block) < wanted
        self._text = self._text[self._at :] + self._decoder.decode(block, self._ended)
        self._at = 0
        if len(self._text) > DOCUMENT_BYTES_LIMIT:
            raise TooLarge(f"one item of more than {DOCUMENT_BYTES_LIMIT >> 20} MiB")
        return bool(block)

    def behind(self, characters: str) -> bool:
        """Move behind all of these characters; False at the end."""
        while True:
            text, at, end = self._text, self._at, len(self._text)
            while at < end and text[at] in characters:
                at += 1
            self._at = at
            if at < end:
                return True
            if not self.fill():
                return False

    def enter(self) -> None:
        """Move behind the bracket that opens the array, and behind no other."""
        self.behind(_SPACE)
        self._at += 1

    def starts(self, character: str) -> bool:
        return self._text.startswith(character, self._at)

    def value(self) -> Json:
        """The JSON value here, and move behind it. Raises: ValueError, TooLarge."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except ValueError:
                if not self.fill(max(_BLOCK_BYTES, len(self._text) - self._at)):
                    raise
                continue
            # A number may go on in the next block.
            if end == len(self._text) and self.fill():
                continue
            self._at = end
            return value


_DECODER: Final = json.JSONDecoder(strict=False, parse_constant=lambda constant: constant)
