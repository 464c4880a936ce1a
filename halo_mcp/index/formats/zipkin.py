"""Zipkin JSON v2: spans in an array, arrays of traces, or lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    ERROR,
    UNSET,
    event,
    hex_padded,
    microseconds,
    per_part,
    per_record,
    span,
    status_code,
    whole_number,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_STATUS: Final = "otel.status_code"
_FAILED: Final = "error"
_SCOPE: Final = ("otel.scope.name", "otel.library.name")
_SERVER_HALF: Final = "-server"
"""The two sides of a shared span have one id: the server's becomes the client's child."""


def _sniff(head: Head) -> bool:
    return any(_is_span(value) for value in head.objects)


def _is_span(value: Mapping[str, Json]) -> bool:
    return (
        {"traceId", "id"} <= value.keys()
        and bool(value.keys() & {"localEndpoint", "remoteEndpoint", "annotations", "duration"})
        and not value.keys() & {"type", "startTime", "spanId"}
    )


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    items = as_list(value)
    if not items:
        yield _span(value, report)
    yield from per_part(items, report, "span", lambda item: _span(item, report))


def _span(item: Json, report: Report) -> Record:
    members = as_mapping(item)
    if "traceId" not in members:
        raise ValueError("no span of Zipkin")
    get, tags = members.get, as_mapping(members.get("tags"))
    start, duration = microseconds(get("timestamp")), whole_number(get("duration"))
    local, remote = as_mapping(get("localEndpoint")), as_mapping(get("remoteEndpoint"))
    own, parent = hex_padded(get("id")), hex_padded(get("parentId"))
    attributes = {key: held for key, held in tags.items() if key not in (_STATUS, _FAILED, *_SCOPE)}
    attributes |= {f"zipkin.remote.{key}": held for key, held in remote.items()}
    if get("shared") is True:
        attributes[semconv.SOURCE_SPAN_ID] = get("id")
        own, parent = f"{own}{_SERVER_HALF}", own
    code = status_code(tags.get(_STATUS))
    failed = tags.get(_FAILED) not in (None, False, "false")
    scope = next((held for key in _SCOPE if (held := tags.get(key))), None)
    return span(
        trace_id=hex_padded(get("traceId")),
        span_id=own,
        parent_span_id=parent,
        name=get("name"),
        kind=get("kind"),
        start=start,
        end=start + duration * 1000 if start is not None and duration is not None else None,
        status=ERROR if code == UNSET and failed else code,
        message="" if tags.get(_FAILED) in ("true", True) else as_text(tags.get(_FAILED)),
        attributes=attributes,
        resource={semconv.SERVICE_NAME: as_text(local.get("serviceName"))},
        scope={"name": scope} if scope else {},
        events=[event(as_text(one.get("value")), microseconds(one.get("timestamp"))) for one in _annotations(members)],
        report=report,
    )


def _annotations(members: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    return [as_mapping(one) for one in as_list(members.get("annotations"))]


FORMAT: Final = Format(
    name="zipkin",
    title="Zipkin JSON v2",
    description="an array of spans, an array of traces, or lines of either",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
