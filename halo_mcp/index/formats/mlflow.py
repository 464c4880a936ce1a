"""MLflow traces: ``Trace.to_json()`` and ``to_dict()`` of versions 2 and 3, and rows of ``search_traces``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.payloads import payload
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    ERROR,
    attribute_value,
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

_TYPE: Final = "mlflow.spanType"
_INPUTS: Final = "mlflow.spanInputs"
_OUTPUTS: Final = "mlflow.spanOutputs"
_USAGE: Final = "mlflow.chat.tokenUsage"
_MODEL_KEYS: Final = ("mlflow.llm.model", "mlflow.chat.model")
_TOOLS: Final = "mlflow.chat.tools"
_FUNCTION: Final = "mlflow.spanFunctionName"
_SESSIONS: Final = ("mlflow.trace.session", "mlflow.traceSession")
_USERS: Final = ("mlflow.trace.user", "mlflow.traceUser")
_TAKEN: Final = (_INPUTS, _OUTPUTS, _USAGE, _TOOLS)
_LEFT_OUT: Final = (
    "mlflow.traceRequestId",
    "mlflow.trace_schema.version",
    "mlflow.trace.sizeStats",
    "mlflow.trace.sizeBytes",
)
_INFO: Final = frozenset(("info", "trace", "spans", "request", "response", "data"))
_ASSESSED: Final = "mlflow.assessment."


def _sniff(head: Head) -> bool:
    return any(bool(_trace(value)) for value in head.objects)


def _trace(value: Json) -> tuple[Mapping[str, Json], list[Json]] | None:
    """(info, spans) of a trace, or of a row that has one; None when it is neither."""
    members = as_mapping(value)
    info, data = as_mapping(parsed(members.get("info"))), as_mapping(parsed(members.get("data")))
    if isinstance(data.get("spans"), list) and (info.keys() & {"trace_id", "request_id", "experiment_id"}):
        return info, as_list(data["spans"])
    if inner := as_mapping(parsed(members.get("trace"))):
        return _trace(inner) if "info" in inner else None
    spans = as_list(parsed(members.get("spans")))
    if members.keys() & {"request_id", "trace_id"} and any(_is_span(item) for item in spans):
        return {key: held for key, held in members.items() if key not in _INFO}, spans
    return None


def _is_span(value: Json) -> bool:
    attributes = as_mapping(as_mapping(value).get("attributes"))
    return any(key.startswith("mlflow.") for key in attributes)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    found = _trace(value)
    if found is None:
        raise ValueError("no trace of MLflow")
    info, items = found
    if not items:
        raise ValueError("a trace without spans")
    failed = str(info.get("state") or info.get("status")).upper().endswith("ERROR")
    erring = failed and not any(_status(as_mapping(item))[0] == ERROR for item in items)
    yield from per_part(items, report, "span", partial(_span, info=info, erring=erring, report=report))


def _status(item: Mapping[str, Json]) -> tuple[str, Json]:
    status = as_mapping(item.get("status"))
    return status_code(status.get("code") or item.get("status_code")), status.get("message") or item.get(
        "status_message"
    )


def _span(item: Json, info: Mapping[str, Json], erring: bool, report: Report) -> Record:
    members = as_mapping(item)
    if not members:
        raise ValueError("a span that is no object")
    get, context = members.get, as_mapping(members.get("context"))
    raw = as_mapping(get("attributes"))
    attributes = _attributes({key: parsed(value) for key, value in raw.items()}, as_text(get("name")))
    parent = get("parent_span_id") or get("parent_id")
    code, message = _status(members)
    if not parent:
        attributes |= {key: held for key, held in _of_trace(info).items() if key not in attributes}
        code = ERROR if erring else code
    return span(
        trace_id=_id(get("trace_id") or context.get("trace_id") or info.get("trace_id") or info.get("request_id")),
        span_id=_id(get("span_id") or context.get("span_id")),
        parent_span_id=_id(parent),
        name=get("name"),
        kind="CLIENT" if attributes.get(semconv.OBSERVATION_KIND) == "LLM" else "INTERNAL",
        start=nanoseconds(get("start_time_unix_nano") or get("start_time"), report),
        end=nanoseconds(get("end_time_unix_nano") or get("end_time"), report),
        status=code,
        message=message,
        attributes=attributes,
        resource=given({semconv.SERVICE_NAME: as_mapping(info.get("tags")).get("mlflow.source.name")}),
        events=[_event(one, report) for one in as_list(get("events"))],
        links=as_list(get("links")),
        report=report,
    )


def _id(value: Json) -> Json:
    return value.removeprefix("0x") if isinstance(value, str) else value


def _attributes(values: Mapping[str, Json], name: str) -> dict[str, Json]:
    """What MLflow's keys say under the keys that are read, and all others as they are."""
    kind = observation_kind(values)
    llm = kind in ("LLM", "EMBEDDING")
    usage = as_mapping(values.get(_USAGE))
    found = {key: attribute_value(held) for key, held in values.items() if key not in (*_TAKEN, *_LEFT_OUT)}
    made = {
        semconv.OBSERVATION_KIND: kind,
        semconv.MODEL_NAME[0]: next((held for key in _MODEL_KEYS if (held := values.get(key))), None),
        semconv.INPUT_TOKENS[0]: whole_number(usage.get("input_tokens")),
        semconv.OUTPUT_TOKENS[0]: whole_number(usage.get("output_tokens")),
        semconv.CACHED_INPUT_TOKENS[0]: whole_number(usage.get("cache_read_input_tokens")),
        semconv.TOOL_DEFINITIONS[0]: attribute_value(values.get(_TOOLS)),
        semconv.TOOL_NAME[0]: (values.get(_FUNCTION) or name) if kind == "TOOL" else None,
        semconv.AGENT_NAME[1]: name if kind == "AGENT" and not values.get(semconv.AGENT_NAME[2]) else None,
    }
    made |= payload(values.get(_INPUTS), output=False, llm=llm)
    made |= payload(values.get(_OUTPUTS), output=True, llm=llm)
    if llm and not made.get(semconv.MODEL_NAME[0]):
        made[semconv.MODEL_NAME[0]] = _model(values)
    return found | {key: held for key, held in given(made).items() if found.get(key) in (None, "")}


def _model(values: Mapping[str, Json]) -> Json:
    inputs, outputs = as_mapping(values.get(_INPUTS)), as_mapping(values.get(_OUTPUTS))
    named = outputs.get("model") or inputs.get("model") or inputs.get("model_name")
    return named if isinstance(named, str) else None


def _of_trace(info: Mapping[str, Json]) -> dict[str, Json]:
    """What is said of the whole trace, for its root."""
    metadata = {**as_mapping(parsed(info.get("request_metadata"))), **as_mapping(parsed(info.get("trace_metadata")))}
    tags = as_mapping(parsed(info.get("tags")))
    found: dict[str, Json] = {
        semconv.SESSION_ID[0]: next((held for key in _SESSIONS if (held := metadata.get(key))), None),
        "inference.user_id": next((held for key in _USERS if (held := metadata.get(key))), None),
        semconv.RUN_ID[0]: metadata.get("mlflow.sourceRun"),
        "mlflow.trace.state": info.get("state") or info.get("status"),
    }
    for key, value in {**metadata, **tags}.items():
        if not key.startswith("mlflow."):
            found[f"mlflow.trace.tags.{key}"] = attribute_value(value)
    for item in as_list(parsed(info.get("assessments"))):
        found |= _assessment(as_mapping(item))
    return given(found)


def _assessment(item: Mapping[str, Any]) -> dict[str, Json]:
    name = as_text(item.get("assessment_name") or item.get("name"))
    if not name:
        return {}
    value = as_mapping(item.get("feedback")).get("value", as_mapping(item.get("expectation")).get("value"))
    key = f"{_ASSESSED}{name}"
    return {key: attribute_value(value), f"{key}.rationale": item.get("rationale")}


def _event(item: Json, report: Report) -> dict[str, Json]:
    members = as_mapping(item)
    # Exceptions have been seen with microseconds under this name: the size tells the unit.
    time = nanoseconds(members.get("time_unix_nano") or members.get("timestamp"), report)
    return event(as_text(members.get("name")), time, as_mapping(members.get("attributes")))


FORMAT: Final = Format(
    name="mlflow",
    title="MLflow",
    description="traces of versions 2 and 3 (`{info, data: {spans}}`): one, an array, lines; rows of `search_traces`",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
