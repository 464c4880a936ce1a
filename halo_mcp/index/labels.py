"""Files of labels: JSON lines, a JSON array or CSV with one verdict a row. Knows nothing about traces.

Columns are recognised by their names, whatever their case and punctuation (``traceId``, ``Trace ID``, ``trace_id``).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

from halo_mcp.errors import BadLabelFile, why_unusable
from halo_mcp.index.json_text import json_text
from halo_mcp.index.outcomes import FULL_SCORE, UNIT_SCORES_END
from halo_mcp.index.segments import Listed
from halo_mcp.index.semconv import OUTCOME_VALUES

Verdict = Literal["pass", "fail"]
IdKind = Literal["trace", "task", "session", "run", "any"]
Row: TypeAlias = Mapping[str, Any]

MOST_BYTES: Final = 256 << 20
MOST_ROWS: Final = 1_000_000
EXAMPLES_KEPT: Final = 3
_COLUMNS_KEPT: Final = 1_000

ID_COLUMNS: Final[dict[IdKind, tuple[str, ...]]] = {
    "trace": ("trace_id", "trace", "context.trace_id"),
    "task": ("task_id", "task_key", "task", "instance_id", "sample_id", "example_id", "problem_id"),
    "session": ("session_id", "conversation_id", "thread_id"),
    "run": ("run_id", "run", "experiment_id"),
    "any": ("id",),
}
"""Of each kind the first column with a value counts. "any" is tried as a trace, a task and a session."""
VERDICT_COLUMNS: Final = (
    *("outcome", "verdict", "label", "passed", "pass", "success", "successful", "succeeded", "resolved", "is_resolved"),
    *("solved", "correct", "is_correct", "result", "grade", "status"),
)
SCORE_COLUMNS: Final = ("score", "reward", "final_reward", "total_reward", "accuracy", "value")
"""The first column whose value is understood counts; verdicts go before scores."""


@dataclass(frozen=True, slots=True)
class Label:
    """What one row says."""

    ids: Mapping[IdKind, str]
    verdict: Verdict | None
    score: float | None


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The rows of a file that say something about something, and what became of the others."""

    path: str
    labels: tuple[Label, ...]
    rows: int
    unusable: Mapping[str, int]
    """Reason -> rows."""
    examples: tuple[str, ...]
    """Of unusable rows, with their numbers."""
    undecided: int
    """Rows with a score only, on a scale that is not 0 to 1, and no threshold is given."""
    highest: float
    """The highest score; 0 without any."""


def stated(path: str) -> Listed:
    """The file as the file system shows it now. Raises: BadLabelFile."""
    try:
        state = os.stat(os.path.expanduser(path))
    except FileNotFoundError:
        raise BadLabelFile(path, "there is no such file", "Check the path; give it in full.") from None
    except (OSError, ValueError) as error:
        raise BadLabelFile(path, why_unusable(error)) from error
    if not stat.S_ISREG(state.st_mode):
        what = "it is a directory" if stat.S_ISDIR(state.st_mode) else "it is a pipe, socket or device"
        raise BadLabelFile(path, f"{what}, not a file", "Name one file; --labels may be repeated.")
    if state.st_size > MOST_BYTES:
        raise BadLabelFile(path, f"it is larger than {MOST_BYTES >> 20} MiB", "Keep only ids and verdicts in it.")
    return Listed(os.path.abspath(os.path.expanduser(path)), state.st_size, state.st_mtime_ns, state.st_ino)


def read_labels(path: str, pass_score: float | None = None) -> LabelFile:
    """The labels in a file. ``pass_score``: a score from here on passes; None: a full one, on a scale from 0 to 1.

    Raises: BadLabelFile.
    """
    listed = stated(path)
    try:
        with open(listed.path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadLabelFile(path, why_unusable(error)) from error
    return parse_labels(path, content, pass_score)


def parse_labels(path: str, content: bytes, pass_score: float | None = None) -> LabelFile:
    """The labels in the bytes of a file that is called ``path`` in errors. Raises: BadLabelFile."""
    reader = _Reader(path)
    reader.read(_text(path, content))
    return reader.labels(pass_score)


# --- text to rows ------------------------------------------------------------------------------------------------
def _text(path: str, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # what spreadsheets call Unicode text
        return content.decode("utf-16", "replace")
    if b"\0" in content[:65_536] or content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        raise BadLabelFile(path, "it is binary or compressed", "Give JSON lines or CSV.")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    if not text.strip():
        raise BadLabelFile(path, "it is empty")
    return text


class _Names(tuple[str, ...]):
    """The names of the columns of a CSV file."""


def _rows(text: str) -> Iterator[tuple[int, Row | _Names | str]]:
    """(number of its line, row, names of columns, or what is wrong with it)."""
    start = text.lstrip()[:1]
    if start == "[" and (whole := _json(text)) is not None:
        yield from ((number, _object(item)) for number, item in enumerate(cast("list[Any]", whole), 1))
    elif start in ("{", "["):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len(lines) > 1 and _json(lines[0][1]) is None and isinstance(whole := _json(text), dict):
            yield 1, cast("Row", whole)
            return
        for number, line in lines:
            yield number, _object(_json(line))
    else:
        yield from _csv_rows(text)


def _json(text: str) -> Any:
    """The value of a JSON text; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(value: Any) -> Row | str:
    return cast("Row", value) if isinstance(value, dict) else "no JSON object"


def _csv_rows(text: str) -> Iterator[tuple[int, Row | _Names | str]]:
    head = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    delimiter = max(",;\t|", key=head.count)
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
    names: _Names | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"no CSV: {error}"
            continue
        if names is None:
            names = _Names(name.strip() for name in cells)
            yield reader.line_num, names
        elif any(cell.strip() for cell in cells):
            yield reader.line_num, dict(zip(names, cells, strict=False))


# --- rows to labels ----------------------------------------------------------------------------------------------
@lru_cache(4_096)
def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_ID_KINDS: Final[dict[str, tuple[IdKind, int]]] = {
    _plain(name): (kind, place) for kind, names in ID_COLUMNS.items() for place, name in enumerate(names)
}
_VERDICTS: Final = {_plain(name): place for place, name in enumerate(VERDICT_COLUMNS)}
_SCORES: Final = {_plain(name): place for place, name in enumerate(SCORE_COLUMNS)}


@dataclass(frozen=True, slots=True)
class _Read:
    number: int
    ids: dict[IdKind, str]
    said: list[tuple[str, Any]]
    """(plain column name, value) of the columns that may hold a verdict or a score, in the order they count."""


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._read: list[_Read] = []
        self._rows = 0
        self._columns: dict[str, None] = {}
        self._unusable: Counter[str] = Counter()
        self._examples: list[str] = []
        self._graded: set[str] = set()
        """Verdict columns that hold other numbers than 0 and 1: they are scores."""

    def read(self, text: str) -> None:
        for number, row in _rows(text):
            if not isinstance(row, str) and len(self._columns) < _COLUMNS_KEPT:
                self._columns.update(dict.fromkeys(row))
            if isinstance(row, _Names):
                continue
            self._rows += 1
            if self._rows > MOST_ROWS:
                raise BadLabelFile(self._path, f"it has more than {MOST_ROWS:,} rows", "Keep those of these traces.")
            if isinstance(row, str):
                self._refuse(number, row)
            else:
                self._take(number, row)
        self._check_columns()

    def _take(self, number: int, row: Row) -> None:
        ids: dict[IdKind, tuple[int, str]] = {}
        said: list[tuple[int, str, Any]] = []
        for name, value in row.items():
            plain = _plain(name) if len(name) < 100 else ""
            if (known := _ID_KINDS.get(plain)) and (text := _id(value)):
                kind, place = known
                ids[kind] = min(ids.get(kind, (place, text)), (place, text))
            elif plain in _VERDICTS and value not in (None, ""):
                said.append((_VERDICTS[plain], plain, value))
                if _number(value) not in (None, 0.0, 1.0):
                    self._graded.add(plain)
            elif plain in _SCORES and value not in (None, ""):
                said.append((1_000 + _SCORES[plain], plain, value))
        if not ids:
            self._refuse(number, "no id")
        elif not said:
            self._refuse(number, "no verdict and no score")
        else:
            said.sort(key=lambda one: one[0])
            self._read.append(_Read(number, {kind: text for kind, (_, text) in ids.items()}, [one[1:] for one in said]))

    def _refuse(self, number: int, reason: str, what: str = "") -> None:
        self._unusable[reason] += 1
        if len(self._examples) < EXAMPLES_KEPT:
            self._examples.append(f"line {number}: {reason}{what}")

    def _check_columns(self) -> None:
        plain = {_plain(name) for name in self._columns if len(name) < 100}
        there = ", ".join(repr(name[:40]) for name in [*self._columns][:12]) or "none"
        there += f" and {len(self._columns) - 12} more" if len(self._columns) > 12 else ""
        for what, known, names in (
            ("an id", _ID_KINDS, [name for some in ID_COLUMNS.values() for name in some]),
            ("a verdict or score", {**_VERDICTS, **_SCORES}, [*VERDICT_COLUMNS, *SCORE_COLUMNS]),
        ):
            if not plain & known.keys():
                reason = f"no column is recognised as {what}: the columns are {there}"
                raise BadLabelFile(self._path, reason, f"Recognised are {', '.join(names)}.")

    def labels(self, pass_score: float | None) -> LabelFile:
        found = [(one, *self._said(one)) for one in self._read]
        highest = max((score for _, _, score in found if score is not None), default=0.0)
        threshold = pass_score
        if threshold is None and highest <= UNIT_SCORES_END:
            threshold = FULL_SCORE
        labels: list[Label] = []
        undecided = 0
        for one, verdict, score in found:
            if verdict is None and score is None:
                self._refuse(one.number, "a verdict that is not understood", f": {str(one.said[0][1])[:40]!r}")
                continue
            if verdict is None and score is not None and threshold is not None:
                verdict = "pass" if score >= threshold else "fail"
            undecided += verdict is None
            labels.append(Label(one.ids, verdict, score))
        return LabelFile(
            self._path, tuple(labels), self._rows, dict(self._unusable), tuple(self._examples), undecided, highest
        )

    def _said(self, one: _Read) -> tuple[Verdict | None, float | None]:
        """The first verdict and the first score that are understood."""
        verdict, score = None, None
        for plain, value in one.said:
            number, word = _number(value), OUTCOME_VALUES.get(str(value).strip().lower())
            is_score = plain in _SCORES or plain in self._graded
            if word is None and number is not None and not is_score:
                word = "pass" if number == 1 else "fail"
            verdict = verdict or cast("Verdict | None", word)
            score = number if score is None and is_score else score
        return verdict, score


def _id(value: Any) -> str:
    if value is None or isinstance(value, bool | dict | list):
        return ""
    return (value if isinstance(value, str) else json_text(value)).strip()


def _number(value: Any) -> float | None:
    """The number that a value is, or spells; None for all else, truth values too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 40:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in str(value) else None
