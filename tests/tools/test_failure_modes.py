"""list_failure_modes: the known truth of two datasets, its rules switched, its pages, and what it says of little."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from halo_mcp.config import Settings
from halo_mcp.datasets import Datasets
from halo_mcp.demo.truth import FailureModeTruth, RunTruth
from halo_mcp.errors import BadArgument
from halo_mcp.index.failure_rules import DEFAULT_RULES, LOOP_RULE, RULE_NAMES, STATUS_RULE
from tests.builders import Record, append_lines, span, write_lines
from tests.otherworld import WorldTruth, write_world
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, calls_in, desk_over

Mode = dict[str, Any]


def modes_of(desk: Desk, dataset: str = "", **arguments: Any) -> list[Mode]:
    """All pages of the answer; no mode comes twice."""
    listed, cursor = list[Mode](), ""
    while True:
        said = desk.data("list_failure_modes", dataset=dataset, **{"limit": 100} | arguments, cursor=cursor)
        listed += said["failure_modes"]
        if not (cursor := said["next_cursor"] or ""):
            assert len({mode["id"] for mode in listed}) == len(listed) == said["failure_mode_count"]
            assert sum(mode["error_span_count"] for mode in listed) == said["failing_span_count"]
            return listed


def traces_with(desk: Desk, mode: Mode, dataset: str = "") -> frozenset[str]:
    page = desk.data("query_traces", dataset=dataset, filters={"failure_mode": [mode["id"]]}, limit=500)
    assert page["next_cursor"] is None
    return frozenset(trace["trace_id"] for trace in page["traces"])


# --- the sample dataset ------------------------------------------------------------------------------------------
@pytest.fixture(params=["before", "after"])
def run(request: pytest.FixtureRequest) -> str:
    return str(request.param)


COUNTS = ("error_span_count", "trace_count", "failing_trace_count", "passing_trace_count")


def happened(demo: Demo, run: str) -> dict[str, FailureModeTruth]:
    truth: RunTruth = demo.truth.before if run == "before" else demo.truth.after
    return {key: mode for key, mode in truth.failure_modes.items() if mode.spans}


def test_every_mode_of_the_sample_dataset_is_found_with_its_exact_counts_and_nothing_else(demo: Demo, run: str) -> None:
    truth = happened(demo, run)
    assert len(truth) == {"before": 8, "after": 7}[run]
    found = {traces_with(demo.desk, mode, run): mode for mode in modes_of(demo.desk, run)}
    assert {
        traces: (
            mode["error_span_count"],
            mode["trace_count"],
            mode["failing_trace_count"],
            mode["passing_trace_count"],
        )
        for traces, mode in found.items()
    } == {
        frozenset(mode.trace_ids): (mode.spans, mode.traces, mode.failed_traces, mode.traces - mode.failed_traces)
        for mode in truth.values()
    }
    for mode in truth.values():
        said = found[frozenset(mode.trace_ids)]
        assert (said["rule"] == STATUS_RULE) == (mode.status == "ERROR"), mode.key
        assert (said["tool_name"] or "") == mode.tool_name


# --- the second dataset ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, WorldTruth]:
    directory = tmp_path_factory.mktemp("world")
    truth = write_world(directory / "world.jsonl")
    return desk_over(directory, directory / "world.jsonl"), truth


def test_every_mode_of_the_second_dataset_is_found_with_its_exact_counts_and_nothing_else(
    world: tuple[Desk, WorldTruth],
) -> None:
    desk, truth = world
    assert len(truth.modes) == 17
    found = Counter(
        (traces_with(desk, mode), mode["error_span_count"], mode["failing_trace_count"], mode["rule"] == STATUS_RULE)
        for mode in modes_of(desk)
    )
    assert found == Counter(
        (frozenset(mode.trace_ids), mode.spans, mode.failed_traces, mode.hard) for mode in truth.modes.values()
    )


def test_what_only_looks_like_a_failure_in_the_second_dataset_is_of_no_mode(world: tuple[Desk, WorldTruth]) -> None:
    desk, truth = world
    assert truth.false_alarms
    examples = {(mode["example_trace_id"], mode["example_span_id"]) for mode in modes_of(desk)}
    for quotes in truth.false_alarms.values():
        assert not examples & {(quote.trace_id, quote.span_id) for quote in quotes}


def test_what_fails_most_leads(demo: Demo, world: tuple[Desk, WorldTruth]) -> None:
    desk, truth = world
    assert traces_with(desk, modes_of(desk)[0]) == set(truth.modes[truth.root_cause].trace_ids)
    expected = demo.truth.before.failure_modes["limit_rejected"]
    assert traces_with(demo.desk, modes_of(demo.desk, "before")[0], "before") == set(expected.trace_ids)


# --- quotes ------------------------------------------------------------------------------------------------------
def assert_quotes_stand_verbatim(desk: Desk, dataset: str = "") -> None:
    for mode in modes_of(desk, dataset):
        if mode["rule"] == "empty_output":
            continue
        quote = mode["quote"]
        assert quote is not None, mode
        where = {"trace_id": mode["example_trace_id"], "span_ids": [mode["example_span_id"]]}
        attribute = quote["path"].partition(">")[0].removeprefix("attributes.")
        if quote["path"].startswith("attributes."):
            text = desk.data("view_spans", dataset=dataset, **where, attribute=attribute)["attributes"][0]["text"]
        else:
            (shown,) = desk.data("view_spans", dataset=dataset, **where)["spans"]
            text = str(shown)
        found = desk.data("search_trace", dataset=dataset, **where, pattern=quote["text"], literal=True)
        assert found["matches"], mode
        assert quote["text"] in text or ">" in quote["path"], (mode, text)


def test_each_quote_of_the_sample_dataset_stands_in_the_named_attribute_of_the_named_span(demo: Demo, run: str) -> None:
    assert_quotes_stand_verbatim(demo.desk, run)


def test_each_quote_of_the_second_dataset_stands_in_the_named_attribute_of_the_named_span(
    world: tuple[Desk, WorldTruth],
) -> None:
    assert_quotes_stand_verbatim(world[0])


# --- rules switched --------------------------------------------------------------------------------------------------
def tool_span(span_id: str, output: str, *, trace: str = "t1", tool: str = "search", **more: Any) -> Record:
    attributes = {"tool.name": tool, "output.value": output} | more.pop("attributes", {})
    return span(span_id, trace=trace, kind="TOOL", attributes=attributes, **more)


def small(tmp_path: Path) -> Path:
    """One hard error, two soft ones by different rules in three spans, one loop, one trace without any."""
    root = {"task.outcome": "fail"}
    return write_lines(
        tmp_path / "small.jsonl",
        span("r1", trace="t1", kind="AGENT", attributes=root),
        span(
            "h1", "r1", trace="t1", kind="TOOL", error="401 Unauthorized: token 17", attributes={"tool.name": "login"}
        ),
        tool_span("e1", "Error: order 17 is locked", trace="t1", parent_span_id="r1", start_ms=10),
        span("r2", trace="t2", kind="AGENT", attributes=root, start_ms=60_000),
        tool_span("e2", "Error: order 4 is locked", trace="t2", parent_span_id="r2", start_ms=61_000),
        tool_span(
            "x2", '{"exit_code": 2, "stderr": "no rule to make target"}', trace="t2", tool="shell", start_ms=62_000
        ),
        span("r3", trace="t3", kind="AGENT", attributes={"task.outcome": "pass"}, start_ms=90_000),
        *(
            tool_span(
                f"l{no}", "same page", trace="t3", tool="fetch", attributes={"input.value": "p"}, start_ms=90_001 + no
            )
            for no in range(3)
        ),
    )


def counts(modes: list[Mode]) -> dict[str, int]:
    return {mode["rule"]: mode["error_span_count"] for mode in modes}


def test_only_the_rules_that_are_named_count_beside_hard_errors(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, small(tmp_path))
    assert counts(modes_of(desk)) == {STATUS_RULE: 1, "error_prefix": 2, "exit_code": 1, LOOP_RULE: 3}
    assert counts(modes_of(desk, soft_rules=["exit_code"])) == {STATUS_RULE: 1, "exit_code": 1}
    said = desk.data("list_failure_modes", soft_rules=[LOOP_RULE])
    assert counts(said["failure_modes"]) == {STATUS_RULE: 1, LOOP_RULE: 3}
    assert said["spans_by_rules_left_out"] == {"error_prefix": 2, "exit_code": 1}
    assert "not counted (rules left out): error_prefix 2, exit_code 1" in desk.text(
        "list_failure_modes", soft_rules=[LOOP_RULE]
    )


def test_a_rule_that_does_not_exist_is_refused_with_the_list_of_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(BadArgument) as refused:
        desk_over(tmp_path, small(tmp_path)).text("list_failure_modes", soft_rules=["eror_prefix"])
    assert "'eror_prefix'" in str(refused.value)
    assert all(rule in str(refused.value) for rule in RULE_NAMES)


def desk_counting(tmp_path: Path, path: Path, *rules: str) -> Desk:
    """As the server is with HALO_MCP_SOFT_RULES."""
    desk = desk_over(tmp_path, path)
    desk.datasets = Datasets({"data": [str(path)]}, Settings(index_dir=tmp_path / "index", soft_rules=rules))
    return desk


def test_the_setting_holds_for_every_tool_that_speaks_of_failures(tmp_path: Path) -> None:
    path = small(tmp_path)
    desk = desk_counting(tmp_path, path, "exit_code")
    modes = modes_of(desk)
    assert counts(modes) == {STATUS_RULE: 1, "exit_code": 1}
    assert "error_prefix" not in desk.text("get_dataset_overview")
    (locked,) = (mode for mode in modes_of(desk_over(tmp_path, path)) if mode["rule"] == "error_prefix")
    assert traces_with(desk, locked) == set()
    tools = {tool["name"]: tool["failures"] for tool in desk.data("analyze_tool_use")["tools"]}
    assert tools == {"fetch": 0, "login": 1, "search": 0, "shell": 1}
    sql = "SELECT failure_rule, count(*) AS n FROM spans WHERE failure_rule IS NOT NULL GROUP BY 1 ORDER BY 1"
    assert "error_prefix" not in desk.text("query_sql", sql=sql)


def test_an_argument_can_count_what_the_setting_leaves_out(tmp_path: Path) -> None:
    desk = desk_counting(tmp_path, small(tmp_path), "exit_code")
    assert counts(modes_of(desk, soft_rules=list(DEFAULT_RULES))) == {
        STATUS_RULE: 1,
        "error_prefix": 2,
        "exit_code": 1,
        LOOP_RULE: 3,
    }


# --- filters, shares, times ----------------------------------------------------------------------------------------
def test_a_mode_tells_its_shares_of_failing_and_passing_traces_and_when_it_was_seen(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, small(tmp_path))
    (locked,) = (mode for mode in modes_of(desk) if mode["rule"] == "error_prefix")
    assert (locked["failing_trace_count"], locked["passing_trace_count"]) == (2, 0)
    assert (locked["example_trace_id"], locked["example_span_id"]) == ("t1", "e1")
    assert locked["first_seen"].startswith("2026-03-02T09:00:00")
    assert locked["last_seen"].startswith("2026-03-02T09:01:01")


def test_count_and_query_agree_with_the_trace_count_of_each_mode(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, small(tmp_path))
    for mode in modes_of(desk):
        assert len(traces_with(desk, mode)) == mode["trace_count"]
        said = desk.data("count_traces", filters={"failure_mode": [mode["id"]]})
        assert said["total"] == mode["trace_count"]


def test_filters_choose_the_traces_that_are_counted(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, small(tmp_path))
    assert counts(modes_of(desk, filters={"outcome": ["pass"]})) == {LOOP_RULE: 3}
    said = desk.data("list_failure_modes", filters={"outcome": ["fail"]})
    assert (said["total_traces"], said["traces_with_failures"]) == (2, 2)


def test_without_outcomes_no_shares_are_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", tool_span("a", "Error: boom"))
    text = desk_over(tmp_path, path).text("list_failure_modes")
    assert "of failing traces" not in text
    assert "1 span, 1 trace; seen" in text


def test_where_nothing_failed_the_answer_warns_that_this_is_no_success(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", span("a"))
    text = desk_over(tmp_path, path).text("list_failure_modes")
    assert "0 failure modes = 0 failing spans in 0" in text
    assert "That is not success" in text


def test_filters_that_select_no_trace_give_no_failure_modes(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, small(tmp_path))
    said = desk.data("list_failure_modes", filters={"trace_ids": ["none"]})
    assert (said["total_traces"], said["failure_modes"], said["next_cursor"]) == (0, [], None)


# --- pages -----------------------------------------------------------------------------------------------------------
def test_pages_show_every_mode_once_and_say_what_is_left(tmp_path: Path) -> None:
    words = [f"{one}{two}" for one in "abcdefghijkl" for two in "mnopqrstuv"]
    path = write_lines(
        tmp_path / "data.jsonl",
        *(tool_span("s", f"Error: {word} broke", trace=f"t{no}") for no, word in enumerate(words)),
    )
    desk, seen, text = desk_over(tmp_path, path), list[str](), ""
    answer = desk.ask("list_failure_modes", limit=50)
    while True:
        text = answer.text
        seen += [mode["pattern"] for mode in answer.data["failure_modes"]]
        if not answer.data["next_cursor"]:
            break
        left = len(words) - len(seen)
        assert f"{left} further modes with {left} spans: list_failure_modes(" in text
        (following,) = (call for call in calls_in(text) if call.tool == "list_failure_modes")
        answer = desk.follow(following)
    assert sorted(seen) == sorted(f"Error: {word} broke" for word in words)
    assert "further mode" not in text


# --- growth --------------------------------------------------------------------------------------------------------
def test_a_trace_that_goes_on_is_counted_once(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "data.jsonl", tool_span("a", "Error: boom"), tool_span("b", "Error: boom", trace="t2")
    )
    desk = desk_over(tmp_path, path)
    assert counts(modes_of(desk)) == {"error_prefix": 2}
    append_lines(path, tool_span("c", "Error: boom"), span("top", trace="t3", kind="AGENT", error="gave up"))
    assert counts(modes_of(desk)) == {"error_prefix": 3, STATUS_RULE: 1}


def test_a_later_child_takes_the_place_of_the_parent_that_repeats_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", span("top", kind="AGENT", error="boom"))
    desk = desk_over(tmp_path, path)
    assert [mode["example_span_id"] for mode in modes_of(desk)] == ["top"]
    append_lines(path, span("leaf", "top", kind="TOOL", error="boom"))
    (mode,) = modes_of(desk)
    assert (mode["example_span_id"], mode["error_span_count"]) == ("leaf", 1)


# --- the whole text ------------------------------------------------------------------------------------------------
def test_the_whole_answer(tmp_path: Path) -> None:
    assert desk_over(tmp_path, small(tmp_path)).text("list_failure_modes") == snapshot("""\
dataset data: 4 failure modes = 7 failing spans in 3 (100%) of 3 traces (all scanned; outcome fail 2, pass 1)
spans by rule: repeated_call 3, error_prefix 2, exit_code 1, status_error 1
1. [b0f20ebc0698] tool search · error_prefix · Error: order # is locked
   2 spans, 2 traces; of failing traces 2 (100%), of passing 0; seen 2026-03-02T09:00:00 to 09:01:01Z
   e.g. trace t1 span e1 attributes.output.value: “Error: order 17 is locked”
2. [23fba15dae23] tool login · status_error · # Unauthorized: token #
   1 span, 1 trace; of failing traces 1 (50%), of passing 0; seen 2026-03-02T09:00:00Z
   e.g. trace t1 span h1 status.message: “401 Unauthorized: token 17”
3. [2bd5df0c6292] tool shell · exit_code · exit code #
   1 span, 1 trace; of failing traces 1 (50%), of passing 0; seen 2026-03-02T09:01:02Z
   e.g. trace t2 span x2 attributes.output.value: “{"exit_code": 2, "stderr": "no rule to make target"}”
4. [ae5c6529e789] tool fetch · repeated_call · called 3 or more times in a row with the same arguments
   3 spans, 1 trace; of failing traces 0, of passing 1 (100%); seen 2026-03-02T09:01:30Z
   e.g. trace t3 span l0 attributes.input.value: “p”
Next: view_spans(trace_id="t1", span_ids=["e1"]) or query_traces(filters={"failure_mode":["b0f20ebc0698"]})\
""")
