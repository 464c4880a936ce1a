"""What pages of spans are made of: the shared facts said once, blocks of text, and the same spans as JSON records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Span
from halo_mcp.index.store import SpanRow
from halo_mcp.tools.budget import NAME_CHARS, PREVIEW_CHARS, Page, cut, name
from halo_mcp.tools.render import pairs, readable
from halo_mcp.tools.spanjson import span_json

_COMMON_CHARS: Final = 1_500
"""How much is said once about all spans; what does not fit is said on each."""
_LEAST_RECORD_CHARS: Final = 64


class SpanPage:
    """Blocks of spans as text, and the same spans as records, as many of either as fit."""

    def __init__(self, page: Page, max_chars: int, attribute_chars: int) -> None:
        self._page = page
        self._records = _Records(max_chars, attribute_chars)
        self._empty = True

    @property
    def records(self) -> list[dict[str, Any]]:
        return self._records.shown

    def add(self, span: Span, block: str, first: int) -> int | None:
        """Show ``block`` from character ``first`` on; None when all of it fitted, else where the next page goes on.

        The first block of a page is cut when it does not fit, any other is left for the next page.
        """
        lead = f"… [{span.span_id}] continued from character {first}:\n" if first else ""
        empty, self._empty = self._empty, False
        if self._page.add(lead + block[first:]):
            self._records.add(span)
            return None
        if not empty:
            return first
        self._records.add(span)
        room = max(1, self._page.left - len(lead))
        self._page.add_cut(lead + block[first : first + room])
        return first + room


class _Records:
    """Spans as JSON, as many as fit; at least one, its texts cut further until it fits."""

    def __init__(self, max_chars: int, attribute_chars: int) -> None:
        self._left = max_chars
        self._max_chars = max_chars
        self._attribute_chars = attribute_chars
        self._full = False
        self.shown: list[dict[str, Any]] = []

    def add(self, span: Span) -> bool:
        """Whether the span fitted; after the first that did not, none does."""
        if self._full:
            return False
        cap, record = self._attribute_chars, span_json(span, self._attribute_chars)
        while not self.shown and cap > _LEAST_RECORD_CHARS and len(json_text(record)) > self._max_chars:
            cap //= 2
            record = span_json(span, cap)
        self._left -= len(json_text(record))
        self._full = self._left < 0 and bool(self.shown)
        if not self._full:
            self.shown.append(record)
        return not self._full


def common_chars(max_chars: int) -> int:
    """How long ``common_line`` may be in an answer of ``max_chars``."""
    return min(_COMMON_CHARS, max_chars // 4)


def constant_attributes(spans: Sequence[Span], budget: int) -> dict[str, Any]:
    """Short attributes that every span has with the same value, as many as fit; none for a single span."""
    if len(spans) < 2:
        return {}
    first, *others = spans
    constant: dict[str, Any] = {}
    for key, value in first.attributes.items():
        if value in (None, "", [], {}) or not all(key in s.attributes and s.attributes[key] == value for s in others):
            continue
        text = readable(value)
        budget -= len(key) + len(text) + 3
        if budget < 0:
            break
        if len(text) <= PREVIEW_CHARS and "\n" not in text:
            constant[key] = value
        else:
            budget += len(key) + len(text) + 3
    return constant


def common_line(spans: Sequence[Span], constant: Mapping[str, Any]) -> str:
    """What all spans share: said once. Resources and scopes that differ are all listed."""
    parts = [f"on every span: {_readable_pairs(constant)}"] if constant else []
    for label, members in (("resource", [span.resource for span in spans]), ("scope", [span.scope for span in spans])):
        different = {json_text(dict(member)): member for member in members if member}
        parts += [f"{label}: {_readable_pairs(member)}" for member in different.values()]
    return " · ".join(parts)


def _readable_pairs(members: Mapping[str, Any]) -> str:
    return pairs(
        {name(key): cut(readable(value), NAME_CHARS) for key, value in members.items() if value not in ("", None)}
    )


def paired(rows: Sequence[SpanRow], spans: Sequence[Span]) -> list[Span]:
    """The payload of each row. Where ids repeat, size and name tell which is which, else the order."""
    waiting: dict[str, list[Span]] = {}
    for span in spans:
        waiting.setdefault(span.span_id, []).append(span)
    found: list[Span] = []
    for row in rows:
        candidates = waiting[row.span_id]
        same = [i for i, s in enumerate(candidates) if (s.raw_bytes, s.name) == (row.raw_bytes, row.name)]
        chosen = candidates[same[0] if same else 0]
        if len(candidates) > 1:
            del candidates[same[0] if same else 0]
        found.append(chosen)
    return found
