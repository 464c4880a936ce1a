"""A quote for a failure: words that stand verbatim in one attribute of its span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.failure_rules import LOOP_RULE, STATUS_RULE
from halo_mcp.index.patterns import decoded_values
from halo_mcp.index.span import Json

QUOTE_CHARS: Final = 240
_HISTORY: Final = tuple(f"attributes.{key}" for key in semconv.INPUT_MESSAGES + semconv.FLAT_INPUT_PREFIXES)
_INPUTS: Final = frozenset(f"attributes.{key}" for key in semconv.INPUT_VALUE)
_OUTPUTS: Final = frozenset(f"attributes.{key}" for key in semconv.OUTPUT_VALUE + semconv.OUTPUT_TEXT)
_OUTPUT_MESSAGES: Final = tuple(f"attributes.{key}>" for key in semconv.OUTPUT_MESSAGES)
_ENDS_TELL: Final = frozenset(("finish_length", "truncated_output"))
"""Rules by which the end of a text is what shows it."""


@dataclass(frozen=True, slots=True)
class Quote:
    """``text`` stands verbatim in the (decoded) value at ``path``."""

    path: str
    text: str


def quote_failure(record: Mapping[str, Json], rule: str, text: str | None) -> Quote | None:
    """The words in the span ``record`` that show the failure ``text``; None when it holds no such words.

    At most QUOTE_CHARS characters, on one line.
    """
    # What the span itself says comes first, then the innermost value: text inside JSON rather than the JSON.
    # A stack trace repeats the message, so it comes last of all.
    values = sorted(decoded_values(record), key=lambda value: (value[0].startswith(_HISTORY), len(value[1])))
    messages = [value for value in values if not value[0].endswith(semconv.EXCEPTION_STACKTRACE)]
    for among in (messages, values):
        for wanted in _spellings(rule, text):
            for path, value in among:
                if wanted in value:
                    return Quote(path, wanted)
    for path, value in values:
        if _shows(rule, path) and (line := _line(value, last=rule in _ENDS_TELL)):
            return Quote(path, line)
    return None


def _spellings(rule: str, text: str | None) -> Iterator[str]:
    """The text or its telling part: an error text joins a type and a message, or a status and an output."""
    if not text or rule in _ENDS_TELL or rule == LOOP_RULE:
        return
    parts = [text]
    if rule == STATUS_RULE:
        parts = [text, *reversed(text.split(" | ")), text.partition(": ")[2]]
    for part in parts:
        if line := _line(part, last=False):
            yield line


def _shows(rule: str, path: str) -> bool:
    """Whether the value at ``path`` is what a reader looks at: a loop's arguments, else what the span answered."""
    if rule == LOOP_RULE:
        return path in _INPUTS
    return path in _OUTPUTS or (path.startswith(_OUTPUT_MESSAGES) and path.endswith(("content", "text")))


def _line(text: str, *, last: bool) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1][-QUOTE_CHARS:] if last else lines[0][:QUOTE_CHARS]
