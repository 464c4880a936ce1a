"""What parallel calls, and files that change under them, may never do."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from halo_mcp.errors import SourceChanged
from halo_mcp.index import columns
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.work import Work
from tests.builders import span, write_lines


def opened(tmp_path: Path, file: Path) -> LocalStore:
    store = LocalStore("traces", [str(file)], tmp_path / "index")
    store.refresh(Work())
    return store


def search(store: LocalStore, trace: str, pattern: str) -> int:
    found = store.search(trace, compile_pattern(pattern), (), context_chars=10, max_matches=5, work=Work())
    return found.total


def test_a_file_rewritten_in_place_is_never_searched_as_if_it_were_the_old_one(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "traces.jsonl", span("s1", trace="aaaa", name="old"))
    store = opened(tmp_path, file)
    stat = file.stat()
    with file.open("r+b") as rewriting:  # same inode, same size
        rewriting.write(file.read_bytes().replace(b"aaaa", b"bbbb").replace(b"old", b"new"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(SourceChanged):
        search(store, "aaaa", "new")
    with pytest.raises(SourceChanged):
        store.count(TraceFilters(regex_pattern="new"), None, Work())
    with pytest.raises(SourceChanged):
        store.payloads("aaaa")


def test_a_pinned_store_answers_about_one_state_while_the_store_moves_on(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "traces.jsonl", span("s1", trace="t1"))
    store = opened(tmp_path, file)
    pinned = store.pinned()
    with file.open("ab") as growing:
        growing.write(write_lines(tmp_path / "more", span("s2", "s1", trace="t1")).read_bytes())
    store.refresh(Work())
    assert [row.span_id for row in pinned.spans("t1")] == [s.span_id for s in pinned.payloads("t1")] == ["s1"]
    assert pinned.trace("t1").span_count == 1
    assert store.trace("t1").span_count == 2


def test_parallel_calls_on_a_growing_file_only_ever_add_segments(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}", trace=f"t{i}") for i in range(50)))
    store = opened(tmp_path, file)
    (first,) = (tmp_path / "index").glob("*/segment-*")
    done = threading.Event()
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            while not done.is_set():
                store.refresh(Work())
        except BaseException as error:
            problems.append(error)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    for i in range(6):
        more = write_lines(tmp_path / "more", span(f"m{i}", trace=f"more{i}")).read_bytes()
        with file.open("ab") as growing:
            growing.write(more)
        store.refresh(Work())
    done.set()
    for caller in callers:
        caller.join()
    assert not problems
    assert store.info().total_spans == 56
    assert first.exists(), "the first segment was thrown away: an old listing looked like a file that shrank"


def test_an_index_that_another_process_has_replaced_is_not_thrown_away(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "traces.jsonl", span("s1", trace="t1"))
    store = opened(tmp_path, file)
    manifest = store._directory.read_manifest()  # pyright: ignore[reportPrivateUsage]
    assert manifest is not None
    with file.open("ab") as growing:
        growing.write(write_lines(tmp_path / "more", span("s2", trace="t2")).read_bytes())
    LocalStore("traces", [str(file)], tmp_path / "index").refresh(Work())
    store._directory.discard(manifest, Work())  # pyright: ignore[reportPrivateUsage]
    newer = store._directory.read_manifest()  # pyright: ignore[reportPrivateUsage]
    assert newer is not None
    assert len(newer.segments) == 2


def test_the_bulk_read_has_no_step_that_could_reorder_lines(tmp_path: Path) -> None:
    """Rows are joined with their places by position. DuckDB makes a join of a long IN list, even of list_contains."""
    import duckdb

    path = write_lines(tmp_path / "traces.jsonl", span())
    rows = f"read_json('{path}', format = 'newline_delimited', columns = {columns.reader_columns()})"
    ((_, plan),) = duckdb.connect().execute(f"EXPLAIN {columns.own_select(rows)}").fetchall()
    assert "READ_JSON" in plan.upper()
    assert re.findall(r"(?i)\b(?:\w+ )?(?:join|window|order by|aggregate)\b", plan) == []


def test_of_large_answers_only_the_last_few_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, write_lines(tmp_path / "traces.jsonl", span()))
    snapshot = store._current  # pyright: ignore[reportPrivateUsage]  # what is remembered shows nowhere else
    asked: list[int] = []

    def answer(number: int) -> int:
        def compute() -> int:
            asked.append(number)
            return number

        return snapshot.remembered(str(number), compute, large=True)

    for number in (1, 2, 3, 1, 4, 1, 2):
        assert answer(number) == number
    assert asked == [1, 2, 3, 4, 2]
