"""What a run may use: turns, tokens, money and time, counted once for all of its agents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import anyio

from halo_mcp.engine.settings import Limits
from halo_mcp.engine.types import Json, Usage

SOFT: Final = 0.9
"""Share of a limit from which the next turn has to be the answer."""


@dataclass(slots=True)
class Totals:
    """What was used."""

    turns: int = 0
    """Replies that were paid for."""
    requests: int = 0
    """Requests sent, failed ones included."""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    usd: float | None = None
    """None: neither the server nor a price told; a lower bound when only some replies had a price."""
    unpriced_turns: int = 0
    estimated_turns: int = 0
    """Turns whose tokens the server did not report."""

    def add(self, usage: Usage) -> None:
        self.turns += 1
        self.input_tokens += usage.input
        self.cached_input_tokens += usage.cached
        self.output_tokens += usage.output
        self.reasoning_tokens += usage.reasoning
        self.estimated_turns += usage.estimated
        if usage.usd is None:
            self.unpriced_turns += 1
        else:
            self.usd = (self.usd or 0.0) + usage.usd


class Meter:
    """One budget; a child's meter counts against its parent's too, so a run never uses more than its own."""

    def __init__(
        self,
        limits: Limits,
        *,
        parent: Meter | None = None,
        totals: Totals | None = None,
        spent_s: float = 0.0,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.limits = limits
        self.totals = totals or Totals()
        self._parent = parent
        self._clock = clock
        self._started = clock() - spent_s

    def add(self, usage: Usage) -> None:
        self.totals.add(usage)
        if self._parent:
            self._parent.add(usage)

    def elapsed_s(self) -> float:
        return self._clock() - self._started

    def remaining_s(self) -> float:
        """Seconds until the hard stop, not below 0."""
        mine = max(0.0, self.limits.max_seconds - self.elapsed_s())
        return min(mine, self._parent.remaining_s()) if self._parent else mine

    def fractions(self, upcoming_tokens: int = 0) -> dict[str, float]:
        """How much of each limit is used, by the name of the limit; ``upcoming_tokens`` of input count as used."""
        used, limits = self.totals, self.limits
        found = {
            "turns": used.turns / limits.run_turns,
            "input_tokens": (used.input_tokens + upcoming_tokens) / limits.max_input_tokens,
            "output_tokens": used.output_tokens / limits.max_output_tokens,
            "seconds": self.elapsed_s() / limits.max_seconds,
        }
        if limits.max_usd is not None:
            found["usd"] = (used.usd or 0.0) / limits.max_usd
        return found

    def soft_stop(self, upcoming_tokens: int = 0) -> str | None:
        """The limit because of which the next turn has to be the answer, or None."""
        return self._stop(SOFT, upcoming_tokens, last_turns=1)

    def hard_stop(self) -> str | None:
        """The limit that is used up, or None."""
        return self._stop(1.0, 0, last_turns=0)

    def _stop(self, share: float, upcoming_tokens: int, last_turns: int) -> str | None:
        if self.totals.turns + last_turns >= self.limits.run_turns:
            return "turns"
        name, most = max(self.fractions(upcoming_tokens).items(), key=lambda item: item[1])
        if most >= share:
            return name
        return self._parent._stop(share, upcoming_tokens, last_turns) if self._parent else None

    def share(self, parts: int) -> Meter:
        """A child's meter over one of ``parts`` equal parts of what is left; time is shared, not divided."""
        used, limits = self.totals, self.limits
        lowered = limits.lowered(
            max_input_tokens=max(1, (limits.max_input_tokens - used.input_tokens) // parts),
            max_output_tokens=max(1, (limits.max_output_tokens - used.output_tokens) // parts),
            max_usd=None if limits.max_usd is None else max(1e-9, (limits.max_usd - (used.usd or 0.0)) / parts),
            run_turns=max(1, (limits.run_turns - used.turns) // parts),
            max_seconds=max(1e-3, self.remaining_s()),
        )
        return Meter(lowered, parent=self, clock=self._clock)

    def to_json(self) -> Json:
        return {"totals": asdict(self.totals), "spent_s": self.elapsed_s(), "limits": asdict(self.limits)}
