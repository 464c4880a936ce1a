"""OTLP JSON in all shapes that exporters, collectors and back ends write.

An export request, an array of them, or one a line; ``resourceSpans`` as well as Tempo's ``batches``, ``scopeSpans`` as
well as the old ``instrumentationLibrarySpans``; or bare ResourceSpans. Also protobuf's snake_case names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import ERROR, event, key_values, nanoseconds, per_record, span, status_code
from halo_mcp.index.span import Json, as_list, as_mapping

_RESOURCE_SPANS: Final = ("resourceSpans", "resource_spans", "batches")
_SCOPE_SPANS: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans")
_SCOPE: Final = ("scope", "instrumentationLibrary", "instrumentation_library")


def _sniff(head: Head) -> bool:
    return any(_is_request(value) or _is_request(as_mapping(value.get("trace"))) for value in head.objects)


def _is_request(value: Mapping[str, Json]) -> bool:
    return any(isinstance(value.get(key), list) for key in _RESOURCE_SPANS + _SCOPE_SPANS)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    for item in as_list(value) or [value]:
        request = as_mapping(item)
        batches = _first(request, _RESOURCE_SPANS)
        if batches is None and not _is_request(request):
            request = as_mapping(request.get("trace"))  # Tempo's newer answer wraps it
            batches = _first(request, _RESOURCE_SPANS)
            if batches is None:
                raise ValueError("not an OTLP export request: no resourceSpans")
        for batch in as_list(batches) if batches is not None else [request]:
            yield from _of_resource(batch, report)


def _of_resource(batch: Mapping[str, Json], report: Report) -> Iterator[Record]:
    resource = key_values(as_mapping(batch.get("resource")).get("attributes"))
    for group in as_list(_first(batch, _SCOPE_SPANS)):
        scope = dict(as_mapping(_first(group, _SCOPE)))
        if "attributes" in scope:
            scope["attributes"] = key_values(scope["attributes"])
        for number, item in enumerate(as_list(group.get("spans"))):
            try:
                yield _span(item, resource, scope, report)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                reason = f"a span not shaped as expected ({type(error).__name__})"
                report.skip(
                    str(error) if type(error) is ValueError else reason, whole=False, place=f"span {number + 1}"
                )


def _span(item: Mapping[str, Json], resource: Mapping[str, Json], scope: Mapping[str, Json], report: Report) -> Record:
    get = item.get
    status, attributes = as_mapping(get("status")), key_values(get("attributes"))
    code, message = status_code(status.get("code")), status.get("message")
    if semconv.CLAUDE_CODE_TYPE in attributes and code != ERROR and _claude_code_failed(attributes):
        code, message = ERROR, message or attributes.get(semconv.CLAUDE_CODE_ERROR)
    return span(
        trace_id=_either(item, "traceId", "trace_id"),
        span_id=_either(item, "spanId", "span_id"),
        parent_span_id=_either(item, "parentSpanId", "parent_span_id"),
        name=get("name"),
        kind=get("kind"),
        start=_nanoseconds(_either(item, "startTimeUnixNano", "start_time_unix_nano")),
        end=_nanoseconds(_either(item, "endTimeUnixNano", "end_time_unix_nano")),
        status=code,
        message=message,
        attributes=attributes,
        resource=resource,
        scope=scope,
        events=[_event(one) for one in get("events") or ()],
        links=[_link(one) for one in get("links") or ()],
        trace_state=_either(item, "traceState", "trace_state") or "",
        report=report,
    )


def _claude_code_failed(attributes: Mapping[str, Json]) -> bool:
    """Claude Code never sets a status."""
    if attributes[semconv.CLAUDE_CODE_TYPE] not in semconv.CLAUDE_CODE_TYPES:
        return False
    success = str(attributes.get(semconv.CLAUDE_CODE_SUCCESS)).lower()
    return success == "false" or bool(attributes.get(semconv.CLAUDE_CODE_ERROR))


def _nanoseconds(value: Json) -> int | None:
    # The field tells the unit; what is no integer in it was written by someone who did not read the specification.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value) or None
    return value or None if type(value) is int and 0 <= value < 1 << 63 else nanoseconds(value)


def _event(item: Mapping[str, Json]) -> dict[str, Json]:
    time = _nanoseconds(_either(item, "timeUnixNano", "time_unix_nano"))
    return event(str(item.get("name") or ""), time, key_values(item.get("attributes")))


def _link(item: Mapping[str, Json]) -> dict[str, Json]:
    linked: dict[str, Any] = {
        "trace_id": _either(item, "traceId", "trace_id"),
        "span_id": _either(item, "spanId", "span_id"),
    }
    return linked | {"attributes": key_values(item.get("attributes"))}


def _either(item: Mapping[str, Json], camel: str, snake: str) -> Json:
    return item[camel] if camel in item else item.get(snake)


def _first(value: Mapping[str, Json], keys: tuple[str, ...]) -> Json:
    return next((value[key] for key in keys if key in value), None)


FORMAT: Final = Format(
    name="otlp-json",
    title="OTLP JSON",
    description="export requests: one object, an array, or JSON lines; `resourceSpans`, Tempo's `batches`, "
    "`instrumentationLibrarySpans`, bare ResourceSpans",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
