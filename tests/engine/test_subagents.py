"""Subagents: how many, how deep, on which budget, and what comes back from one that had to stop."""

from __future__ import annotations

import json
import re
from typing import Any

import anyio
import pytest

from halo_mcp.engine.ask import ask
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.run import Run
from halo_mcp.engine.settings import Wire
from halo_mcp.engine.types import Json
from tests.engine.fake_llm import FakeLLM, Hang, Meeting, Reply, Status, Step, answer, conversation, tool_results
from tests.engine.harness import TOOLS, WIRES, play, settings_for

LOOK = Reply(calls=[("view_trace", {"n": 1})])


def delegate(count: int, objective: str = "dig") -> Reply:
    return Reply(calls=[("call_subagent", {"objective": f"{objective} {number}"}) for number in range(count)])


def is_child(request: Json) -> bool:
    system = str(request.get("instructions") or request["messages"][0]["content"])
    return system.startswith("You are a subagent")


def first_message(request: Json) -> str:
    return str(conversation(request)[0]["content"])


def names(request: Json) -> list[str]:
    return [str(tool.get("name") or tool["function"]["name"]) for tool in request["tools"]]


def child_results(request: Json) -> list[Json]:
    return [json.loads(text.split("\n")[1]) for text in tool_results(request).values()]


def turn_of(request: Json) -> int:
    """How many turns the asking agent has behind it, as its budget note says."""
    found = re.match(r"\[turn (\d+) of", str(conversation(request)[-1]["content"]))
    assert found
    return int(found[1]) - 1


@WIRES
async def test_subagents_of_one_turn_run_in_parallel_up_to_the_cap(wire: Wire) -> None:
    two = Meeting(2)

    def script(request: Json) -> Step:
        if is_child(request):
            reply = answer(f"found {first_message(request)}")
            reply.before = two
            return reply
        return delegate(6) if turn_of(request) == 0 else answer("ok")

    played = await play(script, wire, limits={"max_parallel": 2})
    assert played.result.subagents == 6
    assert played.server.max_active == 2
    results = child_results(played.server.requests[-1])
    assert [item["answer"] for item in results] == [f"found dig {number}" for number in range(6)]
    assert {item["status"] for item in results} == {"complete"}
    assert sorted(event.agent_id for event in played.events if event.kind == "agent_finished") == [
        "root",
        *[f"root.{number}" for number in range(1, 7)],
    ]
    assert {event.parent_id for event in played.events if event.depth == 1} == {"root"}


async def test_an_agent_at_the_maximum_depth_has_no_subagents() -> None:
    def script(request: Json) -> Step:
        depth = 0 if not is_child(request) else 1 if "dig" in first_message(request) else 2
        if turn_of(request) or depth == 2:
            return answer(f"depth {depth}")
        return delegate(1, "dig" if depth == 0 else "deeper")

    played = await play(script, limits={"max_depth": 2, "max_parallel": 1})
    offered = ["call_subagent" in names(request) for request in played.server.requests]
    assert offered == [True, True, False, True, True]
    flat = await play([answer("ok")], limits={"max_depth": 0})
    assert "call_subagent" not in json.dumps(flat.server.requests[0])


async def test_a_subagent_that_hits_its_limit_returns_its_work_and_says_so() -> None:
    def script(request: Json) -> Step:
        if is_child(request):
            return Reply(text="It times out in t1.", calls=LOOK.calls)
        return delegate(1) if turn_of(request) == 0 else answer("ok")

    played = await play(script, limits={"sub_turns": 3})
    [result] = child_results(played.server.requests[-1])
    assert (result["status"], result["stop_reason"], result["turns"]) == ("unstructured", "turns", 4)
    assert result["answer"] == "It times out in t1."


async def test_a_subagent_whose_requests_are_refused_returns_what_it_saw() -> None:
    def script(request: Json) -> Step:
        if is_child(request):
            return Status(403) if turn_of(request) else LOOK
        return delegate(1) if turn_of(request) == 0 else answer("ok")

    played = await play(script)
    [result] = child_results(played.server.requests[-1])
    assert (result["status"], result["stop_reason"]) == ("partial", "rejected_by_endpoint")
    assert "view_trace(n=1)" in result["answer"]
    assert played.result.result.answer == "ok"


async def test_a_subagent_stops_at_its_share_and_the_parent_can_still_answer() -> None:
    def script(request: Json) -> Step:
        if is_child(request):
            reply = answer("child") if "tool_choice" in request else LOOK
            return Reply(calls=reply.calls, usage=(10_000, 10, 0))
        return delegate(1) if turn_of(request) == 0 else answer("ok")

    played = await play(script, limits={"max_input_tokens": 100_000})
    [result] = child_results(played.server.requests[-1])
    assert (result["stop_reason"], result["turns"]) == ("input_tokens", 5)
    assert (played.result.result.status, played.result.totals.input_tokens) == ("complete", 50_200)


async def test_children_count_against_the_run() -> None:
    played = await play(
        lambda request: answer("child") if is_child(request) else delegate(3) if turn_of(request) == 0 else answer("ok")
    )
    assert (played.result.totals.turns, played.result.result.turns, played.result.totals.input_tokens) == (5, 2, 500)


async def test_a_delegation_without_an_objective_is_explained() -> None:
    played = await play([Reply(calls=[("call_subagent", {"question": "?"})]), answer("ok")])
    assert "objective: Field required" in next(iter(tool_results(played.server.requests[1]).values()))
    assert played.result.subagents == 0


async def test_what_a_subagent_found_is_in_the_answer_of_a_run_that_had_to_stop() -> None:
    finding = {"claim": "timeouts in t1", "evidence": [{"trace_id": "t1"}]}

    def script(request: Json) -> Step:
        if is_child(request):
            return answer("child text", findings=[finding])
        return delegate(1) if turn_of(request) == 0 else Status(401)

    played = await play(script)
    result = played.result.result
    assert (result.status, [item.claim for item in result.findings]) == ("partial", ["timeouts in t1"])
    assert "child text" in result.answer


async def test_a_wait_that_one_agent_was_told_holds_the_others_too() -> None:
    limited, both = 0, Meeting(2)

    def script(request: Json) -> Step:
        nonlocal limited
        if not is_child(request):
            return delegate(2) if turn_of(request) == 0 else answer("ok")
        if limited < 2:
            limited += 1
            return Status(429, {"message": "slow down"}, {"retry-after-ms": "300"}, both)
        return answer("child")

    played = await play(script)
    limits = [event for event in played.events if event.kind == "retry"]
    assert len(limits) == 2
    assert [data["failure"] for data in played.data("retry")] == [1, 1]
    assert {event.agent_id for event in played.events if event.kind == "waiting"} == {"root.1", "root.2"}
    assert played.result.totals.requests == 6
    assert played.result.result.status == "complete"


async def test_cancelling_closes_the_sockets_of_all_subagents() -> None:
    hanging = 0
    all_hang = anyio.Event()

    def script(request: Json) -> Step:
        nonlocal hanging
        if not is_child(request):
            return delegate(3)
        hanging += 1
        if hanging == 3:
            all_hang.set()
        return Hang()

    async with FakeLLM(script) as server:
        endpoint = Endpoint(settings_for(server))
        async with anyio.create_task_group() as group:
            group.start_soon(ask, Run(endpoint, TOOLS), "why?")
            with anyio.fail_after(10):
                await all_hang.wait()
            group.cancel_scope.cancel()
        await server.idle()
        assert len(server.disconnects) == 3
        await endpoint.aclose()


async def test_two_agents_that_meet_the_same_unknown_parameter_both_go_on() -> None:
    both = Meeting(2)

    def script(request: Json) -> Step:
        if not is_child(request):
            return delegate(2) if turn_of(request) == 0 else answer("ok")
        if "temperature" in request:
            return Status(400, {"message": "temperature is not supported", "code": None}, before=both)
        return answer("child")

    played = await play(script, settings={"temperature": 0.1})
    assert played.result.result.status == "complete"
    assert [item["status"] for item in child_results(played.server.requests[-1])] == ["complete"] * 2


@pytest.mark.parametrize("model, expected", [("", "m"), ("small", "small")])
async def test_subagents_have_a_model_of_their_own_when_one_is_set(model: str, expected: str) -> None:
    played = await play(
        lambda request: (
            answer("child") if is_child(request) else delegate(1) if turn_of(request) == 0 else answer("ok")
        ),
        settings={"subagent_model": model},
    )
    used: list[Any] = [request["model"] for request in played.server.requests]
    assert used == ["m", expected, "m"]


async def test_agents_that_ask_first_at_the_same_time_share_one_client() -> None:
    async with FakeLLM([]) as server:
        endpoint = Endpoint(settings_for(server))
        made: list[object] = []

        async def one() -> None:
            made.append(await endpoint.client())

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        assert made[0] is made[1]
        await endpoint.aclose()
