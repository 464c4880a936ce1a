"""A conversation of several agents: every turn of an agent is a model's step, its speaker the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import MODEL_ROLES, RESULT_ROLES, Result, Talk, plain
from halo_mcp.index.formats.values import given
from halo_mcp.index.span import Json, as_mapping, as_text

_TERMINALS: Final = frozenset(("computer_terminal", "computerterminal"))
"""Agents that only run code."""
_LISTENED_TO: Final = frozenset(("user", "human", "system", "developer"))


@dataclass(slots=True)
class Turns(Talk):
    """Takes turns in order. The speaker is in ``name``, else in ``role`` before `` (``."""

    def is_answer(self, message: Mapping[str, Json]) -> bool:
        speaker = speaker_of(message)
        if message.get("name") and speaker.lower() not in _LISTENED_TO:
            return speaker.lower() not in _TERMINALS
        return bool(speaker) and speaker.lower() not in _LISTENED_TO | RESULT_ROLES | _TERMINALS

    def results(self, message: Mapping[str, Json]) -> list[Result]:
        speaker = speaker_of(message)
        if speaker.lower() in _TERMINALS:
            return [Result(plain(message.get("content")), name=speaker)]
        return Talk.results(self, message)

    def answer_attributes(self, message: Mapping[str, Json]) -> dict[str, Json]:
        speaker = speaker_of(message)
        name = "" if speaker in MODEL_ROLES else speaker
        return Talk.answer_attributes(self, message) | given({semconv.AGENT_NAME[0]: name})


def speaker_of(message: Mapping[str, Json]) -> str:
    """Who says it; "" when nothing tells."""
    return as_text(message.get("name")) or as_text(message.get("role")).partition(" (")[0]


def is_turn(value: Json) -> bool:
    """Whether this is something that somebody said."""
    turn = as_mapping(value)
    return isinstance(turn.get("role"), str) and "content" in turn
