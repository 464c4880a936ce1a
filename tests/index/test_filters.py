"""Each filter selects the traces it says, alone and together with others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from inline_snapshot import snapshot
from pydantic import ValidationError

from halo_mcp.errors import DeadlineExceeded, InvalidPattern, InvalidTime
from halo_mcp.index.filters import AttributeFilter, TraceFilters, attribute_holds
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from tests.builders import Record, agent, at, llm, members, span, store_of, trace_ids
from tests.index.conftest import Demo

ALL = ["t1", "t2", "t3", "t4"]
RECORDS: list[Record] = [
    # t1: passes; two spans, 100 ms, 110 tokens
    agent("a", trace="t1", name="planner", service="web", ms=100, attributes={
        "task.outcome": "pass", "task.id": "k1", "run.id": "r1", "inference.session_id": "s1",
        "inference.project_id": "p1", "user.tier": "gold", "retries": 3, "flag": True}),
    llm("l", "a", trace="t1", tokens=(100, 10), attributes={"llm.model_name": "gpt"}),
    # t2: fails in a tool
    agent("a", trace="t2", name="coder", service="web", start_ms=60_000, ms=2_000, error="failed", attributes={
        "task.outcome": "fail", "task.id": "k1", "run.id": "r2", "inference.session_id": "s2",
        "inference.project_id": "p1", "user.tier": "silver", "retries": "12.5", "flag": False}),
    span("t", "a", trace="t2", kind="TOOL", error="no", start_ms=60_000, attributes={"tool.name": "search"}),
    llm("l", "a", trace="t2", tokens=(1_000, 0), start_ms=60_000, attributes={"llm.model_name": "claude"}),
    # t3: says nothing about its outcome
    span("t", trace="t3", kind="TOOL", service="batch", name="fetch page", start_ms=120_000,
         attributes={"tool.name": "fetch", "retries": "many", "nested": {"a": [1]}}),
    # t4: no times, no kind, no service
    span("s", trace="t4", name="step", start_time="", end_time="", attributes={"note": 'say "hi"\nthere é'}),
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return store_of(tmp_path_factory.mktemp("filters"), *RECORDS)


@pytest.mark.parametrize(
    "filters, expected",
    [
        ({}, ALL),
        ({"has_errors": True}, ["t2"]),
        ({"has_errors": False}, ["t1", "t3", "t4"]),
        ({"outcome": ["pass"]}, ["t1"]),
        ({"outcome": ["fail", "unknown"]}, ["t2", "t3", "t4"]),
        ({"trace_ids": ["t3", "t1", "nothing"]}, ["t1", "t3"]),
        ({"session_ids": ["s2"]}, ["t2"]),
        ({"service_names": ["web"]}, ["t1", "t2"]),
        ({"service_names": ["web", "batch"]}, ["t1", "t2", "t3"]),
        ({"agent_names": ["planner"]}, ["t1"]),
        ({"agent_names": ["batch"]}, ["t3"]),
        ({"model_names": ["gpt", "claude"]}, ["t1", "t2"]),
        ({"model_names": ["GPT"]}, []),
        ({"tool_names": ["search"]}, ["t2"]),
        ({"span_names": ["fetch page"]}, ["t3"]),
        ({"span_names": ["fetch"]}, []),
        ({"observation_kinds": ["TOOL"]}, ["t2", "t3"]),
        ({"observation_kinds": ["SPAN"]}, ["t4"]),
        ({"project_id": "p1"}, ["t1", "t2"]),
        ({"task_keys": ["k1"]}, ["t1", "t2"]),
        ({"run_ids": ["r1"]}, ["t1"]),
        ({"start_time_gte": at(60_000)}, ["t2", "t3"]),
        ({"start_time_gte": "2026-03-02T10:01:00.000000001+01:00"}, ["t3"]),
        ({"start_time_gte": "1772442060"}, ["t2", "t3"]),
        ({"end_time_lte": at(100)}, ["t1"]),
        ({"end_time_lte": "9999-12-31T23:59:59Z"}, ["t1", "t2", "t3"]),
        ({"start_time_gte": "0001-01-01"}, ["t1", "t2", "t3"]),
        ({"min_duration_ms": 100}, ["t1", "t2"]),
        ({"max_duration_ms": 100}, ["t1", "t3"]),
        ({"min_duration_ms": 0}, ["t1", "t2", "t3"]),
        ({"min_tokens": 110}, ["t1", "t2"]),
        ({"max_tokens": 110}, ["t1", "t3", "t4"]),
        ({"min_tokens": 110.5}, ["t2"]),
        ({"min_span_count": 2}, ["t1", "t2"]),
        ({"max_span_count": 2}, ["t1", "t3", "t4"]),
        ({"regex_pattern": "gpt|fetch"}, ["t1", "t3"]),
        ({"regex_pattern": "(?i)SILVER"}, ["t2"]),
        ({"regex_pattern": 'say "hi"'}, ["t4"]),
        ({"regex_pattern": r"hi\"\nthere"}, ["t4"]),
        ({"regex_pattern": "there é$"}, ["t4"]),
        ({"regex_pattern": r'say \\"hi'}, ["t4"]),
        ({"regex_pattern": '"retries":"many"'}, ["t3"]),
        ({"regex_pattern": "no such text"}, []),
        # two together
        ({"has_errors": False, "outcome": ["unknown"]}, ["t3", "t4"]),
        ({"service_names": ["web"], "min_tokens": 200}, ["t2"]),
        ({"task_keys": ["k1"], "run_ids": ["r1"]}, ["t1"]),
        ({"tool_names": ["search"], "model_names": ["gpt"]}, []),
        ({"tool_names": ["search"], "model_names": ["claude"]}, ["t2"]),
        ({"regex_pattern": "retries", "has_errors": False}, ["t1", "t3"]),
        ({"regex_pattern": "retries", "attributes": [{"key": "flag", "value": "true"}]}, ["t1"]),
        ({"start_time_gte": at(1), "end_time_lte": at(90_000)}, ["t2"]),
        ({"min_span_count": 1, "max_span_count": 1}, ["t3", "t4"]),
        ({"trace_ids": ["t1", "t2"], "outcome": ["fail"]}, ["t2"]),
        # attributes
        ({"attributes": [{"key": "user.tier", "value": "gold"}]}, ["t1"]),
        ({"attributes": [{"key": "user.tier", "op": "ne", "value": "gold"}]}, ["t2"]),
        ({"attributes": [{"key": "user.tier", "op": "contains", "value": "l"}]}, ["t1", "t2"]),
        ({"attributes": [{"key": "user.tier", "op": "exists"}]}, ["t1", "t2"]),
        ({"attributes": [{"key": "user", "op": "exists"}]}, []),
        ({"attributes": [{"key": "retries", "op": "gt", "value": "3"}]}, ["t2"]),
        ({"attributes": [{"key": "retries", "op": "lt", "value": "4"}]}, ["t1"]),
        ({"attributes": [{"key": "flag", "value": "false"}]}, ["t2"]),
        ({"attributes": [{"key": "service.name", "value": "batch"}]}, ["t3"]),
        ({"attributes": [{"key": "note", "op": "contains", "value": '"hi"\n'}]}, ["t4"]),
        ({"attributes": [{"key": "flag", "op": "exists"}, {"key": "retries", "op": "gt", "value": "5"}]}, ["t2"]),
        ({"attributes": [{"key": "tool.name", "op": "exists"}], "model_names": ["claude"]}, ["t2"]),
    ],
    ids=json.dumps,
)
def test_a_filter_selects_exactly_its_traces(
    small: LocalStore, filters: Mapping[str, Any], expected: list[str]
) -> None:
    assert trace_ids(small, **filters) == expected
    assert small.count(TraceFilters(**filters), None, Work())[0].traces == len(expected)
    overview = small.overview(TraceFilters(**filters), Work())
    assert overview.total_traces == len(expected)
    assert overview.total_spans == sum(record["trace_id"] in expected for record in RECORDS)
    assert sorted(overview.sample_trace_ids) == expected


def test_a_trace_id_filter_takes_any_spelling_of_the_id(
    small: LocalStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = store_of(tmp_path_factory.mktemp("ids"), span(trace="ABEiM0RVZneImaq7zN3u/w=="), span(trace="other"))
    for spelled in ("00112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF", "ABEiM0RVZneImaq7zN3u/w=="):
        assert trace_ids(store, trace_ids=[spelled]) == ["00112233445566778899aabbccddeeff"]


@pytest.mark.parametrize(
    "filters",
    [
        {"tool_name": ["search"]},
        {"tools": []},
        {"attributes": [{"key": "a", "operator": "eq"}]},
        {"attributes": [{"key": "a", "op": "like"}]},
        {"attributes": [{"key": "a"}] * 6},
        {"observation_kinds": ["ROBOT"]},
        {"outcome": ["good"]},
        {"min_tokens": -1},
        {"trace_ids": ["t"] * 501},
        {"trace_ids": "t1"},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_filter_that_does_not_exist_is_refused_instead_of_ignored(filters: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TraceFilters(**filters)


@pytest.mark.parametrize("name", ["start_time_gte", "end_time_lte"])
def test_a_bad_time_is_refused_with_an_example_of_a_good_one(small: LocalStore, name: str) -> None:
    with pytest.raises(InvalidTime) as refused:
        trace_ids(small, **{name: "yesterday"})
    assert str(refused.value).replace(name, "NAME") == snapshot(
        "NAME='yesterday' is not a time: give RFC 3339 such as '2026-03-02T09:00:00Z', or epoch "
        "seconds, milliseconds, microseconds or nanoseconds as digits."
    )


@pytest.mark.parametrize("pattern", ["(", "a{2000}", "(?=x)", r"(a)\1", "x" * 2_001])
def test_a_pattern_that_re2_cannot_run_is_refused(small: LocalStore, pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        trace_ids(small, regex_pattern=pattern)


def test_only_given_conditions_are_repeated() -> None:
    assert TraceFilters().given() == {}
    given: dict[str, Any] = {"has_errors": False, "tool_names": ["a"], "min_tokens": 0.0}
    assert TraceFilters(**given).given() == given
    assert not TraceFilters(**given).needs_payloads
    assert TraceFilters(regex_pattern="a").needs_payloads


@pytest.mark.parametrize(
    "op, value, given, holds",
    [
        ("eq", "a", "a", True),
        ("eq", "a", "A", False),
        ("eq", 5, "5", True),
        ("eq", 5.0, "5.0", True),
        ("eq", True, "true", True),
        ("eq", None, "", True),
        ("ne", "a", "b", True),
        ("ne", "a", "a", False),
        ("contains", ["x", "y"], "y", True),
        ("contains", "abc", "", True),
        ("gt", 5, "4.5", True),
        ("gt", "5", "10", False),
        ("lt", "1e3", "2000", True),
        ("gt", "five", "4", False),
        ("gt", 5, "four", False),
        ("gt", None, "1", False),
        ("gt", "nan", "1", False),
        ("exists", None, "", True),
    ],
)
def test_an_attribute_is_compared_as_text_or_as_a_number(op: Any, value: object, given: str, holds: bool) -> None:
    wanted = AttributeFilter(key="k", op=op, value=given)
    assert attribute_holds(wanted, True, value) is holds
    assert attribute_holds(wanted, False, None) is False


@pytest.mark.parametrize(
    "value, text",
    [({"a": [1, "é"]}, '{"a":[1,"é"]}'), (["x"], '["x"]')],
)
def test_an_attribute_that_is_an_object_is_compared_as_its_json(value: object, text: str) -> None:
    assert attribute_holds(AttributeFilter(key="k", value=text), True, value)


# --- regex over the dataset ---
PATTERNS = [
    "limit must be <= 100, got",
    "got 1[0-9]+",
    "(?i)unauthorized",
    "timed out after [0-9]+ ms",
    '"isError"',
    r'\{"error"',
    "I'm sorry, but I can't help",
    "(?i)error|denied|expired",
    "card declined",
    "tool_calls",
    "é|ü|ß|—|’",
    r"\n- ",
    '"name": ?"refund"',
    "search_orders.{0,40}limit",
    "STATUS_CODE_ERROR",
    "no such text anywhere",
]


def decoded(value: Any, depth: int = 3) -> Iterator[str]:
    """Every string in a JSON value, and in JSON inside its strings."""
    if isinstance(value, str):
        yield value
        if depth > 1 and value[:1] in ("{", "["):
            try:
                yield from decoded(json.loads(value), depth - 1)
            except ValueError:
                pass  # it only looks like JSON
    for member in members(value):
        yield from decoded(member, depth)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regex_selects_the_traces_in_which_any_line_or_decoded_text_matches(before: Demo, pattern: str) -> None:
    regex = re.compile(pattern)
    expected: set[str] = set()
    for line in before.lines:
        record = json.loads(line)
        if regex.search(line.decode()) or any(regex.search(text) for text in decoded(record)):
            expected.add(record["trace_id"])
    assert set(trace_ids(before.store, regex_pattern=pattern)) == expected


@pytest.mark.parametrize("pattern", ["(a+)+$", "(x+x+)+y", r"(\w*)*!", ".*.*.*=.*"])
def test_a_catastrophic_pattern_answers_at_once(demos: dict[str, Demo], pattern: str) -> None:
    store = demos["both"].store
    assert store.count(TraceFilters(regex_pattern=pattern), None, Work(deadline_s=30))[0].traces >= 0


def test_a_regex_that_takes_too_long_says_how_far_it_came(before: Demo) -> None:
    with pytest.raises(DeadlineExceeded):
        before.store.count(TraceFilters(regex_pattern="never seen before"), None, Work(deadline_s=0))
    assert before.store.count(TraceFilters(regex_pattern="never seen before"), None, Work())[0].traces == 0
