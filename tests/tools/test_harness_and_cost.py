"""list_harness_versions and analyze_cost say of the sample dataset what its generator knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.cli import run
from halo_mcp.demo.texts import ORDER_RULE, PROMPTS
from halo_mcp.errors import BadArgument
from halo_mcp.tools.budget import COST_CHARS, VERSIONS_CHARS
from tests.builders import llm, span, write_lines
from tests.tools.conftest import Demo
from tests.tools.desk import calls_in, desk_over


def researchers(demo: Demo, dataset: str) -> list[dict[str, Any]]:
    listed = demo.desk.data("list_harness_versions", dataset=dataset)["versions"]
    return [version for version in listed if version["agent_name"] == "researcher"]


def test_one_run_is_one_harness_with_a_version_per_agent(demo: Demo) -> None:
    text = demo.desk.text("list_harness_versions", dataset="before")
    data = demo.desk.data("list_harness_versions", dataset="before")
    assert {version["agent_name"]: version["prompt_chars"] for version in data["versions"]} == {
        "coordinator": len(PROMPTS["coordinator"]),
        "researcher": len(f"{PROMPTS['researcher']} {ORDER_RULE['before']}"),
        "billing": len(PROMPTS["billing"]),
    }
    assert data["mixed"] == {}
    assert "One harness" in text
    assert len(text) <= VERSIONS_CHARS


def test_two_runs_together_are_mixed_in_the_one_agent_that_changed(demo: Demo) -> None:
    data = demo.desk.data("list_harness_versions", dataset="both")
    truth = demo.truth
    assert list(data["mixed"]) == ["researcher"]
    assert {v["run_ids"][0]: (v["trace_count"], v["fail_count"]) for v in researchers(demo, "both")} == {
        "before": (truth.before.traces, truth.before.fail_traces),
        "after": (truth.after.traces, truth.after.fail_traces),
    }
    assert {v["version_id"] for v in researchers(demo, "both")} == {
        v["version_id"] for run_id in ("before", "after") for v in researchers(demo, run_id)
    }


def test_the_suggested_difference_shows_the_changed_prompt_line_and_release_and_nothing_else(demo: Demo) -> None:
    (suggested,) = calls_in(demo.desk.text("list_harness_versions", dataset="both"))
    assert suggested.arguments.pop("dataset") == "both"
    answer = demo.desk.ask(suggested.tool, dataset="both", **suggested.arguments)
    changed = [line for line in answer.data["prompt_diff"] if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == [f"-{ORDER_RULE['before']}", f"+{ORDER_RULE['after']}"]
    assert answer.data["changed"] == ["service.version 1.4.0 -> 1.5.0"]
    assert answer.data["tools"] == []
    assert all(line in answer.text for line in (*changed, "service.version 1.4.0 -> 1.5.0", "tools: no difference"))


@pytest.mark.parametrize(
    "diff, problem",
    [(["researcher@00000000", "x"], "is not among the versions"), (["researcher@00000000"], "takes two version ids")],
)
def test_a_difference_of_unknown_versions_names_the_known_ones(demo: Demo, diff: list[str], problem: str) -> None:
    with pytest.raises(BadArgument, match=problem):
        demo.desk.text("list_harness_versions", diff=diff)


def test_versions_of_two_datasets_are_compared_by_their_ids(demo: Demo) -> None:
    (old,), (new,) = ([v["version_id"] for v in researchers(demo, run_id)] for run_id in ("before", "after"))
    answer = demo.desk.ask("list_harness_versions", dataset="before", diff=[old, new], other_dataset="after")
    assert answer.data["changed"] == ["service.version 1.4.0 -> 1.5.0"]
    (following,) = calls_in(answer.text)
    demo.desk.follow(following)
    with pytest.raises(BadArgument, match="is not among the versions"):
        demo.desk.ask("list_harness_versions", dataset="before", diff=[new, old], other_dataset="after")
    with pytest.raises(BadArgument, match="goes with diff"):
        demo.desk.ask("list_harness_versions", dataset="before", other_dataset="after")


def test_tools_that_are_offered_and_never_called_are_named_with_their_agents(tmp_path: Path) -> None:
    def thinks(trace: str, name: str, *tools: str) -> dict[str, Any]:
        definitions = json.dumps([{"name": tool} for tool in tools])
        return llm(name, trace=trace, attributes={"agent.name": name, "llm.tools": definitions})

    def calls_tool(trace: str, name: str) -> dict[str, Any]:
        return span(name, trace=trace, kind="TOOL", attributes={"tool.name": name})

    records = [thinks("t1", "a", "find", "read"), thinks("t1", "b", "read", "write"), calls_tool("t1", "find")]
    records += [thinks("t2", "a", "find", "read"), calls_tool("t2", "write")]
    desk = desk_over(tmp_path, write_lines(tmp_path / "t.jsonl", *records))
    said = desk.data("analyze_tool_use")["unused_tools"]
    assert said == {"tools": (("read", ("a", "b")),), "offered": 3, "traces_read": 2}
    text = desk.text("analyze_tool_use")
    assert (
        "offered but never called (no tool span): 1 (3 tools in the definitions of all traces): read (by a, b)" in text
    )
    assert [
        tool for tool, _ in desk.data("analyze_tool_use", filters={"trace_ids": ["t2"]})["unused_tools"]["tools"]
    ] == ["find", "read"]
    bare = desk_over(tmp_path / "bare", write_lines(tmp_path / "bare.jsonl", calls_tool("t1", "find")))
    assert bare.data("analyze_tool_use")["unused_tools"] is None
    assert "offered" not in bare.text("analyze_tool_use")


def test_changed_tools_and_parameters_are_shown(tmp_path: Path) -> None:
    def call(trace: str, temperature: float, *tools: dict[str, str]) -> dict[str, Any]:
        attributes = {
            "agent.name": "helper",
            "llm.tools": json.dumps(tools),
            "llm.invocation_parameters": json.dumps({"temperature": temperature}),
        }
        return llm(trace=trace, attributes=attributes)

    find, seek = {"name": "find", "description": "old"}, {"name": "find", "description": "new"}
    file = write_lines(tmp_path / "traces.jsonl", call("t1", 0.2, find, {"name": "gone"}), call("t2", 0.7, seek))
    desk = desk_over(tmp_path, file)
    ids = sorted(v["version_id"] for v in desk.data("list_harness_versions", filters={"trace_ids": ["t1"]})["versions"])
    ids += [v["version_id"] for v in desk.data("list_harness_versions", filters={"trace_ids": ["t2"]})["versions"]]
    text = desk.text("list_harness_versions", diff=ids)
    assert "temperature 0.2 -> 0.7" in text
    assert "removed: gone" in text
    assert '- {"description":"old","name":"find"}' in text
    assert '+ {"description":"new","name":"find"}' in text
    assert "system prompt: none recorded" in text


def test_a_prompt_with_a_value_of_each_trace_is_called_so(tmp_path: Path) -> None:
    names = [f"{first}{last}" for first in ("Ann", "Bob", "Cy", "Di") for last in "abcdef"]
    records = [llm(trace=name, attributes={"agent.name": "a", "system_prompt": f"Help {name}."}) for name in names]
    text = desk_over(tmp_path, write_lines(tmp_path / "t.jsonl", *records)).text("list_harness_versions")
    assert "a has 24 versions in 24 traces: its prompt holds values of the single trace" in text
    assert len(text) <= VERSIONS_CHARS


@pytest.mark.parametrize("group_by", ["model", "agent", "turn", "tool", "run", "outcome"])
def test_the_cost_of_the_sample_adds_up_to_the_truth(demo: Demo, group_by: str) -> None:
    truth = demo.truth.before
    answer = demo.desk.ask("analyze_cost", dataset="before", group_by=group_by)
    data = answer.data
    assert (data["total_input_tokens"], data["total_output_tokens"]) == (truth.input_tokens, truth.output_tokens)
    assert (data["trace_count"], data["llm_call_count"]) == (truth.traces, truth.llm_spans)
    assert data["failing"]["traces"] == truth.fail_traces
    assert data["failing"]["with_failure"] == truth.fail_traces - truth.silent_fail_traces
    if group_by == "tool":
        assert {tool["name"]: tool["calls"] for tool in data["groups"]} == {
            name: tool.calls for name, tool in truth.tools.items()
        }
    else:
        assert sum(group["input_tokens"] for group in data["groups"]) == truth.input_tokens
        assert sum(group["calls"] for group in data["groups"]) == truth.llm_spans
    assert len(answer.text) <= COST_CHARS
    assert "USD" not in answer.text
    (following,) = calls_in(answer.text)
    assert following.arguments["trace_id"] == data["expensive_traces"][0]["trace_id"]


def test_the_terminal_lists_versions_and_prices_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALO_MCP_INDEX_DIR", str(tmp_path / "index"))
    file = write_lines(
        tmp_path / "traces.jsonl",
        llm(trace="t1", tokens=(1_000_000, 0), attributes={"llm.model_name": "m-1", "system_prompt": "old"}),
        llm(trace="t2", tokens=(1_000_000, 0), attributes={"llm.model_name": "m-1", "system_prompt": "new"}),
    )
    prices = tmp_path / "prices.json"
    prices.write_text('{"m": {"input": 2, "output": 8}}')
    assert run(["versions", str(file), "--json"]) == 0
    ids = [version["version_id"] for version in json.loads(capsys.readouterr().out)["versions"]]
    assert run(["versions", str(file), "--diff", ",".join(ids)]) == 0
    assert {line[1:] for line in capsys.readouterr().out.splitlines() if line[0] in "+-"} >= {"old", "new"}
    assert run(["cost", str(file), "--group-by", "model", "--prices", str(prices)]) == 0
    assert "USD 4.00" in capsys.readouterr().out
