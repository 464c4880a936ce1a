"""Canonical JSON lines: where the lines are, and what to do with those that a strict parser refuses.

The bulk of a file never passes through here: DuckDB's JSON reader takes it (``build.py``). This module finds the line
starts for it, and reads the few lines it could not: cut, glued, wrongly encoded, oversized or not a span at all.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import orjson

from halo_mcp.index.ids import normalize_id
from halo_mcp.index.span import Json
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LINE_BYTES_LIMIT: Final = 256 * 1024 * 1024
"""Longer lines are skipped: no agent span is that large, and one line must not decide the memory of the server."""

_BLOCK_BYTES: Final = 8 * 1024 * 1024
_WHITESPACE: Final = b" \t\r\n\v\f"
_BOM: Final = b"\xef\xbb\xbf"
_INTEGER_DIGITS: Final = 40
"""Longer integers stay text; Python refuses to convert integers of thousands of digits at all."""
_RESTARTS: Final = 200
"""How many objects that do not end may stand before a span in a damaged line: a cut one and all open ones in it."""
_EXAMINED_BYTES: Final = 256 * 1024 * 1024
"""How much text the search for them may read in all."""
_MAX_LEVELS: Final = 200
"""What is nested deeper is kept as its JSON text: Python's reader and writer of JSON give up at about 1,000 levels."""
_OBJECT_START: Final = re.compile(r'\{\s*"')
_SPACE: Final = re.compile(r"[ \t\r\n\v\f]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL
)
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Lines:
    """The non-blank lines of one byte range, in order."""

    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """Without the newline."""
    numbers: NDArray[np.int64]
    """Line numbers, counted from 1 at the start of the range."""
    end: int
    """Where the next range starts: behind the last newline, or at the end when the last line is whole without one."""
    line_count: int
    """Newlines in the range."""
    pending_bytes: int
    """Bytes of an incomplete last line, left for later."""


@dataclass(frozen=True, slots=True)
class Found:
    """One span found in a line: its place relative to the line, and its record."""

    start: int
    length: int
    record: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a lenient reader got out of one line."""

    found: tuple[Found, ...]
    problem: str | None
    """Why some or all of the line was skipped."""


def scan_lines(path: Path, start: int, stop: int, work: Work) -> Lines:
    """The lines in ``path`` from byte ``start`` to ``stop``, in one pass at several GB/s and constant memory per line.

    A last line without newline counts when it is a whole JSON object or array; else it is left for the next range.
    Raises: OSError; Cancelled, DeadlineExceeded.
    """
    import numpy as np

    blocks = list(_line_lengths(path, start, stop, work))
    lengths = np.concatenate([*(block[0] for block in blocks), np.zeros(0, np.int64)])
    first_bytes = np.concatenate([*(block[1] for block in blocks), np.zeros(0, np.uint8)])
    ends = np.cumsum(lengths) + start
    offsets = ends - lengths
    end, pending, open_end = start, 0, False
    with path.open("rb") as file:
        if len(ends):
            end = int(ends[-1])
            open_end = not _ends_with_newline(file, end)
        if open_end and not _is_whole_object(file, int(offsets[-1]), int(lengths[-1])):
            pending, open_end = int(lengths[-1]), False
            end -= pending
            offsets, lengths, first_bytes = offsets[:-1], lengths[:-1], first_bytes[:-1]
        content = lengths - 1
        if open_end:
            content[-1] += 1
        blank = np.zeros(len(content), dtype=np.bool_)
        for index in np.flatnonzero(np.isin(first_bytes, np.frombuffer(_WHITESPACE, np.uint8))):
            file.seek(int(offsets[index]))
            blank[index] = not file.read(min(int(content[index]), LINE_BYTES_LIMIT)).strip()
    keep = np.flatnonzero(~blank)
    return Lines(offsets[keep], content[keep], keep + 1, end, len(lengths) - int(open_end), pending)


def _line_lengths(
    path: Path, start: int, stop: int, work: Work
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Per block: the length of each line that ends in it (with its newline) and the line's first byte."""
    import numpy as np

    carry, carry_first, position = 0, 0, start
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while position < stop:
            work.check()
            block = file.read(min(_BLOCK_BYTES, stop - position))
            if not block:
                break
            position += len(block)
            # Iterating a BytesIO finds newlines faster than numpy does, and a giant line never is in memory at once.
            lengths = np.fromiter(map(len, io.BytesIO(block)), dtype=np.int64)
            first_bytes = np.frombuffer(block, np.uint8)[np.cumsum(lengths) - lengths]
            if carry:
                first_bytes[0] = carry_first
                lengths[0] += carry
            carry = 0 if block.endswith(b"\n") else int(lengths[-1])
            if carry:
                carry_first = int(first_bytes[-1])
                lengths, first_bytes = lengths[:-1], first_bytes[:-1]
            yield lengths, first_bytes
    if carry:
        yield np.array([carry], dtype=np.int64), np.array([carry_first], dtype=np.uint8)


def _ends_with_newline(file: BinaryIO, end: int) -> bool:
    file.seek(end - 1)
    return file.read(1) == b"\n"


def _is_whole_object(file: BinaryIO, offset: int, length: int) -> bool:
    if length > LINE_BYTES_LIMIT:
        return False
    file.seek(offset)
    line = file.read(length)
    if not line.rstrip().endswith((b"}", b"]")):
        return False
    reading = read_line(line)
    return (bool(reading.found) and reading.problem is None) or _is_json(line)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def read_line(line: bytes) -> Reading:
    """Every span in a line, however dirty: byte order mark, NaN, control characters, invalid UTF-8, glued objects.

    Never raises on bad content; ``problem`` says in a few words what was skipped.
    """
    if len(line) > LINE_BYTES_LIMIT:
        return Reading((), f"longer than {LINE_BYTES_LIMIT // (1024 * 1024)} MiB")
    start = len(_BOM) if line.startswith(_BOM) else 0
    try:
        value = orjson.loads(memoryview(line)[start:])
    except orjson.JSONDecodeError as error:
        return _read_damaged(line, start, str(error).split(":")[0])
    if line.count(b"{") + line.count(b"[") > _MAX_LEVELS and isinstance(value, dict):
        value = _DECODER.decode(_shallow(line.decode("latin-1"), line.index(b"{"))[0].encode("latin-1").decode())
    return _reading_of(value, start, len(line) - start)


def read_values(text: bytes) -> tuple[list[Json], str | None]:
    """Every JSON object or array that stands by itself in ``text``, however dirty it is, as ``read_line``; and why some
    of it was skipped, if it was.

    Never raises on bad content. Behind damage, what is whole and ends where another one starts (or the text ends)
    counts as standing by itself.
    """

    def why_not(value: Json, damaged: bool, end: int) -> str | None:
        if not isinstance(value, dict | list):
            return f"not a JSON object but {_json_type(value)}"
        rest = text[end : end + 64].lstrip()
        return "inside of damaged text" if damaged and rest and not rest.startswith(b"{") else None

    found, problem = _read_objects(text, len(_BOM) if text.startswith(_BOM) else 0, "", why_not)
    return [value for _, _, value in found], problem


def parse_record(text: bytes) -> Mapping[str, Json] | None:
    """The one JSON object in ``text`` (a place the index points at), or None when it holds none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = _read_damaged(text, 0, "").found
        return found[0].record if found else None
    return cast("dict[str, Json]", value) if isinstance(value, dict) else None


def _reading_of(value: Json, start: int, length: int) -> Reading:
    problem = _why_no_span(value)
    return Reading((), problem) if problem else Reading((Found(start, length, value),), None)


def is_span(value: Json) -> bool:
    """Whether a JSON value is a canonical span: an object with a trace id and a span id."""
    return _why_no_span(value) is None


def _why_no_span(value: Json) -> str | None:
    if not isinstance(value, dict):
        return f"not a JSON object but {_json_type(value)}"
    record = cast("dict[str, Json]", value)
    for key in ("trace_id", "span_id"):
        if not normalize_id(record.get(key)):
            return _foreign_format(record) or f"no {key}"
    return None


def _foreign_format(record: Mapping[str, Json]) -> str | None:
    if "resourceSpans" in record or "resource_spans" in record:
        return "an OTLP export request (resourceSpans), not a canonical span"
    return None


def _json_type(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return "an array" if isinstance(value, list) else "a string" if isinstance(value, str) else "a number"


def _read_damaged(line: bytes, start: int, strict_error: str) -> Reading:
    def why_not(value: Json, damaged: bool, _: int) -> str | None:
        # Inside a damaged span, links and events hold objects with ids too: a span also has a name or a start.
        reason = _why_no_span(value)
        inside = damaged and reason is None and not ("name" in value or "start_time" in value)
        return "inside of damaged text" if inside else reason

    found, problem = _read_objects(line, start, strict_error, why_not)
    return Reading(tuple(Found(at, length, value) for at, length, value in found), problem)


def _read_objects(
    line: bytes, start: int, strict_error: str, why_not: Callable[[Json, bool, int], str | None]
) -> tuple[list[tuple[int, int, Json]], str | None]:
    """(start, length, value) of all values in a line that ``why_not`` (value, damaged before, end) takes, and the first
    problem."""
    # latin-1 maps each byte to one character, so positions in text are positions in bytes.
    text = line.decode("latin-1")
    found: list[tuple[int, int, Json]] = []
    problem: str | None = None
    position, damaged, restarts, examined = _behind_space(text, start), False, 0, 0
    while position < len(text):
        try:
            value, end = _object_at(line, text, position)
        except ValueError:
            problem = problem or _describe(line, position, strict_error)
            damaged = True
            if text[position] == "{":
                restarts, examined = restarts + 1, examined + len(text) - position
            restart = _OBJECT_START.search(text, position + 1)
            if restart is None or restarts > _RESTARTS or examined > _EXAMINED_BYTES:
                break
            position = restart.start()
            continue
        reason = why_not(value, damaged, end)
        if reason is None:
            found.append((position, end - position, value))
        else:
            problem = problem or reason
        position = _behind_space(text, end)
    return found, problem


def _behind_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _object_at(line: bytes, text: str, position: int) -> tuple[Json, int]:
    """The JSON value at ``position`` of ``line`` (``text`` has a character per byte) and where it ends.

    Raises: ValueError when there is none.
    """
    try:
        _, end = _DECODER.raw_decode(text, position)
        return _DECODER.decode(_repaired(line[position:end])), end
    except RecursionError:
        shallow, end = _shallow(text, position)
        return _DECODER.decode(_repaired(shallow.encode("latin-1"))), end


def _shallow(text: str, position: int) -> tuple[str, int]:
    """The JSON value at ``position`` with what is nested too deeply as strings of JSON text, and where the value ends.

    Raises: ValueError when it does not end.
    """
    pieces: list[str] = []
    level, copied = 0, position
    for token in _STRUCTURE.finditer(text, position):
        if token[0] in "{[":
            level += 1
            if level == _MAX_LEVELS + 1:
                pieces.append(text[copied : token.start()])
                copied = token.start()
        elif token[0] in "}]":
            if level == _MAX_LEVELS + 1:
                pieces.append(json.dumps(text[copied : token.end()], ensure_ascii=False))
                copied = token.end()
            level -= 1
            if level == 0:
                return "".join([*pieces, text[copied : token.end()]]), token.end()
    raise ValueError("it does not end")


def _describe(line: bytes, position: int, strict_error: str) -> str:
    if b"\x00" in line[position : position + 4096]:
        return "binary data (NUL bytes)"
    if line.startswith((b"{", _BOM), position) and not line.rstrip().endswith(b"}"):
        return "cut off before the end of the object"
    return f"not JSON: {strict_error or 'unreadable'}"


def _repaired(line: bytes) -> str:
    """Bytes as text that any JSON writer takes: bad UTF-8 and half surrogate pairs become U+FFFD."""
    text = line.decode("utf-8", "replace")
    return _ESCAPE.sub(_without_half_pair, text) if _SURROGATE.search(text) else text


def _without_half_pair(escape: re.Match[str]) -> str:
    return r"\ufffd" if len(escape[0]) == 6 and _SURROGATE.match(escape[0]) else escape[0]


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _INTEGER_DIGITS else digits


def _parse_float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


_DECODER: Final = json.JSONDecoder(
    strict=False, parse_int=_parse_integer, parse_float=_parse_float, parse_constant=lambda constant: constant
)
"""Numbers that JSON cannot say (NaN, or too large) are kept as their text, so that every value can be written again."""
