"""The fastest way to find a pattern in raw bytes: RE2, helped where the pattern is one plain text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from halo_mcp.index.patterns import Pattern, Regex

Finder: TypeAlias = Callable[[memoryview, int, int], tuple[int, int] | None]
"""Start and end of the leftmost match between two positions; None without one. Any number of threads at once."""

_COMMON: Final = b"\"entsaori: \\l.c,m0_dpuf214-b59gh3v{}678kTwNAyOLSxEIDCZK/[]*RPjUMGqF@()?>#WYz<H`'BQ=;JV|!&X"
"""The bytes of trace files, from the most common on; all others are rarer."""
_TAIL_BYTES: Final = 4
_MISSES: Final = 16


def finder(pattern: Pattern) -> Finder:
    """Finds what ``pattern.raw`` matches."""
    return _plain_finder(pattern.plain, pattern.raw) if len(pattern.plain) > _TAIL_BYTES else regex_finder(pattern.raw)


def regex_finder(regex: Regex) -> Finder:
    """Finds what ``regex`` matches."""

    def find(view: memoryview, start: int, end: int) -> tuple[int, int] | None:
        match = regex.search(view, start, end)
        return match.span() if match else None

    return find


def _plain_finder(text: bytes, whole: Regex) -> Finder:
    """Finds ``text``, which is all that ``whole`` matches.

    RE2 skips to the first byte of a text at the speed of memory, which helps little when that byte is everywhere. So
    look for the part of the text that begins with its rarest byte, then compare what stands before it.
    """
    from halo_mcp.index.patterns import compile_pattern

    rarity = [_COMMON.find(byte) % (len(_COMMON) + 1) for byte in text[: 1 - _TAIL_BYTES]]
    cut = max(range(len(rarity)), key=rarity.__getitem__)
    if not cut:
        return regex_finder(whole)
    head, tail = text[:cut], compile_pattern(text[cut:].decode(), literal=True).raw
    find_whole = regex_finder(whole)

    def find(view: memoryview, start: int, end: int) -> tuple[int, int] | None:
        position = start + cut
        for _ in range(_MISSES):
            match = tail.search(view, position, end) if position < end else None
            if match is None:
                return None
            first, last = match.span()
            if bytes(view[first - cut : first]) == head:
                return first - cut, last
            position = first + 1
        return find_whole(view, position - cut, end)  # the tail is more common than its first byte promised

    return find
