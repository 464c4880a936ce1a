"""Sources that go away, shrink, change or may not be read, under a server process that is asked meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.builders import append_lines, span, write_lines
from tests.reliability.asking import COUNT, answers, is_root, met, records
from tests.reliability.faults import fault
from tests.server.over_http import serving_http
from tests.server.test_stdio import plugged
from tests.tools.desk import Caller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@asynccontextmanager
async def asking(tmp_path: Path, path: Path) -> AsyncGenerator[Caller]:
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        yield caller


@fault("source deleted", client="error: there is no file at its path", then="the same answer, once it is back")
async def test_a_deleted_source_is_named_and_answers_again_when_it_is_back(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with asking(tmp_path, path) as caller:
        right = await answers(caller)
        path.rename(tmp_path / "aside")
        errors = await met(caller, right)
        assert len(errors) == len(right)
        assert all(error.startswith(f"There is no file {path}.") for error in errors)
        (tmp_path / "aside").rename(path)
        assert await met(caller, right) == []


@fault("source truncated to nothing", client="error: it holds no spans", then="answers over what is written then")
async def test_an_emptied_source_is_told_and_answers_again_when_it_is_written(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with asking(tmp_path, path) as caller:
        assert len(await answers(caller)) > 0
        os.truncate(path, 0)
        assert "holds no spans" in await caller.error("count_traces")
        assert "holds no spans" in await caller.error("view_trace", trace_id="t1")
        append_lines(path, *records(3))
        assert (await caller.json("count_traces"))["total"] == 3
        assert "marmalade 1" in await caller.text("view_trace", trace_id="t1")


@fault("source truncated in the middle of a line", client="answers over the whole lines that are left")
async def test_a_source_cut_in_the_middle_of_a_line_answers_with_what_is_left(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with asking(tmp_path, path) as caller:
        assert (await caller.json("count_traces"))["total"] == COUNT
        lines = path.read_bytes().splitlines(keepends=True)
        os.truncate(path, len(b"".join(lines[:20])) + 7)
        assert (await caller.json("count_traces"))["total"] == 10
        assert "t30" in await caller.error("view_trace", trace_id="t30")
        assert "marmalade 9" in await caller.text("view_trace", trace_id="t9")


@fault("source replaced by another file", client="answers over the new file; ids of the old one are unknown")
async def test_a_replaced_source_answers_from_the_new_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with asking(tmp_path, path) as caller:
        assert (await caller.json("count_traces"))["total"] == COUNT
        write_lines(tmp_path / "new", span("n", trace="new")).replace(path)
        assert "t1" in await caller.error("view_trace", trace_id="t1")
        assert (await caller.json("count_traces"))["total"] == 1
        assert (await caller.json("query_sql", sql="SELECT trace_id FROM traces"))["rows"] == [["new"]]


@fault("directory of the sources removed", client="error: there is no such file", then="answers, once it is back")
async def test_a_removed_directory_is_named_and_answers_again_when_it_is_back(tmp_path: Path) -> None:
    directory = tmp_path / "runs"
    write_lines(directory / "a.jsonl", *records(2))
    async with asking(tmp_path, directory) as caller:
        assert (await caller.json("count_traces"))["total"] == 2
        shutil.rmtree(directory)
        assert str(directory) in await caller.error("count_traces")
        write_lines(directory / "a.jsonl", *records(3))
        assert (await caller.json("count_traces"))["total"] == 3


@pytest.mark.skipif(is_root() and not shutil.which("setpriv"), reason="root may read everything")
@fault(
    "permission to read the source removed",
    client="counts are answered from the index; what needs the text is an error that says permission is missing",
    then="the same answer, once it is given back",
)
async def test_a_source_that_may_not_be_read_any_more_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    # Root without these capabilities is bound by permissions like everybody.
    through = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if is_root() else []
    async with serving_http(tmp_path, str(path), through=through) as server, server.client() as caller:
        right = await answers(caller)
        path.chmod(0)
        errors = await met(caller, right)
        assert 0 < len(errors) < len(right)
        assert all("Permission denied" in error and str(path) in error for error in errors)
        append_lines(path, span("more", trace="more"))  # root wrote it, with permission
        assert "Permission denied" in await caller.error("count_traces")
        path.chmod(0o600)
        assert (await caller.json("count_traces"))["total"] == COUNT + 1


@pytest.mark.parametrize("year_s", [0, 4_000_000_000], ids=["1970", "2096"])
@fault("time of the source set back to 1970, or forward", client="the same answer as ever")
async def test_a_source_with_an_impossible_time_answers_the_same(tmp_path: Path, year_s: int) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with asking(tmp_path, path) as caller:
        right = await answers(caller)
        os.utime(path, (year_s, year_s))
        assert await met(caller, right) == []
        append_lines(path, span("more", trace="more"))
        os.utime(path, (year_s, year_s))
        assert (await caller.json("count_traces"))["total"] == COUNT + 1


@fault("clock of the machine goes backwards", client="the same answer as ever")
async def test_a_clock_that_goes_backwards_changes_no_answer(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path), program=plugged("clock-back")) as server, server.client() as caller:
        right = await answers(caller)
        assert await met(caller, right) == []
        append_lines(path, span("more", trace="more"))
        assert (await caller.json("count_traces"))["total"] == COUNT + 1
