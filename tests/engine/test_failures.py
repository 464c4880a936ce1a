"""What a failure means, what an endpoint teaches, and the budget's arithmetic: without a server."""

from __future__ import annotations

import email.utils
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.engine.budget import Meter
from halo_mcp.engine.failures import Quirks, classify, redact, retry_after
from halo_mcp.engine.prompts import system_prompt
from halo_mcp.engine.settings import Limits
from halo_mcp.engine.streams import ChatStream, ResponsesStream, chat_turn, responses_turn
from halo_mcp.engine.types import Json, Usage
from halo_mcp.errors import MalformedReply


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": email.utils.formatdate(1_030, usegmt=True)}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers, now=lambda: 1_000.0) == expected


def test_what_nobody_expects_to_fail_is_not_taken_for_a_failure_of_the_endpoint() -> None:
    with pytest.raises(KeyError):
        classify(KeyError("bug"), "chat")


def test_a_window_is_only_ever_lowered() -> None:
    quirks = Quirks()
    for tokens in (8_000, 16_000, None, 12):
        quirks.learn_window(tokens)
    assert quirks.window == 8_000


def test_keys_are_taken_out_of_messages() -> None:
    text = redact("key sk-abcdefgh1 and Bearer abc.def and hunter22", ["hunter22"])
    assert text == "key [redacted] and Bearer [redacted] and [redacted]"


@pytest.mark.parametrize(
    "words", ["invalid bearer token", "Bearer token.", "the key-value-store", "bearer authentication"]
)
def test_words_about_keys_are_not_taken_for_keys(words: str) -> None:
    assert redact(words) == words


@given(st.text(), st.sampled_from(["", " bearer x1.y", "Bearer abcd.1234", "sk-12345678"]), st.text())
def test_json_without_its_keys_is_still_json(before: str, key: str, after: str) -> None:
    text = json.dumps({"text": before + key, "next": after})
    assert [*json.loads(redact(text))] == ["text", "next"]


def test_a_childs_meter_counts_against_its_parents() -> None:
    meter = Meter(Limits(max_input_tokens=1_000, max_output_tokens=100), clock=lambda: 0.0)
    meter.add(Usage(input=400, output=10))
    child = meter.share(3)
    assert child.limits.max_input_tokens == 200
    child.add(Usage(input=190, output=1))
    assert child.soft_stop() == "input_tokens"
    assert (meter.soft_stop(), meter.totals.input_tokens, meter.totals.turns) == (None, 590, 2)
    meter.add(Usage(input=500))
    assert child.hard_stop() == "input_tokens"


def odd_objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Objects with the names that replies have, and anything in them."""
    names = (
        "index id type function name arguments tool_calls content role finish_reason message delta status output usage"
    )
    return st.dictionaries(st.sampled_from(names.split()), inner)


JUNK: list[Json] = [{}, {"choices": []}, {"choices": "x"}, {"choices": [{"message": {}}]}]


@pytest.mark.parametrize("junk", JUNK)
def test_a_reply_of_the_wrong_shape_is_malformed(junk: Json) -> None:
    with pytest.raises(MalformedReply):
        chat_turn(junk)
    with pytest.raises(MalformedReply):
        responses_turn(junk)


def test_a_stream_of_odd_chunks_is_read_as_far_as_it_makes_sense() -> None:
    stream = ChatStream()
    for delta in (None, {"content": "a", "x": [1]}, {"content": None, "x": [2], "tool_calls": None}, {"content": "b"}):
        stream.feed({"choices": [{"delta": delta, "finish_reason": None}], "usage": None})
    stream.feed({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    stream.feed({"choices": None, "usage": {"prompt_tokens": None}})
    turn = stream.finish()
    assert (turn.text, turn.native) == ("ab", {"role": "assistant", "content": "ab", "x": [1, 2]})


@pytest.mark.parametrize("odd", ["abc", "7", -5, float("nan"), float("inf"), 10**400, [1], {}, True, None])
def test_counts_and_prices_that_cannot_be_are_not_reported_ones(odd: object) -> None:
    usage: Json = {"prompt_tokens": odd, "completion_tokens": odd, "cost": odd}
    usage["prompt_tokens_details"] = usage["completion_tokens_details"] = {
        "cached_tokens": odd,
        "reasoning_tokens": odd,
    }
    stream = ChatStream()
    stream.feed({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "usage": usage})
    assert stream.finish().usage == Usage()


def test_no_more_input_is_cached_than_was_sent() -> None:
    usage = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 99}, "cost": 0.5}
    turn = responses_turn({"status": "completed", "output": [], "usage": usage})
    assert turn.usage == Usage(input=10, cached=10, usd=0.5)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner) | odd_objects(inner),
    )
)
def test_whatever_a_stream_holds_it_is_a_turn_or_malformed(junk: Json) -> None:
    for stream in (ChatStream(), ResponsesStream()):
        try:
            for event in (
                {"choices": [junk]},
                {"choices": [{"delta": junk}]},
                {"type": "response.completed", "response": junk},
            ):
                stream.feed(event)
            stream.finish()
        except MalformedReply:
            pass


def test_the_prompt_speaks_only_of_tools_that_are_there() -> None:
    prompt = system_prompt({"view_trace", "final_answer"}, Limits(max_turns=7))
    assert "You have 7 turns" in prompt
    assert "view_trace" in prompt
    for absent in ("query_sql", "call_subagent", "get_dataset_overview", "search_trace"):
        assert absent not in prompt
    child = system_prompt({"call_subagent"}, Limits(sub_turns=3), depth=1, sections=["Extra."])
    assert child.startswith("You are a subagent at depth 1")
    assert child.endswith("\n\nExtra.")
