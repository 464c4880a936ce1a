"""The canonical span: one JSON object, as read back from its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from halo_mcp.index import semconv
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.json_text import json_text
from halo_mcp.index.message_events import told_in_events

Json = Any
"""What a JSON parser returns."""


@dataclass(frozen=True, slots=True)
class Event:
    """A span event: a name, a time as text (may be ""), attributes."""

    name: str
    time: str = ""
    attributes: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True)
class Span:
    """A span's payload. Texts are as the source has them; what the index derived is in the store's SpanRow."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: str
    start_time: str
    end_time: str
    status_code: str
    status_message: str
    resource: Mapping[str, Json]
    scope: Mapping[str, Json]
    attributes: Mapping[str, Json]
    events: tuple[Event, ...]
    links: tuple[Json, ...]
    extra: Mapping[str, Json]
    raw_bytes: int
    folded_events: frozenset[str] = frozenset()
    """Names of the events that are messages and stand in ``attributes`` too."""

    @staticmethod
    def from_json(record: Mapping[str, Json], raw_bytes: int = 0) -> Span:
        """The span in a parsed canonical record. Missing or ill-typed parts become empty, unknown keys go to extra;
        messages that only its events tell stand in the attributes too."""
        status, resource = as_mapping(record.get("status")), as_mapping(record.get("resource"))
        attributes = as_mapping(record.get("attributes"))
        events = tuple(_event(item) for item in _items(record, "events", semconv.EVENTS_ATTRIBUTE))
        told, folded = told_in_events(attributes, ((event.name, event.attributes) for event in events))
        return Span(
            trace_id=normalize_id(record.get("trace_id")),
            span_id=normalize_id(record.get("span_id")),
            parent_span_id=normalize_id(record.get("parent_span_id")),
            name=as_text(record.get("name")),
            kind=as_text(record.get("kind")),
            start_time=as_text(record.get("start_time")),
            end_time=as_text(record.get("end_time")),
            status_code=as_text(status.get("code")) or "STATUS_CODE_UNSET",
            status_message=as_text(status.get("message")),
            resource=as_mapping(resource.get("attributes")),
            scope=as_mapping(record.get("scope")),
            attributes={**attributes, **told} if told else attributes,
            events=events,
            links=tuple(_items(record, "links", semconv.LINKS_ATTRIBUTE)),
            extra={key: value for key, value in record.items() if key not in _KNOWN and value not in (None, "")},
            raw_bytes=raw_bytes,
            folded_events=folded,
        )


_KNOWN = frozenset(
    (
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "kind",
        "start_time",
        "end_time",
        "status",
        "resource",
        "scope",
        "attributes",
        "events",
        "links",
    )
)


def _items(record: Mapping[str, Json], key: str, attribute: str) -> list[Json]:
    return as_list(record.get(key)) or as_list(as_mapping(record.get("attributes")).get(attribute))


def _event(item: Json) -> Event:
    record = as_mapping(item)
    time = record.get("time") or record.get("timestamp") or record.get("time_unix_nano")
    return Event(as_text(record.get("name")), as_text(time), as_mapping(record.get("attributes")))


def as_mapping(value: Json) -> Mapping[str, Json]:
    """The value when it is a JSON object, else an empty one."""
    return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


def as_list(value: Json) -> list[Json]:
    """The value when it is a JSON array, else an empty one."""
    return cast("list[Json]", value) if isinstance(value, list) else []


def as_text(value: Json) -> str:
    """The value as text: a string as it is, null as "", anything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json_text(value)
