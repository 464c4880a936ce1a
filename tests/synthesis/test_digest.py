"""Digests: bounded, the same each time, with every failure's id, also of large and hostile traces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mcp.demo import write_demo
from halo_mcp.index.digest import MOST_BYTES
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.reading import Sources
from halo_mcp.index.sampling import Stratum, sample
from halo_mcp.index.work import Work
from halo_mcp.tools.budget import DIGEST_CHARS
from halo_mcp.tools.digest import digest_text, excerpt
from tests.builders import Record, agent, line, llm, open_store, span, store_of, trace_ids
from tests.otherworld import write_world

SIZES = (1_000, 2_000, DIGEST_CHARS)


@pytest.fixture(scope="module", params=["demo", "world"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "demo":
        write_demo(directory)
        return open_store(directory, directory / "before.jsonl")
    write_world(directory / "world.jsonl")
    return open_store(directory, directory / "world.jsonl")


def text_of(store: LocalStore, trace_id: str = "t1", max_chars: int = DIGEST_CHARS) -> str:
    return digest_text(store.digest(trace_id, Work()), max_chars).text


def failing(store: LocalStore, trace_id: str) -> list[str]:
    return [one.span_id for failure in store.digest(trace_id, Work()).failures for one in failure.spans]


def test_every_digest_keeps_to_its_size_and_names_every_span_where_a_failure_begins(store: LocalStore) -> None:
    for trace_id in trace_ids(store):
        digest = store.digest(trace_id, Work())
        begun = failing(store, trace_id)
        for size in SIZES:
            small = digest_text(digest, size)
            assert len(small.text) <= size
            assert all(span_id in small.text for span_id in small.span_ids)
        made = digest_text(digest)
        assert trace_id in made.text
        assert len(begun) <= 40
        assert [span_id for span_id in begun if span_id not in made.text] == []
        assert set(begun) <= made.span_ids
        assert made.span_ids <= {row.span_id for row in store.spans(trace_id)}


def test_the_failures_of_a_digest_are_those_that_failure_modes_count(store: LocalStore) -> None:
    counted: Counter[str] = Counter()
    for trace_id in trace_ids(store):
        for failure in store.digest(trace_id, Work()).failures:
            counted[failure.mode] += len(failure.spans)
    modes = store.failure_modes(TraceFilters(), None, Work()).modes
    assert counted == {mode.id: mode.spans for mode in modes}


def test_each_failing_tool_call_is_shown_with_its_arguments_and_output(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("root", name="planner", attributes={"input.value": "Find the fare to Oslo."}),
        llm("think", "root", start_ms=1),
        span(
            "call",
            "root",
            kind="TOOL",
            start_ms=2,
            error="no such city",
            attributes={"tool.name": "geo", "input.value": '{"city": "Olso"}', "output.value": "Traceback: KeyError"},
        ),
        span("fine", "root", kind="TOOL", start_ms=3, attributes={"tool.name": "geo", "output.value": "59.9 N"}),
    )
    text = text_of(store)
    assert "[call] tool geo · +2 ms · FAILED (status_error)" in text
    assert 'input: {"city": "Olso"}' in text
    assert "output: Traceback: KeyError" in text
    assert "status message: no such city" in text
    assert "input: Find the fare to Oslo." in text
    assert "- tool geo status_error ×1 [call]: “no such city”" in text
    assert "2 tool calls, 1 failed (marked !): [planner] → geo! → geo" in text


def test_repeated_calls_are_written_once_also_in_cycles(tmp_path: Path) -> None:
    names = ["open", *["read", "write"] * 4, "close", "close", "close"]
    store = store_of(
        tmp_path,
        *(
            span(f"s{i}", kind="TOOL", start_ms=i, attributes={"tool.name": name, "input.value": str(i)})
            for i, name in enumerate(names)
        ),
    )
    assert "open → (read → write)×4 → close×3" in text_of(store)


def test_the_request_the_final_answer_and_odd_ends_of_turns_are_shown(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is due today?"}]
    store = store_of(
        tmp_path,
        agent("root", name="planner"),
        llm(
            "first",
            "root",
            start_ms=1,
            attributes={
                "gen_ai.input.messages": asked,
                "gen_ai.output.messages": [{"role": "assistant", "content": "Looking."}],
            },
        ),
        llm(
            "last",
            "root",
            start_ms=9,
            attributes={
                "gen_ai.output.messages": [{"role": "assistant", "content": "Two invoices are d"}],
                "gen_ai.response.finish_reasons": ["length"],
            },
        ),
    )
    text = text_of(store)
    assert "request: What is due today?" in text
    assert "output: Two invoices are d" in text
    assert "models stopped because of: length 1" in text
    assert "finish length" in text


def test_one_giant_text_leaves_room_for_the_others(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("root", attributes={"input.value": "A short question."}),
        span(
            "dump",
            "root",
            kind="TOOL",
            start_ms=1,
            error="broken pipe",
            attributes={"tool.name": "dump", "input.value": "page=1", "output.value": f"BEGIN {'x ' * 300_000} END"},
        ),
    )
    text = text_of(store)
    assert len(text) <= DIGEST_CHARS
    assert "input: A short question." in text
    assert "input: page=1" in text
    assert "output: BEGIN x x" in text
    assert "characters left out" in text
    assert " END" in text


def test_what_is_too_large_to_read_is_counted(tmp_path: Path) -> None:
    big = {"tool.name": "dump", "output.value": "y" * (MOST_BYTES + 1)}
    store = store_of(tmp_path, agent("root"), span("dump", "root", kind="TOOL", error="too big", attributes=big))
    text = text_of(store)
    assert "1 telling span too large to read here" in text
    assert "[dump]" in text


def test_a_trace_of_fifty_thousand_spans_is_read_in_few_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Record] = [agent("root", name="worker")]
    records += [
        span(
            f"span-{i:05}",
            "root",
            kind="TOOL",
            start_ms=i,
            error="quota exceeded" if i % 2 else "",
            attributes={"tool.name": f"tool{i % 7}", "output.value": f"row {i}"},
        )
        for i in range(50_000)
    ]
    store = store_of(tmp_path, *records)
    read: list[int] = []
    texts = Sources.texts

    def counting(self: Sources, places: Any) -> Any:
        read.append(len(places))
        return texts(self, places)

    monkeypatch.setattr(Sources, "texts", counting)
    digest = store.digest("t1", Work())
    made = digest_text(digest)
    assert sum(read) <= 30
    assert len(made.text) <= DIGEST_CHARS
    assert sum(len(failure.spans) for failure in digest.failures) == 25_000
    told = [one.span_id for failure in digest.failures for one in failure.spans if one.span_id in made.text]
    assert 30 <= len(told) <= 60
    assert "ids of 24,965 failing spans" in made.text


def test_the_same_trace_gives_the_same_digest_in_another_index(tmp_path: Path) -> None:
    path = tmp_path / "world.jsonl"
    write_world(path)
    one, other = open_store(tmp_path / "a", path), open_store(tmp_path / "b", path)
    assert [text_of(one, each) for each in trace_ids(one)] == [text_of(other, each) for each in trace_ids(one)]


def test_hostile_names_and_half_characters_break_nothing(tmp_path: Path) -> None:
    nasty = b'"\\ud800 half"'
    record = span(
        "s1", kind="TOOL", error="E\u2028\x1b[31m", attributes={"tool.name": "n" * 5_000, "input.value": "HALF"}
    )
    store = store_of(tmp_path, line(record).replace(b'"HALF"', nasty), span("s" * 3_000, trace="t1", error="x"))
    for size in SIZES:
        text = text_of(store, "t1", size)
        assert len(text) <= size
        text.encode()


ANY_SPAN: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": st.text(max_size=300),
        "kind": st.sampled_from(["LLM", "TOOL", "AGENT", ""]),
        "error": st.text(max_size=800),
        "start_ms": st.integers(0, 9_999),
        "attributes": st.dictionaries(
            st.sampled_from(["tool.name", "input.value", "output.value", "agent.name", "task.id"]),
            st.text(max_size=3_000),
        ),
    }
)


@given(st.lists(ANY_SPAN, min_size=1, max_size=60), st.integers(1_000, DIGEST_CHARS))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_trace_makes_a_digest_too_long(
    tmp_path_factory: pytest.TempPathFactory, spans: list[dict[str, Any]], size: int
) -> None:
    store = store_of(tmp_path_factory.mktemp("any"), *(span(f"s{i:03}", **one) for i, one in enumerate(spans)))
    text = text_of(store, "t1", size)
    assert len(text) <= size
    text.encode()
    if size == DIGEST_CHARS:
        begun = failing(store, "t1")
        assert sum(span_id in text for span_id in begun) >= min(len(begun), 30)


@given(st.text(), st.integers(1, 200))
def test_an_excerpt_never_exceeds_its_limit(text: str, limit: int) -> None:
    assert len(excerpt(text, limit)) <= limit


# --- samples --------------------------------------------------------------------------------------------------------
def test_a_sample_has_some_of_every_kind_and_only_the_seed_changes_it(store: LocalStore) -> None:
    strata = store.strata(TraceFilters(), Work())
    assert sorted(each for stratum in strata for each in stratum.trace_ids) == trace_ids(store)
    chosen = sample(strata, len(strata))
    assert all(len(set(chosen) & set(stratum.trace_ids)) == 1 for stratum in strata)
    assert chosen == sample(strata, len(strata))
    assert chosen != sample(strata, len(strata), seed=1)
    everything = sample(strata, 100_000)
    assert sorted(everything) == trace_ids(store)


def test_a_sample_of_more_than_there_is_ends() -> None:
    strata = [Stratum("fail", "m", ("a", "b", "c")), Stratum("pass", None, ("d",))]
    assert sorted(sample(strata, 10)) == ["a", "b", "c", "d"]
    assert len(sample(strata, 2)) == 2
    assert sample([], 5) == []


def test_a_stratum_is_the_failure_that_begins_first(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("late", kind="TOOL", start_ms=9, error="disk full"),
        span("early", kind="TOOL", start_ms=1, error="timeout"),
        span("fine", trace="t2"),
    )
    strata = store.strata(TraceFilters(), Work())
    first = store.digest("t1", Work()).failures[0]
    assert [(one.failure_mode, one.trace_ids) for one in strata] == [(first.mode, ("t1",)), (None, ("t2",))]
    assert first.spans[0].span_id == "early"
