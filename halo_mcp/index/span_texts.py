"""The texts of a span in which a quote may stand, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Event, Json, Span, as_text

RAW_PATH: Final = "(whole span as JSON)"
_HISTORY: Final = tuple(f"attributes.{key}" for key in semconv.INPUT_MESSAGES + semconv.FLAT_INPUT_PREFIXES)
_RAW_CHARS: Final = 4_000_000
"""Of a larger span the texts are looked through, and not its JSON too."""


def span_texts(span: Span) -> list[tuple[str, str]]:
    """(path, text): decoded values, an exception as ``type: message``, then the whole span as JSON.

    What the span itself says comes before the messages it was sent, and text inside JSON before the JSON around it.
    """
    from halo_mcp.index.patterns import decoded_values

    content: dict[str, Any] = {
        **span.extra,
        "name": span.name,
        "kind": span.kind,
        "start_time": span.start_time,
        "end_time": span.end_time,
        "status": {"code": span.status_code, "message": span.status_message},
        "attributes": span.attributes,
        "resource": {"attributes": span.resource},
        "scope": span.scope,
        "events": [{"name": event.name, "attributes": event.attributes} for event in span.events],
        "links": list(span.links),
    }
    values = [*decoded_values(content), *_exceptions(span.events)]
    values.sort(key=lambda value: (value[0].startswith(_HISTORY), len(value[1])))
    if sum(len(text) for _, text in values) <= _RAW_CHARS:
        values.append((RAW_PATH, json_text(content)))
    return values


def _exceptions(events: tuple[Event, ...]) -> list[tuple[str, str]]:
    """As the other tools tell them: type and message in one."""
    return [
        (f"events[{number}]", f"{kind}: {message}")
        for number, event in enumerate(events)
        if (kind := _first(event.attributes, semconv.EXCEPTION_TYPE))
        and (message := _first(event.attributes, semconv.EXCEPTION_MESSAGE))
    ]


def _first(attributes: Mapping[str, Json], keys: Sequence[str]) -> str:
    return next((text for key in keys if (text := as_text(attributes.get(key)))), "")
