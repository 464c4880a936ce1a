"""Two sets of traces, before and after: what changed, how sure that is, and whether it is better or worse.

Traces are paired by task where both sides attempted the same tasks: the same tasks answer the question with less noise,
and trials of one task are no independent evidence. What is paired is the task, as the mean over its trials on each
side; single trials of a task have no partner on the other side. ``docs/methods.md`` has the reasons and sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from halo_mcp.index.features import Feature, FeatureKind, TraceFeatures
from halo_mcp.index.harness import MixedVersions, agent_versions, mixed_versions
from halo_mcp.index.statistics import (
    ALPHA,
    Interval,
    benjamini_hochberg,
    fisher_exact,
    holm,
    median_difference_interval,
    needed_pairs,
    needed_per_group,
    newcombe,
    paired_mean_interval,
    rank_test,
    sign_flips,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Codes = NDArray[np.int64]
    Numbers = NDArray[np.float64]

LEAST_PAIRS: Final = 6
"""Fewer tasks can never differ significantly: six that all change the same way give p = 0.031."""
NOTABLE: Final = 0.05
"""A change of the rate that would matter if it were real: below it nobody asks for more traces."""
LEAST_TRACES: Final = 3
"""A failure mode in fewer traces of both sides together is not tested."""

Verdict = Literal["better", "worse", "no evidence of a difference", "underpowered"]
Change = Literal["gone", "appeared", "less", "more", "no evidence"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets of traces."""

    traces: int
    passed: int
    failed: int
    unknown: int
    tasks: int
    runs: tuple[tuple[str, int], ...]
    """Runs and their traces, in the order of their names."""
    models: tuple[str, ...]
    start_time_unix_nano: int | None
    end_time_unix_nano: int | None
    versions: Mapping[str, tuple[str, ...]] | None
    """Agent -> ids of its harness versions, most traces first; None where they were not read."""
    mixed: MixedVersions | None


@dataclass(frozen=True, slots=True)
class RateChange:
    """A share of traces on both sides. When paired, ``difference`` is the mean over tasks."""

    name: str
    text: str
    before: int
    before_of: int
    after: int
    after_of: int
    difference: float
    """After minus before."""
    interval: Interval
    p: float
    """Adjusted, except for the one rate that the verdict is about."""
    pairs: int
    """Tasks paired; 0 when the sides were compared as a whole."""
    change: Change


@dataclass(frozen=True, slots=True)
class NumberChange:
    """A number per trace on both sides: means over tasks when paired, else medians over traces."""

    name: str
    text: str
    unit: str
    before: float
    after: float
    difference: float
    interval: Interval
    p: float
    """Adjusted (Holm)."""
    pairs: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two sets of traces."""

    verdict: Verdict
    primary: RateChange
    """What the verdict is about: the pass rate, or traces with failures where outcomes are not known."""
    judged_by_failures: bool
    needed: int | None
    """Tasks (when paired) or traces per side that would show such a difference; None where there is none."""
    before: Side
    after: Side
    secondary: tuple[RateChange | NumberChange, ...]
    failure_modes: tuple[RateChange, ...]
    """Those that changed first, then by how common they are."""
    modes_left_out: int
    """Failure modes that one side may have too rarely to be known, so that they are not compared."""
    shared_tasks: int
    shared_traces: int
    """Traces that were on both sides; they are left out of both."""
    times_overlap: bool


def compare(before: TraceFeatures, after: TraceFeatures, shared_traces: int = 0) -> Comparison:
    """What changed from ``before`` to ``after``; neither may be empty. ``shared_traces`` is what ``apart`` removed."""
    sides = _Sides(before, after)
    with_failures = before.number("failures") > 0, after.number("failures") > 0
    failures = sides.rate("traces_with_failures", "traces with failures", *map(_shares, with_failures))
    judged_by_failures = not ((before.outcome >= 0).any() and (after.outcome >= 0).any())
    outcomes = _passing(before), _passing(after)
    primary = failures if judged_by_failures else sides.rate("pass_rate", "pass rate", *outcomes)
    modes, modes_left_out = _failure_modes(sides)
    return Comparison(
        verdict=_verdict(primary, -1 if judged_by_failures else 1),
        primary=primary,
        judged_by_failures=judged_by_failures,
        needed=sides.needed(*(map(_shares, with_failures) if judged_by_failures else outcomes)),
        before=_side(before),
        after=_side(after),
        secondary=_secondary(sides, [] if judged_by_failures else [failures]),
        failure_modes=modes,
        modes_left_out=modes_left_out,
        shared_tasks=len(sides.tasks),
        shared_traces=shared_traces,
        times_overlap=_times_overlap(before, after),
    )


def apart(before: TraceFeatures, after: TraceFeatures) -> tuple[TraceFeatures, TraceFeatures, int]:
    """Both sides without the traces that are on both (the tests need separate ones), and how many these are."""
    shared = list(set(before.trace_ids.tolist()) & set(after.trace_ids.tolist()))
    if not shared:
        return before, after, 0
    own = (side.where(~np.isin(side.trace_ids, np.array(shared, dtype=object))) for side in (before, after))
    return next(own), next(own), len(shared)


def _shares(has: Mask) -> Numbers:
    return has.astype(np.float64)


def _passing(side: TraceFeatures) -> Numbers:
    """1 for pass, 0 for fail, NaN for unknown."""
    return np.where(side.outcome < 0, np.nan, side.outcome.astype(np.float64))


def _verdict(primary: RateChange, good: int) -> Verdict:
    """``good`` is the sign of a change for the better."""
    if primary.p < ALPHA:
        return "better" if primary.difference * good > 0 else "worse"
    return "underpowered" if abs(primary.difference) >= NOTABLE else "no evidence of a difference"


class _Sides:
    """Both sides, and the tasks that both attempted."""

    def __init__(self, before: TraceFeatures, after: TraceFeatures) -> None:
        self.before, self.after = before, after
        self.tasks = sorted(_attempted(before) & _attempted(after))
        numbers = {task: number for number, task in enumerate(self.tasks)}
        self._of_before = _shared_task(before, numbers)
        self._of_after = _shared_task(after, numbers)

    def pairs(self, before: Numbers, after: Numbers) -> tuple[Numbers, Numbers] | None:
        """The mean of each task's traces on both sides; None when too few tasks are known on both."""
        means = self._means(self._of_before, before), self._means(self._of_after, after)
        both = ~np.isnan(means[0]) & ~np.isnan(means[1])
        return (means[0][both], means[1][both]) if both.sum() >= LEAST_PAIRS else None

    def _means(self, task: Codes, values: Numbers) -> Numbers:
        known = (task >= 0) & ~np.isnan(values)
        counts = np.bincount(task[known], minlength=len(self.tasks))
        sums = np.bincount(task[known], weights=values[known], minlength=len(self.tasks))
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    def rate(self, name: str, text: str, before: Numbers, after: Numbers) -> RateChange:
        """The change of a share of traces; values are 1, 0, or NaN where unknown."""
        k_b, n_b = int(np.nansum(before)), int(np.count_nonzero(~np.isnan(before)))
        k_a, n_a = int(np.nansum(after)), int(np.count_nonzero(~np.isnan(after)))
        unpaired = newcombe(k_a, n_a, k_b, n_b)
        if pairs := self.pairs(before, after):
            differences = pairs[1] - pairs[0]
            # Where all tasks changed alike, the bootstrap has nothing to vary and would claim certainty.
            interval = paired_mean_interval(differences) if np.ptp(differences) else unpaired
            difference, p = float(differences.mean()), sign_flips(differences)
        else:
            differences, interval, p = np.zeros(0), unpaired, fisher_exact(k_a, n_a, k_b, n_b)
            difference = k_a / n_a - k_b / n_b if n_a and n_b else 0.0
        return RateChange(
            name, text, k_b, n_b, k_a, n_a, difference, interval, p, len(differences), _change(k_b, k_a, difference, p)
        )

    def number(self, name: str, text: str, unit: str, before: Numbers, after: Numbers) -> NumberChange:
        if pairs := self.pairs(before, after):
            differences = pairs[1] - pairs[0]
            middle = float(pairs[0].mean()), float(pairs[1].mean())
            interval, p = paired_mean_interval(differences), sign_flips(differences)
        else:
            before, after = before[~np.isnan(before)], after[~np.isnan(after)]
            differences = np.zeros(0)
            middle = float(np.median(before)), float(np.median(after))
            interval, p = median_difference_interval(after, before), rank_test(after, before).p
        return NumberChange(name, text, unit, *middle, middle[1] - middle[0], interval, p, len(differences))

    def needed(self, before: Numbers, after: Numbers) -> int | None:
        """How many tasks, or traces per side, would show a change like the one seen."""
        if pairs := self.pairs(before, after):
            differences = pairs[1] - pairs[0]
            return needed_pairs(float(differences.mean()), float(differences.std(ddof=1)))
        return needed_per_group(float(np.nanmean(before)), float(np.nanmean(after)))


def _attempted(side: TraceFeatures) -> set[str]:
    return {side.tasks[no] for no in np.unique(side.task[side.task >= 0]).tolist()}


def _shared_task(side: TraceFeatures, numbers: dict[str, int]) -> Codes:
    """The number of each trace's task among the shared ones; -1 for none."""
    of_task = np.array([*(numbers.get(task, -1) for task in side.tasks), -1], dtype=np.int64)
    return of_task[side.task]  # a trace without a task has -1, which is the last place


def _change(before: int, after: int, difference: float, p: float) -> Change:
    if p >= ALPHA:
        return "no evidence"
    if not after:
        return "gone"
    if not before:
        return "appeared"
    return "more" if difference > 0 else "less"


def _secondary(sides: _Sides, rates: Sequence[RateChange]) -> tuple[RateChange | NumberChange, ...]:
    """What else is told about the whole, corrected together (Holm)."""
    numbers = [
        sides.number(number.name, number.text, number.unit, number.values, sides.after.number(number.name))
        for number in sides.before.numbers
        if not np.isnan(number.values).all() and not np.isnan(sides.after.number(number.name)).all()
    ]
    adjusted = holm([one.p for one in (*rates, *numbers)])
    return (
        *(_judged(rate, p) for rate, p in zip(rates, adjusted, strict=False)),
        *(replace(number, p=p) for number, p in zip(numbers, adjusted[len(rates) :], strict=True)),
    )


def _judged(rate: RateChange, p: float) -> RateChange:
    return replace(rate, p=p, change=_change(rate.before, rate.after, rate.difference, p))


def _unknown(mode: Feature | None, side: TraceFeatures) -> bool:
    return mode is None and side.modes_left_out > 0


def _failure_modes(sides: _Sides) -> tuple[tuple[RateChange, ...], int]:
    """The failure modes of either side, corrected together (Benjamini-Hochberg), and how many are not compared.

    They are matched by their ids.
    """
    before, after = (_of_kind(side, "failure_mode") for side in (sides.before, sides.after))
    changes: list[RateChange] = []
    left_out = 0
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if not any(mode is not None and len(mode.traces) for mode in (one, other)):
            continue
        if _unknown(one, sides.before) or _unknown(other, sides.after):
            left_out += 1
            continue
        text = (one or other or _NOTHING).text
        changes.append(sides.rate(name, text, _having(sides.before, one), _having(sides.after, other)))
    tested = [change for change in changes if change.before + change.after >= LEAST_TRACES]
    rare = [replace(change, change="no evidence") for change in changes if change.before + change.after < LEAST_TRACES]
    judged = map(_judged, tested, benjamini_hochberg([change.p for change in tested]))
    ordered = sorted(
        (*judged, *rare),
        key=lambda c: (c.change == "no evidence", -abs(c.difference) * (c.p < ALPHA), -c.before - c.after, c.name),
    )
    return tuple(ordered), left_out


_NOTHING: Final = Feature("failure_mode", "", "", {}, ("", frozenset()), np.zeros(0, np.int64))


def _of_kind(side: TraceFeatures, kind: FeatureKind) -> dict[str, Feature]:
    return {feature.name: feature for feature in side.features if feature.kind == kind}


def _having(side: TraceFeatures, feature: Feature | None) -> Numbers:
    has = np.zeros(len(side))
    if feature is not None:
        has[feature.traces] = 1
    return has


def _side(side: TraceFeatures) -> Side:
    outcomes = [int(np.count_nonzero(side.outcome == outcome)) for outcome in (1, 0, -1)]
    per_run: list[int] = np.bincount(side.run[side.run >= 0], minlength=len(side.runs)).tolist()
    known = side.start > 0
    return Side(
        len(side),
        *outcomes,
        tasks=len(np.unique(side.task[side.task >= 0])),
        runs=tuple((run, traces) for run, traces in zip(side.runs, per_run, strict=True) if traces),
        models=tuple(name for name, model in _of_kind(side, "model").items() if len(model.traces)),
        start_time_unix_nano=int(side.start[known].min()) if known.any() else None,
        end_time_unix_nano=int(side.end[known].max()) if known.any() else None,
        versions=None if side.harness is None else agent_versions(side.harness),
        mixed=None if side.harness is None else mixed_versions(side.harness),
    )


def _times_overlap(before: TraceFeatures, after: TraceFeatures) -> bool:
    """Whether a trace of each side started while the other side ran."""
    starts = [side.start[side.start > 0] for side in (before, after)]
    if not all(map(len, starts)):
        return False
    (first_b, last_b), (first_a, last_a) = ((int(s.min()), int(s.max())) for s in starts)
    return first_b <= last_a and first_a <= last_b
