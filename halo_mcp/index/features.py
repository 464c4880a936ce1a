"""What can be said about each trace of a selection: numbers, and features that it has or has not.

The raw material of contrasts and comparisons: arrays with one place per trace. ``feature_reading`` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.harness_reading import Seen

    Positions = NDArray[np.int64]

FeatureKind = Literal[
    "failure_mode",
    "tool_failed",
    "tool_again",
    "tool",
    "tool_pair",
    "harness_version",
    "finish_reason",
    "model",
    "agent",
    "service",
]
"""Where two features are in the same traces, the earlier kind is the better name for it."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that some traces have and others have not."""

    kind: FeatureKind
    name: str
    """Unique among the features of its kind."""
    text: str
    """What a reader sees; of a failure mode the words of its earliest example, verbatim."""
    filters: Mapping[str, Any]
    """The TraceFilters that select exactly the traces that have it; empty where no filter does."""
    about: tuple[str, frozenset[str]]
    """The filter field and the names that it speaks of: a group chosen by them has it by definition."""
    traces: Positions
    """Positions of the traces that have it, ascending."""

    @property
    def label(self) -> str:
        """The shortest words that tell it from the others."""
        return f"failure mode {self.name}" if self.kind == "failure_mode" else self.text


@dataclass(frozen=True, slots=True)
class NumberOf:
    """A number that every trace has; NaN where it is unknown."""

    name: str
    text: str
    unit: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TraceFeatures:
    """The traces of a selection; ``keys`` ascend, and everything else is in their order."""

    keys: Positions
    trace_ids: NDArray[np.object_]
    outcome: NDArray[np.int8]
    """1 pass, 0 fail, -1 unknown."""
    start: NDArray[np.int64]
    """Nanoseconds since the epoch; 0 when unknown."""
    end: NDArray[np.int64]
    task: Positions
    """Number in ``tasks``; -1 when unknown."""
    tasks: tuple[str, ...]
    run: Positions
    """Number in ``runs``; -1 when unknown."""
    runs: tuple[str, ...]
    numbers: tuple[NumberOf, ...]
    features: tuple[Feature, ...]
    names_left_out: int = 0
    """Names too rare to be considered, over all kinds."""
    modes_left_out: int = 0
    """Failure modes among these."""
    harness: Seen | None = None
    """Under which harness versions the traces ran; None where it would take long to read."""

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, chosen: NDArray[np.bool_]) -> TraceFeatures:
        """These traces only; names that none of them has stay known."""
        place = np.cumsum(chosen) - 1
        return replace(
            self,
            keys=self.keys[chosen],
            trace_ids=self.trace_ids[chosen],
            outcome=self.outcome[chosen],
            start=self.start[chosen],
            end=self.end[chosen],
            task=self.task[chosen],
            run=self.run[chosen],
            numbers=tuple(replace(number, values=number.values[chosen]) for number in self.numbers),
            features=tuple(
                replace(feature, traces=place[feature.traces[chosen[feature.traces]]]) for feature in self.features
            ),
            harness=None if self.harness is None else self.harness.among(self.keys[chosen]),
        )

    def number(self, name: str) -> NDArray[np.float64]:
        """The values of one number. Raises: StopIteration."""
        return next(number.values for number in self.numbers if number.name == name)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a failure mode begins in a trace."""

    span_id: str
    text: str
    """As ``Feature.text``, with the words of this span."""
