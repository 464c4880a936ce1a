"""OTLP export requests as JSON values: what a file of them, or a message in a file, turns into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.protocol import Record, Report
from halo_mcp.index.formats.values import ERROR, event, key_values, nanoseconds, span, status_code
from halo_mcp.index.span import Json, as_list, as_mapping

_RESOURCE_SPANS: Final = ("resourceSpans", "resource_spans", "batches")
_SCOPE_SPANS: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans")
_SCOPE: Final = ("scope", "instrumentationLibrary", "instrumentation_library")
_CAMEL_CASE: Final = {
    "trace_id": "traceId",
    "span_id": "spanId",
    "parent_span_id": "parentSpanId",
    "trace_state": "traceState",
    "start_time_unix_nano": "startTimeUnixNano",
    "end_time_unix_nano": "endTimeUnixNano",
}
"""The fields of a span under protobuf's own names, and as its JSON mapping calls them."""


def is_request(value: Mapping[str, Json]) -> bool:
    """Whether the members are those of an export request, or of one batch of it."""
    return any(isinstance(value.get(key), list) for key in _RESOURCE_SPANS + _SCOPE_SPANS)


def request_spans(value: Json, report: Report) -> Iterator[Record]:
    """The spans of an export request, or of a list of them. Spans that are not shaped as expected are reported.

    Raises: ValueError when it is no request; what ``per_record`` catches when it is not shaped as one.
    """
    for item in as_list(value) or [value]:
        request = as_mapping(item)
        batches = _first(request, _RESOURCE_SPANS)
        if batches is None and not is_request(request):
            request = as_mapping(request.get("trace"))  # Tempo's newer answer wraps it
            batches = _first(request, _RESOURCE_SPANS)
            if batches is None:
                raise ValueError("not an OTLP export request: no resourceSpans")
        for batch in _items(batches) if batches is not None else [request]:
            yield from _of_resource(batch, report)


def never_silent(spans: Iterable[Record], report: Report) -> Iterator[Record]:
    """The spans of a request. Raises: ValueError when there are none and no reason was reported."""
    reasons, none = report.reasons.total(), True
    for one in spans:
        none = False
        yield one
    if none and report.reasons.total() == reasons:
        raise ValueError("an export request without spans")


def _items(value: Json) -> list[Json]:
    if value is not None and not isinstance(value, list):
        raise ValueError("an export request with something else than a list of spans")
    return as_list(value)


def _of_resource(batch: Mapping[str, Json], report: Report) -> Iterator[Record]:
    resource = key_values(as_mapping(batch.get("resource")).get("attributes"))
    for group in _items(_first(batch, _SCOPE_SPANS)):
        scope = dict(as_mapping(_first(group, _SCOPE)))
        if "attributes" in scope:
            scope["attributes"] = key_values(scope["attributes"])
        for number, item in enumerate(_items(group.get("spans"))):
            try:
                yield _span(item, resource, scope, report)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                reason = f"a span not shaped as expected ({type(error).__name__})"
                report.skip(
                    str(error) if type(error) is ValueError else reason, whole=False, place=f"span {number + 1}"
                )


def _span(item: Mapping[str, Json], resource: Mapping[str, Json], scope: Mapping[str, Json], report: Report) -> Record:
    if not _CAMEL_CASE.keys().isdisjoint(item):
        item = {_CAMEL_CASE.get(name, name): value for name, value in item.items()} | dict(item)
    get = item.get
    status, attributes = as_mapping(get("status")), key_values(get("attributes"))
    code, message = status_of(status_code(status.get("code")), status.get("message"), attributes)
    events, links = get("events"), get("links")
    return span(
        trace_id=get("traceId"),
        span_id=get("spanId"),
        parent_span_id=get("parentSpanId"),
        name=get("name"),
        kind=get("kind"),
        start=_nanoseconds(get("startTimeUnixNano")),
        end=_nanoseconds(get("endTimeUnixNano")),
        status=code,
        message=message,
        attributes=attributes,
        resource=resource,
        scope=scope,
        events=[_event(one) for one in events] if events else (),
        links=[_link(one) for one in links] if links else (),
        trace_state=get("traceState") or "",
        report=report,
    )


def status_of(code: str, message: Json, attributes: Mapping[str, Json]) -> tuple[str, Json]:
    """Status and message of a span: Claude Code never sets them, and tells failures in attributes."""
    kind = attributes.get(semconv.CLAUDE_CODE_TYPE)
    if code == ERROR or not isinstance(kind, str) or kind not in semconv.CLAUDE_CODE_TYPES:
        return code, message
    error = attributes.get(semconv.CLAUDE_CODE_ERROR)
    failed = str(attributes.get(semconv.CLAUDE_CODE_SUCCESS)).lower() == "false" or bool(error)
    return (ERROR, message or error) if failed else (code, message)


def _nanoseconds(value: Json) -> int | None:
    # The field tells the unit; what is no integer in it was written by someone who did not read the specification.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value) or None
    return value or None if type(value) is int and 0 <= value < 1 << 63 else nanoseconds(value)


def _event(item: Mapping[str, Json]) -> dict[str, Json]:
    get = item.get
    time = _nanoseconds(get("timeUnixNano") or get("time_unix_nano"))
    return event(str(get("name") or ""), time, key_values(get("attributes")))


def _link(item: Mapping[str, Json]) -> dict[str, Json]:
    get = item.get
    linked: dict[str, Any] = {
        "trace_id": get("traceId") or get("trace_id"),
        "span_id": get("spanId") or get("span_id"),
    }
    return linked | {"attributes": key_values(get("attributes"))}


def _first(value: Mapping[str, Json], keys: tuple[str, ...]) -> Json:
    return next((value[key] for key in keys if key in value), None)
