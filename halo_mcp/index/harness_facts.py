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
_ROLE: Final = re.compile(r'\s*\{\s*"role"\s*:\s*"(\w+)"')
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


class Marks(NamedTuple):
    """Facts as digests ("" for none): small enough to keep for every span, and all that an id needs."""

    prompt: str = ""
    tools: str = ""
    tool_count: int = 0
    parameters: str = ""
    prompt_version: str = ""
    service_version: str = ""
    prompt_chars: int = 0
    """Of the masked prompt."""

    def completed(self, agent: Marks) -> Marks:
        """These of an LLM span, and what it does not say from those of its agent's span."""
        prompt, tools = self if self.prompt else agent, self if self.tools else agent
        return Marks(
            prompt.prompt,
            tools.tools,
            tools.tool_count,
            self.parameters or agent.parameters,
            self.prompt_version or agent.prompt_version,
            self.service_version or agent.service_version,
            prompt.prompt_chars,
        )

    def version(self, model: str) -> str:
        """Eight hex digits: equal for an equal harness, in any dataset.

        The hash of model, masked prompt, masked tool definitions, parameters and prompt version. ``service.version``
        counts only where neither a prompt nor tools are recorded: a release need not change an agent.
        """
        release = "" if self.prompt or self.tools else self.service_version
        return _digest((model, self.prompt, self.tools, self.parameters, self.prompt_version, release))[:_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one agent was given in one trace: the part of the harness that traces show."""

    prompt: str
    """The system prompt as recorded (with the names of template variables in place of their values)."""
    tools: Mapping[str, str]
    """Name -> definition as JSON with sorted keys; "" where only the name is recorded. Sorted by name."""
    parameters: Mapping[str, str]
    """Sampling parameters, as text, sorted by name."""
    prompt_version: str
    service_version: str


def _digest(value: Json) -> str:
    return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def masked(text: str) -> str:
    """The text with ``#`` for what varies from trace to trace by nature, and every run of whitespace as one space.

    Names of users and places are not recognised: they stay.
    """
    return "\n".join(filter(None, map(_masked_line, text.splitlines())))


@lru_cache(maxsize=4_096)  # prompts that differ in one line share the others
def _masked_line(line: str) -> str:
    return _VARYING.sub("#", " ".join(line.split()))


_AGENT_KEYS: Final = tuple(
    f'"{key}'.encode()
    for key in (
        *semconv.SYSTEM_INSTRUCTIONS,
        *semconv.PROMPT_TEMPLATE,
        *semconv.PROMPT_VERSION,
        *semconv.PROMPT_MESSAGES,
        *semconv.FLAT_PREFIXES,
        *semconv.TOOL_DEFINITIONS,
        *semconv.FLAT_TOOL_DEFINITIONS,
        *semconv.TOOL_LIST,
        semconv.INVOCATION_PARAMETERS,
        *semconv.REQUEST_PARAMETERS,
    )
)


def may_tell(text: bytes) -> bool:
    """Whether the JSON text of a span holds a key that is worth decoding an AGENT span for."""
    return any(key in text for key in _AGENT_KEYS)


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


def marks_of(facts: Facts) -> Marks:
    """The facts as digests."""
    prompt = masked(_whole_prompt(facts))
    tools, parameters = _tools_and_parameters(facts.tools, facts.tool_list, facts.parameters)
    return Marks(
        prompt=_text_digest(prompt),
        tools=_tools_digest(facts.tools, facts.tool_list, facts.parameters) if tools else "",
        tool_count=len(tools),
        parameters=_digest(parameters) if parameters else "",
        prompt_version=facts.prompt_version,
        service_version=facts.service_version,
        prompt_chars=len(prompt),
    )


def configuration(call: Facts, agent: Facts) -> Configuration:
    """From the facts of an LLM span; what it does not say is taken from its agent's span."""
    of_call = _tools_and_parameters(call.tools, call.tool_list, call.parameters)
    of_agent = _tools_and_parameters(agent.tools, agent.tool_list, agent.parameters)
    return Configuration(
        prompt=_whole_prompt(call) or _whole_prompt(agent),
        tools=of_call[0] or of_agent[0],
        parameters=of_call[1] or of_agent[1],
        prompt_version=call.prompt_version or agent.prompt_version,
        service_version=call.service_version or agent.service_version,
    )


def _whole_prompt(facts: Facts) -> str:
    prompt = _with_names(facts.prompt, facts.variables)
    if not facts.template or facts.template == prompt:
        return prompt
    return f"{prompt}\n{facts.template}" if prompt else facts.template


def _text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest() if text else ""


_Pairs = tuple[tuple[str, str], ...]


@lru_cache(maxsize=1_024)  # nearly all spans of a dataset share a few of them
def _tools_and_parameters(
    definitions: tuple[str, ...], names: str, given: _Pairs
) -> tuple[dict[str, str], dict[str, str]]:
    """Both by name, sorted."""
    parameters = _sampling_parameters(given)
    tools = _defined(parameters.pop("", ()), *definitions) or _defined(names)
    return dict(sorted(tools.items())), {name: as_text(value) for name, value in sorted(parameters.items())}


@lru_cache(maxsize=1_024)
def _tools_digest(definitions: tuple[str, ...], names: str, given: _Pairs) -> str:
    tools, _ = _tools_and_parameters(definitions, names, given)
    return _digest({name: masked(definition) for name, definition in tools.items()})


def _first(attributes: Mapping[str, Json], keys: tuple[str, ...]) -> str:
    for key in keys:
        if (value := attributes.get(key)) not in (None, ""):
            return as_text(value)
    return ""


# --- the prompt -------------------------------------------------------------------------------------------------------
def _system_prompt(attributes: Mapping[str, Json]) -> str:
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
    given = [("", attributes.get(semconv.INVOCATION_PARAMETERS))]
    given += [(key.rpartition(".")[2], attributes.get(key)) for key in semconv.REQUEST_PARAMETERS]
    return tuple((name, as_text(value)) for name, value in given if value not in (None, "", {}))


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
