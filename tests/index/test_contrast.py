"""What is said to separate two groups is what does, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halo_mcp.index.contrast import Contrast, Finding, contrast
from halo_mcp.index.features import TraceFeatures
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import agent, llm, span, store_of
from tests.index.groups import traces

RNG = np.random.default_rng(11)


def failing_against_passing(population: TraceFeatures) -> Contrast:
    return contrast(population, population.outcome == 0, population.outcome == 1)


def found(result: Contrast) -> dict[str, Finding]:
    return {finding.name: finding for finding in result.findings}


def test_a_cause_is_found_and_a_decoy_as_common_in_both_groups_is_not() -> None:
    passed = np.arange(400) % 2 == 0
    cause = ~passed & (np.arange(400) % 5 < 2) | (np.arange(400) % 40 == 0)
    decoy = np.arange(400) % 10 < 4
    result = failing_against_passing(traces(passed, {"cause": cause, "decoy": decoy}))
    (finding,) = result.findings
    assert (finding.name, finding.standing) == ("cause", "holds")
    assert (finding.a, finding.b) == (int((cause & ~passed).sum()), int((cause & passed).sum()))
    assert finding.difference == pytest.approx(finding.a / 200 - finding.b / 200)
    assert finding.interval.low < finding.difference < finding.interval.high
    assert finding.example_a == f"t{int(np.flatnonzero(cause & ~passed)[0]):06}"
    assert [(same.text, same.a, same.b) for same in result.same] == [("decoy", 80, 80)]


def test_a_difference_that_is_significant_but_tiny_is_no_finding() -> None:
    passed = np.arange(100_000) % 2 == 0
    has = (np.arange(100_000) // 2) % 100 < np.where(passed, 50, 53)
    result = failing_against_passing(traces(passed, {"slightly": has}))
    assert not result.findings
    assert [same.text for same in result.same] == ["slightly"]


def test_a_feature_explained_by_a_stronger_one_says_so() -> None:
    passed = np.arange(400) % 2 == 0
    cause = ~passed & (np.arange(400) % 5 < 2)
    follower = cause & (np.arange(400) % 3 > 0)
    result = found(failing_against_passing(traces(passed, {"cause": cause, "follower": follower})))
    assert result["cause"].standing == "holds"
    assert (result["follower"].standing, result["follower"].reason) == ("explained", "mostly explained by cause")


def test_two_causes_in_different_traces_both_hold() -> None:
    number = np.arange(400)
    passed = number % 2 == 0
    one, other = ~passed & (number % 5 == 1), ~passed & (number % 5 == 3)
    result = found(failing_against_passing(traces(passed, {"one": one, "other": other})))
    assert {name: finding.standing for name, finding in result.items()} == {"one": "holds", "other": "holds"}


def simpson() -> tuple[list[bool], list[bool], list[str]]:
    """(passed, has the tool, task): hard tasks fail and use the tool; within tasks of one kind it changes nothing."""
    rows = [(passed, has, f"{kind}{number % 10}") for kind, counts in HARD_AND_EASY for passed, has, n in counts
            for number in range(n)]  # fmt: skip
    passed, has, task = zip(*rows, strict=True)
    return list(passed), list(has), list(task)


HARD_AND_EASY = (
    ("hard", ((False, True, 140), (False, False, 20), (True, True, 40), (True, False, 10))),
    ("easy", ((False, True, 10), (False, False, 40), (True, True, 20), (True, False, 140))),
)


def test_a_difference_that_comes_from_which_tasks_were_attempted_is_explained_by_them() -> None:
    passed, has, task = simpson()
    alone = failing_against_passing(traces(passed, {"tool": has}))
    assert found(alone)["tool"].standing == "holds"
    result = found(failing_against_passing(traces(passed, {"tool": has}, tasks=task)))
    assert result["tool"].standing == "explained"
    assert "which task" in result["tool"].reason


def test_a_difference_that_turns_round_within_runs_is_called_reversed() -> None:
    # Among failing 110 of 200 have it, among passing 70 of 180; but in each run passing traces have it more often.
    parts = (("r1", False, 100, 20), ("r1", True, 20, 0), ("r2", False, 10, 70), ("r2", True, 50, 110))
    passed: list[bool] = []
    has: list[bool] = []
    runs: list[str] = []
    for run, ok, with_it, without in parts:
        passed += [ok] * (with_it + without)
        has += [True] * with_it + [False] * without
        runs += [run] * (with_it + without)
    (finding,) = failing_against_passing(traces(passed, {"tool": has}, runs=runs)).findings
    assert finding.difference > 0
    assert finding.standing == "reversed"
    assert finding.reason.startswith("the other way round within runs")


def test_a_difference_that_holds_within_tasks_says_so() -> None:
    number = np.arange(400)
    passed = number % 2 == 0
    cause = ~passed & (number % 5 < 3)
    tasks = [f"task {n // 20}" for n in number.tolist()]
    (finding,) = failing_against_passing(traces(passed, {"cause": cause}, tasks=tasks)).findings
    assert finding.standing == "holds"
    assert finding.reason == "holds within tasks (+60.0 pts)"


def test_what_longer_traces_have_more_of_is_explained_by_their_length() -> None:
    number = np.arange(600)
    long = number % 3 == 0
    passed = np.where(long, number % 10 < 2, number % 10 < 8)
    has = np.where(long, number % 7 < 5, number % 7 < 1)
    population = traces(passed, {"tool": has}, numbers={"spans": np.where(long, 40, 4)})
    (finding,) = failing_against_passing(population).findings
    assert (finding.standing, finding.reason) == ("explained", "mostly explained by the length of the traces")


def test_numbers_that_differ_have_medians_and_an_effect_size_and_equal_ones_are_left_out() -> None:
    passed = np.arange(200) % 2 == 0
    turns = np.where(passed, 4, 9) + np.arange(200) % 3
    result = failing_against_passing(traces(passed, numbers={"llm_calls": turns, "noise": np.arange(200) // 2 % 7}))
    (number,) = result.numbers
    assert (number.name, number.median_a, number.median_b, number.delta) == ("llm_calls", 10, 5, 1)
    assert number.p < 0.001


@pytest.mark.parametrize("passed", [[], [True] * 9, [None] * 9], ids=["nothing", "all pass", "no outcomes"])
def test_an_empty_group_gives_no_findings_and_says_how_many_traces_there_were(passed: list[Any]) -> None:
    result = failing_against_passing(traces(passed, {"tool": [True] * len(passed)}))
    assert (result.findings, result.numbers, result.same, result.tested) == ((), (), (), 0)
    assert (result.traces_a, result.traces_b) == (0, passed.count(True))


def test_three_against_three_is_too_little_to_tell() -> None:
    assert not failing_against_passing(traces([True] * 3 + [False] * 3, {"tool": [False] * 3 + [True] * 3})).findings


def test_traces_in_both_groups_are_left_out_of_both() -> None:
    population = traces([True] * 30 + [False] * 30, {"tool": [True] * 60})
    result = contrast(population, population.outcome == 0, population.outcome >= 0)
    assert (result.traces_a, result.traces_b, result.overlap) == (0, 30, 30)


def test_what_the_filters_of_a_group_decide_is_not_a_finding() -> None:
    has = np.arange(100) % 2 == 0
    population = traces([True] * 100, {"search": has, "other": has}, numbers={"duration_ms": has * 9.0})
    result = contrast(population, has, ~has, [{"tool_names": ["search"], "min_duration_ms": 5}])
    assert (set(found(result)), result.by_definition, result.numbers) == ({"other"}, 1, ())


def test_false_alarms_are_as_rare_as_promised() -> None:
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        has = {f"f{number}": rng.random(120) < rng.uniform(0.1, 0.9) for number in range(20)}
        population = traces(rng.random(120) < 0.5, has, numbers={"llm_calls": rng.poisson(8, 120)})
        result = failing_against_passing(population)
        alarms += bool(result.findings or result.numbers)
    assert alarms <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_features_of_traces_are_read_from_their_spans(tmp_path: Path) -> None:
    records = [
        agent("r", name="planner", trace="a", attributes={"task.outcome": "fail", "task.id": "t1", "run.id": "1"}),
        llm("l1", "r", trace="a", tokens=(10, 2), start_ms=1, attributes={"llm.model_name": "m1"}),
        span("c1", "r", trace="a", kind="TOOL", start_ms=2, error="boom", attributes={"tool.name": "search"}),
        span("c2", "r", trace="a", kind="TOOL", start_ms=3, attributes={"tool.name": "search", "output.value": "four"}),
        span("c3", "r", trace="a", kind="TOOL", start_ms=4, attributes={"tool.name": "fetch"}),
        agent("r", name="planner", trace="b", attributes={"task.outcome": "pass"}),
        span("c1", "r", trace="b", kind="TOOL", start_ms=2, attributes={"tool.name": "fetch"}),
    ]
    facts = store_of(tmp_path, *records).features(TraceFilters(), Work())
    a, b = facts.trace_ids.tolist().index("a"), facts.trace_ids.tolist().index("b")
    has = {(feature.kind, feature.name): set(feature.traces.tolist()) for feature in facts.features}
    (mode,) = (name for kind, name in has if kind == "failure_mode")
    assert has == {
        ("failure_mode", mode): {a},
        ("tool", "search"): {a},
        ("tool", "fetch"): {a, b},
        ("tool_failed", "search"): {a},
        ("tool_again", "search"): {a},
        ("tool_pair", "search → search"): {a},
        ("tool_pair", "search → fetch"): {a},
        ("model", "m1"): {a},
        ("agent", "planner"): {a, b},
    }
    assert (facts.outcome[a], facts.outcome[b]) == (0, 1)
    assert (facts.tasks, facts.task[a], facts.task[b], facts.runs) == (("t1",), 0, -1, ("1",))
    numbers = {number.name: number.values[a] for number in facts.numbers}
    assert (numbers["input_tokens"], numbers["llm_calls"], numbers["tool_calls"], numbers["failures"]) == (10, 1, 3, 1)
    assert numbers["tool_output_chars"] == 4
    assert math.isnan(facts.number("input_tokens")[b])
