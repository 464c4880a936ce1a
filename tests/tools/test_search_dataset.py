"""search_dataset, as a model and a person at a terminal meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halo_mcp import cli
from halo_mcp.demo.truth import FailureModeTruth
from halo_mcp.errors import InvalidCursor, InvalidPattern
from halo_mcp.index import scan
from halo_mcp.tools.budget import DEFAULT_CHARS
from tests.builders import span, write_lines
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, calls_in, desk_over

RUNS = ("before", "after")


SAYS = {
    "fetch_timeout": r"timed out after \d+ ms",
    "limit_rejected": r"limit must be <= 100, got \d+",
    "refund_soft_error": r'{"isError": true, "error": "insufficient balance for order A-\d+"}',
    "refusal": r"I'm sorry, but I can't help with that request\.",
    "wrapped_error": r"\[Errno 2\] No such file or directory: '/data/cache/[0-9a-f]+\.json'",
}
"""What every span of a failure says, and no other span of its name."""


def modes_of(demo: Demo, run: str) -> list[FailureModeTruth]:
    truth = demo.truth.before if run == "before" else demo.truth.after
    return [truth.failure_modes[key] for key in SAYS]


def pages(desk: Desk, **arguments: Any) -> list[dict[str, Any]]:
    found = [desk.data("search_dataset", **arguments)]
    while cursor := found[-1]["next_cursor"]:
        found.append(desk.data("search_dataset", **arguments, cursor=cursor))
    return found


@pytest.mark.parametrize("run", RUNS)
def test_what_a_failure_says_is_found_in_exactly_its_spans_and_traces(demo: Demo, run: str) -> None:
    for mode in modes_of(demo, run):
        found = demo.desk.data("search_dataset", dataset=run, pattern=SAYS[mode.key], group_by="span_name")
        groups = [group for group in found["groups"] if group["value"] == mode.span_name]
        assert [(g["matching_span_count"], g["trace_count"], g["failing_trace_count"]) for g in groups] == (
            [(mode.spans, mode.traces, mode.failed_traces)] if mode.spans else []
        ), mode.key
        assert found["matching_traces"]["trace_count"] == mode.traces
        assert found["complete"]


@pytest.mark.parametrize("run", RUNS)
def test_the_first_snippet_of_each_trace_is_where_its_failure_begins(demo: Demo, run: str) -> None:
    for mode in modes_of(demo, run):
        arguments = {"dataset": run, "pattern": SAYS[mode.key]}
        matches = [match for page in pages(demo.desk, **arguments) for match in page["matches"]]
        firsts = [match for match in matches if match["first_in_trace"]]
        assert sorted(match["trace_id"] for match in firsts) == sorted(mode.trace_ids), mode.key
        assert {match["span_name"] for match in firsts} <= {mode.span_name}
        assert not any(match["repeated_from_history"] for match in firsts)
        assert len({(match["trace_id"], match["span_id"]) for match in matches}) == len(matches)


def test_matching_spans_are_counted_by_the_failure_that_begins_there(demo: Demo) -> None:
    (mode,) = [mode for mode in modes_of(demo, "before") if mode.key == "limit_rejected"]
    found = demo.desk.data("search_dataset", pattern=SAYS[mode.key], group_by="failure_mode")
    (group,) = [group for group in found["groups"] if group["value"]]
    assert (group["matching_span_count"], group["trace_count"]) == (mode.spans, mode.traces)


def test_the_answer_is_compact_and_names_the_next_calls(demo: Demo) -> None:
    text = demo.desk.text("search_dataset", pattern="limit must be", group_by="tool", max_matches=5)
    assert len(text) < 3_000
    assert "of 58 failing and" in text
    assert "only repeat message history" in text
    more, view, within = calls_in(text)
    assert (more.tool, view.tool, within.tool) == ("search_dataset", "view_spans", "search_trace")
    for call in (more, view, within):
        assert "limit must be" in demo.desk.follow(call).text


def test_the_text_of_a_partial_answer_says_so_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 1_000)
    lines = [span(f"s{i}", trace=f"t{i}", name="needle") for i in range(40)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *lines))
    whole = scan.matching_spans

    def first_part(*arguments: Any, first: int, **rest: Any) -> Any:
        scanned = whole(*arguments, first=first, **rest)
        rows = scanned.rows[scanned.rows < first + 15]
        return scan.Scanned(min(first + 15, scanned.upto), rows)

    monkeypatch.setattr("halo_mcp.index.dataset_search.matching_spans", first_part)
    text = desk.text("search_dataset", pattern="needle", group_by="kind")
    assert text.startswith(
        "at least 15 spans in 15 traces match, of 40 spans in 40 traces; PARTIAL, out of time: searched"
    )
    for count in (30, 40):
        call = calls_in(text)[0]
        assert (call.tool, call.arguments["group_by"]) == ("search_dataset", "kind")
        text = desk.follow(call).text
        assert f"{count} spans in {count} traces match" in text
        assert f"SPAN | {count} | {count}" in text
    assert "PARTIAL" not in text


def test_long_answers_stay_within_bounds_and_page_on_without_gaps(tmp_path: Path) -> None:
    lines = [span(f"s{i}", trace=f"t{i:03d}", start_ms=i, attributes={"output.value": "x" * 5_000}) for i in range(60)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *lines))
    arguments = {"pattern": "x+", "max_matches": 60, "context_buffer_chars": 2_000}
    assert len(desk.text("search_dataset", **arguments)) <= DEFAULT_CHARS
    found = pages(desk, **arguments)
    assert len(found) > 1
    assert sorted(match["trace_id"] for page in found for match in page["matches"]) == [f"t{i:03d}" for i in range(60)]


def test_a_text_that_is_nowhere_gets_advice(demo: Demo) -> None:
    text = demo.desk.text("search_dataset", pattern="no(such|thing)")
    assert text.startswith("0 spans in 0 traces match, of 1,694 spans in 120 traces; all")
    assert "No match: try literal=true if it is plain text, fewer words" in text


def test_cursors_of_other_questions_are_refused(demo: Demo) -> None:
    cursor = demo.desk.data("search_dataset", pattern="limit must be")["next_cursor"]
    others: list[dict[str, Any]] = [{"pattern": "limit"}, {"pattern": "limit must be", "literal": True}]
    for other in others:
        with pytest.raises(InvalidCursor):
            demo.desk.ask("search_dataset", **other, cursor=cursor)
    with pytest.raises(InvalidPattern):
        demo.desk.ask("search_dataset", pattern="(?=x)")


def test_grep_at_the_terminal_takes_several_files_and_the_pattern_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_lines(tmp_path / f"{n}.jsonl", span(f"s{n}", trace=f"t{n}", name="a.b needle")) for n in range(2)]
    options = ["--literal", "--group-by", "span_name", "-w", "trace_ids=t1", "--index-dir", str(tmp_path / "index")]
    code = cli.run(["grep", *map(str, files), "a.b n", *options, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["matching_span_count"], found["groups"][0]["value"]) == (0, 1, "a.b needle")
