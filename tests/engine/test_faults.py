"""Random scripts of replies and faults: whatever an endpoint does, some things always hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mcp.engine.run import RunResult
from halo_mcp.engine.settings import Wire
from halo_mcp.engine.types import Json
from halo_mcp.errors import EngineError
from tests.engine.fake_llm import Reply, Status, Step, answer, asked_calls, conversation, tool_results
from tests.engine.harness import KEY, Played, play

MAX_TURNS = 5
ARGUMENTS = st.sampled_from(["{}", '{"n": 1}', '{"n": ', "[]", ""])
CALLS = st.lists(
    st.tuples(st.sampled_from(["view_trace", "fail", "nope", "call_subagent", "final_answer"]), ARGUMENTS), max_size=3
)
PLACES = st.one_of(st.none(), st.integers(0, 8))
REPLIES = st.builds(
    Reply,
    text=st.sampled_from(["", "Some words."]),
    calls=CALLS,
    finish=st.sampled_from(["", "", "", "length"]),
    cut_after=PLACES,
    end_after=PLACES,
    garbage_after=PLACES,
    error_after=st.one_of(st.none(), st.tuples(st.integers(0, 5), st.just({"message": "overloaded"}))),
    usage=st.sampled_from([None, (100, 20, 0), (60_000, 2_000, 0)]),
)
STATUSES = st.builds(
    Status,
    st.sampled_from([400, 429, 500, 503]),
    st.sampled_from(
        [
            {"message": "busy"},
            {"message": f"key {KEY} is over its limit"},
            {"message": "maximum context length is 5000 tokens"},
            {"message": "tool_choice is not supported"},
        ]
    ),
    st.sampled_from([{}, {"retry-after-ms": "1"}]),
)
GOOD = st.builds(
    Reply, calls=st.lists(st.just(("view_trace", {"n": 1})), min_size=1, max_size=3), usage=st.just((100, 20, 0))
)
DELEGATIONS = st.just(Reply(calls=[("call_subagent", {"objective": "a"}), ("call_subagent", {"objective": "b"})]))
STEPS: st.SearchStrategy[Step] = st.one_of(
    GOOD, GOOD, DELEGATIONS, REPLIES, STATUSES, st.just(answer("ok")), st.just(Reply(refusal="no"))
)


@settings(max_examples=120)
@given(st.lists(STEPS, max_size=14), st.sampled_from(["chat", "responses"]), st.booleans())
def test_whatever_the_endpoint_does_the_run_ends_within_its_budget(
    steps: Sequence[Step], wire: Wire, ends: bool
) -> None:
    left = iter(steps)

    def script(request: Json) -> Step:
        return next(left, answer("ok") if ends else Status(403))

    async def run() -> Played | EngineError:
        limits = {"max_turns": MAX_TURNS, "sub_turns": 3, "max_input_tokens": 200_000}
        try:
            with anyio.fail_after(30):
                return await play(script, wire, limits=limits)
        except EngineError as error:
            return error

    played = anyio.run(run)
    if isinstance(played, EngineError):
        assert KEY not in str(played)
        return
    outcome = played.result
    check_result(outcome)
    check_requests(played)
    assert KEY not in "".join(str(event) for event in played.events) + json.dumps(outcome.to_json())
    finished = [event.agent_id for event in played.events if event.kind == "agent_finished"]
    assert sorted(finished) == sorted(played.run.agents)


def check_result(outcome: RunResult) -> None:
    assert outcome.result.turns <= MAX_TURNS + 1
    assert outcome.totals.input_tokens <= 200_000 + 60_000
    assert outcome.result.answer
    assert outcome.result.status != "complete" or outcome.result.stop_reason is None


def check_requests(played: Played) -> None:
    for request in played.server.requests:
        assert asked_calls(request) == [*tool_results(request)], "every call is answered once, in order"
        for message in conversation(request):
            calls: list[Json] = message.get("tool_calls", [])
            written = [call["function"]["arguments"] for call in calls]
            written += [message["arguments"]] if message.get("type") == "function_call" else []
            assert all(json.loads(arguments) is not None for arguments in written)


async def test_no_secret_is_in_events_errors_logs_or_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    header = "tenant-secret-77"

    async def leak(arguments: Json) -> str:
        raise RuntimeError(f"refused for {KEY}")

    from halo_mcp.engine.types import Tool

    caplog.set_level(logging.INFO)
    steps = [
        Reply(calls=[("leak", {})]),
        Status(500, {"message": f"Incorrect API key provided: {KEY} {header}"}),
        Status(401, {"message": f"Incorrect API key provided: {KEY} {header} sk-proj-abcdefghijk"}),
    ]
    played = await play(
        steps, settings={"headers": {"x-tenant": header}}, tools=[Tool("leak", "Leaks.", {"type": "object"}, leak)]
    )
    assert played.server.headers[0]["x-tenant"] == header
    assert played.server.headers[0]["authorization"] == f"Bearer {KEY}"
    seen = str(played.events) + json.dumps(played.result.to_json()) + json.dumps(played.run.state()) + caplog.text
    seen += repr(played.run.endpoint.settings) + json.dumps(played.server.requests)
    for secret in (KEY, header, "sk-proj"):
        assert secret not in seen
    assert "Incorrect API key provided: [redacted]" in seen
