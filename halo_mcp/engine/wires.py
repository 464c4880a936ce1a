"""Requests for both wires: what is sent to ``/chat/completions`` and to ``/responses``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from halo_mcp.engine.failures import Quirks
from halo_mcp.engine.settings import LLMSettings, Wire
from halo_mcp.engine.types import Json, Message, ToolSpec, Turn

PATHS: Final[dict[Wire, str]] = {"chat": "/chat/completions", "responses": "/responses"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whatever the wire."""

    model: str
    system: str
    messages: Sequence[Message]
    note: str = ""
    """A last user message that is sent once and kept nowhere."""
    tools: Sequence[ToolSpec] = field(default_factory=tuple[ToolSpec, ...])
    force: str = ""
    """The tool that the model must call; "none": it may call none; empty: it chooses."""
    cache_key: str = ""

    def chars(self) -> int:
        """Characters that a model has to read."""
        total = len(self.system) + len(self.note) + sum(message_chars(message) for message in self.messages)
        return total + sum(len(tool.name) + len(tool.description) + len(str(tool.schema)) for tool in self.tools)


def message_chars(message: Message) -> int:
    """Characters of one message, its tool calls included."""
    turn = message.turn
    return len(message.text) + (sum(len(call.name) + len(call.arguments) for call in turn.calls) if turn else 0)


def body(request: Request, wire: Wire, settings: LLMSettings, quirks: Quirks, *, stream: bool) -> Json:
    """The JSON to send, without the parameters that this endpoint is known not to take."""
    if request.force and "tool_choice" in quirks.dropped:
        # The server cannot be told which tool to call, so it is offered no other.
        request = replace(request, tools=[tool for tool in request.tools if tool.name == request.force])
    full = _chat(request, settings) if wire == "chat" else _responses(request, settings)
    if stream:
        full["stream"] = True
        if wire == "chat":
            full["stream_options"] = {"include_usage": True}
    kept = {key: value for key, value in full.items() if key not in quirks.dropped}
    if "max_completion_tokens" in full and "max_completion_tokens" not in kept:
        kept["max_tokens"] = full["max_completion_tokens"]  # the older name, all that some servers know
    return kept


def _common(request: Request, settings: LLMSettings) -> Json:
    common: Json = {"model": request.model}
    if settings.temperature is not None:
        common["temperature"] = settings.temperature
    if settings.official and request.cache_key:
        common["prompt_cache_key"] = request.cache_key
    return common


def _chat(request: Request, settings: LLMSettings) -> Json:
    messages: list[Json] = [{"role": "system", "content": request.system}, *map(_chat_message, request.messages)]
    if request.note:
        messages.append({"role": "user", "content": request.note})
    full = {**_common(request, settings), "messages": messages}
    if request.tools:
        full["tools"] = [{"type": "function", "function": _function(tool)} for tool in request.tools]
        if request.force == "none":
            full["tool_choice"] = "none"
        elif request.force:
            full["tool_choice"] = {"type": "function", "function": {"name": request.force}}
    if settings.reasoning_effort:
        full["reasoning_effort"] = settings.reasoning_effort
    if settings.max_output_tokens:
        full["max_completion_tokens"] = settings.max_output_tokens
    return full


def _function(tool: ToolSpec) -> Json:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)}


def _chat_message(message: Message) -> Json:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if message.turn is None:
        return {"role": message.role, "content": message.text}
    if message.turn.wire == "chat":
        return copy.deepcopy(message.turn.native)
    return _foreign(message.turn)


def _foreign(turn: Turn) -> Json:
    """A turn of the other wire as a chat message: text and calls survive, what only that wire knows does not."""
    shown: Json = {"role": "assistant", "content": turn.text or None}
    if turn.calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments if call.parse() is not None else "{}"},
            }
            for call in turn.calls
        ]
    return shown


def _responses(request: Request, settings: LLMSettings) -> Json:
    items: list[Json] = []
    for message in request.messages:
        items += _response_items(message)
    if request.note:
        items.append({"role": "user", "content": request.note})
    full: Json = {
        **_common(request, settings),
        "instructions": request.system,
        "input": items,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if request.tools:
        full["tools"] = [{"type": "function", **_function(tool), "strict": False} for tool in request.tools]
        if request.force == "none":
            full["tool_choice"] = "none"
        elif request.force:
            full["tool_choice"] = {"type": "function", "name": request.force}
    if settings.reasoning_effort:
        full["reasoning"] = {"effort": settings.reasoning_effort}
    if settings.max_output_tokens:
        full["max_output_tokens"] = settings.max_output_tokens
    return full


def _response_items(message: Message) -> list[Json]:
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.call_id, "output": message.text}]
    if message.turn is None:
        return [{"role": message.role, "content": message.text}]
    if message.turn.wire == "responses":
        return copy.deepcopy(message.turn.native)
    turn = message.turn
    text: list[Json] = [{"role": "assistant", "content": turn.text}] if turn.text else []
    return text + [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments if call.parse() is not None else "{}",
        }
        for call in turn.calls
    ]
