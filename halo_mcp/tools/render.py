"""Facts as text: numbers with units, times, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import as_list, as_mapping

_INLINE_CHARS = 160
_DECODINGS = 3
_LEVELS = 24
_PICTURES = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys((*range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
)
_ESCAPED = re.compile(r"[\\\n\r]")


def printable(text: str) -> str:
    """``text`` with pictures in place of the characters that steer a terminal or turn the direction of writing."""
    return text.translate(_PICTURES)


def number(value: float) -> str:
    return f"{value:,.0f}"


def counted(count: int, noun: str) -> str:
    """ "1 span", "12 spans"."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """ "12 (3.4%)", "0"; the percentage keeps one digit below 10 %."""
    if not whole or not part:
        return number(part)
    percent = 100 * part / whole
    return f"{number(part)} ({percent:.{1 if 0 < percent < 9.95 else 0}f}%)"


def share_of(part: int, whole: int) -> str:
    """ "22/58 (38%)"."""
    return f"{number(part)}/{number(whole)}" + (f" ({100 * part / whole:.0f}%)" if whole else "")


def points_between(difference: float, low: float, high: float) -> str:
    """A difference of shares with its interval, in percentage points: "+17.5 pts (+6.7..+28.3)"."""
    return f"{100 * difference:+.1f} pts ({100 * low:+.1f}..{100 * high:+.1f})"


def probability(p: float) -> str:
    """ "0.03", "0.004", "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0095 else f"{p:.2f}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, three digits or so; milliseconds as ``duration`` writes them."""
    if unit == "ms":
        return duration(0, round(value * 1e6))
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 or value == round(value, 1) else 2
    return f"{value:,.{0 if value == round(value) else digits}f} {unit}".rstrip()


def moment(unix_nano: int | None) -> str:
    """RFC 3339, UTC, milliseconds."""
    if unix_nano is None:
        return "?"
    seconds, rest = divmod(unix_nano, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def period(first: int | None, last: int | None) -> str:
    """From the first to the last moment in seconds, UTC; what the second shares with the first is not repeated."""
    if first is None or last is None:
        return "at unknown times"
    begin, end = moment(first)[:19] + "Z", moment(last)[:19] + "Z"
    if begin == end:
        return begin
    return f"{begin[:-1]} to {end[11:] if begin[:10] == end[:10] else end}"


def duration(start: int | None, end: int | None) -> str:
    """ "340 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "7 d 3 h"; "?" when unknown."""
    if start is None or end is None:
        return "?"
    ms = (end - start) / 1e6
    if abs(ms) < 1_000:
        return f"{ms:.0f} ms" if abs(ms) >= 1 or ms == 0 else f"{ms:.2f} ms"
    if abs(ms) < 120_000:
        return f"{ms / 1000:.1f} s"
    if abs(ms) < 7_200_000:
        return f"{ms // 60_000:.0f} min {ms % 60_000 / 1000:.0f} s"
    if abs(ms) < 172_800_000:
        return f"{ms // 3_600_000:.0f} h {ms % 3_600_000 // 60_000:.0f} min"
    return f"{ms // 86_400_000:.0f} d {ms % 86_400_000 // 3_600_000:.0f} h"


def size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def names(values: Iterable[str], limit: int = 5) -> str:
    """Comma separated, with the number of those left out."""
    listed = list(values)
    more = f" +{len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def readable(value: Any) -> str:
    """A JSON value as a person would write it down: JSON inside strings decoded, nothing escaped twice.

    Short values stay on one line as JSON, strings of short JSON exactly as they are; longer ones become ``key: value``
    lines. What is nested deeper than a page can show stays JSON.
    """
    return _readable(value, _DECODINGS, _LEVELS)


def _readable(value: Any, decodings: int, levels: int) -> str:
    if isinstance(value, str):
        if len(value) <= _INLINE_CHARS and not _ESCAPED.search(value):
            return value
        inner = decoded(value) if decodings else None
        return value if inner is None else _readable(inner, decodings - 1, levels)
    if not isinstance(value, dict | list):
        return orjson.dumps(value).decode() if isinstance(value, bool | float) or value is None else str(value)
    value = cast("Any", value)
    members = len(value)
    compact = json_text(value) if levels <= 0 or members <= _INLINE_CHARS else None
    if compact is not None and (levels <= 0 or (len(compact) <= _INLINE_CHARS and not _ESCAPED.search(compact))):
        return compact
    lines: list[str] = []
    items = as_mapping(value).items() if isinstance(value, dict) else (("-", item) for item in as_list(value))
    for key, item in items:
        mark = key if isinstance(value, list) else f"{key}:"
        text = _readable(item, decodings, levels - 1)
        lines.append(f"{mark} {text}" if "\n" not in text else f"{mark}\n{indent(text, '  ')}")
    return "\n".join(lines)


def decoded(text: str) -> Any:
    """The JSON object or array in ``text``; None when it is no such thing."""
    if text[:1] not in ("{", "["):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return cast("Any", value) if isinstance(value, dict | list) else None


def indent(text: str, by: str) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))


def pairs(values: Mapping[str, Any]) -> str:
    """ "a=1, b=x" in the order given."""
    return ", ".join(f"{key}={value}" for key, value in values.items())
