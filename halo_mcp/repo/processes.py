"""Running a program with a deadline and a limit on what it may write."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from halo_mcp.repo.walk import Clock

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program came to."""

    output: bytes
    cut: bool
    """It wrote more than was allowed, and was stopped."""
    code: int
    error: str
    """What it wrote to stderr, at most 2,000 characters."""


def run(command: Sequence[str], directory: Path, environment: Mapping[str, str], clock: Clock, max_bytes: int) -> Ran:
    """Run a program without input, in its own process group, which is gone afterwards.

    Raises DeadlineExceeded, and OSError when it cannot be started.
    """
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            try:
                output = _read(process.stdout, clock, max_bytes)
                cut = len(output) > max_bytes
                if not cut:
                    _wait(process, clock)
            finally:
                _kill(process)
        errors.seek(0)
        return Ran(output[:max_bytes], cut, process.returncode, errors.read(2_000).decode("utf-8", "replace").strip())


def _read(stream: IO[bytes], clock: Clock, max_bytes: int) -> bytes:
    parts, size = list[bytes](), 0
    while size <= max_bytes:
        if not select.select([stream], [], [], clock.left())[0]:
            continue  # the clock raises
        part = os.read(stream.fileno(), _CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _wait(process: subprocess.Popen[bytes], clock: Clock) -> None:
    while True:
        try:
            process.wait(clock.left())
        except subprocess.TimeoutExpired:
            continue
        return


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left of it; macOS says so in the second way
