"""The worker of run_code: ``python -I code_worker.py CACHE MEMORY_BYTES [GUEST]``. Runs the interpreter in ``guest``.

Frames from the host: {"run": code, "functions": [...], "seconds": s, "output_chars": n, "reset": bool}; answered by
{"output", "dropped", "error", "trap", "ms"}. While code runs, {"call": name, "arguments": text} may come before that,
each answered by {"reply": text} (see halo.wit).

Three walls stand around the code: WebAssembly (memory, time and stack are wasmtime's to limit, and there is nothing to
reach: no files, no environment, no sockets), this process, which can be killed, and its confinement on Linux.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

_PACKAGES: Final = str(Path(__file__).parents[2])
sys.path.insert(0, _PACKAGES)

from halo_mcp.sandbox.confine import confine, system_paths  # noqa: E402
from halo_mcp.sandbox.frames import Channel  # noqa: E402

sys.path.remove(_PACKAGES)

if TYPE_CHECKING:
    from wasmtime import Engine
    from wasmtime.component import Component

GUEST: Final = Path(__file__).parent / "guest"
TICK_S: Final = 0.02
"""How exact a deadline is."""
CALL_CHARS: Final = 1 << 20
"""Of a call's name and arguments: they are the guest's words, and reach the host."""
RESULT_CHARS: Final = 1 << 16
"""Of what ``run`` returns. A forged result would be parsed outside all limits of WebAssembly: 75 MB took 2 GB."""
FRAME_BYTES: Final = 128 << 20
WASM_STACK_BYTES: Final = 1 << 20
THREAD_STACK_BYTES: Final = 16 << 20
"""Far above WASM_STACK_BYTES: otherwise a deep recursion is a segmentation fault, not a trap."""
ADDRESS_SPACE_BYTES: Final = 1 << 38
"""wasmtime reserves gigabytes of addresses that it never touches."""
COMPILED_KEPT: Final = 3
"""Compiled interpreters, 43 MB each: of several versions of wasmtime or of this package."""
_NO_DEADLINE: Final = 1 << 40


class Unavailable(Exception):
    """Why no code can run here, in words that follow "run_code is not available here: "."""


# --- the interpreter, compiled ---------------------------------------------------------------------------------------
def make_engine() -> Engine:
    """Raises: Unavailable."""
    try:
        from wasmtime import Config, Engine
    except ImportError:
        raise Unavailable("wasmtime is not installed; pip install 'halo-mcp[code]' adds it") from None
    except Exception as error:  # the package is there, its library for this platform is not
        raise Unavailable(
            f"wasmtime does not load ({type(error).__name__}: {error}); pip install 'halo-mcp[code]' may repair it, "
            "if wasmtime supports this platform"
        ) from error
    config = Config()
    config.epoch_interruption = True
    config.max_wasm_stack = WASM_STACK_BYTES
    return Engine(config)


def read_artefact(guest: Path) -> bytes:
    """The interpreter as WebAssembly; it must be the one that the build recorded. Raises: Unavailable."""
    try:
        record: dict[str, str] = json.loads((guest / "halo_py.json").read_text())
        artefact = b"" if "missing" in record else (guest / "halo_py.wasm").read_bytes()
    except (OSError, ValueError):
        record, artefact = {"missing": "halo_py.wasm was not built or not packed"}, b""
    if not artefact:
        raise Unavailable(f"this installation lacks its interpreter ({record['missing']}); install a wheel that has it")
    if hashlib.sha256(artefact).hexdigest() != record.get("sha256"):
        raise Unavailable("its interpreter halo_py.wasm is not the one that was built; install halo-mcp again")
    return artefact


def compiled_path(artefact: bytes, cache: Path) -> Path:
    """Where this machine keeps the compiled interpreter."""
    import wasmtime

    parts = (hashlib.sha256(artefact).hexdigest(), version("wasmtime"), platform.machine(), wasmtime.__file__)
    return cache / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}.cwasm"


def load(engine: Engine, artefact: bytes, cache: Path, guest: Path) -> Component:
    """The compiled interpreter, from the cache; compiled first where it is not there. Raises: Unavailable."""
    from wasmtime import WasmtimeError
    from wasmtime.component import Component

    check_private(cache)
    path = compiled_path(artefact, cache)
    with suppress(WasmtimeError, OSError):
        component = Component.deserialize_file(engine, str(path))
        os.utime(path)  # so that pruning knows which are in use
        return component
    # In another process: compiling leaves threads behind, and the confinement binds only those that start after it.
    # From the file even then: what was compiled in memory needs memfd_create, which the confinement denies.
    command = [sys.executable, "-I", __file__, str(cache), "0", str(guest), "--compile"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        return Component.deserialize_file(engine, str(path))
    except (WasmtimeError, OSError) as error:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"its interpreter could not be compiled ({said[-1] if said else error})") from error


def check_private(cache: Path) -> None:
    """Make the directory. What it holds is machine code run on trust, so nobody else may write. Raises: Unavailable."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            if cache.stat().st_uid != os.getuid():
                raise Unavailable(f"its cache {cache} belongs to another user; choose another index directory")
            cache.chmod(0o700)
    except OSError as error:
        raise Unavailable(f"its cache {cache} cannot be used ({error.strerror}); choose another index directory") from (
            error
        )


def compile_into(cache: Path, guest: Path) -> None:
    """Compile the interpreter (5 to 10 s, 400 MB) into the cache, and remove the oldest there."""
    from wasmtime.component import Component

    artefact = read_artefact(guest)
    path = compiled_path(artefact, cache)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(Component(make_engine(), artefact).serialize())
    unfinished.replace(path)
    prune(cache)


def prune(cache: Path) -> None:
    """Keep the compiled interpreters that were used last."""
    by_age = sorted(cache.glob("*.cwasm"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[COMPILED_KEPT:]:
        path.unlink(missing_ok=True)


# --- the interpreter, running ----------------------------------------------------------------------------------------
class Ticker:
    """Advances the engine's clock while code runs; deadlines are counted in its ticks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = threading.Event()
        threading.Thread(target=self._tick, name="ticks", daemon=True).start()

    def _tick(self) -> None:
        while self._running.wait():
            time.sleep(TICK_S)
            self._engine.increment_epoch()

    def __enter__(self) -> None:
        self._running.set()

    def __exit__(self, *_: object) -> None:
        self._running.clear()


class Interpreter:
    """One interpreter with its variables. After a trap it is of no use any more."""

    def __init__(self, engine: Engine, component: Component, memory_bytes: int, channel: Channel) -> None:
        from wasmtime import Store, WasiConfig
        from wasmtime.component import Linker

        self._channel = channel
        self._output: list[str] = []
        self._room = 0
        self._store: Any = Store(engine)
        self._store.set_limits(memory_size=memory_bytes)
        self._store.set_epoch_deadline(_NO_DEADLINE)  # before anything runs in it: a new store is past its deadline
        self._store.set_wasi(WasiConfig())  # no directory, no environment, no arguments
        self._linker: Any = Linker(engine)
        self._linker.add_wasip2()
        with self._linker.root() as root:
            root.add_func("host-call", self._host_call)
            root.add_func("printed", self._printed)
        self._exports: Any = self._linker.instantiate(self._store, component)

    def set_functions(self, names: list[str]) -> None:
        self._export("set-functions", ",".join(names))

    def run(self, code: str, seconds: float, output_chars: int) -> dict[str, Any]:
        """Raises: what wasmtime raises at a trap; ValueError, TypeError and KeyError when the result is forged."""
        self._output, self._room = [], output_chars
        self._store.set_epoch_deadline(max(1, int(seconds / TICK_S)))
        text: str = self._export("run", code, output_chars)
        if len(text) > RESULT_CHARS:
            raise ValueError("the result is too long")
        result = json.loads(text)
        error = result["error"]
        return {"error": None if error is None else str(error), "dropped": int(result["dropped"])}

    @property
    def output(self) -> str:
        """What the last run printed, also after a trap."""
        return "".join(self._output)

    def close(self) -> None:
        """Give its memory back: the store, the linker and their callbacks refer to each other."""
        for part in (self._linker, self._store):
            with suppress(Exception):
                part.close()
        self._exports = self._linker = self._store = None

    def _export(self, name: str, *arguments: Any) -> Any:
        function = self._exports.get_func(self._store, name)
        result = function(self._store, *arguments)
        function.post_return(self._store)
        return result

    def _printed(self, _: Any, text: str) -> None:
        text = text[: self._room]
        self._room -= len(text)
        if text:
            self._output.append(text)

    def _host_call(self, _: Any, name: str, arguments: str) -> str:
        if len(name) + len(arguments) > CALL_CHARS:
            return f"!The arguments are longer than {CALL_CHARS} characters."
        self._channel.send({"call": name, "arguments": arguments})
        return str(self._channel.receive()["reply"])


def why_trapped(error: Exception) -> str:
    """time, stack, memory or other: what ended a run. That "unreachable" means memory is the likeliest reading only."""
    text = str(error)
    if "wasm trap: interrupt" in text:
        return "time"
    if "call stack exhausted" in text:
        return "stack"
    return "memory" if "unreachable" in text or "alloc" in text else "other"


def serve(engine: Engine, component: Component, memory_bytes: int, channel: Channel) -> None:
    """Answer the host until it is gone."""
    interpreter: Interpreter | None = None
    ticker = Ticker(engine)
    while True:
        asked = channel.receive()
        started = time.perf_counter()
        if interpreter is not None and asked["reset"]:
            interpreter.close()
            interpreter = None
        if interpreter is None:
            interpreter = Interpreter(engine, component, memory_bytes, channel)
            interpreter.set_functions(asked["functions"])
        result: dict[str, Any] = {"error": None, "dropped": 0}
        trap = None
        try:
            with ticker:
                result = interpreter.run(asked["run"], asked["seconds"], asked["output_chars"])
        except Exception as error:  # a trap has no type of its own
            trap = why_trapped(error)
        output = interpreter.output
        if trap:
            interpreter.close()
            interpreter = None
        ms = (time.perf_counter() - started) * 1000
        channel.send({**result, "output": output, "trap": trap, "ms": round(ms, 1)})


def main() -> None:
    """Get everything ready, give up every right, then serve."""
    cache, memory_bytes = Path(sys.argv[1]), int(sys.argv[2])
    guest = Path(sys.argv[3]) if len(sys.argv) > 3 else GUEST
    if "--compile" in sys.argv:
        compile_into(cache, guest)
        return
    channel = Channel(FRAME_BYTES)
    try:
        engine = make_engine()
        component = load(engine, read_artefact(guest), cache, guest)
    except Unavailable as error:
        channel.send({"unavailable": str(error)})
        return
    applied = confine([*system_paths(), str(cache)], ADDRESS_SPACE_BYTES)
    channel.listen()
    channel.send({"ready": True, "confined": applied})
    threading.stack_size(THREAD_STACK_BYTES)
    server = threading.Thread(target=serve, args=(engine, component, memory_bytes, channel), name="interpreter")
    server.start()
    server.join()


if __name__ == "__main__":
    main()
