"""How many traces there are, and what goes wrong in how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Outcome = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True)
class Injection:
    """So many traces have a failure mode; so many of them fail for it, the others get over it."""

    traces: int
    failing: int = 0
    unknown: int = 0
    """Traces, of those that do not fail, whose outcome nobody recorded."""


ROOT_CAUSE: Final = "missing_module"
PLAN: Final[Mapping[str, Injection]] = {
    # Hard: ERROR status.
    ROOT_CAUSE: Injection(38, 32, 2),
    "write_denied": Injection(12, 3),
    "search_timeout": Injection(9, 2, 1),
    "rate_limited": Injection(7, 1),
    "bare_key_error": Injection(4),
    "bare_assertion": Injection(3, 1),
    "bare_os_error": Injection(2),
    # Soft: the status is UNSET.
    "shell_exit": Injection(8, 2, 1),
    "returncode": Injection(6, 1),
    "http_429": Injection(6, 1),
    "http_500": Injection(4, 2),
    "test_traceback": Injection(5, 1),
    "refusal": Injection(4, 4),
    "cut_answer": Injection(5, 2),
    "empty_answer": Injection(3, 1),
    "loop": Injection(5, 4),
    "max_turns": Injection(4, 4),
    "": Injection(30, 2, 8),
}
"""By failure mode; "" is none: those that fail do so silently."""


@dataclass(frozen=True)
class Attempt:
    """One trace to be."""

    number: int
    mode: str
    outcome: Outcome

    @property
    def gives_up(self) -> bool:
        return self.outcome == "fail" and bool(self.mode)


def attempts(plan: Mapping[str, Injection], rng: Random) -> list[Attempt]:
    """All traces, shuffled."""
    fates: list[tuple[str, Outcome]] = []
    for mode, injection in plan.items():
        passing = injection.traces - injection.failing - injection.unknown
        shares: dict[Outcome, int] = {"fail": injection.failing, "unknown": injection.unknown, "pass": passing}
        for outcome, traces in shares.items():
            fates.extend((mode, outcome) for _ in range(traces))
    rng.shuffle(fates)
    return [Attempt(number, *fate) for number, fate in enumerate(fates)]
