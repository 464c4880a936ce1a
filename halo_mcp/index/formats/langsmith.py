"""LangSmith runs: lines, arrays, ``{runs: [...]}``; flat with ``parent_run_id``, or nested in ``child_runs``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, cast

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.payloads import langchain_metadata, payload
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import (
    ERROR,
    UNSET,
    attribute_value,
    event,
    exception_event,
    given,
    nanoseconds,
    parsed,
    per_part,
    per_record,
    span,
    whole_number,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_KINDS: Final = {
    "llm": "LLM",
    "chat_model": "LLM",
    "tool": "TOOL",
    "retriever": "RETRIEVER",
    "embedding": "EMBEDDING",
    "chain": "CHAIN",
}
_AGENTS: Final = ("AgentExecutor", "LangGraph")
_THREADS: Final = ("session_id", "thread_id", "conversation_id")
_FIRST_SEGMENT: Final = re.compile(r"\d{8}T\d{6,12}Z([0-9a-fA-F-]{36})")
_KEPT: Final = ("session_name", "dotted_order", "total_cost", "first_token_time", "reference_example_id", "app_path")
_REQUEST: Final = ("invocation_params", "invocation_parameters")


def _sniff(head: Head) -> bool:
    return any(_is_run(value) or any(map(_is_run, as_list(value.get("runs")))) for value in head.objects)


def _is_run(value: Json) -> bool:
    run = as_mapping(value)
    return {"id", "run_type", "start_time"} <= run.keys() and "inputs" in run


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: _spans(value, report))


def _spans(value: Json, report: Report) -> Iterator[Record]:
    members = as_mapping(value)
    items = [members] if "run_type" in members else as_list(members.get("runs"))
    if not items:
        raise ValueError("no run of LangSmith")
    return per_part(_walk(items), report, "run", lambda one: _span(one, report))


class _Run:
    """A run, and what it has from the run that it is nested in."""

    def __init__(self, item: Json, parent: Json = None, trace_id: Json = None) -> None:
        self.members = as_mapping(item)
        self.parent = self.members.get("parent_run_id") or parent
        root = self.members.get("id") if not self.parent else None
        self.trace_id = self.members.get("trace_id") or trace_id or _first_segment(self.members) or root


def _first_segment(run: Mapping[str, Json]) -> str | None:
    found = _FIRST_SEGMENT.match(as_text(run.get("dotted_order")))
    return found[1] if found else None


def _walk(items: list[Json]) -> Iterator[_Run]:
    """Depth first; a run that is given by itself and nested in its parent counts once."""
    waiting, seen = [_Run(item) for item in reversed(items)], set[str]()
    while waiting:
        run = waiting.pop()
        own = as_text(run.members.get("id"))
        if own and own in seen:
            continue
        seen.add(own)
        yield run
        children = reversed(as_list(parsed(run.members.get("child_runs"))))
        waiting += [_Run(child, run.members.get("id"), run.trace_id) for child in children]


def _span(run: _Run, report: Report) -> Record:
    members = run.members
    if not members:
        raise ValueError("a run that is no object")
    get = members.get
    extra = as_mapping(parsed(get("extra")))
    metadata = as_mapping(extra.get("metadata"))
    name, kind = as_text(get("name")), _KINDS.get(as_text(get("run_type")).lower(), "")
    llm = kind in ("LLM", "EMBEDDING")
    if kind == "CHAIN" and (name in _AGENTS or (name and metadata.get("lc_agent_name") == name)):
        kind = "AGENT"
    error = as_text(get("error"))
    end = nanoseconds(get("end_time"), report)
    attributes = _facts(members, kind, name, metadata, extra)
    for key, output in (("inputs", False), ("outputs", True)):
        made = payload(_unwrapped(get(key)), output=output, llm=llm)
        attributes |= {each: held for each, held in made.items() if each not in attributes}
    if not run.parent:
        attributes |= _of_root(members, metadata)
    return span(
        trace_id=run.trace_id,
        span_id=get("id"),
        parent_span_id=run.parent,
        name=name,
        kind="CLIENT" if llm else "INTERNAL",
        start=nanoseconds(get("start_time"), report),
        end=end,
        status=ERROR if error or get("status") == "error" else UNSET,
        message=error.partition("\n")[0],
        attributes=attributes,
        resource={f"langsmith.{key}": attribute_value(held) for key, held in as_mapping(extra.get("runtime")).items()},
        events=[*_events(get("events"), report), *([_exception(error, end)] if error else [])],
        report=report,
    )


def _facts(
    run: Mapping[str, Json], kind: str, name: str, metadata: Mapping[str, Json], extra: Mapping[str, Json]
) -> dict[str, Json]:
    request = as_mapping(extra.get(_REQUEST[0])) or as_mapping(extra.get(_REQUEST[1]))
    response = as_mapping(langchain_metadata(run.get("outputs")).get("response_metadata"))
    model = (
        response.get("model_name")
        or metadata.get("ls_model_name")
        or request.get("model")
        or request.get("model_name")
        or as_mapping(as_mapping(parsed(run.get("outputs"))).get("llm_output")).get("model_name")
    )
    llm = kind in ("LLM", "EMBEDDING")
    found: dict[str, Json] = {
        semconv.OBSERVATION_KIND: kind,
        semconv.MODEL_NAME[0]: model if llm else None,
        semconv.PROVIDER[0]: metadata.get("ls_provider") if llm else None,
        semconv.INVOCATION_PARAMETERS: attribute_value(request) if request else None,
        semconv.FINISH_REASON[1]: response.get("finish_reason") or response.get("stop_reason"),
        semconv.TOOL_NAME[0]: name if kind == "TOOL" else None,
        semconv.AGENT_NAME[1]: name if kind == "AGENT" else metadata.get("lc_agent_name"),
        semconv.SESSION_ID[0]: next((held for key in _THREADS if (held := metadata.get(key))), None),
        "langsmith.run_type": run.get("run_type"),
        "langsmith.tags": attribute_value(run.get("tags") or None),
        **{f"langsmith.{key}": run.get(key) for key in _KEPT},
        **{f"langsmith.metadata.{key}": attribute_value(held) for key, held in metadata.items()},
    }
    if llm:
        found |= _tokens(run, metadata)
    return given(found)


def _tokens(run: Mapping[str, Json], metadata: Mapping[str, Json]) -> dict[str, Json]:
    """Usage of a model's call, from the first place that has it."""
    outputs = as_mapping(parsed(run.get("outputs")))
    for usage in (
        outputs.get("usage_metadata"),
        langchain_metadata(outputs).get("usage_metadata"),
        metadata.get("usage_metadata"),
        {"input_tokens": run.get("prompt_tokens"), "output_tokens": run.get("completion_tokens")},
        as_mapping(outputs.get("llm_output")).get("token_usage"),
        outputs.get("usage"),
    ):
        counts = as_mapping(usage)
        given_in = whole_number(counts.get("input_tokens", counts.get("prompt_tokens")))
        given_out = whole_number(counts.get("output_tokens", counts.get("completion_tokens")))
        if given_in is None and given_out is None:
            continue
        cached = as_mapping(counts.get("input_token_details")).get("cache_read")
        if cached is None:
            cached = as_mapping(run.get("prompt_token_details")).get("cache_read")
        return {
            semconv.INPUT_TOKENS[0]: given_in,
            semconv.OUTPUT_TOKENS[0]: given_out,
            semconv.CACHED_INPUT_TOKENS[0]: whole_number(cached),
        }
    return {}


def _of_root(run: Mapping[str, Json], metadata: Mapping[str, Json]) -> dict[str, Json]:
    """Feedback on the trace, and the example of a data set that it is a run of."""
    found: dict[str, Json] = {semconv.TASK_KEY[0]: run.get("reference_example_id")}
    found[semconv.RUN_ID[0]] = metadata.get("ls_experiment_id") or metadata.get("experiment_id")
    for name, stats in as_mapping(parsed(run.get("feedback_stats"))).items():
        average = as_mapping(stats).get("avg")
        found[f"langsmith.feedback.{name}"] = average if average is not None else attribute_value(stats)
        if name.lower() in _VERDICTS and average is not None:
            found[semconv.OUTCOME[0]] = average
    return given(found)


_VERDICTS: Final = ("correct", "correctness", "success", "passed", "pass", "resolved")


def _unwrapped(value: Json) -> Json:
    """``{"input": text}`` and ``{"output": text}`` are that text."""
    members = as_mapping(parsed(value))
    if len(members) == 1:
        ((key, held),) = members.items()
        if key in ("input", "output") and held not in (None, ""):
            return held
    return None if isinstance(value, dict) and not members else cast("Json", value)


def _events(items: Json, report: Report) -> list[dict[str, Json]]:
    """The events that say more than that a run began, ended, or had a token."""
    found: list[dict[str, Json]] = []
    for item in as_list(parsed(items)):
        members = as_mapping(item)
        name = as_text(members.get("name"))
        if name in ("", "start", "end", "new_token"):
            continue
        attributes = {key: attribute_value(held) for key, held in members.items() if key not in ("name", "time")}
        found.append(event(name, nanoseconds(members.get("time"), report), attributes))
    return found


def _exception(error: str, time: int | None) -> dict[str, Json]:
    """``ValueError('no')Traceback ...`` as an event; the type only where the text begins with one."""
    kind = re.match(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Timeout|Exit))\b", error)
    first, _, rest = error.partition("Traceback (most recent call last)")
    return exception_event(kind[1] if kind else "", first.strip() or error[:200], time, error if rest else "")


FORMAT: Final = Format(
    name="langsmith",
    title="LangSmith",
    description="runs as JSON lines, arrays or `{runs: [...]}`; flat, or nested in `child_runs`",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
