"""What a client sees before it calls anything, and that every tool answers in both eras and both forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from halo_mcp.engine.settings import LLMSettings
from halo_mcp.server import INSTRUCTIONS, TOOL_NAMES, build_tools
from halo_mcp.tools.publish import READ_ONLY, SENDING
from tests.builders import agent, llm, span, write_lines
from tests.tools.desk import ERAS, Era, serving

SELF_EXPLANATORY: Final = frozenset(
    ("limit", "trace_ids", "question", "job_id", "wait_s", "cancel", "max_turns", "max_seconds", "max_usd")
)
"""Arguments whose names say it all."""
RECORDED: Final = Path(__file__).with_name("tools.json")
"""The whole of tools/list. To record a wanted change: `python -m tests.server.record`, and read the difference."""


def dataset(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "traces.jsonl",
        agent("root", name="planner", ms=500),
        llm("think", "root", tokens=(10, 2), start_ms=1, attributes={"llm.model_name": "m-1"}),
        span("act", "root", kind="TOOL", start_ms=5, error="no such city", attributes={"tool.name": "geo"}),
        agent("other", name="planner", trace="t2"),
    )


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


async def listed(tmp_path: Path, era: Era) -> list[dict[str, Any]]:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}, era=era) as caller:
        result = await caller.client.list_tools()
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in result.tools]


async def test_the_tool_list_is_the_recorded_one_in_both_eras(tmp_path: Path, era: Era) -> None:
    tools = await listed(tmp_path, era)
    assert tools == json.loads(RECORDED.read_text()), (
        f"to record it, write this to {RECORDED}:\n{json.dumps(tools, indent=1)}"
    )


async def test_the_surface_stays_small_and_its_schemas_stay_plain(tmp_path: Path) -> None:
    tools = await listed(tmp_path, "auto")
    assert len(tools) <= 20
    assert len(json.dumps(tools, separators=(",", ":"), ensure_ascii=False)) < 24_000
    assert len(INSTRUCTIONS) < 1_500
    for tool in tools:
        schema = tool["inputSchema"]
        assert len(tool["description"]) < 1_500, tool["name"]
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert not schema.keys() & {"anyOf", "oneOf", "allOf", "$ref"}
        assert "outputSchema" not in tool
        assert tool["annotations"] == {"readOnlyHint": True, "openWorldHint": False}
        assert not {"ctx", "work", "call", "datasets"} & schema["properties"].keys()
        if tool["name"] not in ("list_datasets", "ask_result"):
            assert "dataset" in schema["properties"]
        assert schema["properties"]["response_format"]["enum"] == ["text", "json"]
        assert all(
            value.get("description") or value.get("enum") or key in SELF_EXPLANATORY or "maximum" in value
            for key, value in schema["properties"].items()
        )


async def test_the_tools_are_listed_in_the_order_of_their_names_in_the_program(tmp_path: Path) -> None:
    assert [tool["name"] for tool in await listed(tmp_path, "auto")] == [*TOOL_NAMES]


async def test_hints_for_the_client_stand_in_meta(tmp_path: Path) -> None:
    tools = {tool["name"]: tool.get("_meta", {}) for tool in await listed(tmp_path, "auto")}
    assert [name for name, meta in tools.items() if meta.get("anthropic/alwaysLoad")] == ["get_dataset_overview"]
    assert {name for name, meta in tools.items() if meta.get("anthropic/maxResultSizeChars", 0) > 150_000} == {
        "view_trace",
        "view_spans",
    }
    assert all(meta.get("anthropic/searchHint") or meta.get("anthropic/alwaysLoad") for meta in tools.values())


async def test_a_client_reads_the_instructions_the_name_and_the_version(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}, era=era) as caller:
        assert caller.client.instructions == INSTRUCTIONS
        info = caller.client.server_info
        assert info is not None
        assert (info.name, info.title) == ("halo", "HALO trace analysis")
        assert info.version


CALLS: Final[dict[str, dict[str, Any]]] = {
    "get_dataset_overview": {},
    "query_traces": {"limit": 1},
    "count_traces": {"group_by": "tool_name"},
    "view_trace": {"trace_id": "t1"},
    "view_spans": {"trace_id": "t1", "span_ids": ["act"]},
    "search_trace": {"trace_id": "t1", "pattern": "city"},
    "contrast_traces": {"group_a": {"has_errors": True}},
    "compare_datasets": {"filters_before": {"trace_ids": ["t1"]}, "filters_after": {"trace_ids": ["t2"]}},
    "query_sql": {"sql": "SELECT span_id, tool_name FROM spans ORDER BY 1"},
    "run_code": {"code": "len(spans())"},
    "search_dataset": {"pattern": "city"},
    "list_failure_modes": {},
    "analyze_tool_use": {},
    "list_harness_versions": {},
    "verify_evidence": {"claims": [{"claim": "x", "evidence": [{"trace_id": "t1", "quote": "no such city"}]}]},
    "analyze_cost": {},
    "list_datasets": {},
    "synthesize_traces": {},
    "ask": {"question": "What goes wrong?"},
}
"""Every tool but ask_result, which is about a call of ask that has not ended yet; it has tests of its own."""

HALO_FIELDS: Final[dict[str, set[str]]] = {
    "get_dataset_overview": {
        *("total_traces", "total_spans", "earliest_start_time", "latest_end_time", "service_names", "model_names"),
        *("agent_names", "agent_ids", "error_trace_count", "missing_parent_count", "missing_agent_identity_count"),
        *("project_id_mismatch_count", "otel_error_span_count", "tool_error_span_count", "error_taxonomy"),
        *("total_input_tokens", "total_output_tokens", "raw_jsonl_bytes", "sample_trace_ids"),
    },
    "query_traces": {"traces", "total", "next_cursor"},
    "count_traces": {"total"},
    "view_trace": {"trace_id", "spans", "oversized", "next_cursor"},
    "view_spans": {"trace_id", "spans", "oversized"},
    "search_trace": {"trace_id", "match_count", "returned_match_count", "has_more", "matches"},
    "contrast_traces": {"features", "no_difference"},
    "compare_datasets": {"verdict", "failure_modes"},
    "query_sql": {"columns", "rows", "has_more"},
    "run_code": {"exit_code", "stdout", "stderr", "timed_out"},
    "search_dataset": {"returned_match_count", "has_more", "matches", "next_cursor"},
    "list_failure_modes": {"failure_modes", "failure_mode_count", "next_cursor"},
    "analyze_tool_use": {"tools", "transitions", "total_traces"},
    "list_harness_versions": {"versions"},
    "verify_evidence": {"claims", "citations", "unknown_ids"},
    "analyze_cost": {"groups"},
    "list_datasets": {"datasets"},
    "synthesize_traces": set(),
    "ask": {"status", "overview", "failure_modes", "plan"},
}
"""What a caller of HALO's tools finds under the same names."""

NESTED: Final[dict[str, tuple[str, set[str]]]] = {
    "get_dataset_overview": (
        "error_taxonomy",
        {"span_name", "status_message", "error_span_count", "trace_count", "example_trace_ids"},
    ),
    "query_traces": (
        "traces",
        {
            *("trace_id", "span_count", "start_time", "end_time", "has_errors", "service_names", "model_names"),
            *("total_input_tokens", "total_output_tokens", "agent_names", "agent_ids", "missing_parent_count"),
            *("missing_agent_identity_count", "project_id_mismatch_count", "otel_error_span_count"),
            *("tool_error_span_count", "raw_jsonl_bytes"),
        },
    ),
    "view_trace": (
        "spans",
        {
            *("trace_id", "span_id", "parent_span_id", "name", "kind", "start_time", "end_time", "status"),
            *("resource", "scope", "attributes"),
        },
    ),
    "search_trace": (
        "matches",
        {
            *("trace_id", "span_id", "span_index", "span_name", "kind", "status_code", "parent_span_id"),
            *("raw_jsonl_bytes", "match_text", "matched_context", "match_start_char", "match_end_char"),
        },
    ),
}


def test_every_tool_is_called_here() -> None:
    assert sorted([*CALLS, "ask_result"]) == sorted(TOOL_NAMES)


async def test_every_tool_answers_in_text_and_in_json_with_halos_names(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}, era=era) as caller:
        for tool, arguments in CALLS.items():
            text = await caller.text(tool, **arguments)
            assert text.strip()
            data = await caller.json(tool, **arguments)
            assert data.keys() >= HALO_FIELDS[tool], tool
            if tool in NESTED:
                key, fields = NESTED[tool]
                assert data[key][0].keys() >= fields, tool


async def test_the_json_answer_is_one_compact_text_block_beside_the_structure(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}, era=era) as caller:
        result = await caller.client.call_tool(
            "count_traces", {"filters": {"has_errors": True}, "response_format": "json"}
        )
    assert [block.model_dump(exclude_none=True)["text"] for block in result.content] == ['{"total":1}']
    assert result.structured_content == {"total": 1}


async def test_an_outline_in_json_is_halos_oversized_summary(tmp_path: Path) -> None:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}) as caller:
        data = await caller.json("view_trace", trace_id="t1", detail="outline")
    assert data["oversized"].keys() == {
        *("trace_id", "span_count", "truncated_response_bytes", "response_bytes_budget", "span_response_bytes_min"),
        *(
            "span_response_bytes_median",
            "span_response_bytes_max",
            "top_span_names",
            "error_span_count",
            "recommendation",
        ),
    }
    assert [line["span_id"] for line in data["outline"]] == ["root", "think", "act"]


async def test_arguments_may_come_as_the_json_text_that_some_models_write(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}, era=era) as caller:
        assert (await caller.json("count_traces", filters='{"has_errors": true}'))["total"] == 1
        spans = await caller.json("view_spans", trace_id="t1", span_ids='["act"]', max_chars="2000")
        assert [record["span_id"] for record in spans["spans"]] == ["act"]
        assert (await caller.json("search_trace", trace_id="t1", pattern='{"a": 1}'))["match_count"] == 0


async def test_calls_at_the_same_time_answer_as_calls_one_by_one(tmp_path: Path) -> None:
    import anyio

    answers: list[str] = []
    async with serving(tmp_path, {"data": [dataset(tmp_path)]}) as caller:

        async def ask() -> None:
            answers.append(await caller.text("get_dataset_overview"))

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(ask)
    assert len(answers) == 12
    assert len(set(answers)) == 1


async def test_values_that_json_writers_dislike_arrive_as_text(tmp_path: Path, era: Era) -> None:
    nested = json.loads("[" * 180 + "]" * 180)
    line = json.dumps(
        span(attributes={"big": 10**30, "nested": nested, "inside": {"big": [10**25]}, "half": "\ud83d!"})
    )
    path = write_lines(tmp_path / "odd.jsonl", line.encode())
    async with serving(tmp_path, {"data": [path]}, era=era) as caller:
        attributes = (await caller.json("view_trace", trace_id="t1"))["spans"][0]["attributes"]
        text = await caller.text("view_spans", trace_id="t1", span_ids=["s1"])
    assert attributes["big"] == str(10**30)
    assert str(10**25) in str(attributes["inside"])
    assert attributes["half"] == "\ufffd!"
    assert f"big={10**30}" in text


def test_tools_that_use_a_model_say_which_one_or_that_there_is_none() -> None:
    named = LLMSettings(model="some-model", api_key="sk-x")
    on = {tool.name: tool for tool in build_tools(named)}
    off = {tool.name: tool for tool in build_tools(LLMSettings(api_key="sk-x"))}
    for name in ("ask", "synthesize_traces"):
        assert "some-model" in (on[name].description or "")
        assert "no model is set up here" in (off[name].description or "").lower()
        assert (on[name].annotations, off[name].annotations) == (SENDING, READ_ONLY)
