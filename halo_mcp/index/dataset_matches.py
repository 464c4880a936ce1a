"""What a search over many traces found. No heavy imports: the server knows these names from its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from halo_mcp.index.store import Match

MatchGroupKey = Literal["trace", "span_name", "tool", "kind", "failure_mode", "agent", "model", "outcome"]
"""By what matching spans are counted. A span is in one group only; a trace is in every group that has a match of it."""


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the search: how far the scan had come, how many spans matched by then, which snippet comes next."""

    searched_spans: int
    matching_spans: int
    snippet: int


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """Traces, also by recorded outcome; the rest have none."""

    traces: int
    failing: int
    passing: int


@dataclass(frozen=True, slots=True)
class MatchGroup:
    """Matching spans that have ``value`` (None: have none), and the traces they are in."""

    value: str | None
    spans: int
    traces: TraceCounts


@dataclass(frozen=True, slots=True)
class Snippet:
    """One match of one matching span."""

    trace_id: str
    match: Match
    matches_in_span: int
    """Exact. 0 when the pattern matches an empty text only: then ``match`` has none either."""
    first_in_trace: bool
    """No other matching span of the trace ended earlier: as far as times tell, the text comes from here."""
    repeated: bool
    """All matches are in the input of an LLM span, and another span of the trace had one earlier: message history."""


@dataclass(frozen=True, slots=True)
class DatasetMatches:
    """Which spans of the selected traces match. All counts are exact for the spans searched."""

    selected: TraceCounts
    matching: TraceCounts
    matching_spans: int
    searched_spans: int
    total_spans: int
    searched_bytes: int
    total_bytes: int
    groups: tuple[MatchGroup, ...]
    """Most traces first, then most spans, then by value; at most as many as were asked for."""
    group_count: int
    may_repeat: int
    """So many matching spans are LLM spans behind another match of their trace: at most these repeat history only."""
    snippets: tuple[Snippet, ...]
    """Traces take turns, spread evenly over time; of one trace at most two, those that ended first."""
    here: Where
    """Where ``snippets`` begin."""
    following: Where | None
    """Where the next page begins, or while incomplete the scan goes on; None behind the last snippet."""
    restarted: bool = False
    """The search should have gone on, but what it had found was no longer known: it began anew."""

    @property
    def complete(self) -> bool:
        """Every span was searched."""
        return self.searched_spans == self.total_spans
