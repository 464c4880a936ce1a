"""What a process and its descendants hold, as /proc tells it. Linux only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
available: Final = (_PROC / "self" / "smaps_rollup").exists()


@dataclass(frozen=True, slots=True)
class Held:
    """By a process and its descendants together."""

    processes: int
    threads: int
    descriptors: int
    memory_bytes: int
    """Proportional set size: what they share counts once."""

    def __str__(self) -> str:
        return (
            f"{self.processes} processes, {self.threads} threads, {self.descriptors} descriptors, "
            f"{self.memory_bytes / 1e6:.0f} MB"
        )


def held_by(pid: int) -> Held:
    """What a running process and its descendants hold now; those that end meanwhile count in part."""
    pids = list(family(pid))
    threads = descriptors = memory = 0
    for member in pids:
        with suppress(OSError):
            threads += len(list((_PROC / str(member) / "task").iterdir()))
            descriptors += len(list((_PROC / str(member) / "fd").iterdir()))
            memory += _memory_bytes(member)
    return Held(len(pids), threads, descriptors, memory)


def family(pid: int) -> Iterator[int]:
    """The process and all its descendants, parents first."""
    yield pid
    with suppress(OSError):
        for listed in sorted((_PROC / str(pid) / "task").glob("*/children")):
            with suppress(OSError):
                for child in listed.read_text().split():
                    yield from family(int(child))


def opened_files(pid: int) -> list[str]:
    """What the descriptors of the family lead to, sorted: to see which were leaked."""
    found: list[str] = []
    for member in family(pid):
        with suppress(OSError):
            for descriptor in (_PROC / str(member) / "fd").iterdir():
                with suppress(OSError):
                    found.append(f"{member}: {descriptor.readlink()}")
    return sorted(found)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def _memory_bytes(pid: int) -> int:
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
