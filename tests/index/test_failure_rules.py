"""Which outputs count as failures although their status is fine, by which rule; and which only speak of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from halo_mcp.index import failure_columns
from halo_mcp.index.failure_rules import DEFAULT_RULES, LOOP_RULE, RULE_NAMES, SOFT_RULES
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from tests.builders import Record, at, span, store_of, write_lines

Attributes = Mapping[str, Any]


def tool(output: Any, **more: Any) -> Attributes:
    """A tool's span that returned ``output``: text as it is, anything else as JSON."""
    text = output if isinstance(output, str) else json.dumps(output)
    return {"inference.observation_kind": "TOOL", "tool.name": "run", "output.value": text} | more


def says(text: str, **more: Any) -> Attributes:
    """A model's span that answered ``text``."""
    return {"inference.observation_kind": "LLM", "llm.output_messages.0.message.content": text} | more


def messages(*parts: Any, **more: Any) -> Attributes:
    """A model's span with messages as one JSON attribute."""
    return {"inference.observation_kind": "LLM", "llm.output_messages": json.dumps(parts)} | more


def finished(reason: str, text: str = "The first three are") -> Attributes:
    return says(text, **{"gen_ai.response.finish_reasons": [reason]})


def agent(text: str = "", **more: Any) -> Attributes:
    given = {"output.value": text} if text else {}
    return {"inference.observation_kind": "AGENT", "agent.name": "planner"} | given | more


CODE: Final = '''"""Talk to the order service."""
import httpx

class OrderError(Exception):
    """Raised when the service answers with an error."""

def fetch(order_id):
    try:
        response = httpx.get(f"https://orders/{order_id}", timeout=10)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise OrderError(f"status {error.response.status_code}") from error
    except httpx.TimeoutException:
        raise OrderError("timed out") from None
    return response.json()
'''
LOG: Final = "\n".join(
    [
        f"2026-03-02 09:{minute:02}:00 INFO worker {minute} started"
        if minute % 7
        else f"2026-03-02 09:{minute:02}:00 ERROR worker {minute}: connection refused, will retry"
        for minute in range(30)
    ]
    + ["2026-03-02 09:30:00 INFO all 30 workers are up"]
)
TRACEBACK: Final = """Traceback (most recent call last):
  File "/srv/app/run.py", line 14, in <module>
    main()
  File "/srv/app/run.py", line 9, in main
    raise KeyError("order_id")
KeyError: 'order_id'
"""
DOCUMENT: Final = (
    "# Debugging\n\nWhen a script fails, Python prints where.\n\n```\n"
    + TRACEBACK
    + "```\n\nRead it from the bottom: the last line names the exception, the lines above tell where it was raised. "
    + "Then look at the frame that is yours. " * 10
)
PYTEST_FAILED: Final = """============================= test session starts ==============================
collected 3 items

tests/test_orders.py ..F                                                 [100%]

=================================== FAILURES ===================================
Traceback (most recent call last):
  File "tests/test_orders.py", line 12, in test_total
    assert total([1, 2]) == 4
AssertionError: assert 3 == 4
=========================== short test summary info ============================
FAILED tests/test_orders.py::test_total - assert 3 == 4
========================= 1 failed, 2 passed in 0.12s ==========================
"""

FAILED: Final[dict[str, tuple[Attributes, ...]]] = {
    "tool_is_error": (
        tool({"content": [{"type": "text", "text": "Order 17 does not exist"}], "isError": True}),
        tool({"type": "tool_result", "is_error": True, "content": "No rows"}),
        tool({"isError": "true", "content": []}),
        tool("No rows", **{"tool.is_error": True}),
        tool("No rows", **{"gen_ai.tool.status": "error"}),
        tool("No rows", **{"tool.status": "TIMEOUT"}),
        tool("No rows", is_error="true"),
    ),
    "exit_code": (
        tool({"stdout": "", "stderr": "make: *** [all] Error 2", "exit_code": 2}),
        tool({"output": "no tests ran", "returncode": 5}),
        tool({"stdout": "", "exitCode": "127"}),
        tool("<returncode>1</returncode>\n<output>\nls: cannot access 'x'\n</output>"),
        tool("Exit code: 1\nOutput:\nnpm ERR! missing script: build"),
        tool("exit status 2"),
        tool("Process exited with code 137"),
        tool("Command failed with exit code 1: npm run build"),
        tool("collected 0 items\nno tests ran in 0.01s\n[exit code: 5]"),
        tool("grep: nothing\nReturn code: -9"),
    ),
    "http_status": (
        tool({"status_code": 503, "body": "upstream is down"}),
        tool({"statusCode": 404, "body": ""}),
        tool({"status": 429, "title": "slow down"}),
        tool({"code": 500, "message": "internal"}),
        tool("HTTP 404 Not Found"),
        tool("HTTP/1.1 502 Bad Gateway\nserver: nginx\n\n<html></html>"),
        tool("Error 403: you may not read this"),
        tool("404 Not Found: no such page"),
        tool("Client error '404 Not Found' for url 'https://example.com/a'\nFor more information check: https://x"),
        tool("404 Client Error: Not Found for url: https://example.com/a"),
        tool("Error: Request failed with status code 500"),
        tool("The page could not be fetched (status code 451)."),
    ),
    "success_false": (
        tool({"success": False, "data": None}),
        tool({"ok": False, "why": "channel_not_found"}),
        tool({"status": "error", "data": []}),
        tool({"status": "FAILED", "id": 3}),
        tool({"state": "timed_out"}),
        tool({"completed": False}),
        tool("done", **{"tool.success": False}),
        agent("I stopped", success="false"),
    ),
    "error_field": (
        tool({"error": "no such order"}),
        tool({"error": {"message": "quota is used up", "type": "billing"}}),
        tool({"errors": [{"path": "total", "why": "negative"}], "data": None}),
        tool({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        tool({"Err": "insufficient funds"}),
        tool({"result": {"Err": "insufficient funds"}}),
        tool({"error_message": "the form was not sent", "id": 3}),
        tool({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Unknown tool: fetch"}}),
    ),
    "traceback": (
        tool(TRACEBACK),
        tool("```\n" + TRACEBACK + "```"),
        tool("starting\n" * 50 + TRACEBACK),
        tool(PYTEST_FAILED),
        tool({"stdout": "", "stderr": TRACEBACK}),
    ),
    "rate_limit": (
        tool("Rate limit reached for gpt-4o in organization org-x on tokens per min. Please try again in 2s."),
        tool("Too many requests, slow down."),
        tool("You exceeded your current quota, please check your plan and billing details."),
        tool("Error code: 529 - overloaded_error: Overloaded"),
        tool("The engine is currently overloaded, please try again later"),
        tool("RESOURCE_EXHAUSTED: quota for model"),
    ),
    "timeout": (
        tool("The request timed out after 30000 ms"),
        tool("httpx.ReadTimeout: timed out"),
        tool("Navigation timeout of 30000 ms exceeded: timeout exceeded"),
        tool("context deadline exceeded"),
        tool({"stdout": "partial", "timed_out": True}),
        tool("Command '['pytest']' timed out after 60 seconds"),
    ),
    "limit_reached": (
        agent("Max turns (10) exceeded"),
        agent("Agent stopped due to max iterations: the maximum number of iterations was reached."),
        agent("MaxTurnsExceeded"),
        agent("Reached the maximum number of steps."),
        agent("Agent stopped due to iteration limit or time limit."),
        agent("Recursion limit of 25 reached without hitting a stop condition."),
        agent("Stopped: token budget exhausted"),
        agent("All fine so far.", **{"agent.stop_reason": "max_turns"}),
        agent("", **{"agent.stop_reason": "budget_exceeded"}),
    ),
    "invalid_arguments": (
        tool("1 validation error for search\nlimit\n  Input should be less than or equal to 100"),
        tool("Invalid argument: limit must be <= 100, got 500"),
        tool("Missing required parameter: query"),
        tool("fetch() got an unexpected keyword argument 'urls'"),
        tool("search() missing 1 required positional argument: 'query'"),
        tool("Unknown tool: serch_orders"),
        tool("Tool fetch_page not found"),
        tool("Error: 'limit' is a required property"),
        tool("Input validation error: 'five' is not of type 'integer'"),
        tool("Failed to parse the arguments as JSON"),
        tool("limit must be between 1 and 100"),
        tool("Expected a list of ids but got a string: expected a list, got 'x'"),
        tool("1 validation error for Search\nquery\n  Field required [type=missing, input_value={}, input_type=dict]"),
        tool({"detail": [{"loc": ["query"], "msg": "field required"}]}),
        tool("The required parameter 'query' is missing"),
    ),
    "access_denied": (
        tool("Permission denied"),
        tool("Forbidden: you may not read this"),
        tool("Rejected by the user"),
        tool("Access denied: the file is outside the workspace"),
        tool("Unauthorized"),
        tool("Blocked by policy: write outside the workspace"),
        tool("Operation not permitted"),
    ),
    "os_error": (
        tool("cat: notes.md: No such file or directory"),
        tool("zsh: command not found: pytst"),
        tool("File not found: notes.md"),
        tool("'pytst' is not recognized as an internal or external command"),
        tool("/bin/sh: 1: pytst: command not found"),
        tool("bash: ./run.sh: Permission denied"),
        tool("curl: (7) Failed to connect to localhost port 80: Connection refused"),
        tool("curl: (6) Could not resolve host: exmaple.com"),
        tool("cp: error writing 'x': No space left on device"),
    ),
    "error_prefix": (
        tool("Error: the order is locked"),
        tool("ERROR! nothing was saved"),
        tool("Error: no order 71"),
        tool("Error: null pointer in f"),
        tool("ValueError: invalid literal for int() with base 10: 'x'"),
        tool("Failed to open the page"),
        tool("fatal: not a git repository (or any of the parent directories): .git"),
        tool("sqlite3.OperationalError: no such table: orders"),
        tool("An error occurred while running the tool. Please try again. Error: boom"),
        tool("Error executing tool search: boom"),
        tool("Error running tool (non-fatal): boom"),
        tool("[Errno 21] Is a directory: '/srv'"),
        tool("❌ nothing was sent"),
        tool("<tool_use_error>String to replace was not there</tool_use_error>"),
        tool("An unexpected error occurred: boom"),
        tool("Tool execution failed: boom"),
        tool({"message": "Error: boom"}),
        tool("npm ERR! missing script: build"),
        tool("[ERROR] nothing was saved"),
        tool("Exception: boom"),
        tool("Error while fetching the page"),
        tool("thread 'main' panicked at src/main.rs:3:5:\nboom"),
    ),
    "refusal": (
        says("I'm sorry, but I can't help with that request."),
        says("I cannot assist with that."),
        says("Sorry, I can’t comply with this request."),
        says("I am unable to help with that."),
        says("As an AI language model, I cannot provide medical advice."),
        says("I must decline this request."),
        says("I'm sorry, but I won't be able to help you with that."),
        says("I won't provide instructions for this."),
        says("Unfortunately, I can't assist with that."),
        messages({"role": "assistant", "content": "I'm sorry, but I cannot help with that."}),
        messages({"role": "assistant", "parts": [{"type": "text", "content": "I can't help with that."}]}),
        messages({"role": "assistant", "content": None, "refusal": "I'm sorry, I can't assist with that request."}),
    ),
    "content_filter": (
        finished("content_filter"),
        finished("SAFETY"),
        messages({"role": "assistant", "parts": [{"type": "text", "content": "x"}], "finish_reason": "content_filter"}),
    ),
    "finish_length": (
        finished("length"),
        finished("max_tokens"),
        says("Once upon a", stop_reason="max_tokens"),
        messages({"role": "assistant", "parts": [{"type": "text", "content": "x"}], "finish_reason": "length"}),
    ),
    "empty_output": (
        messages({"role": "assistant", "content": ""}),
        messages({"role": "assistant", "content": None}),
        messages({"role": "assistant", "parts": []}),
    ),
    "truncated_output": (
        tool("a line of text\n" * 100 + "... [output truncated, 40213 characters omitted]"),
        tool("row\n" * 20 + "<response clipped: truncated after 16000 characters>"),
        tool("row\n" * 20 + "(output truncated)"),
    ),
    "empty_tool_output": (tool(""),),
}
"""By the rule that must be named."""

FINE: Final[tuple[Attributes, ...]] = (
    # JSON that says that all is well
    tool({"error": None, "data": [1]}),
    tool({"errors": [], "data": [1]}),
    tool({"errors": {}, "ok": True}),
    tool({"success": True, "error": ""}),
    tool({"success": True, "error": "none"}),
    tool({"error": False}),
    tool({"error": 0, "value": 4}),
    tool({"status": "ok"}),
    tool({"status": 200, "body": "Error handling in Go"}),
    tool({"status_code": 201}),
    tool({"code": 0, "message": "success"}),
    tool({"code": "ABC", "price": 4}),
    tool({"code": 45, "name": "Calvados"}),
    tool({"state": "completed"}),
    tool({"status": "open", "title": "Login returns error 500", "state": "open"}),
    tool({"exit_code": 0, "stdout": "error: none\n", "stderr": ""}),
    tool({"exit_code": 0, "stderr": "warning: unused variable"}),
    tool({"isError": False, "content": [{"type": "text", "text": "The HTTP 404 page is at /404.html"}]}),
    tool({"timed_out": False, "returncode": 0}),
    tool({"results": [{"title": "How to fix error: EACCES", "error": "see below"}]}),
    tool([{"id": 1, "error_count": 3}, {"id": 2, "error_count": 0}]),
    tool({"order": {"status": "failed"}, "id": 3}),
    tool({"total": 0, "items": []}),
    tool({"id": 4, "title": "Buy milk", "completed": False}),
    tool({"invoice_id": 4, "total": 12, "finalized": False}),
    tool({"code": 415, "city": "San Francisco"}),
    tool({"exit_code": 0, "stdout": "ok", "stderr": "mirror 1 timed out, using mirror 2"}),
    tool({"success": True, "message": "Error: is how the mail's subject starts"}),
    tool({"status": "ok", "message": "The quota exceeded last month was reset"}),
    tool({"status": 200, "text": "Too many requests: a history of the web"}),
    tool({"sha": "abc", "message": "Fix requests that timed out", "files": ["client.py"] * 40}),
    # programs that went well
    tool("Error: 0\nWarning: 2"),
    tool("Errors: none"),
    tool("error: null"),
    tool("Failed: 0, passed: 12"),
    tool("Failures: 0"),
    tool("exit code 0"),
    tool("Exit code: 0\nOutput:\nerrors: 0"),
    tool("<returncode>0</returncode>\n<output>\n</output>"),
    tool("Process exited with code 0"),
    tool("12 passed, 0 failed in 3.21s"),
    tool("Build finished. 0 errors, 2 warnings."),
    tool("no errors found"),
    tool("No error."),
    tool("0 errors"),
    tool("error rate: 0.3 %"),
    tool("Success: no issues found in 14 source files"),
    tool("src/errors.py\nsrc/http_error.py\nsrc/timeout.py"),
    tool("errors.py"),
    tool("M  src/error.py\n?? notes.md"),
    # code, logs and documents that speak of errors
    tool(CODE),
    tool("class ParseError(ValueError):\n    pass\n"),
    tool("class ValidationError(Exception): ..."),
    tool("def fail():\n    raise RuntimeError('x')"),
    tool("     1\tclass TimeoutError(Exception):\n     2\t    pass\n"),
    tool("orders.py:14:    raise KeyError('order_id')\norders.py:20:    return None"),
    tool("src/app.ts:3: throw new Error('limit reached')"),
    tool("if (res.status === 404) return null;"),
    tool("except ValueError as error:"),
    tool(LOG),
    tool(DOCUMENT),
    tool("# Error handling guide\n\n" + "Wrap each call, log what failed, and retry on a timeout. " * 10),
    tool("Error handling guide: wrap each call in try, and log what failed."),
    tool("Errors and Exceptions: a chapter of the Python tutorial"),
    tool("Failure modes of bridges, a report by the ministry."),
    tool("Failed states: an atlas. London 2019."),
    tool("Exception handling in Java is done by try and catch blocks."),
    tool("Timeout handling: set timeout=10 on the client."),
    tool("| code | meaning |\n| --- | --- |\n| 404 | not found |\n| 500 | server error |\n"),
    tool("HTTP 404 means that the server has no such page."),
    tool("HTTP 500 errors are logged by the gateway."),
    tool("Exit code 1 means that some line was found, exit code 2 that grep failed."),
    tool("Set a timeout of 10 seconds."),
    tool("except TimeoutError:\n    return None"),
    tool("Rate limiting is done with a token bucket."),
    tool("C++ calls the overloaded method that fits best."),
    tool("An overloaded lorry lost its load on the A4."),
    tool("Invoices over the cost limit need the approval of a manager."),
    tool("The maximum number of attempts is 3. Once you have reached the office, ring twice."),
    tool("Missing values: 3 of 120 rows"),
    tool("Passwords must be at least 8 characters long."),
    tool("Schema validation with JSON Schema: a guide"),
    tool("Validation errors are shown below each field."),
    tool("Forbidden City, Beijing: open from 8:30 to 17:00"),
    tool("Rejected: 4, accepted: 12"),
    tool("Blocked by: #14"),
    tool("How to fix 'command not found' errors in bash"),
    tool("API errors are returned as JSON."),
    tool("Server errors are those from 500 on."),
    tool("Runtime error handling in Go"),
    tool("Error codes: E1 no paper, E2 no ink"),
    tool("KeyError: Raised when a mapping key is not found in the set of existing keys."),
    tool("2026-03-02 09:00 WARN retry\n2026-03-02 09:01 ERROR lost the connection\n2026-03-02 09:02 INFO back again"),
    tool("[ERROR] worker 7: lost\n" + LOG),
    tool("def shorten(text):\n    return text[:80] + ('' if len(text) < 80 else (\"truncated\"))"),
    tool("print(truncated)"),
    tool("HTTP status codes: 200 means OK, 404 means that a page was not found, 500 is a server error."),
    tool("Rate limits: 60 requests a minute per key for the free plan."),
    tool("The API allows 100 calls; its rate limit is described in the handbook."),
    tool("The limit for refunds is 404 euros."),
    tool("Room 404, floor 4. 500 seats."),
    tool("404 items in stock, 500 on order."),
    tool("500 service points earned."),
    tool("The maximum number of attempts is 3. See the settings page."),
    tool("The item costs 12 euros; returns are accepted within 30 days, unauthorized ones are not."),
    tool("Required fields: name, address. Optional: phone."),
    tool("Valid types are: a, b. The value must be one of these."),
    tool("Text of the page that ends in the middle of a story about truncated cones"),
    tool("The list was truncated by the editor in 1957, and printed again in 1961."),
    tool("return code of conduct 5"),
    tool("status: 4 open, 12 closed"),
    tool("invoice 4012 paid"),
    # models and agents
    says("Unfortunately the item is sold out. It will be back on Monday."),
    says("I cannot find order 17, but order 71 is on its way: is that the one you mean?"),
    says("You cannot return it after 30 days, but you can exchange it in the shop."),
    says("I can't see a delivery date yet. I can help you track the parcel: its number is 17."),
    says("The tests fail because `Error: boom` is raised in line 3; I will fix that now."),
    says("Error handling is done in `fetch`."),
    says("Sorry for the wait! Your refund of 12 euros is on its way."),
    says("I won't be long: I will look at the orders first."),
    says("I can't see the order, but I can help you to find it."),
    says("I can't find that order to provide a date. Could you give me its number?"),
    says("We cannot provide a date yet, but the parcel has left the warehouse."),
    says("I can help with that."),
    says("Sure.", **{"gen_ai.response.finish_reasons": ["stop"]}),
    says("Let me look.", stop_reason="tool_use"),
    finished("tool_calls"),
    messages({"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}),
    messages({"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}),
    messages({"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "arguments": {}}]}),
    messages({"role": "assistant", "content": "Done."}),
    agent("The report is ready."),
    agent("The report is ready.", **{"agent.stop_reason": "end_turn"}),
    agent("I looked at the errors that were reported: three of them are fixed."),
)


CASES: Final = [*((rule, case) for rule, group in FAILED.items() for case in group), *(("", case) for case in FINE)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The rule by which the case of each number counts, every rule switched on; nothing where none does."""
    directory = tmp_path_factory.mktemp("rules")
    # A trace per case, so that none repeats another.
    spans = [span("s", trace=str(number), attributes=dict(case)) for number, (_, case) in enumerate(CASES)]
    store = LocalStore("data", [str(write_lines(directory / "data.jsonl", *spans))], directory, soft_rules=RULE_NAMES)
    store.refresh(Work())
    return rules_of(store, "trace_id")


def rules_of(store: LocalStore, column: str = "span_id") -> dict[str, str]:
    snapshot = store._current  # pyright: ignore[reportPrivateUsage]  # no method tells all rules at once
    return dict(snapshot.query(f"SELECT {column}, failure_rule FROM spans WHERE failure_rule IS NOT NULL"))


def case_id(case: Attributes) -> str:
    return str(next((value for key, value in case.items() if "kind" not in key and key != "tool.name"), ""))[:50]


@pytest.mark.parametrize(
    "number, rule, case",
    [pytest.param(no, rule, case, id=f"{rule}-{case_id(case)}") for no, (rule, case) in enumerate(CASES) if rule],
)
def test_what_says_that_it_failed_counts_by_the_rule_that_says_why(
    found: dict[str, str], number: int, rule: str, case: Attributes
) -> None:
    assert found.get(str(number)) == rule, case


@pytest.mark.parametrize(
    "number, case", [pytest.param(no, case, id=case_id(case)) for no, (rule, case) in enumerate(CASES) if not rule]
)
def test_what_only_speaks_of_errors_does_not_count(found: dict[str, str], number: int, case: Attributes) -> None:
    assert str(number) not in found, case


def test_every_rule_has_its_cases() -> None:
    assert set(FAILED) | {LOOP_RULE} == set(RULE_NAMES)
    assert set(RULE_NAMES) - set(DEFAULT_RULES) == {"empty_tool_output"}


# --- the prefilter -------------------------------------------------------------------------------------------------
PATTERNS: Final = sorted(
    {
        found[2].replace("''", "'")
        for rule in SOFT_RULES
        for found in re.finditer(r"regexp_matches\((head|tail|words), '((?:[^']|'')*)'\)", rule.sql)
    }
)
"""Of every rule that looks at text."""


def texts() -> st.SearchStrategy[str]:
    """Texts for which some rule may hold."""
    matching = st.sampled_from(PATTERNS).flatmap(lambda pattern: st.from_regex(pattern, alphabet=ALPHABET))
    return st.tuples(st.sampled_from(("", "ok\n", "x" * 1_500 + "\n")), matching).map("".join)


ALPHABET: Final = st.characters(codec="ascii", exclude_characters="\0")


def soft_rules_of(outputs: Sequence[str]) -> list[int]:
    """The bits of each output as a tool's, computed as the index is built."""
    rows = (
        "SELECT row, output, 'TOOL' AS observation_kind, 'OK' AS status_code, 'run' AS tool_name, 'run' AS name, "
        "true AS output_recorded, "
        + ", ".join(f"CAST(NULL AS VARCHAR) AS {name}" for name in NOT_GIVEN)
        + " FROM given"
    )
    with duckdb.connect() as db:
        db.execute("CREATE TABLE given (row INTEGER, output VARCHAR)")
        db.executemany("INSERT INTO given VALUES (?, ?)", list(enumerate(outputs)))
        found = db.execute(f"SELECT soft_rules FROM ({failure_columns.stages(rows, 'NULL')}) ORDER BY row").fetchall()
    return [bits for (bits,) in found]


NOT_GIVEN: Final = (
    *("input", "messages", "flat_answer", "flat_calls", "finish_reason", "exception_type"),
    *("said_error", "said_success", "said_status", "said_stop"),
)


@settings(max_examples=10, phases=[Phase.generate])  # shrinking many texts at once would take minutes
@given(outputs=st.lists(texts(), min_size=40, max_size=60))
def test_the_quick_look_loses_no_text_that_a_rule_holds_for(outputs: list[str]) -> None:
    looked = soft_rules_of(outputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failure_columns, "_worth_a_look", lambda: "TRUE")
        thorough = soft_rules_of(outputs)
    lost = [text for text, quick, slow in zip(outputs, looked, thorough, strict=True) if quick != slow]
    assert min(lost, key=len, default=None) is None


# --- one failure is counted once -----------------------------------------------------------------------------------
def counted(tmp_path: Path, *spans: Record) -> dict[str, str]:
    return rules_of(store_of(tmp_path, *spans))


def failing_tool(span_id: str, parent: str, **more: Any) -> Record:
    return span(span_id, parent, attributes=tool("Error: boom"), **more)


def test_an_agent_that_repeats_its_tools_error_is_no_second_failure(tmp_path: Path) -> None:
    top = span("top", attributes=agent("Error: boom"))
    middle = span("middle", "top", attributes=agent("Error: boom"))
    assert counted(tmp_path, top, middle, failing_tool("leaf", "middle")) == {"leaf": "error_prefix"}


def test_an_agent_that_repeats_a_hard_error_of_its_tool_is_no_second_failure(tmp_path: Path) -> None:
    top = span("top", attributes=agent("Error: boom"))
    assert counted(tmp_path, top, span("leaf", "top", kind="TOOL", error="boom")) == {"leaf": "status_error"}


def test_a_chain_of_hard_errors_counts_where_it_begins(tmp_path: Path) -> None:
    chain = [span(name, above, error="boom") for name, above in (("a", ""), ("b", "a"), ("c", "b"), ("d", "c"))]
    beside = span("e", "b", error="other")
    assert counted(tmp_path, *chain, beside) == {"d": "status_error", "e": "status_error"}


def test_two_tools_that_fail_under_one_agent_are_two_failures(tmp_path: Path) -> None:
    top = span("top", attributes=agent("Error: both failed"))
    spans = [top, failing_tool("one", "top"), failing_tool("two", "top", start_ms=5)]
    assert counted(tmp_path, *spans) == {"one": "error_prefix", "two": "error_prefix"}


def test_an_agent_out_of_turns_is_a_failure_of_its_own(tmp_path: Path) -> None:
    top = span("top", attributes=agent("Max turns (10) exceeded"))
    assert counted(tmp_path, top, failing_tool("leaf", "top")) == {"leaf": "error_prefix", "top": "limit_reached"}


def test_a_hard_error_above_a_soft_one_counts_too(tmp_path: Path) -> None:
    """It may be another failure: only statuses are known to propagate."""
    found = counted(tmp_path, span("top", kind="AGENT", error="gave up"), failing_tool("leaf", "top"))
    assert found == {"leaf": "error_prefix", "top": "status_error"}


def test_an_error_status_is_never_a_soft_error_as_well(tmp_path: Path) -> None:
    failed = span("s", kind="TOOL", error="boom", attributes={"output.value": "Error: boom"})
    assert counted(tmp_path, failed) == {"s": "status_error"}


def test_a_rule_that_does_not_count_hides_no_failure_above_it(tmp_path: Path) -> None:
    spans = [span("top", attributes=agent("Error: nothing came")), span("leaf", "top", attributes=tool(""))]
    assert counted(tmp_path, *spans) == {"top": "error_prefix"}


# --- loops -----------------------------------------------------------------------------------------------------------
def calls(*steps: str, agents: str = "", **more: Any) -> list[Record]:
    """Calls "TOOL ARGUMENT", a millisecond apart; ``agents`` names the agent of each by one letter."""
    made: list[Record] = [agent_span(name) for name in sorted(set(agents))]
    for number, step in enumerate(steps):
        name, _, argument = step.partition(" ")
        given = {"tool.name": name} | ({"input.value": argument} if argument else {})
        parent = agents[number] if agents else ""
        made.append(span(f"c{number}", parent, kind="TOOL", attributes=given, start_ms=number, **more))
    return made


def agent_span(name: str) -> Record:
    return span(name, attributes=agent("", **{"agent.name": name}))


def looping(tmp_path: Path, spans: Sequence[Record]) -> list[str]:
    return sorted(name for name, rule in counted(tmp_path, *spans).items() if rule == LOOP_RULE)


def test_three_equal_calls_in_a_row_are_a_loop_and_two_are_not(tmp_path: Path) -> None:
    assert looping(tmp_path / "3", calls("f x", "f x", "f x")) == ["c0", "c1", "c2"]
    assert looping(tmp_path / "2", calls("f x", "f x")) == []


@pytest.mark.parametrize("between", ["f y", "g x", "f"])
def test_another_call_between_breaks_a_loop(tmp_path: Path, between: str) -> None:
    assert looping(tmp_path, calls("f x", "f x", between, "f x")) == []


def test_a_loop_is_found_between_other_calls(tmp_path: Path) -> None:
    found = looping(tmp_path, calls("g x", "f x", "f x", "f x", "f x", "f y", "g x"))
    assert found == ["c1", "c2", "c3", "c4"]


def test_two_agents_that_take_turns_do_not_loop_together(tmp_path: Path) -> None:
    assert looping(tmp_path, calls("f x", "f x", "f x", "f x", agents="abab")) == []


def test_another_agent_between_does_not_break_a_loop(tmp_path: Path) -> None:
    assert looping(tmp_path, calls("f x", "g y", "f x", "g y", "f x", agents="ababa")) == ["c0", "c2", "c4"]


def test_calls_of_two_traces_do_not_loop_together(tmp_path: Path) -> None:
    assert looping(tmp_path, [*calls("f x", "f x"), *calls("f x", "f x", trace="t2")]) == []


def test_calls_without_recorded_arguments_are_equal_to_none(tmp_path: Path) -> None:
    assert looping(tmp_path, calls("f", "f", "f", "f")) == []


def test_calls_that_start_at_the_same_time_or_at_no_known_time_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    same = [one | {"start_time": at(0)} for one in calls("f x", "f x", "f x", "f y")]
    assert looping(tmp_path / "same", same) == ["c0", "c1", "c2"]
    unknown = [one | {"start_time": ""} for one in calls("f x", "f x", "f y", "f x", "f x", "f x")]
    assert looping(tmp_path / "unknown", unknown) == ["c3", "c4", "c5"]


def test_the_order_of_the_file_does_not_make_or_break_a_loop(tmp_path: Path) -> None:
    assert looping(tmp_path / "made", list(reversed(calls("f x", "f x", "f x", "f y")))) == ["c0", "c1", "c2"]
    first, second, third, other = calls("f x", "f x", "f y", "f x")
    assert looping(tmp_path / "broken", [first, second, other, third]) == []


def test_a_loop_of_calls_that_failed_counts_as_those_failures(tmp_path: Path) -> None:
    spans = calls("f x", "f x", "f x")
    spans[1]["attributes"]["output.value"] = "Error: boom"
    assert counted(tmp_path, *spans) == {"c0": LOOP_RULE, "c1": "error_prefix", "c2": LOOP_RULE}
