"""Traces with nested ``child_spans``, as Patronus exports them and the TRAIL data set has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    duration_nanoseconds,
    event,
    given,
    nanoseconds,
    observation_kind,
    parsed,
    per_part,
    per_record,
    span,
    status_code,
    whole_number,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NUMBERS: Final = ("llm.token_count.", "gen_ai.usage.", "llm.usage.")
_OTHER_AGENT: Final = "ToolCallingAgent"
_LOGS_LEFT_OUT: Final = "logs of the evaluation around an agent left out"
_MANAGED_AGENT: Final = "smolagents.managed_agents.0.name"


def _sniff(head: Head) -> bool:
    return any(_is_span(value) or any(map(_is_span, as_list(value.get("spans")))) for value in head.objects)


def _is_span(value: Json) -> bool:
    members = as_mapping(value)
    return "span_id" in members and (
        isinstance(members.get("child_spans"), list) or {"span_name", "span_attributes"} <= members.keys()
    )


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    trace = as_mapping(value)
    tops = as_list(trace.get("spans")) or ([trace] if _is_span(trace) else [])
    if not tops:
        raise ValueError("a trace without spans")
    trace_id = trace.get("trace_id")
    yield from per_part(_walk(tops), report, "span", lambda one: _span(one, trace_id, report))


class _Nested:
    """A span, and the one around it."""

    def __init__(self, item: Json, parent: _Nested | None) -> None:
        self.item = item
        self.members = as_mapping(item)
        self.parent = parent
        self.attributes: Mapping[str, Json] = as_mapping(parsed(self.members.get("span_attributes")))


def _walk(tops: list[Json]) -> Iterator[_Nested]:
    """Depth first."""
    waiting = [_Nested(item, None) for item in reversed(tops)]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [_Nested(child, one) for child in reversed(as_list(one.members.get("child_spans")))]


def _span(one: _Nested, trace_id: Json, report: Report) -> Record:
    get = one.members.get
    if not one.members:
        raise ValueError("a span that is no object")
    start = nanoseconds(get("timestamp"), report)
    duration = duration_nanoseconds(get("duration"))
    attributes = {key: _number(value) if key.startswith(_NUMBERS) else value for key, value in one.attributes.items()}
    name = as_text(get("span_name") or get("name"))
    kind = observation_kind(attributes)
    if not any(attributes.get(key) for key in semconv.AGENT_NAME) and (kind == "AGENT" or name.endswith(".run")):
        attributes |= given({semconv.AGENT_NAME[1]: _agent_name(name, one)})
    if logs := as_list(get("logs")):
        report.repaired(_LOGS_LEFT_OUT, len(logs))
    around = one.parent.members.get("span_id") if one.parent else None
    return span(
        trace_id=get("trace_id") or trace_id,
        span_id=get("span_id"),
        parent_span_id=get("parent_span_id") or around,
        name=name,
        kind=get("span_kind"),
        start=start,
        end=start + duration if start is not None and duration is not None else None,
        status=status_code(get("status_code")),
        message=get("status_message"),
        attributes=attributes,
        resource=as_mapping(get("resource_attributes")),
        scope=given({"name": get("scope_name"), "version": get("scope_version")}),
        events=[_event(item, report) for item in as_list(get("events"))],
        links=as_list(get("links")),
        report=report,
    )


def _number(value: Json) -> Json:
    count = whole_number(value)
    return value if count is None else count


def _agent_name(name: str, one: _Nested) -> Json:
    """``CodeAgent.run`` is CodeAgent; what is called ToolCallingAgent has its name where its manager lists it."""
    agent = name.removesuffix(".run")
    above = one.parent
    while agent == _OTHER_AGENT and above is not None:
        if managed := above.attributes.get(_MANAGED_AGENT):
            return managed
        above = above.parent
    return agent


def _event(item: Any, report: Report) -> dict[str, Json]:
    members = {str(key).lower(): value for key, value in as_mapping(item).items()}
    time = nanoseconds(members.get("timestamp") or members.get("time"), report)
    return event(as_text(members.get("name")), time, as_mapping(members.get("attributes")))


FORMAT: Final = Format(
    name="patronus",
    title="Patronus, TRAIL",
    description="traces with nested `child_spans`; OpenInference attributes as text; start and ISO 8601 duration. "
    "Records of the evaluation around an agent (`logs`), which can hold reference answers, are left out",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
