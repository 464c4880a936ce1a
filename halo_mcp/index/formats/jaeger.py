"""Jaeger JSON: answers of its API and UI, single traces, and single spans with their process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
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
    nanoseconds,
    per_part,
    per_record,
    span,
    status_code,
    whole_number,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_SCOPES: Final = (("otel.scope.name", "otel.library.name"), ("otel.scope.version", "otel.library.version"))
_STATUS: Final = ("otel.status_code", "otel.status_description")
_FOLDED: Final = ("span.kind", "w3c.tracestate", *_STATUS, *_SCOPES[0], *_SCOPES[1])
"""Tags that are members of a span."""


def _sniff(head: Head) -> bool:
    return any(_is_trace(one) or _is_span(one) for value in head.objects for one in (value, *_data(value)))


def _data(value: Json) -> list[Mapping[str, Json]]:
    return [as_mapping(item) for item in as_list(as_mapping(value).get("data"))]


def _is_trace(value: Mapping[str, Json]) -> bool:
    return isinstance(value.get("spans"), list) and ("processes" in value or _is_span(as_mapping(_at(value["spans"]))))


def _at(items: Json) -> Json:
    return next(iter(as_list(items)), None)


def _is_span(value: Mapping[str, Json]) -> bool:
    return {"traceID", "spanID", "operationName"} <= value.keys()


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    for one in _data(value) or [as_mapping(value)]:
        if _is_span(one):
            yield _span(one, {}, None, report)
        elif "spans" in one:
            processes, trace_id = as_mapping(one.get("processes")), one.get("traceID")
            made = partial(_span, processes=processes, trace_id=trace_id, report=report)
            yield from per_part(as_list(one["spans"]), report, "span", made)
        else:
            raise ValueError("neither a trace nor a span of Jaeger")


def _span(item: Json, processes: Mapping[str, Json], trace_id: Json, report: Report) -> Record:
    members = as_mapping(item)
    if not members:
        raise ValueError("a span that is no object")
    get = members.get
    tags = _tags(get("tags"), members.get("tag"))
    process = as_mapping(processes.get(as_text(get("processID")))) or as_mapping(get("process"))
    own_trace = hex_padded(get("traceID") or trace_id)
    parent, links = _references(members, own_trace)
    start, duration = microseconds(get("startTime")), whole_number(get("duration"))
    scope = {
        name: held
        for name, keys in zip(("name", "version"), _SCOPES, strict=True)
        if (held := next((tags[key] for key in keys if tags.get(key)), None))
    }
    return span(
        trace_id=own_trace,
        span_id=hex_padded(get("spanID")),
        parent_span_id=parent,
        trace_state=as_text(tags.get("w3c.tracestate")),
        name=get("operationName"),
        kind=tags.get("span.kind"),
        start=start,
        end=start + duration * 1000 if start is not None and duration is not None else None,
        status=_status(tags),
        message=tags.get(_STATUS[1]),
        attributes={key: held for key, held in tags.items() if key not in _FOLDED and key != "error"}
        | ({"error": tags["error"]} if tags.get("error") not in (None, *_YES, *_NO) else {})
        | ({"jaeger.warnings": warnings} if (warnings := as_list(get("warnings"))) else {}),
        resource=_tags(process.get("tags")) | {semconv.SERVICE_NAME: as_text(process.get("serviceName"))},
        scope=scope,
        events=[_event(log, report) for log in as_list(get("logs"))],
        links=links,
        report=report,
    )


_YES: Final = (True, "true", "True")
_NO: Final = (False, "false", "False", "")


def _status(tags: Mapping[str, Json]) -> str:
    code = status_code(tags.get(_STATUS[0]))
    return ERROR if code == UNSET and tags.get("error") not in (None, *_NO) else code


def _tags(items: Json, plain: Json = None) -> dict[str, Json]:
    """Typed tags as attributes. Elasticsearch keeps some in a second member, as an object."""
    found: dict[str, Json] = {key.replace("@", "."): held for key, held in as_mapping(plain).items()}
    for item in as_list(items):
        tag = as_mapping(item)
        if isinstance(key := tag.get("key"), str):
            found[key] = _typed(as_text(tag.get("type")), tag.get("value"))
    return found


def _typed(kind: str, value: Json) -> Json:
    if not isinstance(value, str):
        return value
    if kind == "bool":
        return value == "true"
    if kind == "int64":
        count = whole_number(value)
        return value if count is None else count
    return value


def _references(members: Mapping[str, Json], trace_id: Json) -> tuple[Json, list[Json]]:
    """(parent id, links): the parent is what the span is a child of, else what it follows from, in its own trace."""
    items = [as_mapping(item) for item in as_list(members.get("references"))]
    items.sort(key=lambda item: item.get("refType") != "CHILD_OF")
    chosen = next((item for item in items if hex_padded(item.get("traceID") or trace_id) == trace_id), None)
    links: list[Json] = [
        {
            "trace_id": hex_padded(item.get("traceID") or trace_id),
            "span_id": hex_padded(item.get("spanID")),
            "attributes": {"opentracing.ref_type": as_text(item.get("refType")).lower()},
        }
        for item in items
        if item is not chosen
    ]
    parent = chosen.get("spanID") if chosen else members.get("parentSpanID")
    return (None if parent in ("0", 0, None) else hex_padded(parent)), links


def _event(log: Json, report: Report) -> dict[str, Json]:
    members = as_mapping(log)
    fields = _tags(members.get("fields"))
    name = as_text(fields.pop("event", "") or fields.pop("message", ""))
    time = microseconds(members.get("timestamp")) or nanoseconds(members.get("timestamp"), report)
    if name == "error" and "error.kind" in fields:  # OpenTracing's spelling of an exception
        name = semconv.EXCEPTION_EVENT
        fields |= {semconv.EXCEPTION_TYPE[0]: fields.pop("error.kind")}
        fields |= {semconv.EXCEPTION_MESSAGE[0]: fields.pop("message", "")}
        fields |= {semconv.EXCEPTION_STACKTRACE: fields.pop("stack", "")}
    return event(name, time, fields)


FORMAT: Final = Format(
    name="jaeger",
    title="Jaeger JSON",
    description="answers of its API and downloads of its UI (`{data: [{spans, processes}]}`), traces, spans with their "
    "process as lines",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
