"""The conversation in a span: message lists of every convention, folded into one readable form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

Direction = Literal["input", "output"]

_FLAT: Final[Mapping[Direction, tuple[str, ...]]] = {
    "input": semconv.FLAT_INPUT_PREFIXES,
    "output": semconv.FLAT_OUTPUT_PREFIXES,
}
_JSON: Final[Mapping[Direction, tuple[str, ...]]] = {
    "input": semconv.INPUT_MESSAGES,
    "output": semconv.OUTPUT_MESSAGES,
}
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call asked for by a model; arguments as JSON text."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of one direction, and the attribute keys they came from (all copies of them)."""

    messages: tuple[Message, ...]
    key: str
    """The attribute that a reader asks for: the JSON one, else the prefix of the flat ones without its dot."""
    keys: frozenset[str]


_CONTENT: Final = ("content", "parts", "contents", "output")
_PART_TEXT: Final = ("text", "content", "response", "result", "output", "thinking", "refusal")
_CALL_TYPES: Final = frozenset(("tool_call", "tool_use", "function_call"))
_RESULT_TYPES: Final = frozenset(("tool_result", "tool_call_response", "function_call_output"))
_NOT_SAID: Final = frozenset(("type", "signature"))
"""Members of a part that are no words: how it is spelled, and the proof of a thought."""


def conversation(attributes: Mapping[str, Json], direction: Direction) -> Conversation | None:
    """The input or output messages of a span, or None. JSON lists come before flattened ones; copies are folded in.

    Whatever else a message holds stands behind its content as JSON: nothing that was said is left out.
    """
    keys: set[str] = set()
    chosen: tuple[str, tuple[Message, ...]] | None = None
    for key in _JSON[direction]:
        items = _decoded_list(attributes.get(key))
        if items is not None:
            keys.add(key)
            chosen = chosen or (key, _messages(items))
    for prefix in _FLAT[direction]:
        flat = {
            key: value for key, value in attributes.items() if key.startswith(prefix) and _numbered_key(key, prefix)
        }
        if flat:
            keys |= flat.keys()
            chosen = chosen or (prefix[:-1], _messages(_unflattened(flat, prefix)))
    if chosen is None or not chosen[1]:
        return None
    return Conversation(chosen[1], chosen[0], frozenset(keys))


def _decoded_list(value: Json) -> list[Json] | None:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, dict):
        # One message, or the {"messages": [...]} wrapper of some exporters.
        members = dict(as_mapping(value))
        inner = as_list(members.pop("messages", None))
        return ([members] if _said(members) else []) + inner if inner else [value]
    items = as_list(value)
    return items if items and all(isinstance(item, dict) for item in items) else None


def _numbered_key(key: str, prefix: str) -> bool:
    return _NUMBER.fullmatch(key[len(prefix) :].partition(".")[0]) is not None


def _unflattened(flat: Mapping[str, Json], prefix: str) -> list[Json]:
    """``{"p.0.message.role": "user"}`` -> ``[{"message": {"role": "user"}}]``; gaps in the numbering close up."""
    root: dict[str, Json] = {}
    for key, value in flat.items():
        node: dict[str, Json] = root
        *path, last = key[len(prefix) :].split(".")
        for part in path:
            if not isinstance(node.setdefault(part, {}), dict):
                node[part] = {"": node[part]}
            node = node[part]
        if isinstance(node.get(last), dict):
            node = node[last]
            last = ""
        node[last] = value
    return _numbered(root)


def _numbered(node: Mapping[str, Json]) -> list[Json]:
    return [_lists_inside(node[key]) for key in sorted(node, key=int)]


def _lists_inside(node: Json) -> Json:
    if not isinstance(node, dict):
        return node
    members = as_mapping(node)
    if members and all(_NUMBER.fullmatch(key) for key in members):
        return _numbered(members)
    return {key: _lists_inside(value) for key, value in members.items()}


def _messages(items: Iterable[Json]) -> tuple[Message, ...]:
    return tuple(
        _message(as_mapping(item)) if isinstance(item, dict) else Message("?", as_text(item)) for item in items
    )


def _message(item: Mapping[str, Json]) -> Message:
    left = dict(item)
    if isinstance(left.get("message"), dict):
        left |= as_mapping(left.pop("message"))
    left = {key.removeprefix("message."): value for key, value in left.items()}
    texts: list[str] = []
    calls: list[ToolCall] = []
    answered: list[str] = []
    if as_text(left.get("type")) in _CALL_TYPES and "tool_calls" not in left:
        calls.append(_tool_call(left))
        left = {"type": left["type"], "role": left.get("role"), "call_id": left.get("call_id")}
    for part in (part for key in _CONTENT for part in _parts(left.pop(key, None))):
        _take_part(part, texts, calls, answered)
    if isinstance(left.get("tool_calls"), list):
        for call in as_list(left.pop("tool_calls")):
            _take_call(call, texts, calls)
    if isinstance(left.get("function_call"), dict):
        _take_call(left.pop("function_call"), texts, calls)
    role, kind = as_text(left.pop("role", None)), as_text(left.pop("type", None))
    called = [as_text(left.pop(key, None)) for key in ("tool_call_id", "call_id")]
    ids = list(dict.fromkeys(given for given in (*called, *answered) if given))
    name = as_text(left.pop("name", None))
    if len(ids) > 1:
        left["tool_call_ids"] = ids
    if role and kind not in ("", "message"):
        left["type"] = kind
    if rest := _said(left):
        texts.append(json_text(rest))
    return Message(
        role=role or kind or "?",
        content="\n".join(text for text in texts if text),
        tool_calls=tuple(calls),
        tool_call_id=ids[0] if ids else "",
        name=name,
    )


def _said(members: Mapping[str, Json]) -> dict[str, Json]:
    """The members that hold something."""
    return {key: value for key, value in members.items() if value is not False and value not in (None, "", [], {})}


def _parts(value: Json) -> list[Json]:
    """The content of a message as a list of texts and part objects."""
    return [] if value is None or value == "" else as_list(value) or ([] if value == [] else [value])


def _take_part(part: Json, texts: list[str], calls: list[ToolCall], answered: list[str]) -> None:
    if not isinstance(part, dict):
        texts.append(as_text(part))
        return
    members = as_mapping(part)
    if as_text(members.get("type")) in _CALL_TYPES:
        calls.append(_tool_call(members))
        return
    if use := as_mapping(members.get("toolUse")):  # Bedrock
        calls.append(_tool_call({**use, "id": use.get("toolUseId")}))
        return
    left = dict(members)
    if result := as_mapping(left.pop("toolResult", None)):
        left |= {"type": "tool_result", **result, "tool_use_id": result.get("toolUseId")}
        left.pop("toolUseId", None)
    if isinstance(left.get("message_content"), dict):
        left |= as_mapping(left.pop("message_content"))
    left = {key.removeprefix("message_content."): value for key, value in left.items()}
    if as_text(left.get("type")) in _RESULT_TYPES:
        answered.extend(as_text(left.pop(key)) for key in ("tool_use_id", "call_id", "id") if key in left)
    key = next((key for key in _PART_TEXT if left.get(key) not in (None, "")), None)
    if key is None:
        texts.append(json_text(members) if _said(left) else "")
        return
    value = left.pop(key)
    inside = as_list(value)
    if inside and all(isinstance(inner, dict) for inner in inside):
        for inner in inside:
            _take_part(inner, texts, calls, answered)
    else:
        texts.append(as_text(value))
    if rest := _said({key: value for key, value in left.items() if key not in _NOT_SAID}):
        texts.append(json_text(rest))


def _take_call(call: Json, texts: list[str], calls: list[ToolCall]) -> None:
    if isinstance(call, dict):
        calls.append(_tool_call(as_mapping(call)))
    else:
        texts.append(as_text(call))


def _tool_call(call: Mapping[str, Json]) -> ToolCall:
    given = call
    call = as_mapping(call.get("tool_call")) or {key.removeprefix("tool_call."): v for key, v in call.items()}
    function = as_mapping(call.get("function"))
    arguments = function.get("arguments", call.get("function.arguments", call.get("arguments", call.get("input"))))
    name = as_text(function.get("name") or call.get("function.name") or call.get("name"))
    if not name and arguments is None:
        arguments = given  # of no shape we know: all of it, then
    return ToolCall(
        name=name or "?",
        arguments=as_text(arguments),
        id=as_text(call.get("call_id") or call.get("id")),
    )
