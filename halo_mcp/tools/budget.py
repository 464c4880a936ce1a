"""How large an answer may be, and how text is made to fit. No other module knows these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

DEFAULT_CHARS: Final = 20_000
MAX_CHARS: Final = 150_000
"""HALO's response budget; reached only when a caller asks for it."""
OVERVIEW_CHARS: Final = 6_000
COMPARE_CHARS: Final = 6_000
"""Of contrasts and comparisons of two groups of traces; typical ones are half of it."""
VERSIONS_CHARS: Final = 6_000
COST_CHARS: Final = 6_000
VIEW_ATTRIBUTE_CHARS: Final = 4_096
"""Per attribute where a whole trace is shown (HALO's number)."""
SPAN_ATTRIBUTE_CHARS: Final = 16_384
"""Per attribute where chosen spans are shown (HALO's number)."""
PREVIEW_CHARS: Final = 80
NAME_CHARS: Final = 200
"""Of names that someone else chose: spans, tools, models, tasks. Longer ones are cut with HALO's marker."""
SQL_CHARS: Final = 12_000
"""Of an answer to SQL; cells are cut first, evenly, then rows are left out."""
SQL_CELL_CHARS: Final = 200
"""Cells of many rows are cut no further than to this."""
DIGEST_CHARS: Final = 8_000
"""Of one trace in short."""
LEAST_DIGEST_CHARS: Final = 2_000
"""Digests that would have to be shorter are left out instead."""
MAP_CHARS: Final = 80_000
"""Of the digests that one request to a model holds."""
REJECTION_CHARS: Final = 6_000
"""Of what is sent back to a model whose evidence does not stand."""
MATCH_GROUPS: Final = 20
"""Groups that search_dataset counts; of more it says how many."""
REPEATED_CALL_CHARS: Final = 3_000
"""A next call is written out in full up to here; a longer one is described by what changes in it."""
RESULT_META: Final = {"anthropic/maxResultSizeChars": MAX_CHARS + 10_000}
"""Lets Claude Code keep such an answer inline instead of saving it to a file."""

MaxChars = Annotated[
    int, Field(ge=2_000, le=MAX_CHARS, description=f"answer size; default {DEFAULT_CHARS}, at most {MAX_CHARS}")
]


MARKER_CHARS: Final = 60
"""Room for what ``cut`` adds."""


def cut(text: str, limit: int) -> str:
    """``text``, or its first ``limit`` characters with HALO's marker, which names the original length."""
    return text if len(text) <= limit else f"{text[:limit]}... [HALO truncated: original {len(text)} chars]"


def preview(text: str, limit: int = PREVIEW_CHARS) -> str:
    """The beginning of ``text`` on one line."""
    line = " ".join(text[: limit * 4].split())
    return line if len(line) <= limit and len(text) <= limit * 4 else line[: limit - 1].rstrip() + "…"


def name(text: str, limit: int = NAME_CHARS) -> str:
    """A name on one line, cut with HALO's marker when someone chose a very long one."""
    # Every character at which some reader breaks a line is one that is not printable.
    return cut(text if text.isprintable() else " ".join(text.split()), limit)


def fair_shares(lengths: Sequence[int], budget: int) -> int:
    """The largest cap c for which texts of these lengths, each cut to c, fit into ``budget`` together.

    Short texts are kept whole, so that one long text never pushes the others out. At least 1.
    """
    left = budget
    for position, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - position)
        if length > share:
            return max(1, share)
        left -= length
    return max(1, max(lengths, default=1))


class Page:
    """Collects lines until a budget is used up."""

    def __init__(self, max_chars: int, reserve: int = 0) -> None:
        """``reserve`` characters stay free for closing lines that ``close`` adds."""
        self._max_chars = max_chars
        self._left = max_chars - reserve
        self._parts: list[str] = []

    @property
    def left(self) -> int:
        """The length of the longest text that ``add`` would still take; may be negative."""
        return self._left - 1

    def add(self, text: str) -> bool:
        """Add ``text`` as further lines; False, and nothing is added, when it does not fit."""
        if len(text) > self.left:
            return False
        self._parts.append(text)
        self._left -= len(text) + 1
        return True

    def add_cut(self, text: str) -> None:
        """Add ``text``, cut when it does not fit."""
        if not self.add(text) and self.left > MARKER_CHARS:
            self.add(cut(text, self.left - MARKER_CHARS))

    def close(self, *texts: str) -> str:
        """All lines and these. They should fit into the reserve; if not, lines before them give way."""
        closing = "\n".join(text for text in texts if text)
        body = "\n".join(self._parts)
        room = self._max_chars - len(closing) - 1
        if body and len(body) > room:
            body = cut(body, max(0, room - MARKER_CHARS)) if room > MARKER_CHARS else ""
        text = "\n".join(part for part in (body, closing) if part)
        return text if len(text) <= self._max_chars else cut(text, self._max_chars - MARKER_CHARS)
