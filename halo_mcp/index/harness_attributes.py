"""Where the conventions keep what a harness gave a model: system prompt, tool definitions, sampling parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text
from halo_mcp.index.messages import conversation
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_LEADING_MESSAGES: Final = 8
"""So many messages are looked at for a system prompt."""
_SHORTEST_VARIABLE: Final = 3
"""Shorter values of template variables occur by chance, so they stay in the prompt."""
_ROLE: Final = re.compile(r'\s*\{\s*"role"\s*:\s*"(\w+)"')
_DECODER: Final = json.JSONDecoder()


def first_of(attributes: Mapping[str, Json], keys: tuple[str, ...]) -> str:
    """The first value under these keys that is not empty, as text; "" for none."""
    for key in keys:
        if (value := attributes.get(key)) not in (None, ""):
            return as_text(value)
    return ""


# --- the prompt -------------------------------------------------------------------------------------------------------
def system_prompt(attributes: Mapping[str, Json]) -> str:
    """The system prompt as recorded: from instructions, or from the leading messages; "" for none."""
    for key in semconv.SYSTEM_INSTRUCTIONS:
        if (value := attributes.get(key)) not in (None, "", []):
            return _text_of_parts(value)
    for key in semconv.PROMPT_MESSAGES:
        if (value := attributes.get(key)) not in (None, "", []):
            leading = _leading(value)
            if leading:
                if len(leading) == 1 and isinstance(text := as_mapping(leading[0]).get("content"), str):
                    return text
                said = conversation({semconv.INPUT_MESSAGES[0]: leading}, "input")
                return "\n".join(message.content for message in said.messages) if said else ""
    for prefix in semconv.FLAT_PREFIXES:
        for infix in ("message.", ""):
            if f"{prefix}0.{infix}role" in attributes:
                return _flat_prompt(attributes, prefix, infix)
    return ""


def _text_of_parts(value: Json) -> str:
    """The text of instructions given as text, as a JSON list of parts, or as that list's text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return as_text(value)
    parts = as_list(value) or [value]
    said = conversation({semconv.INPUT_MESSAGES[0]: [{"role": semconv.PROMPT_ROLES[0], "content": parts}]}, "input")
    return "\n".join(message.content for message in said.messages) if said else ""


def _leading(value: Json) -> list[Json]:
    """The messages at the beginning of a list that the harness wrote."""
    leading: list[Json] = []
    for item in _items(value):
        message = as_mapping(item)
        inner = as_mapping(message.get("message"))
        role = message.get("role") or message.get("message.role") or inner.get("role")
        if as_text(role).lower() not in semconv.PROMPT_ROLES or len(leading) == _LEADING_MESSAGES:
            break
        leading.append(item)
    return leading


def _items(value: Json) -> Iterator[Json]:
    """The first members of a list of messages. A text is decoded one by one: conversations are long, prompts short."""
    if isinstance(value, dict):
        value = as_mapping(value).get("messages")
    if not isinstance(value, str):
        yield from as_list(value)
        return
    opening = re.match(r'\s*(?:\{\s*"messages"\s*:\s*)?\[', value)
    position = opening.end() if opening else len(value)
    while position < len(value):
        if (role := _ROLE.match(value, position)) and role[1] not in semconv.PROMPT_ROLES:
            return
        try:
            item, position = _DECODER.raw_decode(value, position)
        except (ValueError, RecursionError):
            return
        yield item
        gap = re.compile(r"\s*,\s*").match(value, position)
        position = gap.end() if gap else len(value)


def _flat_prompt(attributes: Mapping[str, Json], prefix: str, infix: str) -> str:
    leading: dict[str, Json] = {}
    for number in range(_LEADING_MESSAGES):
        start = f"{prefix}{number}."
        if as_text(attributes.get(f"{start}{infix}role")).lower() not in semconv.PROMPT_ROLES:
            break
        leading |= {key: value for key, value in attributes.items() if key.startswith(start)}
    said = conversation(leading, "input")
    return "\n".join(message.content for message in said.messages) if said else ""


def with_names(prompt: str, variables: str) -> str:
    """The prompt with ``{name}`` for every value that a template variable filled in."""
    if not prompt or not variables:
        return prompt
    try:
        values = as_mapping(orjson.loads(variables))
    except orjson.JSONDecodeError:
        return prompt
    texts = sorted(((as_text(value), name) for name, value in values.items()), key=lambda pair: (-len(pair[0]), pair))
    for text, name in texts:
        if len(text) >= _SHORTEST_VARIABLE:
            prompt = prompt.replace(text, f"{{{name}}}")
    return prompt


# --- tools ------------------------------------------------------------------------------------------------------------
def tool_texts(attributes: Mapping[str, Json]) -> tuple[str, ...]:
    """Tool definitions as JSON texts: of a list of them, or of single ones."""
    for key in semconv.TOOL_DEFINITIONS:
        if attributes.get(key) not in (None, "", [], "[]"):
            return (as_text(attributes[key]),)
    if not any(key.startswith(semconv.FLAT_TOOL_DEFINITIONS) for key in attributes):
        return ()
    for prefix in semconv.FLAT_TOOL_DEFINITIONS:
        flat: dict[str, dict[str, Json]] = {}
        for key, value in attributes.items():
            if key.startswith(prefix):
                number, _, member = key[len(prefix) :].partition(".")
                if number.isdecimal():
                    flat.setdefault(number, {})[member] = value
        if flat:
            return tuple(json_text(flat[number]) for number in sorted(flat, key=int))
    return ()


_WRAPPED: Final = ("tool.json_schema", "json_schema", "function", "tool")
"""Members that hold the definition itself, as an object or as JSON text."""


def defined(*definitions: Json) -> dict[str, str]:
    """Name -> definition, from lists of definitions, single ones, bare names, and JSON texts of any of them."""
    found: dict[str, str] = {}
    for definition in definitions:
        value = _decoded(definition)
        if isinstance(value, list | tuple):
            found |= defined(*value)
        elif isinstance(value, dict):
            members = as_mapping(value)
            inner = next((_decoded(members[key]) for key in _WRAPPED if members.get(key) not in (None, "")), None)
            if isinstance(inner, dict):
                found |= defined(inner)
            else:
                name = as_text(members.get("name") or members.get("tool.name") or members.get("type")) or "?"
                found[name] = orjson.dumps(_sorted(members), option=orjson.OPT_SORT_KEYS).decode()
        elif isinstance(value, str) and value:
            found[value] = ""
    return found


def _sorted(members: Mapping[str, Json]) -> dict[str, Json]:
    # Schemas inside a definition may be JSON text: decoded, their spelling does not matter.
    return {key: _decoded(value) for key, value in members.items() if value is not None}


def _decoded(value: Json) -> Json:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


# --- parameters -------------------------------------------------------------------------------------------------------
def parameter_texts(attributes: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    """(name, value as text); the name "" stands for a JSON object of parameters."""
    given = [("", attributes.get(semconv.INVOCATION_PARAMETERS))]
    given += [(key.rpartition(".")[2], attributes.get(key)) for key in semconv.REQUEST_PARAMETERS]
    return tuple((name, as_text(value)) for name, value in given if value not in (None, "", {}))


def sampling_parameters(given: tuple[tuple[str, str], ...]) -> dict[str, Json]:
    """By name, without what is no parameter; tools that stand among them are under the name ""."""
    found: dict[str, Json] = {}
    for name, text in given:
        if name:
            found.setdefault(name, text)
            continue
        members = as_mapping(_decoded(text))
        found |= {
            key: json_text(_sorted(as_mapping(value))) if isinstance(value, dict) else as_text(value)
            for key, value in members.items()
            if key not in semconv.NO_SAMPLING_PARAMETERS and value is not None
        }
        if tools := members.get("tools") or members.get("functions"):
            found[""] = tools
    return found
