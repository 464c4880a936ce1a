"""Worker processes: what they may do, when they are killed, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.errors import Cancelled, SandboxUnavailable, WorkerStopped
from halo_mcp.index.work import Work
from halo_mcp.sandbox.process import WorkerProcess

SCRIPT = Path(__file__).with_name("toy_worker.py")
MEMORY = 1 << 30
LINUX = sys.platform == "linux"


def toy(manner: str = "", **options: Any) -> WorkerProcess:
    return WorkerProcess("toy", SCRIPT, [str(2 * MEMORY), manner], **{"memory_bytes": 128 << 20, **options})


@pytest.fixture(name="worker")
def _worker() -> Generator[WorkerProcess]:
    worker = toy()
    yield worker
    worker.close()
    assert worker.pid is None


def ask(worker: WorkerProcess, do: str, deadline_s: float = 20.0, **rest: Any) -> dict[str, Any]:
    return worker.request({"do": do, **rest}, deadline_s, Work())


def test_a_worker_starts_at_its_first_request_and_stays_for_the_next(worker: WorkerProcess) -> None:
    assert worker.pid is None
    assert ask(worker, "echo", value="hé") == {"value": "hé"}
    first = worker.pid
    assert ask(worker, "echo", value=[1]) == {"value": [1]}
    assert worker.pid == first
    assert worker.starts == 1


def test_calls_of_the_worker_are_answered_before_its_reply(worker: WorkerProcess) -> None:
    reply = worker.request({"do": "ask", "value": 20}, 20, Work(), lambda call: {"answer": call["value"] + 1})
    assert reply == {"value": 21}


@pytest.mark.parametrize(
    "do, deadline_s, why, says",
    [
        ("spin", 0.3, "time", "toy was stopped: it took longer than 0.3 s."),
        ("grow", 20, "memory", "toy was stopped: it needed more than 128 MB of memory."),
        ("exit", 20, "ended", "toy came to no result: its worker process ended (exit code 7)"),
        ("lie", 20, "reply", "toy was stopped: its worker sent a frame that is no JSON."),
    ],
)
def test_a_worker_that_goes_too_far_is_replaced_at_the_next_request(
    worker: WorkerProcess, do: str, deadline_s: float, why: str, says: str
) -> None:
    if why == "memory" and not LINUX:
        pytest.skip("resident memory is watched on Linux only")
    with pytest.raises(WorkerStopped) as caught:
        ask(worker, do, deadline_s)
    assert caught.value.why == why
    assert str(caught.value).startswith(says)
    assert worker.pid is None
    assert ask(worker, "echo", value=1) == {"value": 1}
    assert worker.starts == 2


def test_a_reply_that_is_too_long_is_not_read(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerStopped) as caught:
        ask(worker, "flood", chars=2 << 20)
    assert caught.value.why == "reply"


def test_a_caller_that_leaves_ends_the_worker(worker: WorkerProcess) -> None:
    ask(worker, "echo", value=1)
    first = worker.pid
    assert first is not None
    work = Work()
    threading.Timer(0.2, work.stop).start()
    with pytest.raises(Cancelled):
        worker.request({"do": "spin"}, 20, work)
    assert not alive(first)


def test_a_worker_killed_from_outside_is_reported_and_replaced(worker: WorkerProcess) -> None:
    ask(worker, "echo", value=1)
    pid = worker.pid
    assert pid is not None
    threading.Timer(0.2, os.kill, [pid, signal.SIGKILL]).start()
    with pytest.raises(WorkerStopped, match=r"ended \(signal SIGKILL\)"):
        ask(worker, "spin")
    assert ask(worker, "echo", value=1) == {"value": 1}


def test_closing_in_the_middle_of_a_request_ends_it(worker: WorkerProcess) -> None:
    ask(worker, "echo", value=1)
    threading.Timer(0.2, worker.close).start()
    with pytest.raises(WorkerStopped):
        ask(worker, "spin")


def test_requests_of_several_threads_wait_for_each_other(worker: WorkerProcess) -> None:
    found: list[Any] = []

    def echo(number: int) -> None:
        found.append(ask(worker, "echo", value=number)["value"])

    threads = [threading.Thread(target=echo, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == list(range(8))
    assert worker.starts == 1


def test_an_idle_worker_ends() -> None:
    worker = toy(idle_s=0.05)
    ask(worker, "echo", value=1)
    process: Any = worker._process  # pyright: ignore[reportPrivateUsage]  # to wait for the end of the process
    assert process.wait(20) is not None
    assert ask(worker, "echo", value=1) == {"value": 1}
    assert worker.starts == 2
    worker.close()


@pytest.mark.parametrize(
    "manner, reason",
    [
        ("broken", "this machine lacks a part"),
        ("crash", "its process ended at once (signal SIGABRT)"),
        ("slow", "its process did not get ready in 0.5 s"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_sentence(manner: str, reason: str) -> None:
    worker = toy(manner, start_s=0.5 if manner == "slow" else 20)
    with pytest.raises(SandboxUnavailable) as caught:
        ask(worker, "echo", value=1)
    assert str(caught.value) == f"toy is not available here: {reason}. All other tools work."
    assert worker.pid is None


@pytest.mark.skipif(not LINUX, reason="confined on Linux only")
def test_a_confined_worker_reaches_no_file_no_network_and_no_program(worker: WorkerProcess, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    ask(worker, "echo", value=1)
    assert worker.ready["confined"]["rlimits"]
    if worker.ready["confined"]["landlock"]:
        assert "PermissionError" in ask(worker, "read", path=str(secret))["error"]
        assert "PermissionError" in ask(worker, "write", path=str(tmp_path / "new.txt"))["error"]
    if worker.ready["confined"]["seccomp"]:
        assert "PermissionError" in ask(worker, "connect")["error"]
        assert "PermissionError" in ask(worker, "run")["error"]
    assert not (tmp_path / "new.txt").exists()


@pytest.mark.skipif(not LINUX, reason="threads are listed on Linux only")
def test_every_thread_of_a_confined_worker_is_confined(worker: WorkerProcess) -> None:
    ask(worker, "echo", value=1)
    if not worker.ready["confined"]["seccomp"]:
        pytest.skip("no seccomp here")
    statuses = [path.read_text() for path in Path(f"/proc/{worker.pid}/task").glob("*/status")]
    assert len(statuses) > 1
    assert all("Seccomp:\t2" in status and "NoNewPrivs:\t1" in status for status in statuses)


def test_a_worker_ends_when_its_host_is_killed_even_while_it_is_busy() -> None:
    host = """
import sys, threading, pathlib
from halo_mcp.index.work import Work
from halo_mcp.sandbox.process import WorkerProcess
worker = WorkerProcess("toy", pathlib.Path(sys.argv[1]), [str(1 << 31)], memory_bytes=1 << 30)
worker.request({"do": "echo", "value": 1}, 20, Work())
print(worker.pid, flush=True)
worker.request({"do": "spin"}, 60, Work())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", host, str(SCRIPT)], stdout=subprocess.PIPE, text=True, cwd=SCRIPT.parents[2]
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    watch = os.pidfd_open(pid) if LINUX else None
    process.kill()
    process.wait(20)
    process.stdout.close()
    if watch is not None:
        import select

        assert select.select([watch], [], [], 20)[0]
        os.close(watch)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
