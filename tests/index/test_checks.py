"""Checks on a dataset: what they measure, when they hold, what stops them; and what a file of them must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.errors import BadArgument, BadCheckFile
from halo_mcp.index.checks import Check, CheckFile, CheckResult, check_for, evaluate, load_checks
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from tests.builders import Record, span, store_of


def trace(name: str, *, error: str = "", tool: str = "search", outcome: str = "pass", times: int = 1) -> list[Record]:
    """A root and so many calls of a tool, which fail with ``error``."""
    number = int(name.removeprefix("t"))
    root = span(f"{name}-root", trace=name, start_ms=number, kind="AGENT", attributes={"task.outcome": outcome})
    calls = [
        span(
            f"{name}-call{n}",
            f"{name}-root",
            trace=name,
            name=f"function.{tool}",
            kind="TOOL",
            error=error,
            start_ms=number + n,
            attributes={"tool.name": tool, "input.value": str(n)},
        )
        for n in range(times)
    ]
    return [root, *calls]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Ten traces: three fail with a limit (t1 twice), one with a timeout; t8 and t9 use another tool."""
    records = [
        *trace("t1", error="limit must be <= 100, got 250", outcome="fail", times=2),
        *trace("t2", error="limit must be <= 100, got 300", outcome="fail"),
        *trace("t3", error="limit must be <= 50, got 51"),
        *trace("t4", error="timed out after 3 s", outcome="fail"),
        *(record for n in range(5, 8) for record in trace(f"t{n}")),
        *(record for n in range(8, 11) for record in trace(f"t{n}", tool="fetch", outcome="unknown")),
    ]
    return store_of(tmp_path, *records)


def ask(store: LocalStore, **fields: Any) -> CheckResult:
    check = Check.model_validate({"name": "c", "threshold": 0, **fields})
    (result,) = evaluate(store, [check], Work(), deadline_s=60)
    return result


LIMIT = {"text": "limit must be"}


def test_a_share_counts_the_traces_in_which_the_failure_begins(store: LocalStore) -> None:
    result = ask(store, failure_mode=LIMIT, threshold=0.2)
    assert (result.status, result.value) == ("fail", 0.3)
    assert result.measured
    assert (result.measured.traces, result.measured.population, result.measured.spans) == (3, 10, 4)
    assert [(one.trace_id, one.span_id, one.text) for one in result.offending] == [
        ("t1", "t1-call0", "limit must be <= 100, got 250"),
        ("t2", "t2-call0", "limit must be <= 100, got 300"),
        ("t3", "t3-call0", "limit must be <= 50, got 51"),
    ]
    assert ask(store, failure_mode=LIMIT, threshold=0.3).status == "pass"
    assert ask(store, failure_mode=LIMIT, threshold=0.3, op="<").status == "fail"


@pytest.mark.parametrize(
    "selector, traces",
    [
        ({"text": "limit must be <= 100"}, 2),
        ({"pattern": r"limit must be <= \d+, got \d+"}, 3),
        ({"pattern": r"(?i)TIMED OUT"}, 1),
        ({"span_name": "function.search"}, 4),
        ({"span_name": "function.fetch"}, 0),
        ({"rule": "status_error", "text": "timed"}, 1),
        ({"text": "limit", "pattern": "timed"}, 0),
    ],
)
def test_a_failure_is_told_by_its_words_its_span_and_its_rule(
    store: LocalStore, selector: dict[str, str], traces: int
) -> None:
    result = ask(store, failure_mode=selector, metric="traces", threshold=traces)
    assert (result.status, result.value) == ("pass", traces)
    assert ask(store, failure_mode=selector, metric="traces", op="<", threshold=traces).status == "fail"


def test_spans_count_every_beginning_and_traces_each_trace_once(store: LocalStore) -> None:
    assert ask(store, failure_mode=LIMIT, metric="spans").value == 4
    assert ask(store, failure_mode=LIMIT, metric="traces").value == 3
    assert ask(store, failure_mode=LIMIT, metric="spans", filters={"trace_ids": ["t1"]}).value == 2


def test_filters_choose_what_matches_and_of_says_among_which(store: LocalStore) -> None:
    among_search = ask(store, of={"tool_names": ["search"]}, filters={"outcome": ["fail"]}, threshold=0.4)
    assert among_search.measured
    assert (among_search.measured.traces, among_search.measured.population) == (3, 7)
    assert ask(store, filters={"outcome": ["pass"]}, op=">=", threshold=0.4).status == "pass"


def test_a_failed_lower_bound_shows_traces_that_do_not_match(store: LocalStore) -> None:
    result = ask(store, of={"tool_names": ["search"]}, filters={"outcome": ["pass"]}, op=">=", threshold=0.9)
    assert (result.status, [one.trace_id for one in result.offending]) == ("fail", ["t1", "t2", "t4"])


def test_a_scan_of_payloads_can_be_a_condition(store: LocalStore) -> None:
    result = ask(store, filters={"regex_pattern": "got 3.0"}, metric="traces")
    assert (result.status, [one.trace_id for one in result.offending]) == ("fail", ["t2"])


def test_nothing_to_check_is_an_error_unless_it_is_allowed(store: LocalStore) -> None:
    nobody = {"of": {"tool_names": ["serach"]}, "failure_mode": LIMIT}
    result = ask(store, **nobody)
    assert (result.status, result.value, result.reason) == (
        "error",
        None,
        "nothing to check: no trace meets its filters `of`",
    )
    assert ask(store, **nobody, allow_empty=True).status == "pass"
    assert ask(store, **nobody, metric="traces").status == "error"


def test_one_check_that_cannot_be_evaluated_leaves_the_others_alone(store: LocalStore) -> None:
    bad = Check(name="bad", threshold=0, filters=TraceFilters(regex_pattern="(("))
    worse = Check.model_validate({"name": "worse", "threshold": 0, "failure_mode": {"pattern": "a(?=b)"}})
    late = Check(name="late", threshold=0, filters=TraceFilters(start_time_gte="yesterday"))
    good = Check.model_validate({"name": "good", "threshold": 0.3, "failure_mode": LIMIT})
    results = evaluate(store, [bad, worse, late, good], Work(), deadline_s=60)
    assert [result.status for result in results] == ["error", "error", "error", "pass"]
    assert all("cannot be used" in result.reason for result in results[:2])
    assert "is not a time" in results[2].reason


def test_a_rule_that_does_not_count_is_an_error_and_no_success(store: LocalStore) -> None:
    result = ask(store, failure_mode={"rule": "empty_tool_output"})
    assert (result.status, result.reason) == (
        "error",
        "Rule 'empty_tool_output' counts nothing as a failure here. Name it in HALO_MCP_SOFT_RULES.",
    )


def test_a_check_made_for_a_failure_mode_outlives_other_numbers(store: LocalStore, tmp_path: Path) -> None:
    check = check_for(store, mode_of(store, "t1-call0"), 0.1, TraceFilters(), Work())
    assert check.failure_mode
    assert (check.failure_mode.id, check.failure_mode.span_name) == ("", "function.search")
    assert check.failure_mode.pattern == r"limit must be <= \S* got \S*"
    assert check.evidence[0].model_dump() == {
        "trace_id": "t1",
        "span_id": "t1-call0",
        "quote": "limit must be <= 100, got 250",
    }
    later = store_of(tmp_path / "later", *trace("t1", error="limit must be <= 7, got 8"))
    (result,) = evaluate(later, [check], Work(), deadline_s=60)
    assert (result.status, result.value) == ("fail", 1.0)


def test_quoted_words_are_kept_unless_other_cases_quote_others(tmp_path: Path) -> None:
    one = [*trace("t1", error="no column 'a b' (in x)"), *trace("t2", error="no column 'a b' (in x)")]
    two = [*one, *trace("t3", error="no column 'c' (in x)")]
    patterns: list[str] = []
    for name, records in (("one", one), ("two", two)):
        store = store_of(tmp_path / name, *records)
        selector = check_for(store, mode_of(store, "t1-call0"), 0.0, TraceFilters(), Work()).failure_mode
        assert selector
        patterns.append(selector.pattern)
    assert patterns == [r"no column 'a b' \(in x\)", r"no column '[^']*' \(in x\)"]


def test_a_check_made_for_a_loop_is_known_by_its_rule(tmp_path: Path) -> None:
    calls = [
        span(f"c{n}", "root", name="function.look", kind="TOOL", start_ms=n, attributes={"input.value": "same"})
        for n in range(4)
    ]
    store = store_of(tmp_path, span("root", kind="AGENT"), *calls)
    check = check_for(store, mode_of(store, "c0"), 0.0, TraceFilters(), Work())
    assert check.failure_mode
    assert check.failure_mode.model_dump(exclude_defaults=True) == {
        "rule": "repeated_call",
        "span_name": "function.look",
    }
    assert ask(store, failure_mode=check.failure_mode, metric="spans").value == 4


def test_a_check_for_an_unknown_failure_mode_is_refused(store: LocalStore) -> None:
    with pytest.raises(BadArgument, match="No trace here has a failure mode 'abc'"):
        check_for(store, "abc", 0.0, TraceFilters(), Work())


def mode_of(store: LocalStore, span_id: str) -> str:
    snapshot = store._current  # pyright: ignore[reportPrivateUsage]  # no method of the store tells one span's mode
    ((mode,),) = snapshot.query("SELECT failure_mode FROM spans WHERE span_id = ?", [span_id])
    return str(mode)


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


CHECK = {"name": "c", "failure_mode": {"text": "x"}, "threshold": 0}


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    checks = CheckFile.model_validate({"version": 1, "checks": [{**CHECK, "description": "naïve", "op": "<"}]})
    path = write(tmp_path / "checks.json", checks.to_json())
    assert load_checks(path) == checks
    assert "allow_empty" not in path.read_text(encoding="utf-8"), "what is as by default is left out"


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "EOF while parsing"),
        ("[]", "Input should be an object"),
        ({"checks": [CHECK]}, "version: Field required"),
        ({"version": 2, "checks": [CHECK]}, "version: Input should be 1"),
        ({"version": 1, "checks": []}, "checks: List should have at least 1 item"),
        ({"version": 1, "checks": [{**CHECK, "treshold": 1}]}, "checks.0.treshold: Extra inputs are not permitted"),
        ({"version": 1, "checks": [{**CHECK, "filters": {"tool": ["x"]}}]}, "checks.0.filters.tool: Extra inputs"),
        ({"version": 1, "checks": [{**CHECK, "op": "=="}]}, "checks.0.op: Input should be '<=', '<', '>=' or '>'"),
        ({"version": 1, "checks": [{**CHECK, "threshold": 2}]}, "give threshold 0.02 for 2 %"),
        ({"version": 1, "checks": [{**CHECK, "threshold": -1}]}, "checks.0.threshold: Input should be greater"),
        ({"version": 1, "checks": [{**CHECK, "failure_mode": {}}]}, "give at least one of id, rule, span_name"),
        (
            {"version": 1, "checks": [{**CHECK, "failure_mode": {"rule": "refused"}}]},
            "there is no rule 'refused'",
        ),
        ({"version": 1, "checks": [{"name": "c", "threshold": 0}]}, "every trace would match"),
        ({"version": 1, "checks": [{"name": "c", "threshold": 0, "metric": "spans"}]}, "give failure_mode"),
        ({"version": 1, "checks": [CHECK, CHECK]}, "two checks have one name: c"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path / "checks.json", content)
    with pytest.raises(BadCheckFile) as caught:
        load_checks(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path} is no file of checks that can be used: ")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadCheckFile, match="No such file"):
        load_checks(tmp_path / "none.json")
