"""Files that grow, shrink and vanish while they are read; builds that are killed; indexes that are damaged."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from halo_mcp.errors import Cancelled, DeadlineExceeded, SourceNotFound, UnknownTrace
from halo_mcp.index import snapshot
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.segments import MANIFEST_NAME, SEGMENTS_LIMIT
from halo_mcp.index.store import SpanRow
from halo_mcp.index.work import Work
from tests.builders import (
    agent,
    append_lines,
    by_id,
    index_files,
    line,
    llm,
    open_store,
    places,
    report_of,
    segment_files,
    span,
    store_of,
    trace_ids,
    write_lines,
)

ROOT = Path(__file__).parents[2]
APPENDS = SEGMENTS_LIMIT + 6
BOUND_S = 60
"""No wait in these tests lasts longer; none of them comes near."""


def span_ids(rows: Sequence[SpanRow]) -> list[str]:
    return sorted(row.span_id for row in rows)


# --- growing ---
def test_appended_lines_are_seen_and_only_they_are_read(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}", trace=f"t{i}") for i in range(20)))
    before = segment_files(store)

    append_lines(tmp_path / "traces.jsonl", span("new", trace="t-new"))
    store.refresh(Work())

    after = segment_files(store)
    assert store.trace("t-new").span_count == 1
    assert store.info().total_spans == 21
    assert before.items() < after.items()
    assert len(after) == len(before) + 1


def test_a_refresh_without_news_writes_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path, span())
    manifest = Path(store.info().index_location) / MANIFEST_NAME
    before = manifest.stat().st_mtime_ns, segment_files(store)
    store.refresh(Work())
    open_store(tmp_path, tmp_path / "traces.jsonl").refresh(Work())
    assert (manifest.stat().st_mtime_ns, segment_files(store)) == before


def test_appended_spans_that_continue_an_old_trace_are_merged_into_it(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "traces.jsonl",
        span("other", trace="t2"),
        llm("call", "tool", tokens=(5, 1), error="deep"),
        span("orphan", "late", error="boom"),
    )
    store = open_store(tmp_path, path)
    assert (store.trace("t1").missing_parent_count, store.trace("t1").original_error_count) == (2, 2)

    append_lines(path, span("tool", "root", kind="TOOL", error="wide"), agent("root", name="planner", error="all"))
    append_lines(path, span("late", "root", error="late"))
    store.refresh(Work())

    trace, rows = store.trace("t1"), by_id(store.spans("t1"))
    assert store.info().total_traces == 2
    assert (trace.span_count, trace.missing_parent_count, trace.input_tokens) == (5, 0, 5)
    assert {row.agent_name for row in rows.values()} == {"planner"}
    assert {row.span_id for row in rows.values() if row.is_original_error} == {"call", "orphan"}
    assert (trace.error_span_count, trace.original_error_count) == (5, 2)
    assert [payload.span_id for payload in store.payloads("t1")] == ["call", "orphan", "tool", "root", "late"]
    assert trace_ids(store) == ["t1", "t2"]


def test_many_appends_merge_segments_and_keep_every_span_exactly_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *(span(f"base{i}", trace=f"t{i % 5}") for i in range(50)))
    store = open_store(tmp_path, path)
    for number in range(APPENDS):
        append_lines(
            path,
            span(f"a{number}", "base0", trace=f"t{number % 7}"),
            b"bad line",
            span(f"b{number}", trace=f"n{number}"),
        )
        store.refresh(Work())
        assert len(segment_files(store)) <= SEGMENTS_LIMIT
        assert store.info().total_spans == 52 + 2 * number

    found = [(span_id, place.read()) for span_id, place in places(store)]
    lines = [text for text in path.read_bytes().splitlines() if text != b"bad line"]
    assert [text for _, text in found] == lines
    assert [span_id for span_id, _ in found] == [json.loads(text)["span_id"] for text in lines]
    assert store.trace("t0").span_count == 10 + len(range(0, APPENDS, 7))
    assert by_id(store.spans("t0"))["a7"].has_parent
    report = report_of(store)
    assert report.lines_skipped == APPENDS
    assert [problem.line_number for problem in report.problems[:3]] == [52, 55, 58]


def test_spans_of_an_appended_file_get_their_own_line_numbers(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("s1"), b"", b"bad 1")
    store = open_store(tmp_path, path)
    append_lines(path, b"  ", span("s2"), b"bad 2")
    store.refresh(Work())
    content = path.read_bytes()
    assert [(problem.line_number, problem.byte_offset) for problem in report_of(store).problems] == [
        (3, content.index(b"bad 1")),
        (6, content.index(b"bad 2")),
    ]


def _shrink(path: Path) -> None:
    write_lines(path, span("new"))


def _replace(path: Path) -> None:
    new = write_lines(
        path.with_suffix(".new"), span("new"), span("n2", trace="t9"), span("n3", trace="t9"), span("n4", trace="t9")
    )
    new.replace(path)


def _rewrite_with_the_same_size(path: Path) -> None:
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content.replace(b'"old"', b'"new"'))
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def _rewrite_and_grow(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"old"', b'"new"'))
    append_lines(path, span("n2", trace="t9"))


@pytest.mark.parametrize("change", [_shrink, _replace, _rewrite_with_the_same_size, _rewrite_and_grow])
def test_a_file_that_did_more_than_grow_is_indexed_anew(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("old"), span("old2", trace="t2"))
    store = open_store(tmp_path, path)
    before = segment_files(store)

    change(path)
    store.refresh(Work())

    assert span_ids(store.spans("t1")) == ["new"]
    assert [place.read() for _, place in places(store)] == path.read_bytes().splitlines()
    assert not before.keys() & segment_files(store).keys()
    assert len(segment_files(store)) == 1


def test_a_file_that_vanishes_from_a_glob_takes_its_spans_with_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", span(name, trace="shared"), span("own", trace=f"only-{name}"))
    store = open_store(tmp_path, tmp_path / "*.jsonl")
    assert store.trace("shared").span_count == 2

    (tmp_path / "a.jsonl").unlink()
    store.refresh(Work())

    assert trace_ids(store) == ["only-b", "shared"]
    assert span_ids(store.spans("shared")) == ["b"]
    with pytest.raises(UnknownTrace):
        store.trace("only-a")


def test_a_new_file_in_a_directory_is_taken_in(tmp_path: Path) -> None:
    write_lines(tmp_path / "runs" / "a.jsonl", span("a", "b"))
    store = open_store(tmp_path, tmp_path / "runs")
    before = segment_files(store)

    write_lines(tmp_path / "runs" / "deeper" / "0.ndjson", span("b"))
    write_lines(tmp_path / "runs" / "notes.txt", b"not a trace file")
    store.refresh(Work())

    assert span_ids(store.spans("t1")) == ["a", "b"]
    assert store.trace("t1").missing_parent_count == 0
    assert before.items() < segment_files(store).items()
    assert [Path(source.name).name for source in store.info().sources] == ["a.jsonl", "0.ndjson"]


def test_a_vanished_only_file_is_an_error_that_names_it_and_heals_when_it_returns(tmp_path: Path) -> None:
    store = store_of(tmp_path, span())
    path = tmp_path / "traces.jsonl"
    path.unlink()
    with pytest.raises(SourceNotFound, match=r"traces\.jsonl"):
        store.refresh(Work())
    write_lines(path, span("again"))
    store.refresh(Work())
    assert span_ids(store.spans("t1")) == ["again"]


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    store = open_store(tmp_path, path, tmp_path / "*.jsonl", f"{tmp_path}/./traces.jsonl")
    assert store.info().total_spans == 1


# --- several readers and writers ---
def test_two_stores_on_one_index_directory_see_the_same(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("s1"))
    first, second = open_store(tmp_path, path), open_store(tmp_path, path)
    assert first.info().index_location == second.info().index_location

    append_lines(path, span("s2"))
    first.refresh(Work())
    assert span_ids(second.spans("t1")) == ["s1"]
    second.refresh(Work())
    assert span_ids(second.spans("t1")) == ["s1", "s2"]

    write_lines(path, span("s3"))
    second.refresh(Work())
    first.refresh(Work())
    assert span_ids(first.spans("t1")) == span_ids(second.spans("t1")) == ["s3"]


PROCESS = """
import sys
from pathlib import Path
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work

source, root, times = sys.argv[1:]
for _ in range(int(times)):
    store = LocalStore("data", [source], Path(root))
    store.refresh(Work())
    assert len(store.spans("t1")) == store.trace("t1").span_count
    assert len(store.payloads("t1")) == store.trace("t1").span_count
    store.close()
print(store.info().total_spans)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_build_and_read_one_index_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}") for i in range(2_000)))
    processes = [start(PROCESS, path, tmp_path / "index", 3) for _ in range(3)]
    for process in processes:
        output, errors = process.communicate(timeout=BOUND_S)
        assert (process.returncode, output, errors) == (0, "2000\n", "")
    store = open_store(tmp_path, path)
    assert len(segment_files(store)) == 1


def test_readers_get_consistent_answers_while_a_writer_appends(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}", trace=f"t{i % 3}", kind="TOOL") for i in range(30)))
    store = open_store(tmp_path, path)
    failures: list[BaseException] = []
    finished = threading.Event()

    def read() -> None:
        seen, rounds = 0, 0
        try:
            while (not finished.is_set() or rounds < 3) and rounds < 500:
                rounds += 1
                store.refresh(Work())
                total = store.info().total_spans
                assert total >= seen, f"{total} spans after {seen}"
                assert total % 3 == 0, "half of an append was seen"
                seen = total
                rows, trace = store.spans("t1"), store.trace("t1")
                assert len({row.span_id for row in rows}) == len(rows) <= trace.span_count
                assert len(store.payloads("t1")) >= trace.span_count
                overview = store.overview(TraceFilters(), Work())
                assert overview.total_spans >= total
                assert store.traces(TraceFilters(tool_names=["step"]), "-span_count", 5, None, Work()).total == 3
                assert store.count(TraceFilters(regex_pattern="TOOL"), None, Work())[0].traces == 3
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(25):
            records = (span(f"n{number}-{i}", "s1", trace=f"t{i}", kind="TOOL") for i in range(3))
            with path.open("ab") as file:  # one write: a reader sees all three or a part that waits
                file.write(b"".join(line(record) + b"\n" for record in records))
            finished.wait(0.02)
    finally:
        finished.set()
    for reader in readers:
        reader.join(BOUND_S)
        assert not reader.is_alive()
    if failures:
        raise failures[0]

    store.refresh(Work())
    assert store.info().total_spans == 30 + 75
    assert [store.trace(f"t{i}").span_count for i in range(3)] == [35, 35, 35]


def test_a_state_that_nobody_reads_any_more_is_let_go_at_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s1"))
    work = Work()  # of a call that takes longer
    store.count(TraceFilters(regex_pattern="step"), None, work)
    searched = store.search_dataset(
        TraceFilters(),
        compile_pattern("step"),
        group_by=None,
        max_groups=5,
        max_snippets=5,
        context_chars=10,
        after=None,
        work=work,
    )
    old = weakref.ref(store._current)  # pyright: ignore[reportPrivateUsage]  # what must not outlive its use
    del searched
    gc.disable()
    try:
        append_lines(tmp_path / "traces.jsonl", span("s2"))
        store.refresh(Work())
        assert old() is None
    finally:
        gc.enable()


def test_a_state_that_answered_very_often_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "STATEMENTS", 20)
    store = store_of(tmp_path, span("s1"), span("s2", trace="t2"))
    states = set[int]()
    for number in range(50):
        store.refresh(Work())
        states.add(id(store._current))  # pyright: ignore[reportPrivateUsage]  # which is not told outside
        pinned = store.pinned()
        assert pinned.count(TraceFilters(min_span_count=1 + number % 2), None, Work())[0].traces == 2 - 2 * (number % 2)
        assert span_ids(pinned.spans("t2")) == ["s2"]
    assert len(states) > 1
    assert (store.info().total_traces, store.info().total_spans) == (2, 2)


def test_a_reader_of_an_old_state_can_finish_on_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("s1"), span("s2"))
    slow = open_store(tmp_path, path)
    append_lines(path, span("s3"))
    other = open_store(tmp_path, path)
    for number in range(SEGMENTS_LIMIT + 2):
        append_lines(path, span(f"more{number}"))
        other.refresh(Work())
    assert span_ids(slow.spans("t1")) == ["s1", "s2"]
    assert [payload.span_id for payload in slow.payloads("t1")] == ["s1", "s2"]
    assert slow.count(TraceFilters(regex_pattern="more0"), None, Work())[0].traces == 0


# --- builds that do not finish ---
KILLED = """
import os, signal, sys
from pathlib import Path
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work

source, root, after = sys.argv[1:]

def listen(done, total, message):
    if done >= float(after):
        os.kill(os.getpid(), signal.SIGKILL)

LocalStore("data", [source], Path(root)).refresh(Work(on_progress=listen))
print("finished")
"""


@pytest.mark.parametrize("after", [0.0, 0.5, 0.82])
def test_a_killed_build_leaves_nothing_that_the_next_one_trips_over(tmp_path: Path, after: float) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}", trace=f"t{i % 9}") for i in range(500)), b"bad")
    process = start(KILLED, path, tmp_path / "index", after)
    process.communicate(timeout=BOUND_S)
    assert process.returncode == -signal.SIGKILL

    store = open_store(tmp_path, path)

    assert (store.info().total_spans, store.info().total_traces) == (500, 9)
    assert index_files(store) == {MANIFEST_NAME, *segment_files(store)}
    assert len(segment_files(store)) == 1


def test_a_build_killed_during_an_append_leaves_the_old_index_whole(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("s1"))
    old = open_store(tmp_path, path)
    before = segment_files(old)
    append_lines(path, span("s2"))
    process = start(KILLED, path, tmp_path / "index", 0.0)
    process.communicate(timeout=BOUND_S)
    assert process.returncode == -signal.SIGKILL
    assert segment_files(old).items() >= before.items()

    old.refresh(Work())
    assert span_ids(old.spans("t1")) == ["s1", "s2"]
    assert index_files(old) == {MANIFEST_NAME, *segment_files(old)}


def unfinished(tmp_path: Path, work: Work, error: type[Exception]) -> LocalStore:
    store = LocalStore("data", [str(tmp_path / "traces.jsonl")], tmp_path / "index")
    with pytest.raises(error):
        store.refresh(work)
    left = {path.name for path in (tmp_path / "index").glob("*/*") if path.name != "lock"}
    assert left == set()
    return store


def test_work_that_is_cancelled_or_out_of_time_publishes_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}") for i in range(100)))
    stopped = Work()
    stopped.stop()
    unfinished(tmp_path, stopped, Cancelled)
    store = unfinished(tmp_path, Work(deadline_s=0), DeadlineExceeded)
    store.refresh(Work(deadline_s=BOUND_S))
    assert store.trace("t1").span_count == 100


@pytest.mark.parametrize("after", [0.0, 0.05, 0.82])
def test_work_that_is_cancelled_on_the_way_publishes_nothing(tmp_path: Path, after: float) -> None:
    write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}") for i in range(100)))

    def listen(done: float, total: float, message: str) -> None:
        if done >= after:
            work.stop()

    work = Work(on_progress=listen)
    store = unfinished(tmp_path, work, Cancelled)
    store.refresh(Work())
    assert store.trace("t1").span_count == 100


def test_a_cancelled_refresh_leaves_the_old_state_to_ask(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s1"))
    append_lines(tmp_path / "traces.jsonl", span("s2"))
    work = Work()
    work.stop()
    with pytest.raises(Cancelled):
        store.refresh(work)
    assert span_ids(store.spans("t1")) == ["s1"]
    store.refresh(Work())
    assert span_ids(store.spans("t1")) == ["s1", "s2"]


def test_a_build_tells_how_far_it_is(tmp_path: Path) -> None:
    write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}") for i in range(100)))
    told: list[tuple[float, float, str]] = []
    work = Work(on_progress=lambda done, total, message: told.append((done, total, message)))
    LocalStore("data", [str(tmp_path / "traces.jsonl")], tmp_path / "index").refresh(work)
    shares = [done / total for done, total, _ in told]
    assert shares == sorted(shares)
    assert told[0][2].startswith("reading")
    assert 0 <= shares[0] <= shares[-1] <= 1


# --- damaged indexes ---
def _garbled(directory: Path) -> None:
    (directory / MANIFEST_NAME).write_bytes(b'{"version": 1, "sources": [{')


def _empty(directory: Path) -> None:
    (directory / MANIFEST_NAME).write_bytes(b"")


def _not_text(directory: Path) -> None:
    (directory / MANIFEST_NAME).write_bytes(b"\xff\x00")


def _other_version(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest | {"version": 0}), encoding="utf-8")


def _later_fields(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest | {"later": 1}), encoding="utf-8")


def _no_segment(directory: Path) -> None:
    next(directory.glob("segment-*")).unlink()


def _cut_segment(directory: Path) -> None:
    segment = next(directory.glob("segment-*"))
    segment.write_bytes(segment.read_bytes()[:5_000])


def _empty_segment(directory: Path) -> None:
    next(directory.glob("segment-*")).write_bytes(b"")


def _garbled_segment(directory: Path) -> None:
    segment = next(directory.glob("segment-*"))
    segment.write_bytes(b"\xaa" * segment.stat().st_size)


def _no_manifest(directory: Path) -> None:
    (directory / MANIFEST_NAME).unlink()


def _nothing(directory: Path) -> None:
    shutil.rmtree(directory)


DAMAGES = [
    *(_garbled, _empty, _not_text, _other_version, _later_fields, _no_manifest, _nothing),
    *(_no_segment, _cut_segment, _empty_segment, _garbled_segment),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span("s1"), span("s2"))
    old = open_store(tmp_path, path)
    location = Path(old.info().index_location)
    old.close()

    damage(location)

    store = open_store(tmp_path, path)
    assert span_ids(store.spans("t1")) == ["s1", "s2"]
    assert len(store.payloads("t1")) == 2
    assert index_files(store) == {MANIFEST_NAME, *segment_files(store)}


@pytest.mark.parametrize("damage", [_garbled, _no_manifest, _no_segment, _nothing], ids=lambda damage: damage.__name__)
def test_an_index_damaged_under_an_open_store_is_built_anew_when_the_file_grows(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = store_of(tmp_path, span("s1"))
    damage(Path(store.info().index_location))
    append_lines(tmp_path / "traces.jsonl", span("s2"))
    store.refresh(Work())
    assert span_ids(store.spans("t1")) == ["s1", "s2"]
