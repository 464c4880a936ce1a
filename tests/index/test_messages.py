"""Conversations of every convention become one readable form, and nothing that was said is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.index.messages import Conversation, Message, ToolCall, conversation
from tests.builders import Record, members

CALL = ToolCall("search", '{"q":"x"}', "c1")
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q":"x"}'}}

SHAPES: dict[str, tuple[Mapping[str, Any], tuple[Message, ...]]] = {
    "OpenInference JSON": (
        {"llm.input_messages": '[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]'},
        (Message("system", "be brief"), Message("user", "hi")),
    ),
    "OpenInference JSON, as a list": (
        {"llm.input_messages": [{"message.role": "user", "message.content": "hi"}]},
        (Message("user", "hi"),),
    ),
    "OpenInference nested": (
        {"llm.input_messages": [{"message": {"role": "user", "content": "hi"}}]},
        (Message("user", "hi"),),
    ),
    "OpenInference flat": (
        {
            "llm.input_messages.10.message.content": "later",
            "llm.input_messages.10.message.role": "user",
            "llm.input_messages.2.message.role": "assistant",
            "llm.input_messages.2.message.tool_calls.0.tool_call.id": "c1",
            "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": "search",
            "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": '{"q":"x"}',
            "llm.input_messages.3.message.role": "tool",
            "llm.input_messages.3.message.content": "found",
            "llm.input_messages.3.message.tool_call_id": "c1",
            "llm.input_messages.3.message.name": "search",
        },
        (
            Message("assistant", "", (CALL,)),
            Message("tool", "found", tool_call_id="c1", name="search"),
            Message("user", "later"),
        ),
    ),
    "OpenInference flat, multimodal": (
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "look",
            "llm.input_messages.0.message.contents.1.message_content.type": "image",
            "llm.input_messages.0.message.contents.1.message_content.image.image.url": "http://x/y.png",
        },
        (Message("user", 'look\n{"message_content":{"type":"image","image":{"image":{"url":"http://x/y.png"}}}}'),),
    ),
    "OpenAI tool calls": (
        {"llm.input_messages": json.dumps([{"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}])},
        (Message("assistant", "", (CALL,)),),
    ),
    "OpenAI parts": (
        {
            "llm.input_messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]}
            ]
        },
        (Message("user", "a\nb\nc"),),
    ),
    "Responses items": (
        {
            "llm.input_messages": [
                {"type": "function_call", "call_id": "c1", "name": "search", "arguments": '{"q":"x"}'},
                {"type": "function_call_output", "call_id": "c1", "output": "found"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
            ]
        },
        (
            Message("function_call", "", (CALL,), tool_call_id="c1"),
            Message("function_call_output", "found", tool_call_id="c1"),
            Message("assistant", "done"),
        ),
    ),
    "gen_ai parts": (
        {
            "gen_ai.input.messages": json.dumps([
                {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
                {"role": "assistant", "parts": [
                    {"type": "tool_call", "id": "c1", "name": "search", "arguments": {"q": "x"}},
                ]},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"rows": [1]}}]},
            ])
        },
        (Message("user", "hi"), Message("assistant", "", (CALL,)), Message("tool", '{"rows":[1]}', tool_call_id="c1")),
    ),
    "Anthropic blocks": (
        {
            "llm.input_messages": [
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hmm"},
                    {"type": "text", "text": "I look"},
                    {"type": "tool_use", "id": "c1", "name": "search", "input": {"q": "x"}},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "found"}]},
            ]
        },
        (Message("assistant", "hmm\nI look", (CALL,)), Message("user", "found", tool_call_id="c1")),
    ),
    "Traceloop flat": (
        {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "hi",
            "gen_ai.prompt.1.role": "assistant",
            "gen_ai.prompt.1.tool_calls.0.id": "c1",
            "gen_ai.prompt.1.tool_calls.0.name": "search",
            "gen_ai.prompt.1.tool_calls.0.arguments": '{"q":"x"}',
        },
        (Message("user", "hi"), Message("assistant", "", (CALL,))),
    ),
    "a wrapper": (
        {"llm.input_messages": '{"messages":[{"role":"user","content":"hi"}]}'},
        (Message("user", "hi"),),
    ),
    "one message": ({"llm.input_messages": '{"role":"user","content":"hi"}'}, (Message("user", "hi"),)),
    "content that is an object": (
        {"llm.input_messages": [{"role": "tool", "content": {"type": "text", "text": "hi"}}]},
        (Message("tool", "hi"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_folded_into_roles_contents_and_tool_calls(shape: str) -> None:
    attributes, expected = SHAPES[shape]
    found = conversation(attributes, "input")
    assert found is not None
    assert found.messages == expected
    assert found.keys == set(attributes)
    assert conversation(attributes, "output") is None


@pytest.mark.parametrize("key", ["llm.output_messages", "gen_ai.output.messages"])
def test_output_messages_are_told_from_input_messages(key: str) -> None:
    found = conversation({key: '[{"role":"assistant","content":"x"}]'}, "output")
    assert found is not None
    assert (found.key, found.messages) == (key, (Message("assistant", "x"),))


def test_of_json_and_flat_copies_the_json_is_shown_and_all_keys_are_named() -> None:
    attributes = {
        "llm.input_messages": '[{"role":"user","content":"hi"}]',
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hi",
        "llm.model_name": "m",
    }
    found = conversation(attributes, "input")
    assert found is not None
    assert found.key == "llm.input_messages"
    assert found.messages == (Message("user", "hi"),)
    assert found.keys == set(attributes) - {"llm.model_name"}


def test_the_attribute_to_ask_for_is_named_for_flat_messages_too() -> None:
    found = conversation({"gen_ai.prompt.0.content": "hi"}, "input")
    assert found is not None
    assert found.key == "gen_ai.prompt"


@pytest.mark.parametrize(
    "value", [None, "", "plain text", "[", "{not json", "[1, 2]", [], [1], 5, True, "[]", '"text"']
)
def test_what_is_no_message_list_is_left_to_be_shown_as_it_is(value: Any) -> None:
    assert conversation({"llm.input_messages": value}, "input") is None


def test_flat_messages_stand_in_where_the_json_cannot_be_read() -> None:
    attributes = {"llm.input_messages": "[cut", "llm.input_messages.0.message.content": "hi"}
    found = conversation(attributes, "input")
    assert found is not None
    assert found.messages == (Message("?", "hi"),)
    assert found.keys == {"llm.input_messages.0.message.content"}


# --- nothing is lost ---
def said(found: Conversation) -> str:
    parts: list[str] = []
    for message in found.messages:
        parts += [message.role, message.content, message.tool_call_id, message.name]
        for call in message.tool_calls:
            parts += [call.name, call.arguments, call.id]
    return "\n".join(parts)


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for member in members(value):
        yield from leaves(member)


words = st.uuids().map(str)
parts: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": words}),
    st.fixed_dictionaries({"type": st.just("text"), "content": words}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": words}),
    st.fixed_dictionaries({"type": st.just("text"), "text": words, "annotations": st.lists(words, max_size=2)}),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": words}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": words})}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": words, "name": words, "input": st.fixed_dictionaries({"q": words})}
    ),
    st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": words, "content": words}),
    st.fixed_dictionaries({"type": st.just("tool_call_response"), "id": words, "result": st.lists(words, max_size=2)}),
    st.fixed_dictionaries({"weird": words, "other": st.fixed_dictionaries({"deep": words})}),
    words,
)
calls: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"id": words, "function": st.fixed_dictionaries({"name": words, "arguments": words})}),
    st.fixed_dictionaries({"id": words, "name": words, "arguments": st.fixed_dictionaries({"q": words})}),
    st.fixed_dictionaries(
        {"tool_call": st.fixed_dictionaries({"id": words, "function": st.fixed_dictionaries({"name": words})})}
    ),
    st.fixed_dictionaries({"call_id": words, "name": words, "input": words}),
    st.fixed_dictionaries({"tool_call.function.name": words, "tool_call.function.arguments": words}),
)
message_lists: st.SearchStrategy[list[Record]] = st.lists(
    st.fixed_dictionaries(
        {"role": words},
        optional={
            "content": st.one_of(words, st.none(), parts, st.lists(parts, max_size=3)),
            "parts": st.lists(parts, max_size=3),
            "contents": st.lists(
                st.fixed_dictionaries({"message_content": st.fixed_dictionaries({"text": words})}), max_size=2
            ),
            "output": words,
            "tool_calls": st.lists(calls, max_size=3),
            "tool_call_id": words,
            "name": words,
            "reasoning_content": words,
            "refusal": words,
            "function_call": st.fixed_dictionaries({"name": words, "arguments": words}),
            "finish_reason": words,
        },
    ),
    min_size=1,
    max_size=4,
)
KINDS_OF_PARTS = {
    *("text", "thinking", "refusal", "image_url", "tool_use", "tool_result", "tool_call_response"),
}


@given(messages=message_lists, as_text=st.booleans(), wrapped=st.booleans())
def test_every_text_of_a_message_list_appears_in_what_is_shown(
    messages: list[Record], as_text: bool, wrapped: bool
) -> None:
    value: Any = {"messages": messages} if wrapped else messages
    found = conversation({"llm.input_messages": json.dumps(value) if as_text else value}, "input")
    assert found is not None
    shown = said(found)
    assert [text for text in leaves(messages) if text not in shown and text not in KINDS_OF_PARTS] == []


@given(texts=st.lists(st.text(), min_size=1, max_size=12), start=st.integers(0, 9))
def test_every_text_of_flattened_messages_appears_in_the_order_of_their_numbers(texts: list[str], start: int) -> None:
    flat = {f"llm.output_messages.{start + number}.message.content": text for number, text in enumerate(texts)}
    found = conversation(dict(sorted(flat.items())), "output")
    assert found is not None
    assert [message.content for message in found.messages] == texts


@given(
    flat=st.dictionaries(
        st.lists(
            st.sampled_from(["0", "1", "message", "content", "tool_calls", "role", ""]), min_size=1, max_size=5
        ).map(".".join),
        st.sampled_from([None, "x", 5, True, [], {"a": "b"}, ["y"]]),
        max_size=6,
    )
)
def test_no_odd_key_breaks_the_folding(flat: dict[str, Any]) -> None:
    conversation({f"llm.input_messages.{key}": value for key, value in flat.items()}, "input")
    conversation({f"gen_ai.completion.{key}": value for key, value in flat.items()}, "output")


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
member_names = st.sampled_from(
    ["role", "type", "content", "parts", "message", "tool_calls", "tool_call", "function", "id", "x", "messages"]
)
values = st.recursive(
    st.one_of(scalars, st.sampled_from(["tool_use", "tool_result", "function_call"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(member_names, inner, max_size=4),
    max_leaves=12,
)


@given(value=values)
def test_no_odd_value_breaks_the_folding(value: Any) -> None:
    conversation({"llm.input_messages": value, "gen_ai.input.messages": [value]}, "input")
