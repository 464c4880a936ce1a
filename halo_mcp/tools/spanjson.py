"""A span as JSON with HALO's field names (SpanRecord), its texts capped."""

from __future__ import annotations

from typing import Any, Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text
from halo_mcp.index.messages import Conversation, Message, conversation
from halo_mcp.index.span import Span
from halo_mcp.tools.budget import cut

_INTEGER_LIMIT: Final = 2**63
"""Larger integers are given as their digits: many JSON readers would round them."""


def span_json(span: Span, attribute_chars: int) -> dict[str, Any]:
    """The span's record. Flattened messages come as one JSON list under the key they stand for."""
    attributes: dict[str, Any] = {}
    folded: list[Conversation] = []
    for direction in ("input", "output"):
        found = conversation(span.attributes, direction)
        if found is not None:
            folded.append(found)
    flat = {key for found in folded for key in found.keys if key.startswith(semconv.FLAT_PREFIXES)}
    for key, value in span.attributes.items():
        if key not in flat:
            attributes[key] = _capped(value, attribute_chars)
    for found in folded:
        if found.key not in attributes:
            attributes[found.key] = _capped(json_text([_message_json(m) for m in found.messages]), attribute_chars)
    record: dict[str, Any] = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "kind": span.kind,
        "start_time": span.start_time,
        "end_time": span.end_time,
        "status": {"code": span.status_code, "message": cut(span.status_message, attribute_chars)},
        "resource": {"attributes": _capped(dict(span.resource), attribute_chars)},
        "scope": _capped(dict(span.scope), attribute_chars),
        "attributes": attributes,
        "raw_jsonl_bytes": span.raw_bytes,
    }
    if events := [event for event in span.events if event.name not in span.folded_events]:
        record["events"] = [
            {"name": event.name, "time": event.time, "attributes": _capped(dict(event.attributes), attribute_chars)}
            for event in events
        ]
    if span.links:
        record["links"] = _capped(list(span.links), attribute_chars)
    return record | {key: _capped(value, attribute_chars) for key, value in span.extra.items() if key not in record}


def _message_json(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        record["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
    if message.tool_call_id:
        record["tool_call_id"] = message.tool_call_id
    if message.name:
        record["name"] = message.name
    return record


def _capped(value: Any, limit: int) -> Any:
    """The value with its strings cut; a structure that is too large, or that no JSON writer takes, becomes cut text."""
    if isinstance(value, str):
        return cut(value, limit)
    if value is None or isinstance(value, bool | float):
        return value
    text = json_text(value)
    if isinstance(value, int):
        return value if abs(value) < _INTEGER_LIMIT else text
    return value if len(text) <= limit and _is_json(text) else cut(text, limit)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
