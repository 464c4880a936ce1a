"""Messages as clients and frameworks spell them inside the inputs and outputs of a model call.

Requests and answers of OpenAI (chat completions, responses), Anthropic's and Gemini's lists, and LangChain's messages
(plain, wrapped in ``kwargs``, in ``generations``, in a list of lists) become ``{"role", "content", "tool_calls"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.values import attribute_value, given, parsed
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping

_ROLES: Final = {"human": "user", "ai": "assistant", "model": "assistant", "AIMessageChunk": "assistant"}
_LANGCHAIN_TYPES: Final = frozenset(("human", "ai", "system", "tool", "function", "chat", "AIMessageChunk"))
_ITEM_TYPES: Final = frozenset(
    ("message", "function_call", "function_call_output", "reasoning", "web_search_call", "file_search_call")
)
_NOT_SAID: Final = ("example", "id", "response_metadata", "usage_metadata", "invalid_tool_calls", "lc_attributes")
"""Of a LangChain message: bookkeeping, not words."""
_SYSTEM: Final = ("system", "instructions", "system_instruction", "systemInstruction")
_LISTS: Final = ("messages", "input", "output", "contents")


def split_messages(value: Json) -> tuple[list[Json], dict[str, Json]]:
    """(messages in a model's input or output, the members beside them). No messages: ([], {})."""
    if found := _messages(value):
        return found, {}
    members = as_mapping(value)
    for key in _LISTS:
        if found := _messages(members.get(key)):
            return found, {name: held for name, held in members.items() if name != key}
    for key in ("choices", "generations", "candidates"):
        if found := [message for item in _flat(members.get(key)) for message in _of_choice(item)]:
            return found, {name: held for name, held in members.items() if name != key}
    if members.get("role") and any(key in members for key in ("content", "tool_calls", "parts")):
        # Anthropic's answer is a message with its bookkeeping around it.
        rest = {key: members[key] for key in ("model", "usage", "stop_reason", "stop_sequence") if key in members}
        return [_message({key: held for key, held in members.items() if key not in rest})], rest
    return [], {}


def payload(value: Json, *, output: bool, llm: bool) -> dict[str, Json]:
    """The attributes for an input or an output of any shape: messages where a model's call (``llm``) holds such, else
    the value as text. What stands beside the messages is the invocation's parameters, or the response's."""
    value = parsed(value)
    if llm:
        messages, rest = split_messages(value)
        if messages:
            rest = {name: held for name, held in rest.items() if held not in (None, "", [], {})}
            return _output(messages, rest) if output else _input(messages, rest)
    key = semconv.OUTPUT_VALUE[0] if output else semconv.INPUT_VALUE[0]
    return given({key: attribute_value(value)})


def _output(messages: list[Json], rest: Mapping[str, Json]) -> dict[str, Json]:
    return given({semconv.OUTPUT_MESSAGES[0]: json_text(messages), "llm.response": json_text(rest) if rest else None})


def _input(messages: list[Json], rest: dict[str, Json]) -> dict[str, Json]:
    """Messages, with the system prompt and the tools that stand beside them."""
    system = next((rest.pop(key) for key in _SYSTEM if rest.get(key)), None)
    tools = rest.pop("tools") if isinstance(rest.get("tools"), list) else None
    return given(
        {
            semconv.INPUT_MESSAGES[0]: json_text(messages),
            semconv.SYSTEM_INSTRUCTIONS[0]: attribute_value(system),
            semconv.TOOL_DEFINITIONS[0]: attribute_value(tools),
            semconv.INVOCATION_PARAMETERS: json_text(rest) if rest else None,
        }
    )


def langchain_metadata(value: Json) -> Mapping[str, Json]:
    """Of the last message in a LangChain output: ``usage_metadata`` and ``response_metadata``, where it has them."""
    members = as_mapping(parsed(value))
    candidates = [
        members,
        *as_list(members.get("messages"))[-1:],
        *(as_mapping(item).get("message") for item in _flat(members.get("generations"))),
    ]
    for candidate in candidates:
        message = as_mapping(candidate)
        message = as_mapping(message.get("kwargs")) or message
        if message.get("usage_metadata") or message.get("response_metadata"):
            return message
    return as_mapping(None)


def _flat(value: Json) -> list[Json]:
    return [inner for item in as_list(value) for inner in (as_list(item) or [item])]


def _messages(value: Json) -> list[Json]:
    """The messages of a list of nothing else."""
    items = _flat(value)
    return [_message(as_mapping(item)) for item in items] if items and all(map(_is_message, items)) else []


def _is_message(item: Json) -> bool:
    members = as_mapping(item)
    if isinstance(members.get("kwargs"), dict):
        return members.get("type") == "constructor" and "Message" in str(as_list(members.get("id"))[-1:])
    kind = members.get("type")
    if isinstance(members.get("role"), str):
        return True
    return isinstance(kind, str) and (kind in _ITEM_TYPES or (kind in _LANGCHAIN_TYPES and "content" in members))


def _of_choice(item: Json) -> list[Json]:
    choice = as_mapping(item)
    message = as_mapping(choice.get("message") or choice.get("content"))
    if not message:
        text = choice.get("text")
        return [{"role": "assistant", "content": text}] if isinstance(text, str) and text else []
    found = _message(message)
    reason = (
        choice.get("finish_reason")
        or choice.get("finishReason")
        or as_mapping(choice.get("generation_info")).get("finish_reason")
    )
    return [found | {"finish_reason": reason} if isinstance(reason, str) and reason else found]


def _message(item: Mapping[str, Json]) -> dict[str, Json]:
    kwargs = as_mapping(item.get("kwargs"))
    left: dict[str, Any] = dict(kwargs or item)
    path = as_list(item.get("id")) if kwargs else []
    named = str(path[-1]).partition("Message")[0].lower() if path else ""
    kind = left.get("type")
    if "role" not in left and (named or kind in _LANGCHAIN_TYPES):
        role = named or str(kind)
        left = {"role": _ROLES.get(role, role)} | {key: held for key, held in left.items() if key != "type"}
        left = {key: held for key, held in left.items() if key not in _NOT_SAID and held is not None}
    elif left.get("role") in _ROLES:
        left["role"] = _ROLES[left["role"]]
    beside = dict(as_mapping(left.pop("additional_kwargs", None)))
    if calls := as_list(left.get("tool_calls")) or as_list(beside.get("tool_calls")):
        left["tool_calls"] = [_call(call) for call in calls]
    beside = {key: held for key, held in beside.items() if key != "tool_calls" and held not in (None, "", {}, [])}
    return left | beside


def _call(call: Json) -> Json:
    members = as_mapping(call)
    if "args" not in members or "function" in members:
        return call
    named: dict[str, Json] = {"name": members.get("name"), "arguments": attribute_value(members["args"])}
    return {"id": members.get("id"), "type": "function", "function": named}
