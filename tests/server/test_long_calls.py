"""Progress, cancellation and failures of calls that take long, seen by a client in memory."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from halo_mcp.tools import publish
from tests.builders import span, write_lines
from tests.tools.desk import ERAS, Era, serving

PATIENCE_S = 20


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


def traces(tmp_path: Path, count: int = 50) -> Path:
    return write_lines(tmp_path / "traces.jsonl", *(span(trace=f"t{i}") for i in range(count)))


class HeldBuild:
    """Real builds that stop at their first progress report until they are released or cancelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.released = threading.Event()
        self.ended = threading.Event()
        self.outcomes: list[str] = []
        refresh = LocalStore.refresh

        def report(work: Work, done: float, total: float, message: str) -> None:
            self.begun.set()
            while not self.released.wait(0.01) and not work.stopped:
                pass

        def refreshing(store: LocalStore, work: Work) -> None:
            try:
                refresh(store, work)
            except BaseException as error:
                self.outcomes.append(type(error).__name__)
                self.ended.set()
                raise
            self.outcomes.append("built")

        monkeypatch.setattr(Work, "report", report)
        monkeypatch.setattr(LocalStore, "refresh", refreshing)


async def wait_for(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE_S)


async def test_cancelling_a_call_stops_its_build_and_the_next_call_builds(
    tmp_path: Path, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = HeldBuild(monkeypatch)
    path = traces(tmp_path)
    with anyio.fail_after(PATIENCE_S):
        async with serving(tmp_path, {"data": [path]}, era=era) as caller:
            async with anyio.create_task_group() as group:
                group.start_soon(caller.text, "count_traces")
                await wait_for(build.begun)
                group.cancel_scope.cancel()
            await wait_for(build.ended)
            assert build.outcomes == ["Cancelled"]
            build.released.set()
            assert (await caller.json("count_traces"))["total"] == 50
            assert build.outcomes == ["Cancelled", "built"]


async def test_other_calls_are_answered_while_a_build_runs(
    tmp_path: Path, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = write_lines(tmp_path / "ready.jsonl", span())
    path = traces(tmp_path)
    with anyio.fail_after(PATIENCE_S):
        async with serving(tmp_path, {"ready": [ready], "data": [path]}, era=era) as caller:
            assert (await caller.json("count_traces", dataset="ready"))["total"] == 1
            build, found = HeldBuild(monkeypatch), list[int]()

            async def count() -> None:
                found.append((await caller.json("count_traces", dataset="data"))["total"])

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(count)
                await wait_for(build.begun)
                assert (await caller.json("count_traces", dataset="ready"))["total"] == 1
                assert len((await caller.client.list_tools()).tools) >= 7
                assert not found
                build.released.set()
            assert found == [50] * 3


async def test_progress_arrives_during_a_build_and_only_grows(
    tmp_path: Path, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build tells what a clumsy one might: repetitions, steps back, a total of 0."""
    told = [(0, 10, "a"), (5, 10, "b"), (5, 10, "c"), (2, 10, "d"), (1, 0, "e"), (10, 10, "f")]
    arrived = threading.Semaphore(0)
    received: list[tuple[float, float | None, str | None]] = []
    refresh = LocalStore.refresh

    def telling(store: LocalStore, work: Work) -> None:
        for done, total, message in told:
            work.report(done, total, message)
            assert arrived.acquire(timeout=PATIENCE_S)
        refresh(store, Work())

    async def note(progress: float, total: float | None, message: str | None) -> None:
        received.append((progress, total, message))
        arrived.release()

    monkeypatch.setattr(publish, "_PROGRESS_EVERY_S", 0.01)
    monkeypatch.setattr(LocalStore, "refresh", telling)
    with anyio.fail_after(PATIENCE_S):
        async with serving(tmp_path, {"data": [traces(tmp_path)]}, era=era) as caller:
            result = await caller.client.call_tool("count_traces", {}, progress_callback=note)
    assert not result.is_error
    assert [message for _, _, message in received] == ["a", "b", "c", "d", "e", "f"]
    values = [value for value, _, _ in received]
    assert values == sorted(set(values))
    assert all(total == 1.0 for _, total, _ in received)
    assert all(value <= 1.0 for value in values)


async def test_a_bug_in_a_tool_is_logged_and_answered_without_its_details(
    tmp_path: Path, era: Era, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, {"data": [traces(tmp_path)]}, era=era) as caller:
        assert (await caller.json("count_traces"))["total"] == 50

        def broken(*_: Any, **__: Any) -> Any:
            raise KeyError("a secret")

        with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
            patched.setattr(LocalStore, "count", broken)
            result = await caller.client.call_tool("count_traces", {})
        (block,) = result.content
        assert result.is_error
        assert block.model_dump()["text"] == (
            "Internal error in count_traces; the server's log has the details. Other calls still work."
        )
        assert "a secret" in caplog.text
        assert (await caller.json("count_traces"))["total"] == 50


def _has_a_deadline(work: Work) -> bool:
    return work.deadline_s is not None


async def test_a_question_that_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, {"data": [traces(tmp_path)]}) as caller:
        assert (await caller.json("count_traces"))["total"] == 50
        monkeypatch.setattr(Work, "expired", property(_has_a_deadline))
        error = await caller.error("count_traces", filters={"regex_pattern": "x"})
    assert error == "This took longer than the 60 s allowed for one call. Narrow the filters and call again."
