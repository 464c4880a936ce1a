"""Long conversations: caps, clearing, summaries, reading back, and servers that say it is too long."""

from __future__ import annotations

import json

import pytest

from halo_mcp.engine.settings import Wire
from halo_mcp.engine.types import Json
from tests.engine.fake_llm import Reply, Status, Step, answer, conversation, tool_results
from tests.engine.harness import WIRES, play

SUMMARY = "You shorten the record"


def big(number: int) -> Reply:
    return Reply(calls=[("big", {"n": number})], usage=None)


def size(request: Json) -> int:
    return len(json.dumps(conversation(request)))


def is_summary(request: Json) -> bool:
    return str(request.get("instructions") or request["messages"][0]["content"]).startswith(SUMMARY)


@WIRES
async def test_a_large_result_is_shown_in_part_and_read_on_from_an_offset(wire: Wire) -> None:
    read_on = Reply(calls=[("get_context_item", {"item_id": "r1", "offset": 8_900})])
    bad = Reply(
        calls=[("get_context_item", {"item_id": "r9"}), ("get_context_item", {"item_id": "r1", "offset": 99_999})]
    )
    played = await play([big(7), read_on, bad, answer("ok")], wire, settings={"result_chars": 1_000})
    shown = [*tool_results(played.server.requests[3]).values()]
    assert shown[0].endswith("[characters 0 to 1,000 of 9,006; get_context_item(item_id='r1', offset=1000) reads on]")
    assert shown[1].endswith("[characters 8,900 to 9,006 of 9,006]")
    assert "END" in shown[1]
    assert "there is no item 'r9'; there are r1 to r1" in shown[2]
    assert "offset must be" in shown[3]


@WIRES
async def test_old_results_are_cleared_and_can_be_read_again(wire: Wire) -> None:
    def script(request: Json) -> Step:
        done = len(tool_results(request))
        if done < 15:
            return big(done)
        return Reply(calls=[("get_context_item", {"item_id": "r1"})], usage=None) if done == 15 else answer("ok")

    played = await play(script, wire, settings={"context_tokens": 20_000})
    assert max(size(request) for request in played.server.requests) < 80_000
    last = [*tool_results(played.server.requests[-1]).values()]
    assert last[0].startswith("[cleared, 9,006 characters; get_context_item(item_id='r1') has them]\n<untrusted-")
    assert last[-1].count("x") >= 9_000
    assert {data["how"] for data in played.data("compacted")} == {"cleared"}
    assert len(played.server.requests) == 17


@WIRES
async def test_a_conversation_that_clearing_cannot_shorten_is_summarised_once(wire: Wire) -> None:
    wordy = "I think that the timeouts matter. " * 100

    def script(request: Json) -> Step:
        if is_summary(request):
            return Reply(text="Seen so far: timeouts in t1.", usage=None)
        turns = len(tool_results(request))
        shortened = any("Seen so far" in str(item.get("content")) for item in conversation(request))
        return answer("ok") if shortened else Reply(text=wordy, calls=[("view_trace", {"n": turns})], usage=None)

    played = await play(script, wire, settings={"context_tokens": 10_000, "summary_model": "small"})
    summaries = [request for request in played.server.requests if is_summary(request)]
    assert [request["model"] for request in summaries] == ["small"]
    last = conversation(played.server.requests[-1])
    assert last[0]["content"] == "What goes wrong?"
    assert "Seen so far: timeouts in t1." in last[1]["content"]
    assert len(tool_results(played.server.requests[-1])) == 3
    assert played.result.result.status == "complete"


@WIRES
@pytest.mark.parametrize(
    "error",
    [
        {"message": "This model's maximum context length is 6000 tokens.", "code": "context_length_exceeded"},
        {"message": "prompt is too long: 9000 tokens > 6000 maximum", "code": "400"},
    ],
)
async def test_a_request_that_is_too_long_is_shortened_and_the_window_is_learned(error: Json, wire: Wire) -> None:
    def script(request: Json) -> Step:
        if size(request) > 25_000:
            return Status(400, error)
        done = len(tool_results(request))
        return big(done) if done < 5 else answer("ok")

    played = await play(script, wire)
    assert played.result.result.answer == "ok"
    assert played.run.window("m") == 6_000
    assert any(data["how"] == "cleared" for data in played.data("compacted"))


@WIRES
async def test_a_single_turn_that_is_too_long_is_cut_down(wire: Wire) -> None:
    def script(request: Json) -> Step:
        if size(request) > 25_000:
            return Status(400, {"message": "exceeds the available context size", "code": None})
        return answer("ok") if tool_results(request) else Reply(calls=[("big", {"n": n}) for n in range(4)], usage=None)

    played = await play(script, wire)
    assert played.result.result.answer == "ok"
    assert [data["how"] for data in played.data("compacted")] == ["shrunk"]


@WIRES
async def test_a_context_that_nothing_helps_ends_with_what_was_found(wire: Wire) -> None:
    def script(request: Json) -> Step:
        return Status(400, {"message": "maximum context", "code": None}) if tool_results(request) else big(1)

    played = await play(script, wire)
    result = played.result.result
    assert (result.status, result.stop_reason) == ("partial", "context")
    assert "- big(n=1): 9,006 characters" in result.answer
    assert played.result.totals.requests == 3
