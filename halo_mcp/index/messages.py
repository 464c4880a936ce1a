"""The conversation in a span: message lists of every convention, folded into one readable form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

Direction = Literal["input", "output"]

_FLAT: Final[Mapping[Direction, tuple[str, str]]] = {
    "input": ("llm.input_messages.", "gen_ai.prompt."),
    "output": ("llm.output_messages.", "gen_ai.completion."),
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


def conversation(attributes: Mapping[str, Json], direction: Direction) -> Conversation | None:
    """The input or output messages of a span, or None. JSON lists come before flattened ones; copies are folded in."""
    keys: set[str] = set()
    chosen: tuple[str, tuple[Message, ...]] | None = None
    for key in _JSON[direction]:
        items = _decoded_list(attributes.get(key))
        if items is not None:
            keys.add(key)
            chosen = chosen or (key, _messages(items))
    for prefix in _FLAT[direction]:
        flat = {key: value for key, value in attributes.items() if key.startswith(prefix)}
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
        inner = as_list(as_mapping(value).get("messages"))
        return inner or [value]
    items = as_list(value)
    return items if items and all(isinstance(item, dict) for item in items) else None


def _unflattened(flat: Mapping[str, Json], prefix: str) -> list[Json]:
    """``{"p.0.message.role": "user"}`` -> ``[{"message": {"role": "user"}}]``; gaps in the numbering close up."""
    root: dict[str, Json] = {}
    for key, value in flat.items():
        node = root
        *path, last = key[len(prefix) :].split(".")
        for part in path:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                child = node[part] = {"": child}
            node = child
        node[last] = value
    return _numbered(root)


def _numbered(node: Mapping[str, Json]) -> list[Json]:
    keys = sorted((key for key in node if _NUMBER.fullmatch(key)), key=int)
    return [_lists_inside(node[key]) for key in keys]


def _lists_inside(node: Json) -> Json:
    if not isinstance(node, dict):
        return node
    members = as_mapping(node)
    if members and all(_NUMBER.fullmatch(key) for key in members):
        return _numbered(members)
    return {key: _lists_inside(value) for key, value in members.items()}


def _messages(items: Iterable[Json]) -> tuple[Message, ...]:
    return tuple(_message(as_mapping(item)) for item in items)


def _message(item: Mapping[str, Json]) -> Message:
    inner = as_mapping(item.get("message"))
    item = inner or {key.removeprefix("message."): value for key, value in item.items()}
    calls = [_tool_call(as_mapping(call)) for call in as_list(item.get("tool_calls"))]
    texts: list[str] = []
    for part in _parts(item):
        if isinstance(part, dict):
            member = as_mapping(part)
            if member.get("type") in ("tool_call", "tool_use", "function_call"):
                calls.append(_tool_call(member))
                continue
            texts.append(_part_text(member))
        else:
            texts.append(as_text(part))
    if as_text(item.get("type")) == "function_call":
        calls.append(_tool_call(item))
    return Message(
        role=as_text(item.get("role")) or as_text(item.get("type")) or "?",
        content="\n".join(text for text in texts if text),
        tool_calls=tuple(calls),
        tool_call_id=as_text(item.get("tool_call_id")) or as_text(item.get("call_id")),
        name=as_text(item.get("name")) if not calls else "",
    )


def _parts(item: Mapping[str, Json]) -> list[Json]:
    """The content of a message as a list of texts and part objects."""
    for key in ("content", "parts", "contents", "output"):
        value = item.get(key)
        if value is None or value == "":
            continue
        return as_list(value) or [value]
    return []


def _part_text(part: Mapping[str, Json]) -> str:
    part = as_mapping(part.get("message_content")) or {
        key.removeprefix("message_content."): value for key, value in part.items()
    }
    for key in ("text", "content", "response", "result", "output", "thinking", "refusal"):
        if key in part:
            value = part[key]
            return value if isinstance(value, str) else json_text(value)
    return json_text(part)


def _tool_call(call: Mapping[str, Json]) -> ToolCall:
    call = as_mapping(call.get("tool_call")) or {key.removeprefix("tool_call."): v for key, v in call.items()}
    function = as_mapping(call.get("function"))
    arguments = function.get("arguments", call.get("function.arguments", call.get("arguments", call.get("input"))))
    return ToolCall(
        name=as_text(function.get("name") or call.get("function.name") or call.get("name")) or "?",
        arguments=arguments if isinstance(arguments, str) else "" if arguments is None else json_text(arguments),
        id=as_text(call.get("id") or call.get("call_id")),
    )


def json_text(value: Json) -> str:
    """Compact JSON with its characters unescaped; what no JSON writer takes, as Python writes it."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        return str(value)
