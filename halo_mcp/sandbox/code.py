"""The host's side of run_code: Python interpreters in worker processes, each kept under a name with its variables."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import orjson

from halo_mcp.errors import DeadlineExceeded, HaloError, SandboxError, WorkerStopped, let_go
from halo_mcp.index.work import Work
from halo_mcp.sandbox.frames import Frame
from halo_mcp.sandbox.process import WorkerProcess

TOOL: Final = "run_code"
WORKER: Final = Path(__file__).with_name("code_worker.py")
GUEST: Final = Path(__file__).parent / "guest"

_GRACE_S: Final = 2.0
"""The interpreter ends itself at the deadline and keeps what it printed; the process is killed this much later."""
_START_S: Final = 180.0
"""The first start on a machine compiles for 5 to 10 s, on a busy one for longer."""
_IDLE_S: Final = 900.0
_HOST_MEMORY_BYTES: Final = 512 << 20
"""What the worker may take beside the interpreter's memory: its libraries, and replies on their way."""
_FRAME_BYTES: Final = 16 << 20
"""Of a frame from the worker; code is untrusted, so what it says is measured before it is read."""
_NAMES_KEPT: Final = 256
_log = logging.getLogger(__name__)

HostFunction = Callable[[list[Any], dict[str, Any], Work], Any]
"""Positional and named arguments as the code gave them (any JSON), and the work that is left to the run.

Returns a JSON value, or Rows. Raises HaloError, whose message the code gets as an exception.
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """Many JSON values, made one by one; the code gets a list of them."""

    values: Iterable[Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take."""

    seconds: float = 20.0
    """Host calls included."""
    memory_bytes: int = 512 << 20
    output_chars: int = 20_000
    host_calls: int = 10_000
    reply_bytes: int = 32 << 20
    """Of one host call's result."""


@dataclass(frozen=True, slots=True)
class CodeResult:
    """How a run went."""

    output: str
    error: str | None
    """The traceback of what the code raised, or a sentence about what ended it; None when it ran to its end."""
    stopped: Literal["time", "memory", "stack", "ended"] | None
    """What ended the run from outside; the variables are gone then."""
    forgotten: bool
    """The variables of earlier runs were gone before this one began, without reset."""
    dropped_chars: int
    host_calls: int
    duration_ms: float


class CodeSessions:
    """Interpreters by name; a few live at a time, and the one unused for longest makes room for a new one."""

    def __init__(self, cache: Path, limits: Limits = Limits(), *, most_live: int = 3, guest: Path = GUEST) -> None:
        """``cache``: a directory of its own for the compiled interpreter; ``guest`` holds the one to compile."""
        self._cache, self._guest = cache, guest
        self._limits = limits
        self._most_live = most_live
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()
        self._starting = threading.Lock()

    def run(
        self, name: str, code: str, functions: Mapping[str, HostFunction], work: Work, *, reset: bool = False
    ) -> CodeResult:
        """Run ``code`` in the interpreter ``name``, which is started when it is not there; runs of one name wait.

        Raises: SandboxUnavailable; SandboxError when too many run at once; Cancelled when ``work`` is stopped, after
        which the interpreter is gone.
        """
        with self._borrowed(name) as session:
            return session.run(code, functions, work, reset)

    def close(self) -> None:
        """End all interpreters."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.process.close()

    def pid(self, name: str) -> int | None:
        """Of the process behind a name, if one runs."""
        session = self._sessions.get(name)
        return None if session is None else session.process.pid

    @contextmanager
    def _borrowed(self, name: str) -> Generator[_Session]:
        with self._lock:
            session = self._sessions.setdefault(name, _Session(self._new_process(), self._limits, self._starting))
            self._sessions.move_to_end(name)
            session.users += 1
            try:
                self._make_room(session)
            except SandboxError:
                session.users -= 1
                raise
        try:
            yield session
        finally:
            with self._lock:
                session.users -= 1

    def _new_process(self) -> WorkerProcess:
        return WorkerProcess(
            TOOL,
            WORKER,
            [str(self._cache), str(self._limits.memory_bytes), str(self._guest)],
            memory_bytes=self._limits.memory_bytes + _HOST_MEMORY_BYTES,
            start_s=_START_S,
            idle_s=_IDLE_S,
            max_reply_bytes=_FRAME_BYTES,
        )

    def _make_room(self, wanted: _Session) -> None:
        others = [session for session in self._sessions.values() if session is not wanted]
        live = [session for session in others if session.users or session.process.pid is not None]
        idle = [session for session in live if not session.users]
        for session in idle[: max(0, len(live) + 1 - self._most_live)]:
            session.process.close()
            live.remove(session)
        if len(live) >= self._most_live:
            raise SandboxError(
                f"run_code is busy in {len(live)} sessions, as many as may run at once. Wait for one to end."
            )
        for name in list(self._sessions)[:-_NAMES_KEPT]:
            if not self._sessions[name].users:
                self._sessions.pop(name).process.close()


class _Session:
    """One interpreter. ``users`` counts the calls that wait for it or run in it."""

    def __init__(self, process: WorkerProcess, limits: Limits, starting: threading.Lock) -> None:
        self.process = process
        self.users = 0
        self._limits = limits
        self._starting = starting
        self._turn = threading.Lock()
        self._kept_since: int | None = None
        """Which start of the process has the variables of earlier runs; None when there are none."""

    def run(self, code: str, functions: Mapping[str, HostFunction], work: Work, reset: bool) -> CodeResult:
        with _held(self._turn, work):
            self._start(work)
            forgotten = self._kept_since not in (None, self.process.starts) and not reset
            result = _Run(self.process, self._limits, functions, work, forgotten).result(code, reset)
            self._kept_since = self.process.starts if result.stopped is None else None
            return result

    def _start(self, work: Work) -> None:
        if self.process.pid is not None:
            return
        # One at a time: where the interpreter is not compiled yet, the first to start does it for all.
        with _held(self._starting, work):
            work.report(0, 1, "starting Python (the first start on a machine compiles it: about 10 s)")
            self.process.start(work)


class _Run:
    """One run of code: its deadline, its host calls, and how it went."""

    def __init__(
        self,
        process: WorkerProcess,
        limits: Limits,
        functions: Mapping[str, HostFunction],
        work: Work,
        forgotten: bool,
    ) -> None:
        self._process = process
        self._limits = limits
        self._functions = functions
        self._work = work
        self._call_work = work.renewed(limits.seconds)
        self._forgotten = forgotten
        self._calls = 0
        self._began = time.monotonic()

    def result(self, code: str, reset: bool) -> CodeResult:
        frame = {
            "run": code,
            "functions": list(self._functions),
            "seconds": self._limits.seconds,
            "output_chars": self._limits.output_chars,
            "reset": reset,
        }
        try:
            reply = self._process.request(frame, self._limits.seconds + _GRACE_S, self._work, self._answer)
        except WorkerStopped as error:
            return self._stopped("", error.why if error.why in ("time", "memory") else "ended", str(error))
        output = str(reply["output"])[: self._limits.output_chars]
        if trap := reply["trap"]:
            stopped = trap if trap in ("time", "memory", "stack") else "ended"
            return self._stopped(output, stopped, self._sentence(stopped))
        return self._made(output, reply["error"], None, int(reply["dropped"]))

    def _stopped(self, output: str, stopped: Any, error: str) -> CodeResult:
        return self._made(output, error, stopped, 0)

    def _made(self, output: str, error: str | None, stopped: Any, dropped: int) -> CodeResult:
        ms = (time.monotonic() - self._began) * 1000
        return CodeResult(output, error, stopped, self._forgotten, dropped, self._calls, ms)

    def _sentence(self, stopped: str) -> str:
        return {
            "time": f"Stopped: the code took longer than {self._limits.seconds:g} s, calls of functions included. "
            "Narrow the filters, name fields=[...] in spans(), or let sql() count.",
            "memory": f"Stopped: the code needed more than {self._limits.memory_bytes >> 20} MB of memory. "
            "Keep counts instead of spans, batch by batch.",
            "stack": "Stopped: the stack was full; the data is nested too deeply, or the recursion is.",
            "ended": "Stopped: the interpreter broke.",
        }[stopped]

    # --- what the code asks the host ---------------------------------------------------------------------------------
    def _answer(self, call: Frame) -> Frame:
        """The reply to a call, never an exception: what the code did wrong is the code's to handle."""
        self._calls += 1
        if self._calls > self._limits.host_calls:
            return {"reply": f"!One run may call functions {self._limits.host_calls} times; fetch more with each call."}
        name = str(call["call"])
        try:
            return {"reply": self._limited(self._value(name, str(call["arguments"])))}
        except DeadlineExceeded:
            return {"reply": f"!{self._sentence('time')}"}
        except HaloError as error:
            let_go(error)
            return {"reply": f"!{error}"}
        except Exception:
            _log.exception("the function %s of run_code failed", name)
            return {"reply": f"!Internal error in {name}(); the server's log has the details."}

    def _value(self, name: str, arguments: str) -> str:
        if name not in self._functions:
            raise SandboxError(f"There is no function {name[:100]!r}. Functions: {', '.join(self._functions)}.")
        positional, named = _parsed(name, arguments)
        self._call_work.check()
        value = self._functions[name](positional, named, self._call_work)
        if isinstance(value, Rows):
            return f"*{self._lines(value)}"
        return f"={_json(value)}"

    def _lines(self, rows: Rows) -> str:
        """One line per value (JSON escapes newlines), so that the interpreter alone parses them."""
        room, lines = self._limits.reply_bytes, list[str]()
        for value in rows.values:
            self._call_work.check()
            line = _json(value)
            room -= len(line) + 1
            if room < 0:
                raise SandboxError(
                    f"The result is larger than the {self._limits.reply_bytes >> 20} MB that can be handed over; "
                    f"{len(lines)} rows fitted: name fields=[...], or give a smaller limit."
                )
            lines.append(line)
        return "\n".join(lines)

    def _limited(self, reply: str) -> str:
        if len(reply) > self._limits.reply_bytes:
            raise SandboxError(
                f"The result is larger than the {self._limits.reply_bytes >> 20} MB that can be handed over: "
                "narrow the filters, or fetch it in pages."
            )
        return reply


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, or half of a surrogate pair
        return json.dumps(value, separators=(",", ":"))


def _parsed(name: str, arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, as ``json.dumps([positional, named])`` wrote them or as somebody forged them."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        given = None
    parts = cast("list[Any]", given) if isinstance(given, list) else []
    if len(parts) != 2 or not isinstance(parts[0], list) or not isinstance(parts[1], dict):
        raise SandboxError(f"The arguments of {name}() are not what a call passes on: [[...], {{...}}] as JSON.")
    return cast("list[Any]", parts[0]), cast("dict[str, Any]", parts[1])


@contextmanager
def _held(lock: threading.Lock, work: Work) -> Generator[None]:
    """The lock, waited for as long as the work goes on. Raises: Cancelled, DeadlineExceeded."""
    while not lock.acquire(timeout=0.05):
        work.check()
    try:
        yield
    finally:
        lock.release()
