"""Files of labels: what is read out of them, which traces they are joined to, and who sees the outcome."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.errors import BadLabelFile
from halo_mcp.index.checks import Check, evaluate
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.labels import (
    ID_COLUMNS,
    SCORE_COLUMNS,
    VERDICT_COLUMNS,
    LabelFile,
    parse_labels,
    read_labels,
)
from halo_mcp.index.local import LocalStore
from halo_mcp.index.outcomes import OutcomeKeys, OutcomeOptions
from halo_mcp.index.work import Work
from halo_mcp.sandbox.sql import SqlSandbox
from tests import outcome_table
from tests.builders import Record, append_lines, span, trace_ids, write_lines

ALL = TraceFilters()


def parsed(text: str | bytes, pass_score: float | None = None) -> LabelFile:
    return parse_labels("l.csv", text if isinstance(text, bytes) else text.encode(), pass_score)


def said(text: str | bytes, pass_score: float | None = None) -> list[tuple[str, str | None, float | None]]:
    """(first id, verdict, score) of each label."""
    found = parsed(text, pass_score).labels
    return [(next(iter(label.ids.values())), label.verdict, label.score) for label in found]


def labelled(
    directory: Path, labels: str, *spans: Record, pass_score: float | None = None, keys: OutcomeKeys | None = None
) -> LocalStore:
    """A store over these spans, with a file of labels."""
    directory.joinpath("labels.csv").write_text(labels, encoding="utf-8")
    options = OutcomeOptions(keys or OutcomeKeys(), (str(directory / "labels.csv"),), pass_score)
    source = write_lines(directory / "traces.jsonl", *spans)
    store = LocalStore("data", [str(source)], directory / "index", outcomes=options)
    store.refresh(Work())
    return store


def outcomes(store: LocalStore) -> dict[str, str]:
    page = store.traces(ALL, "start_time", 10_000, None, Work())
    return {trace.trace_id: trace.outcome for trace in page.traces}


# --- what a file says --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "trace_id,outcome\na,pass\nb,fail\n",
        "Trace ID;Verdict\r\na;passed\r\nb;failed\r\n",
        "traceId\tresolved\na\tTRUE\nb\tFalse\n",
        '\ufeff"trace_id","success"\n"a","1"\n"b","0"\n',
        '{"trace_id": "a", "passed": true}\n\n{"trace_id": "b", "passed": false}\n',
        '{"trace_id": "a", "label": "correct"}\n{"trace_id": "b", "label": "Incorrect "}',
        '[{"trace_id": "a", "resolved": 1}, {"trace_id": "b", "resolved": 0}]',
        '{\n "trace_id": "a",\n "outcome": "success"\n}',
    ],
)
def test_a_verdict_is_read_from_csv_json_lines_and_json(text: str) -> None:
    assert said(text) in ([("a", "pass", None), ("b", "fail", None)], [("a", "pass", None)])


def test_unicode_text_of_spreadsheets_is_read() -> None:
    assert said("trace_id\toutcome\na\tpass\n".encode("utf-16")) == [("a", "pass", None)]


def test_only_a_full_score_passes_unless_a_threshold_is_given() -> None:
    text = "task,reward\na,1\nb,0.99\nc,0\nd,-1\ne,0.9999999\n"
    assert [verdict for _, verdict, _ in said(text)] == ["pass", "fail", "fail", "fail", "pass"]
    assert [verdict for _, verdict, _ in said(text, 0.5)] == ["pass", "pass", "fail", "fail", "pass"]
    assert [score for _, _, score in said(text)] == [1, 0.99, 0, -1, 0.9999999]


def test_scores_on_another_scale_decide_nothing_without_a_threshold() -> None:
    text = "task,score\na,1\nb,5\n"
    assert said(text) == [("a", None, 1), ("b", None, 5)]
    assert parsed(text).undecided == 2
    assert said(text, 4) == [("a", "fail", 1), ("b", "pass", 5)]


def test_a_verdict_column_with_other_numbers_than_0_and_1_is_a_score() -> None:
    assert said("id,label\na,0\nb,1\nc,3\n") == [("a", None, 0), ("b", None, 1), ("c", None, 3)]


def test_a_verdict_goes_before_a_score_and_a_score_before_nothing() -> None:
    assert said("id,score,verdict\na,1,fail\nb,1,who knows\n") == [("a", "fail", 1), ("b", "pass", 1)]


def test_rows_that_say_nothing_are_counted_with_their_reason_and_line() -> None:
    found = parsed(
        '{"id": "a", "outcome": "pass"}\nnot json\n[1]\n{"outcome": "pass"}\n{"id": "b"}\n{"id": "c", "outcome": "hm"}'
    )
    assert [label.ids for label in found.labels] == [{"any": "a"}]
    assert found.unusable == {
        "no JSON object": 2,
        "no id": 1,
        "no verdict and no score": 1,
        "a verdict that is not understood": 1,
    }
    assert found.examples[0] == "line 2: no JSON object"
    assert found.rows == 6


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "it is empty"),
        (b"a,b\n1,2\n", "no column is recognised as an id: the columns are 'a', 'b'"),
        (
            b"trace_id,colour\nx,red\n",
            "no column is recognised as a verdict or score: the columns are 'trace_id', 'colour'",
        ),
        (b"\x1f\x8b\x08\0\0\0", "it is binary or compressed"),
        (b"trace_id,out\0come\n", "it is binary or compressed"),
    ],
)
def test_a_file_that_says_nothing_is_refused_and_the_reason_told(content: bytes, words: str) -> None:
    with pytest.raises(BadLabelFile, match="cannot be used for labels") as refused:
        parsed(content)
    assert words in str(refused.value)


def test_what_is_recognised_is_said_where_no_column_is() -> None:
    with pytest.raises(BadLabelFile, match=r"Recognised are trace_id, trace, .*instance_id"):
        parsed("x,outcome\n1,pass\n")


def test_a_directory_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("", "it is a directory"), ("missing.csv", "there is no such file"), ("pipe", "it is a pipe")):
        with pytest.raises(BadLabelFile, match=words):
            read_labels(str(tmp_path / name))


def test_too_large_a_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big.csv").open("wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(BadLabelFile, match="larger than 256 MiB"):
        read_labels(str(tmp_path / "big.csv"))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_labels_or_refused(content: bytes) -> None:
    for text in (content, b"id,outcome\n" + content, b'{"id": "a", "score": 1}\n' + content):
        try:
            found = parsed(text)
        except BadLabelFile:
            continue
        assert len(found.labels) + sum(found.unusable.values()) == found.rows


CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
)


@given(st.lists(st.tuples(CELLS, st.booleans(), st.floats(0, 1)), min_size=1, max_size=20), st.sampled_from(",;\t|"))
def test_what_is_written_as_csv_or_json_lines_is_read_back(rows: list[tuple[str, bool, float]], delimiter: str) -> None:
    expected = [(name, "pass" if passed else "fail", score) for name, passed, score in rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["task_id", "passed", "score"])
    writer.writerows(rows)
    assert said(text.getvalue()) == expected
    names = ("task_id", "passed", "score")
    assert said("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)) == expected


# --- which traces ------------------------------------------------------------------------------------------------
def test_ids_of_another_case_or_with_dashes_are_the_same_traces(tmp_path: Path) -> None:
    hex_id, uuid, name = "4bf92f3577b34da6a3ce929d0e0e4736", "0af76519-16cd-43dd-8448-eb211c80319c", "Run-A"
    store = labelled(
        tmp_path,
        "trace_id,outcome\n4BF92F35-77B3-4DA6-A3CE-929D0E0E4736,pass\n"
        f"{uuid.replace('-', '').upper()},fail\n run-a ,pass\n",
        *(span(trace=trace) for trace in (hex_id, uuid, name)),
    )
    assert outcomes(store) == {hex_id: "pass", uuid: "fail", name: "pass"}


def test_a_task_label_counts_for_all_traces_of_the_task_but_a_trace_label_goes_first(tmp_path: Path) -> None:
    spans = [span(trace=trace, attributes={"task.id": task}) for trace, task in (("a", "k"), ("b", "k"), ("c", "m"))]
    store = labelled(tmp_path, "trace_id,task_id,outcome\n,k,fail\nb,,pass\n", *spans)
    assert outcomes(store) == {"a": "fail", "b": "pass", "c": "unknown"}
    assert store.info().labelling.reports[0].several == 1


def test_task_and_run_together_tell_trials_apart(tmp_path: Path) -> None:
    spans = [span(trace=run, attributes={"task.id": "k", "run.id": run}) for run in ("r1", "r2")]
    store = labelled(tmp_path, "task_id,run_id,outcome\nk,r1,pass\nk,r2,fail\n", *spans)
    assert outcomes(store) == {"r1": "pass", "r2": "fail"}


def test_a_run_of_several_traces_is_no_verdict_on_any(tmp_path: Path) -> None:
    spans = [span(trace=trace, attributes={"run.id": run}) for trace, run in (("a", "r"), ("b", "r"), ("c", "s"))]
    store = labelled(tmp_path, "run_id,outcome\nr,pass\ns,pass\n", *spans)
    assert outcomes(store) == {"a": "unknown", "b": "unknown", "c": "pass"}
    assert store.info().labelling.reports[0].runs == 1


def test_rows_that_contradict_each_other_decide_nothing_and_are_told(tmp_path: Path) -> None:
    spans = [span(trace=trace, attributes={"task.outcome": "fail"}) for trace in ("a", "b", "c")]
    store = labelled(tmp_path, "id,outcome\na,pass\na,fail\nb,pass\nb,pass\nzz,pass\n", *spans)
    assert outcomes(store) == {"a": "fail", "b": "pass", "c": "fail"}
    found = store.info().labelling
    assert (found.contradicted, found.contradicted_examples, found.unlabelled) == (1, ("a",), 1)
    (report,) = found.reports
    assert (report.rows, report.traces, report.repeated, report.unmatched) == (5, 1, 1, 1)
    assert report.unmatched_examples == ["id zz"]


# --- who sees them -------------------------------------------------------------------------------------------------
def test_a_label_wins_over_the_span_everywhere(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(20)]
    truth = {name: random.Random(name).choice(["pass", "fail"]) for name in names}
    spans = [
        span(
            trace=name,
            kind="TOOL",
            error="boom" if truth[name] == "fail" else "",
            attributes={"tool.name": "hammer"},
        )
        for name in names
    ]
    roots = [
        span(
            "root",
            trace=name,
            attributes={"task.id": name, "task.outcome": "pass" if truth[name] == "fail" else "fail"},
        )
        for name in names
    ]
    rows = "".join(f"{name},{verdict},{number}\n" for number, (name, verdict) in enumerate(truth.items()))
    store = labelled(tmp_path, "trace_id,outcome,score\n" + rows, *spans, *roots, pass_score=100)
    fails, work = [name for name in names if truth[name] == "fail"], Work()
    count = Counter(truth.values())

    assert outcomes(store) == truth
    assert trace_ids(store, outcome=["fail"]) == sorted(fails)
    assert {one.value: one.traces for one in store.count(ALL, "outcome", work)} == count
    overview = store.overview(ALL, work)
    assert overview.outcomes == {**count, "unknown": 0}
    assert overview.outcome_sources == (("labels labels.csv", 20),)
    modes = store.failure_modes(ALL, None, work)
    assert (modes.failing_traces, modes.passing_traces) == (count["fail"], count["pass"])
    assert modes.modes[0].failing_traces == count["fail"]
    features = store.features(ALL, work)
    assert {
        name: ("fail", "pass")[code] for name, code in zip(features.trace_ids, features.outcome, strict=True)
    } == truth
    assert features.number("score").tolist() == [names.index(name) for name in features.trace_ids]
    found = store.contrast(ALL, TraceFilters(outcome=["fail"]), TraceFilters(outcome=["pass"]), work)
    assert "score" not in [number.name for number in found.numbers]
    assert {stratum.outcome: len(stratum.trace_ids) for stratum in store.strata(ALL, work)} == count
    assert store.trace(fails[0]).outcome == "fail"
    check = Check.model_validate(
        {
            "name": "fails",
            "filters": {"outcome": ["fail"]},
            "metric": "traces",
            "op": "<=",
            "threshold": len(fails),
        }
    )
    (result,) = evaluate(store, [check], work, 60)
    assert (result.status, result.value) == ("pass", len(fails))


def test_a_models_sql_sees_labels_and_their_scores(tmp_path: Path) -> None:
    store = labelled(
        tmp_path, "id,verdict,score\na,fail,0.25\n", span(trace="a", attributes={"outcome": "pass"}), span(trace="b")
    )
    sandbox = SqlSandbox()
    try:
        sql = "SELECT trace_id, outcome, score, outcome_source FROM traces ORDER BY 1"
        rows = sandbox.run(store.sql_state(), sql, 10, Work()).rows
    finally:
        sandbox.close()
    assert rows == (("a", "fail", 0.25, "labels labels.csv"), ("b", "unknown", None, None))


def test_changed_labels_are_noticed_without_a_new_index(tmp_path: Path) -> None:
    store = labelled(tmp_path, "id,outcome\na,pass\n", span(trace="a"), span(trace="b"))
    assert store.overview(ALL, Work()).outcomes["pass"] == 1
    segments = sorted(path.name for path in Path(store.info().index_location).glob("segment-*"))
    (tmp_path / "labels.csv").write_text("id,outcome\na,fail\nb,fail\n", encoding="utf-8")
    store.refresh(Work())
    assert store.overview(ALL, Work()).outcomes == {"pass": 0, "fail": 2, "unknown": 0}
    assert sorted(path.name for path in Path(store.info().index_location).glob("segment-*")) == segments


def test_labels_hold_for_traces_that_come_later_and_for_those_that_go_on(tmp_path: Path) -> None:
    store = labelled(tmp_path, "id,outcome\na,pass\nb,fail\n", span(trace="a"))
    append_lines(tmp_path / "traces.jsonl", span("s2", trace="a"), span(trace="b"))
    store.refresh(Work())
    assert outcomes(store) == {"a": "pass", "b": "fail"}


def test_labels_that_vanish_are_told(tmp_path: Path) -> None:
    store = labelled(tmp_path, "id,outcome\na,pass\n", span(trace="a"))
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(BadLabelFile, match="there is no such file"):
        store.refresh(Work())


def test_labels_that_fit_nothing_leave_all_outcomes_as_they_are(tmp_path: Path) -> None:
    store = labelled(tmp_path, "id,outcome\nzz,pass\n", span(trace="a", attributes={"outcome": "fail"}))
    assert outcomes(store) == {"a": "fail"}


# --- attributes ----------------------------------------------------------------------------------------------------
def with_keys(directory: Path, keys: OutcomeKeys, pass_score: float | None = None) -> LocalStore:
    options = OutcomeOptions(keys, (), pass_score)
    store = LocalStore("data", [str(directory / "traces.jsonl")], directory / "index", outcomes=options)
    store.refresh(Work())
    return store


def facts(store: LocalStore) -> dict[str, tuple[Any, ...]]:
    sql = "SELECT trace_id, outcome, score, outcome_source, task_key FROM traces"
    return {row[0]: row[1:] for row in store._current.query(sql)}  # pyright: ignore[reportPrivateUsage]


def test_chosen_attributes_say_outcome_and_task_in_an_index_of_their_own(tmp_path: Path) -> None:
    both = {"outcome": "pass", "my 'verdict\".x": "no", "task.id": "k", "case": 7}
    write_lines(
        tmp_path / "traces.jsonl",
        span(trace="a", attributes=both),
        span(trace="b", resource={"attributes": {"case": "r"}}, attributes={"my 'verdict\".x": 1}),
    )
    usual = with_keys(tmp_path, OutcomeKeys())
    chosen = with_keys(tmp_path, OutcomeKeys(("my 'verdict\".x",), ("case",)))
    assert usual.info().index_location != chosen.info().index_location
    assert facts(chosen) == {
        "a": ("fail", None, "my 'verdict\".x", "7"),
        "b": ("pass", 1.0, "my 'verdict\".x", "r"),
    }
    for store in (usual, with_keys(tmp_path, OutcomeKeys())):
        assert facts(store) == {"a": ("pass", None, "outcome", "k"), "b": ("unknown", None, None, None)}


def test_a_chosen_attribute_that_differs_from_a_usual_one_by_case_only_can_be_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "traces.jsonl", span(trace="a", attributes={"Outcome": "fail", "outcome": "pass"}))
    assert facts(with_keys(tmp_path, OutcomeKeys(("Outcome",))))["a"][0] == "fail"


def test_scores_on_spans_pass_by_the_threshold_without_a_new_index(tmp_path: Path) -> None:
    rewards = {"a": 1, "b": "0.5", "c": 0}
    write_lines(
        tmp_path / "traces.jsonl", *(span(trace=t, attributes={"reward": reward}) for t, reward in rewards.items())
    )
    strict, lenient = with_keys(tmp_path, OutcomeKeys()), with_keys(tmp_path, OutcomeKeys(), 0.5)
    assert outcomes(strict) == {"a": "pass", "b": "fail", "c": "fail"}
    assert outcomes(lenient) == {"a": "pass", "b": "pass", "c": "fail"}
    assert strict.info().index_location == lenient.info().index_location


def test_scores_on_another_scale_decide_nothing_and_that_is_told(tmp_path: Path) -> None:
    write_lines(tmp_path / "traces.jsonl", *(span(trace=str(n), attributes={"task.score": n}) for n in (1, 3)))
    store = with_keys(tmp_path, OutcomeKeys())
    assert (outcomes(store), store.info().undecided_score) == ({"1": "unknown", "3": "unknown"}, 3)
    assert outcomes(with_keys(tmp_path, OutcomeKeys(), 2)) == {"1": "fail", "3": "pass"}


def test_what_a_tool_or_a_step_says_of_itself_is_not_the_outcome_of_the_task(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "traces.jsonl",
        span("r", trace="a"),
        span("t", "r", trace="a", kind="TOOL", attributes={"success": True, "outcome": "pass"}),
        span("s", "r", trace="a", attributes={"score": 1}),
        span("r", trace="b", attributes={"success": False}),
        span("s", "r", trace="b", attributes={"score": 1}),
        span("r", trace="c"),
        span("s", "r", trace="c", kind="AGENT", attributes={"task.reward": 1}),
    )
    assert outcomes(with_keys(tmp_path, OutcomeKeys())) == {"a": "unknown", "b": "fail", "c": "pass"}


def test_runs_are_paired_by_the_chosen_task(tmp_path: Path) -> None:
    from halo_mcp.index.compare import compare

    sides: list[Any] = []
    for side, verdict in (("before", "fail"), ("after", "pass")):
        (tmp_path / side).mkdir()
        write_lines(
            tmp_path / side / "traces.jsonl",
            *(span(trace=f"{side}{n}", attributes={"ticket": n, "outcome": verdict}) for n in range(8)),
        )
        sides.append(with_keys(tmp_path / side, OutcomeKeys(task=("ticket",))).features(ALL, Work()))
    found = compare(*sides)
    assert (found.shared_tasks, found.primary.pairs, found.verdict) == (8, 8, "better")


# --- the documentation ---------------------------------------------------------------------------------------------
def test_the_documentation_lists_all_keys_words_and_columns() -> None:
    text = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text(encoding="utf-8")
    assert outcome_table.with_table(text) == text
    assert all(outcome_table.words(meaning) in text for meaning in ("pass", "fail"))
    for names in (*ID_COLUMNS.values(), VERDICT_COLUMNS, SCORE_COLUMNS):
        assert ", ".join(f"`{name}`" for name in names) in text
