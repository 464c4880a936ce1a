"""Which words of a text look like ids: hexadecimal, or of the shape that the ids of a dataset have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

MAX_TEXT_CHARS: Final = 200_000
MAX_TOKENS: Final = 1_000
_UUID: Final = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_HEX: Final = "(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{12,}"
"""Digits and letters both: a long number is mostly a time, and a word of a to f a word."""
_KNOWN: Final = re.compile(rf"{_UUID}|{_HEX}|[0-9]+")
_RANDOM_TAIL: Final = re.compile(r"(?P<head>.*?[^0-9A-Za-z])(?P<tail>[0-9A-Za-z]{8,})", re.DOTALL)
_MAX_ID_CHARS: Final = 200
_MAX_SHAPES: Final = 40
_LETTERS: Final = 2
"""So many fixed letters make the shape of an id out of a number: ``run-7``, not ``s1``."""


def id_pattern(samples: Iterable[str]) -> re.Pattern[str]:
    """Matches hex of 12 digits and more, UUIDs, and what looks like one of the ids in ``samples``."""
    shapes = Counter(shape for sample in samples if (shape := _shape(sample)))
    known = [shape for shape, _ in shapes.most_common(_MAX_SHAPES)]
    return re.compile(rf"(?<![\w-])(?:{'|'.join([*known, _UUID, _HEX])})(?![\w]|-\w)")


def _shape(sample: str) -> str:
    """A pattern for ids like this one; "" when it would match ordinary words, or is hex anyway."""
    if len(sample) > _MAX_ID_CHARS or _KNOWN.fullmatch(sample) or not re.search("[0-9]", sample):
        return ""
    tail = _RANDOM_TAIL.fullmatch(sample)
    if tail and re.search("[0-9]", tail["tail"]) and re.search("[A-Za-z]", tail["tail"]):
        return f"{_spelled(tail['head'])}(?=[A-Za-z]*[0-9])[0-9A-Za-z]{{{len(tail['tail'])}}}"
    if len(re.findall("[A-Za-z]", sample)) < _LETTERS or re.search(r"\s", sample):
        return ""
    return _spelled(sample)


def _spelled(text: str) -> str:
    """``text`` with any number in place of each of its numbers."""
    return re.sub(r"[0-9]+", "[0-9]+", re.escape(text))


def words_like_ids(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The distinct words of ``text`` that ``pattern`` matches, in their order; at most MAX_TOKENS."""
    found: dict[str, None] = {}
    for match in pattern.finditer(text, 0, MAX_TEXT_CHARS):
        found[match[0]] = None
        if len(found) == MAX_TOKENS:
            break
    return list(found)
