"""Inputs and outputs of model calls as clients and frameworks write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from halo_mcp.index.formats.payloads import payload
from halo_mcp.index.formats.python_repr import from_repr


def called(value: Any, *, output: bool = False) -> dict[str, Any]:
    """The attributes for a model's input or output, decoded where they are JSON."""
    made = payload(value, output=output, llm=True)
    return {key: json.loads(held) if str(held)[:1] in "[{" else held for key, held in made.items()}


def test_a_request_is_messages_system_prompt_tools_and_parameters() -> None:
    tools = [{"name": "find"}]
    request = {"model": "m", "system": "Be kind.", "tools": tools, "messages": [{"role": "user", "content": "hi"}]}
    assert called(json.dumps(request)) == {
        "llm.input_messages": [{"role": "user", "content": "hi"}],
        "gen_ai.system_instructions": "Be kind.",
        "llm.tools": tools,
        "llm.invocation_parameters": {"model": "m"},
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]},
        {"role": "assistant", "content": "yes"},
        {"output": [{"type": "message", "role": "assistant", "content": "yes"}]},
        {"messages": [{"type": "ai", "content": "yes", "response_metadata": {"x": 1}, "id": "run-1"}]},
        {"generations": [[{"text": "yes", "message": {"kwargs": {"type": "ai", "content": "yes"}}}]]},
        {"generations": [[{"text": "yes"}]]},
        {"candidates": [{"content": {"role": "model", "content": "yes"}}]},
        [{"role": "ai", "content": "yes"}],
    ],
)
def test_answers_of_every_shape_are_a_message(answer: Any) -> None:
    (message,) = called(answer, output=True)["llm.output_messages"]
    assert (message["role"], message["content"]) == ("assistant", "yes")


def test_what_stands_beside_an_answer_is_kept() -> None:
    answer = {"id": "r", "usage": {"n": 1}, "choices": [{"message": {"role": "assistant", "content": "a"}}]}
    assert called(answer, output=True)["llm.response"] == {"id": "r", "usage": {"n": 1}}


@pytest.mark.parametrize("value", ["plain", {"question": 1}, [1, 2], {"messages": ["hi"]}, "[cut", {"input": "hi"}])
def test_what_holds_no_messages_stays_as_it_is(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    assert payload(value, output=False, llm=True) == {"input.value": text}


def test_text_of_python_objects() -> None:
    assert from_repr("A(x=1, y=[B(z='q'), -2.5], n=None, e=Enum.ONE, t=(True,))") == {
        "x": 1,
        "y": [{"z": "q"}, -2.5],
        "n": None,
        "e": "Enum.ONE",
        "t": [True],
    }


@pytest.mark.parametrize(
    "text", ["", "hello", "f(", "a" * 10 + ")", "x = (1)", "(" * 5000 + ")" * 5000, "A(" * 99 + ")" * 99]
)
def test_other_text_is_none_or_harmless(text: str) -> None:
    assert from_repr(text) in (None, {})
