"""Settings of the server-side agent. Reading them imports nothing of ``openai``.

A model name is what turns the engine on: an ``OPENAI_API_KEY`` that happens to be set never spends or sends anything.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from halo_mcp.errors import BadArgument, EngineUnavailable

Api = Literal["auto", "chat", "responses"]
Wire = Literal["chat", "responses"]

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
_OFFICIAL: Final = ("api.openai.com", "openai.azure.com")
_LEAST_SECRET: Final = 4
_LEAST_HEADER: Final = 6
"""Shorter values are words such as "true", which stand everywhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. A caller may lower these (`lowered`), never raise them."""

    max_turns: int = 20
    """Turns of the root agent; the last one is the answer."""
    sub_turns: int = 12
    """Turns of each subagent."""
    run_turns: int = 200
    """Turns of all agents of a run together."""
    max_depth: int = 1
    """0: no subagents; 1: the root may call them; 2: they may too."""
    max_parallel: int = 4
    """Subagents at work at the same time, per depth."""
    max_requests: int = 6
    """Requests to the model in flight at the same time, all agents together."""
    max_seconds: float = 300.0
    max_input_tokens: int = 2_000_000
    max_output_tokens: int = 100_000
    """Output tokens of the whole run; LLMSettings.max_output_tokens is per reply."""
    max_usd: float | None = None
    llm_failures: int = 6
    """Failures in a row, over all agents, after which the run ends with what it has."""
    nudges: int = 2
    refusals: int = 1
    verify_rounds: int = 1
    """How often an answer goes back with the problems that verification found."""

    def lowered(self, /, **wanted: float | None) -> Limits:
        """These limits with the given ones lowered; None and higher values change nothing. Raises: BadArgument."""
        known = {item.name for item in fields(self)}
        whole = {item.name for item in fields(self) if item.type == "int"}
        changes: dict[str, Any] = {}
        for name, value in wanted.items():
            if name not in known:
                raise BadArgument(f"There is no limit {name!r}. Limits: {', '.join(sorted(known))}.")
            if value is None:
                continue
            _check_limit(name, value)
            if name in whole and value % 1:
                raise BadArgument(f"{name}={value:g} is not possible: give a whole number.")
            mine = getattr(self, name)
            if mine is None or value < mine:
                changes[name] = int(value) if name in whole else value
        return replace(self, **changes)


_MAY_BE_ZERO: Final = ("max_depth", "nudges", "refusals", "verify_rounds")


def _check_limit(name: str, value: float) -> None:
    if not (value >= 0 if name in _MAY_BE_ZERO else value > 0):
        raise BadArgument(
            f"{name}={value:g} is not possible: give a number {'of at least' if name in _MAY_BE_ZERO else 'above'} 0."
        )


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars per million tokens."""

    input: float
    output: float
    cached: float | None = None
    """Input read from the provider's cache; None: priced like other input."""


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class LLMSettings:
    """Which model, where, and what it may use. ``repr`` shows neither key nor header values."""

    model: str = ""
    """Empty: the engine is off."""
    subagent_model: str = ""
    summary_model: str = ""
    synthesis_model: str = ""
    """Reads digests of many traces and joins what was noted; empty: ``subagent_model`` reads, ``model`` joins."""
    api: Api = "auto"
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    sdk_secrets: Sequence[str] = field(default=(), repr=False)
    """What the SDK takes from the environment by itself: known here only so that it is never shown."""
    reasoning_effort: str = ""
    """Empty: nothing is sent, the model's own default holds."""
    temperature: float | None = None
    max_output_tokens: int | None = None
    """Per reply."""
    context_tokens: int = 128_000
    result_chars: int = 30_000
    """Characters of one tool result that a model sees at once; get_context_item reads on."""
    idle_s: float = 120.0
    """Silence on a stream after which the request counts as failed."""
    turn_s: float = 300.0
    backoff_s: float = 0.5
    """First wait after a failure; doubles up to 30 s, with full jitter."""
    prices: Mapping[str, ModelPrice] = field(default_factory=dict[str, ModelPrice])
    limits: Limits = field(default_factory=Limits)
    mask: Callable[[Any], Any] = field(default=_as_it_is, repr=False, compare=False)
    """Changes JSON values before they are sent to a model or saved: takes out what must not leave."""

    @property
    def endpoint(self) -> str:
        return (self.base_url or OPENAI_BASE_URL).rstrip("/")

    @property
    def official(self) -> bool:
        """Whether the endpoint is OpenAI's own or Azure's."""
        host = _split(self.endpoint).hostname or ""
        return any(host == name or host.endswith("." + name) for name in _OFFICIAL)

    @property
    def first_wire(self) -> Wire:
        """The wire to begin with: OpenAI's reasoning models need Responses for tools, most others have only chat."""
        if self.api == "auto":
            return "responses" if self.official else "chat"
        return self.api

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in an event, error, log or result, in every spelling; the longest first."""
        # A server may repeat the token of "Bearer TOKEN" alone.
        sent = (*self.headers.values(), *self.sdk_secrets)
        headers = [part for value in sent for part in (value, value.rpartition(" ")[2]) if len(part) >= _LEAST_HEADER]
        found = [self.api_key, *_url_secrets(self.base_url), *headers]
        spelled = {text for secret in found if len(secret) >= _LEAST_SECRET for text in _spellings(secret)}
        return tuple(sorted(spelled, key=lambda text: (-len(text), text)))

    def why_off(self) -> str | None:
        """Why no model can be asked; None: one can. Nothing is sent to find out."""
        if not self.model:
            return "no model is chosen. Set HALO_MCP_MODEL to let halo-mcp send trace excerpts to a model"
        if not self.api_key and not self.base_url:
            return "HALO_MCP_MODEL is set, but neither OPENAI_API_KEY nor OPENAI_BASE_URL is"
        if self.base_url and not _is_address(self.base_url):
            return "OPENAI_BASE_URL is no address such as http://127.0.0.1:11434/v1"
        if not all(
            text.isascii() and text.isprintable() for text in (self.api_key, *self.headers.values(), *self.sdk_secrets)
        ):
            return "OPENAI_API_KEY, or a header, has characters that cannot be sent: copy it again, without quotes"
        if importlib.util.find_spec("openai") is None:
            return "the openai package is not installed"
        return None

    def require(self) -> None:
        """Raises: EngineUnavailable."""
        if reason := self.why_off():
            raise EngineUnavailable(reason)


_TEXTS: Final = {
    "model": "HALO_MCP_MODEL",
    "subagent_model": "HALO_MCP_SUBAGENT_MODEL",
    "summary_model": "HALO_MCP_SUMMARY_MODEL",
    "synthesis_model": "HALO_MCP_SYNTHESIS_MODEL",
    "api": "HALO_MCP_LLM_API",
    "reasoning_effort": "HALO_MCP_REASONING_EFFORT",
    "base_url": "OPENAI_BASE_URL",
    "api_key": "OPENAI_API_KEY",
}
_NUMBERS: Final[dict[str, tuple[str, type[int] | type[float]]]] = {
    "temperature": ("HALO_MCP_TEMPERATURE", float),
    "max_output_tokens": ("HALO_MCP_MAX_OUTPUT_TOKENS", int),
    "context_tokens": ("HALO_MCP_CONTEXT_TOKENS", int),
    "idle_s": ("HALO_MCP_LLM_IDLE_SECONDS", float),
}
_LIMITS: Final[dict[str, tuple[str, type[int] | type[float]]]] = {
    "max_turns": ("HALO_MCP_ASK_MAX_TURNS", int),
    "sub_turns": ("HALO_MCP_ASK_SUB_TURNS", int),
    "max_depth": ("HALO_MCP_ASK_MAX_DEPTH", int),
    "max_parallel": ("HALO_MCP_ASK_MAX_PARALLEL", int),
    "max_requests": ("HALO_MCP_ASK_MAX_REQUESTS", int),
    "max_seconds": ("HALO_MCP_ASK_MAX_SECONDS", float),
    "max_input_tokens": ("HALO_MCP_ASK_MAX_INPUT_TOKENS", int),
    "max_output_tokens": ("HALO_MCP_ASK_MAX_OUTPUT_TOKENS", int),
    "max_usd": ("HALO_MCP_ASK_MAX_USD", float),
    "refusals": ("HALO_MCP_ASK_REFUSAL_RETRIES", int),
}


def load_llm_settings(environ: Mapping[str, str] | None = None, **given: Any) -> LLMSettings:
    """Settings from arguments (fields of LLMSettings or Limits; None means "not given"), then the environment.

    ``max_output_tokens`` as an argument is the one per reply. Raises: BadArgument.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in given.items() if value is not None}
    known = {item.name for item in fields(LLMSettings)}
    limits = {name: given.pop(name) for name in [*given] if name not in known}
    values: dict[str, Any] = {name: environ.get(key, "").strip() for name, key in _TEXTS.items()}
    values["api"] = values["api"].lower() or "auto"
    values |= _numbers(environ, _NUMBERS) | given
    values["sdk_secrets"] = _sdk_secrets(environ)
    if values["api"] not in get_args(Api):
        raise BadArgument(f"HALO_MCP_LLM_API={values['api']!r} is not known: use auto, chat or responses.")
    base = cast("Limits", values.pop("limits", Limits()))
    try:
        values["limits"] = replace(base, **(_numbers(environ, _LIMITS) | limits))
    except TypeError:
        raise BadArgument(f"Unknown settings among: {', '.join(limits)}.") from None
    for name, value in limits.items():
        _check_limit(name, value)
    if (temperature := values.get("temperature")) is not None and not math.isfinite(temperature):
        raise BadArgument(f"temperature={temperature} is not possible: give a number.")
    for name in ("context_tokens", "idle_s", "turn_s", "max_output_tokens"):
        if values.get(name) is not None:
            _check_limit(name, values[name])
    return LLMSettings(**values)


def _split(url: str) -> SplitResult:
    """The parts of an address; empty ones for what is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _url_secrets(url: str) -> list[str]:
    """What an address may hold for its server alone: a password, a token in place of a name, values of its query."""
    parts = _split(url)
    name, password = parts.username or "", parts.password or ""
    basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode() if name or password else ""
    return [password or name, basic, *(value for _, value in parse_qsl(parts.query))]


def _spellings(secret: str) -> list[str]:
    """A secret as it is, and as JSON and addresses write it."""
    plain = [secret, unquote(secret)]
    escaped = [json.dumps(text, ensure_ascii=only)[1:-1] for text in plain for only in (True, False)]
    return [*plain, *escaped, *(quote(text, safe=safe) for text in plain for safe in ("", "/"))]


def _sdk_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    lines = environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")  # "name: value" each, as the SDK splits them
    return environ.get("OPENAI_ADMIN_KEY", ""), *(line.partition(":")[2].strip() for line in lines)


def _numbers(
    environ: Mapping[str, str], names: Mapping[str, tuple[str, type[int] | type[float]]]
) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for name, (key, kind) in names.items():
        if text := environ.get(key, "").strip():
            try:
                found[name] = kind(text.replace("_", ""))
            except ValueError:
                raise BadArgument(f"{key}={text!r} is not a number.") from None
            if name != "temperature":
                _check_limit(name, found[name])
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False
