"""Whoever waits for a conversion is told: in the terminal by a bar, over MCP by notifications."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from halo_mcp.index import conversion
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from halo_mcp.tools import publish
from tests.formats.reading import as_bytes
from tests.formats.test_otlp_json import attribute, otlp_span, request
from tests.tools.desk import serving

SPANS = 40
PATIENCE_S = 60


def long_source(path: Path) -> Path:
    """Of a few megabytes: progress is told about every megabyte."""
    text = attribute("input.value", {"stringValue": "word " * 20_000})
    with path.open("wb") as file:
        for number in range(SPANS):
            file.write(as_bytes(request(otlp_span(f"{number:016x}", attributes=[text]))) + b"\n")
    return path


def test_the_terminal_shows_which_file_is_converted(tmp_path: Path) -> None:
    source = long_source(tmp_path / "long.jsonl")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "halo_mcp", "index", str(source), "--index-dir", str(tmp_path / "index")]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65_536):
            shown += block
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert b"converting long.jsonl" in shown
    assert f"{SPANS} spans".encode() in said


async def test_an_mcp_client_is_told_which_file_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, refresh, arrived = long_source(tmp_path / "long.jsonl"), LocalStore.refresh, threading.Event()
    received: list[str | None] = []

    def waiting(store: LocalStore, work: Work) -> None:
        def report(done: float, total: float, message: str) -> None:
            work.report(done, total, message)
            assert arrived.wait(PATIENCE_S)  # so that the conversion is not over before anything was sent

        refresh(store, Work(on_progress=report))

    async def note(progress: float, total: float | None, message: str | None) -> None:
        received.append(message)
        arrived.set()

    monkeypatch.setattr(conversion, "_CHECK_BYTES", 1)
    monkeypatch.setattr(publish, "_PROGRESS_EVERY_S", 0.01)
    monkeypatch.setattr(LocalStore, "refresh", waiting)
    with anyio.fail_after(PATIENCE_S):
        async with serving(tmp_path, {"data": [source]}) as caller:
            result = await caller.client.call_tool("count_traces", {}, progress_callback=note)
    assert not result.is_error
    assert "converting long.jsonl" in received
