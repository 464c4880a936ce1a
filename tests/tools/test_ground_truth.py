"""What the tools say about the sample dataset is what its generator knows to be true."""

from __future__ import annotations

import re
from typing import Any

import pytest

from halo_mcp.demo.truth import RunTruth
from halo_mcp.tools.budget import OVERVIEW_CHARS
from tests.tools.conftest import Demo

RUNS = ("before", "after")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def truth_of(demo: Demo, run: str) -> RunTruth:
    return demo.truth.before if run == "before" else demo.truth.after


def test_the_overview_counts_what_the_generator_wrote(demo: Demo, run: str) -> None:
    truth, said = truth_of(demo, run), demo.desk.data("get_dataset_overview", dataset=run)
    assert {name: said[name] for name in NUMBERS} == {
        "total_traces": truth.traces,
        "total_spans": truth.spans,
        "error_trace_count": truth.error_traces,
        "otel_error_span_count": truth.error_spans,
        "original_error_span_count": truth.original_error_spans,
        "total_input_tokens": truth.input_tokens,
        "total_output_tokens": truth.output_tokens,
        "outcomes": {"pass": truth.pass_traces, "fail": truth.fail_traces, "unknown": 0},
        "exception_types": dict(truth.exception_types),
    }
    assert said["observation_kinds"]["LLM"] == truth.llm_spans
    assert {tool["tool_name"]: (tool["call_count"], tool["failure_count"]) for tool in said["tools"]} == {
        name: (tool.calls, tool.failures) for name, tool in truth.tools.items()
    }


NUMBERS = (
    "total_traces",
    "total_spans",
    "error_trace_count",
    "otel_error_span_count",
    "original_error_span_count",
    "total_input_tokens",
    "total_output_tokens",
    "outcomes",
    "exception_types",
)


def test_each_hard_failure_mode_is_one_error_text_with_its_exact_counts(demo: Demo, run: str) -> None:
    truth, said = truth_of(demo, run), demo.desk.data("get_dataset_overview", dataset=run)
    hard = [mode for mode in truth.failure_modes.values() if mode.status == "ERROR" and mode.spans]
    found = [group for group in said["error_taxonomy"] if group["rule"] == "status_error"]
    assert sorted((group["error_span_count"], group["trace_count"]) for group in found) == sorted(
        (mode.spans, mode.traces) for mode in hard
    )
    for group in found:
        (mode,) = [mode for mode in hard if set(group["example_trace_ids"]) <= set(mode.trace_ids)]
        assert (group["span_name"], group["error_span_count"]) == (mode.span_name, mode.spans)
        spans = demo.desk.data(
            "view_spans", dataset=run, trace_id=group["example_trace_ids"][0], span_ids=[group["example_span_id"]]
        )
        assert spans["spans"][0]["status"]["code"] == "STATUS_CODE_ERROR"


def test_the_overview_text_answers_the_first_questions_on_one_page(demo: Demo, run: str) -> None:
    truth, text = truth_of(demo, run), demo.desk.text("get_dataset_overview", dataset=run)
    assert len(text) <= OVERVIEW_CHARS
    assert f"{truth.original_error_spans} original failures + {truth.propagated_error_spans} propagated" in text
    for name, tool in truth.tools.items():
        assert re.search(rf"^  {name} {tool.calls} / {tool.failures}\b", text, re.MULTILINE)
    for name, count in truth.exception_types.items():
        assert f"{name} {count}" in text
    failures = text[text.index("failure modes (") : text.index("ingest:")].splitlines()[1:]
    modes = [mode for mode in truth.failure_modes.values() if mode.spans]
    assert len(failures) == 5 + 1
    for line in failures[:-1]:
        assert re.search(r"/ trace [0-9a-f]{32} span [0-9a-f]{24}$", line)
    assert f"of {len(modes) - 5} further mode" in failures[-1]


def test_counts_by_group_add_up_to_the_truth(demo: Demo, run: str) -> None:
    truth = truth_of(demo, run)

    def count(**arguments: Any) -> dict[Any, int]:
        groups = demo.desk.data("count_traces", dataset=run, **arguments)["groups"]
        return {group["value"]: group["trace_count"] for group in groups}

    assert count(group_by="outcome") == {"pass": truth.pass_traces, "fail": truth.fail_traces}
    assert count(group_by="has_errors") == {"true": truth.error_traces, "false": truth.traces - truth.error_traces}
    decoy = count(group_by="outcome", filters={"tool_names": [truth.decoy.tool_name]})
    assert decoy == {"pass": truth.decoy.pass_traces, "fail": truth.decoy.fail_traces}


@pytest.mark.parametrize(
    "key", ["limit_rejected", "auth_expired", "fetch_timeout", "wrapped_error", "refund_soft_error", "refusal"]
)
def test_a_quote_used_as_pattern_finds_exactly_the_traces_of_its_failure_mode(demo: Demo, run: str, key: str) -> None:
    mode = truth_of(demo, run).failure_modes[key]
    text = {
        "limit_rejected": r"limit must be <= 100, got",
        "auth_expired": r"401 Unauthorized: token expired at",
        "fetch_timeout": r"timed out after \d+ ms",
        "wrapped_error": r"Error running tool \(non-fatal\)",
        "refund_soft_error": r'"isError":\s*true',
        "refusal": r"I'm sorry, but I can't help with that request\.",
    }[key]
    page = demo.desk.data("query_traces", dataset=run, filters={"regex_pattern": text}, limit=500)
    assert {trace["trace_id"] for trace in page["traces"]} == set(mode.trace_ids)
    assert page["total"] == mode.traces


def test_the_quoted_evidence_is_found_in_its_span_by_search_and_shown_by_view(demo: Demo, run: str) -> None:
    for mode in truth_of(demo, run).failure_modes.values():
        if mode.quote is None or not mode.quote.text.strip():
            continue
        found = demo.desk.data(
            "search_trace", dataset=run, trace_id=mode.quote.trace_id, pattern=mode.quote.text, literal=True
        )
        assert mode.quote.span_id in {match["span_id"] for match in found["matches"]}, mode.key
        where = mode.quote.where
        read = demo.desk.data(
            "view_spans", dataset=run, trace_id=mode.quote.trace_id, span_ids=[mode.quote.span_id], attribute=where
        )
        assert read["attributes"][0]["total_chars"] > 0


def test_query_lists_every_trace_once_with_the_facts_of_its_spans(demo: Demo, run: str) -> None:
    truth, listed, cursor = truth_of(demo, run), list[dict[str, Any]](), ""
    while True:
        page = demo.desk.data("query_traces", dataset=run, limit=37, cursor=cursor, sort_by="-tokens")
        listed += page["traces"]
        if not (cursor := page["next_cursor"] or ""):
            break
    assert len({trace["trace_id"] for trace in listed}) == len(listed) == truth.traces
    assert sum(trace["span_count"] for trace in listed) == truth.spans
    assert sum(trace["otel_error_span_count"] for trace in listed) == truth.error_spans
    tokens = [trace["total_input_tokens"] + trace["total_output_tokens"] for trace in listed]
    assert tokens == sorted(tokens, reverse=True)
    assert sum(tokens) == truth.input_tokens + truth.output_tokens
