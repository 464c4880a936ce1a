"""Code that means harm: each attack is contained, said in a sentence, and the next call works."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from halo_mcp.errors import Cancelled, HaloError, SandboxError
from halo_mcp.index.work import Work
from halo_mcp.sandbox.code import CodeResult, CodeSessions, HostFunction, Limits, Rows
from tests.sandbox.interpreter import compiled_cache, needs_interpreter

pytestmark = needs_interpreter

MEMORY: Final = 160 << 20
LIMITS: Final = Limits(seconds=1.0, memory_bytes=MEMORY, output_chars=20_000, host_calls=300, reply_bytes=1 << 20)
PATIENCE_S: Final = 30


def echo(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    return [positional, named]


def refuse(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    raise HaloError("Ask for something else.")


def fail(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    raise KeyError("a secret of the host")


def giant(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    return "x" * (2 << 20)


def endless(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    return Rows(iter(lambda: "row" * 1_000, None))


def wait(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
    stopped = threading.Event()
    while not stopped.wait(0.01):
        work.check()


FUNCTIONS: Final[dict[str, HostFunction]] = {
    function.__name__: function for function in (echo, refuse, fail, giant, endless, wait)
}


@pytest.fixture(scope="module")
def sessions() -> Generator[CodeSessions]:
    made = CodeSessions(compiled_cache(), LIMITS)
    yield made
    made.close()


def run(sessions: CodeSessions, code: str, name: str = "attack", *, reset: bool = False) -> CodeResult:
    return sessions.run(name, code, FUNCTIONS, Work(), reset=reset)


def attack(sessions: CodeSessions, code: str) -> CodeResult:
    """The result of an attack. Whatever it did, the next call works."""
    result = run(sessions, code)
    after = run(sessions, "print('fine')", reset=True)
    assert (after.output, after.error) == ("fine\n", None)
    return result


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- time ------------------------------------------------------------------------------------------------------------
ENDLESS: Final = {
    "a loop": "while True: pass",
    "a loop that catches everything": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "a loop that goes on in finally": "while True:\n try: 1/0\n finally: continue",
    "a long sum": "sum(range(10**12))",
    "a large power": "(10**(10**7))**(10**3)",
    "a factorial": "import math; math.factorial(10**8)",
    "many combinations": "import math; math.comb(10**8, 10**7)",
    "a backtracking regex": "import re; re.match(r'(a+)+$', 'a' * 50 + 'b')",
    "a regex with back-references": r"import re; re.match(r'(x+)\1+\1+$', 'x' * 100_000 + 'y')",
    "hashes that collide": "{i * (2**31 - 1) for i in range(60_000)}\nwhile True: pass",
    "a generator without end": "import itertools; max(itertools.count())",
    "sleep": "import time; time.sleep(1000)",
    "a busy exception": "class E(Exception):\n def __str__(self):\n  while True: pass\nraise E",
}


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_would_not_end_is_ended_at_the_deadline(sessions: CodeSessions, code: str) -> None:
    result = attack(sessions, code)
    assert result.stopped in ("time", "memory") or "MemoryError" in str(result.error)
    assert result.error


def test_the_sentence_about_time_says_what_to_do_and_what_was_printed_before_is_kept(sessions: CodeSessions) -> None:
    result = attack(sessions, "import sys\nprint('so far', flush=True)\nwhile True: pass")
    assert result.stopped == "time"
    assert result.output == "so far\n"
    assert result.error == (
        "Stopped: the code took longer than 1 s, calls of functions included. "
        "Narrow the filters, name fields=[...] in spans(), or let sql() count."
    )


# --- memory ----------------------------------------------------------------------------------------------------------
LARGE: Final = {
    "10 GB of bytes": "b'x' * (10 << 30)",
    "3 GB of text": "'x' * (3 << 30)",
    "a list of 10**10": "[0] * 10**10",
    "a growing list": "a = []\nwhile True: a.append(bytes(1_000_000))",
    "a growing dict": "d = {}\nwhile True: d[len(d)] = str(len(d)) * 1000",
    "text that doubles": "s = 'x'\nwhile True: s += s",
    "a growing bytearray": "b = bytearray()\nwhile True: b.extend(bytes(1_000_000))",
    "nesting that grows": "l = []\nwhile True: l = [l, bytes(100_000)]",
    "a list of itself, repeated": "a = [0]\nwhile True: a += a",
    "format with a huge width": "'{:>2000000000}'.format(1)",
    "a wide integer": "1 << (1 << 40)",
}


@pytest.mark.parametrize("code", LARGE.values(), ids=LARGE.keys())
def test_memory_ends_where_its_limit_is(sessions: CodeSessions, code: str) -> None:
    result = attack(sessions, code)
    assert result.stopped in ("memory", "time") or "MemoryError" in str(result.error) or "Overflow" in str(result.error)
    pid = sessions.pid("attack")
    assert pid is not None
    assert resident_bytes(pid) < MEMORY + (256 << 20)


# --- depth -----------------------------------------------------------------------------------------------------------
DEEP: Final = {
    "recursion": "def f(): return f()\nf()",
    "recursion without a limit": "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "repr": "l = []\nfor _ in range(200_000): l = [l]\nrepr(l)",
    "comparison": "a, b = [], []\nfor _ in range(200_000): a, b = [a], [b]\na == b",
    "json.loads": "import json; json.loads('[' * 200_000)",
    "json.dumps": "import json\nl = []\nfor _ in range(200_000): l = [l]\njson.dumps(l)",
    "the parser": "eval('(' * 100_000)",
    "the compiler": "compile('-' * 200_000 + '1', 'x', 'eval')",
    "an argument of a host call": "l = []\nfor _ in range(200_000): l = [l]\necho(l)",
    "a regex": "import re; re.compile('(' * 100_000)",
}


@pytest.mark.parametrize("code", DEEP.values(), ids=DEEP.keys())
def test_depth_ends_in_an_error_of_the_code_or_of_the_run(sessions: CodeSessions, code: str) -> None:
    result = attack(sessions, code)
    assert result.error
    assert result.stopped in (None, "stack", "memory", "ended", "time")


# --- output ----------------------------------------------------------------------------------------------------------
def test_a_flood_of_output_is_cut_and_counted(sessions: CodeSessions) -> None:
    result = attack(sessions, "for _ in range(1000): print('x' * 999)")
    assert (len(result.output), result.dropped_chars, result.error) == (20_000, 980_000, None)


def test_a_flood_without_end_is_cut_and_ended(sessions: CodeSessions) -> None:
    result = attack(sessions, "while True: print('x' * 100_000)")
    assert (len(result.output), result.stopped) == (20_000, "time")


def test_output_past_the_guests_own_limit_is_cut_by_the_host(sessions: CodeSessions) -> None:
    result = attack(sessions, "import wit_world\nfor _ in range(50): wit_world.printed('x' * 1_000_000)")
    assert len(result.output) == 20_000


def test_a_long_traceback_is_cut(sessions: CodeSessions) -> None:
    result = attack(sessions, "raise ValueError('x' * 10_000_000)")
    assert result.error is not None
    assert len(result.error) <= 4_000


# --- the host's files, environment, processes, network ---------------------------------------------------------------
CLOSED: Final = {
    "a file": "open('/etc/passwd').read()",
    "a file to write": "open('/tmp/owned', 'w').write('x')",
    "the root directory": "import os; os.listdir('/')",
    "a path": "import pathlib; pathlib.Path('/etc/shadow').stat()",
    "the process": "open('/proc/self/environ').read()",
    "a shell": "import os; os.system('id')",
    "fork": "import os; os.fork()",
    "kill": "import os; os.kill(1, 9)",
    "exec": "import os; os.execv('/bin/sh', ['sh'])",
    "subprocess": "import subprocess; subprocess.run(['id'])",
    "a thread": "import threading; threading.Thread(target=print).start()",
    "another process": "import multiprocessing",
    "a socket": "import socket; socket.create_connection(('127.0.0.1', 80), 1)",
    "a download": "import urllib.request; urllib.request.urlopen('http://127.0.0.1')",
    "ctypes": "import ctypes; ctypes.CDLL(None)",
    "a package": "import numpy",
    "the package itself": "import halo_mcp",
    "the host's wasmtime": "import wasmtime",
}


@pytest.mark.parametrize("code", CLOSED.values(), ids=CLOSED.keys())
def test_nothing_of_the_host_can_be_reached(sessions: CodeSessions, code: str) -> None:
    result = attack(sessions, code)
    assert result.error
    assert result.output == ""


def test_there_is_no_environment_and_no_argument(sessions: CodeSessions) -> None:
    result = attack(sessions, "import os, sys; print(dict(os.environ), sys.argv)")
    assert result.output == "{} []\n"


def test_a_walk_over_all_classes_finds_no_way_out(sessions: CodeSessions) -> None:
    result = attack(
        sessions,
        "for c in ().__class__.__base__.__subclasses__():\n"
        "    scope = getattr(getattr(c, '__init__', None), '__globals__', {})\n"
        "    for name in ('os', 'posix', 'sys'):\n"
        "        if hasattr(scope.get(name), 'system'):\n"
        "            print(scope[name].system('id > /tmp/owned'))\n"
        "print('walked')\n",
    )
    assert "walked" in result.output or result.error
    assert "uid=" not in result.output


@pytest.mark.parametrize(
    "code",
    ["import os; os._exit(0)", "import os; os.abort()", "import sys; sys.exit('bye')", "raise KeyboardInterrupt"],
)
def test_an_exit_ends_the_run_only(sessions: CodeSessions, code: str) -> None:
    assert attack(sessions, code).error


# --- the protocol ----------------------------------------------------------------------------------------------------
FORGED: Final = {
    "no JSON": "'nonsense'",
    "an incomplete object": "'{}'",
    "wrong types": """'{"error": [1], "dropped": "many"}'""",
    "no object": "'[]'",
    "10 MB": "'x' * 10_000_000",
    "25 MB of small lists": "'[' + '[],' * 8_000_000 + '[]]'",
    "deep": "'[' * 60_000",
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
def test_a_forged_result_is_refused(sessions: CodeSessions, text: str) -> None:
    result = attack(sessions, f"import json\nforged = {text}\njson.dumps = lambda *_, **__: forged")
    assert result.error is None or len(result.error) < 200
    assert result.stopped in ("ended", "memory", "time")


def test_a_forged_error_is_only_text(sessions: CodeSessions) -> None:
    result = attack(sessions, """import json\njson.dumps = lambda *_, **__: '{"error": {"a": 1}, "dropped": -5}'""")
    assert result.error == "{'a': 1}"


RAW: Final = {
    "an unknown function": ("wit_world.host_call('os.system', '[[], {}]')", "There is no function 'os.system'."),
    "no JSON": ("wit_world.host_call('echo', '{')", "The arguments of echo() are not what a call passes on"),
    "no pair": ("wit_world.host_call('echo', '[1]')", "The arguments of echo() are not what a call passes on"),
    "wrong types": ("wit_world.host_call('echo', '[{}, []]')", "The arguments of echo() are not what a call passes on"),
    "deep JSON": ("wit_world.host_call('echo', '[' * 1_000_000)", "The arguments of echo() are not what a call"),
    "1 MB": ("wit_world.host_call('echo', 'x' * (1 << 20))", "The arguments are longer than 1048576 characters."),
    "a long name": ("wit_world.host_call('x' * 500_000, '[[], {}]')", "There is no function 'xxxx"),
}


@pytest.mark.parametrize("code, reply", RAW.values(), ids=RAW.keys())
def test_a_raw_call_gets_a_refusal(sessions: CodeSessions, code: str, reply: str) -> None:
    result = attack(sessions, f"import wit_world\nprint({code}[:200])")
    assert result.error is None
    assert result.output.startswith(f"!{reply}")


def test_arguments_of_100_mb_do_not_reach_the_host(sessions: CodeSessions) -> None:
    result = attack(sessions, "echo('x' * 100_000_000)")
    assert result.host_calls == 0
    assert result.error


def test_one_run_can_call_only_so_often_and_goes_on_without(sessions: CodeSessions) -> None:
    result = attack(
        sessions,
        "refused = 0\nfor i in range(320):\n try: echo(i)\n except HaloError as e: refused += 1; last = e\n"
        "print(refused, last)",
    )
    assert result.output == "20 One run may call functions 300 times; fetch more with each call.\n"


def test_giant_results_are_refused_by_the_host(sessions: CodeSessions) -> None:
    whole, rows = run(sessions, "giant()"), attack(sessions, "endless()")
    assert "The result is larger than the 1 MB that can be handed over" in str(whole.error)
    assert "name fields=[...], or give a smaller limit" in str(rows.error)


def test_the_hosts_error_is_an_exception_and_a_bug_of_the_host_tells_nothing(
    sessions: CodeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    result = attack(
        sessions, "for f in (refuse, fail):\n try: f(1)\n except HaloError as error: print(error)\nrefuse()"
    )
    assert result.output == ("Ask for something else.\nInternal error in fail(); the server's log has the details.\n")
    assert str(result.error).endswith("HaloError: Ask for something else.\n")
    assert "guest_app" not in str(result.error)
    assert "a secret of the host" in caplog.text


def test_a_call_of_the_host_ends_with_the_run(sessions: CodeSessions) -> None:
    result = attack(sessions, "while True:\n try: wait()\n except BaseException: pass")
    assert result.stopped == "time"


# --- processes -------------------------------------------------------------------------------------------------------
def test_a_cancelled_call_ends_its_process_and_the_next_one_says_that_variables_are_gone(
    sessions: CodeSessions,
) -> None:
    run(sessions, "x = 1", "cancelled")
    before = sessions.pid("cancelled")
    work, running, raised = Work(), threading.Event(), list[BaseException]()

    def started(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
        running.set()

    def call() -> None:
        try:
            sessions.run("cancelled", "echo()\nwhile True: pass", {**FUNCTIONS, "echo": started}, work)
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert running.wait(PATIENCE_S)
    work.stop()
    thread.join(PATIENCE_S)
    assert len(raised) == 1
    assert sessions.pid("cancelled") is None
    after = run(sessions, "x", "cancelled")
    assert "NameError" in str(after.error)
    assert after.forgotten
    assert sessions.pid("cancelled") != before
    assert not run(sessions, "1", "cancelled").forgotten


def test_a_killed_process_is_told_and_replaced(sessions: CodeSessions) -> None:
    run(sessions, "x = 1", "killed")

    def kill(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
        pid = sessions.pid("killed")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    during = sessions.run("killed", "echo()", {**FUNCTIONS, "echo": kill}, Work())
    assert during.stopped == "ended"
    assert "SIGKILL" in str(during.error)
    assert run(sessions, "1 + 1", "killed").output == "2\n"
    pid = sessions.pid("killed")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    between = run(sessions, "2 + 2", "killed")
    assert (between.output, between.error) in [("4\n", None), ("", between.error)]
    assert between.forgotten or between.stopped == "ended"
    assert run(sessions, "3 + 3", "killed").output == "6\n"


def test_two_sessions_run_at_the_same_time_and_know_nothing_of_each_other(sessions: CodeSessions) -> None:
    met = threading.Barrier(2, timeout=PATIENCE_S)
    results: dict[str, CodeResult] = {}

    def meet(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
        met.wait()

    for name in ("left", "right"):
        run(sessions, "pass", name)  # started: the time to start is not the time to run

    def call(name: str) -> None:
        results[name] = sessions.run(name, f"me = {name!r}; echo()", {**FUNCTIONS, "echo": meet}, Work())

    threads = [threading.Thread(target=call, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [results[name].error for name in ("left", "right")] == [None, None]
    assert [run(sessions, "me", name).output for name in ("left", "right")] == ["'left'\n", "'right'\n"]


def test_a_few_sessions_live_and_the_one_unused_for_longest_makes_room() -> None:
    sessions = CodeSessions(compiled_cache(), LIMITS, most_live=2)
    try:
        for name in ("first", "second", "third"):
            run(sessions, f"me = {name!r}", name)
        assert [sessions.pid(name) is not None for name in ("first", "second", "third")] == [False, True, True]
        assert run(sessions, "me", "third").output == "'third'\n"
        again = run(sessions, "1", "first")
        assert again.forgotten
        assert sessions.pid("second") is None
    finally:
        sessions.close()


def test_more_sessions_at_once_than_may_live_are_refused() -> None:
    sessions = CodeSessions(compiled_cache(), LIMITS, most_live=1)
    refused: list[str] = []

    def another(positional: list[Any], named: dict[str, Any], work: Work) -> Any:
        try:
            run(sessions, "1", "other")
        except SandboxError as error:
            refused.append(str(error))

    try:
        assert sessions.run("one", "echo()", {**FUNCTIONS, "echo": another}, Work()).error is None
    finally:
        sessions.close()
    assert refused == ["run_code is busy in 1 sessions, as many as may run at once. Wait for one to end."]


def test_no_process_outlives_its_sessions() -> None:
    sessions = CodeSessions(compiled_cache(), LIMITS)
    run(sessions, "1", "only")
    pid = sessions.pid("only")
    sessions.close()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
