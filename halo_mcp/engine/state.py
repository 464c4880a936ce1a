"""The state of one agent: what is saved after every turn, and all that is needed to go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from halo_mcp.engine.budget import Meter, Totals
from halo_mcp.engine.history import History
from halo_mcp.engine.settings import Limits
from halo_mcp.engine.types import AgentResult, FinalAnswer, Json

CHARS_PER_TOKEN: Final = 4.0
"""Until the server has said how many tokens its model needs."""


@dataclass(slots=True)
class Agent:
    """The state of one agent; all of it can be saved after any turn."""

    id: str
    parent_id: str
    depth: int
    system: str
    history: History
    max_turns: int
    model: str
    meter: Meter
    call_id: str = ""
    """The parent's call that started it."""
    turns: int = 0
    tool_calls: int = 0
    nudges: int = 0
    refusals: int = 0
    rounds: int = 0
    stop: str | None = None
    """Why the last turn had to be the answer."""
    rescuing: bool = False
    """That turn was no answer: what comes next is taken as plain text."""
    chars_per_token: float = CHARS_PER_TOKEN
    overflows: int = 0
    draft: FinalAnswer | None = None
    """An answer that went back with problems; better than none."""
    result: AgentResult | None = None

    def tokens(self, chars: int) -> int:
        """Estimated tokens of so many characters."""
        return round(chars / self.chars_per_token)

    def to_json(self) -> Json:
        plain = ("id", "parent_id", "depth", "system", "max_turns", "model", "call_id", "turns", "tool_calls", "nudges")
        plain += ("refusals", "rounds", "stop", "rescuing", "chars_per_token")
        return {
            **{name: getattr(self, name) for name in plain},
            "history": self.history.to_json(),
            "meter": self.meter.to_json(),
            "draft": self.draft.model_dump() if self.draft else None,
            "result": self.result.to_json() if self.result else None,
        }


def meter_of(data: Json, parent: Meter | None, limits: Limits | None = None) -> Meter:
    return Meter(
        limits or Limits(**data["limits"]), parent=parent, totals=Totals(**data["totals"]), spent_s=data["spent_s"]
    )
