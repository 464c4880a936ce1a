"""Where tokens go: by model, agent, turn, tool; what is sent again; what is spent after a trace has failed.

Only LLM spans count (AGENT spans repeat their children's usage). A *turn* is the number of an LLM call among those of
one agent in one trace, by start time. "Sent again" and "growth" compare a call with the previous call of the same agent
in the same trace; both are estimates, because an agent may start a new conversation in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CostGroup = Literal["model", "agent", "turn", "tool", "run", "outcome"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the LLM calls in one group."""

    name: str
    calls: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    usd: float | None
    """None without a price table. Calls of models without a price add nothing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Input tokens of the n-th call of an agent in a trace, over calls that tell them."""

    turn: int
    calls: int
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class ToolGrowth:
    """By how much the context grew from the call before a tool to the call after it."""

    name: str
    calls: int
    followed: int
    """Calls between two LLM calls of the same agent that both tell their tokens."""
    tokens: int
    """Sum of the growth, shared among the tool calls between the same two LLM calls by the length of their outputs."""
    output_chars: int
    """Of all calls."""


@dataclass(frozen=True, slots=True)
class FailingUsage:
    """What failing traces spent."""

    by_outcome: bool
    """Failing means outcome fail; False where no outcome is recorded: then any trace with a failure."""
    traces: int
    tokens: int
    """Input and output of their LLM calls."""
    with_failure: int
    """Traces among them in which a failure is visible (and has a time)."""
    with_failure_tokens: int
    after_first: int
    """Tokens of calls that start when the first visible failure has ended, or later."""
    after_last: int
    """The same for the last one."""


@dataclass(frozen=True, slots=True)
class TraceCost:
    """One trace's LLM calls."""

    trace_id: str
    calls: int
    input_tokens: int
    output_tokens: int
    outcome: str
    usd: float | None


@dataclass(frozen=True, slots=True)
class CostReport:
    """Where the tokens of some traces go. Groups: most expensive first (by price, else tokens); turns in order."""

    traces: int
    calls: int
    calls_without_input: int
    """LLM spans that tell no input tokens: they count nowhere."""
    agent_only_traces: int
    """Traces whose usage stands on AGENT spans only: not in any figure here."""
    agent_only_tokens: int
    total: Usage
    groups: Mapping[CostGroup, tuple[Usage, ...]]
    """All but "tool"."""
    turns: tuple[Turn, ...]
    tools: tuple[ToolGrowth, ...]
    growth: int
    """Context growth between consecutive calls of an agent, over all of them: with and without tools between."""
    resent_tokens: int
    """Sum of min(input + output of the agent's previous call, input of this one)."""
    cached_told_input: int
    """Input tokens of the calls that tell cached tokens."""
    beside_models: tuple[str, ...]
    """Models whose cached tokens are taken as beside their input tokens: some call has more cached than input."""
    unpriced_models: tuple[str, ...]
    failing: FailingUsage
    expensive: tuple[TraceCost, ...]
