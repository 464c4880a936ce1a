"""Search over the payloads of many traces: nothing is missed, nothing counted twice, nothing lost between calls."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from halo_mcp.errors import Cancelled, InvalidCursor, SourceChanged
from halo_mcp.index import scan
from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroupKey, TraceCounts, Where
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.finding import finder
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import compile_pattern, pattern_matches_span
from halo_mcp.index.work import Work
from tests.builders import Record, append_lines, line, llm, open_store, span, store_of, write_lines

NASTY = 'ab xyqe"\\\n\té😀/{}[]:1,'
PATTERNS = [
    *(
        "a",
        "x",
        "ab",
        "abxyqe",
        "e1q",
        "(?i)AB",
        "a.b",
        "a|x",
        '"',
        r"\\",
        r"\n",
        "é",
        "😀",
        r"a\s",
        "[^a]b",
        "a*",
        "^a",
    ),
    *("b$", r"\bx\b", "} ", '"trace_id"', "STATUS_CODE_OK", "t1", "}", ".", r"\d+", "(a|b)x?y", "y q"),
]


class Rushed(Work):
    """Lets its user look at the clock so many times, then the time is over."""

    def __init__(self, checks: int) -> None:
        super().__init__(deadline_s=3_600)
        self._left = checks

    @property
    def expired(self) -> bool:
        self._left -= 1
        return self._left < 0


def search(
    store: LocalStore,
    pattern: str,
    *,
    literal: bool = False,
    group_by: MatchGroupKey | None = None,
    snippets: int = 200,
    after: Where | None = None,
    work: Work | None = None,
    **filters: Any,
) -> DatasetMatches:
    return store.search_dataset(
        TraceFilters(**filters),
        compile_pattern(pattern, literal=literal),
        group_by=group_by,
        max_groups=100,
        max_snippets=snippets,
        context_chars=20,
        after=after,
        work=work or Work(),
    )


def shown(found: DatasetMatches) -> list[tuple[str, str]]:
    return [(snippet.trace_id, snippet.match.span_id) for snippet in found.snippets]


def all_shown(store: LocalStore, pattern: str, page: int = 200, **rest: Any) -> list[tuple[str, str]]:
    """The spans of the snippets of all pages."""
    found = search(store, pattern, snippets=page, **rest)
    spans = shown(found)
    while found.following is not None:
        found = search(store, pattern, snippets=page, after=found.following, **rest)
        spans += shown(found)
    return spans


def expected(pattern: str, records: Sequence[Record | bytes], *, literal: bool = False) -> list[tuple[str, str]]:
    """(trace id, span id) of every span that matches, by looking at each of them."""
    compiled = compile_pattern(pattern, literal=literal)
    texts = [line(record) for record in records]
    parsed = [json.loads(text) for text in texts]
    return sorted(
        (record["trace_id"], record["span_id"])
        for text, record in zip(texts, parsed, strict=True)
        if pattern_matches_span(compiled, text, record)
    )


texts = st.text(st.sampled_from(NASTY), max_size=12)


@st.composite
def span_lines(draw: st.DrawFn) -> list[bytes]:
    """Lines of spans in a few traces; strings inside strings, in either spelling, some with blanks around."""
    lines: list[bytes] = []
    for number, text in enumerate(draw(st.lists(texts, min_size=1, max_size=8))):
        value = json.dumps({"inner": text}) if draw(st.booleans()) else text
        trace = draw(st.sampled_from(["t1", "t2", "t3"]))
        record = span(f"s{number}", trace=trace, attributes={"output.value": value})
        spelled = json.dumps(record, ensure_ascii=draw(st.booleans())).encode()
        lines.append(draw(st.sampled_from([b"", b" "])) + spelled + draw(st.sampled_from([b"", b"  "])))
    return lines


@settings(max_examples=40, deadline=None)
@given(lines=span_lines(), patterns=st.lists(st.sampled_from(PATTERNS), min_size=3, max_size=3), wanted=texts)
@example(
    lines=[b'{"trace_id":"t1","span_id":"s","name":"n","attributes":{}}  '],
    patterns=["} ", "}", "a"],
    wanted="{}",
)
def test_exactly_the_spans_that_match_are_found(lines: list[bytes], patterns: list[str], wanted: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = store_of(Path(directory), *lines)
        for pattern in patterns:
            assert sorted(all_shown(store, pattern)) == expected(pattern, lines), pattern
        if wanted:
            assert sorted(all_shown(store, wanted, literal=True)) == expected(wanted, lines, literal=True)
        store.close()


@given(
    hay=st.text(st.sampled_from("abxyq "), max_size=200),
    text=st.text(st.sampled_from("abxyq "), min_size=1, max_size=9),
    start=st.integers(0, 20),
    short=st.integers(0, 20),
)
def test_a_plain_text_is_found_where_it_stands_first(hay: str, text: str, start: int, short: int) -> None:
    view = hay.encode()
    end = max(start, len(view) - short)
    at = view.find(text.encode(), start, end)
    found = finder(compile_pattern(text, literal=True))(memoryview(view), start, end)
    assert found == (None if at < 0 else (at, at + len(text)))


def test_a_text_whose_rarest_part_is_everywhere_is_still_found() -> None:
    find = finder(compile_pattern("once STATUS_CODE_OK"))
    hay = b'"STATUS_CODE_OK",' * 500 + b"once STATUS_CODE_OK"
    assert find(memoryview(hay), 0, len(hay)) == (len(hay) - 19, len(hay))


@pytest.mark.parametrize("text", ['He said "no"', "first\nsecond", "C:\\temp\\new", "naïve 😀", 'two levels "deep"\n'])
def test_a_text_copied_from_a_view_is_found_however_it_was_escaped(tmp_path: Path, text: str) -> None:
    nested = json.dumps({"message": text})
    store = store_of(
        tmp_path,
        span("plain", trace="t1", attributes={"output.value": text}),
        span("nested", trace="t2", attributes={"output.value": nested}),
        json.dumps(span("ascii", trace="t3", attributes={"output.value": nested})).encode(),
        span("other", trace="t4", attributes={"output.value": text[:-1]}),
    )
    found = search(store, text, literal=True)
    assert sorted(shown(found)) == [("t1", "plain"), ("t2", "nested"), ("t3", "ascii")]
    assert {snippet.match.text for snippet in found.snippets} == {text}
    assert (found.matching_spans, found.matching.traces, found.complete) == (3, 3, True)


def test_filters_select_the_traces_that_are_searched(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("a", trace="t1", kind="TOOL", attributes={"tool.name": "geo", "output.value": "needle"}),
        span("b", trace="t1", attributes={"output.value": "needle"}),
        span("c", trace="t2", attributes={"output.value": "needle"}),
    )
    found = search(store, "needle", tool_names=["geo"])
    assert sorted(shown(found)) == [("t1", "a"), ("t1", "b")]
    assert (found.total_spans, found.selected.traces, found.matching_spans) == (2, 1, 2)
    assert search(store, "needle", regex_pattern="span_id.{1,5}c").matching_spans == 1
    none = search(store, "needle", tool_names=["nothing"], group_by="tool")
    assert (none.total_spans, none.matching_spans, none.complete, none.groups) == (0, 0, True, ())


def tool_span(span_id: str, parent: str, tool: str, **rest: Any) -> Record:
    attributes = {"tool.name": tool, "output.value": rest.pop("output", "needle")}
    return span(span_id, parent, kind="TOOL", attributes=attributes, **rest)


def outcomes_store(tmp_path: Path) -> LocalStore:
    def of(trace: str, outcome: str, *found: str) -> list[Record]:
        root = span("root", trace=trace, attributes={"task.outcome": outcome} if outcome else {})
        return [
            root,
            *(tool_span(f"{tool}{i}", "root", tool, trace=trace, name=f"call {tool}") for i, tool in enumerate(found)),
        ]

    return store_of(
        tmp_path,
        *of("t1", "fail", "geo", "geo", "web"),
        *of("t2", "fail", "geo"),
        *of("t3", "pass", "web"),
        *of("t4", "pass"),
        *of("t5", "", "geo"),
    )


def test_groups_count_matching_spans_and_their_traces_by_outcome(tmp_path: Path) -> None:
    store = outcomes_store(tmp_path)
    found = search(store, "needle", group_by="tool")
    assert [(group.value, group.spans, group.traces) for group in found.groups] == [
        ("geo", 4, TraceCounts(3, 2, 0)),
        ("web", 2, TraceCounts(2, 1, 1)),
    ]
    assert (found.matching, found.selected) == (TraceCounts(4, 2, 1), TraceCounts(5, 2, 2))

    def values(key: MatchGroupKey, pattern: str = "needle") -> list[tuple[str | None, int]]:
        return [(group.value, group.spans) for group in search(store, pattern, group_by=key).groups]

    assert values("trace") == [("t1", 3), ("t2", 1), ("t3", 1), ("t5", 1)]
    assert values("outcome") == [("fail", 4), ("pass", 1), ("unknown", 1)]
    assert values("span_name") == [("call geo", 4), ("call web", 2)]
    assert values("kind") == [("TOOL", 6)]
    assert values("tool", "span_id") == [(None, 5), ("geo", 4), ("web", 2)]
    assert values("model") == [(None, 6)]


def test_more_groups_than_asked_for_are_counted(tmp_path: Path) -> None:
    found = outcomes_store(tmp_path).search_dataset(
        TraceFilters(),
        compile_pattern("needle"),
        group_by="trace",
        max_groups=2,
        max_snippets=1,
        context_chars=0,
        after=None,
        work=Work(),
    )
    assert ([group.value for group in found.groups], found.group_count) == (["t1", "t2"], 4)


def test_snippets_come_from_where_a_text_begins_and_repeats_are_called_so(tmp_path: Path) -> None:
    history = json.dumps([{"role": "tool", "content": "needle"}])
    store = store_of(
        tmp_path,
        span("root", kind="AGENT", ms=100, attributes={"output.value": "needle"}),
        llm("again", "root", start_ms=30, ms=10, attributes={"llm.input_messages": history, "input.value": history}),
        llm("answer", "root", start_ms=50, ms=10, attributes={"llm.input_messages": history, "output.value": "needle"}),
        span(
            "tool",
            "root",
            kind="TOOL",
            start_ms=10,
            ms=5,
            attributes={"tool.name": "geo", "output.value": "needle needle"},
        ),
    )
    first = search(store, "needle")
    assert shown(first) == [("t1", "tool"), ("t1", "root")]
    assert first.following is not None
    second = search(store, "needle", after=first.following)
    assert shown(second) == [("t1", "again"), ("t1", "answer")]
    assert [snippet.repeated for snippet in (*first.snippets, *second.snippets)] == [False, False, True, False]
    assert [snippet.first_in_trace for snippet in first.snippets] == [True, False]
    assert (first.may_repeat, first.snippets[0].matches_in_span) == (2, 2)
    assert second.snippets[1].match.path == "attributes.output.value"
    assert second.following is None


def test_a_prompt_that_only_model_calls_have_is_no_repeat_where_it_is_first(tmp_path: Path) -> None:
    prompt = {"llm.input_messages": json.dumps([{"role": "user", "content": "needle"}])}
    store = store_of(tmp_path, llm("one", ms=1, attributes=prompt), llm("two", start_ms=5, attributes=prompt))
    found = search(store, "needle")
    assert [(s.match.span_id, s.repeated) for s in found.snippets] == [("one", False), ("two", True)]


def many(count: int = 23) -> list[Record]:
    """Trace i has i % 4 matching spans and one that does not match."""
    return [
        span(f"s{j}", trace=f"t{i:02d}", start_ms=i * 1_000 + j, attributes={"output.value": "needle" if j else "hay"})
        for i in range(count)
        for j in range(i % 4 + 1)
    ]


@pytest.mark.parametrize("page", [1, 2, 5, 200])
def test_pages_show_every_matching_span_once_and_two_per_trace_at_most(tmp_path: Path, page: int) -> None:
    store = store_of(tmp_path, *many())
    wanted = sorted((r["trace_id"], r["span_id"]) for r in many() if r["attributes"]["output.value"] == "needle")
    seen, after = list[tuple[str, str]](), None
    while True:
        found = search(store, "needle", snippets=page, after=after)
        traces = [trace_id for trace_id, _ in shown(found)]
        assert all(traces.count(trace_id) <= 2 for trace_id in traces)
        seen += shown(found)
        if found.following is None:
            break
        after = found.following
    assert sorted(seen) == wanted
    assert seen == all_shown(store, "needle")


def test_a_page_of_few_traces_is_spread_over_time(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span("s", trace=f"t{i:02d}", start_ms=i, name="needle") for i in range(32)))
    assert sorted(trace_id for trace_id, _ in shown(search(store, "needle", snippets=4))) == [
        "t00",
        "t08",
        "t16",
        "t24",
    ]


def test_a_second_page_reads_no_more_than_its_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, *many())
    first = search(store, "needle", snippets=3)

    def no_scan(*_: object, **__: object) -> None:
        raise AssertionError("scanned again")

    monkeypatch.setattr("halo_mcp.index.dataset_search.matching_spans", no_scan)
    assert len(search(store, "needle", snippets=3, after=first.following).snippets) == 3


# --- deadlines ---
@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block holds a span or two, so that small files take many steps."""
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 600)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("checks", [1, 3, 8])
def test_a_search_out_of_time_is_resumed_to_the_exact_end(tmp_path: Path, checks: int) -> None:
    store, whole = (
        store_of(tmp_path, *many()),
        search(store_of(tmp_path / "other", *many()), "needle", group_by="trace"),
    )
    store.info()
    found, steps = None, 0
    while found is None or not found.complete:
        before = 0 if found is None else found.searched_spans
        work = Rushed(checks + 2)
        found = search(store, "needle", group_by="trace", after=None if found is None else found.following, work=work)
        assert before < found.searched_spans <= found.total_spans
        assert (found.searched_bytes == found.total_bytes) == found.complete
        assert found.matching_spans <= found.searched_spans
        assert not found.restarted
        steps += 1
    assert steps > 2
    assert (found.matching_spans, found.matching, found.groups) == (whole.matching_spans, whole.matching, whole.groups)
    assert (shown(found), found.here.snippet) == (shown(whole), 0)


@pytest.mark.usefixtures("small_blocks")
def test_the_same_call_without_a_cursor_goes_on_as_well(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    first = search(store, "needle", work=Rushed(4))
    second = search(store, "needle", work=Rushed(4))
    assert first.searched_spans < second.searched_spans
    assert search(store, "needle").complete


@pytest.mark.usefixtures("small_blocks")
def test_progress_that_is_no_longer_known_is_said_to_be_lost(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    first = search(store, "needle", work=Rushed(12))
    assert first.following is not None
    append_lines(tmp_path / "traces.jsonl", span("late", trace="t-late", name="needle"))
    store.refresh(Work())
    again = search(store, "needle", after=first.following, work=Rushed(3))
    assert (again.restarted, again.complete) == (True, False)
    assert search(store, "needle", after=again.following).matching_spans == first.total_spans - 23 + 1


def test_a_page_of_other_data_is_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    first = search(store, "needle", snippets=3)
    append_lines(tmp_path / "traces.jsonl", span("late", trace="t-late", name="needle"))
    store.refresh(Work())
    assert first.following is not None
    with pytest.raises(InvalidCursor):
        search(store, "needle", after=Where(*_now(store, matching=first.matching_spans), 3))


def _now(store: LocalStore, matching: int) -> tuple[int, int]:
    return store.info().total_spans, matching


def test_a_cancelled_search_ends_at_once(tmp_path: Path) -> None:
    work = Work()
    store = store_of(tmp_path, *many())
    work.stop()
    with pytest.raises(Cancelled):
        search(store, "needle", work=work)


# --- changing sources ---
def test_a_trace_that_grew_is_searched_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("old", name="needle"), span("far", trace="t2", name="needle"))
    store = open_store(tmp_path, path)
    assert search(store, "needle").matching_spans == 2
    append_lines(path, span("new", "old", name="needle"))
    store.refresh(Work())
    found = search(store, "needle", group_by="trace")
    assert sorted(shown(found)) == [("t1", "new"), ("t1", "old"), ("t2", "far")]
    assert [(group.value, group.spans) for group in found.groups] == [("t1", 2), ("t2", 1)]


def test_several_sources_are_one_dataset(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", span("a", name="needle"), span("b", trace="t2"))
    rest = (span("c", "a", name="needle"), b"needle, but no span", span("d", trace="t3", name="needle"))
    second = write_lines(tmp_path / "b.jsonl", *rest)
    found = search(open_store(tmp_path, first, second), "needle")
    assert sorted(shown(found)) == [("t1", "a"), ("t1", "c"), ("t3", "d")]
    assert (found.total_spans, found.searched_spans) == (4, 4)


def test_a_source_that_changed_meanwhile_is_noticed(tmp_path: Path) -> None:
    store = store_of(tmp_path, span(name="needle"))
    write_lines(tmp_path / "traces.jsonl", span(name="noodle"))
    with pytest.raises(SourceChanged):
        search(store, "needle")
