"""ask and ask_result, seen by a client, against the scripted model."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from halo_mcp.config import AskSettings
from halo_mcp.engine.settings import Limits, LLMSettings
from halo_mcp.tools import ask as ask_module
from tests.engine.fake_llm import FakeLLM, Hang, Json, Reply, Status, Step, answer, tool_results
from tests.engine.harness import KEY
from tests.engine.test_subagents import turn_of
from tests.server.asking import QUOTE, asking, traces
from tests.tools.desk import ERAS, Desk, Era, calls_in, serving

PATIENCE_S = 20
GOOD: dict[str, Any] = {
    "claim": "Billing times out.",
    "severity": "high",
    "evidence": [{"trace_id": "t1", "span_id": "s2", "quote": QUOTE}],
    "check": {"filters": {"outcome": ["fail"]}, "expected": 2},
}
FORGED: dict[str, Any] = {
    "claim": "The disk is full.",
    "evidence": [{"trace_id": "t1", "span_id": "s2", "quote": "no space left on device"}],
}
LOOK = Reply(text="Looking.", calls=[("list_failure_modes", {}), ("view_trace", {"trace_id": "t1"})])


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


# --- a whole question ---------------------------------------------------------------------------------------------
async def test_a_question_is_answered_with_checked_findings_and_what_they_cost(tmp_path: Path, era: Era) -> None:
    script = [LOOK, answer("Billing is slow.", findings=[GOOD], limitations="One dataset.")]
    async with asking(tmp_path, script, era=era) as asker:
        found = await asker.ask()
        shown = tool_results(asker.model.requests[1])
    assert (found["status"], found["stop_reason"], found["answer"]) == ("complete", None, "Billing is slow.")
    (finding,) = found["findings"]
    assert (finding["evidence"][0]["verdict"], finding["evidence"][0]["seen"]) == ("exact", True)
    assert finding["check"] == {"verdict": "holds", "expected": 2, "actual": 2}
    assert (found["citations"]["total"], found["citations"]["verified"]) == (1, 1)
    usage = found["usage"]
    assert (usage["turns"], usage["tool_calls"], usage["llm_requests"], usage["input_tokens"]) == (2, 2, 2, 200)
    assert (found["problems"], found["model"]) == ([], "m")
    assert any(QUOTE in text for text in shown.values())
    values = [value for value, _ in asker.progress]
    assert values
    assert values == sorted(set(values))
    assert values[-1] < 1.0


async def test_the_text_of_an_answer_names_verdicts_usage_and_the_record(tmp_path: Path) -> None:
    async with asking(tmp_path, [LOOK, answer("Billing is slow.", findings=[GOOD])]) as asker:
        text = await asker.text("ask", question="What fails?")
    first, *rest = text.splitlines()
    assert first.startswith("status complete · run ")
    assert "2 turns · 2 tool calls" in first
    assert rest[:4] == [
        "Billing is slow.",
        "1. [high] Billing times out.",
        f"   exact · trace t1 span s2 “{QUOTE}”",
        "   count holds: expected 2",
    ]
    assert rest[-1].startswith("Record: halo://runs/")


async def test_a_forged_citation_goes_back_once_and_is_then_flagged(tmp_path: Path) -> None:
    script = [LOOK, answer("Disk.", findings=[FORGED]), answer("Disk!", findings=[FORGED])]
    async with asking(tmp_path, script) as asker:
        found = await asker.ask()
        sent_back = [text for text in tool_results(asker.model.requests[2]).values() if "Not accepted" in text]
    assert "the quote is not in the cited span" in sent_back[0]
    assert (found["status"], found["answer"], len(asker.model.requests)) == ("complete", "Disk!", 3)
    assert found["findings"][0]["evidence"][0]["verdict"] == "missing"
    assert found["citations"]["failed"] == 1
    assert len(found["problems"]) == 1


async def test_evidence_that_no_tool_has_shown_is_flagged_as_never_read(tmp_path: Path) -> None:
    async with asking(tmp_path, [answer("Guessed.", findings=[GOOD])]) as asker:
        found = await asker.ask()
    assert (found["findings"][0]["evidence"][0]["verdict"], found["findings"][0]["evidence"][0]["seen"]) == (
        "exact",
        False,
    )


async def test_a_count_that_cannot_be_run_is_sent_back_with_the_reason(tmp_path: Path) -> None:
    wrong = {**GOOD, "check": {"filters": {"outcome": ["odd"]}, "expected": 1}}
    async with asking(tmp_path, [LOOK, answer("a", findings=[wrong]), answer("b", findings=[GOOD])]) as asker:
        found = await asker.ask()
        (sent_back,) = [text for text in tool_results(asker.model.requests[2]).values() if "Not accepted" in text]
    assert "claim 1: its check cannot be run: check.filters.outcome" in sent_back
    assert (found["answer"], found["problems"]) == ("b", [])


async def test_the_agent_has_the_read_tools_and_none_that_opens_files(tmp_path: Path) -> None:
    async with asking(tmp_path, [answer()]) as asker:
        await asker.ask()
        offered = {tool["function"]["name"]: tool["function"] for tool in asker.model.requests[0]["tools"]}
    assert {"get_dataset_overview", "view_spans", "query_sql", "call_subagent", "final_answer"} <= offered.keys()
    assert not {"ask", "ask_result", "list_datasets", "verify_evidence"} & offered.keys()
    for tool in offered.values():
        assert not {"dataset", "response_format"} & tool["parameters"].get("properties", {}).keys()


async def test_only_the_root_agent_may_map_traces_and_its_requests_count_and_are_recorded(tmp_path: Path) -> None:
    row = {"trace_id": "t1", "label": "timeout", "note": "Billing.", "quote": QUOTE, "span_id": "s2"}

    def model(request: Json) -> Step:
        offered = {tool["function"]["name"] for tool in request["tools"]}
        if offered == {"report_rows"}:
            return Reply(calls=[("report_rows", {"rows": [row]})])
        if "map_traces" not in offered:
            return answer("Nothing more.")
        match len(tool_results(request)):
            case 0:
                calls = [
                    ("map_traces", {"question": "Why?", "trace_ids": ["t1"]}),
                    ("call_subagent", {"objective": "x"}),
                ]
                return Reply(calls=calls)
            case _:
                return answer("Billing is slow.", findings=[GOOD])

    async with asking(tmp_path, model) as asker:
        found = await asker.ask()
        shown = tool_results(asker.model.requests[-1])
        record = (asker.index / "runs" / f"{found['run_id']}.jsonl").read_text().splitlines()
    assert any(f"trace t1 span s2 · timeout · Billing. · “{QUOTE}” (exact)" in text for text in shown.values())
    assert (found["status"], found["usage"]["llm_requests"]) == ("complete", 4)
    spans = [json.loads(line) for line in record]
    known = {span["span_id"] for span in spans}
    assert all(span["parent_span_id"] in known | {""} for span in spans)
    assert sum(span["kind"] == "SPAN_KIND_CLIENT" for span in spans) == 4


@pytest.mark.parametrize("response_format", ["text", "json"])
async def test_halves_of_surrogate_pairs_in_an_answer_do_not_break_the_result(
    tmp_path: Path, response_format: str
) -> None:
    broken = Reply(text="Look \ud83d", calls=[("view_trace", {"trace_id": "t\udc00"})])
    script = [broken, answer("Slow \ud800.", findings=[{**GOOD, "claim": "Half \udfff"}])]
    async with asking(tmp_path, script) as asker:
        result = await asker.client.call_tool("ask", {"question": "What?", "response_format": response_format})
    assert not result.is_error
    assert "Slow �." in str(result.content)


async def test_filters_reach_the_model_as_the_scope_of_the_question(tmp_path: Path) -> None:
    async with asking(tmp_path, [answer()]) as asker:
        await asker.ask(filters={"trace_ids": ["t1"]})
        question = asker.model.requests[0]["messages"][1]["content"]
    assert question.startswith("What fails?\n\n")
    assert 'filters={"trace_ids": ["t1"]}' in question


async def test_a_call_that_names_the_dataset_as_suggested_calls_do_is_taken(tmp_path: Path) -> None:
    look = Reply(calls=[("count_traces", {"dataset": "data", "response_format": "json"})])
    async with asking(tmp_path, [look, answer()]) as asker:
        await asker.ask()
        (shown,) = tool_results(asker.model.requests[1]).values()
    assert "3 traces match." in shown


# --- jobs ---------------------------------------------------------------------------------------------------------
class Gate:
    """Holds a reply back until it is opened; to be used as ``before``."""

    def __init__(self) -> None:
        self.opened = anyio.Event()

    async def __call__(self) -> None:
        await self.opened.wait()


async def test_a_call_that_takes_too_long_becomes_a_job_whose_result_can_be_had(tmp_path: Path, era: Era) -> None:
    gate = Gate()
    reply = answer("Late.", findings=[GOOD])
    reply.before = gate
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [LOOK, reply], era=era, ask=AskSettings(wait_s=0.001)) as asker:
            running = await asker.ask()
            assert running["status"] == "running"
            again = await asker.json("ask_result", job_id=running["job_id"], wait_s=0)
            assert (again["status"], again["run_id"]) == ("running", running["run_id"])
            text = await asker.text("ask_result", job_id=running["job_id"], wait_s=0)
            assert f'Next: ask_result(job_id="{running["job_id"]}")' in text
            gate.opened.set()
            found = await asker.json("ask_result", job_id=running["job_id"], wait_s=PATIENCE_S)
            assert (found["status"], found["answer"], found["run_id"]) == ("complete", "Late.", running["job_id"])
            once_more = await asker.json("ask_result", job_id=running["job_id"])
            assert once_more == found


async def test_cancelling_a_call_that_waits_stops_the_work_and_closes_the_socket(tmp_path: Path, era: Era) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [LOOK, Hang()], era=era) as asker:
            async with anyio.create_task_group() as group:
                group.start_soon(asker.ask)
                await asker.model.hanging.wait()
                group.cancel_scope.cancel()
            await asker.model.idle()
            assert asker.model.disconnects == [1]
            assert len(asker.model.requests) == 2
            assert "3 traces match." in await asker.text("count_traces")


async def test_a_job_can_be_stopped_and_says_how_to_go_on(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [LOOK, Hang()], ask=AskSettings(wait_s=0.001)) as asker:
            running = await asker.ask()
            await asker.model.hanging.wait()
            error = await asker.error("ask_result", job_id=running["job_id"], cancel=True)
            await asker.model.idle()
    assert f"--resume {running['job_id']}" in error
    assert asker.model.disconnects == [1]


async def test_a_server_that_ends_stops_its_jobs(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [LOOK, Hang()], ask=AskSettings(wait_s=0.001)) as asker:
            await asker.ask()
            await asker.model.hanging.wait()
    assert asker.model.disconnects == [1]


async def test_the_server_says_what_it_does_also_when_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_module, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(ask_module, "MOST_OFTEN_S", 0.001)
    gate = Gate()
    reply = answer("ok")
    reply.before = gate
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [LOOK, reply]) as asker, anyio.create_task_group() as group:

            async def open_later() -> None:
                while len([words for _, words in asker.progress if words.startswith("view_trace(")]) < 3:
                    await anyio.lowlevel.checkpoint()
                gate.opened.set()

            group.start_soon(open_later)
            await asker.ask()
    values = [value for value, _ in asker.progress]
    assert values == sorted(set(values))


async def test_no_more_questions_run_at_once_than_allowed(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [Hang()], ask=AskSettings(wait_s=0.001, max_jobs=1)) as asker:
            running = await asker.ask()
            error = await asker.error("ask", question="And now?")
    assert "HALO_MCP_ASK_MAX_JOBS" in error
    assert running["job_id"] in error


async def test_what_all_questions_may_spend_is_kept(tmp_path: Path) -> None:
    script = [answer("one", findings=[]), answer("two")]
    async with asking(tmp_path, script, ask=AskSettings(total_tokens=120)) as asker:
        first = await asker.ask()
        error = await asker.error("ask", question="And now?")
    assert first["answer"] == "one"
    assert "HALO_MCP_ASK_TOTAL_TOKENS" in error
    assert len(asker.model.requests) == 1


async def test_a_question_is_held_to_what_is_left_of_input_and_output_together(tmp_path: Path) -> None:
    looks = Reply(calls=[("view_trace", {"trace_id": "t1"})], usage=(500, 350, 0))
    async with asking(tmp_path, [looks, answer("one")], ask=AskSettings(total_tokens=1_000)) as asker:
        found = await asker.ask()
    assert len(asker.model.requests) == 1  # half of what is left is for input
    assert (found["status"], found["stop_reason"]) == ("partial", "input_tokens")


async def test_the_agent_runs_no_code_where_that_is_off(tmp_path: Path) -> None:
    async with asking(tmp_path, [answer()], ask=AskSettings(run_code=False)) as asker:
        await asker.ask()
        offered = [tool["function"]["name"] for tool in asker.model.requests[0]["tools"]]
    assert "run_code" not in offered


async def test_the_agent_runs_code_unless_that_is_off(tmp_path: Path) -> None:
    script = [Reply(calls=[("run_code", {"code": "print(6 * 7)"})]), answer("42")]
    async with asking(tmp_path, script) as asker:
        assert (await asker.ask())["status"] == "complete"
        (shown,) = tool_results(asker.model.requests[1]).values()
    assert "42" in shown.splitlines()


async def test_money_is_counted_over_all_questions_and_held_while_one_runs(tmp_path: Path) -> None:
    priced = Reply(calls=[("final_answer", {"answer": "one"})], cost=0.4)
    with anyio.fail_after(PATIENCE_S):
        async with asking(tmp_path, [priced, Hang()], ask=AskSettings(total_usd=1.0, wait_s=0.2)) as asker:
            first = await asker.ask()
            while first["status"] == "running":
                first = await asker.json("ask_result", job_id=first["job_id"])
            assert first["usage"]["cost_usd"] == 0.4
            running = await asker.ask()
            assert running["status"] == "running"
            assert "HALO_MCP_ASK_TOTAL_USD" in await asker.error("ask", question="And now?")


# --- budgets ------------------------------------------------------------------------------------------------------
async def test_a_caller_may_lower_a_budget_and_never_raise_it(tmp_path: Path) -> None:
    def looking(request: dict[str, Any]) -> Step:
        return Reply(calls=[("view_trace", {"trace_id": "t1"})])

    async with asking(tmp_path, looking, limits=Limits(max_turns=3)) as asker:
        found = await asker.ask(budget={"max_turns": 50})
        before = len(asker.model.requests)
        lowered = await asker.ask(budget={"max_turns": 1})
    # The last turn is forced to be the answer; when it is none, one more asks for plain text.
    assert (found["status"], before) == ("partial", 4)
    assert (lowered["status"], len(asker.model.requests) - before) == ("partial", 2)
    assert "What was looked at" in found["answer"]


async def test_an_outage_after_paid_turns_gives_what_there_is(tmp_path: Path) -> None:
    async with asking(tmp_path, [LOOK, *[Status(503)] * 10]) as asker:
        found = await asker.ask()
    assert (found["status"], found["stop_reason"]) == ("partial", "llm_failures")
    assert "view_trace(trace_id='t1')" in found["answer"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"question": "  "}, "The question is empty"),
        ({"question": "q", "budget": {"max_turns": 0}}, "max_turns=0 is not possible"),
        ({"question": "q", "budget": {"max_usd": 0}}, "max_usd=0 is not possible"),
        ({"question": "q", "budget": {"max_turns": -1}}, "max_turns=-1 is not possible"),
        ({"question": "q", "budget": {"turns": 1}}, "There is no limit 'turns'"),
        ({"question": "q", "dataset": "nope"}, "There is no dataset 'nope'"),
        ({"question": "q", "effort": "huge"}, "effort"),
    ],
)
async def test_a_bad_argument_is_one_sentence_and_costs_nothing(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    async with asking(tmp_path, [answer()]) as asker:
        assert said in await asker.error("ask", **arguments)
        assert asker.model.requests == []


@pytest.mark.parametrize(
    "status, said",
    [
        (Status(401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}), "OPENAI_API_KEY"),
        (Status(404, {"message": "The model m does not exist", "code": "model_not_found"}), "HALO_MCP_MODEL"),
    ],
)
async def test_an_endpoint_that_refuses_is_one_sentence_without_the_key(
    tmp_path: Path, status: Step, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with asking(tmp_path, [status]) as asker:
            error = await asker.error("ask", question="What fails?")
    assert said in error
    assert "\n" not in error
    assert KEY not in error
    assert KEY not in caplog.text


async def test_an_endpoint_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    async with FakeLLM([]) as gone:
        base_url = gone.base_url
    settings = LLMSettings(model="m", base_url=base_url, backoff_s=0.001, idle_s=5.0)
    async with asking(tmp_path, [], llm_settings=settings) as asker:
        error = await asker.error("ask", question="What fails?")
    assert "\n" not in error
    assert "llm_failures" in error


async def test_an_unknown_job_and_one_of_another_server_are_told_apart(tmp_path: Path) -> None:
    async with asking(tmp_path, [answer()]) as asker:
        run_id = (await asker.ask())["run_id"]
    async with asking(tmp_path, []) as asker:
        other = await asker.error("ask_result", job_id=run_id)
        unknown = await asker.error("ask_result", job_id="../../etc/passwd")
    assert "belongs to another server" in other
    assert f"halo://runs/{run_id}" in other
    assert unknown == "There is no run '../../etc/passwd'. Take job_id from the answer of ask."


# --- the record ---------------------------------------------------------------------------------------------------
async def test_the_record_of_a_run_is_a_trace_that_halo_mcp_reads(tmp_path: Path) -> None:
    delegate = Reply(calls=[("call_subagent", {"objective": "look at t2"}), ("view_trace", {"trace_id": "nope"})])

    def script(request: dict[str, Any]) -> Step:
        if "You are a subagent" in request["messages"][0]["content"]:
            return answer("child") if turn_of(request) else LOOK
        return (LOOK, delegate, answer("Done.", findings=[GOOD]))[turn_of(request)]

    async with asking(tmp_path, script) as asker:
        found = await asker.ask()
        record = (await asker.client.read_resource(f"halo://runs/{found['run_id']}")).contents[0]
    path = tmp_path / "index" / "runs" / f"{found['run_id']}.jsonl"
    assert record.model_dump()["text"] == path.read_text()
    assert KEY not in path.read_text()
    desk = Desk(tmp_path / "own", {"runs": [path.parent]})
    overview = desk.data("get_dataset_overview")
    assert _kinds(path) == {"AGENT": 2, "LLM": 5, "TOOL": 5, "CHAIN": 1}
    assert (overview["total_traces"], overview["total_spans"]) == (1, 13)
    assert overview["total_input_tokens"] == found["usage"]["input_tokens"] == 500
    (trace_id,) = overview["sample_trace_ids"]
    outline = desk.text("view_trace", trace_id=trace_id, detail="outline")
    assert "subagent root.1" in outline
    assert "There is no trace 'nope'" in desk.text("list_failure_modes")


def _kinds(path: Path) -> Counter[str]:
    return Counter(
        json.loads(text)["attributes"]["inference.observation_kind"] for text in path.read_text().split("\n")[:-1]
    )


async def test_a_record_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with asking(tmp_path, []) as asker:
        for run_id in ("0" * 16, "x"):
            with pytest.raises(Exception, match="There is no record of a run"):
                await asker.client.read_resource(f"halo://runs/{run_id}")


# --- without a model ----------------------------------------------------------------------------------------------
async def test_without_a_model_the_evidence_and_a_plan_are_the_answer(tmp_path: Path, era: Era) -> None:
    path = traces(tmp_path)
    async with serving(tmp_path, {"data": [path]}, era=era) as caller:
        found = await caller.json("ask", question="What fails?")
        text = await caller.text("ask", question="What fails?")
    assert found["status"] == "no_model"
    assert "HALO_MCP_MODEL" in found["why"]
    assert found["overview"]["total_traces"] == 3
    assert QUOTE in found["failure_modes"][0]["quote"]["text"]
    chosen = [one["trace_id"] for one in found["representative_traces"]]
    assert len(chosen) == len(set(chosen))
    assert "t3" in chosen
    assert text.startswith("status no_model")
    assert "verify_evidence(claims=" in text
    desk = Desk(tmp_path, {"data": [path]})
    calls = [call for call in calls_in(text) if call.tool != "verify_evidence"]
    assert {call.tool for call in calls} >= {"view_spans", "view_trace", "analyze_tool_use", "count_traces"}
    for call in calls:
        desk.follow(call)


async def test_a_model_without_key_and_address_is_said_to_be_why_nothing_was_sent(tmp_path: Path) -> None:
    async with asking(tmp_path, [], llm_settings=LLMSettings(model="m")) as asker:
        text = await asker.text("ask", question="What fails?")
    assert text.startswith("status no_model: HALO_MCP_MODEL is set, but neither OPENAI_API_KEY nor OPENAI_BASE_URL is")
    assert asker.model.requests == []


async def test_without_a_model_filters_choose_the_traces_and_bad_arguments_are_said(tmp_path: Path) -> None:
    async with serving(tmp_path, {"data": [traces(tmp_path)]}) as caller:
        found = await caller.json("ask", question="Why?", filters={"outcome": ["pass"]})
        assert found["overview"]["total_traces"] == 1
        assert "question is empty" in await caller.error("ask", question=" ")
        assert "There is no run" in await caller.error("ask_result", job_id="x")
