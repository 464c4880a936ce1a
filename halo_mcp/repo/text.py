"""Lines of a file, numbered and cut to what a model can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LINE_CHARS: Final = 2_000
MAX_RESPONSE_CHARS: Final = 150_000


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Consecutive lines of a file."""

    content: str
    """Each line as its number, a tab and its text."""
    start_line: int
    """From 1; 0 when there is no line."""
    end_line: int
    total_line_count: int
    truncated: bool
    """The file has lines after these."""


def excerpt(lines: list[str], offset: int, limit: int) -> Excerpt:
    """At most ``limit`` lines from line ``offset`` (from 1) on, as many as fit."""
    parts, size = list[str](), 0
    for number, line in enumerate(lines[offset - 1 : offset - 1 + limit], offset):
        part = f"{number}\t{capped(line, MAX_LINE_CHARS)}\n"
        size += len(part)
        if size > MAX_RESPONSE_CHARS:
            break
        parts.append(part)
    end = offset - 1 + len(parts)
    return Excerpt("".join(parts), offset if parts else 0, end if parts else 0, len(lines), end < len(lines))


def capped(text: str, characters: int) -> str:
    """``text``, or its beginning and how much was left out."""
    left_out = len(text) - characters
    return text if left_out <= 0 else f"{text[:characters]}[… {left_out:,} characters …]"
