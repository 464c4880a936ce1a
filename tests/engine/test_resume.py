"""A run that was saved goes on from any of its checkpoints, and no paid turn is repeated."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from halo_mcp.engine.ask import ask, resume
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.map_tools import MapArguments, Reading, Texts, map_tools
from halo_mcp.engine.run import Hooks, Run, RunResult
from halo_mcp.engine.settings import Limits, Wire
from halo_mcp.engine.synthesis import BATCH_CHARS, Row
from halo_mcp.engine.types import FinalAnswer, Json
from halo_mcp.errors import BadArgument
from tests.engine.fake_llm import FakeLLM, Hang, Reply, Script, Status, Step, answer
from tests.engine.harness import KEY, TOOLS, WIRES, settings_for
from tests.engine.test_subagents import delegate, is_child, turn_of


def whole_run(request: Json) -> Step:
    """Root: look, two subagents, answer; each subagent: look twice, answer. Depends on the request alone."""
    if is_child(request):
        return answer("child") if turn_of(request) >= 2 else Reply(calls=[("view_trace", {"n": 5})])
    if turn_of(request) == 0:
        return Reply(text="Looking.", calls=[("view_trace", {"n": 1})])
    return delegate(2) if turn_of(request) == 1 else answer("whole")


class Saved:
    """Keeps each state as a file would: as text."""

    def __init__(self) -> None:
        self.states: list[str] = []

    async def __call__(self, state: Json) -> None:
        self.states.append(json.dumps(state))


async def run_on(server: FakeLLM, wire: Wire, state: str | None = None, saved: Saved | None = None) -> RunResult:
    endpoint = Endpoint(settings_for(server, wire))
    run = Run(endpoint, TOOLS, hooks=Hooks(checkpoint=saved), limits=Limits())
    try:
        return await (resume(run, json.loads(state)) if state else ask(run, "why?"))
    finally:
        await endpoint.aclose()


@WIRES
async def test_every_checkpoint_leads_to_the_same_answer_with_the_turns_that_were_left(wire: Wire) -> None:
    saved = Saved()
    async with FakeLLM(whole_run) as server:
        full = await run_on(server, wire, saved=saved)
        paid = len(server.requests)
    assert (full.result.answer, paid, full.totals.turns) == ("whole", 9, 9)
    for state in saved.states:
        before = json.loads(state)["meter"]["totals"]["turns"]
        async with FakeLLM(whole_run) as server:
            again = await run_on(server, wire, state)
        assert len(server.requests) == paid - before
        assert (again.result.answer, again.run_id, again.totals.turns) == ("whole", full.run_id, 9)
        assert again.subagents == 2
    assert len(saved.states) >= 9


async def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint() -> None:
    saved = Saved()
    first: Script = [Reply(calls=[("view_trace", {"n": 1})]), Hang()]
    async with FakeLLM(first) as server:
        endpoint = Endpoint(settings_for(server))
        async with anyio.create_task_group() as group:
            group.start_soon(ask, Run(endpoint, TOOLS, hooks=Hooks(checkpoint=saved)), "why?")
            with anyio.fail_after(10):
                await server.hanging.wait()
            group.cancel_scope.cancel()
        await endpoint.aclose()
    hung = server.requests[1]
    async with FakeLLM([answer("ok")]) as server:
        result = await run_on(server, "chat", saved.states[-1])
    assert (result.result.answer, result.totals.turns) == ("ok", 2)
    assert server.requests == [hung]


@WIRES
async def test_tools_that_had_run_before_a_crash_are_not_run_again(wire: Wire) -> None:
    """A subagent at work saves the run while its siblings' results are still on their way into the conversation."""
    saved = Saved()
    mixed = Reply(calls=[("view_trace", {"n": 1}), ("call_subagent", {"objective": "dig"}), ("fail", {})])

    def script(request: Json) -> Step:
        if is_child(request):
            return answer("child") if turn_of(request) else Reply(calls=[("view_trace", {"n": 5})])
        return answer("whole") if turn_of(request) else mixed

    async with FakeLLM(script) as server:
        full = await run_on(server, wire, saved=saved)
        paid = server.requests[-1]
    turns = [[agent["turns"] for agent in json.loads(state)["agents"]] for state in saved.states]
    between = saved.states[turns.index([1, 1])]
    assert len(json.loads(between)["ledger"]) >= 2
    resumed = Saved()
    async with FakeLLM(script) as server:
        again = await run_on(server, wire, between, resumed)
        assert server.requests[-1] == paid
    ledger = json.loads(resumed.states[-1])["ledger"]
    assert ledger == json.loads(saved.states[-1])["ledger"]
    assert len({(item["agent_id"], item["call"]) for item in ledger}) == len(ledger) == 4
    assert again.tool_calls == full.tool_calls == 4


async def test_a_run_that_an_outage_ended_can_go_on() -> None:
    saved = Saved()
    async with FakeLLM([Reply(calls=[("view_trace", {})]), Status(401)]) as server:
        result = await run_on(server, "chat", saved=saved)
    assert result.result.salvaged
    async with FakeLLM([answer("ok")]) as server:
        result = await run_on(server, "chat", saved.states[-1])
    assert (result.result.status, result.result.answer) == ("complete", "ok")


async def test_a_finished_run_is_answered_without_a_request() -> None:
    saved = Saved()
    async with FakeLLM([answer("ok")]) as server:
        await run_on(server, "chat", saved=saved)
        again = await run_on(server, "chat", saved.states[-1])
        assert (again.result.answer, len(server.requests)) == ("ok", 1)


async def test_a_state_holds_no_key_and_one_of_another_version_is_refused() -> None:
    saved = Saved()
    async with FakeLLM([answer("ok")]) as server:
        await run_on(server, "chat", saved=saved)
        assert KEY not in saved.states[-1]
        state: dict[str, Any] = {**json.loads(saved.states[-1]), "version": 0}
        with pytest.raises(BadArgument, match="another version"):
            await run_on(server, "chat", json.dumps(state))


async def fine(rows: Sequence[Row]) -> list[str]:
    return ["exact" for _ in rows]


async def no_problems(_: FinalAnswer) -> list[str]:
    return []


def traces_read(request: Json) -> list[str]:
    """The traces of a request that maps; [] for others."""
    offered = {tool["function"]["name"] for tool in request["tools"]}
    return re.findall(r"trace (t\d) ", request["messages"][-1]["content"]) if offered == {"report_rows"} else []


async def test_rows_that_were_paid_for_are_in_the_answer_when_time_runs_out() -> None:
    texts = {f"t{number}": f"trace t{number} " + "x" * BATCH_CHARS for number in range(3)}

    async def read(_: MapArguments) -> Texts:
        return Texts(texts)

    async def judged(rows: Sequence[Row]) -> list[str]:
        return ["as checked" for _ in rows]

    def model(request: Json) -> Step:
        if not (found := traces_read(request)):
            return Reply(calls=[("map_traces", {"question": "?"})])
        rows = [{"trace_id": "t0", "label": "disk full"}]
        return Reply(calls=[("report_rows", {"rows": rows})]) if found == ["t0"] else Hang()

    async with FakeLLM(model) as server:
        endpoint = Endpoint(settings_for(server))
        await endpoint.client()  # the first one takes its time
        run = Run(endpoint, (), limits=Limits(max_seconds=3.0))
        run.root_tools = map_tools(lambda: run, Reading(read, judged, no_problems))
        result = (await ask(run, "why?")).result
        await endpoint.aclose()
        await server.idle()
    assert (result.status, result.stop_reason) == ("partial", "seconds")
    assert "trace t0 · disk full ·  · no quote (as checked)" in result.answer
    assert "not read: trace t2: " in result.answer


async def test_batches_of_traces_that_were_read_are_not_paid_for_again() -> None:
    texts = {f"t{number}": f"trace t{number} " + "x" * BATCH_CHARS for number in range(3)}

    async def read(_: MapArguments) -> Texts:
        return Texts(texts)

    def model(request: Json) -> Step:
        for trace_id in traces_read(request):
            return Reply(calls=[("report_rows", {"rows": [{"trace_id": trace_id, "label": "seen"}]})])
        return Reply(calls=[("map_traces", {"question": "?"})]) if turn_of(request) == 0 else answer("whole")

    async def run_with(server: FakeLLM, state: str | None = None) -> RunResult:
        endpoint = Endpoint(settings_for(server))
        run = Run(endpoint, (), hooks=Hooks(checkpoint=saved))
        run.root_tools = map_tools(lambda: run, Reading(read, fine, no_problems))
        try:
            return await (resume(run, json.loads(state)) if state else ask(run, "why?"))
        finally:
            await endpoint.aclose()

    saved = Saved()
    async with FakeLLM(model) as server:
        full = await run_with(server)
    assert (full.result.answer, len(server.requests)) == ("whole", 5)
    states = [*saved.states]
    assert len({json.loads(state)["meter"]["totals"]["turns"] for state in states}) == 5
    for state in states:
        async with FakeLLM(model) as server:
            again = await run_with(server, state)
        assert again.result.answer == "whole"
        assert len(server.requests) == 5 - json.loads(state)["meter"]["totals"]["turns"]
