"""Parsed JSON back as text, whatever is in it."""

from __future__ import annotations

import orjson


def json_text(value: object) -> str:
    """Compact JSON with its characters unescaped; what no JSON writer takes, as Python writes it."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        pass  # an integer of more than 64 bits, half of a surrogate pair, or more than 254 levels
    try:
        return str(value)
    except RecursionError:
        return "(nested too deeply to show)"
