"""Before and after: the verdict is right, as sure as the data allow, and says when they do not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from halo_mcp.index.compare import apart, compare
from halo_mcp.index.features import TraceFeatures
from halo_mcp.index.statistics import mcnemar_exact, needed_per_group, newcombe
from tests.index.groups import traces


def by_task(passed: list[bool], trials: int = 1, **rest: Any) -> TraceFeatures:
    return traces(passed, tasks=[f"task {number // trials:03}" for number in range(len(passed))], **rest)


def test_single_trials_of_the_same_tasks_are_compared_by_mcnemar() -> None:
    before = by_task([True] * 20 + [False] * 20)
    after = by_task([True] * 18 + [False] * 2 + [True] * 14 + [False] * 6, prefix="u")
    result = compare(before, after)
    assert (result.verdict, result.primary.pairs) == ("better", 40)
    assert result.primary.p == mcnemar_exact(14, 2)
    assert result.primary.difference == pytest.approx(12 / 40)
    assert result.primary.interval.low > 0
    assert compare(after, before).verdict == "worse"


def test_several_trials_of_a_task_count_as_one_piece_of_evidence() -> None:
    # One task with 30 trials changed; nothing else did. Trial by trial that would look like proof.
    before = traces([False] * 30 + [True] * 10, tasks=["a"] * 30 + list("bcdefghijk"))
    after = traces([True] * 40, tasks=["a"] * 30 + list("bcdefghijk"), prefix="u")
    result = compare(before, after)
    assert result.primary.p == 1
    assert (result.verdict, result.primary.pairs) == ("underpowered", 11)


def test_sides_without_common_tasks_are_compared_as_a_whole_and_the_number_needed_is_told() -> None:
    before, after = traces([True] * 15 + [False] * 15), traces([True] * 20 + [False] * 10, prefix="u")
    result = compare(before, after)
    assert (result.verdict, result.primary.pairs) == ("underpowered", 0)
    assert result.primary.interval == newcombe(20, 30, 15, 30)
    assert result.needed == needed_per_group(15 / 30, 20 / 30)
    assert compare(traces([True] * 150 + [False] * 150), traces([True] * 200 + [False] * 100)).verdict == "better"


def test_a_few_common_tasks_are_not_enough_to_pair() -> None:
    before = traces([False] * 100, tasks=[f"b{number}" for number in range(95)] + list("vwxyz"))
    after = traces([True] * 100, tasks=[f"a{number}" for number in range(95)] + list("vwxyz"))
    result = compare(before, after)
    assert (result.shared_tasks, result.primary.pairs, result.verdict) == (5, 0, "better")


@pytest.mark.parametrize("tasks", [True, False])
def test_identical_datasets_show_no_evidence_of_a_difference(tasks: bool) -> None:
    passed = [number % 3 > 0 for number in range(60)]
    side = by_task(passed) if tasks else traces(passed)
    result = compare(side, side)
    assert (result.verdict, result.primary.difference, result.primary.p) == ("no evidence of a difference", 0, 1)
    assert result.primary.interval.low < 0 < result.primary.interval.high
    assert result.needed is None
    assert result.times_overlap
    assert all(change.p == 1 for change in result.secondary)


def test_traces_on_both_sides_are_left_out_of_both() -> None:
    before = traces([True, False] * 10, {"late": [number >= 15 for number in range(20)]}, kind="failure_mode")
    same = traces([False] * 25, kind="failure_mode", numbers={"spans": np.arange(25)})
    own, other, shared = apart(before, same)
    assert (len(own), len(other), shared) == (0, 5, 20)
    assert other.trace_ids.tolist() == [f"t{number:06}" for number in range(20, 25)]
    assert other.number("spans").tolist() == [20, 21, 22, 23, 24]
    kept, _, _ = apart(before, same.where(np.arange(25) < 15))
    assert kept.features[0].traces.tolist() == [0, 1, 2, 3, 4]


def test_a_mode_that_the_other_side_may_have_among_its_rare_ones_is_not_called_gone() -> None:
    before = traces([False] * 40, {"m1": [True] * 40, "m2": [True] * 40}, kind="failure_mode")
    after = replace(traces([False] * 40, {"m2": [True] * 40}, kind="failure_mode", prefix="u"), modes_left_out=1)
    result = compare(before, after)
    assert ([mode.name for mode in result.failure_modes], result.modes_left_out) == (["m2"], 1)


def test_failure_modes_are_gone_appeared_or_changed_and_the_rest_shows_no_evidence() -> None:
    number = np.arange(200)
    old = {"gone": number < 40, "less": number < 60, "same": number % 10 == 0, "rare": number < 2}
    new = {"new": number < 30, "less": number < 20, "same": number % 10 == 1}
    result = compare(
        traces([True] * 200, old, kind="failure_mode"), traces([True] * 200, new, kind="failure_mode", prefix="u")
    )
    changes = {mode.name: (mode.change, mode.before, mode.after) for mode in result.failure_modes}
    assert changes == {
        "gone": ("gone", 40, 0),
        "new": ("appeared", 0, 30),
        "less": ("less", 60, 20),
        "same": ("no evidence", 20, 20),
        "rare": ("no evidence", 2, 0),
    }
    assert [mode.name for mode in result.failure_modes][-2:] == ["same", "rare"]
    assert result.verdict == "no evidence of a difference"


def test_without_outcomes_the_verdict_is_about_failures_and_says_so() -> None:
    failures = {"failures": np.arange(100) % 2}
    result = compare(traces([None] * 100, numbers=failures), traces([None] * 100, prefix="u"))
    assert (result.judged_by_failures, result.primary.name, result.verdict) == (True, "traces_with_failures", "better")


def test_unknown_outcomes_do_not_count() -> None:
    result = compare(traces([True] * 40 + [None] * 60), traces([True] * 40 + [False] * 10, prefix="u"))
    assert (result.primary.before, result.primary.before_of, result.before.unknown) == (40, 40, 60)


def test_numbers_are_means_over_tasks_when_paired_and_medians_when_not() -> None:
    tokens = np.arange(40) * 10.0 + 100
    passed = [True] * 40
    paired = compare(
        by_task(passed, numbers={"tokens": tokens}), by_task(passed, numbers={"tokens": tokens * 0.5}, prefix="u")
    )
    change = {one.name: one for one in paired.secondary}["tokens"]
    assert (change.before, change.after, change.pairs) == (tokens.mean(), tokens.mean() / 2, 40)
    assert change.interval.high < 0
    assert change.p < 0.01
    whole = compare(traces(passed, numbers={"tokens": tokens}), traces(passed, numbers={"tokens": tokens * 0.5}))
    change = {one.name: one for one in whole.secondary}["tokens"]
    assert (change.before, change.after, change.pairs) == (np.median(tokens), np.median(tokens) / 2, 0)


def test_numbers_unknown_on_one_side_are_left_out() -> None:
    known, unknown = {"tokens": np.ones(9)}, {"tokens": np.full(9, np.nan)}
    result = compare(traces([True] * 9, numbers=known), traces([True] * 9, numbers=unknown))
    assert "tokens" not in {one.name for one in result.secondary}


def test_times_that_do_not_meet_do_not_overlap() -> None:
    before = traces([True] * 9)
    assert not compare(before, replace(before, start=before.start + 100, end=before.end + 100)).times_overlap


def test_false_verdicts_are_as_rare_as_promised() -> None:
    alarms = {True: 0, False: 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        chance = np.repeat(rng.beta(2, 2, 40), 2)
        sides = [(rng.random(80) < chance).tolist() for _ in range(2)]
        for paired in alarms:
            before, after = (by_task(side, 2) if paired else traces(side) for side in sides)
            alarms[paired] += compare(before, after).verdict in ("better", "worse")
    assert max(alarms.values()) <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)
