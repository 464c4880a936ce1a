"""Traces as the OpenAI Agents SDK exports them: ``object: trace`` and ``object: trace.span``, in any container.

Spans in ``{data: [...]}`` (what is sent to the platform), ``{traces: [{spans: [...]}]}``, arrays or lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.payloads import payload
from halo_mcp.index.formats.protocol import CHANGED_IDS, Format, Record, Report
from halo_mcp.index.formats.python_repr import from_repr
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    ERROR,
    UNSET,
    attribute_value,
    given,
    nanoseconds,
    parsed,
    per_part,
    per_record,
    span,
    whole_number,
)
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_KINDS: Final = {
    "agent": "AGENT",
    "generation": "LLM",
    "response": "LLM",
    "function": "TOOL",
    "mcp_tools": "TOOL",
    "handoff": "CHAIN",
    "guardrail": "GUARDRAIL",
}
_TAKEN: Final = frozenset(
    (
        *("type", "name", "input", "output", "model", "model_config", "usage", "response", "response_id", "mcp_data"),
        *("handoffs", "tools", "output_type", "server", "result", "from_agent", "to_agent", "triggered", "data"),
    )
)
_COPIES: Final = "span_data_"
"""Some dumps repeat members of ``span_data`` under this prefix, and add others."""


def _sniff(head: Head) -> bool:
    return any(_is_ours(one) for value in head.objects for one in (value, *_inside(value)))


def _is_ours(value: Json) -> bool:
    members = as_mapping(value)
    kind = members.get("object")
    return (kind == "trace.span" and "span_data" in members) or (kind == "trace" and "workflow_name" in members)


def _inside(value: Json) -> list[Json]:
    members = as_mapping(value)
    return [item for key in ("data", "traces", "spans", "items") for item in as_list(members.get(key))]


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    traces = _Traces()
    yield from per_record(file.values(), report, lambda value: _spans(value, traces, report))
    for _ in traces.facts.keys() - traces.seen:
        report.skip("a trace without spans", whole=False)


class _Traces:
    """What was said of traces, by their ids, and the traces that spans were of."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Json]] = {}
        self.seen: set[str] = set()

    def of_span(self, trace_id: Json) -> Mapping[str, Json]:
        name = as_text(trace_id)
        if name not in self.facts:
            return {}
        self.seen.add(name)
        return self.facts[name]


def _spans(value: Json, traces: _Traces, report: Report) -> Iterator[Record]:
    """The spans in a value. What is said of a trace is kept for its spans, which come after it."""
    for item in as_list(value) or [value]:
        members = as_mapping(item)
        if members.get("object") == "trace.span":
            yield _span(item, None, traces, report)
            continue
        inner = _inside(members)
        if members.get("object") == "trace":
            traces.facts[as_text(members.get("id"))] = _of_trace(members)
            made = partial(_span, around=members.get("id"), traces=traces, report=report)
            yield from per_part(inner, report, "span", made)
        elif inner:
            # Traces first: in some dumps they stand behind their spans.
            inner.sort(key=lambda one: as_mapping(one).get("object") != "trace")
            for one in inner:
                yield from _spans(one, traces, report)
        else:
            raise ValueError("neither a trace nor a span of the OpenAI Agents SDK")


def _of_trace(trace: Mapping[str, Json]) -> dict[str, Json]:
    metadata = as_mapping(parsed(trace.get("metadata")))
    return given(
        {
            "agent.workflow.name": trace.get("workflow_name"),
            semconv.SESSION_ID[0]: trace.get("group_id"),
            **{f"agent.workflow.metadata.{key}": attribute_value(held) for key, held in metadata.items()},
        }
    )


def _span(item: Json, around: Json, traces: _Traces, report: Report) -> Record:
    members = as_mapping(item)
    if not members:
        raise ValueError("a span that is no object")
    get = members.get
    data = _data(members)
    kind = as_text(data.get("type")) or "unknown"
    trace_id = get("trace_id") or around
    about = traces.of_span(trace_id)
    error = as_mapping(parsed(get("error")))
    failure = as_text(error.get("message")) or (as_text(get("error")) if not error else json_text(error))
    attributes = given({**_attributes(kind, data), **about})
    if detail := error.get("data"):
        attributes["error.data"] = attribute_value(detail)
    name = as_text(data.get("name") or data.get("model"))
    ids = {"trace_id": trace_id, "span_id": get("id"), "parent_span_id": get("parent_id")}
    plain = {key: _plain(held) for key, held in ids.items()}
    attributes |= {f"source.{key}": held for key, held in ids.items() if held != plain[key]}
    if plain != ids:
        report.repaired(CHANGED_IDS)
    return span(
        **plain,
        name=f"{kind}.{name}" if name else kind,
        kind="CLIENT" if _KINDS.get(kind) == "LLM" else "INTERNAL",
        start=nanoseconds(get("started_at"), report),
        end=nanoseconds(get("ended_at"), report),
        status=ERROR if failure else UNSET,
        message=failure,
        attributes=attributes,
        scope={"name": "openai-agents-sdk"},
        report=report,
    )


def _plain(value: Json) -> Json:
    """An id without the word before it, as exporters of OpenTelemetry write it."""
    return value.removeprefix("trace_").removeprefix("span_") if isinstance(value, str) else value


def _data(members: Mapping[str, Json]) -> dict[str, Json]:
    """The span's data, with what some dumps put beside it."""
    data = dict(as_mapping(parsed(members.get("span_data"))))
    for key, value in members.items():
        if key.startswith(_COPIES):
            data.setdefault(key.removeprefix(_COPIES), value)
    data.setdefault("response", members.get("response"))
    return {key: held for key, held in data.items() if held is not None}


def _attributes(kind: str, data: Mapping[str, Json]) -> dict[str, Json]:
    get = data.get
    found: dict[str, Json] = {semconv.OBSERVATION_KIND: _KINDS.get(kind, "SPAN"), "sdk.span.type": kind}
    found |= {f"sdk.data.{key}": attribute_value(held) for key, held in data.items() if key not in _TAKEN}
    if kind == "agent":
        found[semconv.AGENT_NAME[0]] = get("name")
        found |= {f"agent.{key}": attribute_value(get(key)) for key in ("handoffs", "tools", "output_type")}
    elif kind in ("generation", "response"):
        found |= _model_call(data)
    elif kind == "function":
        found[semconv.TOOL_NAME[0]] = get("name")
        found |= payload(get("input"), output=False, llm=False) | payload(get("output"), output=True, llm=False)
        found["mcp.data"] = attribute_value(get("mcp_data"))
    elif kind == "mcp_tools":
        found |= {semconv.TOOL_NAME[0]: "list_tools", "mcp.server": get("server")}
        found["mcp.tools.listed"] = attribute_value(get("result"))
    elif kind == "handoff":
        found |= {"agent.handoff.from": get("from_agent"), "agent.handoff.to": get("to_agent")}
    elif kind == "guardrail":
        found |= {"guardrail.name": get("name"), "guardrail.triggered": get("triggered")}
    else:
        found["sdk.span.name"] = get("name")
        found |= {f"sdk.data.{key}": attribute_value(get(key)) for key in ("model", "usage") if key in data}
        found |= {f"sdk.data.{key}": attribute_value(held) for key, held in as_mapping(get("data")).items()}
        found |= payload(get("input"), output=False, llm=False) | payload(get("output"), output=True, llm=False)
    return found


def _model_call(data: Mapping[str, Json]) -> dict[str, Json]:
    """Model, usage and messages of a generation or of a response, which may be an object or its ``repr()``."""
    response = _read(data.get("response"))
    answer, request = as_mapping(response), _read(data.get("input"))
    usage = as_mapping(_read(data.get("usage"))) or as_mapping(answer.get("usage"))
    details = as_mapping(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    settings = as_mapping(data.get("model_config")) or {
        key: held for key, held in answer.items() if key in _SETTINGS and held is not None
    }
    found: dict[str, Json] = {
        semconv.MODEL_NAME[0]: data.get("model") or answer.get("model"),
        "llm.response.id": data.get("response_id") or answer.get("id"),
        semconv.INPUT_TOKENS[0]: whole_number(usage.get("input_tokens", usage.get("prompt_tokens"))),
        semconv.OUTPUT_TOKENS[0]: whole_number(usage.get("output_tokens", usage.get("completion_tokens"))),
        semconv.CACHED_INPUT_TOKENS[0]: whole_number(usage.get("cached_input_tokens", details.get("cached_tokens"))),
        semconv.INVOCATION_PARAMETERS: json_text(settings) if settings else None,
        semconv.SYSTEM_INSTRUCTIONS[0]: attribute_value(answer.get("instructions")),
        semconv.TOOL_DEFINITIONS[0]: attribute_value(answer.get("tools") or None),
        **{
            f"llm.response.{key}": attribute_value(answer.get(key)) for key in ("error", "incomplete_details", "status")
        },
    }
    found |= payload(request, output=False, llm=True)
    if answer:
        found |= payload(answer.get("output"), output=True, llm=True)
    else:
        found |= payload(data.get("output") if data.get("output") is not None else response, output=True, llm=True)
    return found


_ANSWER: Final = ("error", "incomplete_details", "status")
_SETTINGS: Final = (
    *("temperature", "top_p", "tool_choice", "parallel_tool_calls", "max_output_tokens", "truncation"),
    *("reasoning", "text", "max_tool_calls", "service_tier"),
)


def _read(value: Json) -> Json:
    """JSON, JSON text or the text of a Python object as JSON; any other text as it is."""
    value = parsed(value)
    if not isinstance(value, str):
        return value
    found = from_repr(value)
    return value if found is None else found


FORMAT: Final = Format(
    name="openai-agents",
    title="OpenAI Agents SDK",
    description="exported traces and spans (`object: trace`, `trace.span`): `{data: [...]}`, `{traces: [...]}`, an "
    "array, lines; responses also as the text of Python objects",
    sniff=_sniff,
    convert=_convert,
)
