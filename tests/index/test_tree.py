"""What only a whole trace knows: parents, inherited agents, original errors, tokens counted once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.index import tree
from halo_mcp.index.local import LocalStore
from tests.builders import Record, agent, by_id, llm, open_store, span, store_of, write_lines


def agents(store: LocalStore, trace_id: str = "t1") -> dict[str, str | None]:
    return {row.span_id: row.agent_name for row in store.spans(trace_id)}


def originals(store: LocalStore, trace_id: str = "t1") -> set[str]:
    return {row.span_id for row in store.spans(trace_id) if row.is_original_error}


# --- agents ---
def test_children_written_before_their_parents_inherit_the_agent(tmp_path: Path) -> None:
    store = store_of(tmp_path, llm("c", "b"), span("b", "a"), agent("a", name="planner"))
    assert agents(store) == {"a": "planner", "b": "planner", "c": "planner"}


def test_the_nearest_ancestor_that_names_an_agent_wins(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("root", name="planner"),
        agent("sub", "root", name="coder"),
        span("step", "sub"),
        llm("call", "step"),
        llm("other", "root"),
        span("named", "step", attributes={"gen_ai.agent.name": "reviewer"}),
    )
    assert agents(store) == {
        "root": "planner",
        "sub": "coder",
        "step": "coder",
        "call": "coder",
        "other": "planner",
        "named": "reviewer",
    }
    assert store.trace("t1").agent_names == ("coder", "planner", "reviewer")


def test_an_agent_is_inherited_across_files(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", llm("c", "a"))
    second = write_lines(tmp_path / "b.jsonl", agent("a", name="planner"))
    assert agents(open_store(tmp_path, first, second)) == {"a": "planner", "c": "planner"}


def test_the_service_stands_in_only_where_the_trace_names_no_agent(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("s1", trace="none", service="checkout"),
        span("s2", "s1", trace="none"),
        agent("a", trace="some", name="planner", service="checkout"),
        span("outside", trace="some", service="checkout"),
    )
    assert agents(store, "none") == {"s1": "checkout", "s2": None}
    assert agents(store, "some") == {"a": "planner", "outside": None}


def test_spans_that_name_no_agent_themselves_are_counted(tmp_path: Path) -> None:
    store = store_of(tmp_path, agent("a", name="planner"), span("b", "a"), span("c", "a", attributes={"agent.id": "x"}))
    assert store.trace("t1").missing_agent_count == 1
    assert store.trace("t1").agent_ids == ("x",)


# --- parents ---
def test_a_parent_that_is_not_there_is_missing_and_its_child_a_root(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("child", "gone", name="child"), span("leaf", "child"))
    rows = by_id(store.spans("t1"))
    assert (rows["child"].has_parent, rows["leaf"].has_parent) == (False, True)
    assert rows["child"].parent_span_id == "gone"
    assert (store.trace("t1").missing_parent_count, store.trace("t1").root_name) == (1, "child")


def test_a_parent_of_another_trace_does_not_count(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("a", trace="t1"), span("b", "a", trace="t2"))
    assert store.trace("t2").missing_parent_count == 1
    assert store.trace("t1").missing_parent_count == 0


def test_of_several_roots_the_first_gives_the_trace_its_name(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("x", "r1", name="child"), span("r1", name="first"), span("r2", name="second"))
    assert store.trace("t1").root_name == "first"
    assert store.trace("t1").missing_parent_count == 0


@pytest.mark.parametrize("no_parent", [None, ""])
def test_null_and_empty_parents_are_roots(tmp_path: Path, no_parent: str | None) -> None:
    store = store_of(tmp_path, span("a", parent_span_id=no_parent))
    (row,) = store.spans("t1")
    assert (row.parent_span_id, row.has_parent) == (None, False)
    assert store.trace("t1").missing_parent_count == 0


def test_parents_are_found_however_their_id_is_spelled(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("00F067AA0BA902B7", "0001020304050607", trace="ABEiM0RVZneImaq7zN3u/w=="),
        span("AAECAwQFBgc=", trace="00112233445566778899AABBCCDDEEFF"),
    )
    rows = by_id(store.spans("00112233445566778899aabbccddeeff"))
    assert rows["00f067aa0ba902b7"].has_parent
    assert store.info().total_traces == 1


# --- original errors ---
def errors(*links: tuple[str, str, bool]) -> list[Record]:
    return [span(child, parent, error="boom" if failed else "") for child, parent, failed in links]


@pytest.mark.parametrize(
    "links, expected",
    [
        pytest.param([("a", "", True), ("b", "a", True), ("c", "b", True)], {"c"}, id="a chain"),
        pytest.param([("a", "", True), ("b", "a", False), ("c", "b", True)], {"c"}, id="a gap in the chain"),
        pytest.param([("a", "", True), ("b", "a", False), ("c", "b", False)], {"a"}, id="only the root"),
        pytest.param([("a", "", True), ("b", "a", True), ("c", "a", True)], {"b", "c"}, id="two leaves"),
        pytest.param([("a", "", False), ("b", "a", True), ("c", "a", False)], {"b"}, id="a root that is fine"),
        pytest.param([("a", "", True), ("b", "", True)], {"a", "b"}, id="two roots"),
        pytest.param([("b", "gone", True), ("c", "b", True)], {"c"}, id="a missing parent"),
        pytest.param([("a", "a", True)], {"a"}, id="a span that is its own parent"),
        pytest.param([("a", "a", True), ("b", "a", True)], {"b"}, id="a child of a span that is its own parent"),
    ],
)
def test_an_error_is_counted_once_where_it_began(
    tmp_path: Path, links: Sequence[tuple[str, str, bool]], expected: set[str]
) -> None:
    store = store_of(tmp_path, *reversed(errors(*links)))
    trace = store.trace("t1")
    assert originals(store) == expected
    assert trace.original_error_count == len(expected)
    assert trace.error_span_count == sum(failed for _, _, failed in links)


def test_a_circle_of_failing_spans_has_exactly_one_original_error(tmp_path: Path) -> None:
    store = store_of(tmp_path, *errors(("a", "c", True), ("b", "a", True), ("c", "b", True), ("d", "c", False)))
    assert len(originals(store)) == 1
    assert [row.has_parent for row in store.spans("t1")].count(False) == 1


def test_a_duplicate_span_id_makes_no_failure_of_its_own(tmp_path: Path) -> None:
    store = store_of(tmp_path, *errors(("b", "a", True), ("a", "", True), ("a", "", True)))
    rows = [(row.span_id, row.is_original_error) for row in store.spans("t1")]
    assert ("b", True) in rows
    assert len(rows) == 3
    assert len(store.payloads("t1", ["a"])) == 2


@given(data=st.data(), size=st.integers(1, 30))
def test_original_errors_and_nearest_ancestors_equal_a_walk_up_the_tree(data: st.DataObject, size: int) -> None:
    links = data.draw(st.lists(st.integers(0, size), min_size=size, max_size=size))
    error = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    child = np.array([i for i, parent in enumerate(links) if parent < size], dtype=np.int64)
    parent = np.array([parent for parent in links if parent < size], dtype=np.int64)

    parents = tree.parent_rows(size, child, parent)

    above: list[list[int]] = []
    for row in range(size):
        chain: list[int] = []
        while (row := int(parents[row])) < size:
            chain.append(row)
            assert len(chain) <= size, "a chain that never ends"
        above.append(chain)
    propagated = {ancestor for row in range(size) if error[row] for ancestor in above[row]}
    assert tree.original_errors(parents, np.array(error)).tolist() == [
        error[row] and row not in propagated for row in range(size)
    ]
    nearest = tree.nearest(parents, np.array(error))
    assert nearest.tolist() == [next((r for r in (row, *above[row]) if error[r]), size) for row in range(size)]
    cut = [row for row, wanted in enumerate(links) if wanted < size and parents[row] == size]
    on_a_circle = {row for row in cut if _reaches(links, row)}
    assert set(cut) == on_a_circle, "a link was cut that closes no circle"


def _reaches(links: Sequence[int], start: int) -> bool:
    row = links[start]
    for _ in links:
        if row == start or row >= len(links):
            break
        row = links[row]
    return row == start


def test_a_chain_of_a_hundred_thousand_spans_is_followed_to_its_root() -> None:
    size = 100_000
    order = random.Random(1).sample(range(size), size)
    child, parent = np.array(order[1:], dtype=np.int64), np.array(order[:-1], dtype=np.int64)
    parents = tree.parent_rows(size, child, parent)
    only_root = np.zeros(size, dtype=np.bool_)
    only_root[order[0]] = True
    assert (tree.nearest(parents, only_root) == order[0]).all()
    assert tree.original_errors(parents, np.ones(size, np.bool_)).tolist().count(True) == 1


# --- tokens and times ---
USED: Mapping[str, Any] = {"inference.llm.input_tokens": 100, "inference.llm.output_tokens": 10}


def tokens(store: LocalStore) -> tuple[int | None, int | None]:
    trace = store.trace("t1")
    return trace.input_tokens, trace.output_tokens


def test_tokens_are_summed_over_llm_spans_only(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        llm("l1", "a", tokens=(60, 4)),
        llm("l2", "a", tokens=("40", "6.0")),
        span("c", "a", kind="CHAIN", attributes=USED),
        agent("a", name="planner", attributes=USED),
    )
    assert tokens(store) == (100, 10)


def test_an_agents_total_counts_where_no_llm_span_has_usage(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        llm("l1", "b"),
        agent("b", "a", name="coder", attributes={"gen_ai.usage.input_tokens": 70, "gen_ai.usage.output_tokens": 7}),
        agent("a", name="planner", attributes=USED),
        span("t", "a", kind="TOOL", attributes={"gen_ai.usage.input_tokens": 10_000}),
    )
    assert tokens(store) == (100, 10)


def test_a_trace_without_any_usage_has_unknown_tokens_not_zero(tmp_path: Path) -> None:
    store = store_of(tmp_path, llm("l1"), span("c", kind="CHAIN", attributes=USED))
    assert tokens(store) == (None, None)


def test_several_aliases_on_one_span_are_alternatives(tmp_path: Path) -> None:
    aliases = {"llm.token_count.prompt": 5, "gen_ai.usage.input_tokens": 5, "gen_ai.usage.prompt_tokens": 5}
    assert tokens(store_of(tmp_path, llm("l1", attributes=aliases))) == (5, None)


def test_a_trace_lasts_from_its_earliest_start_to_its_latest_end(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("late", start_time="2026-03-02T10:00:02+01:00", end_time=""),
        span("early", start_time="1772442000500", end_time="2026-03-02T09:00:01.5Z"),
        span("unknown", start_time="", end_time=None),
    )
    trace = store.trace("t1")
    assert trace.start_time_unix_nano == 1_772_442_000_500_000_000
    assert trace.end_time_unix_nano == 1_772_442_002_000_000_000
    assert [row.span_id for row in store.spans("t1")] == ["early", "late", "unknown"]


def test_several_files_with_one_trace_id_are_one_trace(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", llm("l1", "root", tokens=(3, 1)), span("e", "root", error="boom"))
    second = write_lines(tmp_path / "b.jsonl", span("root", name="run", error="boom"), llm("l2", "e", tokens=(4, 2)))
    store = open_store(tmp_path, first, second)

    trace = store.trace("t1")
    assert store.info().total_traces == 1
    assert (trace.span_count, trace.input_tokens, trace.output_tokens) == (4, 7, 3)
    assert (trace.error_span_count, trace.original_error_count, trace.missing_parent_count) == (2, 1, 0)
    assert trace.root_name == "run"
    assert [payload.span_id for payload in store.payloads("t1")] == ["l1", "e", "root", "l2"]
