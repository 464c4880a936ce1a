"""Every answer fits, whatever is in the data, and what an answer leaves out can be had with the calls it names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from halo_mcp.tools import asked_trace
from halo_mcp.tools.budget import DEFAULT_CHARS, OVERVIEW_CHARS
from tests.builders import Record, agent, llm, span, write_lines
from tests.tools.desk import Desk, calls_in, desk_over

LONG: Final = "n" * 5_000
SIZES: Final = (2_000, DEFAULT_CHARS, 150_000)


def tool(number: int, parent: str = "root", **rest: Any) -> Record:
    attributes = {"tool.name": f"tool{number}", "input.value": f'{{"n": {number}}}', "output.value": f"result {number}"}
    return span(
        f"s{number}", parent, kind="TOOL", start_ms=number, attributes=attributes | rest.pop("attributes", {}), **rest
    )


def wide() -> list[Record]:
    return [agent("root", name="worker", ms=9_000), *(tool(i, name=f"call {i % 7}") for i in range(5_000))]


def deep() -> list[Record]:
    return [span(f"s{i}", f"s{i - 1}" if i else "", start_ms=i, ms=5_000) for i in range(1_200)]


def circles() -> list[Record]:
    return [span("a", "b"), span("b", "a", start_ms=1), span("c", "c", start_ms=2), span("d", "b", start_ms=3)]


def duplicates() -> list[Record]:
    texts = [{"output.value": f"duplicate number {i} " + "x" * i * 40} for i in range(30)]
    return [span("same", start_ms=30 - i, attributes=text) for i, text in enumerate(texts)]


def many_attributes() -> list[Record]:
    return [span("s1", attributes={f"custom.key{i}": f"value {i} " + "v" * 300 for i in range(500)})]


def one_megabyte() -> list[Record]:
    text = "".join(f"line {i} of the long text\n" for i in range(45_000))
    return [span("s1", kind="TOOL", attributes={"input.value": "short", "output.value": text})]


def many_messages() -> list[Record]:
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": f"message number {i}: " + "m" * 200} for i in range(3_000)
    ]
    return [llm("s1", attributes={"llm.input_messages": json.dumps(messages)})]


def long_names() -> list[Record]:
    names = {
        "tool.name": LONG,
        "agent.name": LONG,
        "llm.model_name": LONG,
        "session.id": LONG,
        "task.id": LONG,
        "run.id": LONG,
    }
    return [
        span("s1", name=LONG, error=LONG, kind=kind, trace=f"t{i}", service=LONG, attributes={**names, LONG: LONG})
        for i, kind in enumerate(("TOOL", "AGENT", "LLM"), 1)
    ]


def nested() -> list[Record]:
    deep_list = json.loads("[" * 150 + "]" * 150)
    inner = "[" * 900 + '"core"' + "]" * 900
    return [
        span("s1", attributes={"output.value": inner, "big.number": 10**30, "nested": deep_list, "list": [10**30, "x"]})
    ]


def control_characters() -> list[Record]:
    return [span("s1\u0007", name="a\r\nb\u001b[2J", attributes={"output.value": "x\u0000y\u2028z\r\n" * 50})]


NASTY: Final[dict[str, Callable[[], list[Record]]]] = {
    function.__name__: function
    for function in (
        wide,
        deep,
        circles,
        duplicates,
        many_attributes,
        one_megabyte,
        many_messages,
        long_names,
        nested,
        control_characters,
    )
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    directory = tmp_path_factory.mktemp("nasty")
    files = {name: [write_lines(directory / f"{name}.jsonl", *records())] for name, records in NASTY.items()}
    return Desk(directory, files)


@pytest.mark.parametrize("name", NASTY)
def test_views_of_nasty_traces_fit_in_every_size_and_detail(desk: Desk, name: str) -> None:
    records = NASTY[name]()
    ids = list(dict.fromkeys(record["span_id"] for record in records))[:200]
    for size in SIZES:
        for detail in ("auto", "outline", "full"):
            view = desk.ask("view_trace", dataset=name, trace_id="t1", detail=detail, max_chars=size)
            assert 0 < len(view.text) <= size, (size, detail)
            assert len(json.dumps(view.data)) < 250_000 + 3 * size
        spans = desk.ask("view_spans", dataset=name, trace_id="t1", span_ids=ids, around=5, max_chars=size)
        assert 0 < len(spans.text) <= size, size
        assert len(json.dumps(spans.data)) < 100_000 + 3 * size


@pytest.mark.parametrize("name", NASTY)
def test_every_other_answer_about_nasty_traces_fits_too(desk: Desk, name: str) -> None:
    asked = {
        "get_dataset_overview": {},
        "query_traces": {"limit": 500},
        "list_datasets": {},
        "search_trace": {"trace_id": "t1", "pattern": "(?s).+", "context_buffer_chars": 2_000, "max_matches": 500},
    }
    for tool_name, arguments in asked.items():
        dataset = {} if tool_name == "list_datasets" else {"dataset": name}
        text = desk.text(tool_name, **dataset, **arguments)
        assert 0 < len(text) <= (OVERVIEW_CHARS if tool_name == "get_dataset_overview" else DEFAULT_CHARS), tool_name
    for group in ("tool_name", "span_name", "agent_name", "task_key"):
        assert len(desk.text("count_traces", dataset=name, group_by=group)) <= DEFAULT_CHARS


@pytest.mark.parametrize("name", NASTY)
def test_every_call_that_a_view_suggests_works_as_written(desk: Desk, name: str) -> None:
    for size in SIZES[:2]:
        for detail in ("auto", "full"):
            text = desk.text("view_trace", dataset=name, trace_id="t1", detail=detail, max_chars=size)
            for call in calls_in(text):
                assert call.arguments["trace_id"] == "t1"
                assert call.arguments.get("dataset", "wide") == name
                assert desk.follow(call).text


def test_an_outline_says_which_calls_read_on(desk: Desk) -> None:
    calls = calls_in(desk.text("view_trace", dataset="wide", trace_id="t1"))
    assert {call.tool for call in calls} == {"view_trace", "view_spans", "search_trace"}
    assert any(call.arguments.get("cursor") for call in calls)
    assert any(call.arguments.get("detail") == "full" for call in calls)


def test_answers_about_thousands_of_tools_models_errors_and_tasks_fit(tmp_path: Path) -> None:
    records = [
        span(
            f"s{i}",
            trace=f"t{i}",
            kind=("TOOL", "LLM")[i % 2],
            error=f"distinct failure called {chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}",
            service=f"service {i}",
            attributes={"tool.name": f"tool {i}", "llm.model_name": f"model {i}", "agent.name": f"agent {i}"},
        )
        for i in range(4_000)
    ]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))
    overview = desk.text("get_dataset_overview")
    assert len(overview) <= OVERVIEW_CHARS
    assert "sample trace ids" in overview
    assert "more tools" in overview
    page = desk.text("count_traces", group_by="tool_name")
    assert len(page) <= DEFAULT_CHARS
    assert "further values are not shown" in page


def test_filters_of_any_length_leave_room_for_the_answer(tmp_path: Path) -> None:
    ids = [f"trace-{i:04}-" + "x" * 60 for i in range(450)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *(span(trace=trace_id) for trace_id in ids)))
    page = desk.ask("query_traces", filters={"trace_ids": ids}, limit=20)
    assert len(page.text) <= DEFAULT_CHARS
    assert page.text.count("\n") == 21
    assert f'the same call with cursor="{page.data["next_cursor"]}"' in page.text


# --- paging -----------------------------------------------------------------------------------------------------------
def span_lines(text: str) -> list[str]:
    """The ids that stand at the beginning of lines, as the views print spans."""
    lines = (line.strip() for line in text.splitlines())
    return [line[1:].partition("]")[0] for line in lines if line.startswith("[s")]


@pytest.mark.parametrize("max_chars", [2_000, 20_000])
def test_full_pages_show_every_span_once_in_text_and_in_json(tmp_path: Path, max_chars: int) -> None:
    records = [span("s-root", ms=9_000), *(tool(i, "s-root") for i in range(150))]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))
    want = {record["span_id"] for record in records}
    for form in ("text", "json"):
        seen, cursor = Counter[str](), ""
        for _ in range(200):
            answer = desk.ask("view_trace", trace_id="t1", detail="full", max_chars=max_chars, cursor=cursor)
            seen.update(span_lines(answer.text) if form == "text" else [s["span_id"] for s in answer.data["spans"]])
            suggested = [call for call in calls_in(answer.text) if call.arguments.get("cursor")]
            cursor = (
                (suggested[0].arguments["cursor"] if suggested else "")
                if form == "text"
                else answer.data["next_cursor"]
            )
            if not cursor:
                break
        assert seen == Counter(want)


@pytest.mark.parametrize("max_chars", [5_000, 20_000])
def test_outline_pages_count_every_span_once(desk: Desk, max_chars: int) -> None:
    arguments: dict[str, Any] = {"trace_id": "t1", "detail": "outline", "dataset": "deep", "max_chars": max_chars}
    seen, lines = list[str](), 0
    for _ in range(1_000):
        page = desk.ask("view_trace", **arguments)
        seen += [line["span_id"] for line in page.data["outline"]]
        lines += sum(line["alike"] for line in page.data["outline"])
        assert span_lines(page.text) == [line["span_id"] for line in page.data["outline"]]
        if not page.data["next_cursor"]:
            break
        (following,) = [call for call in calls_in(page.text) if call.arguments.get("cursor")]
        arguments = following.arguments
    assert seen == [f"s{i}" for i in range(1_200)]
    assert lines == 1_200


def test_a_collapsed_run_counts_for_all_its_spans(desk: Desk) -> None:
    seen, cursor = 0, ""
    while True:
        page = desk.data("view_trace", dataset="wide", trace_id="t1", detail="outline", cursor=cursor, max_chars=80_000)
        seen += sum(line["alike"] for line in page["outline"])
        if not (cursor := page["next_cursor"] or ""):
            break
    assert seen == 5_001


def test_view_spans_hands_on_until_all_asked_spans_were_shown(tmp_path: Path) -> None:
    records = [tool(i, "", attributes={"output.value": f"text {i} " + "o" * 900}) for i in range(200)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))
    ids = [record["span_id"] for record in records]
    text = desk.text("view_spans", trace_id="t1", span_ids=ids)
    seen = span_lines(text)
    while calls := calls_in(text):
        text = desk.follow(calls[-1]).text
        seen += span_lines(text)
    assert seen == ids


def test_a_span_larger_than_the_page_is_read_to_its_end(desk: Desk) -> None:
    for tool_name, first in (("view_spans", {"span_ids": ["s1"]}), ("view_trace", {"detail": "full"})):
        text = desk.text(tool_name, dataset="many_attributes", trace_id="t1", **first)
        whole = text
        while calls := [call for call in calls_in(text) if "cursor" in call.arguments or "offset" in call.arguments]:
            text = desk.follow(calls[-1]).text
            whole += text
        for i in range(500):
            assert whole.count(f"custom.key{i}:") + whole.count(f"custom.key{i}\n") <= 1
            assert f"value {i} " in whole.replace("\n", "") or f"custom.key{i}" in whole


def test_each_of_several_spans_with_the_same_id_is_shown_with_its_own_text(desk: Desk) -> None:
    text = desk.text("view_trace", dataset="duplicates", trace_id="t1", detail="full", max_chars=150_000)
    for i in range(30):
        assert text.count(f"duplicate number {i} ") == 1
    offsets = [int(line.split("+")[1].split(" ms")[0]) for line in text.splitlines() if line.startswith("[same]")]
    numbers = [int(line.split("number ")[1].split(" ")[0]) for line in text.splitlines() if "duplicate number" in line]
    assert offsets == sorted(offsets)
    assert numbers == sorted(numbers, reverse=True)
    chosen = desk.text("view_spans", dataset="duplicates", trace_id="t1", span_ids=["same"], max_chars=150_000)
    assert all(chosen.count(f"duplicate number {i} ") == 1 for i in range(30))


# --- one long text ----------------------------------------------------------------------------------------------------
def read_whole(desk: Desk, attribute: str, **arguments: Any) -> str:
    """The attribute put together from the pieces that view_spans hands out, following its own next calls."""
    answer = desk.ask("view_spans", attribute=attribute, **arguments)
    pieces = [answer.data["attributes"][0]["text"]]
    while answer.data["attributes"][0]["next_offset"] is not None:
        assert pieces[-1] in answer.text
        (following,) = calls_in(answer.text)
        answer = desk.follow(following)
        pieces.append(answer.data["attributes"][0]["text"])
    return "".join(pieces)


def test_a_cut_text_names_its_length_and_its_pieces_make_the_whole(desk: Desk) -> None:
    (record,) = one_megabyte()
    whole = record["attributes"]["output.value"]
    marker = f"... [HALO truncated: original {len(whole)} chars]"
    view = desk.text("view_spans", dataset="one_megabyte", trace_id="t1", span_ids=["s1"])
    assert marker in view
    assert marker in desk.text("view_trace", dataset="one_megabyte", trace_id="t1")
    read = read_whole(desk, "output.value", dataset="one_megabyte", trace_id="t1", span_ids=["s1"], max_chars=150_000)
    assert read == whole


def test_messages_that_are_too_many_are_left_out_in_the_middle_with_the_call_that_shows_them(desk: Desk) -> None:
    text = desk.text("view_spans", dataset="many_messages", trace_id="t1", span_ids=["s1"])
    assert "message number 0:" in text
    assert "message number 2999:" in text
    (call,) = calls_in(text)
    assert call.arguments["attribute"] == "llm.input_messages"
    arguments: dict[str, Any] = call.arguments | {"max_chars": 150_000}
    whole = read_whole(desk, arguments.pop("attribute"), **arguments)
    assert [whole.count(f"message number {i}:") for i in range(3_000)] == [1] * 3_000


def test_an_attribute_of_many_spans_is_read_span_by_span(tmp_path: Path) -> None:
    texts = {f"s{i}": f"output {i} " + "o" * (100 * i) for i in range(120)}
    records = [span(span_id, attributes={"output.value": text}) for span_id, text in texts.items()]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records, span("without", attributes={"k": "v"})))
    todo = [desk.ask("view_spans", trace_id="t1", span_ids=[*texts, "without"], attribute="output.value")]
    assert "Without output.value: without." in todo[0].text
    read: dict[str, str] = {}
    for _ in range(500):
        if not todo:
            break
        answer = todo.pop()
        assert len(answer.text) <= DEFAULT_CHARS
        for item in answer.data["attributes"]:
            assert item["offset"] == len(read.get(item["span_id"], "")), "read without a gap"
            read[item["span_id"]] = read.get(item["span_id"], "") + item["text"]
        todo += [desk.follow(call) for call in calls_in(answer.text)]
    assert read == texts


# --- traces of too many bytes to be read at once ----------------------------------------------------------------------
def test_a_trace_too_large_to_be_read_at_once_is_paged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [span("s-root", ms=9_000), *(tool(i, "s-root") for i in range(120)), *duplicates()]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))
    monkeypatch.setattr(asked_trace, "_READ_BYTES", 1)
    outline = desk.text("view_trace", trace_id="t1")
    assert "[s-root]" in outline
    assert "out: result" not in outline, "previews would need the payloads"
    (full,) = [call for call in calls_in(outline) if call.arguments.get("detail") == "full"]
    text = desk.follow(full).text
    whole = text
    while calls := [call for call in calls_in(text) if call.arguments.get("cursor")]:
        text = desk.follow(calls[-1]).text
        whole += text
    assert Counter(span_lines(whole)) == Counter([*(f"s{i}" for i in range(120)), "s-root", *["same"] * 30])
    assert all(whole.count(f"duplicate number {i} ") == 1 for i in range(30))
    assert all(f"output: result {i}\n" in whole for i in range(120))


# --- neighbours and places --------------------------------------------------------------------------------------------
def test_around_shows_the_neighbours_in_time(tmp_path: Path) -> None:
    records = [tool(i, "") for i in range(20)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *reversed(records)))
    assert span_lines(desk.text("view_spans", trace_id="t1", span_ids=["s10"], around=2)) == [
        f"s{i}" for i in range(8, 13)
    ]
    assert span_lines(desk.text("view_spans", trace_id="t1", span_ids=["s0", "s1"], around=1)) == ["s0", "s1", "s2"]
    both = desk.ask("view_spans", trace_id="t1", span_ids=["s3", "nope", " s4 "])
    assert span_lines(both.text) == ["s3", "s4"]
    assert both.data["unknown_span_ids"] == ["nope"]
    assert "Not in this trace: nope." in both.text


def test_the_place_of_a_match_can_be_read_on_from_there(tmp_path: Path) -> None:
    output = json.dumps({"rows": [{"note": "start " + "x" * 3_000 + " needle " + "y" * 3_000}], "status": "ok"})
    messages = json.dumps([{"role": "user", "content": "the other needle"}])
    record = span(error="no needle here", attributes={"output.value": output, "llm.input_messages": messages})
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", record))
    matches = desk.data("search_trace", trace_id="t1", pattern="needle")["matches"]
    assert len(matches) == 3
    for match in matches:
        read = desk.data(
            "view_spans",
            trace_id="t1",
            span_ids=[match["span_id"]],
            attribute=match["path"],
            offset=match["match_start_char"],
        )
        assert read["attributes"][0]["text"].startswith("needle"), match["path"]


def test_a_match_of_any_length_is_shown_with_its_beginning_and_its_end(desk: Desk) -> None:
    text = desk.text("search_trace", dataset="one_megabyte", trace_id="t1", pattern="(?s)line 7 .*line 44000 of")
    assert "1 match in 1 span" in text
    assert "line 7 of the long text" in text
    assert "line 44000 of" in text
    assert "characters …]" in text
