"""What separates two groups of traces: features and numbers that differ, and whether a stronger one explains them.

Every difference is judged with an interval and a p-value corrected over all that was tested; see ``docs/methods.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from halo_mcp.index.features import Beginning, Feature, FeatureKind, TraceFeatures
from halo_mcp.index.harness import MixedVersions, mixed_versions
from halo_mcp.index.statistics import (
    ALPHA,
    Interval,
    Stratified,
    benjamini_hochberg,
    cochran_mantel_haenszel,
    fisher_exact,
    newcombe,
    rank_test,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Codes = NDArray[np.int64]

LEAST_TRACES: Final = 3
"""A feature that fewer traces have (or lack) cannot differ significantly; it is not tested."""
LEAST_DIFFERENCE: Final = 0.01
LARGE_DIFFERENCE: Final = 0.05
LEAST_RATIO: Final = 2.0
"""A difference that is not large counts only when one rate is so many times the other."""
LEAST_DELTA: Final = 0.147
"""Below it Cliff's delta is called negligible (Romano et al. 2006)."""
EXPLAINED_SHARE: Final = 0.5
"""A difference is explained by another when less of it is left within the strata of the other."""
LENGTH_BINS: Final = 10
LEAST_STRATA: Final = 5
LEAST_STRATIFIED: Final = 20
"""Fewer tasks, or traces in them, with both groups cannot tell."""
MOST_CHECKED: Final = 40
SAME_SHOWN: Final = 12

Standing = Literal["holds", "explained", "reversed"]
_KINDS: Final = get_args(FeatureKind)
_HELD_BY_FILTER: Final[dict[str, tuple[str, ...]]] = {
    "duration_ms": ("duration_ms",),
    "tokens": ("input_tokens", "output_tokens"),
    "span_count": ("spans", "llm_calls", "tool_calls"),
}
"""Numbers that a min_ or max_ filter on a group decides."""
_GROWS: Final = ("tool", "tool_pair", "model", "agent", "service")
"""Kinds that a longer trace is likelier to have, whatever its outcome. Failures are not: they make traces longer."""
_FAILURES: Final = ("tool_failed", "tool_again", "failure_mode")
"""Kinds of feature that has_errors on a group decides."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature that is more common in one group."""

    kind: FeatureKind
    name: str
    text: str
    filters: Mapping[str, Any]
    """The TraceFilters that select exactly the traces that have it; empty where no filter does."""
    a: int
    b: int
    """So many traces of group a, of group b, have it."""
    difference: float
    """Rate in a minus rate in b."""
    interval: Interval
    p: float
    """Fisher's exact test, adjusted over everything tested (Benjamini-Hochberg)."""
    standing: Standing
    reason: str
    """What explains it, or in what it was seen to hold."""
    example_a: str | None
    """A trace of group a that has it."""
    example_b: str | None
    span_a: str | None = None
    """Of a failure mode: where it begins in the example."""
    span_b: str | None = None


@dataclass(frozen=True, slots=True)
class NumberFinding:
    """A number that is larger in one group."""

    name: str
    text: str
    unit: str
    median_a: float
    median_b: float
    delta: float
    """Cliff's delta."""
    p: float
    """Mann-Whitney U, adjusted with the features."""


@dataclass(frozen=True, slots=True)
class Same:
    """A feature tested and not found to differ."""

    text: str
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two groups of traces and what separates them; findings in the order of their strength."""

    traces_a: int
    traces_b: int
    overlap: int
    """Traces that both groups held; they are left out of both."""
    tested: int
    too_rare: int
    """Features that hardly any trace has, or lacks: not tested."""
    by_definition: int
    """Features that the filters of a group decide: not tested."""
    names_left_out: int
    findings: tuple[Finding, ...]
    numbers: tuple[NumberFinding, ...]
    same: tuple[Same, ...]
    """The most common features without a difference."""
    same_count: int
    unchecked: int
    """Further features that differ, beyond MOST_CHECKED, weaker than all of ``findings``."""
    mixed_a: MixedVersions | None
    """Harness versions that group a mixes; None when they were not read."""
    mixed_b: MixedVersions | None


def contrast(population: TraceFeatures, in_a: Mask, in_b: Mask, given: Sequence[Mapping[str, Any]] = ()) -> Contrast:
    """What separates the traces of group a from those of group b; ``given`` are the filters that made the groups."""
    overlap = in_a & in_b
    in_a, in_b = in_a & ~overlap, in_b & ~overlap
    sizes = _Sizes(in_a, in_b)
    open_features = [feature for feature in population.features if not _decided(feature, given)]
    counts = {id(feature): sizes.of(feature.traces) for feature in open_features}
    tested = [feature for feature in open_features if sizes.can_differ(*counts[id(feature)])]
    numbers = _numbers(population, sizes, given)
    ps = [fisher_exact(counts[id(f)][0], sizes.a, counts[id(f)][1], sizes.b) for f in tested]
    adjusted = benjamini_hochberg([*ps, *(number.p for number in numbers)])
    differing: list[_Differing] = []
    same: list[Same] = []
    for feature, p in zip(tested, adjusted, strict=False):
        a, b = counts[id(feature)]
        found = _Differing(feature, a, b, a / sizes.a - b / sizes.b, newcombe(a, sizes.a, b, sizes.b), p)
        if found.counts(sizes):
            differing.append(found)
        else:
            same.append(Same(feature.text, a, b))
    differing.sort(key=lambda d: d.rank)
    same.sort(key=lambda s: (-s.a - s.b, s.text))
    number_ps = adjusted[len(tested) :]
    return Contrast(
        traces_a=sizes.a,
        traces_b=sizes.b,
        overlap=int(overlap.sum()),
        tested=len(adjusted),
        too_rare=len(open_features) - len(tested),
        by_definition=len(population.features) - len(open_features),
        names_left_out=population.names_left_out,
        findings=_explained(population, sizes, differing[:MOST_CHECKED]),
        numbers=_differing_numbers(numbers, number_ps),
        same=tuple(same[:SAME_SHOWN]),
        same_count=len(same),
        unchecked=max(0, len(differing) - MOST_CHECKED),
        mixed_a=_mixed(population, in_a),
        mixed_b=_mixed(population, in_b),
    )


def with_spans(found: Contrast, known: Mapping[tuple[str, str], Beginning]) -> Contrast:
    """With the spans in which failure modes begin; ``known`` has them by (failure mode, trace id)."""

    def complete(one: Finding) -> Finding:
        a, b = (known.get((one.name, trace_id or "")) for trace_id in (one.example_a, one.example_b))
        first = a or b
        if one.kind != "failure_mode" or first is None:
            return one
        return replace(one, text=first.text, span_a=a and a.span_id, span_b=b and b.span_id)

    return replace(found, findings=tuple(map(complete, found.findings)))


def _mixed(population: TraceFeatures, group: Mask) -> MixedVersions | None:
    return None if population.harness is None else mixed_versions(population.harness, population.keys[group])


class _Sizes:
    """The two groups, and how many traces of each a set of positions has."""

    def __init__(self, in_a: Mask, in_b: Mask) -> None:
        self.in_a, self.in_b = in_a, in_b
        self.a, self.b = int(in_a.sum()), int(in_b.sum())

    def of(self, traces: Codes) -> tuple[int, int]:
        return int(self.in_a[traces].sum()), int(self.in_b[traces].sum())

    def can_differ(self, a: int, b: int) -> bool:
        # Looks at the sum of both groups only, so that choosing what to test does not bias the tests.
        return bool(self.a and self.b) and LEAST_TRACES <= a + b <= self.a + self.b - LEAST_TRACES


@dataclass(frozen=True, slots=True)
class _Differing:
    feature: Feature
    a: int
    b: int
    difference: float
    interval: Interval
    p: float

    def counts(self, sizes: _Sizes) -> bool:
        """Whether the difference is beyond chance and large enough to be told."""
        if self.p >= ALPHA or not self.interval.excludes_zero():
            return False
        low, high = sorted((self.a / sizes.a, self.b / sizes.b))
        return high - low >= (LEAST_DIFFERENCE if high >= LEAST_RATIO * low else LARGE_DIFFERENCE)

    @property
    def rank(self) -> tuple[float, int, str]:
        """Strongest first: by the bound of the interval that is nearer to no difference."""
        strength = min(abs(self.interval.low), abs(self.interval.high))
        return -round(strength, 6), _KINDS.index(self.feature.kind), self.feature.name


def _decided(feature: Feature, given: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a group was chosen by this very feature."""
    field, names = feature.about
    return any(
        names & set(filters.get(field, ())) or ("has_errors" in filters and feature.kind in _FAILURES)
        for filters in given
    )


# --- numbers ------------------------------------------------------------------------------------------------
def _numbers(population: TraceFeatures, sizes: _Sizes, given: Sequence[Mapping[str, Any]]) -> list[NumberFinding]:
    """Every number that is not the same throughout, with its unadjusted p."""
    decided = {"failures"} if any("has_errors" in filters for filters in given) else set[str]()
    if any("outcome" in filters for filters in given):
        decided.add("score")
    for about, names in _HELD_BY_FILTER.items():
        if any(f"min_{about}" in filters or f"max_{about}" in filters for filters in given):
            decided.update(names)
    found: list[NumberFinding] = []
    for number in population.numbers:
        known = ~np.isnan(number.values)
        a, b = number.values[sizes.in_a & known], number.values[sizes.in_b & known]
        if number.name in decided or not len(a) or not len(b) or (np.all(a == a[0]) and np.all(b == a[0])):
            continue
        delta, p = rank_test(a, b)
        medians = float(np.median(a)), float(np.median(b))
        found.append(NumberFinding(number.name, number.text, number.unit, *medians, delta, p))
    return found


def _differing_numbers(numbers: Sequence[NumberFinding], adjusted: Sequence[float]) -> tuple[NumberFinding, ...]:
    found = [
        NumberFinding(n.name, n.text, n.unit, n.median_a, n.median_b, n.delta, p)
        for n, p in zip(numbers, adjusted, strict=True)
        if p < ALPHA and abs(n.delta) >= LEAST_DELTA
    ]
    return tuple(sorted(found, key=lambda number: -abs(number.delta)))


# --- what explains what -------------------------------------------------------------------------------------
class _Strata:
    """Traces by task, run or whatever may lie behind a difference."""

    def __init__(self, codes: Codes, sizes: _Sizes) -> None:
        self._codes, self._sizes = codes, sizes
        self._count = int(codes.max(initial=-1)) + 1
        self._a, self._b = self._per_stratum(sizes.in_a), self._per_stratum(sizes.in_b)

    def _per_stratum(self, chosen: Mask | Codes) -> Codes:
        codes = self._codes[chosen]
        return np.bincount(codes[codes >= 0], minlength=self._count)

    def within(self, traces: Codes) -> Stratified:
        in_a, in_b = traces[self._sizes.in_a[traces]], traces[self._sizes.in_b[traces]]
        return cochran_mantel_haenszel(self._per_stratum(in_a), self._a, self._per_stratum(in_b), self._b)

    def enough(self, result: Stratified) -> bool:
        return result.strata >= min(LEAST_STRATA, self._count) and result.traces >= LEAST_STRATIFIED


def _explained(population: TraceFeatures, sizes: _Sizes, found: Sequence[_Differing]) -> tuple[Finding, ...]:
    """Each difference with what explains it: which run or task it was, or a stronger feature that itself holds."""
    behind = {
        name: _Strata(codes, sizes)
        for name, codes, known in (
            ("task", population.task, population.tasks),
            ("run", population.run, population.runs),
        )
        if len(known) > 1
    }
    length = _Strata(_length_bins(population), sizes)
    holding: list[_Differing] = []
    findings: list[Finding] = []
    for one in found:
        # A version and the run that it was made for are one thing, and the version says more.
        by_task_only = one.feature.kind == "harness_version"
        standing, reason = _against_strata(one, {k: s for k, s in behind.items() if k == "task" or not by_task_only})
        if standing == "holds" and one.feature.kind in _GROWS and _little_left(one, length):
            standing, reason = "explained", "mostly explained by the length of the traces"
        if standing == "holds" and (stronger := _stronger(one, holding, len(population), sizes)):
            standing, reason = "explained", stronger
        if standing == "holds":
            holding.append(one)
        findings.append(_finding(population, sizes, one, standing, reason))
    return tuple(findings)


def _against_strata(one: _Differing, behind: Mapping[str, _Strata]) -> tuple[Standing, str]:
    held: list[str] = []
    for name, strata in behind.items():
        result = strata.within(one.feature.traces)
        if not strata.enough(result):
            held.append(f"too few {name}s with both groups to check by {name}")
            continue
        within = f"{100 * result.difference:+.1f} pts"
        if result.difference * one.difference < 0 and result.p < ALPHA:
            return "reversed", f"the other way round within {name}s ({within})"
        if result.difference / one.difference < EXPLAINED_SHARE:
            return "explained", f"mostly explained by which {name} it was ({within})"
        held.append(f"holds within {name}s ({within})")
    return "holds", "; ".join(held)


def _length_bins(population: TraceFeatures) -> Codes:
    """Traces by their number of spans, in about LENGTH_BINS bins of equal size."""
    spans = population.number("spans")
    if not len(spans):
        return np.zeros(0, np.int64)
    return np.searchsorted(np.unique(np.quantile(spans, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1])), spans)


def _little_left(one: _Differing, strata: _Strata) -> bool:
    """Whether hardly anything of the difference is left among traces of the same stratum."""
    result = strata.within(one.feature.traces)
    return not result.traces or result.difference / one.difference < EXPLAINED_SHARE


def _stronger(one: _Differing, holding: Sequence[_Differing], traces: int, sizes: _Sizes) -> str:
    """The strongest of ``holding`` within which little of the difference is left, in words; "" for none."""
    for other in holding:
        # What a group lacks is mostly what its traces did not live to do: no reason for what it has more often.
        if other.difference * one.difference < 0:
            continue
        has = np.zeros(traces, np.int64)
        has[other.feature.traces] = 1
        if _little_left(one, _Strata(has, sizes)):
            return f"mostly explained by {other.feature.label}"
    return ""


def _finding(population: TraceFeatures, sizes: _Sizes, one: _Differing, standing: Standing, reason: str) -> Finding:
    def example(group: Mask) -> str | None:
        among = one.feature.traces[group[one.feature.traces]]
        return str(population.trace_ids[among].min()) if len(among) else None

    return Finding(
        kind=one.feature.kind,
        name=one.feature.name,
        text=one.feature.text,
        filters=one.feature.filters,
        a=one.a,
        b=one.b,
        difference=one.difference,
        interval=one.interval,
        p=one.p,
        standing=standing,
        reason=reason,
        example_a=example(sizes.in_a),
        example_b=example(sizes.in_b),
    )
