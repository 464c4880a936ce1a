"""contrast_traces and compare_datasets: the known truth of the sample dataset, and what they say of too little data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from halo_mcp.demo.texts import ORDER_RULE
from halo_mcp.errors import BadArgument, UnknownDataset
from halo_mcp.index import harness_reading
from halo_mcp.tools.budget import COMPARE_CHARS
from tests.builders import Record, span, write_lines
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, calls_in, desk_over


def trace(name: str, outcome: str = "", error: str = "", tool: str = "search", run: str = "") -> list[Record]:
    marks = {"task.outcome": outcome} if outcome else {}
    marks |= {"run.id": run} if run else {}
    return [
        span("root", trace=name, kind="AGENT", attributes=marks),
        span("call", "root", trace=name, kind="TOOL", error=error, attributes={"tool.name": tool}, start_ms=1),
    ]


def desk_of(tmp_path: Path, *traces_of_spans: list[Record]) -> Desk:
    return desk_over(tmp_path, write_lines(tmp_path / "data.jsonl", *(s for spans in traces_of_spans for s in spans)))


# --- contrast_traces ---------------------------------------------------------------------------------------------
def test_the_failure_mode_behind_most_failures_leads_with_its_exact_counts(demo: Demo) -> None:
    truth = demo.truth.before
    mode = truth.failure_modes["limit_rejected"]
    said = demo.desk.data("contrast_traces", dataset="before")
    assert (said["total_traces_a"], said["total_traces_b"]) == (truth.fail_traces, truth.pass_traces)
    first = said["features"][0]
    assert (first["kind"], first["standing"]) == ("failure_mode", "holds")
    assert "limit must be <= 100" in first["feature"]
    assert (first["trace_count_a"], first["trace_count_b"]) == (mode.failed_traces, mode.traces - mode.failed_traces)
    assert first["interval_95"][0] > 0
    assert first["p_corrected"] < 0.001
    assert first["example_trace_id_a"] in mode.trace_ids
    assert first["example_trace_id_b"] in mode.trace_ids


@pytest.mark.parametrize("dataset", ["before", "after", "both"])
def test_the_decoy_is_no_finding_and_named_as_no_difference(demo: Demo, dataset: str) -> None:
    said = demo.desk.data("contrast_traces", dataset=dataset)
    assert not [one["feature"] for one in said["features"] if "calculator" in one["feature"]]
    text = demo.desk.text("contrast_traces", dataset=dataset)
    (line,) = (line for line in text.splitlines() if "calculator" in line)
    assert line.startswith("no difference (")


def test_what_merely_goes_along_with_the_failure_mode_is_said_to_be_explained_by_it(demo: Demo) -> None:
    said = demo.desk.data("contrast_traces", dataset="before")
    by_name = {(one["kind"], one["name"]): one for one in said["features"]}
    assert by_name["tool_failed", "search_orders"]["standing"] == "explained"
    mode = said["features"][0]["name"]
    assert by_name["tool_failed", "search_orders"]["reason"] == f"mostly explained by failure mode {mode}"


def test_every_suggested_call_works_and_the_answer_is_short(demo: Demo) -> None:
    for tool, arguments in (
        ("contrast_traces", {"dataset": "before"}),
        ("contrast_traces", {"dataset": "after"}),
        ("contrast_traces", {"dataset": "both", "group_a": {"run_ids": ["before"]}}),
        ("compare_datasets", {"dataset": "before", "after": "after"}),
    ):
        text = demo.desk.text(tool, **arguments)
        assert len(text) < 3_500
        for call in calls_in(text):
            demo.desk.follow(call)


def test_the_suggested_filters_select_the_traces_that_were_counted(demo: Demo) -> None:
    said = demo.desk.data("contrast_traces", dataset="before")
    (refund,) = (one for one in said["features"] if (one["kind"], one["name"]) == ("tool", "refund"))
    page = demo.desk.data("query_traces", dataset="before", filters={"outcome": ["pass"], **refund["filters"]})
    assert page["total"] == refund["trace_count_b"]


def test_one_group_alone_stands_against_all_others(demo: Demo) -> None:
    said = demo.desk.data("contrast_traces", dataset="before", group_a={"has_errors": True})
    assert said["total_traces_a"] == demo.truth.before.error_traces
    assert said["total_traces_a"] + said["total_traces_b"] == demo.truth.before.traces
    other = demo.desk.data("contrast_traces", dataset="before", group_b={"has_errors": True})
    assert (other["total_traces_a"], other["total_traces_b"]) == (said["total_traces_b"], said["total_traces_a"])


def test_without_outcomes_the_next_call_contrasts_traces_with_errors(tmp_path: Path) -> None:
    numbers = range(30)
    spans = [trace(f"t{n}", error="boom" if n % 2 else "", tool="fetch" if n % 2 else "search") for n in numbers]
    desk = desk_of(tmp_path, *spans)
    text = desk.text("contrast_traces")
    assert "A group is empty" in text
    retry = next(call for call in calls_in(text) if call.tool == "contrast_traces")
    features = desk.follow(retry).data["features"]
    assert {one["name"] for one in features if one["kind"] == "tool"} == {"fetch", "search"}


def test_small_and_overlapping_groups_are_said_to_be_so(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, *(trace(f"t{n}", "pass" if n % 2 else "fail") for n in range(12)))
    text = desk.text("contrast_traces", group_a={"outcome": ["fail"]}, group_b={"tool_names": ["search"]})
    assert "6 traces are in both groups and were left out of both." in text
    assert "A group has only 6 traces" in desk.text("contrast_traces")


def test_a_failure_mode_is_quoted_from_the_span_that_is_named_beside_it(demo: Demo) -> None:
    text = demo.desk.text("contrast_traces", dataset="before")
    first, following = demo.desk.data("contrast_traces", dataset="before")["features"][0], calls_in(text)[0]
    trace_id, span_id = first["example_trace_id_a"], first["example_span_id_a"]
    assert (following.tool, following.arguments["span_ids"]) == ("view_spans", [span_id])
    said = demo.desk.text("view_spans", dataset="before", trace_id=trace_id, span_ids=[span_id])
    assert first["feature"].rpartition(" · ")[2] in said
    assert f"failing {trace_id} span {span_id}" in text


def test_a_loop_is_told_in_words(demo: Demo) -> None:
    for arguments in ({"tool": "contrast_traces"}, {"tool": "compare_datasets", "after": "after"}):
        lines = demo.desk.text(dataset="before", **arguments).splitlines()
        (loop,) = (line for line in lines if "repeated_call" in line)
        assert "tool fetch_page · repeated_call · called 3 or more times in a row" in loop


def test_what_shares_its_explanation_stands_on_one_short_line(demo: Demo) -> None:
    text = demo.desk.text("contrast_traces", dataset="before")
    lines = [line for line in text.splitlines() if line.startswith("  mostly explained by failure mode ")]
    assert len(lines) == 1
    assert "tool search_orders fails" in lines[0]
    assert "right after it failed" in lines[0]
    assert len(text) < 2_500


def test_mixed_harness_versions_are_a_feature_and_warned_of(demo: Demo) -> None:
    said = demo.desk.data("contrast_traces", dataset="both")
    truth = demo.truth
    versions = {one["name"]: one for one in said["features"] if one["kind"] == "harness_version"}
    counts = sorted((one["trace_count_a"], one["trace_count_b"]) for one in versions.values())
    assert counts == sorted((run.fail_traces, run.pass_traces) for run in (truth.before, truth.after))
    assert [set(mixed["researcher"]) for mixed in said["mixed_versions"]] == [set(versions)] * 2
    text = demo.desk.text("contrast_traces", dataset="both")
    assert "warning: failing mixes harness versions (traces): researcher@" in text
    assert "list_harness_versions" in {call.tool for call in calls_in(text)}
    alone = demo.desk.data("contrast_traces", dataset="before")
    assert (alone["harness_versions_read"], alone["mixed_versions"]) == (True, [{}, {}])
    by_run = {"group_a": {"run_ids": ["before"]}, "group_b": {"run_ids": ["after"]}}
    assert demo.desk.data("contrast_traces", dataset="both", **by_run)["mixed_versions"] == [{}, {}]


def test_of_too_many_traces_the_versions_are_not_read_and_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness_reading, "QUICK_TRACES", 10)
    old, new = ([s for n in range(12) for s in trace(f"{run}{n}", "pass" if n % 2 else "fail")] for run in "ab")
    sources = {"old": [write_lines(tmp_path / "old.jsonl", *old)], "new": [write_lines(tmp_path / "new.jsonl", *new)]}
    desk = Desk(tmp_path, sources)
    assert "Harness versions were not read (too many traces)" in desk.text("contrast_traces")
    assert "harness versions: not read (too many traces)" in desk.text("compare_datasets", after="new")


def test_normal_reasons_to_stop_are_no_feature(tmp_path: Path) -> None:
    def stops(name: str, reason: str, outcome: str) -> Record:
        attributes = {"task.outcome": outcome, "gen_ai.response.finish_reasons": [reason]}
        return span(trace=name, kind="LLM", attributes=attributes)

    reasons = ("stop", "tool-calls", "tool_use", "end_turn")
    records = [stops(f"f{n}", "content_filter", "fail") for n in range(30)]
    records += [stops(f"p{n}", reasons[n % 4], "pass") for n in range(30)]
    said = desk_over(tmp_path, write_lines(tmp_path / "t.jsonl", *records)).data("contrast_traces")
    assert [one["name"] for one in said["features"] if one["kind"] == "finish_reason"] == ["content_filter"]


# --- compare_datasets --------------------------------------------------------------------------------------------
def test_the_fix_is_better_and_exactly_its_failure_mode_is_gone(demo: Demo) -> None:
    before, after = demo.truth.before, demo.truth.after
    said = demo.desk.data("compare_datasets", dataset="before", after="after")
    primary = said["primary"]
    assert (said["verdict"], primary["name"], primary["paired_tasks"]) == ("better", "pass_rate", 60)
    assert (primary["before"], primary["before_of"]) == (before.pass_traces, before.traces)
    assert (primary["after"], primary["after_of"]) == (after.pass_traces, after.traces)
    changes = {mode["text"]: mode for mode in said["failure_modes"]}
    (gone,) = (text for text, mode in changes.items() if mode["change"] == "gone")
    assert "limit must be <= 100" in gone
    assert (changes[gone]["before"], changes[gone]["after"]) == (before.failure_modes["limit_rejected"].traces, 0)
    assert {mode["change"] for text, mode in changes.items() if text != gone} == {"no evidence"}
    counts = sorted((mode["before"], mode["after"]) for mode in said["failure_modes"])
    assert counts == sorted(
        (mode.traces, after.failure_modes[key].traces) for key, mode in before.failure_modes.items()
    )
    assert not said["warnings"]


def test_the_first_line_is_the_verdict(demo: Demo) -> None:
    text = demo.desk.text("compare_datasets", dataset="before", after="after")
    assert text.startswith("verdict: better. pass rate 62/120 (52%) → 83/120 (69%): +17.5 pts (")
    assert "gone: " in text
    assert len(text) < COMPARE_CHARS


def test_two_runs_within_one_dataset_give_the_same_answer_as_two_datasets(demo: Demo) -> None:
    sides = {"filters_before": {"run_ids": ["after"]}, "filters_after": {"run_ids": ["before"]}}
    said = demo.desk.data("compare_datasets", dataset="both", **sides)
    other = demo.desk.data("compare_datasets", dataset="after", after="before")
    assert said["verdict"] == other["verdict"] == "worse"
    assert said == other


def test_the_same_traces_on_both_sides_are_refused_with_what_to_give_instead(demo: Demo) -> None:
    for arguments in ({}, {"after": "before"}):
        with pytest.raises(BadArgument, match="filters_before and filters_after"):
            demo.desk.ask("compare_datasets", dataset="before", **arguments)
    with pytest.raises(UnknownDataset, match="nowhere"):
        demo.desk.ask("compare_datasets", dataset="before", after="nowhere")
    with pytest.raises(BadArgument, match="side after"):
        demo.desk.ask("compare_datasets", dataset="before", after="after", filters_after={"run_ids": ["none"]})


def test_what_weakens_a_comparison_is_warned_of(tmp_path: Path) -> None:
    old = [span for n in range(20) for span in trace(f"t{n}", "pass" if n % 2 else "fail", run=f"r{n % 2}")]
    new = [span for n in range(10, 30) for span in trace(f"t{n}", "pass" if n < 25 else "")]
    sources = {"old": [write_lines(tmp_path / "old.jsonl", *old)], "new": [write_lines(tmp_path / "new.jsonl", *new)]}
    said: dict[str, Any] = Desk(tmp_path, sources).data("compare_datasets", dataset="old", after="new")
    assert said["warnings"] == [
        "before mixes 2 runs; filter by run_ids.",
        "5/10 (50%) traces of after have no outcome and do not count.",
        "10 traces were on both sides and are left out of both.",
        "0 tasks in common, too few to pair: if the sides attempted different tasks, a difference may come from that.",
        "the sides overlap in time.",
    ]


def test_the_versions_of_both_sides_are_named_with_the_call_that_shows_what_changed(demo: Demo) -> None:
    text = demo.desk.text("compare_datasets", dataset="before", after="after")
    data = demo.desk.data("compare_datasets", dataset="before", after="after")
    (old,), (new,) = (data[side]["harness_versions"]["researcher"] for side in ("before", "after"))
    assert f"harness versions: {old} → {new}; the others are the same." in text
    difference = next(call for call in calls_in(text) if call.tool == "list_harness_versions")
    assert difference.arguments == {"diff": [old, new], "other_dataset": "after"}
    changed = demo.desk.follow(difference).text
    assert ORDER_RULE["before"] in changed
    assert ORDER_RULE["after"] in changed
    assert len(text) < 2_500


def test_a_side_that_mixes_versions_is_warned_of_and_equal_harnesses_are_called_so(demo: Demo) -> None:
    half = {"end_time_lte": "2026-03-02T09:04:00Z"}, {"start_time_gte": "2026-03-02T09:04:00Z"}
    mixed = demo.desk.data("compare_datasets", dataset="both", filters_before=half[0], filters_after=half[1])
    assert [side for side in ("before", "after") if mixed[side]["mixed_versions"]] == ["after"]
    assert any("after mixes harness versions (traces): researcher@" in warning for warning in mixed["warnings"])
    halves = {"filters_before": half[0], "filters_after": half[1]}
    text = demo.desk.text("compare_datasets", dataset="before", **halves)
    assert "harness versions: the same on both sides (" in text


def test_sides_without_traces_of_their_own_are_refused(demo: Demo) -> None:
    with pytest.raises(BadArgument, match="keep them apart"):
        demo.desk.ask("compare_datasets", dataset="before", after="both")


def test_the_other_dataset_is_brought_up_to_date_too(tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    old = write_lines(tmp_path / "old.jsonl", *trace("t1", "pass"))
    write_lines(new, *trace("u1", "pass"))
    desk = Desk(tmp_path, {"old": [old], "new": [new]})
    assert desk.data("compare_datasets", after="new")["after"]["total_traces"] == 1
    write_lines(new, *trace("u1", "pass"), *trace("u2", "fail"))
    assert desk.data("compare_datasets", after="new")["after"]["total_traces"] == 2
