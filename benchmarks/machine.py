"""What a figure depends on: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks import ripgrep


def machine_facts() -> list[str]:
    """One line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = [f"{name} {version(name)}" for name in ("duckdb", "google-re2", "mcp")]
    load, _, _ = os.getloadavg()
    return [
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB memory; load average before the run {load:.1f}",
        f"{_system()}, Python {platform.python_version()}, {', '.join(packages)}, ripgrep {ripgrep.version()}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _system() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release().split('-')[0]}"
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
