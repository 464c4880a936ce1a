"""The host's side of a worker process: started when needed, watched while it works, killed when it goes too far."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

from halo_mcp.errors import SandboxUnavailable, WhyStopped, WorkerStopped
from halo_mcp.index.work import Work
from halo_mcp.sandbox.frames import Frame, FrameError, read_frame, write_frame

Answering = Callable[[Frame], Frame]
"""What the host answers to a call that a worker makes while it works."""

_WATCH_EVERY_S: Final = 0.02
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP")
_READY_BYTES: Final = 1 << 16


class WorkerProcess:
    """One worker, shared by all threads: requests wait for each other.

    It is started by the first request after its creation, its death, ``close`` or ``idle_s`` seconds without work. It
    ends with the host, however that ends: its standard input is closed then.
    """

    def __init__(
        self,
        tool: str,
        script: Path,
        arguments: Sequence[str],
        *,
        memory_bytes: int,
        start_s: float = 60.0,
        idle_s: float = 300.0,
        max_reply_bytes: int = 1 << 20,
    ) -> None:
        """``tool`` names it in errors. ``memory_bytes`` is resident memory, watched on Linux."""
        self._tool = tool
        self._command = [sys.executable, "-I", str(script), *arguments]
        self._memory_bytes = memory_bytes
        self._start_s = start_s
        self._idle_s = idle_s
        self._max_reply_bytes = max_reply_bytes
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes]], WorkerProcess] | None = None
        """Ends the process with this object, or with the host."""
        self._setup: Frame | None = None
        self._idle: threading.Timer | None = None
        self.starts = 0
        """How often it was started: a change between two requests means that its state is lost."""
        self.ready: Mapping[str, Any] = {}
        """What the worker said when it was ready."""

    @property
    def pid(self) -> int | None:
        """Of the running process, if one runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def request(
        self,
        frame: Frame,
        deadline_s: float,
        work: Work,
        on_call: Answering | None = None,
        setup: Frame | None = None,
    ) -> Frame:
        """The worker's reply to ``frame``; frames with a "call" that come before it are answered by ``on_call``.

        ``setup`` is sent before anything else when the worker starts; with another one than before it starts anew.
        Raises: SandboxUnavailable when it cannot be started; WorkerStopped when it was killed at the deadline or over
        its memory, or ended; Cancelled and DeadlineExceeded of ``work``, after which it is dead too.
        """
        with self._my_turn(work):
            process = self._running(work, setup)
            with self._watched(process, deadline_s, work):
                _send(process, frame)
                while "call" in (reply := _received(process, self._max_reply_bytes)) and on_call is not None:
                    _send(process, on_call(reply))
                return reply

    def start(self, work: Work) -> None:
        """Start the process unless it runs. Raises: SandboxUnavailable; Cancelled and DeadlineExceeded of ``work``."""
        with self._my_turn(work):
            self._running(work, None)

    def close(self) -> None:
        """End the process now, also in the middle of a request. A later request starts it anew."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
        if self._end is not None:
            self._end.detach()

    @contextmanager
    def _my_turn(self, work: Work) -> Generator[None]:
        while not self._turn.acquire(timeout=_WATCH_EVERY_S):
            work.check()
        try:
            work.check()
            if self._idle is not None:
                self._idle.cancel()
            yield
        finally:
            if self.pid is not None:
                self._idle = threading.Timer(self._idle_s, self._end_when_idle)
                self._idle.daemon = True
                self._idle.start()
            self._turn.release()

    def _end_when_idle(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._turn.release()

    def _running(self, work: Work, setup: Frame | None) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None and setup == self._setup:
            return self._process
        self.close()
        self._setup = setup
        process = self._process = self._started()
        self._end = weakref.finalize(self, _kill, process)
        try:
            with self._watched(process, self._start_s, work):
                if setup is not None:
                    _send(process, setup)
                ready = _received(process, _READY_BYTES)
        except WorkerStopped as error:
            reason = {
                "time": f"its process did not get ready in {error.detail}",
                "memory": f"its process needed more than {error.detail} before it was ready",
                "ended": f"its process ended at once ({error.detail})",
                "reply": f"its process said {error.detail}",
            }[error.why]
            raise SandboxUnavailable(self._tool, reason) from error
        if "unavailable" in ready:
            self.close()
            raise SandboxUnavailable(self._tool, str(ready["unavailable"])[:300])
        self.ready = ready
        self.starts += 1
        return process

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {"TZ": "UTC"},
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise SandboxUnavailable(self._tool, f"its process cannot be started: {error.strerror}") from error

    @contextmanager
    def _watched(self, process: subprocess.Popen[bytes], deadline_s: float, work: Work) -> Generator[None]:
        """Kill the process when it takes too much, and whenever what is inside does not end well; say why."""
        watch = _Watch(process, deadline_s, self._memory_bytes, work)
        try:
            with watch:
                yield
        except (OSError, EOFError, FrameError) as error:
            if isinstance(error, EOFError):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)  # it is ending by itself: how it ends says why
            _kill(process)
            work.check()
            why: WhyStopped = watch.why or ("reply" if isinstance(error, FrameError) else "ended")
            limit = {"time": f"{deadline_s:g} s", "memory": f"{self._memory_bytes >> 20} MB"}
            detail = limit.get(why) or (str(error) if why == "reply" else _ending(process.returncode))
            raise WorkerStopped(self._tool, why, detail) from error
        except BaseException:
            _kill(process)
            raise


class _Watch:
    """Looks after a process while a request runs, and kills it when time, memory or the caller's patience are over."""

    def __init__(self, process: subprocess.Popen[bytes], deadline_s: float, memory_bytes: int, work: Work) -> None:
        self.why: Literal["time", "memory"] | None = None
        self._process = process
        self._ends_at = time.monotonic() + deadline_s
        self._memory_bytes = memory_bytes
        self._work = work
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="halo-mcp-worker-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_WATCH_EVERY_S):
            if time.monotonic() >= self._ends_at:
                self.why = "time"
            elif _resident_bytes(self._process.pid) > self._memory_bytes:
                self.why = "memory"
            if self.why or self._work.stopped or self._work.expired:
                _kill(self._process)
                return


def _resident_bytes(pid: int) -> int:
    """Memory that a process really uses; 0 where that is not told."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it started, without asking; leaves no zombie."""
    if process.poll() is None:
        try:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except ProcessLookupError:
            pass  # it was faster
        process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            _pipe(pipe).close()
        except OSError:
            pass  # unsent bytes, which nobody reads any more


def _send(process: subprocess.Popen[bytes], frame: Frame) -> None:
    write_frame(_pipe(process.stdin), frame)


def _received(process: subprocess.Popen[bytes], limit: int) -> Frame:
    """The next frame. Raises: EOFError, FrameError."""
    frame = read_frame(_pipe(process.stdout), limit)
    if frame is None:
        raise EOFError
    return frame


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            pass  # a signal that has no name
    return f"exit code {code}"
