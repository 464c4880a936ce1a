"""Trace and span ids: accepted as any text, normalised only when it is certain what they are."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

from halo_mcp.index.json_text import json_text

_HEX = re.compile(r"[0-9A-Fa-f]{16}|[0-9A-Fa-f]{24}|[0-9A-Fa-f]{32}")
_LONGEST = 32
_BASE64 = re.compile(r"[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{11}=")


def normalize_id(value: object) -> str:
    """The id as the index spells it; ``columns._identifier`` is the same rule in SQL.

    Hex of 16, 24 or 32 digits is lower-cased; base64 of exactly 16 or 8 bytes becomes hex; anything else is kept.
    Ids that are no strings count as their JSON text. Hex is tested first, because a hex id also looks like base64.
    """
    if isinstance(value, str) and value.islower() and "=" not in value:
        return value  # neither hex in capitals nor base64: nearly every id
    if value is None:
        return ""
    text = value if isinstance(value, str) else json_text(value)
    return _normalized(text) if len(text) <= _LONGEST else text


@lru_cache(4096)  # an id comes many times: as a span's, and as its children's parent
def _normalized(text: str) -> str:
    if _HEX.fullmatch(text):
        return text.lower()
    if _BASE64.fullmatch(text):
        try:
            return base64.b64decode(text, validate=True).hex()
        except binascii.Error:
            return text
    return text
