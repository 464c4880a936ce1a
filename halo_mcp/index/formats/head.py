"""The beginning of a file as formats look at it: never its name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic_core import from_json

from halo_mcp.index.formats.canonical import read_values
from halo_mcp.index.formats.streams import Stream
from halo_mcp.index.span import Json, as_list, as_mapping

HEAD_BYTES: Final = 1024 * 1024
_LINES: Final = 40
_BOM: Final = b"\xef\xbb\xbf"
_ZIP: Final = b"PK\x03\x04"

Shape = Literal["lines", "array", "document", "zip", "other"]


@dataclass(frozen=True, slots=True)
class Head:
    """What a file begins with."""

    data: bytes
    """The first bytes, decompressed, without a byte order mark."""
    whole: bool
    """They are all."""
    compression: str
    """gzip, zstd, bzip2, xz or ""."""
    shape: Shape
    """JSON lines (also a single one), one JSON array, one JSON object over several lines, a zip archive, none of them.
    """
    values: tuple[Json, ...]
    """Of JSON lines the first ones that are JSON; of an array its first items; of a document the document. The last
    value may lack its end, where the file goes on behind ``data``."""
    names: tuple[str, ...]
    """What is in a zip archive."""

    @property
    def objects(self) -> Iterator[Mapping[str, Json]]:
        """The JSON objects among the values, and those in arrays among them."""
        for value in self.values:
            for item in as_list(value) or [value]:
                if isinstance(item, dict):
                    yield as_mapping(item)

    @property
    def first(self) -> Mapping[str, Json]:
        """The first of the objects; an empty one when there is none."""
        return next(self.objects, as_mapping(None))


def read_head(path: Path) -> Head:
    """Raises: OSError."""
    with Stream(path) as stream, stream.buffered() as reader:
        data = reader.read(HEAD_BYTES)
        whole, compression = not reader.peek(1), stream.compression
    if data.startswith(_ZIP) and not compression:
        return Head(data, whole, "", "zip", (), _names(path))
    data = data.removeprefix(_BOM)
    shape, values = _parsed(data, whole)
    return Head(data, whole, compression, shape, values, ())


def _names(path: Path) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return ()


def _parsed(data: bytes, whole: bool) -> tuple[Shape, tuple[Json, ...]]:
    text = data.lstrip()
    if not text.startswith((b"{", b"[")):
        values = _lines(text)
        return ("lines" if values else "other"), values
    first, newline, rest = text.partition(b"\n")
    ended = bool(newline) or whole
    value = _strict(first) if ended else None
    if text.startswith(b"["):
        if value is not None and rest.strip():
            return "lines", _lines(text)
        items = as_list(value if value is not None else _partial(text))
        if items:
            return "array", tuple(items[:_LINES])
        return ("array", ()) if value is not None else ("other", ())
    # The first line of a document is no JSON, and what is glued on one line is no document.
    if value is None and newline and (document := as_mapping(_partial(text))) and not read_values(first)[0]:
        return "document", (document,)
    if value is None and not ended:
        return "lines", tuple(v for v in [_partial(text)] if v is not None)
    values = _lines(text)
    return ("lines" if values else "other"), values


def _lines(text: bytes) -> tuple[Json, ...]:
    lines = text.split(b"\n", _LINES)[:_LINES]
    parsed = tuple(value for line in lines if as_mapping(value := _strict(line)) or as_list(value))
    return parsed or tuple(read_values(lines[0])[0])  # glued together, or badly encoded


def _strict(line: bytes) -> Json:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _partial(text: bytes) -> Json:
    """The JSON value that ``text`` begins, without what is cut off; None when there is none."""
    try:
        return from_json(text, allow_partial=True)
    except ValueError:
        return None
