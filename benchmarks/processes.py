"""Runs one job of one side in a fresh process and says what it took."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_PROCESS = ("process", "peak", "peak, all")
"""Figures that are taken of every process, whatever its job."""


class JobFailed(Exception):
    """A side's process ended with an error; the text is its last words."""


@dataclass(frozen=True, slots=True)
class Job:
    """What came of one process; figures are seconds and, for the peaks, MB."""

    figures: dict[str, float]
    answers: dict[str, int]


def run_job(python: Path, module: str, *arguments: str) -> Job:
    """Run ``python -m module arguments``.

    Beside the job's own figures: "process", from start to exit with all imports; "peak", the largest resident set of
    the process in MB; "peak, all", the largest sum of private memory over it and its children (Linux; sampled).
    Raises: JobFailed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [python, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    sampler = _Sampler(process.pid)
    sampler.start()
    stdout, stderr = process.communicate()
    wall = time.perf_counter() - started
    sampler.ended.set()
    sampler.join()
    if process.returncode != 0:
        raise JobFailed(f"{module} {arguments[0]} exited with {process.returncode}: {stderr.strip()[-2000:]}")
    result = json.loads(stdout.splitlines()[-1])
    figures: dict[str, float] = {**result["seconds"], "process": wall, "peak": result["peak_bytes"] / 1e6}
    if sampler.peak_bytes:
        figures["peak, all"] = sampler.peak_bytes / 1e6
    return Job(figures, result["answers"])


class _Sampler(threading.Thread):
    """Adds up the private memory of a process and its descendants, 50 times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.peak_bytes = 0
        self._pid = pid

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, sum(map(_private_bytes, _descendants([self._pid]))))


def _descendants(pids: Sequence[int]) -> Iterator[int]:
    for pid in pids:
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                yield from _descendants([int(child) for child in children.read_text().split()])
            except OSError:
                pass  # that thread has just ended


def _private_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
