"""A server process: what it prints, how it starts and ends, and how it follows its files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, StdioServerParameters

from tests.builders import append_lines, span, write_lines
from tests.tools.desk import ERAS, Caller, Era

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 30
HALO: Final = ["-m", "halo_mcp", "serve"]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def plugged(plug: str) -> list[str]:
    return ["-m", "tests.server.plugged", plug]


def traces(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "traces.jsonl", span("s1", trace="t1"), span("s2", trace="t2"))


def environment(tmp_path: Path) -> dict[str, str]:
    import os

    return {**os.environ, "HALO_MCP_INDEX_DIR": str(tmp_path / "index")}


@asynccontextmanager
async def connected(tmp_path: Path, *arguments: str, era: Era = "auto") -> AsyncGenerator[Caller]:
    """An MCP client with its own server process."""
    parameters = StdioServerParameters(
        command=sys.executable, args=[*arguments], env=environment(tmp_path), cwd=str(ROOT)
    )
    with anyio.fail_after(PATIENCE_S):
        async with Client(parameters, mode=era) as client:
            yield Caller(client)


class Wire:
    """A server process spoken to line by line, so that every byte on its standard output is seen."""

    def __init__(self, process: Process) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self._out = BufferedByteReceiveStream(process.stdout)
        self._err = BufferedByteReceiveStream(process.stderr)

    async def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin
        await self.process.stdin.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        message = json.loads(await self._out.receive_until(b"\n", 1_000_000))
        assert message["jsonrpc"] == "2.0"
        return message

    async def said(self, line: str) -> None:
        """Wait until the process wrote this line to standard error."""
        while (await self._err.receive_until(b"\n", 100_000)).decode().strip() != line:
            pass

    async def initialize(self) -> None:
        information = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        await self.send({"id": 0, "method": "initialize", "params": information})
        assert (await self.receive())["result"]["serverInfo"]["name"] == "halo"
        await self.send({"method": "notifications/initialized"})

    async def call(self, number: int, tool: str, **arguments: Any) -> None:
        await self.send({"id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})

    async def hang_up(self) -> int:
        """Close its standard input; everything it still prints must be protocol. Returns the exit code."""
        assert self.process.stdin
        await self.process.stdin.aclose()
        return await self.ended()

    async def ended(self) -> int:
        try:
            while True:
                await self.receive()
        except (anyio.IncompleteRead, anyio.EndOfStream):
            pass
        return await self.process.wait()


@asynccontextmanager
async def running(tmp_path: Path, *arguments: str) -> AsyncGenerator[Wire]:
    with anyio.fail_after(PATIENCE_S):
        process = await anyio.open_process(
            [sys.executable, *arguments], stderr=subprocess.PIPE, cwd=ROOT, env=environment(tmp_path)
        )
        try:
            yield Wire(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


async def test_a_client_of_either_era_asks_over_stdio_and_sees_the_file_grow(tmp_path: Path, era: Era) -> None:
    path = tmp_path / "traces.jsonl"
    async with connected(tmp_path, *HALO, str(path), era=era) as caller:
        assert len((await caller.client.list_tools()).tools) >= 7
        assert "There is no file" in await caller.error("get_dataset_overview")
        traces(tmp_path)
        assert (await caller.json("count_traces"))["total"] == 2
        append_lines(path, span(trace="t3"))
        assert (await caller.json("count_traces"))["total"] == 3
        assert "3 traces" in await caller.text("get_dataset_overview")


async def test_two_servers_on_one_file_build_and_answer_at_the_same_time(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *(span(f"s{i}", trace=f"t{i}") for i in range(3_000)))
    totals: list[int] = []
    async with (
        connected(tmp_path, *HALO, str(path)) as one,
        connected(tmp_path, *HALO, str(path), era="legacy") as other,
        anyio.create_task_group() as group,
    ):

        async def ask(caller: Caller) -> None:
            totals.append((await caller.json("count_traces"))["total"])

        for caller in (one, other, one, other):
            group.start_soon(ask, caller)
    assert totals == [3_000] * 4


async def test_the_end_of_input_ends_the_server_with_0(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, str(traces(tmp_path))) as wire:
        await wire.initialize()
        await wire.call(1, "count_traces")
        assert (await wire.receive())["result"]["content"][0]["text"] == "2 traces match."
        assert await wire.hang_up() == 0


async def test_the_end_of_input_before_anything_was_said_is_an_end_like_any_other(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, str(traces(tmp_path))) as wire:
        assert await wire.hang_up() == 0


async def test_the_end_of_input_during_a_build_stops_the_build(tmp_path: Path) -> None:
    async with running(tmp_path, *plugged("waiting-build"), str(traces(tmp_path))) as wire:
        await wire.initialize()
        await wire.call(1, "count_traces")
        await wire.said("building")
        assert wire.process.stdin
        await wire.process.stdin.aclose()
        await wire.said("stopped")
        assert await wire.ended() == 0


@posix_only
@pytest.mark.parametrize(
    "plug, sign, number",
    [
        ("", "", signal.SIGINT),
        ("", "", signal.SIGTERM),
        ("waiting-build", "building", signal.SIGTERM),
        ("deaf-build", "building", signal.SIGINT),
        ("deaf-question", "asking", signal.SIGTERM),
    ],
)
async def test_a_signal_ends_the_server_whatever_it_is_doing(
    tmp_path: Path, plug: str, sign: str, number: signal.Signals
) -> None:
    async with running(tmp_path, *(plugged(plug) if plug else HALO), str(traces(tmp_path))) as wire:
        await wire.initialize()
        if plug:
            await wire.call(1, "list_datasets")
            await wire.said(sign)
        else:
            await wire.call(1, "count_traces")
            await wire.receive()
        wire.process.send_signal(number)
        assert await wire.ended() == 128 + number


async def test_what_libraries_and_children_print_does_not_reach_the_protocol(tmp_path: Path) -> None:
    async with running(tmp_path, *plugged("noise"), str(traces(tmp_path))) as wire:
        await wire.initialize()
        for number in (1, 2, 3):
            await wire.call(number, "count_traces")
            assert (await wire.receive())["id"] == number
        for line in ("a library prints", "native code prints", "a child process prints"):
            await wire.said(line)
        assert await wire.hang_up() == 0


async def test_a_line_that_is_no_message_does_not_end_the_server(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, str(traces(tmp_path))) as wire:
        await wire.initialize()
        assert wire.process.stdin
        await wire.process.stdin.send(b"this is not JSON\n\n{}\n")
        await wire.call(1, "count_traces")
        while (message := await wire.receive()).get("id") != 1:
            assert "error" in message or "method" in message
        assert message["result"]["content"][0]["text"] == "2 traces match."


async def test_a_client_that_cancels_a_build_stops_it_and_can_go_on_asking(tmp_path: Path) -> None:
    async with running(tmp_path, *plugged("waiting-build"), str(traces(tmp_path))) as wire:
        await wire.initialize()
        for number in (1, 2):
            await wire.call(number, "count_traces")
            await wire.said("building")
            await wire.send({"method": "notifications/cancelled", "params": {"requestId": number}})
            await wire.said("stopped")
        await wire.send({"id": 9, "method": "tools/list"})
        while (await wire.receive()).get("id") != 9:
            pass
        assert await wire.hang_up() == 0


def test_starting_a_server_imports_nothing_heavy(tmp_path: Path) -> None:
    """A client waits for this at every start. (``rich`` is loaded by the SDK's logging wherever it is installed.)"""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from halo_mcp import serve\n"
        "from halo_mcp.config import load_settings\n"
        "from halo_mcp.datasets import Datasets, parse_sources\n"
        "from halo_mcp.server import create_server\n"
        "import halo_mcp.transports\n"
        f"create_server(Datasets(parse_sources([{str(traces(tmp_path))!r}]), load_settings()))\n"
        "print(*sorted(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mcp" in loaded
    assert not loaded & {
        "duckdb",
        "numpy",
        "re2",
        "openai",
        "scipy",
        "pandas",
        "pyarrow",
        "typer",
        "hypothesis",
    }
    assert not (tmp_path / "index").exists()
