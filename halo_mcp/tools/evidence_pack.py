"""What `ask` answers without a model: the computed evidence, traces to read, and a plan for the client's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from halo_mcp.engine.ask import checked_question
from halo_mcp.errors import BadArgument, HaloError
from halo_mcp.index.filters import TraceFilters
from halo_mcp.tools.budget import DEFAULT_CHARS, Page, preview
from halo_mcp.tools.contrast import contrast_traces
from halo_mcp.tools.failures import list_failure_modes
from halo_mcp.tools.overview import get_dataset_overview
from halo_mcp.tools.params import Answer, Call, call_text
from halo_mcp.tools.query import query_traces

_MODES: Final = 5
_MOST_TRACES: Final = 5
_QUESTION_CHARS: Final = 500
_NO_MODEL: Final = "no model is chosen here (HALO_MCP_MODEL)"
CLAIMS_SHAPE: Final = (
    'claims=[{"claim": "...", "evidence": [{"trace_id": "...", "span_id": "...", "quote": "verbatim"}], '
    '"check": {"filters": {...}, "metric": "traces", "expected": 12}}]'
)


def evidence_pack(call: Call, question: str, filters: TraceFilters, why: str = _NO_MODEL) -> Answer:
    """Overview, failure modes with quotes, contrast, representative traces, and the calls to go on with.

    ``why``: why no model answers, without a full stop.
    """
    question = checked_question(question)
    overview = get_dataset_overview(call, filters)
    failures = list_failure_modes(call, filters, limit=_MODES)
    contrast = _contrast(call, filters)
    chosen = _representative(call, filters, failures.data)
    plan = _plan(call, filters, failures.data, chosen)
    text = Page(DEFAULT_CHARS, reserve=5_000)
    text.add(
        f"status no_model: {why}. Nothing was sent anywhere. Here is computed evidence, and a plan for you to answer "
        "the question yourself."
    )
    text.add(f"question: {preview(question, _QUESTION_CHARS)}")
    for heading, part in (
        ("## Overview", overview.text),
        ("## Failure modes", failures.text),
        ("## What separates failing from passing traces", contrast.text),
    ):
        text.add_cut(f"{heading}\n{part}")
    traces = [f"- {one['trace_id']}: {one['why']}" for one in chosen]
    steps = [f"{number}. {one['why']}: {one['call']}" for number, one in enumerate(plan, 1)]
    data = {
        "status": "no_model",
        "why": why,
        "question": question,
        "overview": dict(overview.data),
        "failure_modes": failures.data["failure_modes"],
        "contrast": dict(contrast.data),
        "representative_traces": chosen,
        "plan": plan,
    }
    closing = ["## Representative traces", *traces, "## Plan: call these, then answer with evidence", *steps]
    return Answer(text.close("\n".join(closing)), data)


def _contrast(call: Call, filters: TraceFilters) -> Answer:
    try:
        return contrast_traces(call, filters=filters)
    except BadArgument as error:  # no outcomes to tell failing from passing by
        return Answer(f"not available: {error}", {"not_available": str(error)})


def _representative(call: Call, filters: TraceFilters, failures: Mapping[str, Any]) -> list[dict[str, str]]:
    """Three to five traces that differ: one of each large failure mode, the largest, and one that passed."""
    chosen: dict[str, str] = {}

    def choose(trace_id: str, why: str) -> None:
        if trace_id and len(chosen) < _MOST_TRACES:
            chosen.setdefault(trace_id, why)

    for mode in failures["failure_modes"][:3]:
        words = str(mode["pattern"] or mode["status_message"] or mode["rule"])
        choose(mode["example_trace_id"], f"failure mode {mode['id']}: {preview(words)}")
    given = filters.given()
    if not given.get("outcome"):
        passed = TraceFilters.model_validate({**given, "outcome": ["pass"]})
        for trace in _first(call, passed, "start_time"):
            choose(trace, "passed, for comparison")
    for trace in _first(call, filters, "-tokens"):
        choose(trace, "most tokens")
    for trace in _first(call, filters, "-duration_ms"):
        choose(trace, "longest")
    return [{"trace_id": trace_id, "why": why} for trace_id, why in chosen.items()]


def _first(call: Call, filters: TraceFilters, order: Any) -> list[str]:
    try:
        page = query_traces(call, filters, order, 1)
    except HaloError:
        return []
    return [str(trace["trace_id"]) for trace in page.data["traces"]]


def _plan(
    call: Call, filters: TraceFilters, failures: Mapping[str, Any], chosen: Sequence[Mapping[str, str]]
) -> list[dict[str, str]]:
    """Literal calls in a sensible order, each with its reason."""
    given, dataset = filters.given(), call.named
    plan: list[dict[str, str]] = []

    def add(why: str, text: str) -> None:
        plan.append({"why": why, "call": text})

    for mode in failures["failure_modes"][:2]:
        where = {"trace_id": mode["example_trace_id"], "span_ids": [mode["example_span_id"]]}
        add("read where it fails, with what came before", call_text("view_spans", dataset=dataset, **where, around=2))
    for one in chosen[:3]:
        add(f"read a trace ({one['why']})", call_text("view_trace", dataset=dataset, trace_id=one["trace_id"]))
    add("which tools fail, are retried or loop", call_text("analyze_tool_use", dataset=dataset, filters=given))
    for mode in failures["failure_modes"][:1]:
        filtered = {**given, "failure_mode": [mode["id"]]}
        counted = call_text("count_traces", dataset=dataset, filters=filtered, group_by="outcome")
        add("count a cause among failing and passing traces", counted)
    add("check every claim before you answer", f"verify_evidence({CLAIMS_SHAPE})")
    return plan
