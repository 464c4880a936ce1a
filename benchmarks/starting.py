"""From starting a server process to its answer to `initialize`, over stdio."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.analyses import COMPILED
from benchmarks.processes import ROOT, JobFailed, run_job

_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}


def first_code_start(index: Path) -> float:
    """Seconds of the first ``run_code`` on a machine, in a new process. Leaves what it compiled. Raises: JobFailed."""
    shutil.rmtree(index / COMPILED, ignore_errors=True)
    return run_job(Path(sys.executable), "benchmarks.ours", "first start", "", str(index)).figures["first start"]


def start_times(traces: Path, index: Path, repeat: int) -> dict[str, float]:
    """Medians in seconds, "ours" and "bare", taken by turns. Raises: JobFailed."""
    commands: dict[str, Sequence[str]] = {
        "ours": ("halo_mcp", "serve", str(traces), "--index-dir", str(index)),
        "bare": ("benchmarks.bare_server",),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            times[name].append(_start(command))
    return {name: median(measured) for name, measured in times.items()}


def _start(module_and_arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(_INITIALIZE) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    seconds = time.perf_counter() - started
    _, stderr = process.communicate(timeout=30)  # closes stdin: the server ends
    if '"serverInfo"' not in answer:
        raise JobFailed(f"{module_and_arguments[0]} did not answer initialize: {answer or stderr}"[:2000])
    return seconds
