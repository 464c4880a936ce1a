"""A whole investigation over a real server process: a scripted expert asks, the sample dataset's truth judges."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from halo_mcp.demo import RunTruth, write_demo
from halo_mcp.demo.dataset import BEFORE, START_INTERVAL_US
from halo_mcp.demo.plan import make_tasks, plan_run
from halo_mcp.demo.stories import record_trace
from halo_mcp.engine.settings import Wire
from tests.engine.expert import FORGED, Fault, bad_expert, cut, down, ends_early, expert, history, through
from tests.engine.fake_llm import FakeLLM, Json, Script
from tests.engine.harness import KEY, WIRES
from tests.engine.test_subagents import is_child
from tests.investigation import QUESTION, transcript
from tests.server.test_stdio import HALO, ROOT, connected
from tests.test_cli_ask import environment

PATIENCE_S = 120
SEED = 7


@dataclass
class Investigation:
    """What the client was told, and what the model was asked."""

    found: dict[str, Any]
    requests: Sequence[Json]
    paths: Sequence[str]
    progress: Sequence[float]
    runs: Path
    truth: RunTruth

    def calls(self, *, of_children: bool) -> list[str]:
        """The tools that were called by the root agent, or by all its subagents, in their order."""
        last: dict[str, Json] = {}
        for request in self.requests:
            if is_child(request) is of_children:
                last[json.dumps(_opening(request))] = request
        return [done.tool for request in last.values() for done in history(request)]


def _opening(request: Json) -> Any:
    return request["input"][0] if "input" in request else request["messages"][1]


async def investigated(tmp_path: Path, script: Script, wire: Wire = "chat") -> Investigation:
    truth = write_demo(tmp_path / "demo", seed=SEED).before
    received: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        received.append(progress)

    async with FakeLLM(script) as model:
        variables = {**environment(tmp_path, model), "HALO_MCP_LLM_API": wire}
        source = f"before={tmp_path / 'demo' / 'before.jsonl'}"
        parameters = StdioServerParameters(command=sys.executable, args=[*HALO, source], env=variables, cwd=str(ROOT))
        with anyio.fail_after(PATIENCE_S):
            async with Client(parameters) as client:
                arguments = {"question": QUESTION, "response_format": "json"}
                result = await client.call_tool("ask", arguments, progress_callback=note)
        await model.idle()
    assert not result.is_error, result.content
    assert KEY not in result.model_dump_json()
    found: dict[str, Any] = result.structured_content or {}
    return Investigation(found, model.requests, model.paths, received, tmp_path / "index" / "runs", truth)


@cache
def origins() -> dict[tuple[str, str], str]:
    """The failure mode that begins at a span, by (trace id, span id), as the dataset was planned."""
    attempts = plan_run(BEFORE.id, make_tasks(SEED), SEED)
    recorded = [
        item
        for number, attempt in enumerate(attempts)
        for item in record_trace(BEFORE, attempt, number * START_INTERVAL_US, SEED)
    ]
    return {(span["trace_id"], span["span_id"]): mode for span, mode in recorded if mode}


def places(finding: dict[str, Any]) -> list[tuple[str, str]]:
    return [(evidence["trace_id"], evidence["span_id"]) for evidence in finding["evidence"]]


def check_against_truth(seen: Investigation) -> None:
    """Every planned failure mode is found once, with its true counts and a quote of a span where it begins."""
    by_mode = {origins()[places(finding)[0]]: finding for finding in seen.found["findings"]}
    assert len(seen.found["findings"]) == len(by_mode)
    assert by_mode.keys() == seen.truth.failure_modes.keys()
    for key, finding in by_mode.items():
        true = seen.truth.failure_modes[key]
        assert finding["check"] == {"verdict": "holds", "expected": true.traces, "actual": true.traces}
        stated = f": {true.spans} spans in {true.traces} traces, {true.failed_traces} of them failed"
        assert stated in finding["claim"]
        assert places(finding)[0][0] in true.trace_ids
    limit = by_mode["limit_rejected"]["counterexample"]
    assert origins()[limit["trace_id"], limit["span_id"]] == "limit_rejected"
    assert limit["verdict"] == "exists"


@WIRES
async def test_an_expert_finds_every_planned_failure_with_its_true_counts(tmp_path: Path, wire: Wire) -> None:
    seen = await investigated(tmp_path, expert, wire)
    found = seen.found
    assert (found["status"], found["stop_reason"], found["problems"], found["warnings"]) == ("complete", None, [], [])
    check_against_truth(seen)
    evidence = [item for finding in found["findings"] for item in finding["evidence"]]
    assert {(item["verdict"], item["seen"]) for item in evidence} == {("exact", True)}
    modes = len(seen.truth.failure_modes)
    citations = found["citations"]
    assert (citations["total"], citations["verified"]) == (modes + 1, modes + 1)  # and the counterexample
    assert (citations["failed"], citations["moved"], citations["unknown_ids"]) == (0, 0, [])
    path = "/v1/chat/completions" if wire == "chat" else "/v1/responses"
    assert set(seen.paths) == {path}
    assert list(seen.progress) == sorted(set(seen.progress))
    root = seen.calls(of_children=False)
    assert root[:2] == ["get_dataset_overview", "list_failure_modes"]
    assert root[2:] == ["call_subagent"] * 6 + ["count_traces"] * modes + ["contrast_traces"]
    assert {*seen.calls(of_children=True)} == {"search_trace", "view_trace", "view_spans"}
    usage = found["usage"]
    assert (usage["subagents"], usage["turns"], usage["llm_requests"]) == (6, 5 + 6 * 3, len(seen.requests))


async def test_the_record_of_an_investigation_is_a_trace_that_a_server_diagnoses(tmp_path: Path) -> None:
    seen = await investigated(tmp_path, expert)
    usage = seen.found["usage"]
    by_kind = "SELECT observation_kind, count(*) FROM spans GROUP BY ALL"
    async with connected(tmp_path / "own", *HALO, str(seen.runs)) as caller:
        overview = await caller.json("get_dataset_overview")
        kinds = dict((await caller.json("query_sql", sql=by_kind))["rows"])
    assert (overview["total_traces"], overview["otel_error_span_count"]) == (1, 0)
    assert overview["total_input_tokens"] == usage["input_tokens"]
    assert overview["total_output_tokens"] == usage["output_tokens"]
    assert overview["total_cached_input_tokens"] == usage["cached_input_tokens"]
    delegations = usage["subagents"]
    assert kinds == {
        "AGENT": 1 + delegations,
        "LLM": usage["turns"],
        "TOOL": usage["tool_calls"] - delegations,
        "CHAIN": delegations,
    }
    tools = {tool["tool_name"]: tool["call_count"] for tool in overview["tools"]}
    assert tools == Counter(seen.calls(of_children=False) + seen.calls(of_children=True)) - Counter(
        {"call_subagent": delegations}
    )


async def test_an_answer_with_a_made_up_trace_and_a_wrong_count_goes_back_once_and_stays_flagged(
    tmp_path: Path,
) -> None:
    seen = await investigated(tmp_path, bad_expert)
    found, true = seen.found, seen.truth.failure_modes["search_loop"].traces
    forged = f"trace {FORGED['trace_id']} span {FORGED['span_id']}: there is no trace '{FORGED['trace_id']}'"
    problems = [
        f"claim 1, evidence 1: unknown id · {forged} · “{FORGED['quote']}”",
        f"claim 2: count wrong: traces, expected {true + 1}, is {true}",
    ]
    (rejected,) = [done.result for done in history(seen.requests[-1]) if done.tool == "final_answer"]
    assert rejected.splitlines()[1:] == [f"- {problem}" for problem in problems]
    assert (found["status"], found["problems"]) == ("complete", problems)
    first, second, *others = found["findings"]
    assert first["evidence"][0]["verdict"] == "unknown_id"
    assert second["check"] == {"verdict": "wrong", "expected": true + 1, "actual": true}
    citations = found["citations"]
    assert (citations["failed"], citations["verified"]) == (1, citations["total"] - 1)
    assert len(others) == len(seen.truth.failure_modes) - 2
    assert {finding["check"]["verdict"] for finding in others} == {"holds"}


async def test_the_documented_investigation_is_what_happens_now(tmp_path: Path) -> None:
    shown = (ROOT / "docs" / "investigation.md").read_text(encoding="utf-8")
    again = "python -m tests.investigation docs/investigation.md brings it up to date"
    assert await transcript(tmp_path) == shown, again


FAULTS: Sequence[tuple[Wire, Sequence[Fault | None]]] = (
    ("chat", (down, None, cut, None, ends_early, None, down)),
    ("responses", (None, cut, None, ends_early, None, None, down, cut)),
)


@pytest.mark.parametrize("wire, faults", FAULTS)
async def test_an_expert_whose_endpoint_stumbles_still_finds_everything(
    tmp_path: Path, wire: Wire, faults: Sequence[Fault | None]
) -> None:
    seen = await investigated(tmp_path, through(expert, faults), wire)
    assert (seen.found["status"], seen.found["problems"]) == ("complete", [])
    check_against_truth(seen)
    usage = seen.found["usage"]
    failed = sum(fault is not None for fault in faults)
    assert usage["llm_requests"] == usage["turns"] + failed
