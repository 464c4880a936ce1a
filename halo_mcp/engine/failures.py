"""What a failed request means, and what was learned about an endpoint from its failures."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import anyio

from halo_mcp.engine.settings import Wire
from halo_mcp.errors import GaveUp, MalformedReply

Kind = Literal["retry", "malformed", "context", "switch", "drop", "fatal"]

DROPPABLE: Final = (
    "stream_options",
    "reasoning_effort",
    "reasoning",
    "tool_choice",
    "parallel_tool_calls",
    "include",
    "temperature",
    "max_completion_tokens",
    "max_output_tokens",
    "prompt_cache_key",
    "store",
)
"""Parameters that a request can do without."""

_CONTEXT: Final = re.compile(
    r"context[ _](?:length|window|size)|maximum context|too many (?:input )?tokens|prompt is too long"
    r"|exceeds? the (?:available|maximum) context|input is too long",
    re.IGNORECASE,
)
_WINDOW: Final = re.compile(
    r"(?:maximum context length (?:is|of)|context (?:length|window|size) (?:is|of)|available context size \(?"
    r"|maximum of|limit (?:is|of)|>)\s*([\d,_]{4,12})",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(r"insufficient_quota|billing|exceeded your current quota|credit balance", re.IGNORECASE)
_KEYS: Final = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key(?=-[\w-]*\d))-[\w-]{8,}"
    r"|(?<=bearer )(?=[\w~+/-]*[\d.][\w~+/-]|[\w~+/-]{20})[\w.~+/-]+=*",
    re.IGNORECASE,
)
"""What looks like a key, and not like words ("the key-value-store", "a bearer token"). Takes no quotes: texts may hold
JSON, which must stay JSON."""
_TOOLS: Final = re.compile(r"\btools?\b|function call", re.IGNORECASE)
_NO_TOOLS: Final = "The agent needs a model, and a server, that take tool calls."
_NOT_FOUND: Final = "Check HALO_MCP_MODEL and OPENAI_BASE_URL."
_MAX_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a failure."""

    kind: Kind
    message: str
    """One line without secrets."""
    retry_after_s: float | None = None
    parameter: str = ""
    wire: Wire | None = None
    window: int | None = None
    hint: str = ""


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without the given secrets and without anything that looks like a key."""
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
    return _KEYS.sub("[redacted]", text)


def classify(error: Exception, wire: Wire, secrets: Sequence[str] = ()) -> Decision:
    """The decision for whatever a request raised; what nobody expects to fail is raised again."""
    import httpx2
    import openai

    message = _message(error, secrets)
    match error:
        case openai.APIStatusError():
            return _status(error, message, wire)
        case openai.APIConnectionError():
            cause = _message(error.__cause__, secrets) if isinstance(error.__cause__, Exception) else ""
            if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                return Decision(
                    "retry", f"{_address(str(error.request.url))} cannot be reached ({cause}); check OPENAI_BASE_URL"
                )
            return Decision("retry", f"{message} {cause}".strip())
        case openai.APIError():  # inside a stream
            if _is_context(error.code, message):
                return Decision("context", message, window=_window(message))
            return Decision("fatal" if _QUOTA.search(f"{error.code} {message}") else "retry", message)
        case MalformedReply() | ValueError() | RecursionError():  # no JSON, or JSON that Python cannot hold
            return Decision("malformed", message)
        case TimeoutError() | httpx2.HTTPError() | httpx2.StreamError() | OSError():
            return Decision("retry", message or "the request timed out")
        case _:
            raise error


def _status(error: Any, message: str, wire: Wire) -> Decision:
    status, code = int(error.status_code), str(error.code or "")
    facts = f"{code} {message}"
    if _QUOTA.search(facts) and status in (402, 403, 429):
        return Decision("fatal", message, hint="The account behind OPENAI_API_KEY has no quota left.")
    if status in (408, 409, 429) or status >= 500:
        return Decision("retry", f"status {status}: {message}", retry_after_s=retry_after(error.response.headers))
    if status in (401, 403):
        return Decision("fatal", message, hint="Check OPENAI_API_KEY and OPENAI_BASE_URL.")
    if status in (400, 413, 422) and _is_context(code, message):
        return Decision("context", message, window=_window(message))
    if status == 400 and wire == "chat" and "/v1/responses" in message:
        return Decision("switch", message, wire="responses")
    if status in (404, 405) and wire == "responses" and "model" not in code:
        return Decision("switch", message, wire="chat", hint=_NOT_FOUND)
    if status in (404, 405) and "model" not in facts.lower():  # a server that has only /responses
        return Decision("switch", message, wire="responses", hint=_NOT_FOUND)
    if status in (400, 422) and (parameter := _parameter(error, message)):
        return Decision("drop", message, parameter=parameter)
    if status == 404:
        return Decision("fatal", message, hint=_NOT_FOUND)
    hint = _NO_TOOLS if _TOOLS.search(message) else ""
    return Decision("fatal", f"status {status}: {message}", hint=hint)


def _address(url: str) -> str:
    """Scheme, host and port: what is needed to find a mistake in OPENAI_BASE_URL, without a password in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_context(code: str | None, message: str) -> bool:
    return code == "context_length_exceeded" or _CONTEXT.search(message) is not None


def _window(message: str) -> int | None:
    found = _WINDOW.search(message)
    digits = re.sub(r"\D", "", found[1]) if found else ""
    return int(digits) if digits else None


def _parameter(error: Any, message: str) -> str:
    named = str(error.param or "").split(".")[0]
    if named in DROPPABLE:
        return named
    return next((name for name in DROPPABLE if re.search(rf"\b{name}\b", message)), "")


def _message(error: BaseException, secrets: Sequence[str]) -> str:
    text = " ".join(str(getattr(error, "message", "") or error).split())
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):  # pyright: ignore[reportUnknownMemberType] -- any JSON
        text = " ".join(str(body["message"]).split())  # pyright: ignore[reportUnknownArgumentType] -- any JSON
    # Cut only after the secrets are out: a cut through a key would leave half of it.
    text = redact(text, secrets)
    return (text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…") or type(error).__name__


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (seconds or a date), or None. RFC 9110 §10.2.3."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * scale
        except ValueError:
            continue
        return max(0.0, seconds) if seconds < float("inf") else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, date.timestamp() - now())


@dataclass(slots=True)
class Quirks:
    """What an endpoint taught us about itself; kept per (base_url, model) for the life of the process."""

    wire: Wire | None = None
    switched: bool = False
    dropped: set[str] = field(default_factory=set[str])
    no_stream: bool = False
    window: int | None = None

    def switch(self, wire: Wire) -> bool:
        """Use the other wire from now on; False when that was tried already."""
        if self.switched:
            return False
        self.wire, self.switched = wire, True
        return True

    def drop(self, parameter: str) -> bool:
        """Leave a parameter out from now on; False when it was left out already."""
        if parameter in self.dropped:
            return False
        self.dropped.add(parameter)
        return True

    def learn_window(self, tokens: int | None) -> None:
        if tokens and tokens >= 1_000:
            self.window = min(tokens, self.window or tokens)


class RateGate:
    """One gate before all requests of a run: a Retry-After that one agent got holds the others too."""

    def __init__(self) -> None:
        self._open_at = 0.0

    def hold(self, seconds: float) -> None:
        self._open_at = max(self._open_at, anyio.current_time() + seconds)

    def remaining_s(self) -> float:
        return max(0.0, self._open_at - anyio.current_time())

    async def wait(self, remaining_s: float) -> None:
        """Sleep until the gate opens. Raises: GaveUp at once when that is later than the time left."""
        while (wait := self.remaining_s()) > 0:
            if wait >= remaining_s:
                raise GaveUp("rate_limited", f"the endpoint asks to wait {wait:.0f} s, longer than this run has left")
            await anyio.sleep(wait)
            remaining_s -= wait
