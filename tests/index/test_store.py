"""The store's answers, against counts made from the same lines with nothing but a JSON parser."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from halo_mcp.errors import UnknownSpan, UnknownTrace
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.search import RAW_PATH
from halo_mcp.index.store import GroupKey, SearchResult, SortKey, TraceRow
from halo_mcp.index.work import Work
from tests.builders import Record, agent, line, llm, members, open_store, span, store_of, write_lines
from tests.index.conftest import Demo

NO_FILTERS = TraceFilters()


# --- pages ---
def _nano(row: TraceRow) -> int | None:
    return row.start_time_unix_nano


def _duration(row: TraceRow) -> float | None:
    if row.start_time_unix_nano is None or row.end_time_unix_nano is None:
        return None
    return row.end_time_unix_nano - row.start_time_unix_nano


SORT_VALUES: dict[SortKey, Callable[[TraceRow], float | None]] = {
    "start_time": _nano,
    "-start_time": lambda row: None if row.start_time_unix_nano is None else -row.start_time_unix_nano,
    "-duration_ms": lambda row: None if (duration := _duration(row)) is None else -duration,
    "-tokens": lambda row: -((row.input_tokens or 0) + (row.output_tokens or 0)),
    "-error_span_count": lambda row: -row.error_span_count,
    "-span_count": lambda row: -row.span_count,
    "-raw_jsonl_bytes": lambda row: -row.raw_bytes,
}


def pages(store: LocalStore, sort_by: SortKey, limit: int, filters: TraceFilters = NO_FILTERS) -> Iterator[TraceRow]:
    after: tuple[float, str] | None = None
    for _ in range(10_000):
        page = store.traces(filters, sort_by, limit, after, Work())
        assert len(page.traces) == len(page.positions) <= limit
        yield from page.traces
        if not page.more:
            return
        assert len(page.traces) == limit
        after = json.loads(json.dumps(page.positions[-1]))  # a cursor goes through JSON
        assert after is not None
        after = (after[0], after[1])
    raise AssertionError("paging never ends")


@pytest.fixture(scope="module")
def ties(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """Traces many of which share a start, a duration and everything else; some have no times."""
    records: list[Record] = []
    for number in range(40):
        times: Record = {"start_time": "", "end_time": None} if number % 7 == 0 else {}
        times |= {"end_time": ""} if number % 11 == 0 else {}
        usage = (number % 4, None) if number % 3 else None
        # Starts a nanosecond apart, which a float of today's epoch nanoseconds cannot tell.
        start = {"start_time": f"2026-03-02T09:00:00.00000000{number % 5}Z"}
        records.append(llm(trace=f"t{number:02}", tokens=usage, error="x" * (number % 2)) | start | times)
    return store_of(tmp_path_factory.mktemp("ties"), *records)


def test_every_sort_key_is_tested() -> None:
    assert set(SORT_VALUES) == set(get_args(SortKey))


@pytest.mark.parametrize("limit", [1, 7, 40])
@pytest.mark.parametrize("sort_by", SORT_VALUES)
def test_paging_visits_every_trace_once_and_in_order(ties: LocalStore, sort_by: SortKey, limit: int) -> None:
    rows = list(pages(ties, sort_by, limit))

    assert sorted(row.trace_id for row in rows) == [f"t{number:02}" for number in range(40)]
    value = SORT_VALUES[sort_by]
    keys = [(value(row) is None, value(row) or 0, row.trace_id) for row in rows]
    assert keys == sorted(keys)


@pytest.mark.parametrize("sort_by", SORT_VALUES)
def test_pages_of_a_filtered_selection_hold_only_it(demos: dict[str, Demo], sort_by: SortKey) -> None:
    filters = TraceFilters(has_errors=True)
    rows = list(pages(demos["both"].store, sort_by, 13, filters))
    assert len(rows) == len({row.trace_id for row in rows}) == sum(run.error_traces for run in demos["both"].runs)
    assert all(row.error_span_count for row in rows)


def test_an_empty_selection_is_an_empty_page(before: Demo) -> None:
    page = before.store.traces(TraceFilters(tool_names=["none"]), "start_time", 10, None, Work())
    assert (page.traces, page.positions, page.total, page.more) == ((), (), 0, False)


# --- counts ---
def _attribute(record: Record, *keys: str) -> Any:
    return next((record["attributes"][key] for key in keys if record["attributes"].get(key) not in (None, "")), None)


def _roots(spans: Iterable[Record]) -> Iterator[Record]:
    return (record for record in spans if not record["parent_span_id"])


def _is_error(record: Record) -> bool:
    return record["status"]["code"] == "STATUS_CODE_ERROR"


def _agents(spans: list[Record]) -> set[str]:
    by_id = {record["span_id"]: record for record in spans}
    found: set[str] = set()
    for record in spans:
        at: Record | None = record
        while at is not None:
            if name := _attribute(at, "inference.agent_name", "agent.name"):
                found.add(name)
                break
            at = by_id.get(at["parent_span_id"])
    return found


def _started(spans: list[Record]) -> str:
    return min(record["start_time"] for record in spans)


GROUPS: dict[GroupKey, Callable[[list[Record]], set[Any]]] = {
    "outcome": lambda spans: {_attribute(root, "task.outcome") for root in _roots(spans)},
    "has_errors": lambda spans: {str(any(map(_is_error, spans))).lower()},
    "service_name": lambda spans: {record["resource"]["attributes"]["service.name"] for record in spans},
    "agent_name": _agents,
    "model_name": lambda spans: {_attribute(record, "inference.llm.model_name") for record in spans} - {None},
    "tool_name": lambda spans: {_attribute(record, "tool.name") for record in spans} - {None},
    "span_name": lambda spans: {record["name"] for record in spans},
    "task_key": lambda spans: {_attribute(root, "task.id") for root in _roots(spans)},
    "run_id": lambda spans: {_attribute(root, "run.id") for root in _roots(spans)},
    "session_id": lambda spans: {next(s for record in spans if (s := _attribute(record, "inference.session_id")))},
    "project_id": lambda spans: {_attribute(record, "inference.project_id") for record in spans},
    "day": lambda spans: {_started(spans)[:10]},
    "hour": lambda spans: {_started(spans)[:13] + ":00Z"},
}


def test_every_group_key_is_tested() -> None:
    assert set(GROUPS) == set(get_args(GroupKey))


@pytest.mark.parametrize("group_by", GROUPS)
def test_counts_per_group_equal_a_count_by_hand(demo: Demo, group_by: GroupKey) -> None:
    expected = Counter(value for spans in demo.traces.values() for value in GROUPS[group_by](spans))
    counts = demo.store.count(NO_FILTERS, group_by, Work())
    assert {count.value: count.traces for count in counts} == dict(expected)
    order = [(-count.traces, str(count.value)) for count in counts]
    assert order == sorted(order)


def test_a_count_of_everything_is_one_number(demo: Demo) -> None:
    (count,) = demo.store.count(NO_FILTERS, None, Work())
    assert (count.value, count.traces) == (None, len(demo.traces))


@pytest.mark.parametrize("group_by", ["session_id", "task_key", "run_id", "project_id", "day", "hour"])
def test_traces_without_the_grouped_property_are_counted_as_none(ties: LocalStore, group_by: GroupKey) -> None:
    counts = {count.value: count.traces for count in ties.count(NO_FILTERS, group_by, Work())}
    assert sum(counts.values()) == 40
    assert counts[None] == (6 if group_by in ("day", "hour") else 40)


# --- overview ---
def test_the_overview_of_the_sample_dataset_is_its_truth(demo: Demo) -> None:
    overview = demo.store.overview(NO_FILTERS, Work())
    runs, spans = demo.runs, [record for records in demo.traces.values() for record in records]

    assert overview.total_traces == sum(run.traces for run in runs)
    assert overview.total_spans == sum(run.spans for run in runs)
    assert overview.input_tokens == sum(run.input_tokens for run in runs)
    assert overview.output_tokens == sum(run.output_tokens for run in runs)
    assert overview.error_traces == sum(run.error_traces for run in runs)
    assert overview.error_spans == sum(run.error_spans for run in runs)
    assert overview.original_errors == sum(run.original_error_spans for run in runs)
    assert overview.tool_error_spans == sum(tool.failures for run in runs for tool in run.tools.values())
    assert overview.outcomes == {
        "pass": sum(run.pass_traces for run in runs),
        "fail": sum(run.fail_traces for run in runs),
        "unknown": 0,
    }
    assert {(run_id, outcome): count for run_id, outcome, count in overview.runs} == {
        (run.run_id, outcome): count
        for run in runs
        for outcome, count in (("pass", run.pass_traces), ("fail", run.fail_traces))
    }
    assert overview.task_count == len({_attribute(root, "task.id") for root in _roots(spans)})
    assert overview.raw_bytes == sum(map(len, demo.lines))
    assert (overview.missing_parents, overview.other_projects) == (0, 0)
    assert {kind.name: kind.spans for kind in overview.kinds} == Counter(
        record["attributes"]["inference.observation_kind"] for record in spans
    )
    assert sum(kind.input_tokens for kind in overview.kinds if kind.name == "LLM") == overview.input_tokens
    assert sum(model.input_tokens for model in overview.models) == overview.input_tokens
    assert sum(agent.output_tokens for agent in overview.agents) == overview.output_tokens
    assert sum(model.spans for model in overview.models) == sum(run.llm_spans for run in runs)
    assert overview.coverage.llm_spans == sum(run.llm_spans for run in runs)
    assert (overview.coverage.llm_without_model, overview.coverage.llm_without_tokens) == (0, 0)
    assert (overview.coverage.without_kind, overview.coverage.without_start_time) == (0, 0)


def test_tool_calls_and_failures_of_the_sample_dataset_are_its_truth(demo: Demo) -> None:
    overview = demo.store.overview(NO_FILTERS, Work())
    calls: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for run in demo.runs:
        for name, tool in run.tools.items():
            calls[name] += tool.calls
            failures[name] += tool.failures
    assert {tool.name: (tool.calls, tool.failures) for tool in overview.tools} == {
        name: (calls[name], failures[name]) for name in calls
    }
    soft: Counter[str] = Counter()
    for run in demo.runs:
        for mode in run.failure_modes.values():
            soft[mode.tool_name] += mode.spans if mode.status == "OK" and mode.key != "search_loop" else 0
    assert {tool.name: tool.soft_failures for tool in overview.tools} == {name: soft[name] for name in calls}
    order = [(-tool.failures - tool.soft_failures, -tool.calls, tool.name) for tool in overview.tools]
    assert order == sorted(order)
    for tool in overview.tools:
        assert (tool.top_error is None) == (tool.failures + tool.soft_failures == 0)
        assert tool.top_error_count <= tool.failures + tool.soft_failures


def test_exceptions_and_errors_of_the_sample_dataset_are_its_truth(demo: Demo) -> None:
    overview = demo.store.overview(NO_FILTERS, Work())
    exceptions: Counter[str] = Counter()
    hard: Counter[tuple[str, str]] = Counter()
    for run in demo.runs:
        exceptions.update(run.exception_types)
        hard.update(
            {(m.span_name, k): m.spans for k, m in run.failure_modes.items() if m.status == "ERROR" and m.spans}
        )
    assert {kind.name: kind.spans for kind in overview.exception_types} == dict(exceptions)
    found = [mode for mode in overview.failures.modes if mode.is_hard]
    assert sum(mode.spans for mode in found) == sum(hard.values()) == overview.original_errors
    for mode in found:
        record = next(r for r in demo.traces[mode.trace_id] if r["span_id"] == mode.span_id)
        assert _is_error(record)
        assert record["name"] == mode.span_name
        assert record["status"]["message"] in (mode.text or "")
        assert 1 <= len(mode.example_trace_ids) <= mode.traces <= mode.spans
        assert set(mode.example_trace_ids) <= demo.traces.keys()


def test_sample_ids_are_spread_over_time_and_are_ids_of_traces(demo: Demo) -> None:
    samples = demo.store.overview(NO_FILTERS, Work()).sample_trace_ids
    in_time = sorted(demo.traces, key=lambda trace_id: (_started(demo.traces[trace_id]), trace_id))
    positions = [in_time.index(trace_id) for trace_id in samples]
    assert len(samples) == 20
    assert positions == sorted(set(positions))
    assert (positions[0], positions[-1]) == (0, len(in_time) - 1)
    assert max(b - a for a, b in pairwise(positions)) <= len(in_time) / 19 + 1


def test_an_overview_of_a_selection_is_the_overview_of_its_traces_alone(before: Demo, tmp_path: Path) -> None:
    filters = TraceFilters(tool_names=["refund"], has_errors=True)
    chosen = {row.trace_id for row in pages(before.store, "start_time", 500, filters)}
    assert 0 < len(chosen) < len(before.traces)
    records = [text for text in before.lines if json.loads(text)["trace_id"] in chosen]
    alone = open_store(tmp_path, write_lines(tmp_path / "chosen.jsonl", *records))
    assert before.store.overview(filters, Work()) == alone.overview(NO_FILTERS, Work())


def test_an_overview_of_nothing_is_zero_and_not_an_error(before: Demo) -> None:
    overview = before.store.overview(TraceFilters(trace_ids=["none"]), Work())
    assert (overview.total_traces, overview.total_spans, overview.input_tokens) == (0, 0, 0)
    assert (overview.start_time_unix_nano, overview.sample_trace_ids, overview.failures.modes) == (None, (), ())


def test_error_texts_that_differ_in_numbers_and_ids_are_one_group(tmp_path: Path) -> None:
    texts = ["got 105 rows", "got 7 rows", "id 4bf92f3577b34da6 gone", "id 00f067aa0ba902b7 gone", "other"]
    store = store_of(tmp_path, *(span(f"s{i}", trace=f"t{i}", error=text) for i, text in enumerate(texts)))
    overview = store.overview(NO_FILTERS, Work())
    modes = sorted(((mode.spans, mode.text) for mode in overview.failures.modes), key=lambda mode: str(mode[1]))
    assert modes == [(2, texts[0]), (2, texts[2]), (1, "other")]


# --- spans and payloads ---
def test_every_trace_of_the_sample_dataset_can_be_read_back(before: Demo) -> None:
    for trace_id, records in before.traces.items():
        rows = before.store.spans(trace_id)
        assert Counter(row.span_id for row in rows) == Counter(record["span_id"] for record in records)
        starts = [row.start_time_unix_nano or 0 for row in rows]
        assert starts == sorted(starts)
    for trace_id in list(before.traces)[::20]:
        payloads = before.store.payloads(trace_id)
        assert [payload.span_id for payload in payloads] == [r["span_id"] for r in before.traces[trace_id]]
        for payload, record in zip(payloads, before.traces[trace_id], strict=True):
            assert payload.attributes == record["attributes"]
            assert payload.status_message == record["status"]["message"]


def test_a_trace_row_adds_up_to_its_spans(before: Demo) -> None:
    for row in pages(before.store, "start_time", 500):
        spans = before.store.spans(row.trace_id)
        assert row.span_count == len(spans)
        assert row.raw_bytes == sum(item.raw_bytes for item in spans)
        assert row.error_span_count == sum(item.status_code == "ERROR" for item in spans)
        assert row.original_error_count == sum(item.is_original_error for item in spans)
        assert row.agent_names == tuple(sorted({item.agent_name for item in spans if item.agent_name}))
        assert row.start_time_unix_nano == min(item.start_time_unix_nano or 0 for item in spans)
        assert row == before.store.trace(row.trace_id)


def test_chosen_payloads_come_in_the_order_they_were_written_and_unknown_ids_are_left_out(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}") for i in range(5)), span("00F067AA0BA902B7"))
    assert [p.span_id for p in store.payloads("t1", ["s3", "nothing", "s1", "s3"])] == ["s1", "s3"]
    assert [p.span_id for p in store.payloads("t1", [" 00f067aa0ba902b7 "])] == ["00f067aa0ba902b7"]
    with pytest.raises(UnknownSpan, match="Trace 't1' has no span nothing, also nothing"):
        store.payloads("t1", ["nothing", "also nothing"])


@pytest.mark.parametrize("method", ["trace", "spans", "payloads"])
def test_an_unknown_trace_is_refused_with_ids_that_start_alike(tmp_path: Path, method: str) -> None:
    store = store_of(tmp_path, span(trace="abcdefgh-1"), span(trace="abcdefgh-2"), span(trace="zzz"))
    with pytest.raises(UnknownTrace) as refused:
        getattr(store, method)("abcdefgh-12")
    assert refused.value.similar == ["abcdefgh-1", "abcdefgh-2"]
    assert "query_traces" in str(refused.value)


def test_a_payload_keeps_what_the_index_does_not_know(tmp_path: Path) -> None:
    event = {"name": "log", "time": "2026-03-02T09:00:00Z", "attributes": {"a": [1, None]}}
    record = span("s1", events=[event], links=[{"trace_id": "x"}], later={"a": 1}, attributes={"own": {"b": [None]}})
    (payload,) = store_of(tmp_path, record).payloads("t1")
    assert payload.extra == {"later": {"a": 1}}
    assert payload.attributes == {"own": {"b": [None]}}
    assert payload.links == ({"trace_id": "x"},)
    assert (payload.events[0].name, payload.events[0].attributes) == ("log", {"a": [1, None]})
    assert payload.raw_bytes == len(line(record))


def test_a_large_trace_is_read_back_whole(tmp_path: Path) -> None:
    text = "é" * 3_000
    store = store_of(tmp_path, *(span(f"s{i}", trace=f"t{i % 2}", attributes={"text": text}) for i in range(4_000)))
    payloads = store.payloads("t1")
    assert [payload.span_id for payload in payloads] == [f"s{i}" for i in range(1, 4_000, 2)]
    assert {payload.attributes["text"] for payload in payloads} == {text}


# --- search ---
def search(
    store: LocalStore, pattern: str, *span_ids: str, trace: str = "t1", context: int = 20, most: int = 1_000
) -> SearchResult:
    compiled = compile_pattern(pattern)
    return store.search(trace, compiled, span_ids, context_chars=context, max_matches=most, work=Work())


def _count(regex: re.Pattern[str], value: Any, depth: int = 3) -> int:
    """Matches in a JSON value: in its strings and numbers; in JSON inside a string, rather than in that string."""
    if isinstance(value, dict | list):
        return sum(_count(regex, member, depth) for member in members(value))
    if value is None:
        return 0
    inside = 0
    if isinstance(value, str) and depth > 1 and value[:1] in ("{", "["):
        try:
            inside = _count(regex, json.loads(value), depth - 1)
        except ValueError:
            pass  # it only looks like JSON
    return inside or len(regex.findall(value if isinstance(value, str) else json.dumps(value)))


@pytest.mark.parametrize("pattern", ["orders?", "[0-9]{3,}", "(?i)error", "limit", "the", "é|ü|—"])
def test_search_totals_equal_a_count_by_hand(before: Demo, pattern: str) -> None:
    regex = re.compile(pattern)
    for trace_id in list(before.traces)[::40]:
        expected = 0
        for record in before.traces[trace_id]:
            flat = [key for key in record["attributes"] if re.match(r"llm\.\w+put_messages\.", key)]
            once = {key: value for key, value in record["attributes"].items() if key not in flat}
            expected += _count(regex, {**record, "attributes": once}) or len(regex.findall(line(record).decode()))
        result = search(before.store, pattern, trace=trace_id)
        assert result.total == expected, trace_id
        assert result.spans_searched == result.spans_total == len(before.traces[trace_id])


def test_matches_say_where_they_are_and_quote_their_surroundings(tmp_path: Path) -> None:
    text = "0123456789 needle 0123456789"
    store = store_of(tmp_path, span("a"), span("b", "a", name="look", error="x", attributes={"output.value": text}))
    result = search(store, "needle", context=5)
    (match,) = result.matches
    assert (result.total, result.spans_matched, result.spans_searched) == (1, 1, 2)
    assert (match.span_id, match.span_index, match.span_name, match.parent_span_id) == ("b", 1, "look", "a")
    assert (match.path, match.text, match.context) == ("attributes.output.value", "needle", "6789 needle 0123")
    assert text[match.start : match.end] == "needle"
    assert search(store, "needle", context=0).matches[0].context == "needle"
    assert search(store, "needle", context=10_000).matches[0].context == text


def test_a_search_can_be_restricted_to_spans(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}", attributes={"output.value": "needle needle"}) for i in range(4)))
    assert search(store, "needle").total == 8
    result = search(store, "needle", "s3", "gone", "s1")
    assert (result.total, result.spans_total, result.unknown_span_ids) == (4, 2, ("gone",))
    assert [(match.span_id, match.span_index) for match in result.matches[::2]] == [("s1", 1), ("s3", 3)]
    with pytest.raises(UnknownSpan):
        search(store, "needle", "gone")


def test_a_total_is_exact_beyond_the_shown_matches(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}", attributes={"output.value": "x " * 50}) for i in range(4)))
    result = search(store, "x ", most=7)
    assert (len(result.matches), result.total, result.spans_matched) == (7, 200, 4)
    assert len(search(store, "x ", most=0).matches) == 0


def test_messages_kept_as_json_and_flattened_are_counted_once(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "user", "content": "a needle"}, {"role": "user", "content": "needle"}])
    flat = {
        "llm.input_messages.0.message.content": "a needle",
        "llm.input_messages.1.message.content": "needle",
    }
    both = span("both", attributes={"llm.input_messages": messages, **flat})
    store = store_of(
        tmp_path, both, span("flat", attributes=flat), span("json", attributes={"llm.input_messages": messages})
    )
    for span_id in ("both", "flat", "json"):
        assert search(store, "needle", span_id).total == 2, span_id
    assert [m.path for m in search(store, "needle", "both").matches] == [
        "attributes.llm.input_messages>[0].content",
        "attributes.llm.input_messages>[1].content",
    ]


def test_a_key_is_found_in_the_raw_json(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s", attributes={"tool.name": "search"}))
    (match,) = search(store, '"tool.name":"search"').matches
    assert match.path == RAW_PATH
    assert match.text == '"tool.name":"search"'


def test_text_is_found_as_a_reader_sees_it(tmp_path: Path) -> None:
    inside = json.dumps({"message": 'He said "no"\nand left', "code": 404})
    store = store_of(tmp_path, span("s", attributes={"output.value": inside}))
    (match,) = search(store, 'said "no"\\nand').matches
    assert (match.path, match.text) == ("attributes.output.value>message", 'said "no"\nand')
    assert search(store, "^404$").matches[0].path == "attributes.output.value>code"


def test_text_in_json_inside_json_is_counted_once(tmp_path: Path) -> None:
    arguments = json.dumps({"query": "a needle", "limit": 150})
    messages = json.dumps([{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}])
    store = store_of(tmp_path, span("s", attributes={"llm.output_messages": messages}))
    (match,) = search(store, "needle").matches
    assert match.path == "attributes.llm.output_messages>[0].tool_calls[0].function.arguments>query"
    assert search(store, "150").total == 1
    assert search(store, '"limit": 150').total == 1


def test_an_empty_match_is_no_match(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s"))
    assert search(store, "q*").total == 0


def test_a_search_out_of_time_tells_how_far_it_came(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}") for i in range(5)))
    result = store.search("t1", compile_pattern("step"), (), context_chars=10, max_matches=5, work=Work(deadline_s=0))
    assert result.incomplete
    assert (result.spans_searched, result.spans_total) == (0, 5)


# --- what is loaded ---
def test_the_store_tells_what_it_holds(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", span("s1"), agent("a", trace="t2"))
    second = write_lines(tmp_path / "b.jsonl", b"bad", span("s2"))
    info = open_store(tmp_path, first, second).info()
    assert (info.total_traces, info.total_spans) == (2, 3)
    assert [source.name for source in info.sources] == [str(first), str(second)]
    assert [source.size_bytes for source in info.sources] == [first.stat().st_size, second.stat().st_size]
    assert [source.report.lines_skipped for source in info.sources] == [0, 1]
    assert Path(info.index_location).parent == tmp_path / "index"


def test_a_store_opens_at_the_first_question(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    store = LocalStore("data", [str(path)], tmp_path / "index")
    assert not (tmp_path / "index").exists()
    assert store.trace("t1").span_count == 1
    store.close()
    store.close()
    assert store.trace("t1").span_count == 1
