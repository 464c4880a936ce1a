"""analyze_tool_use: what it says of many traces, of two runs of one task, and of very many tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from halo_mcp.tools.budget import DEFAULT_CHARS
from tests.builders import Record, span, write_lines
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, calls_in, desk_over


def root(trace: str, outcome: str, task: str = "refund") -> Record:
    marks = {"task.outcome": outcome, "task.id": task, "agent.name": "clerk"}
    return span("root", trace=trace, kind="AGENT", attributes=marks)


def call(no: int, tool: str, argument: str, output: str, trace: str, **more: Any) -> Record:
    given = {"tool.name": tool, "input.value": argument, "output.value": output}
    return span(f"c{no}", "root", trace=trace, kind="TOOL", start_ms=10 * no, ms=no, attributes=given, **more)


def two_runs(tmp_path: Path) -> Desk:
    return desk_over(
        tmp_path,
        write_lines(
            tmp_path / "data.jsonl",
            root("bad", "fail"),
            call(1, "search", '{"q": "17"}', "order 17", "bad"),
            call(2, "refund", '{"order": 71}', "Error: no order 71", "bad"),
            call(3, "refund", '{"order": 71}', "Error: no order 71", "bad"),
            root("good", "pass"),
            call(1, "search", '{"q": "17"}', "order 17", "good"),
            call(2, "refund", '{"order": 17}', "done", "good"),
        ),
    )


def test_the_failures_of_each_tool_of_the_sample_dataset_are_the_truth(demo: Demo) -> None:
    said = {tool["name"]: tool for tool in demo.desk.data("analyze_tool_use", dataset="before")["tools"]}
    truth = demo.truth.before
    assert {name: (tool["calls"], tool["hard_failures"]) for name, tool in said.items()} == {
        name: (tool.calls, tool.failures) for name, tool in truth.tools.items()
    }
    assert said["fetch_page"]["loop_calls"] == truth.failure_modes["search_loop"].spans
    decoy = said[truth.decoy.tool_name]
    assert (decoy["fail_traces"], decoy["pass_traces"]) == (truth.decoy.fail_traces, truth.decoy.pass_traces)


def test_the_whole_answer_about_many_traces(tmp_path: Path) -> None:
    assert two_runs(tmp_path).text("analyze_tool_use") == snapshot("""\
dataset data: 2 tools, 5 calls in 2 traces of 2 (all scanned; fail 1, pass 1)
tool refund: 3 calls in 2 traces
  failed 2 (67%); 2 with status OK; the same tool came next after 1, a later call worked after 0
  ms median 2, p95 3, max 3; output characters median 18, p95 18, max 18
  used in 1 (100%) of failing and 1 (100%) of passing traces; fails in 1 (100%) and 0
tool search: 2 calls in 2 traces
  ms median 1, p95 1, max 1; output characters median 8, p95 8, max 8
  used in 1 (100%) of failing and 1 (100%) of passing traces
next call of the same agent: (start) → search 2, refund → (end) 2, search → refund 2, refund → refund 1
1 task with passing and failing runs, e.g. refund
Next: list_failure_modes(filters={"tool_names":["refund"]}) or analyze_tool_use(trace_id="bad")\
""")


def test_the_whole_answer_about_one_trace_beside_the_other_run(tmp_path: Path) -> None:
    assert two_runs(tmp_path).text("analyze_tool_use", trace_id="bad") == snapshot("""\
trace bad · outcome fail · 3 tool calls
  search → refund✗×2
trace good · outcome pass · 2 tool calls
  search → refund
They part at call 2 (the same tool with other arguments); before it 1 equal calls:
  fail: refund {"order": 71}; failed: Error: no order 71 (span c2)
  pass: refund {"order": 17} (span c2)
Next: view_spans(trace_id="bad", span_ids=["c2"], around=2)\
""")


def test_a_named_run_is_compared_instead(tmp_path: Path) -> None:
    said = two_runs(tmp_path).data("analyze_tool_use", trace_id="good", against="good")
    assert (said["against"]["trace_id"], said["first_divergence"]) == ("good", {"same": 2, "kind": ""})


def test_a_trace_without_another_run_is_told_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", root("only", "fail"), call(1, "f", "x", "done", "only"))
    answer = desk_over(tmp_path, path).ask("analyze_tool_use", trace_id="only")
    assert "No run of the same task with the other outcome is known" in answer.text
    assert "against" not in answer.data


def test_a_tool_nobody_called_is_said_to_have_no_calls(tmp_path: Path) -> None:
    answer = two_runs(tmp_path).ask("analyze_tool_use", tool_names=["refund", "refnud"])
    assert "no calls of: refnud. Tools: refund, search" in answer.text
    assert [tool["name"] for tool in answer.data["tools"]] == ["refund"]


@pytest.mark.parametrize("outcome, calls", [("fail", 3), ("pass", 2)])
def test_filters_choose_the_traces(tmp_path: Path, outcome: str, calls: int) -> None:
    said = two_runs(tmp_path).data("analyze_tool_use", filters={"outcome": [outcome]})
    assert sum(tool["calls"] for tool in said["tools"]) == calls


def test_filters_that_select_no_trace_give_no_tools(tmp_path: Path) -> None:
    answer = two_runs(tmp_path).ask("analyze_tool_use", filters={"trace_ids": ["none"]})
    assert (answer.data["total_traces"], answer.data["tools"]) == (0, [])
    assert answer.text.startswith("dataset data: 0 tools, 0 calls in 0 traces of 0")


def test_five_hundred_tools_with_long_names_fit_and_the_rest_is_told(tmp_path: Path) -> None:
    names = [f"tool_{no:03}_{'long_' * 100}" for no in range(500)]
    spans = [call(no, name, "x", "done", "t") for no, name in enumerate(names)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "data.jsonl", root("t", "fail"), *spans))
    answer = desk.ask("analyze_tool_use")
    assert len(answer.text) <= DEFAULT_CHARS
    assert "+488 more tools" in answer.text
    assert (len(answer.data["tools"]), answer.data["tools_left_out"]) == (200, 300)
    assert len(desk.text("analyze_tool_use", trace_id="t")) <= DEFAULT_CHARS
    assert len(desk.text("analyze_tool_use", tool_names=["none"])) <= DEFAULT_CHARS


def test_the_next_calls_of_every_answer_work(tmp_path: Path) -> None:
    desk = two_runs(tmp_path)
    for arguments in ({}, {"trace_id": "bad"}, {"tool_names": ["search"]}):
        for following in calls_in(desk.text("analyze_tool_use", **arguments)):
            assert desk.follow(following).text
