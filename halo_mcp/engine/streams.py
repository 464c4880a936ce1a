"""Putting a model's streamed reply together, over plain dicts, for both wires.

The SDK's own accumulators merge parallel calls of servers that reuse an index, raise on ``length``, and take a stream
that ends early for a whole one. Here a reply counts only when the server said that it is finished.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final, cast

from halo_mcp.engine.types import Call, Json, Turn, Usage, well_formed
from halo_mcp.errors import MalformedReply

EMPTY_ARGUMENTS: Final = "{}"
_MOST: Final = 1e9
"""Tokens or dollars of one reply."""


def _obj(value: Any) -> Json:
    """The value if it is an object; servers send null, or nothing, where the documents promise one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def _objs(value: Any) -> list[Json]:
    """The objects of a list; empty for anything else."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Json", item) for item in items if isinstance(item, dict)]


class ChatStream:
    """Chunks of ``/chat/completions`` to one Turn."""

    def __init__(self) -> None:
        self._message: Json = {"role": "assistant"}
        self._calls: list[Json] = []
        self._slots: dict[Any, int] = {}
        self._finish = ""
        self._usage: Json | None = None

    def feed(self, chunk: Json) -> str:
        """The text that this chunk added."""
        self._usage = _obj(chunk.get("usage")) or self._usage
        choices = _objs(chunk.get("choices"))
        if not choices:  # the last chunk may hold nothing but usage
            return ""
        self._finish = str(choices[0].get("finish_reason") or self._finish)
        delta = _obj(choices[0].get("delta"))
        for key, value in delta.items():
            if key == "tool_calls":
                for part in _objs(value):
                    self._call(part)
            elif key != "role":
                _grow(self._message, key, value)
        text = delta.get("content")
        return text if isinstance(text, str) else ""

    def _call(self, part: Json) -> None:
        index, call_id = part.get("index"), str(part.get("id") or "")
        index = index if isinstance(index, int) else None
        position = self._slots.get(index) if index is not None else len(self._calls) - 1 if self._calls else None
        # A new id is a new call, also from servers that give every call the index 0.
        if position is None or (call_id and self._calls[position]["id"] not in ("", call_id)):
            position = len(self._calls)
            self._calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        self._slots[index] = position
        call = self._calls[position]
        call["id"] = call["id"] or call_id
        function = _obj(part.get("function"))
        call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call["function"]["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
        call.update({key: value for key, value in part.items() if key not in ("index", "id", "type", "function")})

    def finish(self) -> Turn:
        """The whole reply. Raises: MalformedReply when the server never said that it was one."""
        if not self._finish:
            raise MalformedReply("the stream ended without finish_reason")
        message = {**self._message, **({"tool_calls": self._calls} if self._calls else {})}
        return chat_turn({"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage})


def _grow(message: Json, key: str, value: Any) -> None:
    """Unknown fields are kept: strings and lists grow, anything else is replaced."""
    if value is None:
        return
    old: Any = message.get(key)
    if isinstance(old, str) and isinstance(value, str):
        value = old + value
    elif isinstance(old, list) and isinstance(value, list):
        value = [*cast("list[Any]", old), *cast("list[Any]", value)]
    message[key] = value


def chat_turn(completion: Json) -> Turn:
    """A whole chat completion as a Turn. Raises: MalformedReply."""
    choices = _objs(completion.get("choices"))
    if not choices or not choices[0].get("finish_reason"):
        raise MalformedReply("the reply has no finished choice")
    message: Json = {key: value for key, value in _obj(choices[0].get("message")).items() if value is not None}
    native_calls = _objs(message.pop("tool_calls", []))
    calls = [_chat_call(item) for item in native_calls]
    content = _text(message.get("content"))
    refusal = _text(message.get("refusal"))
    finish = str(choices[0]["finish_reason"])
    native: Json = {"role": "assistant", **message}
    if calls:
        native["tool_calls"] = native_calls
    native.setdefault("content", None if calls else "")
    refused = bool(refusal) or finish == "content_filter"
    return Turn(
        "chat", native, well_formed(content or refusal), calls, refused, finish, _usage(completion.get("usage"), "chat")
    )


def _chat_call(item: Json) -> Call:
    function = _obj(item.get("function"))
    item["function"] = function
    return _call(item, function, "id", str(function.get("name") or ""))


def _call(holder: Json, function: Json, id_key: str, name: str) -> Call:
    """A call; what a server would not take back is repaired in its native form too."""
    if not name:
        raise MalformedReply("a tool call has no name")
    arguments = function.get("arguments") or ""
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    holder[id_key] = str(holder.get(id_key) or f"call_{secrets.token_hex(6)}")
    call = Call(holder[id_key], name, arguments)
    # Servers parse the arguments of replayed calls, and refuse the whole request over one that was cut off.
    function["arguments"] = arguments if arguments and call.parse() is not None else EMPTY_ARGUMENTS
    return call


def _text(content: Any) -> str:
    """Content as text: a string, or a list of parts of which some have text."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in _objs(cast("Any", content)))
    return content if isinstance(content, str) else ""


class ResponsesStream:
    """Events of ``/responses`` to one Turn."""

    def __init__(self) -> None:
        self._final: Json | None = None

    def feed(self, event: Json) -> str:
        """The text that this event added. Raises: MalformedReply when the server reports a failure."""
        kind = event.get("type")
        if kind == "response.output_text.delta":
            return str(event.get("delta") or "")
        if kind in ("response.completed", "response.incomplete"):
            self._final = _obj(event.get("response"))
        elif kind in ("response.failed", "error"):
            error = _obj(_obj(event.get("response")).get("error")) or event
            raise MalformedReply(f"{kind}: {error.get('code') or ''} {error.get('message') or ''}".strip())
        return ""

    def finish(self) -> Turn:
        """The whole reply. Raises: MalformedReply when the server never said that it was one."""
        if self._final is None:
            raise MalformedReply("the stream ended without response.completed")
        return responses_turn(self._final)


def responses_turn(response: Json) -> Turn:
    """A whole Responses object as a Turn. Raises: MalformedReply."""
    status = response.get("status")
    if status not in ("completed", "incomplete"):
        raise MalformedReply(f"the response is {status!r}, not completed")
    items: list[Json] = [
        {key: value for key, value in item.items() if key != "status" and value is not None}
        for item in _objs(response.get("output"))
    ]
    found = [item for item in items if item.get("type") == "function_call"]
    calls = [_call(item, item, "call_id", str(item.get("name") or "")) for item in found]
    parts = [part for item in items if item.get("type") == "message" for part in _objs(item.get("content"))]
    text = "".join(_text(part.get("text")) for part in parts)
    refusal = "".join(_text(part.get("refusal")) for part in parts)
    reason = str(_obj(response.get("incomplete_details")).get("reason") or "")
    finish = "content_filter" if reason == "content_filter" else "length" if status == "incomplete" else "stop"
    refused = bool(refusal) or finish == "content_filter"
    finish = "tool_calls" if calls and finish == "stop" else finish
    usage = _usage(response.get("usage"), "responses")
    return Turn("responses", items, well_formed(text or refusal), calls, refused, finish, usage)


def _usage(raw: Any, wire: str) -> Usage | None:
    """Token counts, of which compatible servers leave out any; ``usage.cost`` is what OpenRouter reports."""
    data = _obj(raw)
    if not data:
        return None
    sent, received = ("prompt", "completion") if wire == "chat" else ("input", "output")
    details = _obj(data.get(f"{sent}_tokens_details"))
    reasoned = _obj(data.get(f"{received}_tokens_details"))
    given, cost = _amount(data.get(f"{sent}_tokens")), _amount(data.get("cost"))
    return Usage(
        input=int(given or 0),
        cached=int(min(_amount(details.get("cached_tokens")) or 0, given or 0)),
        output=int(_amount(data.get(f"{received}_tokens")) or 0),
        reasoning=int(_amount(reasoned.get("reasoning_tokens")) or 0),
        usd=None if cost is None else float(cost),
    )


def _amount(value: Any) -> float | None:
    """A count or price that can be one; None for what would turn a budget back or break its arithmetic."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and 0 <= value <= _MOST else None
