"""A server process on a loopback port, and clients of it: the SDK's, and one that posts what it is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.server.test_stdio import HALO, ROOT
from tests.tools.desk import Caller, Era

PATIENCE_S: Final = 60
MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-06-18"
ACCEPT: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class HttpServer:
    """A process and its URL. What it says on standard error is read line by line."""

    def __init__(self, process: Process) -> None:
        assert process.stderr
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._err = BufferedByteReceiveStream(process.stderr)

    async def line(self) -> str:
        """The next line of standard error."""
        self.lines.append((await self._err.receive_until(b"\n", 100_000)).decode().strip())
        return self.lines[-1]

    async def said(self, pattern: str) -> re.Match[str]:
        """Wait until a line matches."""
        while not (match := re.search(pattern, await self.line())):
            pass
        return match

    async def ended(self) -> int:
        """Wait for its end; returns the exit code. ``lines`` then has all that it said."""
        try:
            while True:
                await self.line()
        except (anyio.IncompleteRead, anyio.EndOfStream):
            return await self.process.wait()

    @property
    def base(self) -> str:
        return self.url.removesuffix("/mcp")

    @asynccontextmanager
    async def client(self, era: Era = "auto", token: str = "") -> AsyncGenerator[Caller]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=era) as client,
        ):
            yield Caller(client)

    @asynccontextmanager
    async def raw(self, era: Era = "auto", token: str = "") -> AsyncGenerator[Raw]:
        headers = {**ACCEPT, **({"authorization": f"Bearer {token}"} if token else {})}
        async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http:
            client = Raw(http, self.url, era)
            if era == "legacy":
                await client.initialize()
            yield client


class Raw:
    """Requests of one era, as bytes on the wire."""

    def __init__(self, http: httpx2.AsyncClient, url: str, era: Era) -> None:
        self.http = http
        self.url = url
        self.era = era
        self.session: dict[str, str] = {}

    async def initialize(self) -> None:
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
        answered = await self.http.post(
            self.url, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        )
        assert answered.status_code == 200, answered.text
        self.session = {"mcp-session-id": answered.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
        await self.http.post(
            self.url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=self.session
        )

    def request(self, number: int, tool: str, **arguments: Any) -> dict[str, Any]:
        """What httpx's ``post`` and ``stream`` take for a call of a tool."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        headers = self.session
        if self.era != "legacy":
            headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        return {"json": message, "headers": headers}

    async def call(self, number: int, tool: str, **arguments: Any) -> httpx2.Response:
        return await self.http.post(self.url, **self.request(number, tool, **arguments))


def plain_environment(tmp_path: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HALO_MCP_", "OPENAI_"))}
    return {**inherited, "HALO_MCP_INDEX_DIR": str(tmp_path / "index")}


@asynccontextmanager
async def started(
    tmp_path: Path,
    *arguments: str,
    program: list[str] = HALO,
    variables: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> AsyncGenerator[HttpServer]:
    """A process with these arguments, which need not come to serve; ``through``: a command that starts it."""
    environment = {**plain_environment(tmp_path), **(variables or {})}
    with anyio.fail_after(patience_s):
        process = await anyio.open_process(
            [*through, sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        try:
            yield HttpServer(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def serving_http(
    tmp_path: Path,
    *arguments: str,
    address: str = "127.0.0.1:0",
    program: list[str] = HALO,
    variables: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> AsyncGenerator[HttpServer]:
    """A server that listens; ``arguments`` begin with its sources."""
    options = (*arguments, "--http", address)
    async with started(
        tmp_path, *options, program=program, variables=variables, through=through, patience_s=patience_s
    ) as server:
        server.url = (await server.said(r"serving (\S+)"))[1].replace("0.0.0.0", "127.0.0.1")
        yield server
