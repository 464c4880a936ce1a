"""What one span tells about the harness that made it: system prompt, tools, parameters, versions.

Knows nothing about traces and indexes: a parsed record in, a configuration and its id out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text
from halo_mcp.index.messages import conversation
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_ID_DIGITS: Final = 8
_LEADING_MESSAGES: Final = 8
"""So many messages are looked at for a system prompt."""
_SHORTEST_VARIABLE: Final = 3
"""Shorter values of template variables occur by chance, so they stay in the prompt."""
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_DAY: Final = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_VARYING: Final = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z\b|[+-]\d\d:?\d\d\b)?"
    rf"|\b(?:{_DAY},? )?(?:{_MONTH} \d\d?(?:st|nd|rd|th)?|\d\d?\.? {_MONTH}),? \d{{4}}\b"
    r"|\b\d\d?[/.]\d\d?[/.]\d{4}\b"
    r"|\b\d\d?:\d\d(?::\d\d(?:\.\d+)?)?\b(?: ?[AaPp][Mm]\b)?"
    r"|\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b[A-Za-z]{1,10}[-_#]\d{4,}\b"
    r"|\b(?:[0-9a-fA-F]{12,}|\d{7,})\b"
)
"""Dates, times of day, UUIDs, ids such as C-10231, runs of 12 or more hex digits or 7 or more digits."""
MASKED: Final = "dates, times, UUIDs, ids and long hex or digit runs masked, whitespace folded"
"""What ``masked`` does, for readers."""
_DECODER: Final = json.JSONDecoder()


class Facts(NamedTuple):
    """What a span says about the harness, as it stands there. Equal facts are one configuration, so they are a key."""

    prompt: str = ""
    template: str = ""
    variables: str = ""
    tools: tuple[str, ...] = ()
    """JSON texts: of lists of definitions, or of single ones."""
    tool_list: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    """(name, value); the name "" stands for a JSON object of parameters."""
    prompt_version: str = ""
    service_version: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one agent was given: the part of the harness that traces show."""

    model: str
    prompt: str
    """The system prompt as recorded (with the names of template variables in place of their values)."""
    tools: Mapping[str, str]
    """Name -> definition as JSON with sorted keys; "" where only the name is recorded. Sorted by name."""
    parameters: Mapping[str, str]
    """Sampling parameters, as JSON texts, sorted by name."""
    prompt_version: str
    service_version: str

    @property
    def version(self) -> str:
        """Eight hex digits; equal for equal configurations, in any dataset.

        The hash of model, masked prompt, masked tool definitions, parameters and prompt version. ``service.version``
        counts only where neither a prompt nor tools are recorded: a release need not change an agent.
        """
        told = self.prompt or self.tools
        parts = [
            self.model,
            masked(self.prompt),
            {name: masked(definition) for name, definition in self.tools.items()},
            dict(self.parameters),
            self.prompt_version,
            "" if told else self.service_version,
        ]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_ID_DIGITS]


def masked(text: str) -> str:
    """The text with ``#`` for what varies from trace to trace by nature, and every run of whitespace as one space.

    Names of users and places are not recognised: they stay.
    """
    return "\n".join(line for line in map(_masked_line, text.splitlines()) if line)


@lru_cache(maxsize=4_096)  # prompts that differ in one line share the others
def _masked_line(line: str) -> str:
    return _VARYING.sub("#", " ".join(line.split()))


def facts_of(record: Mapping[str, Json]) -> Facts:
    """The facts in a parsed span."""
    attributes = as_mapping(record.get("attributes"))
    resource = as_mapping(as_mapping(record.get("resource")).get("attributes"))
    return Facts(
        prompt=_system_prompt(attributes),
        template=_first(attributes, semconv.PROMPT_TEMPLATE),
        variables=_first(attributes, semconv.PROMPT_VARIABLES),
        tools=_tools(attributes),
        tool_list=_first(attributes, semconv.TOOL_LIST),
        parameters=_parameters(attributes),
        prompt_version=_first(attributes, semconv.PROMPT_VERSION),
        service_version=as_text(resource.get(semconv.SERVICE_VERSION)),
    )


def configuration(model: str, call: Facts, agent: Facts) -> Configuration:
    """From the facts of an LLM span; what it does not say is taken from its agent's span."""
    parameters = _sampling_parameters(call.parameters or agent.parameters)
    tools = _defined(parameters.pop("", ()), *(call.tools or agent.tools))
    tools = tools or _defined(call.tool_list or agent.tool_list)
    given = call if call.prompt or call.template else agent
    prompt = _with_names(given.prompt, given.variables)
    if given.template and given.template != prompt:
        prompt = "\n".join(part for part in (prompt, given.template) if part)
    return Configuration(
        model=model,
        prompt=prompt,
        tools=dict(sorted(tools.items())),
        parameters=dict(sorted((name, as_text(value)) for name, value in parameters.items())),
        prompt_version=call.prompt_version or agent.prompt_version,
        service_version=call.service_version or agent.service_version,
    )


def _first(attributes: Mapping[str, Json], keys: tuple[str, ...]) -> str:
    return next((as_text(attributes[key]) for key in keys if attributes.get(key) not in (None, "")), "")


# --- the prompt -------------------------------------------------------------------------------------------------------
def _system_prompt(attributes: Mapping[str, Json]) -> str:
    for key in semconv.SYSTEM_INSTRUCTIONS:
        if (value := attributes.get(key)) not in (None, "", []):
            return _text_of_parts(value)
    for key in semconv.PROMPT_MESSAGES:
        if (value := attributes.get(key)) not in (None, "", []):
            leading = _leading(value)
            if leading:
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
    """The members of a list of messages. A text is decoded one by one: a conversation is long, its beginning short."""
    if isinstance(value, dict):
        value = as_mapping(value).get("messages")
    if not isinstance(value, str):
        yield from as_list(value)
        return
    opening = re.match(r'\s*(?:\{\s*"messages"\s*:\s*)?\[', value)
    position = opening.end() if opening else len(value)
    while position < len(value):
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


def _with_names(prompt: str, variables: str) -> str:
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
def _tools(attributes: Mapping[str, Json]) -> tuple[str, ...]:
    for key in semconv.TOOL_DEFINITIONS:
        if attributes.get(key) not in (None, "", [], "[]"):
            return (as_text(attributes[key]),)
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


def _defined(*definitions: Json) -> dict[str, str]:
    """Name -> definition, from lists of definitions, single ones, bare names, and JSON texts of any of them."""
    found: dict[str, str] = {}
    for definition in definitions:
        value = _decoded(definition)
        if isinstance(value, list | tuple):
            found |= _defined(*value)
        elif isinstance(value, dict):
            members = as_mapping(value)
            inner = next((_decoded(members[key]) for key in _WRAPPED if members.get(key) not in (None, "")), None)
            if isinstance(inner, dict):
                found |= _defined(inner)
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
def _parameters(attributes: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    found = [("", as_text(attributes[key])) for key in (semconv.INVOCATION_PARAMETERS,) if attributes.get(key)]
    return (
        *found,
        *(
            (key.rpartition(".")[2], as_text(attributes[key]))
            for key in semconv.REQUEST_PARAMETERS
            if attributes.get(key) is not None
        ),
    )


def _sampling_parameters(given: tuple[tuple[str, str], ...]) -> dict[str, Json]:
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
