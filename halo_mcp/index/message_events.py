"""Messages that a span tells in its events, as the attributes in which newer conventions tell them.

An event is a message (``gen_ai.user.message`` ...), an answer (``gen_ai.choice``), or holds the attributes itself
(``gen_ai.client.inference.operation.details``). On a span of a tool they are its arguments and its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.json_text import json_text

_TOLD_BY_EVENTS: Final = frozenset((*semconv.MESSAGE_EVENTS, semconv.CHOICE_EVENT, *semconv.DETAILS_EVENTS))
_TOOL_OPERATION: Final = "execute_tool"
_NOT_SAID: Final = frozenset(("gen_ai.system", "gen_ai.provider.name", "index", "finish_reason"))
"""Attributes of message events that are no part of the message."""


def told_in_events(
    attributes: Mapping[str, Any], events: Iterable[tuple[str, Mapping[str, Any]]]
) -> tuple[dict[str, Any], frozenset[str]]:
    """(Attributes that only the events tell, names of the events of which nothing else is left to tell).

    ``events`` are names and attributes in order. What the span's own attributes tell is not looked for in events.
    """
    asked: list[Any] = []
    answered: list[Any] = []
    reasons: list[str] = []
    found: dict[str, Any] = {}
    names: dict[str, bool] = {}
    for name, members in events:
        if role := semconv.MESSAGE_EVENTS.get(name):
            asked.append(_message(role, members))
        elif name == semconv.CHOICE_EVENT:
            answered.append(_message("assistant", members))
            reasons += _reason(members)
        elif name in semconv.DETAILS_EVENTS:
            taken = {meant: members[key] for key, meant in semconv.DETAILS.items() if _tells(members, (key,))}
            found |= {key: value for key, value in taken.items() if not _tells(attributes, (key,))}
            names[name] = len(taken) == len(members) and taken.keys() <= found.keys()
    is_tool = attributes.get(semconv.OPERATION_NAME) == _TOOL_OPERATION
    if asked and not _tells(attributes, semconv.INPUT_VALUE if is_tool else semconv.INPUT_MESSAGES):
        key = semconv.TOOL_ARGUMENTS if is_tool else semconv.EVENT_INPUT_MESSAGES
        found.setdefault(key, _content(asked) if is_tool else asked)
        names |= dict.fromkeys(semconv.MESSAGE_EVENTS, not is_tool or len(asked) == 1)
    if answered and not _tells(attributes, semconv.OUTPUT_VALUE if is_tool else semconv.OUTPUT_MESSAGES):
        key = semconv.TOOL_RESULT if is_tool else semconv.EVENT_OUTPUT_MESSAGES
        found.setdefault(key, _content(answered) if is_tool else answered)
        names[semconv.CHOICE_EVENT] = not is_tool or len(answered) == 1
    if reasons and not is_tool and not _tells(attributes, semconv.FINISH_REASON):
        found.setdefault(semconv.FINISH_REASON[0], reasons)
    return found, frozenset(name for name, whole in names.items() if whole)


def moved_to_attributes(
    attributes: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Mapping[str, Any]]] | None:
    """The attributes with what only the events tell, as JSON text, and the events without those that tell no more.

    So whatever reads attributes (columns, rules, search) reads such spans too, and no text is kept twice. None when the
    events tell nothing that the attributes lack.
    """
    if not any(event.get("name") in _TOLD_BY_EVENTS for event in events):
        return None
    named = ((event["name"], event.get("attributes")) for event in events)
    told, whole = told_in_events(attributes, ((name, held) for name, held in named if isinstance(held, dict)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # JSON
    if not told:
        return None
    texts = {key: value if isinstance(value, str | int | float) else json_text(value) for key, value in told.items()}
    return {**attributes, **texts}, [event for event in events if event["name"] not in whole]


def _reason(members: Mapping[str, Any]) -> list[str]:
    """Why the model stopped, as an answer's event says it; [] when it does not."""
    body = _decoded(members.get(semconv.EVENT_CONTENT))
    said = members.get("finish_reason") or (body.get("finish_reason") if isinstance(body, dict) else None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # JSON
    return [said] if isinstance(said, str) and said else []


def _tells(attributes: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return any(attributes.get(key) not in (None, "", []) for key in keys)


def _message(role: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The message in an event: its body, whether that is attributes, or the JSON of one attribute."""
    said = {key: _decoded(value) for key, value in members.items() if key not in _NOT_SAID}
    for key in (semconv.EVENT_CONTENT, "message"):
        body = said.pop(key, None)
        if isinstance(body, dict):
            inner: dict[str, Any] = body  # pyright: ignore[reportUnknownVariableType]  # JSON
            inner = inner | (message if isinstance(message := inner.pop("message", None), dict) else {})
            said |= {name: value for name, value in inner.items() if name not in _NOT_SAID}
        elif body is not None:
            said.setdefault("content", body)
    return {"role": role, **said}


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _content(messages: list[Any]) -> Any:
    """What a tool was given or gave back: the content of the only message."""
    return messages[0].get("content", messages[0]) if len(messages) == 1 else messages
