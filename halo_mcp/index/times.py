"""Times as text: one spelling for what converters write and what answers show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_text(unix_nano: int | None) -> str:
    """RFC 3339 UTC with nine fractional digits, as HALO writes times; "" for None and for what no calendar has."""
    if unix_nano is None:
        return ""
    seconds, rest = divmod(unix_nano, 1_000_000_000)
    begin = _second_text(seconds)
    return f"{begin}.{rest:09d}Z" if begin else ""


@lru_cache(4096)
def _second_text(seconds: int) -> str:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    except OverflowError:
        return ""
