"""What one span tells about the harness that made it: system prompt, tools, parameters, versions.

Knows nothing about traces and indexes: a parsed record in, a configuration and its id out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.harness_attributes import (
    defined,
    first_of,
    parameter_texts,
    sampling_parameters,
    system_prompt,
    tool_texts,
    with_names,
)
from halo_mcp.index.span import Json, Span, as_text

_ID_DIGITS: Final = 8
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
    span = Span.from_json(record)
    attributes, resource = span.attributes, span.resource
    return Facts(
        prompt=system_prompt(attributes),
        template=first_of(attributes, semconv.PROMPT_TEMPLATE),
        variables=first_of(attributes, semconv.PROMPT_VARIABLES),
        tools=tool_texts(attributes),
        tool_list=first_of(attributes, semconv.TOOL_LIST),
        parameters=parameter_texts(attributes),
        prompt_version=first_of(attributes, semconv.PROMPT_VERSION),
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
    prompt = with_names(facts.prompt, facts.variables)
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
    parameters = sampling_parameters(given)
    tools = defined(parameters.pop("", ()), *definitions) or defined(names)
    return dict(sorted(tools.items())), {name: as_text(value) for name, value in sorted(parameters.items())}


@lru_cache(maxsize=1_024)
def _tools_digest(definitions: tuple[str, ...], names: str, given: _Pairs) -> str:
    tools, _ = _tools_and_parameters(definitions, names, given)
    return _digest({name: masked(definition) for name, definition in tools.items()})
