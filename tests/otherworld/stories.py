"""What happens in one trace of the coding agent, with the failure mode of its plan woven in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from tests.otherworld.plan import Attempt
from tests.otherworld.recorder import Agent, Fault, Recorded, Recorder

MODULES: Final = ("billing", "catalog", "ledger", "mailer", "search", "sessions")
REFUSAL: Final = "I'm sorry, but I can't help with that request."
MAX_TURNS: Final = "Stopped: reached the maximum number of turns (25) before the task was done."
_SOURCE: Final = """import logging

log = logging.getLogger(__name__)


def load(path):
    try:
        return parse(path.read_text())
    except ValueError as error:
        log.error("Error: cannot parse %s", path)
        raise RuntimeError("Traceback (most recent call last): see the log") from error


def describe(result):
    if result.get("error"):
        return {"success": False, "error": result["error"]}
    return {"success": True, "error": None}
"""
_LOG: Final = '{"time": "12:00:%02d", "level": "info", "message": "request served", "error": "", "request": "r%d"}'
_FALSE_ALARMS: Final = {
    "source": _SOURCE + "\n".join(f"FIELD_{n} = 'value {n}'" for n in range(60)),
    "log": "\n".join([_LOG % (n, n) for n in range(40)] + ['{"level": "info", "message": "closed", "error": null}']),
    "json": json.dumps({"ok": True, "error": None, "errors": [], "result": {"lines": 12, "failed": 0}}),
    "docs": "Troubleshooting\n\n" + "If the client says `Error: 429 Too Many Requests`, wait and try again.\n" * 12,
}
"""Results of read_file that quote failures and tell none."""


def record(attempt: Attempt, seed: int) -> list[Recorded]:
    """The spans of one attempt, children before parents."""
    rng = Random(f"{seed}/{attempt.number}")
    return _Story(Recorder(attempt.number, rng), rng, attempt).tell()


class _GaveUp(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Story:
    def __init__(self, recorder: Recorder, rng: Random, attempt: Attempt) -> None:
        self.recorder = recorder
        self.rng = rng
        self.attempt = attempt
        self.mode = attempt.mode
        self.module = rng.choice(MODULES)
        self.path = f"/repo/src/{self.module}/part_{rng.randint(10, 99)}.py"

    def tell(self) -> list[Recorded]:
        root = self.recorder.open("engineer", f"Fix issue #{self.rng.randint(100, 999)} in {self.module}.")
        fault, answer = None, ""
        try:
            answer = self._work(root)
        except _GaveUp as gave_up:
            fault = gave_up.fault
        task = {"task.id": f"issue-{self.attempt.number % 60}"}
        if self.attempt.outcome != "unknown":
            task["task.outcome"] = self.attempt.outcome
        mode = self.mode if self.mode == "max_turns" else ""
        self.recorder.close(root, answer, fault=fault, mode=mode, task=task)
        return self.recorder.recorded

    def _work(self, root: Agent) -> str:
        """All that happens below the root; returns its answer. Raises: _GaveUp."""
        tool = self.recorder.tool
        if self.mode == "refusal":
            self.recorder.chat(root, REFUSAL, mode="refusal")
            return REFUSAL
        if self.mode == "rate_limited":
            self._rate_limit(root)
        tool(root, "shell", {"command": f"ls src/{self.module}"}, f"{self.path}\nexit code: 0")
        self._shell(root)
        alarm = self.rng.choice([*_FALSE_ALARMS, "", ""])
        result = _FALSE_ALARMS.get(alarm, f"def run():\n    return {self.rng.randint(1, 99)}\n")
        tool(root, "read_file", {"path": self.path}, result, false_alarm=alarm)
        if self.mode in ("search_timeout", "http_429", "http_500") or self.rng.random() < 0.3:
            self._search(root)
        self._edit(root)
        if self.mode == "max_turns":
            for line in range(0, 120, 40):
                tool(root, "read_file", {"path": self.path, "from": line}, f"# lines from {line}\nx = {line}\n")
            return MAX_TURNS
        self._test(root)
        return self._answer(root)

    def _rate_limit(self, agent: Agent) -> None:
        rng, faults = self.rng, list[Fault]()
        for _ in range(rng.randint(1, 2)):
            limit = f"rate limit of org-{rng.getrandbits(32):08x} reached, retry in {rng.randint(11, 99) / 10} s"
            faults.append(Fault(f"Error code: 429 - {limit}", "RateLimitError"))
            self.recorder.chat(agent, "", fault=faults[-1], mode="rate_limited")
        if self.attempt.gives_up:
            raise _GaveUp(faults[-1])

    def _fail(self, agent: Agent, tool: str, arguments: Mapping[str, Any], faults: Sequence[Fault]) -> None:
        """The call fails so many times, then the agent may give up. Raises: _GaveUp."""
        for fault in faults:
            self.recorder.tool(agent, tool, arguments, "", fault=fault, mode=self.mode)
        if self.attempt.gives_up:
            raise _GaveUp(faults[-1])

    def _shell(self, agent: Agent) -> None:
        tool, rng = self.recorder.tool, self.rng
        build = {"command": f"make {self.module}"}
        if self.mode == "shell_exit":
            out = f"make: *** [Makefile:{rng.randint(10, 90)}: all] Error 1\nexit code: 1"
            tool(agent, "shell", build, out, mode="shell_exit")
        elif self.mode == "returncode":
            out = {"stdout": "", "stderr": f"/bin/sh: {rng.randint(1, 9)}: gmake: not found", "returncode": 127}
            tool(agent, "shell", build, json.dumps(out), mode="returncode")
        elif self.mode == "loop":
            for _ in range(rng.randint(5, 8)):
                tool(agent, "shell", {"command": "git status --short"}, f" M {self.path}\nexit code: 0", mode="loop")
        elif self.mode.startswith("bare_"):
            kind = {"bare_key_error": "KeyError", "bare_assertion": "AssertionError", "bare_os_error": "OSError"}
            self._fail(agent, "shell", build, [Fault("", kind[self.mode], exception_message="")])
            tool(agent, "shell", build, json.dumps({"stdout": "built", "stderr": "", "returncode": 0}))

    def _search(self, agent: Agent) -> None:
        tool, rng, query = self.recorder.tool, self.rng, {"query": f"{self.module} release notes"}
        if self.mode == "search_timeout":
            waits = [rng.randint(10_001, 10_090) for _ in range(rng.randint(1, 3))]
            faults = [Fault(f"deadline of 10000 ms exceeded after {ms} ms", error_type="timeout") for ms in waits]
            self._fail(agent, "web_search", query, faults)
        elif self.mode == "http_429":
            message = f"Too many requests from 10.0.{rng.randint(0, 9)}.{rng.randint(1, 99)}"
            out = {"status": 429, "error": {"type": "rate_limit", "message": message}}
            tool(agent, "web_search", query, json.dumps(out), mode="http_429")
        elif self.mode == "http_500":
            out = {"status_code": 500, "body": "Internal Server Error"}
            tool(agent, "web_search", query, json.dumps(out), mode="http_500")
        hits = [{"title": f"{self.module} {n}.0", "snippet": "fixes and improvements"} for n in range(1, 4)]
        tool(agent, "web_search", {"query": f"{self.module} changelog"}, json.dumps({"status": 200, "hits": hits}))

    def _edit(self, agent: Agent) -> None:
        tool, arguments = self.recorder.tool, {"path": self.path, "content": f"VALUE = {self.rng.randint(1, 99)}\n"}
        if self.mode == "write_denied":
            denied = Fault(f"[Errno 13] Permission denied: '{self.path}'", "PermissionError")
            self._fail(agent, "write_file", arguments, [denied])
            tool(agent, "shell", {"command": f"chmod u+w {self.path}"}, "exit code: 0")
        tool(agent, "write_file", arguments, json.dumps({"written": len(arguments["content"]), "isError": False}))

    def _test(self, root: Agent) -> None:
        """Hands over to the tester. Raises: _GaveUp."""
        tester = self.recorder.open("tester", f"Run the tests of {self.module}.", root)
        try:
            self._run_tests(tester)
        except _GaveUp as gave_up:
            self.recorder.close(tester, "", fault=gave_up.fault)
            raise
        self.recorder.chat(tester, "All tests pass.")
        self.recorder.close(tester, "All tests pass.")

    def _run_tests(self, tester: Agent) -> None:
        tool, rng, suite = self.recorder.tool, self.rng, {"suite": f"tests/{self.module}"}
        if self.mode == "missing_module":
            self._fail(tester, "run_tests", suite, [self._missing_module() for _ in range(rng.randint(1, 3))])
            tool(tester, "shell", {"command": "pip install requests_cache"}, "Successfully installed\nexit code: 0")
        elif self.mode == "test_traceback":
            out = (
                f"F{'.' * rng.randint(3, 20)}\nTraceback (most recent call last):\n"
                f'  File "{self.path}", line {rng.randint(2, 80)}, in run\n'
                f"AttributeError: 'NoneType' object has no attribute 'total'\n1 failed, 11 passed"
            )
            tool(tester, "run_tests", suite, out, mode="test_traceback")
        passed = f"{rng.randint(8, 40)} passed, 0 failed in 1.{rng.randint(1, 9)} s"
        tool(tester, "run_tests", {**suite, "verbose": True}, passed)

    def _missing_module(self) -> Fault:
        place = f"/tmp/run-{self.rng.getrandbits(24):06x}/tests/conftest.py:{self.rng.randint(3, 60)}"
        return Fault(f"{place}: ModuleNotFoundError: No module named 'requests_cache'", "ModuleNotFoundError")

    def _answer(self, root: Agent) -> str:
        chat = self.recorder.chat
        if self.mode == "cut_answer":
            chat(root, f"The change to {self.path} has three parts. First, the", finish="length", mode="cut_answer")
        elif self.mode == "empty_answer":
            chat(root, "", mode="empty_answer")
        answer = f"Issue fixed in {self.path}."
        chat(root, answer)
        return answer
