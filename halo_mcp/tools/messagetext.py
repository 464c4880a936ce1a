"""Messages as text, and what their attributes hold beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.messages import Conversation, Message
from halo_mcp.index.span import as_list, as_mapping
from halo_mcp.tools.budget import name
from halo_mcp.tools.render import indent, readable

_LABEL: Final = "type"
"""The member of messages and their parts that says how to read the others: shown by how they are written down."""
_NUMBERED: Final = re.compile(r"(\d+)\.(.+)", re.DOTALL)


def speaker(message: Message) -> str:
    """Who says a message: its role, name and the call that it answers."""
    about = f" {name(message.name)}" if message.name else ""
    about += f" ({name(message.tool_call_id)})" if message.tool_call_id else ""
    return name(message.role) + about


def message_text(message: Message) -> str:
    """What a message says and calls, decoded."""
    parts = [readable(message.content)] if message.content else []
    for call in message.tool_calls:
        arguments, marked = readable(call.arguments), f" id={call.id}" if call.id else ""
        if "\n" in arguments:
            parts.append(f"calls {call.name}{marked}:\n{indent(arguments, '  ')}")
        else:
            parts.append(f"calls {call.name}({arguments}){marked}")
    return "\n".join(parts) or "(empty)"


def conversation_text(found: Conversation) -> str:
    """All messages in full, as a view shows them."""
    lines = (f"{i} {speaker(message)}: {message_text(message)}" for i, message in enumerate(found.messages, 1))
    return "\n".join(lines)


def unsaid_members(found: Conversation, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, text) of each value in the conversation's attributes that its messages do not tell."""
    told = [_told(message) for message in found.messages]
    everything: list[str] = []  # joined only when something needs it

    def known(position: int | None, text: str) -> bool:
        if position is not None and position < len(told) and text in told[position]:
            return True
        if not everything:
            everything.append("\n".join(told))
        return all(line.strip() in everything[0] for line in text.splitlines())

    for key in sorted(found.keys):
        for position, path, text in _members(key, given[key], found):
            if text and path.rpartition(".")[2] != _LABEL and not known(position, text):
                yield path, text


def _told(message: Message) -> str:
    calls = [text for call in message.tool_calls for text in (call.name, call.id, call.arguments)]
    return "\n".join(
        (
            name(message.role),
            name(message.name),
            name(message.tool_call_id),
            message.content,
            *calls,
            message_text(message),
        )
    )


def _members(key: str, value: Any, found: Conversation) -> Iterator[tuple[int | None, str, str]]:
    """(number of the message or None, path, text) of every value in an attribute that holds messages."""
    prefix = next((prefix for prefix in semconv.FLAT_PREFIXES if key.startswith(prefix)), None)
    if prefix is not None:
        numbered = _NUMBERED.fullmatch(key[len(prefix) :])
        yield int(numbered[1]) if numbered else None, key, _leaf_text(value)
        return
    if isinstance(value, str):
        value = orjson.loads(value)
    todo: list[tuple[int | None, str, Any]] = [(None, key, value)]
    while todo:
        position, path, item = todo.pop()
        if isinstance(item, dict):
            members = list(as_mapping(item).items())
            todo += [(position, f"{path}.{member}", inner) for member, inner in reversed(members)]
        elif isinstance(item, list):
            items = list(enumerate(as_list(item)))
            todo += [(i if position is None else position, f"{path}[{i}]", inner) for i, inner in reversed(items)]
        else:
            yield position, path, _leaf_text(item)


def _leaf_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else readable(value)
