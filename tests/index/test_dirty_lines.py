"""Bad lines never stop an index: good spans are found exactly where they stand, the rest is counted and named."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mcp.errors import NotTraces, UnknownTrace
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.ingest import BULK_LINE_BYTES
from halo_mcp.index.local import LocalStore
from halo_mcp.index.segments import PROBLEMS_KEPT
from halo_mcp.index.span import Span
from halo_mcp.index.work import Work
from tests.builders import (
    Record,
    append_lines,
    line,
    open_store,
    places,
    report_of,
    span,
    store_of,
    trace_ids,
    write_lines,
)


@dataclass(frozen=True)
class Line:
    """One line of a dirty file: its bytes, and the spans in it as (position, length, span id)."""

    text: bytes
    spans: tuple[tuple[int, int, str], ...] = ()
    problem: bool = False
    """Something in it was skipped."""


ODD_PARTS: list[Record] = [
    {},
    {"status": None},
    {"status": "OK"},
    {"status": 2},
    {"status": {"code": 1, "message": None}},
    {"status": {"code": {"nested": [None]}, "message": ["x"]}},
    {"status": []},
    {"attributes": None},
    {"attributes": []},
    {"attributes": ["a", {"b": None}]},
    {"attributes": "text"},
    {"attributes": 7},
    {"attributes": {"inference.llm.input_tokens": {"a": None}, "tool.name": [1, 2], "llm.model_name": True}},
    {"attributes": {"otel.events": "x"}},
    {"attributes": {"otel.events": [None, 3, {"name": "exception", "attributes": None}]}},
    {"attributes": {"": {"": {"": None}}, "\u0000": "\u0000", 'é\n"\\': "\u2028"}},
    {"events": "x"},
    {"events": {}},
    {"events": [1, "x", None, []]},
    {"events": [{"name": "exception", "attributes": []}, {"name": None}]},
    {"events": [{"name": "exception", "attributes": {"exception.type": 1, "exception.message": None}}]},
    {"resource": None},
    {"resource": "host"},
    {"resource": {"attributes": None}},
    {"resource": {"attributes": [1]}},
    {"resource": {"attributes": {"service.name": {"a": 1}}}},
    {"scope": 1, "links": "x", "extra": {"deep": [None, {}]}},
    {"name": None},
    {"name": ["a"]},
    {"kind": 3},
    {"start_time": 1772442000, "end_time": None},
    {"start_time": 10**400, "end_time": {"a": 1}},
    {"start_time": -1.5e300, "end_time": []},
    {"parent_span_id": None},
    {"parent_span_id": 5},
    {"parent_span_id": ["x"]},
    {"attributes": {"inference.llm.input_tokens": 10**400, "inference.llm.output_tokens": -1e300}},
    {"large": -1e308, "small": 5e-324},
]


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _spelled(kind: str, text: bytes, cut: int) -> Line:
    """One kind of dirt around the good span ``text``."""
    span_id = normalize_id(json.loads(text)["span_id"])
    whole = (0, len(text), span_id)
    broken = text[: 1 + cut % (len(text) - 1)]
    other = span_id.replace("s", "u")
    second = text.replace(span_id.encode(), other.encode(), 1)
    match kind:
        case "cut":
            return Line(broken, problem=True)
        case "glued pair":
            return Line(text + second, ((0, len(text), span_id), (len(text), len(text), other)))
        case "glued with spaces":
            return Line(text + b"  \t" + second, ((0, len(text), span_id), (len(text) + 3, len(text), other)))
        case "glued cut and good":
            return Line(broken + second, ((len(broken), len(text), other),), problem=True)
        case "good and cut":
            return Line(text + broken, ((0, len(text), span_id),), problem=True)
        case "junk before":
            return Line(b"2026-03-02 INFO " + text, ((16, len(text), span_id),), problem=True)
        case "junk after":
            return Line(text + b" done", ((0, len(text), span_id),), problem=True)
        case "comma after":
            return Line(text + b",", ((0, len(text), span_id),), problem=True)
        case "CRLF":
            return Line(text + b"\r", (whole,))
        case "indented":
            return Line(b" \t " + text + b"  ", ((3, len(text), span_id),))
        case "BOM":
            return Line(b"\xef\xbb\xbf" + text, ((3, len(text), span_id),))
        case "invalid UTF-8":
            bad = text[:-1] + b',"bad":"\xff\xfe\xc3(\xed\xa0\x80"}'
            return Line(bad, ((0, len(bad), span_id),))
        case "NaN":
            bad = text[:-1] + b',"bad":[NaN,Infinity,-Infinity]}'
            return Line(bad, ((0, len(bad), span_id),))
        case "control characters":
            bad = text[:-1] + b',"bad":"tab\tbell\x07escape\x1b[31m"}'
            return Line(bad, ((0, len(bad), span_id),))
        case "NUL in a string":
            bad = text[:-1] + b',"bad":"a\x00b"}'
            return Line(bad, ((0, len(bad), span_id),))
        case "surrogates":
            bad = text[:-1] + rb',"bad":"\ud800 \udc00\ud83d \ud83d\ude00"}'
            return Line(bad, ((0, len(bad), span_id),))
        case "nested nulls":
            bad = text[:-1] + b',"bad":{"a":{"b":null,"c":[null,[null]]}}}'
            return Line(bad, ((0, len(bad), span_id),))
        case "deep":
            bad = text[:-1] + b',"bad":' + _deep(300 + cut % 5000) + b"}"
            return Line(bad, ((0, len(bad), span_id),))
        case "huge number":
            bad = text[:-1] + b',"bad":-' + b"9" * (400 + cut % 9000) + b"}"
            return Line(bad, ((0, len(bad), span_id),))
        case "NUL block":
            return Line(b"\x00" * (1 + cut % 5000), problem=True)
        case "blank":
            return Line(b"")
        case "whitespace":
            return Line(b" \t\r"[: 1 + cut % 3])
        case "array":
            return Line(b"[" + text + b"]", problem=True)
        case "scalar":
            return Line((b"1", b"-0.5e9", b'"text"', b"null", b"true", b"1e999")[cut % 6], problem=True)
        case "other object":
            objects = (b"{}", b'{"a":1}', b'{"trace_id":"x"}', b'{"span_id":"x","trace_id":""}', b'{"trace_id":null}')
            return Line(objects[cut % 5], problem=True)
        case "garbage":
            return Line(
                random.Random(cut).randbytes(1 + cut % 300).replace(b"\n", b"").replace(b"{", b"") + b"\x80",
                problem=True,
            )
        case _:
            return Line(text, (whole,))


KINDS = (
    *("good", "good", "good", "odd parts", "odd parts", "odd ids"),
    *("cut", "glued pair", "glued with spaces", "glued cut and good", "good and cut"),
    *("junk before", "junk after", "comma after", "CRLF", "indented", "BOM", "invalid UTF-8", "NaN"),
    *("control characters", "NUL in a string", "surrogates", "nested nulls", "deep", "huge number", "NUL block"),
    *("blank", "whitespace", "array", "scalar", "other object", "garbage"),
)


@st.composite
def dirty_files(draw: st.DrawFn) -> list[Line]:
    lines: list[Line] = []
    numbers = count()
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=40)):
        number = next(numbers)
        fields: Record = draw(st.sampled_from(ODD_PARTS)) if kind == "odd parts" else {}
        record = span(f"s{number}", trace=f"t{number % 3}") | fields
        if kind == "odd ids":
            odd: list[Any] = [
                10_000 + number,
                f"  s{number}",
                f"s{number}\n",
                f"é{number}",
                [number, "s"],
                {"s": number},
            ]
            record["span_id"] = draw(st.sampled_from(odd))
        text = json.dumps(record, ensure_ascii=draw(st.booleans()), separators=(",", ":")).encode()
        lines.append(_spelled(kind, text, draw(st.integers(0, 100_000))))
    return lines


def _expected(lines: Sequence[Line]) -> tuple[bytes, list[tuple[str, bytes]], list[tuple[int, int]]]:
    """The file, each (span id, its text) in order, and (line number, byte offset) of each line with a problem."""
    content, spans, problems = bytearray(), list[tuple[str, bytes]](), list[tuple[int, int]]()
    for number, item in enumerate(lines, 1):
        spans += [(span_id, item.text[at : at + length].strip()) for at, length, span_id in item.spans]
        if item.problem:
            problems.append((number, len(content)))
        content += item.text + b"\n"
    return bytes(content), spans, problems


@given(lines=dirty_files(), tail=st.sampled_from((b"", b"", b'{"trace_id":"t0","span_i', b"\x00", b"text")))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_good_span_is_found_where_it_stands_and_the_report_adds_up(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Line], tail: bytes
) -> None:
    directory = tmp_path_factory.mktemp("dirty")
    content, spans, problems = _expected([Line(line(span("first", trace="t0"))), *lines])
    spans.insert(0, ("first", line(span("first", trace="t0"))))
    path = directory / "traces.jsonl"
    path.write_bytes(content + tail)

    store = open_store(directory, path)

    assert [(span_id, place.read().strip()) for span_id, place in places(store)] == [
        (span_id, text) for span_id, text in spans
    ]
    report = report_of(store)
    assert report.lines_read == sum(1 for item in [Line(b"first"), *lines] if item.text.strip())
    assert report.pending_bytes == len(tail)
    assert report.spans_indexed == len(spans) == store.info().total_spans
    assert report.lines_skipped == sum(1 for item in lines if item.problem and not item.spans)
    assert [(problem.line_number, problem.byte_offset) for problem in report.problems] == problems[:PROBLEMS_KEPT]
    assert sum(report.reasons.values()) == len(problems)
    read_back = [payload.span_id for trace_id in ("t0", "t1", "t2") for payload in payloads_of(store, trace_id)]
    assert sorted(read_back) == sorted(span_id for span_id, _ in spans)
    store.close()


def payloads_of(store: LocalStore, trace_id: str) -> list[Span]:
    try:
        return store.payloads(trace_id)
    except UnknownTrace:
        return []


@pytest.mark.parametrize(
    "span_id, indexed",
    [
        (b"7", "7"),
        (b"340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
        (b"-0", "-0"),
        (b"1.50", "1.50"),
        (b"true", "true"),
        (b"[1, 2]", "[1,2]"),
        (b'{"a": 1}', '{"a":1}'),
        (rb'"\u00e9\/\u0041"', "é/A"),
        (rb'"\ud83d\ude00"', "😀"),
        (b'"x y\\tz"', "x y\tz"),
    ],
)
def test_a_span_with_an_odd_id_can_be_read_back(tmp_path: Path, span_id: bytes, indexed: str) -> None:
    text = line(span("PLACE")).replace(b'"PLACE"', span_id)
    store = store_of(tmp_path, text, text.replace(b'"t1"', span_id))

    for trace_id in ("t1", *(row for row in trace_ids(store) if row != "t1")):
        (row,) = store.spans(trace_id)
        (payload,) = store.payloads(trace_id)
        assert payload.span_id == row.span_id
        assert (payload.trace_id, row.trace_id) == (trace_id, trace_id)
    if indexed not in ("-0", "1.50", "340282366920938463463374607431768211455"):
        assert store.spans("t1")[0].span_id == indexed


def test_a_refused_line_may_have_an_id_that_no_json_writer_takes(tmp_path: Path) -> None:
    ids = (b"1" * 30, rb'["\ud800"]', b"NaN", b"[NaN]", b"1" * 5_000)
    store = store_of(
        tmp_path,
        span("good"),
        *(line(span("PLACE", bad="x")).replace(b'"PLACE"', i).replace(b'"x"', b"NaN") for i in ids),
    )
    rows = store.spans("t1")
    assert len(rows) == len(ids) + 1
    assert sorted(payload.span_id for payload in store.payloads("t1")) == sorted(row.span_id for row in rows)


def test_of_a_repeated_key_index_and_payload_take_the_same_value(tmp_path: Path) -> None:
    text = line(span("s1"))
    doubled = text[:-1] + b',"trace_id":"t2","span_id":"s2","name":"second"}'
    store = store_of(tmp_path, doubled)

    (trace_id,) = trace_ids(store)
    (row,) = store.spans(trace_id)
    (payload,) = store.payloads(trace_id)
    assert (row.trace_id, row.span_id, row.name) == (payload.trace_id, payload.span_id, payload.name)


def test_a_value_of_20_mb_is_indexed_searched_and_read_back(tmp_path: Path) -> None:
    giant = span("giant", attributes={"output.value": "y" * 20_000_000 + "needle"})
    store = store_of(tmp_path, span("before"), giant, span("after"))

    assert [span_id for span_id, _ in places(store)] == ["before", "giant", "after"]
    assert all(place.read() == line(record) for (_, place), record in zip(
        places(store), (span("before"), giant, span("after")), strict=True
    ))  # fmt: skip
    assert report_of(store).lines_skipped == 0
    assert trace_ids(store, regex_pattern="yneedle") == ["t1"]
    (payload,) = store.payloads("t1", ["giant"])
    assert len(payload.attributes["output.value"]) == 20_000_006


def test_a_line_too_long_for_the_bulk_reader_stands_between_normal_ones(tmp_path: Path) -> None:
    long = span(
        "long", kind="TOOL", trace="t2", attributes={"tool.name": "fetch", "padding": "é" * (BULK_LINE_BYTES // 2)}
    )
    records = [*(span(f"a{i}") for i in range(50)), long, *(span(f"b{i}") for i in range(50))]
    assert len(line(long)) > BULK_LINE_BYTES
    store = store_of(tmp_path, *records)

    assert [(span_id, place.read()) for span_id, place in places(store)] == [
        (record["span_id"], line(record)) for record in records
    ]
    assert store.spans("t2")[0].tool_name == "fetch"
    assert report_of(store).lines_read == report_of(store).spans_indexed == 101
    assert report_of(store).problems == []


@pytest.mark.parametrize("megabytes", [1, 3, 9])
def test_a_long_line_that_is_cut_is_one_problem(tmp_path: Path, megabytes: int) -> None:
    cut = line(span("cut", attributes={"output.value": "z" * megabytes * 1_000_000}))[:-5]
    store = store_of(tmp_path, span("before"), cut, span("after"))

    assert [span_id for span_id, _ in places(store)] == ["before", "after"]
    (problem,) = report_of(store).problems
    assert (problem.line_number, problem.byte_offset) == (2, len(line(span("before"))) + 1)
    assert problem.reason == "cut off before the end of the object"


def test_a_good_span_glued_to_one_cut_inside_many_nested_objects_is_found(tmp_path: Path) -> None:
    messages = [{"role": "user", "parts": [{"type": "text", "text": f"part {i}"}]} for i in range(300)]
    cut = line(span("cut", attributes={"gen_ai.input.messages": messages}))[:-40]
    good = line(span("good"))
    store = store_of(tmp_path, cut + good)

    assert [(span_id, place.read()) for span_id, place in places(store)] == [("good", good)]


def test_objects_inside_a_cut_span_are_not_taken_for_spans(tmp_path: Path) -> None:
    link: Record = {"trace_id": "elsewhere", "span_id": "linked", "attributes": {}}
    cut = line(span("cut", links=[link, link], padding="x"))[:-3]
    store = store_of(tmp_path, span("good"), cut)

    assert trace_ids(store) == ["t1"]
    assert report_of(store).lines_skipped == 1


def test_a_thousand_small_files_are_one_dataset(tmp_path: Path) -> None:
    for number in range(1_000):
        write_lines(tmp_path / "many" / f"{number:04}.jsonl", span(f"s{number}", trace=f"t{number % 10}"))
    store = open_store(tmp_path, tmp_path / "many")

    info = store.info()
    assert (info.total_spans, info.total_traces, len(info.sources)) == (1_000, 10, 1_000)
    assert {source.report.spans_indexed for source in info.sources} == {1}
    (payload,) = store.payloads("t7", ["s997"])
    assert payload.span_id == "s997"


def test_a_file_of_only_bad_lines_beside_a_good_one_is_reported(tmp_path: Path) -> None:
    bad = write_lines(tmp_path / "bad.jsonl", b"not a span", b"[1]", b'{"trace_id":"x"}')
    good = write_lines(tmp_path / "good.jsonl", span())
    store = open_store(tmp_path, bad, good)

    reports = {Path(source.name).name: source.report for source in store.info().sources}
    assert reports["good.jsonl"].problems == []
    assert reports["bad.jsonl"].lines_skipped == 3
    assert [problem.reason for problem in reports["bad.jsonl"].problems] == [
        "not JSON: invalid literal, expected 'null'",
        "not a JSON object but an array",
        "no span_id",
    ]


def test_only_the_first_problems_are_described_but_all_are_counted(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(b"[%d]" % number for number in range(50)), span())

    report = report_of(store)
    assert report.lines_skipped == 50
    assert [problem.line_number for problem in report.problems] == list(range(1, PROBLEMS_KEPT + 1))
    assert report.reasons == {"not a JSON object but an array": 50}


def test_a_whole_last_line_without_newline_counts_and_is_not_counted_again(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(line(span("s1")) + b"\n" + line(span("s2")))
    store = open_store(tmp_path, path)
    assert report_of(store).spans_indexed == 2
    assert report_of(store).pending_bytes == 0

    append_lines(path, b"", span("s3"), b"bad")
    store.refresh(Work())

    report = report_of(store)
    assert sorted(row.span_id for row in store.spans("t1")) == ["s1", "s2", "s3"]
    assert (report.lines_read, report.spans_indexed) == (4, 3)
    assert [problem.line_number for problem in report.problems] == [4]


def test_an_incomplete_last_line_waits_until_it_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    second = line(span("s2"))
    path.write_bytes(line(span("s1")) + b"\n" + second[:100])
    store = open_store(tmp_path, path)
    assert report_of(store).spans_indexed == report_of(store).lines_read == 1
    assert (report_of(store).pending_bytes, report_of(store).lines_skipped) == (100, 0)

    with path.open("ab") as file:
        file.write(second[100:] + b"\n" + second[:50])
    store.refresh(Work())

    assert sorted(row.span_id for row in store.spans("t1")) == ["s1", "s2"]
    assert dict(places(store))["s2"].read() == second
    assert report_of(store).pending_bytes == 50


def test_spans_got_out_of_a_damaged_line_keep_their_places_before_an_incomplete_last_line(tmp_path: Path) -> None:
    good, glued = line(span("good")), line(span("glued"))
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"junk " + glued + b"\n" + good + b"\n" + good[:30])
    store = open_store(tmp_path, path)
    assert [(span_id, place.read()) for span_id, place in places(store)] == [("glued", glued), ("good", good)]
    assert [payload.span_id for payload in store.payloads("t1")] == ["glued", "good"]
    assert report_of(store).pending_bytes == 30


def test_a_last_line_cut_at_any_byte_waits_and_is_found_once_it_is_whole(tmp_path: Path) -> None:
    second = line(span("s2", attributes={"text": 'é "quoted" {}'}))
    for cut in (1, 2, 15, len(second) // 2, len(second) - 2, len(second) - 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(line(span("s1")) + b"\n" + second[:cut])
        store = open_store(tmp_path, path)
        assert report_of(store).pending_bytes == cut
        with path.open("ab") as file:
            file.write(second[cut:])
        store.refresh(Work())
        assert [(span_id, place.read()) for span_id, place in places(store)][1:] == [("s2", second)]
        assert report_of(store).pending_bytes == 0


def test_a_file_whose_only_line_is_incomplete_is_no_dataset_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(line(span())[:60])
    store = LocalStore("data", [str(path)], tmp_path / "index")
    with pytest.raises(NotTraces, match="its only line is incomplete"):
        store.refresh(Work())

    path.write_bytes(line(span()))
    store.refresh(Work())
    assert trace_ids(store) == ["t1"]


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    usual = {"name": "search", "kind": "SPAN_KIND_SERVER", "end_time": "2026-03-02T09:00:05Z"}
    attributes = {"tool.name": "search"}
    return store_of(
        tmp_path_factory.mktemp("odd"),
        *(
            span("s", "p", trace=f"odd{number}", kind="TOOL", attributes=attributes) | usual | odd
            for number, odd in enumerate(ODD_PARTS)
        ),
    )


def _odd_name(number: int) -> str:
    return repr(ODD_PARTS[number])[:60]


@pytest.mark.parametrize("number", range(len(ODD_PARTS)), ids=_odd_name)
def test_an_odd_part_spoils_nothing_else_of_its_span(odd_store: LocalStore, number: int) -> None:
    odd = ODD_PARTS[number]
    (row,) = odd_store.spans(f"odd{number}")
    (payload,) = odd_store.payloads(f"odd{number}")

    assert payload.span_id == row.span_id == "s"
    if "name" not in odd:
        assert row.name == "search"
    if "kind" not in odd:
        assert row.kind == "SERVER"
    if "end_time" not in odd:
        assert row.end_time_unix_nano is not None
    if "parent_span_id" not in odd:
        assert row.parent_span_id == "p"
    if not odd.keys() & {"status", "events", "attributes"}:
        assert row.status_code == "OK"
    if "attributes" not in odd:
        assert (row.observation_kind, row.tool_name) == ("TOOL", "search")


def test_a_refused_line_may_hold_a_deeply_nested_attribute(tmp_path: Path) -> None:
    deep = line(span("deep", attributes={"output.value": "DEEP"}, status="OK")).replace(b'"DEEP"', _deep(900))
    store = store_of(tmp_path, span("good"), deep + b" ,")

    assert [span_id for span_id, _ in places(store)] == ["good", "deep"]
    assert len(store.payloads("t1")) == 2
