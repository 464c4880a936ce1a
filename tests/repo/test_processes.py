"""Programs end, whatever they do."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from halo_mcp.errors import DeadlineExceeded
from halo_mcp.repo.processes import Ran, run
from halo_mcp.repo.root import Root
from halo_mcp.repo.walk import Clock, walk
from tests.repo.conftest import Work


def python(script: str, directory: Path, clock: Clock, max_bytes: int = 1_000) -> Ran:
    return run([sys.executable, "-c", script], directory, {"PATH": os.defpath}, clock, max_bytes)


def test_output_and_errors_come_back(tmp_path: Path) -> None:
    ran = python("import sys; print('out'); sys.exit('wrong')", tmp_path, Clock())
    assert (ran.output, ran.cut, ran.code, ran.error) == (b"out\n", False, 1, "wrong")


def test_a_program_that_writes_without_end_is_stopped(tmp_path: Path) -> None:
    ran = python("while True: print('y' * 1000)", tmp_path, Clock())
    assert (len(ran.output), ran.cut) == (1_000, True)


@pytest.mark.parametrize(
    "script",
    [
        "while True: pass",
        "import os; os.close(1)\nwhile True: pass",
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork()\nwhile True: pass",
    ],
)
def test_a_program_that_does_not_end_is_stopped_with_its_children(tmp_path: Path, script: str) -> None:
    os.mkfifo(tmp_path / "held")
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DeadlineExceeded):
        python(f"held = open('held', 'wb')\n{script}", tmp_path, Clock(0.7))
    assert select.select([reader], [], [], 10)[0] == [reader]
    assert os.read(reader, 1) == b""  # the end of the pipe: nobody holds its other end any more
    os.close(reader)


def test_a_walk_ends_when_its_time_is_over(work: Work) -> None:
    work.write("a", "")
    with pytest.raises(DeadlineExceeded, match="Narrow"):
        list(walk(Root(work.path), Clock(0)))
