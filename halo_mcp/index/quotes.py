"""How the words of a quote stand in a text: exactly, but for spacing and typography, or in letters and digits only.

Knows texts only; where they come from is the caller's business.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

Tier = Literal["exact", "normalised", "loose"]
"""How words match, best first. Exact: a substring. Normalised: after ``normalised``. Loose: letters and digits only."""

TIERS: Final[tuple[Tier, ...]] = ("exact", "normalised", "loose")
MIN_CHARS: Final = 8
"""Letters and digits of the shortest quote that shows anything."""
LOOSE_CHARS: Final = 12
"""Letters and digits of the shortest quote that may match loosely."""
MAX_QUOTE_CHARS: Final = 20_000
_SEGMENT_CHARS: Final = 6
"""Letters and digits of the shortest segment between ellipses: of shorter ones any sentence can be put together."""

_TYPOGRAPHY: Final = (
    dict.fromkeys("‘’‚‛′ʼ`´", "'")
    | dict.fromkeys("“”„‟″«»", '"')
    | dict.fromkeys("‐‑‒–—―−", "-")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", "")
)
_ASCII_OTHER: Final = bytes(code for code in range(128) if not chr(code).isalnum())
_ESCAPE: Final = re.compile(r"""\\+(?:u(?P<code>[0-9a-fA-F]{4})|(?P<space>[nrt])|(?P<same>["'/\\]))""")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LEFT_OUT: Final = re.compile(r"\.{3} \[HALO truncated: original [\d,]+ chars\]|\[… [\d,]+ characters …\]")
"""What the view tools write where they cut."""
_ELLIPSIS: Final = r"[\[(<]?\.{3,}[\])>]?"
_OTHER: Final = re.compile(r"[\W_]+")
_SPACE: Final = re.compile(r"\s")
_PIECE_CHARS: Final = 1 << 20
_NEAREST_QUOTE_CHARS: Final = 400
_NEAREST_TEXT_CHARS: Final = 2_000_000
_NEAREST_SHARE: Final = 0.3


def _nothing() -> None:
    pass


def normalised(text: str, check: Callable[[], object] = _nothing) -> str:
    r"""Unescaped (``\n``, ``\"``, ``\u00e9``), NFKC, plain quotes and dashes, casefolded, one space for any whitespace.

    ``check`` is called about once a megabyte; what it raises ends the work.
    """
    parts: list[str] = []
    for piece in _pieces(text):
        check()
        parts.append(_normalised(piece))
    return "".join(parts).strip() if len(parts) > 1 else parts[0].strip()


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces, cut before whitespace where there is some near."""
    start = 0
    while len(text) - start > _PIECE_CHARS:
        end = start + _PIECE_CHARS
        space = _SPACE.search(text, end, end + _PIECE_CHARS // 16)
        end = space.start() if space else end
        yield text[start:end]
        start = end
    yield text[start:]


def _normalised(text: str) -> str:
    if "\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
        if _SURROGATE.search(text):  # the halves of one character, escaped one by one
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    for character, plain in _TYPOGRAPHY.items():  # one by one, which is fifty times as fast as str.translate
        text = text.replace(character, plain)
    text = text.casefold()
    return (" " if text[:1].isspace() else "") + " ".join(text.split())


def _unescaped(match: re.Match[str]) -> str:
    if match["code"]:
        return chr(int(match["code"], 16))
    return " " if match["space"] else match["same"]


def alphanumerics(text: str) -> str:
    """The letters and digits of ``text``, of any script."""
    # What is ASCII goes at the speed of memory; expressions are slow where every other word matches.
    rest = text.encode("utf-8", "replace").translate(None, _ASCII_OTHER).decode("utf-8")
    return rest if rest.isascii() else _OTHER.sub("", rest)


@dataclass(frozen=True)
class Quote:
    """The words to look for."""

    text: str

    @cached_property
    def normalised(self) -> str:
        return normalised(self.text.strip().strip("\"'“”‘’`"))

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """What stands between ellipses, normalised; empty when one of them says too little."""
        marked = normalised(_LEFT_OUT.sub("…", self.text).strip().strip("\"'“”‘’`"))
        segments = _filled(part.strip() for part in re.split(_ELLIPSIS, marked))
        return segments if _long_enough(segments, MIN_CHARS) else ()

    @cached_property
    def loose(self) -> tuple[str, ...]:
        """The letters and digits of the segments; empty when they say too little."""
        segments = _filled(alphanumerics(segment) for segment in self.segments)
        return segments if _long_enough(segments, LOOSE_CHARS) else ()

    @cached_property
    def alphanumeric_count(self) -> int:
        return len(alphanumerics(self.normalised))


def _filled(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if part)


def _long_enough(segments: Sequence[str], total: int) -> bool:
    lengths = [len(alphanumerics(segment)) for segment in segments]
    return sum(lengths) >= total and (len(lengths) == 1 or min(lengths) >= _SEGMENT_CHARS)


@dataclass(frozen=True, slots=True)
class Found:
    """The quote matches the text at ``path``."""

    tier: Tier
    path: str


@dataclass
class Texts:
    """Texts to look in, by path, in the order of preference. Other spellings of them are made when first needed."""

    values: Sequence[tuple[str, str]]
    check: Callable[[], object] = _nothing
    """Called between steps; what it raises ends the work."""
    _spellings: dict[Tier, list[str]] = field(default_factory=dict["Tier", "list[str]"])

    def find(self, quote: Quote, tiers: Sequence[Tier] = TIERS) -> Found | None:
        """The best match; of equal ones the first."""
        for tier in tiers:
            for (path, _), text in zip(self.values, self._spelled(tier), strict=True):
                if _stands(quote, tier, text):
                    return Found(tier, path)
            self.check()
        return None

    def _spelled(self, tier: Tier) -> list[str]:
        if tier not in self._spellings:
            if tier == "exact":
                self._spellings[tier] = [text for _, text in self.values]
            elif tier == "normalised":
                self._spellings[tier] = [normalised(text, self.check) for _, text in self.values]
            else:
                self._spellings[tier] = [alphanumerics(text) for text in self._spelled("normalised")]
        return self._spellings[tier]

    def nearest(self, quote: Quote) -> str:
        """What stands where the longest beginning (or end) of the quote stands; "" when little of it stands anywhere.

        For a quote that is not there. Looks through the first two million characters.
        """
        wanted = " ".join(quote.text.split())[:_NEAREST_QUOTE_CHARS]
        best, passage, left = max(MIN_CHARS, round(_NEAREST_SHARE * len(wanted))), "", _NEAREST_TEXT_CHARS
        for _, value in self.values:
            text, left = " ".join(value[:left].split()), left - len(value)
            head, tail = _common(wanted, text)
            if head > best:
                start = text.find(wanted[:head])
                best, passage = head, text[start : start + len(wanted) + 40]
            if tail > best:
                end = text.find(wanted[-tail:]) + tail
                best, passage = tail, text[max(0, end - len(wanted) - 40) : end]
            self.check()
            if left <= 0:
                break
        return passage


def _stands(quote: Quote, tier: Tier, text: str) -> bool:
    if tier == "exact":
        return quote.text in text
    if tier == "normalised":
        return quote.normalised in text or _in_order(quote.segments, text)
    return _in_order(quote.loose, text)


def _in_order(segments: Sequence[str], text: str) -> bool:
    position = 0
    for segment in segments:
        position = text.find(segment, position)
        if position < 0:
            return False
        position += len(segment)
    return bool(segments)


def _common(wanted: str, text: str) -> tuple[int, int]:
    """How long the longest beginning and the longest end of ``wanted`` are that stand in ``text``."""
    head = bisect_left(range(1, len(wanted) + 1), True, key=lambda size: wanted[:size] not in text)
    tail = bisect_left(range(1, len(wanted) + 1), True, key=lambda size: wanted[-size:] not in text)
    return head, tail
