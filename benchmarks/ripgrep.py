"""ripgrep on the same patterns: the time of a whole `rg -c` process, mapped and not."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

MODES = ("--mmap", "--no-mmap")


def version() -> str | None:
    """None where ripgrep is missing."""
    if shutil.which("rg") is None:
        return None
    return subprocess.run(["rg", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def count_lines(path: Path, pattern: str) -> tuple[dict[str, float], int]:
    """Seconds by mode, and how many lines match."""
    seconds: dict[str, float] = {}
    lines = 0
    for mode in MODES:
        started = time.perf_counter()
        found = subprocess.run(
            ["rg", "--no-config", mode, "-c", pattern, path], capture_output=True, text=True, check=True
        )
        seconds[mode] = time.perf_counter() - started
        lines = int(found.stdout)
    return seconds, lines
