"""Standard input and output that break, or carry what is no message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders import write_lines
from tests.reliability.asking import COUNT, records
from tests.reliability.faults import fault
from tests.server.test_stdio import HALO, PATIENCE_S, ROOT, Wire, environment, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
HUGE_CHARS = 8_000_000
DISCOVER = (
    b'{"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", '
    b'"capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}\n'
)


async def send(wire: Wire, data: bytes) -> None:
    assert wire.process.stdin
    await wire.process.stdin.send(data)


async def counts(wire: Wire, number: int) -> None:
    """The next call is answered; what comes before may be errors about what was no message."""
    await wire.call(number, "count_traces")
    while (message := await wire.receive()).get("id") != number:
        assert "error" in message or "method" in message
    assert message["result"]["content"][0]["text"] == f"{COUNT} traces match."


def traces(tmp_path: Path) -> str:
    return str(write_lines(tmp_path / "traces.jsonl", *records()))


@fault("standard output closed (stdio)", client="nothing; the server ends", then="-")
def test_a_server_whose_output_is_closed_ends(tmp_path: Path) -> None:
    # Not anyio's process: closing its stream leaves the pipe open.
    with subprocess.Popen(
        [sys.executable, *HALO, traces(tmp_path)],
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            process.stdout.close()
            process.stdin.write(DISCOVER)
            process.stdin.flush()
            assert process.stderr.readline() == b"halo-mcp: standard output was closed\n"
            assert process.wait(PATIENCE_S) == 1
        finally:
            process.kill()


@fault("line cut off by the end of input (stdio)", client="nothing; the server ends with 0", then="-")
async def test_half_a_line_at_the_end_of_input_is_an_end_like_any_other(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, traces(tmp_path)) as wire:
        await wire.initialize()
        await counts(wire, 1)
        await send(wire, b'{"jsonrpc": "2.0", "id": 2, "method": "tools/ca')
        assert await wire.hang_up() == 0


@fault("line that arrives in two halves (stdio)", client="the same answer as ever")
async def test_a_line_in_two_halves_is_one_message(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, traces(tmp_path)) as wire:
        await wire.initialize()
        call: dict[str, Any] = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "tools/call",
            "params": {"name": "count_traces", "arguments": {}},
        }
        line = json.dumps(call).encode() + b"\n"
        await send(wire, line[:40])
        await send(wire, line[40:])
        assert (await wire.receive())["result"]["content"][0]["text"] == f"{COUNT} traces match."


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\x00", b"[" * 100_000, b'{"jsonrpc": "2.0"}', b'{"id": 1e999}', b"null", b'"\xed\xa0\x80"']
)
@fault("line that is no message, or not even text (stdio)", client="an error of the protocol, or nothing")
async def test_a_line_that_is_no_message_does_not_harm_the_next(tmp_path: Path, line: bytes) -> None:
    async with running(tmp_path, *HALO, traces(tmp_path)) as wire:
        await wire.initialize()
        await send(wire, line + b"\n")
        await counts(wire, 5)
        assert await wire.hang_up() == 0


@fault("huge message (stdio)", client="error: the argument is too long or leads nowhere")
async def test_a_huge_message_is_an_error_and_the_next_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, *HALO, traces(tmp_path)) as wire:
        await wire.initialize()
        huge: dict[str, Any] = {"trace_id": "x" * HUGE_CHARS}
        await wire.call(3, "view_trace", **huge)
        answered = await wire.receive()
        assert answered["result"]["isError"]
        assert len(answered["result"]["content"][0]["text"]) < 2_000
        await counts(wire, 4)
