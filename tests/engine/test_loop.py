"""The agent's loop against a scripted model over real sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from halo_mcp.engine.ask import ask
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.requests import one_call
from halo_mcp.engine.run import Hooks, Run
from halo_mcp.engine.settings import Limits, Wire
from halo_mcp.engine.subagents import root_of
from halo_mcp.engine.types import FinalAnswer, Json, LedgerItem, ToolSpec, Verification
from halo_mcp.errors import BadArgument, GaveUp, MalformedReply, ModelRejected
from tests.engine.fake_llm import (
    FakeLLM,
    Hang,
    Raw,
    Reply,
    Status,
    Step,
    answer,
    asked_calls,
    conversation,
    tool_results,
)
from tests.engine.harness import TOOLS, WIRES, play, settings_for

LOOK = Reply(calls=[("view_trace", {"n": 1})])


@WIRES
async def test_tools_run_and_the_final_answer_ends_the_run(wire: Wire) -> None:
    finding = {"claim": "timeouts", "severity": "high", "evidence": [{"trace_id": "t1", "quote": "tool timeout"}]}
    two = Reply(text="Looking.", calls=[("view_trace", {"n": 1}), ("view_trace", {"n": 2})])
    played = await play([two, answer("ok", findings=[finding])], wire)
    result = played.result.result
    assert (result.status, result.answer, result.findings[0].claim) == ("complete", "ok", "timeouts")
    assert (result.turns, result.tool_calls, played.result.totals.requests) == (2, 2, 2)
    assert (played.result.totals.input_tokens, played.result.totals.output_tokens) == (200, 40)
    assert played.server.paths == ["/v1/chat/completions" if wire == "chat" else "/v1/responses"] * 2
    shown = tool_results(played.server.requests[1])
    assert [*shown] == asked_calls(played.server.requests[1])
    assert [text.splitlines()[1] for text in shown.values()] == ["trace 1: tool timeout", "trace 2: tool timeout"]
    assert all(text.startswith("<untrusted-") for text in shown.values())
    assert "".join(data["text"] for data in played.data("text")) == "Looking."
    note = str(conversation(played.server.requests[0])[-1]["content"])
    assert note == "[turn 1 of 20.]"
    assert note not in json.dumps(played.server.requests[1])


@WIRES
async def test_what_only_the_server_knows_is_sent_back_as_it_was(wire: Wire) -> None:
    extra = {"reasoning_content": "hm"} if wire == "chat" else {"encrypted_content": "gAAA"}
    played = await play([Reply(calls=[("view_trace", {})], extra=extra), answer()], wire)
    [(key, value)] = extra.items()
    assert [value] == [item[key] for item in conversation(played.server.requests[1]) if key in item]


FAULTS = [
    Reply(calls=[("view_trace", {"n": 1})], cut_after=2),
    Reply(calls=[("view_trace", {"n": 1})], end_after=2),
    Reply(calls=[("view_trace", {"n": 1})], error_after=(1, {"message": "overloaded", "code": "server_error"})),
    Reply(calls=[("view_trace", {"n": 1})], garbage_after=1),
    Status(500),
    Status(429, {"message": "slow down"}, {"retry-after-ms": "1"}),
    Status(408),
]


@WIRES
@pytest.mark.parametrize("fault", FAULTS, ids=["cut", "early end", "error", "garbage", "500", "429", "408"])
async def test_a_failed_request_is_repeated_and_leaves_no_trace_in_the_history(wire: Wire, fault: Step) -> None:
    played = await play([LOOK, fault, answer("ok")], wire)
    assert played.result.result.answer == "ok"
    assert played.server.requests[1] == played.server.requests[2]
    assert (played.result.totals.turns, played.result.totals.requests) == (2, 3)
    assert len(played.data("retry")) == 1


@WIRES
async def test_a_stream_that_ends_before_its_finish_does_not_count_even_with_whole_arguments(wire: Wire) -> None:
    # The last events: finish_reason, usage, [DONE] on chat; response.completed on responses.
    cut = Reply(calls=[("view_trace", {"n": 1})], end_after=-3 if wire == "chat" else -1)
    played = await play([cut, answer("ok")], wire)
    assert (played.result.result.answer, played.result.result.tool_calls) == ("ok", 0)
    assert asked_calls(played.server.requests[1]) == []


@WIRES
async def test_json_that_python_cannot_hold_is_a_failed_request_and_no_crash(wire: Wire) -> None:
    bombs = [
        Raw(b'data: {"id": ' + b"[" * 100_000 + b"\n\n"),
        Raw(b'data: {"id": ' + b"9" * 5_000 + b"}\n\n"),
        Raw(b"data: \xff\xfe{}\n\n"),
    ]
    played = await play([LOOK, *bombs, answer("ok")], wire)
    assert (played.result.result.status, played.result.result.answer) == ("complete", "ok")


@WIRES
async def test_after_two_unreadable_streams_the_next_request_does_not_stream(wire: Wire) -> None:
    bad = Reply(text="half", end_after=1)
    played = await play([bad, bad, LOOK, answer("ok")], wire)
    assert [request.get("stream", False) for request in played.server.requests] == [True, True, False, False]
    assert played.result.result.answer == "ok"


async def test_a_dead_endpoint_is_one_clear_error_after_six_requests() -> None:
    with pytest.raises(GaveUp, match=r"llm_failures.*status 503"):
        await play(lambda request: Status(503))
    played = await play([LOOK, *[Status(503)] * 6])
    assert played.result.totals.requests == 7
    result = played.result.result
    assert (result.status, result.stop_reason, result.salvaged) == ("partial", "llm_failures", True)
    assert "view_trace(n=1)" in result.answer


async def test_failures_between_successes_do_not_add_up() -> None:
    steps: list[Step] = []
    for _ in range(9):
        steps += [Status(500), LOOK]
    played = await play([*steps, answer("ok")])
    assert played.result.result.status == "complete"


async def test_an_endpoint_that_cannot_be_reached_is_named_without_what_is_secret_in_its_address() -> None:
    async with FakeLLM([]) as server:
        host = server.base_url.removesuffix("/v1").removeprefix("http://")
        settings = replace(settings_for(server), base_url=f"http://me:hunter22@{host}/v1")
    run = Run(Endpoint(settings), TOOLS)
    with pytest.raises(GaveUp, match=f"http://{host} cannot be reached") as caught:
        await ask(run, "why?")
    assert "hunter22" not in str(caught.value)


@WIRES
async def test_no_quota_is_fatal_after_one_request_and_before_any_turn_an_error(wire: Wire) -> None:
    quota = Status(429, {"message": "You exceeded your current quota", "code": "insufficient_quota"})
    with pytest.raises(ModelRejected, match="no quota left"):
        await play([quota], wire)
    played = await play([LOOK, quota], wire)
    assert (played.result.totals.requests, played.result.result.stop_reason) == (2, "rejected_by_endpoint")


@WIRES
@pytest.mark.parametrize(
    "status, expected",
    [(Status(401), "OPENAI_API_KEY"), (Status(404, {"message": "no model m"}), "HALO_MCP_MODEL"), (Status(418), "418")],
)
async def test_what_no_repetition_cures_is_one_sentence(status: Status, expected: str, wire: Wire) -> None:
    with pytest.raises(ModelRejected, match=expected):
        await play([status], wire)


async def test_an_empty_question_is_refused_before_anything_is_sent() -> None:
    async with FakeLLM([]) as server:
        with pytest.raises(BadArgument, match="empty"):
            await ask(Run(Endpoint(settings_for(server)), TOOLS), "  ")
        assert server.requests == []


@WIRES
async def test_bad_calls_are_answered_with_text(wire: Wire) -> None:
    calls: Sequence[tuple[str, object]] = [("nope", {}), ("fail", {}), ("view_trace", '{"n": '), ("view_trace", "[1]")]
    played = await play([Reply(calls=calls), answer("ok")], wire)
    texts = [*tool_results(played.server.requests[1]).values()]
    assert "there is no tool 'nope'. Tools: view_trace, big" in texts[0]
    assert "error: RuntimeError: disk on fire" in texts[1]
    assert texts[2:] == ["error: the arguments are no JSON object"] * 2
    # A server parses the arguments of replayed calls: what it could not read is not sent back.
    assert '{\\"n\\": ' not in json.dumps(played.server.requests[1])


@WIRES
async def test_a_call_cut_off_by_the_output_limit_is_explained(wire: Wire) -> None:
    cut = Reply(calls=[("view_trace", {"n": 1}), ("view_trace", '{"n": ')], finish="length")
    played = await play([cut, answer("ok")], wire)
    texts = [*tool_results(played.server.requests[1]).values()]
    assert "trace 1" in texts[0]
    assert texts[1] == "error: the call was cut off by the output limit; use shorter arguments"


@WIRES
async def test_no_more_than_32_calls_of_a_turn_are_run_and_each_is_answered(wire: Wire) -> None:
    many = Reply(calls=[("view_trace", {"n": n}) for n in range(500)])
    played = await play([many, answer("ok")], wire)
    texts = [*tool_results(played.server.requests[1]).values()]
    assert [("trace" in text) for text in texts] == [True] * 32 + [False] * 468
    assert set(texts[32:]) == {"not run: more than 32 calls in one turn"}
    assert (played.result.result.status, played.result.tool_calls) == ("complete", 32)


@WIRES
async def test_call_ids_that_repeat_are_made_different(wire: Wire) -> None:
    same = Reply(calls=[("view_trace", {"n": 1}), ("view_trace", {"n": 2})], ids=["a", "a"])
    # On chat the two would share an index as well, as servers that repeat ids do not.
    played = await play([same, Reply(calls=[("view_trace", {"n": 3})], ids=["a"]), answer("ok")], wire)
    shown = tool_results(played.server.requests[2])
    assert [*shown] == asked_calls(played.server.requests[2]) == ["a", "a_2", "a_3"]
    assert [f"trace {n}" in text for n, text in enumerate(shown.values(), 1)] == [True] * 3


async def test_calls_that_share_index_0_or_have_no_id_or_object_arguments_are_told_apart() -> None:
    pair = [("view_trace", {"n": 1}), ("view_trace", {"n": 2})]
    odd = [
        Reply(calls=pair, same_index=True),
        Reply(calls=pair, ids=[None, None]),
        Reply(calls=pair, object_arguments=True),
    ]
    played = await play([*odd, answer("ok")])
    shown = tool_results(played.server.requests[3])
    assert [*shown] == asked_calls(played.server.requests[3])
    assert [text.splitlines()[1][:7] for text in shown.values()] == ["trace 1", "trace 2"] * 3


@WIRES
async def test_the_last_turn_is_forced_to_be_the_answer(wire: Wire) -> None:
    def script(request: Json) -> Step:
        return answer("in time") if "tool_choice" in request else LOOK

    played = await play(script, wire, limits={"max_turns": 3})
    result = played.result.result
    assert (result.status, result.stop_reason, result.turns, result.answer) == ("partial", "turns", 3, "in time")
    assert "final_answer" in json.dumps(played.server.requests[2]["tool_choice"])
    assert [request["tools"] for request in played.server.requests] == [played.server.requests[0]["tools"]] * 3


@WIRES
async def test_a_model_that_calls_tools_on_its_last_turn_is_asked_for_plain_text(wire: Wire) -> None:
    def script(request: Json) -> Step:
        return Reply(text="in words") if request.get("tool_choice") == "none" else LOOK

    played = await play(script, wire, limits={"max_turns": 2})
    result = played.result.result
    assert (result.status, result.answer, result.turns) == ("unstructured", "in words", 3)
    assert [*tool_results(played.server.requests[2]).values()][-1] == "not run: this was the last turn"


@WIRES
async def test_a_model_that_never_answers_ends_with_what_was_looked_at(wire: Wire) -> None:
    played = await play(lambda request: LOOK, wire, limits={"max_turns": 2})
    result = played.result.result
    assert (result.status, result.stop_reason, result.turns) == ("partial", "turns", 3)
    assert "- view_trace(n=1): 21 characters" in result.answer


@WIRES
async def test_the_turn_for_plain_text_is_not_beyond_the_turns_of_the_run(wire: Wire) -> None:
    played = await play(lambda request: LOOK, wire, limits={"max_turns": 9, "run_turns": 3})
    assert (played.result.result.stop_reason, played.result.totals.turns, len(played.server.requests)) == (
        "turns",
        3,
        3,
    )


@WIRES
@pytest.mark.parametrize(
    "limits, usage, stop",
    [
        ({"max_input_tokens": 10_000}, (4_000, 1, 0), "input_tokens"),
        ({"max_output_tokens": 1_000}, (10, 460, 0), "output_tokens"),
        ({"run_turns": 3}, (10, 1, 0), "turns"),
    ],
)
async def test_at_90_percent_of_a_budget_the_next_turn_is_the_answer(
    limits: Json, usage: tuple[int, int, int], stop: str, wire: Wire
) -> None:
    look = Reply(calls=[("view_trace", {})], usage=usage)

    def script(request: Json) -> Step:
        return Reply(calls=answer("short").calls, usage=(10, 1, 0)) if "tool_choice" in request else look

    played = await play(script, wire, limits={"max_depth": 0, **limits})
    result = played.result.result
    assert (result.status, result.stop_reason, result.answer) == ("partial", stop, "short")
    assert result.turns <= 4


@WIRES
@pytest.mark.parametrize("by_server", [True, False])
async def test_a_cost_limit_counts_the_servers_cost_or_our_price(by_server: bool, wire: Wire) -> None:
    from halo_mcp.engine.settings import ModelPrice

    look = Reply(calls=[("view_trace", {})], usage=(1_000_000, 0, 500_000), cost=0.75 if by_server else None)
    prices = {} if by_server else {"m": ModelPrice(input=1.0, output=2.0, cached=0.5)}
    limits = {"max_usd": 1.6, "max_input_tokens": 10**9}
    played = await play(
        lambda request: answer() if "tool_choice" in request else look, wire, settings={"prices": prices}, limits=limits
    )
    assert (played.result.result.stop_reason, played.result.result.turns) == ("usd", 3)
    assert played.result.totals.usd == pytest.approx(1.5 if by_server else 1.50014)


async def test_a_cost_limit_without_any_price_says_that_it_is_not_kept() -> None:
    played = await play([LOOK, answer()], limits={"max_usd": 1.0})
    assert [*played.result.warnings] == ["The cost limit is not kept: there is no price for model 'm'."]


@WIRES
async def test_a_budget_that_is_used_up_ends_the_run_without_another_request(wire: Wire) -> None:
    played = await play(
        [Reply(text="I saw timeouts.", calls=LOOK.calls, usage=(10, 2_000, 0))],
        wire,
        limits={"max_output_tokens": 1_000},
    )
    result = played.result.result
    assert (result.stop_reason, result.salvaged, played.result.totals.requests) == ("output_tokens", True, 1)
    assert "I saw timeouts." in result.answer


@WIRES
async def test_time_that_runs_out_closes_the_stream_and_keeps_what_was_found(wire: Wire) -> None:
    played = await play([LOOK, Hang()], wire, limits={"max_seconds": 1.0})
    assert (played.result.result.stop_reason, played.result.result.salvaged) == ("seconds", True)


@WIRES
async def test_a_wait_longer_than_the_run_is_not_begun(wire: Wire) -> None:
    played = await play([LOOK, Status(429, None, {"retry-after": "3600"})], wire)
    assert (played.result.result.stop_reason, played.result.totals.requests) == ("rate_limited", 2)


@WIRES
async def test_a_silent_stream_is_a_failure(wire: Wire) -> None:
    played = await play([LOOK, Hang(), answer("ok")], wire, settings={"idle_s": 0.2})
    assert (played.result.result.answer, played.result.totals.requests) == ("ok", 3)


@WIRES
async def test_a_refusal_is_answered_once(wire: Wire) -> None:
    played = await play([Reply(refusal="I cannot."), LOOK, answer("ok")], wire)
    assert played.result.result.answer == "ok"
    assert "I cannot." not in json.dumps(played.server.requests[1])
    refused = await play([LOOK, *[Reply(refusal="I cannot.")] * 2], wire)
    assert (refused.result.result.stop_reason, refused.result.result.turns) == ("refused", 3)


@WIRES
async def test_a_model_that_only_narrates_is_nudged_and_then_taken_at_its_word(wire: Wire) -> None:
    played = await play([LOOK, *[Reply(text="I will look now.")] * 2, Reply(text="It is the timeouts.")], wire)
    result = played.result.result
    assert (result.status, result.answer, result.turns) == ("unstructured", "It is the timeouts.", 4)
    silent = await play([LOOK, *[Reply()] * 3], wire)
    assert silent.result.result.stop_reason == "no_answer"


@WIRES
async def test_an_answer_with_problems_goes_back_once_and_is_then_flagged(wire: Wire) -> None:
    seen: list[Sequence[LedgerItem]] = []

    async def verify(answer: FinalAnswer, items: Sequence[LedgerItem]) -> Verification:
        seen.append(items)
        return Verification(["there is no trace t9"] if "t9" in answer.answer else [], {"checked": 1})

    steps = [LOOK, answer("see t9"), answer("see t9 still")]
    played = await play(steps, wire, hooks=Hooks(verify=verify))
    result = played.result.result
    assert (result.status, result.answer, result.problems) == ("complete", "see t9 still", ["there is no trace t9"])
    assert result.report == {"checked": 1}
    assert "- there is no trace t9" in [*tool_results(played.server.requests[2]).values()][-1]
    assert [item.text for item in seen[0]] == ["trace 1: tool timeout"]
    fixed = await play([LOOK, answer("see t9"), answer("see t1")], wire, hooks=Hooks(verify=verify))
    assert (fixed.result.result.answer, fixed.result.result.problems) == ("see t1", [])
    lost = await play([LOOK, answer("see t9"), *[Status(500)] * 6], wire, hooks=Hooks(verify=verify))
    assert "see t9" in lost.result.result.answer


async def test_a_check_that_fails_does_not_lose_the_answer() -> None:
    async def verify(answer: FinalAnswer, items: Sequence[LedgerItem]) -> Verification:
        raise OSError("no disk")

    played = await play([answer("ok"), answer("ok")], hooks=Hooks(verify=verify))
    assert (played.result.result.answer, len(played.result.result.problems)) == ("ok", 1)


@WIRES
async def test_an_answer_of_the_wrong_form_is_explained(wire: Wire) -> None:
    bad = Reply(calls=[("final_answer", {"answer": "x", "findings": [{"severity": "high"}]})])
    played = await play([bad, answer("ok")], wire)
    assert "findings.0.claim: Field required" in next(iter(tool_results(played.server.requests[1]).values()))
    assert played.result.result.answer == "ok"


WRONG_WIRE: Sequence[tuple[Wire, Status]] = (
    ("chat", Status(400, {"message": "Function tools need /v1/responses for this model", "code": None})),
    ("chat", Status(404, {"message": "Not Found", "code": None})),
    ("chat", Status(405, {"message": "Method Not Allowed", "code": None})),
    ("responses", Status(404, {"message": "Not Found", "code": None})),
)


@pytest.mark.parametrize("first, refusal", WRONG_WIRE)
async def test_the_other_wire_is_tried_once_and_remembered(first: Wire, refusal: Status) -> None:
    async with FakeLLM([refusal, answer("one"), answer("two")]) as server:
        endpoint = Endpoint(settings_for(server, None))
        if first == "responses":
            endpoint.quirks("m").wire = "responses"
        for question, expected in (("a", "one"), ("b", "two")):
            assert (await ask(Run(endpoint, TOOLS), question)).result.answer == expected
        await endpoint.aclose()
        other = "responses" if first == "chat" else "chat/completions"
        assert [path.removeprefix("/v1/") == other for path in server.paths] == [False, True, True]


async def test_a_second_switch_is_refused() -> None:
    def script(request: Json) -> Step:
        return Status(404) if "input" in request else Status(400, {"message": "use /v1/responses", "code": None})

    with pytest.raises(ModelRejected):
        await play(script, None)


async def test_an_address_with_neither_wire_is_said_after_two_requests() -> None:
    async with FakeLLM(lambda request: Status(404, {"message": "Not Found", "code": None})) as server:
        endpoint = Endpoint(settings_for(server, None))
        with pytest.raises(ModelRejected, match=r"Not Found\. Check HALO_MCP_MODEL and OPENAI_BASE_URL"):
            await ask(Run(endpoint, TOOLS), "What goes wrong?")
        await endpoint.aclose()
        assert server.paths == ["/v1/chat/completions", "/v1/responses"]


async def test_an_unknown_model_is_no_reason_to_try_the_other_wire() -> None:
    async with FakeLLM([Status(404, {"message": "Model 'm' not found, try pulling it first", "code": None})]) as server:
        endpoint = Endpoint(settings_for(server, None))
        with pytest.raises(ModelRejected, match="not found, try pulling it first"):
            await ask(Run(endpoint, TOOLS), "What goes wrong?")
        await endpoint.aclose()
        assert len(server.requests) == 1


async def test_a_parameter_that_the_endpoint_does_not_take_is_left_out_from_then_on() -> None:
    def script(request: Json) -> Step:
        for name in ("stream_options", "temperature", "max_completion_tokens"):
            if name in request:
                return Status(
                    400, {"message": f"Unsupported parameter: '{name}'", "code": "unsupported_parameter", "param": name}
                )
        return answer("ok") if len(conversation(request)) > 2 else LOOK

    played = await play(script, settings={"temperature": 0.5, "max_output_tokens": 900})
    assert (played.result.result.answer, played.result.totals.requests) == ("ok", 5)
    assert played.server.requests[-1]["max_tokens"] == 900
    assert [data["dropped"] for data in played.data("learned")] == [
        "stream_options",
        "temperature",
        "max_completion_tokens",
    ]


@WIRES
async def test_a_server_that_reads_only_a_part_is_noticed(wire: Wire) -> None:
    calls = [("big", {"n": 1}), ("big", {"n": 2})]
    usages = ((500, 10, 0), (2_048, 10, 0), (2_050, 10, 0))
    steps = [*(Reply(calls=calls, usage=usage) for usage in usages), Reply(calls=answer().calls, usage=(2_050, 10, 0))]
    played = await play(steps, wire)
    (warning,) = played.result.warnings  # once, although two replies say so
    assert warning.startswith("The server counts far fewer input tokens than were sent")
    assert "First seen: 2,048 counted, about 5," in warning


@WIRES
async def test_tokens_that_nobody_reports_are_estimated(wire: Wire) -> None:
    played = await play([Reply(calls=LOOK.calls, usage=None), Reply(calls=answer().calls, usage=None)], wire)
    assert played.result.totals.estimated_turns == 2
    assert played.result.totals.input_tokens > 1_000


@WIRES
async def test_a_cancelled_run_closes_its_socket_and_the_endpoint_still_works(wire: Wire) -> None:
    async with FakeLLM([LOOK, Hang(), answer("ok")]) as server:
        endpoint = Endpoint(settings_for(server, wire))
        async with anyio.create_task_group() as group:
            group.start_soon(ask, Run(endpoint, TOOLS), "why?")
            with anyio.fail_after(10):
                await server.hanging.wait()
            group.cancel_scope.cancel()
        await server.idle()
        assert server.disconnects == [1]
        assert (await ask(Run(endpoint, TOOLS, limits=Limits(max_turns=2)), "again?")).result.answer == "ok"
        await endpoint.aclose()


@WIRES
async def test_one_call_asks_for_one_forced_tool_call_and_counts(wire: Wire) -> None:
    label = ToolSpec("label", "Labels traces.", {"type": "object"})
    fenced = Reply(text='```json\n{"rows": [2]}\n```')
    async with FakeLLM([Status(500), Reply(calls=[("label", {"rows": [1]})]), fenced, Reply(text="no")]) as server:
        endpoint = Endpoint(settings_for(server, wire))
        run = Run(endpoint, TOOLS)
        root = root_of(run, "why?")
        assert await one_call(run, root, "Label.", "t1 t2", label) == {"rows": [1]}
        assert await one_call(run, root, "Label.", "t3", label) == {"rows": [2]}
        with pytest.raises(MalformedReply, match="did not call label"):
            await one_call(run, root, "Label.", "t4", label)
        assert (run.meter.totals.turns, run.meter.totals.requests, len(conversation(server.requests[0]))) == (3, 4, 1)
        await endpoint.aclose()
