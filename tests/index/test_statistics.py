"""Statistics against published worked examples, against scipy, and against properties that must hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halo_mcp.index.statistics import (
    Interval,
    Stratified,
    benjamini_hochberg,
    cochran_mantel_haenszel,
    fisher_exact,
    holm,
    mcnemar_exact,
    median_difference_interval,
    needed_pairs,
    needed_per_group,
    newcombe,
    paired_mean_interval,
    rank_test,
    sign_flips,
    wilson,
)

PS = st.lists(st.floats(0, 1), max_size=30)


def rounded(interval: Interval, digits: int = 4) -> tuple[float, float]:
    return round(interval.low, digits), round(interval.high, digits)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 300))
    return draw(st.integers(0, trials)), trials


def test_wilson_gives_the_published_intervals() -> None:
    # Newcombe 1998 (Stat. Med. 17:857), table I, method 3.
    assert rounded(wilson(81, 263)) == (0.2553, 0.3662)
    assert rounded(wilson(15, 148)) == (0.0624, 0.1605)
    assert rounded(wilson(0, 20)) == (0.0, 0.1611)
    assert rounded(wilson(1, 29)) == (0.0061, 0.1718)


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombe_gives_the_published_intervals(
    a: tuple[int, int], b: tuple[int, int], expected: tuple[float, float]
) -> None:
    # Newcombe 1998 (Stat. Med. 17:873), table II, method 10.
    assert rounded(newcombe(*a, *b)) == expected


@given(counts(), counts())
def test_newcombe_holds_the_difference_stays_within_bounds_and_turns_with_its_sides(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    low, high = newcombe(*a, *b)
    assert -1 - 1e-12 <= low <= a[0] / a[1] - b[0] / b[1] <= high <= 1 + 1e-12
    assert newcombe(*b, *a) == pytest.approx((-high, -low))


def test_sides_without_trials_tell_nothing() -> None:
    assert wilson(0, 0) == (0, 1)
    assert newcombe(0, 0, 3, 4) == (-1, 1)
    assert fisher_exact(0, 0, 3, 4) == 1
    assert rank_test(np.array([]), np.array([1.0])) == (0, 1)
    assert paired_mean_interval(np.array([])) == (-math.inf, math.inf)
    assert median_difference_interval(np.array([1.0]), np.array([])) == (-math.inf, math.inf)


def test_fisher_gives_the_lady_tasting_tea() -> None:
    # Fisher 1935: three of four cups right, one-sided 17/70, two-sided 34/70.
    assert fisher_exact(3, 4, 1, 4) == pytest.approx(34 / 70)


def test_mcnemar_is_the_binomial_test_of_discordant_pairs() -> None:
    assert mcnemar_exact(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(5, 5) == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_flipping_signs_of_differences_of_one_size_is_mcnemar(more: int, fewer: int, same: int) -> None:
    differences = np.array([0.5] * more + [-0.5] * fewer + [0.0] * same)
    assert sign_flips(differences) == mcnemar_exact(more, fewer)


def test_flipping_signs_agrees_with_all_flips_counted() -> None:
    differences = np.array([1.0, 0.5, 0.5, -0.5, 1.0, 0.25, -0.25, 1.0])
    flips = itertools.product((-1, 1), repeat=len(differences))
    extreme = [abs(float(differences @ np.array(signs))) >= abs(differences.sum()) for signs in flips]
    exact = sum(extreme) / len(extreme)
    assert sign_flips(differences) == pytest.approx(exact, abs=0.02)


def test_the_bootstrap_of_a_paired_mean_agrees_with_scipy() -> None:
    differences = np.random.default_rng(1).exponential(3, 60) - 2
    expected = stats.bootstrap((differences,), np.mean, method="percentile", rng=2).confidence_interval
    assert paired_mean_interval(differences) == pytest.approx(tuple(expected), abs=0.1)


def test_the_normal_interval_takes_over_without_a_jump() -> None:
    differences = np.random.default_rng(1).exponential(3, 1_001)
    few, many = paired_mean_interval(differences[:1_000]), paired_mean_interval(differences)
    assert few == pytest.approx(many, abs=0.03)


@pytest.mark.parametrize("sizes", [(41, 60), (300, 25)])
def test_the_bootstrap_of_medians_agrees_with_scipy(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(5, 2, sizes[0]), rng.normal(4, 2, sizes[1])
    expected = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.median(x, axis=axis) - np.median(y, axis=axis),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        method="percentile",
        vectorized=True,
        rng=4,
    ).confidence_interval
    assert median_difference_interval(a, b) == pytest.approx(tuple(expected), abs=0.15)


def test_everything_random_is_repeatable() -> None:
    differences = np.random.default_rng(1).normal(size=50)
    assert paired_mean_interval(differences) == paired_mean_interval(differences)
    assert sign_flips(differences) == sign_flips(differences)
    assert median_difference_interval(differences, -differences) == median_difference_interval(
        differences, -differences
    )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_cliffs_delta_counts_pairs(a: list[int], b: list[int]) -> None:
    pairs = [(x > y) - (x < y) for x in a for y in b]
    result = rank_test(np.array(a, float), np.array(b, float))
    assert result.delta == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= result.p <= 1


@given(PS)
def test_benjamini_hochberg_agrees_with_scipy(ps: list[float]) -> None:
    expected = stats.false_discovery_control(np.array(ps or [1.0]))
    assert benjamini_hochberg(ps or [1.0]) == pytest.approx([float(p) for p in expected])


def test_holm_gives_a_worked_example() -> None:
    # Holm 1979: 0.01 x 4, 0.02 x 3, then never below the one before.
    assert holm([0.02, 0.01, 0.05, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@given(PS)
def test_corrections_keep_the_order_and_holm_is_the_stricter(ps: list[float]) -> None:
    strict, mild = holm(ps), benjamini_hochberg(ps)
    for p, h, bh in zip(ps, strict, mild, strict=True):
        assert p <= bh + 1e-12
        assert bh <= h + 1e-12
        assert h <= 1
    by_p = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [strict[i] for i in by_p] == sorted(strict)


def test_sample_sizes_are_the_published_ones() -> None:
    # Fleiss, Levin & Paik 2003, without continuity correction.
    assert needed_per_group(0.6, 0.7) == 356
    assert needed_per_group(0.3, 0.2) == 294
    assert needed_per_group(0.5, 0.5) is None
    assert needed_pairs(0.5, 1.0) == 32
    assert needed_pairs(0, 1.0) is None


def cmh(*strata: tuple[int, int, int, int]) -> Stratified:
    """Of strata given as (successes a, trials a, successes b, trials b)."""
    return cochran_mantel_haenszel(*np.array(strata).T)


def test_cochran_mantel_haenszel_of_one_stratum_is_the_chi_squared_test_with_n_minus_1() -> None:
    result = cmh((15, 20, 6, 20))
    plain = stats.chi2_contingency([[15, 5], [6, 14]], correction=False)
    assert result.p == pytest.approx(stats.chi2.sf(plain.statistic * 39 / 40, 1))
    assert result.difference == pytest.approx(15 / 20 - 6 / 20)
    assert (result.traces, result.strata) == (40, 1)


def test_cochran_mantel_haenszel_sees_no_effect_where_the_stratum_explains_it_all() -> None:
    # Simpson's case: 74 of 100 against 26 of 100, but in each stratum both groups have the same rate.
    result = cmh((72, 80, 18, 20), (2, 20, 8, 80))
    assert (result.difference, result.p) == pytest.approx((0, 1))


def test_cochran_mantel_haenszel_gives_the_berkeley_admissions() -> None:
    # Bickel, Hammel & O'Connell (1975), UCB admissions (men, women) by department; R's mantelhaen.test without
    # correction: chi-squared 1.5246 on 1 degree of freedom.
    departments = [(512, 825, 89, 108), (353, 560, 17, 25), (120, 325, 202, 593)]
    departments += [(138, 417, 131, 375), (53, 191, 94, 393), (22, 373, 24, 341)]
    assert cmh(*departments).p == pytest.approx(stats.chi2.sf(1.5246, 1), abs=1e-4)


def test_strata_with_one_group_only_tell_nothing() -> None:
    assert cmh((2, 2, 0, 0), (0, 0, 1, 2)) == (0, 1, 0, 0)


def test_false_alarms_of_the_paired_test_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for seed in range(200):
        a, b = rng.binomial(2, 0.6, 60) / 2, rng.binomial(2, 0.6, 60) / 2
        alarms += sign_flips(a - b, seed) < 0.05
    assert alarms <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_the_normal_limit_of_many_sign_flips_is_near_what_draws_give() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.05):
        differences = rng.normal(shift, 1.0, 1_500)
        signs = rng.integers(0, 2, size=(4_000, 1_500)) * 2.0 - 1.0
        drawn = np.abs(signs @ np.abs(differences)) >= abs(float(differences.sum()))
        assert sign_flips(differences) == pytest.approx(float(drawn.mean()), abs=0.03)
