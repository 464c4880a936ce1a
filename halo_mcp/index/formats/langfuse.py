"""Langfuse exports: a trace with its observations, lists of traces, and observations alone.

Members may be camelCase (API, UI) or snake_case (blob storage, SDK), and objects may be JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.payloads import payload
from halo_mcp.index.formats.protocol import MADE_ROOTS, WRAPPED_CALLS, Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    ERROR,
    ROOT,
    UNSET,
    attribute_value,
    given,
    nanoseconds,
    observation_kind,
    parsed,
    per_part,
    per_record,
    span,
    whole_number,
)
from halo_mcp.index.span import Json, as_list, as_mapping

Members: TypeAlias = Mapping[str, Json]

_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
_TYPE: Final = "langfuse.observation.type"
_METADATA: Final = "langfuse.observation.metadata."
_MODEL_CALLS: Final = ("LLM", "EMBEDDING")
_CACHED: Final = re.compile(r"input_cached_tokens|input_cache_read|(prompt_|input_token_)?(details[._])?cache_read.*")
_TRACE_ONLY: Final = ("userId", "sessionId", "bookmarked", "public", "htmlPath", "scores", "totalCost")
_KEPT: Final = (
    "environment",
    "version",
    "completionStartTime",
    "promptName",
    "costDetails",
    "usageDetails",
    "totalCost",
    "calculatedTotalCost",
    "toolCalls",
    "toolDefinitions",
)
"""Of an observation, under ``langfuse.observation.``; ``latency`` is in seconds here and milliseconds there."""


def _get(members: Members, key: str) -> Json:
    """The member in camelCase, or else in snake_case."""
    return members[key] if key in members else members.get(_snake(key))


def _snake(key: str) -> str:
    return _CAPITAL.sub(r"_\1", key).lower()


def _object(value: Json) -> Members:
    return as_mapping(parsed(value))


def _is_observation(value: Members) -> bool:
    kind = value.get("type")
    return (
        isinstance(kind, str)
        and bool(_get(value, "traceId"))
        and "id" in value
        and ("startTime" in value or "start_time" in value)
        and any(_has(value, key) for key in ("parentObservationId", "level", "statusMessage", "usageDetails"))
    )


def _is_trace(value: Members) -> bool:
    if "id" not in value or "timestamp" not in value or "name" not in value or _get(value, "traceId"):
        return False
    return isinstance(value.get("observations"), list | str) or sum(_has(value, key) for key in _TRACE_ONLY) > 2


def _has(value: Members, key: str) -> bool:
    return key in value or _snake(key) in value


def _known(value: Members) -> bool:
    if "observations" in value and "trace" in value:
        return bool(_object(value["trace"]) or parsed(value["observations"]))
    return _is_observation(value) or _is_trace(value)


def _sniff(head: Head) -> bool:
    return any(_known(value) or any(map(_known, _data(value))) for value in head.objects)


def _data(value: Members) -> list[Members]:
    return [as_mapping(item) for item in as_list(value.get("data"))] if "data" in value else []


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    value = parsed(value)
    for item in as_list(value) or _data(as_mapping(value)) or [value]:
        record = as_mapping(item)
        if "trace" in record and "observations" in record:
            trace = _object(record["trace"])
            listed = parsed(record["observations"])
            yield from _of_trace(trace, as_list(listed) or as_list(parsed(trace.get("observations"))), report)
        elif _is_observation(record):
            yield _span(_Observation(record), {}, ROOT, report)
        elif _is_trace(record):
            yield from _of_trace(record, as_list(parsed(record.get("observations"))), report)
        else:
            raise ValueError("neither a trace nor an observation")


class _Observation:
    """An observation with what others need to know of it."""

    def __init__(self, item: Json) -> None:
        record = _object(item)
        metadata = dict(_object(record.get("metadata")))
        if not metadata and record.get("metadata") not in (None, "", {}, "{}"):
            metadata = {"value": record.get("metadata")}
        self.record = record
        self.resource = _object(metadata.pop("resourceAttributes", None))
        self.scope = _object(metadata.pop("scope", None))
        self.attributes = dict(_object(metadata.get("attributes")))
        if self.attributes:
            metadata.pop("attributes")
        self.metadata = metadata
        self.id = str(record.get("id") or "")
        self.parent = str(_get(record, "parentObservationId") or "")
        usage = _object(_get(record, "usageDetails")) or _object(record.get("usage"))
        self.usage: Members = usage if usage.get("unit") in (None, "TOKENS") else {}
        self.kind = self._kind()

    def _kind(self) -> str:
        given_kind = observation_kind(self.attributes)
        if given_kind:
            return given_kind
        kind = str(self.record.get("type") or "")
        if kind.upper() not in ("SPAN", ""):
            return observation_kind({_TYPE: kind})
        output = _object(self.record.get("output"))
        if output.get("type") == "tool" and "tool_call_id" in output:
            return "TOOL"
        if any(self.attributes.get(key) for key in semconv.AGENT_NAME):
            return "AGENT"
        return "CHAIN" if "langgraph_node" in self.metadata or self.record.get("name") == "LangGraph" else ""


def _of_trace(trace: Members, items: Sequence[Json], report: Report) -> Iterator[Record]:
    found: list[_Observation] = []
    for number, item in enumerate(items):
        one = _Observation(item)
        if one.record:
            found.append(one)
        elif not isinstance(item, str):  # lists of traces name their observations by id
            report.skip("an observation that is no object", whole=False, place=f"observation {number + 1}")
    _unwrap(found, report)
    ids = {one.id for one in found}
    roots = [one for one in found if one.parent not in ids]
    trace_id = str(trace.get("id") or next((_get(one.record, "traceId") for one in found), "") or "")
    single = roots[0] if len(roots) == 1 and not roots[0].parent else None
    facts = {key: value for key, value in _trace_facts(trace).items() if value not in (None, "")}
    scores = _scores(trace)
    if single is None and trace:
        yield _trace_span(trace, trace_id, found, facts | scores.pop("", {}), report)
        if found:
            report.repaired(MADE_ROOTS)

    def made(one: _Observation) -> Record:
        extra = dict(scores.get(one.id, {}))
        if one is single:
            extra |= facts | _trace_payload(trace, one) | scores.get("", {})
        elif session := facts.get(semconv.SESSION_ID[0]):
            extra[semconv.SESSION_ID[0]] = session
        parent = trace_id if trace and single is None and not one.parent else ROOT
        return _span(one, extra, parent, report, trace_id)

    yield from per_part(found, report, "observation", made)


def _unwrap(found: Sequence[_Observation], report: Report) -> None:
    """One call of a model that two instrumentations recorded is the inner one; the outer one is a step around it."""
    by_id = {one.id: one for one in found}
    for one in found:
        if one.kind not in _MODEL_CALLS or not one.usage:
            continue
        above, seen = by_id.get(one.parent), {one.id}
        while above is not None and above.id not in seen:
            if above.kind in _MODEL_CALLS:
                above.kind = "CHAIN"
                report.repaired(WRAPPED_CALLS)
            seen.add(above.id)
            above = by_id.get(above.parent)


def _span(one: _Observation, extra: Members, parent: str, report: Report, trace_id: Json = None) -> Record:
    record, llm = one.record, one.kind in _MODEL_CALLS
    level = str(record.get("level") or "").upper()
    message = _get(record, "statusMessage")
    attributes = dict(one.attributes)
    attributes |= given(
        {
            semconv.OBSERVATION_KIND: one.kind,
            _TYPE: record.get("type"),
            semconv.MODEL_NAME[0]: _model(record),
            semconv.PROJECT_ID[0]: _get(record, "projectId"),
            semconv.PROMPT_VERSION[1]: _get(record, "promptVersion"),
            "langfuse.observation.level": level if level != "DEFAULT" else "",
            "langfuse.observation.status_message": message if level != "ERROR" else "",
            semconv.AGENT_NAME[1]: _agent_name(one),
            semconv.SESSION_ID[1]: one.metadata.get("thread_id"),
        }
    )
    attributes |= _tokens(one)
    for key in _KEPT:
        attributes |= given({f"langfuse.observation.{_snake(key)}": _brief(_get(record, key))})
    attributes |= _payloads(one, llm)
    parameters = {key: held for key, held in _object(_get(record, "modelParameters")).items() if held is not None}
    if parameters:
        attributes.setdefault(semconv.INVOCATION_PARAMETERS, attribute_value(parameters))
    if one.kind == "TOOL" and not any(attributes.get(key) for key in semconv.TOOL_NAME):
        attributes[semconv.TOOL_NAME[0]] = record.get("name")
    attributes |= given({f"{_METADATA}{key}": attribute_value(held) for key, held in one.metadata.items()})
    attributes |= {key: held for key, held in extra.items() if key not in attributes}
    return span(
        trace_id=_get(record, "traceId") or trace_id,
        span_id=record.get("id"),
        parent_span_id=one.parent or parent,
        name=record.get("name"),
        kind="CLIENT" if llm else "INTERNAL",
        start=nanoseconds(_get(record, "startTime"), report),
        end=nanoseconds(_get(record, "endTime"), report),
        status=ERROR if level == "ERROR" else UNSET,
        message=message if level == "ERROR" else "",
        attributes=attributes,
        resource=one.resource,
        scope={key: held for key, held in one.scope.items() if held not in (None, "", {})},
        report=report,
    )


def _payloads(one: _Observation, llm: bool) -> dict[str, Json]:
    """Input and output, unless the attributes that the instrumentation wrote have them."""
    found: dict[str, Json] = {}
    for key, output in (("input", False), ("output", True)):
        made = payload(one.record.get(key), output=output, llm=llm)
        keys = semconv.OUTPUT_MESSAGES if output else semconv.INPUT_MESSAGES
        flat = semconv.FLAT_OUTPUT_PREFIXES if output else semconv.FLAT_INPUT_PREFIXES
        if any(name.startswith(flat) or name in keys for name in one.attributes):
            continue
        found |= {name: held for name, held in made.items() if one.attributes.get(name) in (None, "")}
    return found


def _model(record: Members) -> Json:
    named = next((held for key in ("model", "providedModelName") if (held := _get(record, key))), None)
    return named if named != "unknown" else None


def _agent_name(one: _Observation) -> Json:
    if one.kind != "AGENT" or any(one.attributes.get(key) for key in semconv.AGENT_NAME):
        return None
    return str(one.record.get("name") or "").removeprefix(semconv.AGENT_NAME_PREFIX).removesuffix(".run")


def _tokens(one: _Observation) -> dict[str, Json]:
    """The members ``input`` and ``output`` of the usage; all others are breakdowns of these."""
    record, usage = one.record, one.usage
    found: dict[str, Json] = {}
    for key, names in (
        (semconv.INPUT_TOKENS[0], ("input", "promptTokens", "prompt_tokens", "input_tokens")),
        (semconv.OUTPUT_TOKENS[0], ("output", "completionTokens", "completion_tokens", "output_tokens")),
    ):
        counts = [whole_number(usage.get(name)) for name in names] + [
            whole_number(_get(record, names[1])) or None,
            whole_number(_get(record, f"{names[0]}Usage")) or None,  # 0 when unknown
        ]
        found[key] = next((count for count in counts if count is not None), None)
    cached = [whole_number(count) for key, count in usage.items() if _CACHED.fullmatch(key)]
    found[semconv.CACHED_INPUT_TOKENS[0]] = next((count for count in cached if count is not None), None)
    if one.kind not in (*_MODEL_CALLS, "AGENT") and not any(found.values()):
        return {}
    return given(found)


def _brief(value: Json) -> Json:
    value = parsed(value)
    return None if value in ({}, [], 0) else attribute_value(value)


# --- the trace -------------------------------------------------------------------------------------------------------
def _trace_span(trace: Members, trace_id: str, found: Sequence[_Observation], extra: Members, report: Report) -> Record:
    start = nanoseconds(trace.get("timestamp"), report)
    times = [nanoseconds(_get(one.record, key)) for one in found for key in ("startTime", "endTime")]
    end = max((time for time in times if time is not None), default=start)
    metadata = _object(trace.get("metadata"))
    return span(
        trace_id=trace_id,
        span_id=trace_id,
        name=trace.get("name"),
        start=start,
        end=end,
        attributes={
            semconv.OBSERVATION_KIND: "CHAIN",
            **payload(_plain(trace.get("input")), output=False, llm=False),
            **payload(_plain(trace.get("output")), output=True, llm=False),
            **extra,
        },
        resource=_object(metadata.get("resourceAttributes")),
        scope=_object(metadata.get("scope")),
        report=report,
    )


def _trace_facts(trace: Members) -> dict[str, Json]:
    facts: dict[str, Json] = {
        semconv.SESSION_ID[0]: _get(trace, "sessionId"),
        "inference.user_id": _get(trace, "userId"),
        "langfuse.trace.name": trace.get("name"),
        "langfuse.trace.tags": _brief(trace.get("tags")),
        "langfuse.trace.release": trace.get("release"),
        "langfuse.trace.version": trace.get("version"),
        "langfuse.trace.environment": trace.get("environment"),
    }
    metadata = _object(trace.get("metadata"))
    for key, value in metadata.items():
        if key not in ("attributes", "resourceAttributes", "scope"):
            facts[f"langfuse.trace.metadata.{key}"] = attribute_value(value)
    return facts


def _trace_payload(trace: Members, root: _Observation) -> dict[str, Json]:
    """Input and output of the trace where the root has none, or others."""
    found: dict[str, Json] = {}
    for key, name in (("input", semconv.INPUT_VALUE[0]), ("output", semconv.OUTPUT_VALUE[0])):
        value, own = _plain(trace.get(key)), _plain(root.record.get(key))
        if value in (None, "") or value in (own, root.attributes.get(name)):
            continue
        found[name if own in (None, "") else f"langfuse.trace.{key}"] = attribute_value(value)
    return found


def _plain(value: Json) -> Json:
    """A value out of however many layers of JSON text it is in."""
    for _ in range(3):
        value = parsed(value)
    return value


def _scores(trace: Members) -> dict[str, dict[str, Json]]:
    """Scores as attributes, by the observation that they are of; "" is the trace."""
    found: dict[str, dict[str, Json]] = {}
    for item in as_list(parsed(trace.get("scores"))):
        score: dict[str, Any] = dict(as_mapping(item))
        name = score.get("name")
        if not isinstance(name, str):
            continue
        value = _get(score, "stringValue")
        known = {f"langfuse.score.{name}": score.get("value") if value in (None, "") else value}
        known |= given({f"langfuse.score.{name}.comment": score.get("comment")})
        if name.lower() in semconv.OUTCOME + _VERDICTS:
            known[semconv.OUTCOME[0]] = known[f"langfuse.score.{name}"]
        found.setdefault(str(_get(score, "observationId") or ""), {}).update(known)
    return found


_VERDICTS: Final = ("success", "succeeded", "passed", "pass", "resolved", "correct", "task_success")

FORMAT: Final = Format(
    name="langfuse",
    title="Langfuse",
    description="`{trace, observations}` (stringified or not), traces of the API with their observations, lists of "
    "traces, observations alone; camelCase or snake_case",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
