"""Intervals, tests and sample sizes for comparing two groups of traces. Pure functions of numbers; nothing is rounded.

``docs/methods.md`` says what each is used for. Differences are a - b throughout.
Everything random is seeded, so the same data give the same answer. Imports numpy and scipy when called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Codes = NDArray[np.int64]

ALPHA: Final = 0.05
POWER: Final = 0.8
SEED: Final = 20260302
RESAMPLES: Final = 4_000
_MOST_CELLS: Final = 1_000_000
"""Of one table of random numbers: 8 MB."""
_EXACT_PAIRS: Final = 1_000
_TIES: Final = 1e-9


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def wilson(successes: int, trials: int, alpha: float = ALPHA) -> Interval:
    """Score interval of one proportion, without continuity correction; (0, 1) of no trials.

    Wilson (1927), J. Am. Stat. Assoc. 22:209-212; method 3 of Newcombe (1998), Stat. Med. 17:857-872.
    """
    if not trials:
        return Interval(0.0, 1.0)
    z = _normal_quantile(1 - alpha / 2)
    p, spread = successes / trials, z * z / trials
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / trials + spread / (4 * trials)) / (1 + spread)
    # Rounding must not leave the bounds that are exact: 0 successes begin at 0, all of them end at 1.
    return Interval(0.0 if not successes else centre - half, 1.0 if successes == trials else centre + half)


def newcombe(successes_a: int, trials_a: int, successes_b: int, trials_b: int, alpha: float = ALPHA) -> Interval:
    """Hybrid score interval of the difference a - b of two independent proportions.

    Method 10 of Newcombe (1998), Stat. Med. 17:873-890. (-1, 1) when a side has no trials.
    """
    if not trials_a or not trials_b:
        return Interval(-1.0, 1.0)
    a, b = successes_a / trials_a, successes_b / trials_b
    low_a, high_a = wilson(successes_a, trials_a, alpha)
    low_b, high_b = wilson(successes_b, trials_b, alpha)
    return Interval(a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b))


def fisher_exact(successes_a: int, trials_a: int, successes_b: int, trials_b: int) -> float:
    """Two-sided p that two independent proportions are equal; tables no likelier than the one seen count as extreme.

    Fisher (1935), Irwin (1935); scipy.stats.fisher_exact.
    """
    import numpy as np
    from scipy.stats import fisher_exact as fisher

    table = np.array([[successes_a, trials_a - successes_a], [successes_b, trials_b - successes_b]])
    return min(1.0, float(fisher(table).pvalue))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p that pairs which differ do so equally often either way: a binomial test of the discordant pairs.

    McNemar (1947), Psychometrika 12:153-157, in its exact form; 1 when no pair differs.
    """
    from scipy.stats import binomtest

    return 1.0 if not only_a + only_b else float(binomtest(only_a, only_a + only_b).pvalue)


def sign_flips(differences: Numbers, seed: int = SEED) -> float:
    """Two-sided p that paired differences are symmetric around zero: the permutation test that swaps pairs.

    Fisher (1935), The Design of Experiments, ch. 3. Where all differences that are not zero have one size, this is the
    exact McNemar test, and computed so. Otherwise signs are drawn at random RESAMPLES times, and what was seen counts
    as one of the draws (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39). Above 1,000 different sizes the
    normal limit of that distribution: the sum has mean 0 and as variance the sum of the squares.
    """
    import numpy as np

    sizes, counts = np.unique(np.round(np.abs(differences[differences != 0]), 12), return_counts=True)
    if len(sizes) <= 1:
        return mcnemar_exact(int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0)))
    seen = abs(float(differences.sum()))
    if len(sizes) > _EXACT_PAIRS:
        return math.erfc(seen / math.sqrt(2 * float((differences**2).sum())))
    rng = np.random.default_rng(seed)
    extreme, left = 0, RESAMPLES
    rows = max(1, _MOST_CELLS // len(sizes))
    while left:
        drawn = min(rows, left)
        # Of the pairs with one size, a binomial number is positive: the same as flipping each of them.
        sums = (2 * rng.binomial(counts, 0.5, size=(drawn, len(sizes))) - counts) @ sizes
        extreme += int(np.count_nonzero(np.abs(sums) >= seen - _TIES * max(1.0, seen)))
        left -= drawn
    return (extreme + 1) / (RESAMPLES + 1)


def paired_mean_interval(differences: Numbers, seed: int = SEED, alpha: float = ALPHA) -> Interval:
    """Interval of the mean of paired differences: percentile bootstrap over the pairs.

    Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13. Above 1,000 pairs the normal interval, which it
    then equals. (-inf, inf) of no pairs.
    """
    import numpy as np

    n = len(differences)
    if not n:
        return Interval(-math.inf, math.inf)
    if n > _EXACT_PAIRS:
        half = _normal_quantile(1 - alpha / 2) * float(differences.std(ddof=1)) / math.sqrt(n)
        return Interval(float(differences.mean()) - half, float(differences.mean()) + half)
    rng = np.random.default_rng(seed)
    means = differences[rng.integers(0, n, size=(RESAMPLES, n))].mean(axis=1)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


def median_difference_interval(a: Numbers, b: Numbers, seed: int = SEED, alpha: float = ALPHA) -> Interval:
    """Interval of the difference of two medians (a - b), unpaired: percentile bootstrap of each side.

    Efron & Tibshirani (1993), ch. 13. The median of a resample of n values is the value at the rank that a
    Beta(m, n - m + 1) share of the data reaches (m the middle rank; Efron 1979, Ann. Stat. 7:1-26), so that resampling
    costs nothing however many values there are. (-inf, inf) when a side has no value.
    """
    import numpy as np

    if not len(a) or not len(b):
        return Interval(-math.inf, math.inf)
    rng = np.random.default_rng(seed)

    def medians(values: Numbers) -> Numbers:
        n, middle = len(values), (len(values) + 1) // 2
        ranks = np.minimum((rng.beta(middle, n - middle + 1, RESAMPLES) * n).astype(np.int64), n - 1)
        return np.sort(values)[ranks]

    low, high = np.quantile(medians(a) - medians(b), [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


class RankTest(NamedTuple):
    """How two groups of numbers are ordered against each other."""

    delta: float
    """Cliff's delta = rank-biserial correlation: P(a > b) - P(a < b), -1 to 1."""
    p: float


def rank_test(a: Numbers, b: Numbers) -> RankTest:
    """Mann-Whitney U test, two-sided, corrected for ties, and Cliff's delta; (0, 1) when a side is empty.

    Mann & Whitney (1947), Ann. Math. Stat. 18:50-60; Cliff (1993), Psychol. Bull. 114:494-509. scipy decides between
    the exact and the normal distribution (exact up to 8 values without ties).
    """
    if not len(a) or not len(b):
        return RankTest(0.0, 1.0)
    from scipy.stats import mannwhitneyu

    done = mannwhitneyu(a, b, method="auto" if min(len(a), len(b)) <= 8 else "asymptotic")
    p = float(done.pvalue)
    # All values equal: no variance, nothing to tell.
    return RankTest(2 * float(done.statistic) / (len(a) * len(b)) - 1, 1.0 if math.isnan(p) else p)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false alarm among them stays at alpha.

    Holm (1979), Scand. J. Stat. 6:65-70.
    """
    order = sorted(range(len(ps)), key=lambda position: ps[position])
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[position]))
        adjusted[position] = highest
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """p-values adjusted so that the expected share of false alarms among those reported stays at alpha.

    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289-300.
    """
    order = sorted(range(len(ps)), key=lambda position: ps[position], reverse=True)
    adjusted, lowest = [1.0] * len(ps), 1.0
    for behind, position in enumerate(order):
        lowest = min(lowest, ps[position] * len(ps) / (len(ps) - behind))
        adjusted[position] = lowest
    return adjusted


def needed_per_group(a: float, b: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Trials needed in each of two independent groups to detect proportions ``a`` and ``b``; None when they are equal.

    Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, eq. 4.14, no continuity correction.
    """
    if a == b:
        return None
    z_alpha, z_power, mean = _normal_quantile(1 - alpha / 2), _normal_quantile(power), (a + b) / 2
    root = z_alpha * math.sqrt(2 * mean * (1 - mean)) + z_power * math.sqrt(a * (1 - a) + b * (1 - b))
    return math.ceil((root / (a - b)) ** 2)


def needed_pairs(mean: float, deviation: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Pairs needed to detect a mean paired difference, given the deviation of the differences; None for mean 0.

    The normal formula; for pass or fail once a side it is that of Connor (1987), Biometrics 43:207-211, with the
    variance under the alternative in both terms.
    """
    if not mean:
        return None
    z = _normal_quantile(1 - alpha / 2) + _normal_quantile(power)
    return max(2, math.ceil((z * deviation / mean) ** 2))


class Stratified(NamedTuple):
    """A difference of proportions a - b, compared within strata only."""

    difference: float
    """Mantel-Haenszel risk difference."""
    p: float
    """Cochran-Mantel-Haenszel, two-sided."""
    traces: int
    """In strata that hold both groups; the others tell nothing."""
    strata: int
    """How many these are."""


def cochran_mantel_haenszel(successes_a: Codes, trials_a: Codes, successes_b: Codes, trials_b: Codes) -> Stratified:
    """Whether successes are more common in a than in b among cases of the same stratum; arrays by stratum.

    Cochran (1954), Biometrics 10:417-451; Mantel & Haenszel (1959), J. Natl. Cancer Inst. 22:719-748, without
    continuity correction; the risk difference is that of Greenland & Robins (1985), Biometrics 41:55-68.
    """
    import numpy as np

    both = (trials_a > 0) & (trials_b > 0)
    if not both.any():
        return Stratified(0.0, 1.0, 0, 0)
    k_a, n_a, k_b, n_b = (counts[both].astype(float) for counts in (successes_a, trials_a, successes_b, trials_b))
    n, k = n_a + n_b, k_a + k_b
    weight = n_a * n_b / n
    variance = float((n_a * n_b * k * (n - k) / (n * n * np.maximum(n - 1, 1))).sum())
    excess = float((k_a - n_a * k / n).sum())
    difference = float((weight * (k_a / n_a - k_b / n_b)).sum() / weight.sum())
    p = math.erfc(abs(excess) / math.sqrt(2 * variance)) if variance else 1.0
    return Stratified(difference, p, int(n.sum()), len(n))
