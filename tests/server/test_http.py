"""A server process over HTTP: both protocol eras, clients that leave, and how it ends."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import anyio
import httpx2
import pytest

from halo_mcp import __version__
from halo_mcp.config import HttpSettings
from halo_mcp.transports import listening
from tests.builders import append_lines, span, write_lines
from tests.server.over_http import Raw, serving_http, started
from tests.server.test_stdio import plugged, traces
from tests.tools.desk import ERAS, Era


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


async def test_a_client_of_either_era_asks_over_http_and_sees_the_file_grow(tmp_path: Path, era: Era) -> None:
    path = tmp_path / "traces.jsonl"
    async with serving_http(tmp_path, str(path)) as server, server.client(era) as caller:
        assert len((await caller.client.list_tools()).tools) >= 7
        assert "There is no file" in await caller.error("get_dataset_overview")
        traces(tmp_path)
        assert (await caller.json("count_traces"))["total"] == 2
        append_lines(path, span(trace="t3"))
        assert (await caller.json("count_traces"))["total"] == 3


def test_an_answer_is_sent_without_waiting_for_the_client_to_acknowledge_its_head() -> None:
    with listening(HttpSettings(port=0)) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_clients_of_both_eras_use_one_server_at_the_same_time(tmp_path: Path) -> None:
    totals: list[int] = []
    async with (
        serving_http(tmp_path, str(traces(tmp_path))) as server,
        server.client("auto") as one,
        server.client("legacy") as other,
        anyio.create_task_group() as group,
    ):

        async def ask(number: int) -> None:
            totals.append((await (one, other)[number % 2].json("count_traces"))["total"])

        for number in range(8):
            group.start_soon(ask, number)
    assert totals == [2] * 8


async def test_progress_arrives_and_cancelling_stops_the_work_and_nothing_else(tmp_path: Path, era: Era) -> None:
    told: list[str] = []
    heard = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")
        heard.set()

    program = plugged("waiting-build")
    async with (
        serving_http(tmp_path, str(traces(tmp_path)), program=program) as server,
        server.client(era) as caller,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: caller.client.call_tool("count_traces", {}, progress_callback=note))
            await server.said("^building$")
            await heard.wait()
            assert (await caller.client.list_tools()).tools  # a long call holds up no other
            group.cancel_scope.cancel()
        await server.said("^stopped$")
        assert told[0] == "building"
        assert (await caller.client.list_tools()).tools


async def test_a_client_that_drops_its_connection_stops_its_call_and_no_other(tmp_path: Path, era: Era) -> None:
    program = plugged("waiting-build")
    async with (
        serving_http(tmp_path, str(traces(tmp_path)), program=program) as server,
        server.raw(era) as staying,
    ):
        async with server.raw(era) as leaving, anyio.create_task_group() as group:
            group.start_soon(lambda: leaving.call(7, "count_traces"))
            await server.said("^building$")
            group.cancel_scope.cancel()
        await server.said("^stopped$")
        answer = await staying.call(7, "no_such_tool")
        assert "There is no tool" in answer.text


async def test_a_second_call_with_the_same_id_in_another_session_outlives_the_first(tmp_path: Path) -> None:
    program = plugged("waiting-build")
    async with (
        serving_http(tmp_path, str(traces(tmp_path)), program=program) as server,
        server.raw("legacy") as staying,
        server.raw("legacy") as leaving,
        anyio.create_task_group() as outer,
    ):
        outer.start_soon(lambda: staying.call(7, "count_traces"))
        await server.said("^building$")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: leaving.call(7, "count_traces"))
            await server.said("^building$")
            group.cancel_scope.cancel()
        await server.said("^stopped$")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
        assert server.lines.count("stopped") == 2  # the other one only now
        outer.cancel_scope.cancel()


async def test_healthz_says_ok_and_the_version_and_nothing_else(tmp_path: Path) -> None:
    async with serving_http(tmp_path, str(traces(tmp_path))) as server, httpx2.AsyncClient() as http:
        answer = await http.get(f"{server.base}/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "version": __version__})
        assert "server" not in answer.headers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_with_0_though_clients_hold_connections_and_streams(
    tmp_path: Path, era: Era, number: signal.Signals
) -> None:
    async with (
        serving_http(tmp_path, str(traces(tmp_path))) as server,
        httpx2.AsyncClient() as http,
        server.client(era) as caller,
    ):
        assert (await caller.json("count_traces"))["total"] == 2
        await http.get(f"{server.base}/healthz")
        server.process.send_signal(number)
        assert await server.ended() == 0
    assert server.lines[1:] == []


@pytest.mark.parametrize("plug, sign", [("waiting-build", "building"), ("deaf-build", "building")])
async def test_a_signal_under_load_cancels_what_runs_and_ends_with_0(
    tmp_path: Path, era: Era, plug: str, sign: str
) -> None:
    arguments = [str(traces(tmp_path)), "--grace-s", "0.2"]
    statuses: list[int] = []
    async with (
        serving_http(tmp_path, *arguments, program=plugged(plug)) as server,
        server.raw(era) as client,
        anyio.create_task_group() as group,
    ):

        async def call(number: int) -> None:
            try:
                statuses.append((await client.call(number, "list_datasets")).status_code)
            except httpx2.TransportError:
                statuses.append(0)

        for number in range(6):
            group.start_soon(call, number)
        for _ in range(6):
            await server.said(f"^{sign}$")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    assert len(statuses) == 6
    assert not any("Traceback" in line for line in server.lines)


async def test_a_server_that_is_to_end_waits_for_running_calls_no_longer_than_they_take(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--grace-s", "600"]
    async with (
        serving_http(tmp_path, *arguments, program=plugged("waiting-build")) as server,
        server.raw() as holding,
        anyio.create_task_group() as group,
    ):
        group.start_soon(lambda: holding.call(1, "count_traces"))
        await server.said("^building$")
        server.process.send_signal(signal.SIGTERM)
        await _refuses_connections(server.base)
        assert "stopped" not in server.lines
        group.cancel_scope.cancel()
        assert await server.ended() == 0
        assert "stopped" in server.lines


async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--grace-s", "600"]
    async with (
        serving_http(tmp_path, *arguments, program=plugged("deaf-build")) as server,
        server.raw() as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(_ignoring_errors, client, "count_traces")
        await server.said("^building$")
        server.process.send_signal(signal.SIGTERM)
        await _refuses_connections(server.base)
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 128 + signal.SIGTERM


async def _ignoring_errors(client: Raw, tool: str) -> None:
    try:
        await client.call(1, tool)
    except httpx2.TransportError:
        pass


async def _refuses_connections(base: str) -> None:
    """Until nothing listens there."""
    host, port = base.removeprefix("http://").split(":")
    while True:
        try:
            async with await anyio.connect_tcp(host, int(port)):
                pass
        except OSError:
            return


async def test_a_port_that_is_taken_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with started(tmp_path, str(traces(tmp_path)), "--http", f"127.0.0.1:{port}") as server:
            assert await server.ended() == 1
    assert server.lines == [f"halo-mcp: The server cannot listen on 127.0.0.1:{port}: Address already in use."]


async def test_an_idle_session_ends_and_its_client_is_told_to_begin_anew(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--session-idle-s", "0.2"]
    async with serving_http(tmp_path, *arguments) as server, server.raw("legacy") as client:
        assert "2 traces match" in (await client.call(1, "count_traces")).text
        await _said_goodbye_to(client)
        await client.initialize()
        assert "2 traces match" in (await client.call(2, "count_traces")).text


async def _said_goodbye_to(client: Raw) -> None:
    """Until the session is unknown; asking keeps it alive, so ask ever more rarely."""
    for exponent in range(10):
        await anyio.sleep(0.1 * 2**exponent)
        answer = await client.call(9, "no_such_tool")
        if answer.status_code == 404:
            return
    raise AssertionError("the session did not end")


async def test_files_are_opened_under_given_roots_only_and_never_through_a_link_out_of_them(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", write_lines(tmp_path / "secret.jsonl", span(trace="secret"))
    inside = write_lines(root / "inside.jsonl", span(trace="open"))
    link = root / "link.jsonl"
    link.symlink_to(secret)
    async with serving_http(tmp_path, str(traces(tmp_path))) as server, server.client() as caller:
        assert "allowed directories are none" in await caller.error("list_datasets", open=str(inside))
    async with (
        serving_http(tmp_path, str(traces(tmp_path)), "--root", str(root)) as server,
        server.client() as caller,
    ):
        for path in (secret, link, root / ".." / "secret.jsonl"):
            assert "may not be opened" in await caller.error("list_datasets", open=str(path))
        link.unlink()
        await caller.text("list_datasets", open=f"opened={root}")
        assert (await caller.json("count_traces", dataset="opened"))["total"] == 1
        link.symlink_to(secret)
        told = await caller.client.call_tool("query_traces", {"dataset": "opened"})
        assert "trace secret" not in str(told.content)
        assert (await caller.json("count_traces", filters={"trace_ids": ["secret"]}, dataset="opened"))["total"] == 0
