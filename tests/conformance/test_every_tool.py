"""The MCP Inspector's command line lists every tool strictly and calls each, over stdio and HTTP, in both eras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from halo_mcp.server import TOOL_NAMES
from tests import node_packages as npm
from tests.conformance.every_tool import EXAMPLES, Example
from tests.conformance.packages import flagged
from tests.sandbox.interpreter import share_compiled
from tests.server.asking import traces
from tests.server.over_http import plain_environment, serving_http
from tests.server.test_stdio import HALO, ROOT

PATIENCE_S: Final = 300
TOOL_FAILED: Final = 5
AT_ONCE: Final = 3
"""Inspectors that run at the same time."""
ERAS: Final = ("legacy", "modern")


class Inspector(NamedTuple):
    """The program, and the server it is pointed at."""

    program: Sequence[str]
    server: Sequence[str]
    environment: dict[str, str]

    async def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """(exit code, result, all that was said)."""
        done = await anyio.run_process(
            [*self.program, "--cli", *self.server, *arguments, "--format", "json"],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        result: dict[str, Any] = json.loads(out).get("result", {}) if out.strip().startswith("{") else {}
        return done.returncode, result, out + err

    async def list(self, era: str) -> None:
        code, result, everything = await self.run("--protocol-era", era, "--method", "tools/list", "--strict")
        assert code == 0, everything
        assert [tool["name"] for tool in result["tools"]] == [*TOOL_NAMES]

    async def call(self, era: str, tool: str, example: Example) -> None:
        arguments = ("--tool-name", tool, "--tool-args-json", json.dumps(example.arguments))
        code, result, everything = await self.run("--protocol-era", era, "--method", "tools/call", *arguments)
        assert code == (TOOL_FAILED if example.fails else 0), everything
        assert bool(result["isError"]) == example.fails
        assert "structuredContent" not in result
        (block,) = result["content"]
        assert example.says in block["text"]

    async def everything(self) -> None:
        """Lists in both eras; calls in one and the other by turns."""
        turn = anyio.CapacityLimiter(AT_ONCE)

        async def call(era: str, tool: str, example: Example) -> None:
            async with turn:
                await self.call(era, tool, example)

        for era in ERAS:
            await self.list(era)
        async with anyio.create_task_group() as group:
            for number, (tool, example) in enumerate(EXAMPLES.items()):
                group.start_soon(call, ERAS[number % 2], tool, example)


async def inspector(tmp_path: Path, *server: str) -> Inspector:
    node = await anyio.to_thread.run_sync(npm.here, npm.node)
    program = await anyio.to_thread.run_sync(npm.here, lambda: npm.installed(npm.INSPECTOR))
    # Its default is a file in the home directory, which it would make.
    environment = {**os.environ, "MCP_CATALOG_PATH": str(tmp_path / "catalog.json")}
    return Inspector([str(node), str(program)], server, environment)


def test_there_is_an_example_of_every_tool() -> None:
    assert sorted(EXAMPLES) == sorted(TOOL_NAMES)


@flagged
async def test_the_inspector_calls_every_tool_over_stdio(tmp_path: Path) -> None:
    share_compiled(tmp_path / "index")
    command = [sys.executable, *HALO, str(traces(tmp_path))]
    variables = {**plain_environment(tmp_path), "PYTHONPATH": str(ROOT)}
    wanted = ("HALO_MCP_INDEX_DIR", "PYTHONPATH")
    given = [part for name in wanted for part in ("-e", f"{name}={variables[name]}")]
    with anyio.fail_after(PATIENCE_S):
        await (await inspector(tmp_path, *command, *given)).everything()


@flagged
async def test_the_inspector_calls_every_tool_over_http(tmp_path: Path) -> None:
    share_compiled(tmp_path / "index")
    with anyio.fail_after(PATIENCE_S):
        async with serving_http(tmp_path, str(traces(tmp_path)), patience_s=PATIENCE_S) as server:
            await (await inspector(tmp_path, server.url)).everything()
