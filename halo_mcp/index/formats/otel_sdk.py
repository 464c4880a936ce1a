"""Spans as the OpenTelemetry SDKs print them (``span.to_json()``, console exporters), and files of such spans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import event, nanoseconds, per_part, per_record, span, status_code
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_AGENT: Final = "agent"
"""The attribute by which hand-written spans name their agent."""


def _sniff(head: Head) -> bool:
    return any(_is_span(value) or any(map(_is_span, as_list(value.get("spans")))) for value in head.objects)


def _is_span(value: Json) -> bool:
    members = as_mapping(value)
    return "span_id" in as_mapping(members.get("context")) and "span_kind" not in members and "status" in members


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    members = as_mapping(value)
    items = [members] if _is_span(members) else as_list(members.get("spans"))
    if not items:
        raise ValueError("no span of an OpenTelemetry SDK")
    return per_part(items, report, "span", lambda item: _span(item, report))


def _span(item: Json, report: Report) -> Record:
    members = as_mapping(item)
    get, context, status = members.get, as_mapping(members.get("context")), as_mapping(members.get("status"))
    attributes = dict(as_mapping(get("attributes")))
    if isinstance(named := attributes.get(_AGENT), str) and named:
        attributes.setdefault(semconv.AGENT_NAME[1], named)
    return span(
        trace_id=_id(context.get("trace_id")),
        span_id=_id(context.get("span_id")),
        parent_span_id=_id(get("parent_id")),
        trace_state=as_text(context.get("trace_state")).removeprefix("[]"),
        name=get("name"),
        kind=as_text(get("kind")).removeprefix("SpanKind."),
        start=nanoseconds(get("start_time"), report),
        end=nanoseconds(get("end_time"), report),
        status=status_code(status.get("status_code")),
        message=status.get("description"),
        attributes=attributes,
        resource=as_mapping(as_mapping(get("resource")).get("attributes")),
        scope=as_mapping(get("instrumentation_scope") or get("scope")),
        events=[_event(one, report) for one in as_list(get("events"))],
        links=as_list(get("links")),
        report=report,
    )


def _id(value: Json) -> Json:
    return value.removeprefix("0x") if isinstance(value, str) else value


def _event(item: Json, report: Report) -> dict[str, Json]:
    members = as_mapping(item)
    return event(
        as_text(members.get("name")),
        nanoseconds(members.get("timestamp"), report),
        as_mapping(members.get("attributes")),
    )


FORMAT: Final = Format(
    name="otel-sdk",
    title="OpenTelemetry SDK JSON",
    description="spans as the SDK prints them (`span.to_json()`): one object, an array, lines, `{spans: [...]}`",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
