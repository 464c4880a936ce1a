"""Processes and connections that end at the wrong moment: workers, clients, the server itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest

from tests.builders import append_lines, span, write_lines
from tests.reliability.asking import COUNT, answers, met, records, workers
from tests.reliability.faults import fault
from tests.reliability.process_tree import alive, family
from tests.sandbox.interpreter import needs_interpreter, share_compiled
from tests.server.over_http import HttpServer, Raw, serving_http
from tests.tools.desk import Caller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
LONG_SQL = "SELECT count(*) FROM range(1000000000000) AS r WHERE hash(r.range) = 1"
ENDLESS = "while True:\n    pass"


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until it holds; returns what it says. The server's own limit ends the waiting."""
    while not (found := condition()):  # noqa: ASYNC110  # /proc tells no events
        await anyio.sleep(0.01)
    return found


async def kill_while_working(server: HttpServer, caller: Caller, script: str, tool: str, **arguments: Any) -> str:
    """What a call is answered whose worker is killed."""
    told: list[str] = []

    async def ask() -> None:
        result = await caller.client.call_tool(tool, arguments)
        told.append("".join(block.text for block in result.content if block.type == "text"))

    async with anyio.create_task_group() as group:
        (worker,) = workers(server.process.pid, script)
        group.start_soon(ask)
        await until(lambda: _is_busy(worker))
        os.kill(worker, signal.SIGKILL)
    return told[0]


def _is_busy(pid: int) -> bool:
    """Whether it has used half a second of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    now = int(fields[11]) + int(fields[12])
    was = _BUSY.setdefault(pid, now)
    return now - was > 0.5 * os.sysconf("SC_CLK_TCK")


_BUSY: dict[int, int] = {}


@fault("worker of query_sql killed while it works", client="error: its process ended (signal SIGKILL)")
async def test_a_killed_sql_worker_is_told_and_the_next_statement_runs(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        right = await answers(caller)
        error = await kill_while_working(server, caller, "sql_worker", "query_sql", sql=LONG_SQL)
        assert error.startswith("query_sql came to no result: its worker process ended (signal SIGKILL)")
        assert await met(caller, right) == []


@needs_interpreter
@fault("worker of run_code killed while it works", client="error: its process ended", then="runs, without variables")
async def test_a_killed_code_worker_is_told_and_the_next_code_runs(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    share_compiled(tmp_path / "index")
    async with serving_http(tmp_path, str(path), patience_s=180) as server, server.client() as caller:
        assert "1" in await caller.text("run_code", code="x = 1\nprint(x)")
        told = await kill_while_working(server, caller, "code_worker", "run_code", code=ENDLESS)
        assert "SIGKILL" in told
        assert "NameError" in await caller.text("run_code", code="print(x)")


@fault("worker killed between two calls", client="the same answer as ever: another is started")
async def test_a_worker_killed_between_calls_is_not_noticed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        right = await answers(caller)
        (worker,) = workers(server.process.pid, "sql_worker")
        os.kill(worker, signal.SIGKILL)
        assert await met(caller, right) == []


@pytest.mark.parametrize("era", ["auto", "legacy"])
@fault(
    "client disconnects in the middle of a result", client="nothing", then="the same answer; its place is free again"
)
async def test_a_client_that_leaves_in_the_middle_of_a_result_harms_nobody(tmp_path: Path, era: Any) -> None:
    long = span("long", trace="long", attributes={"input.value": "x" * 400_000})
    path = write_lines(tmp_path / "traces.jsonl", *records(), long)
    async with serving_http(tmp_path, str(path), "--max-calls", "1") as server:
        async with server.client() as caller:
            right = await answers(caller)
        async with server.raw(era) as raw:
            for number in range(1, 6):
                await leave_early(server, raw.request(number, "view_trace", trace_id="long", max_chars=150_000))
        async with server.client() as caller:
            assert await met(caller, right) == []
        server.process.terminate()
        assert await server.ended() == 0
        assert not [line for line in server.lines if "Traceback" in line]


async def leave_early(server: HttpServer, request: dict[str, Any]) -> None:
    """Post until there is a place for it, read the first bytes of the answer, and close the connection."""
    built = httpx2.Request("POST", server.url, json=request["json"], headers=_headers(request["headers"]))
    parts = urlsplit(server.url)
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in built.headers.items()), "", ""]
    answer = b""
    while not answer.startswith(b"HTTP/1.1 200"):
        assert answer[:12] in (b"", b"HTTP/1.1 429"), answer
        async with await anyio.connect_tcp(str(parts.hostname), int(parts.port or 0)) as stream:
            await stream.send("\r\n".join(lines).encode() + built.read())
            answer = await stream.receive(64)


def _headers(headers: dict[str, str]) -> dict[str, str]:
    return {"accept": "application/json, text/event-stream", **headers}


@fault(
    "SIGTERM under load",
    client="its answer, or a refusal that says that the server is shutting down; the server ends with 0",
    then="the same answer, from the next server",
)
async def test_sigterm_under_load_ends_in_order_and_leaves_no_process_and_a_sound_index(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server:
        async with server.client() as caller:
            right = await answers(caller)
        statuses: list[int] = []
        members: list[int] = []
        async with server.raw() as raw, anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(_ask_on, raw, number, path, statuses)
            await until(lambda: len(statuses) > 20)
            members += family(server.process.pid)
            server.process.terminate()
            assert await server.ended() == 0
        assert set(statuses) <= {200, 503}
        assert not [line for line in server.lines if "Traceback" in line]
        await until(lambda: not any(map(alive, members)))
    write_lines(path, *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        assert await met(caller, right) == []


async def _ask_on(raw: Raw, number: int, path: Path, statuses: list[int]) -> None:
    """Ask until the server is gone; the source grows meanwhile."""
    tools: list[tuple[str, dict[str, Any]]] = [
        ("count_traces", {}),
        ("query_sql", {"sql": "SELECT count(*) FROM spans"}),
        ("search_dataset", {"pattern": "marmalade"}),
    ]
    for step in range(10_000):
        if number == 0:
            append_lines(path, span(f"more{step}", trace=f"more{step}"))
        tool, arguments = tools[(number + step) % len(tools)]
        try:
            statuses.append((await raw.call(100 * step + number, tool, **arguments)).status_code)
        except httpx2.TransportError:  # it is gone
            return


@fault(
    "server killed under load (SIGKILL), also in the middle of writing the index",
    client="nothing; its workers end with it",
    then="the same answer, from the next server",
)
async def test_a_killed_server_leaves_no_process_and_an_index_that_the_next_one_uses(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server:
        async with server.client() as caller:
            assert len(await answers(caller)) > 0
        statuses: list[int] = []
        members: list[int] = []
        async with server.raw() as raw, anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(_ask_on, raw, number, path, statuses)
            await until(lambda: len(statuses) > 8)
            members += family(server.process.pid)
            server.process.kill()
            await server.ended()
        await until(lambda: not any(map(alive, members)))
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        assert (await caller.json("count_traces"))["total"] == len(path.read_bytes().splitlines()) - COUNT
        assert "marmalade 7" in await caller.text("view_trace", trace_id="t7")
