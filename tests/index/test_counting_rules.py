"""The rules that make counts right or wrong, one small case each."""

from __future__ import annotations

import base64
from pathlib import Path

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import agent, append_lines, by_id, llm, open_store, span, store_of, trace_ids, write_lines

ALL = TraceFilters()


def test_an_agents_repetition_of_its_childrens_tokens_is_not_counted(tmp_path: Path) -> None:
    usage = {"gen_ai.usage.input_tokens": 30, "gen_ai.usage.output_tokens": 3}
    store = store_of(
        tmp_path,
        agent("a", attributes=usage),
        llm("1", "a", tokens=(10, 1)),
        llm("2", "a", tokens=(20, 2)),
    )
    overview = store.overview(ALL, Work())
    assert (overview.input_tokens, overview.output_tokens) == (30, 3)


def test_an_error_on_a_tool_and_all_its_ancestors_is_one_failure(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("a", error="failed"),
        span("c", "a", kind="CHAIN", error="failed"),
        span("t", "c", kind="TOOL", error="limit", attributes={"tool.name": "search"}),
    )
    overview = store.overview(ALL, Work())
    assert (overview.error_spans, overview.original_errors, overview.failures.spans) == (3, 1, 1)
    assert overview.failures.modes[0].tool_name == "search"
    assert {name for name, row in by_id(store.spans("t1")).items() if row.is_original_error} == {"t"}


def test_aliases_of_one_number_on_one_span_are_alternatives(tmp_path: Path) -> None:
    aliases = {"llm.token_count.prompt": 10, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.prompt_tokens": "10"}
    assert store_of(tmp_path, llm(attributes=aliases)).overview(ALL, Work()).input_tokens == 10


def test_breakdowns_and_totals_of_tokens_are_no_addends(tmp_path: Path) -> None:
    usage = {
        "llm.token_count.prompt": 10,
        "llm.token_count.completion": 7,
        "llm.token_count.total": 17,
        "llm.token_count.prompt_details.audio": 2,
        "llm.token_count.completion_details.reasoning": 5,
        "gen_ai.usage.cache_creation.input_tokens": 4,
    }
    overview = store_of(tmp_path, llm(attributes=usage)).overview(ALL, Work())
    assert (overview.input_tokens, overview.output_tokens, overview.cached_input_tokens) == (10, 7, 0)


def test_cached_tokens_stay_apart_from_input_tokens(tmp_path: Path) -> None:
    usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 90}
    overview = store_of(tmp_path, llm(attributes=usage)).overview(ALL, Work())
    assert (overview.input_tokens, overview.cached_input_tokens) == (10, 90)


def test_a_warning_is_no_error(tmp_path: Path) -> None:
    warned = span(
        status={"code": "STATUS_CODE_UNSET", "message": "deprecated parameter"},
        attributes={"langfuse.observation.level": "WARNING", "level": "WARNING"},
    )
    overview = store_of(tmp_path, warned).overview(ALL, Work())
    assert (overview.error_spans, overview.error_traces, overview.failures.spans) == (0, 0, 0)


def test_a_failing_child_under_a_root_that_is_fine_is_an_error_and_no_failed_task(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("r"), span("t", "r", kind="TOOL", error="boom"))
    overview = store.overview(ALL, Work())
    assert (overview.error_traces, overview.original_errors, overview.outcomes["unknown"]) == (1, 1, 1)
    assert trace_ids(store, has_errors=True) == ["t1"]


def test_hex_and_base64_of_one_id_are_one_trace_and_one_parent(tmp_path: Path) -> None:
    trace, parent = bytes(range(16)), bytes(range(8, 16))
    store = store_of(
        tmp_path,
        span(parent.hex().upper(), trace=trace.hex()),
        span("child", base64.b64encode(parent).decode(), trace=base64.b64encode(trace).decode()),
    )
    assert trace_ids(store) == [trace.hex()]
    assert by_id(store.spans(trace.hex()))["child"].has_parent


def test_a_trace_that_is_spread_over_files_with_children_first_is_whole(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "1.jsonl", span("t", "a", kind="TOOL", error="boom"), llm("l", "a", tokens=(1, 1)))
    second = write_lines(tmp_path / "2.jsonl", agent("a", "r", name="planner", error="boom"), span("r"))
    store = open_store(tmp_path, first, second)
    overview = store.overview(ALL, Work())
    assert (overview.total_traces, overview.original_errors, overview.missing_parents) == (1, 1, 0)
    assert by_id(store.spans("t1"))["t"].agent_name == "planner"


def test_of_two_roots_both_count_and_the_first_names_the_trace(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("a", name="one", error="x"), span("b", name="two", error="y"))
    assert (store.trace("t1").root_name, store.trace("t1").original_error_count) == ("one", 2)


def test_a_trace_without_a_root_is_kept_and_its_missing_parents_are_counted(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("a", "gone", name="one"), span("b", "gone", error="x"))
    trace = store.trace("t1")
    assert (trace.span_count, trace.root_name, trace.missing_parent_count, trace.original_error_count) == (
        2,
        "one",
        2,
        1,
    )


def test_a_span_that_is_its_own_ancestor_fails_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("a", "c", error="x"), span("b", "a", error="x"), span("c", "b", error="x"))
    assert (store.trace("t1").span_count, store.trace("t1").original_error_count) == (3, 1)


def test_a_model_call_recorded_by_two_instrumentations_counts_once(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("a"),
        llm("outer", "a", tokens=(10, 1)),
        span("step", "outer", kind="CHAIN"),
        llm("middle", "step", tokens=(10, 1)),
        llm("inner", "middle", tokens=(10, 1)),
    )
    overview = store.overview(ALL, Work())
    assert (overview.input_tokens, overview.output_tokens) == (10, 1)
    assert {name: row.observation_kind for name, row in by_id(store.spans("t1")).items()} == {
        "a": "AGENT",
        "outer": "CHAIN",
        "step": "CHAIN",
        "middle": "CHAIN",
        "inner": "LLM",
    }


def test_calls_of_tools_and_sub_agents_below_a_model_call_count_beside_it(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        llm("outer", tokens=(10, 1)),
        span("tool", "outer", kind="TOOL"),
        llm("in tool", "tool", tokens=(20, 2)),
        agent("agent", "outer"),
        llm("in agent", "agent", tokens=(30, 3)),
        llm("without usage", "outer"),
    )
    assert store.overview(ALL, Work()).input_tokens == 60


def test_a_call_whose_inner_record_comes_later_counts_once_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", llm("outer", tokens=(10, 1)))
    store = open_store(tmp_path, path)
    append_lines(path, llm("inner", "outer", tokens=(10, 1)))
    store.refresh(Work())
    assert store.overview(ALL, Work()).input_tokens == 10
