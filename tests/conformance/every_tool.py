"""One call of every tool over the traces of ``tests.server.asking``, and words of its answer."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tests.server.asking import QUOTE


class Example(NamedTuple):
    """Arguments, and what stands in the answer."""

    arguments: dict[str, Any]
    says: str
    fails: bool = False


EXAMPLES: Final[dict[str, Example]] = {
    "get_dataset_overview": Example({}, "all traces = 3 traces, 9 spans"),
    "list_failure_modes": Example({}, "2 failing spans in 2 (67%) of 3 traces"),
    "analyze_tool_use": Example({}, "tool step: 3 calls in 3 traces"),
    "query_traces": Example({"filters": {"has_errors": True}, "limit": 1}, "1 of 2 matching traces shown"),
    "count_traces": Example({"group_by": "outcome"}, "fail | 2 (67%)"),
    "view_trace": Example({"trace_id": "t1"}, "trace t1 · 3 spans"),
    "view_spans": Example({"trace_id": "t1", "span_ids": ["s2"]}, f"ERROR {QUOTE} · parent s1"),
    "search_trace": Example({"trace_id": "t1", "pattern": "bill[a-z]+"}, "1 match in 1 span; 3 of 3 spans searched"),
    "contrast_traces": Example({}, "2 failing against 1 passing traces"),
    "compare_datasets": Example(
        {"filters_before": {"outcome": ["fail"]}, "filters_after": {"outcome": ["pass"]}}, "verdict: underpowered"
    ),
    "query_sql": Example({"sql": "SELECT count(*) AS n FROM spans"}, "n\n9\n1 row"),
    "run_code": Example({"code": "print(6 * 7)"}, "42\n"),
    "search_dataset": Example({"pattern": "billing"}, "2 spans in 2 traces match"),
    "analyze_cost": Example({}, "3 LLM calls: 30 tokens in, 15 out"),
    "list_harness_versions": Example({}, "1 agent version in 3 traces"),
    "synthesize_traces": Example({"trace_ids": ["t1"]}, "1 trace; digests for you to judge"),
    "verify_evidence": Example(
        {"claims": [{"claim": "slow", "evidence": [{"trace_id": "t1", "span_id": "s2", "quote": QUOTE}]}]}, "1 citation"
    ),
    "list_datasets": Example({}, "3 traces, 9 spans"),
    "ask": Example({"question": "What fails?"}, "status no_model"),
    "ask_result": Example({"job_id": "none"}, "none", fails=True),
}
