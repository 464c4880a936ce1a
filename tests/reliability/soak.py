"""Many clients ask one server over HTTP for a long time, while its source grows and is rotated.

``python -m tests.reliability.soak --seconds 600 [--document docs/reliability.md]``; exit code 1 when something is
leaked, or answered in a way that is not documented. Every client has a token of its own, so that the limits stand as
they are by default; half of them speak the protocol of 2026, half the older one.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from halo_mcp.demo import DemoTruth, write_demo
from tests.marked import with_part
from tests.reliability.answers import EXPECTED, Expected, expected
from tests.reliability.moving_source import MovingSource
from tests.reliability.process_tree import Held, held_by, opened_files
from tests.reliability.questions import MOVING, PROCESSES, STILL, Curious
from tests.sandbox.interpreter import ARTEFACT, share_compiled
from tests.server.over_http import HttpServer, serving_http

BEGIN: Final = "<!-- figures: of `python -m tests.reliability.soak --seconds 600 --document docs/reliability.md` -->"
END: Final = "<!-- end of figures -->"
CLIENTS: Final = 16
GROWTH_BYTES: Final = 50_000_000
"""What the server may hold more at the end than after the warm-up, when nobody asks."""
WARM_UP: Final = 1 / 3
"""Share of the time that comes before what is measured."""
QUIET_S: Final = 30.0
"""How long threads, processes and descriptors have to come down when nobody asks any more."""
SAMPLE_S: Final = 1.0
ANSWER_S: Final = 120.0


@dataclass
class Soaked:
    """What came of a run."""

    seconds: float
    clients: int
    before: Held
    """Nobody asks, after the warm-up."""
    after: Held
    """Nobody asks any more, at the end."""
    memory: list[int] = field(default_factory=list[int])
    """Of the server's processes while clients asked, once a second, after the warm-up."""
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of every call, by tool; after the warm-up."""
    documented: Counter[Expected] = field(default_factory=Counter[Expected])
    wrong: list[str] = field(default_factory=list[str])
    """Answers that should not have been."""
    appends: int = 0
    rotations: int = 0
    leaked: list[str] = field(default_factory=list[str])

    @property
    def calls(self) -> int:
        return sum(map(len, self.took.values()))

    @property
    def drift_bytes(self) -> int:
        """Under load: the median of the last third of the samples, less that of the first."""
        third = max(1, len(self.memory) // 3)
        return int(statistics.median(self.memory[-third:]) - statistics.median(self.memory[:third]))

    def faults(self) -> list[str]:
        """What is wrong; nothing when all is well."""
        found = [f"wrong answer: {text}" for text in self.wrong[:20]]
        growth_bytes = self.after.memory_bytes - self.before.memory_bytes
        if growth_bytes > GROWTH_BYTES:
            found.append(f"memory grew by {growth_bytes / 1e6:.0f} MB")
        for name in _COUNTS:
            was, now = getattr(self.before, name), getattr(self.after, name)
            if now > was:
                found.append(f"{now} {name} where there were {was}")
        return found + (self.leaked if self.after.descriptors > self.before.descriptors else [])


class Soak:
    """One run. Use once."""

    def __init__(self, directory: Path, seconds: float, clients: int) -> None:
        self.directory = directory
        self.seconds = seconds
        self.clients = clients
        self.truth: DemoTruth = write_demo(directory)
        sample = (directory / "before.jsonl").read_bytes().splitlines()
        self.moving = MovingSource(directory / "live.jsonl", sample)
        (directory / "packed.jsonl.gz").write_bytes(gzip.compress((directory / "after.jsonl").read_bytes()))
        self.tokens = [f"soak-client-token-{number:04}" for number in range(clients + 1)]
        self.asking = [Curious(number, code=ARTEFACT.exists()) for number in range(clients)]
        none = Held(0, 0, 0, 0)
        self.found = Soaked(seconds, clients, none, none)
        self._warm = False

    async def run(self) -> Soaked:
        """Every tool once, so that what they load is there; load, let everybody leave, look; then that once more."""
        tokens = self.directory / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text("\n".join(self.tokens), encoding="utf-8")
        share_compiled(self.directory / "index")
        names = ("live.jsonl", "before.jsonl", "after.jsonl", "packed.jsonl.gz")
        sources = [f"{name.split('.')[0]}={self.directory / name}" for name in names]
        async with serving_http(
            self.directory, *sources, "--token-file", str(tokens), patience_s=self.seconds + 600
        ) as server:
            await self._ask_everything(server)
            await self._load(server, self.seconds * WARM_UP)
            self.found.before = await self._quiet(server)
            opened = Counter(_nameless(opened_files(server.process.pid)))
            self._warm = True
            await self._load(server, self.seconds * (1 - WARM_UP))
            self.found.after = await self._quiet(server, self.found.before)
            more = Counter(_nameless(opened_files(server.process.pid))) - opened
            self.found.leaked = [f"open more often: {name} ({count})" for name, count in more.items()]
            server.process.terminate()
            if (code := await server.ended()) != 0:
                self.found.wrong.append(f"the server ended with {code}")
            said = [line for line in server.lines if "Traceback" in line or "ERROR" in line]
            self.found.wrong += [f"the server's log: {line}" for line in said]
        self.found.appends, self.found.rotations = self.moving.appends, self.moving.rotations
        return self.found

    async def _ask_everything(self, server: HttpServer) -> None:
        """Every tool about every dataset."""
        async with self._connected(server, 0) as client:
            for dataset in (MOVING, *STILL):
                first = {"dataset": dataset, "limit": 10, "response_format": "json"}
                await self._ask(client, 0, "query_traces", first)
                for tool in self.asking[0].tools:
                    await self._ask(client, 0, tool, self.asking[0].about(tool, dataset))

    async def _load(self, server: HttpServer, seconds: float) -> None:
        async with anyio.create_task_group() as around:
            around.start_soon(self._sample, server)
            around.start_soon(self.moving.move)
            ends_at = time.monotonic() + seconds
            async with anyio.create_task_group() as group:
                for number in range(self.clients):
                    group.start_soon(self._client, server, number, ends_at)
            around.cancel_scope.cancel()

    async def _sample(self, server: HttpServer) -> None:
        while True:
            await anyio.sleep(SAMPLE_S)
            if self._warm:
                self.found.memory.append(held_by(server.process.pid).memory_bytes)

    async def _client(self, server: HttpServer, number: int, ends_at: float) -> None:
        async with self._connected(server, number) as client:
            while time.monotonic() < ends_at:
                tool, arguments = self.asking[number].next()
                started = time.monotonic()
                with anyio.move_on_after(ANSWER_S) as waiting:
                    await self._ask(client, number, tool, arguments)
                if waiting.cancelled_caught:
                    self.found.wrong.append(f"{tool} {arguments}: no answer in {ANSWER_S:g} s")
                if self._warm:
                    self.found.took[tool].append(time.monotonic() - started)

    @asynccontextmanager
    async def _connected(self, server: HttpServer, number: int) -> AsyncGenerator[Client]:
        headers = {"authorization": f"Bearer {self.tokens[number]}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=ANSWER_S) as http,
            Client(
                streamable_http_client(server.url, http_client=http), mode="legacy" if number % 2 else "auto"
            ) as client,
        ):
            yield client

    async def _ask(self, client: Client, number: int, tool: str, arguments: dict[str, Any]) -> None:
        try:
            result = await client.call_tool(tool, arguments)
        except MCPError as error:
            self.found.wrong.append(f"{tool} {arguments}: {error}")
            return
        text = "".join(block.text for block in result.content if block.type == "text")
        if result.is_error:
            if known := expected(text):
                self.found.documented[known] += 1
            else:
                self.found.wrong.append(f"{tool} {arguments}: {text}")
            return
        content: dict[str, Any] = result.structured_content or {}
        if content:
            self.asking[number].heard(tool, arguments, content)
        if tool in _COUNTED and content and not arguments.get("filters") and arguments["dataset"] != MOVING:
            self._check(tool, arguments["dataset"], content)

    def _check(self, tool: str, dataset: str, content: dict[str, Any]) -> None:
        """What is asked about a file that nobody moves has one answer."""
        truth = self.truth.before if dataset == "before" else self.truth.after
        seen = int(content[_COUNTED[tool]])
        if seen != truth.traces:
            self.found.wrong.append(f"{tool}: {seen} traces in {dataset}, which holds {truth.traces}")

    async def _quiet(self, server: HttpServer, wanted: Held | None = None) -> Held:
        """What is held when nobody asks: once it is no more than ``wanted``, or after some time.

        The source is rotated first, so that its index is one file however the run went. All processes are then asked
        something: they run, on the newest state.
        """
        self.moving.replace()
        ends_at = time.monotonic() + QUIET_S
        while True:
            async with self._connected(server, self.clients - 1) as client:
                for tool, arguments in PROCESSES:
                    if tool != "run_code" or ARTEFACT.exists():
                        await client.call_tool(tool, arguments)
            await anyio.sleep(QUIET_S / 10)
            now = held_by(server.process.pid)
            low = wanted and all(getattr(now, name) <= getattr(wanted, name) for name in _COUNTS)
            if low or time.monotonic() > ends_at:
                return now


_COUNTS: Final = ("processes", "threads", "descriptors")
_COUNTED: Final = {"get_dataset_overview": "total_traces", "count_traces": "total", "query_traces": "total"}
"""Where JSON answers say how many traces there are."""


def _nameless(files: Sequence[str]) -> list[str]:
    """Kinds of what is open: names of processes, sockets and index files differ from run to run."""
    return [file.split(": ", 1)[1].split(":[")[0].split("/segment-")[0] for file in files]


def table(found: Soaked) -> str:
    """What came of it, as markdown."""
    lines = ["| tool | calls | median ms | p95 ms | slowest ms |", "| --- | ---: | ---: | ---: | ---: |"]
    for tool in sorted(found.took):
        took = sorted(found.took[tool])
        p95 = took[min(len(took) - 1, round(0.95 * len(took)))]
        figures = " | ".join(f"{1e3 * seconds:,.0f}" for seconds in (statistics.median(took), p95, took[-1]))
        lines.append(f"| `{tool}` | {len(took):,} | {figures} |")
    told = [f"| {one.when} | {found.documented[one]:,} |" for one in EXPECTED]
    errors = ["", "| answered with an error, as documented, because | times |", "| --- | ---: |", *told]
    megabytes = [size / 1e6 for size in found.memory] or [0.0]
    summary = (
        f"{found.clients} clients, {found.seconds:g} s: {found.calls:,} calls after the warm-up, while the source grew "
        f"{found.appends:,} times and was rotated {found.rotations:,} times. Answers that are not documented: "
        f"{len(found.wrong)}. Memory of the server's processes: {min(megabytes):.0f} to {max(megabytes):.0f} MB, from "
        f"the first to the last third of the time {found.drift_bytes / 1e6:+.0f} MB. When nobody asks: "
        f"{found.before} after the warm-up, {found.after} at the end."
    )
    return "\n".join([summary, "", *lines, *errors])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--document", type=Path, help="write the figures between its markers")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="halo-mcp-soak-") as directory:
        found = anyio.run(Soak(Path(directory), given.seconds, given.clients).run)
    sys.stdout.write(table(found) + "\n")
    if given.document:
        document = given.document.read_text(encoding="utf-8")
        given.document.write_text(with_part(document, BEGIN, table(found), END), encoding="utf-8")
    for fault in found.faults():
        sys.stderr.write(f"{fault}\n")
    return 1 if found.faults() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
