r"""What counts as a failure whose status says nothing (a soft error): named rules, as SQL conditions on one span.

Text that an agent merely read (code, logs, web pages) speaks of errors too. So a rule looks at the start of an output,
at its last lines, at the top level of a JSON output, or at outputs too short to be documents; never anywhere in a text.

The columns that rules use are made by ``failure_columns.py``:
``words`` (what a tool's output says: the text inside a JSON output, else the output), ``head`` and ``tail`` (its first
and last characters), ``brief`` (it is a message rather than a document), ``json_*`` (what the top level of a JSON
output says), ``said_*`` (what attributes say), ``answer`` (a model's text), ``finish_reason``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_patterns import (
    ACCESS_DENIED,
    CUT,
    ERROR_PREFIX,
    LEADING,
    LIMIT,
    LOGGED_ERROR,
    NO_ERROR,
    OS_ERROR,
    RATE_LIMIT,
    REFUSAL,
    TIMEOUT,
    WRONG_ARGUMENTS,
)

LOOP_CALLS: Final = 3
"""So many calls in a row of one tool with the same arguments, by one agent of a trace, are a loop."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to count a span as failed although its status is not ERROR."""

    name: str
    description: str
    sql: str
    text: str = "coalesce(json_problem, said_stop, words, said_status)"
    """The words that say what failed."""
    default: bool = True
    """Counts unless a caller says otherwise."""
    of_its_own: bool = False
    """Says something about this very span; other rules do not count where a span below already failed."""


def _matches(column: str, *patterns: str) -> str:
    return "(" + " OR ".join(f"regexp_matches({column}, {quoted(pattern)})" for pattern in patterns) + ")"


def one_of(column: str, *values: str) -> str:
    """SQL: the column is one of these, in either case."""
    # Not IN or list_contains: DuckDB makes a join of a long list, and a join does not keep the order of the rows.
    return f"regexp_full_match({column}, {quoted('(?i:' + '|'.join(map(re.escape, values)) + ')')})"


_EXCEPTION_LINE: Final = r"\n[ \t]+[^\n]*\n(?:E +)?([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failure)\b[^\n]*)"
LAST_LINE: Final = r"([^\n]*\S)\s*$"
_RECORD: Final = r'"(?:\w*_?id|title|name)"\s*:'
_FINISH: Final = "'finish_reason=' || finish_reason"
_EMPTY: Final = "'empty output'"
_IS_TOOL: Final = "observation_kind <> 'LLM'"
_IS_LLM: Final = "observation_kind = 'LLM'"

_UNFINISHED: Final = f"(lower(json_completed) = 'false' AND NOT {_matches('output', _RECORD)})"
"""A record of something, such as an item of a list of things to do, may well not be completed."""

_FAILED_STATUSES: Final = (
    "error", "errored", "failed", "failure", "timeout", "timed_out", "rejected", "denied", "aborted",
)  # fmt: skip

_EXITED: Final = (
    r"(?:process |command )?(?:exit(?:ed)?|return(?:ed)?)[ _-]?(?:code|status|with(?: exit)? (?:code|status))"
)
_EXPLAINED: Final = _matches(
    "head", r"(?i)\b(?:code|status|http|error)\W{1,2}-?\d+ (?:means?|indicates?|is|are|stands?|errors)\b"
)
"""A text about codes."""
_EXIT_CODE: Final = " OR ".join(
    (
        "try_cast(json_exit_code AS BIGINT) <> 0",
        _matches("head", rf"(?im)^\W*{_EXITED}\W{{1,3}}-?[1-9]\d*\W*$", r"(?i)^\W*<(?:returncode|exit_?code)>-?[1-9]"),
        _matches("tail", rf"(?i)\n\W*{_EXITED}\W{{1,3}}-?[1-9]\d*\W*$"),
        f"brief AND NOT {_EXPLAINED} AND "
        + _matches(
            "words",
            r"(?i)\b(?:exit(?:ed)?|failed|returned|terminated)(?: with)?(?: non-zero)?(?: exit)? (?:code|status):? "
            r"-?[1-9]\d*\b",
        ),
    )
)
_EXIT_TEXT: Final = (
    "concat_ws(': ', 'exit code ' || coalesce(json_exit_code, nullif(regexp_extract(head || chr(10) || tail, "
    + quoted(rf"(?i){_EXITED}[^\d\n-]{{0,12}}(-?[1-9]\d*)")
    + ", 1), '')), nullif(regexp_extract(words, "
    + quoted(r"(?m)^.*(?:[Ee]rror\b|ERROR|not found|denied|No such|fatal|FAILED|[Ff]ailed).*$")
    + "), ''))"
)
"""The code, and the first line that tells a problem: the rest of a program's output differs each time."""

_HTTP_STATUS: Final = " OR ".join(
    (
        "try_cast(json_http_status AS BIGINT) BETWEEN 400 AND 599",
        "try_cast(json_code AS BIGINT) BETWEEN 400 AND 599 AND coalesce(json_message, json_problem) IS NOT NULL",
        f"NOT {_EXPLAINED} AND "
        + _matches(
            "head",
            r"(?i)^\W*(?:(?:client |server )?error )?(?:http(?:/\d(?:\.\d)?)?(?: error| status)?|"
            r"(?:response )?status(?: code)?|error|client error|server error|"
            r"request failed with status code)\W{1,3}[45]\d\d\b",
            r"^\W*[45]\d\d (?:Bad|Unauthori[sz]ed|Payment|Forbidden|Not Found|Method|Request|Conflict|Gone|"
            r"Unprocessable|Too Many|Client|Server|Internal|Service|Gateway)",
        ),
        f"brief AND NOT {_EXPLAINED} AND "
        + _matches(
            "words",
            r"(?i)\bstatus(?: code)?\W{1,2}[45]\d\d\b|\b[45]\d\d (?:client|server) error\b",
        ),
    )
)
_TRACEBACK: Final = (
    _matches("head", LEADING + r"Traceback \(most recent call last\)")
    + " OR (contains(words, 'Traceback (most recent call last)') AND "
    + _matches(
        "tail",
        r"\n[ \t]+[^\n]*\n[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failure)\b[^\n]*\s*$",
        r"(?i)\b[1-9]\d* (?:failed|failures?|errors?)\b[^\n]*\s*$",
    )
    + ")"
)
SOFT_RULES: Final = (
    Rule(
        "tool_is_error",
        "the output is JSON with isError or is_error true, or an attribute says that the tool failed",
        f"lower(json_is_error) = 'true' OR {one_of('said_error', 'true', '1')} OR "
        f"{one_of('said_status', *_FAILED_STATUSES)}",
    ),
    Rule("exit_code", "a process ended with an exit or return code other than 0", _EXIT_CODE, text=_EXIT_TEXT),
    Rule("http_status", "an HTTP status of 400 or above", _HTTP_STATUS),
    Rule(
        "success_false",
        "the output's top level says that success, ok, completed or finalized is false, or names a failed status; or "
        "an attribute does",
        f"lower(json_success) = 'false' OR {_UNFINISHED} OR {one_of('json_status', *_FAILED_STATUSES)} OR "
        f"{one_of('said_success', 'false', '0')}",
    ),
    Rule("error_field", "the output's top level has an error that is not empty", "json_problem IS NOT NULL"),
    Rule(
        "traceback",
        "the output begins or ends with a Python traceback, or has one and ends with a count of failures",
        _TRACEBACK,
        text=f"coalesce(nullif(regexp_extract(words, {quoted(_EXCEPTION_LINE)}, 1), ''), "
        f"regexp_extract(tail, {quoted(LAST_LINE)}, 1))",
    ),
    Rule(
        "rate_limit",
        "a short output speaks of a rate limit, a quota or overload",
        f"brief AND {_matches('words', RATE_LIMIT)}",
    ),
    Rule(
        "timeout",
        "a short output says that something timed out",
        f"lower(json_timed_out) = 'true' OR (brief AND {_matches('words', TIMEOUT)})",
    ),
    Rule(
        "limit_reached",
        "a turn, step, iteration, budget or recursion limit was reached",
        f"(brief AND {_matches('words', LIMIT)}) OR "
        f"{_matches('said_stop', r'(?i:max|limit|budget|exceeded|exhausted|aborted)')}",
        of_its_own=True,
    ),
    Rule(
        "invalid_arguments",
        "a short output says that the tool, its arguments or their shape were wrong",
        f"brief AND {_matches('words', *WRONG_ARGUMENTS)}",
    ),
    Rule(
        "access_denied",
        "a short output says that access was denied",
        f"brief AND {_matches('words', ACCESS_DENIED)}",
    ),
    Rule(
        "os_error",
        "a short output says that a file, command or host was not found or not usable",
        f"brief AND {_matches('words', OS_ERROR)}",
    ),
    Rule(
        "error_prefix",
        "the output starts as error messages do",
        f"({_matches('head', ERROR_PREFIX)} OR (brief AND {_matches('words', LOGGED_ERROR)})) "
        f"AND NOT {_matches('head', NO_ERROR)}",
    ),
    Rule(
        "refusal",
        "a model's short answer declines to help",
        f"{_IS_LLM} AND {_matches('answer', REFUSAL)}",
        "answer",
        of_its_own=True,
    ),
    Rule(
        "content_filter",
        "the model stopped because of its content filter",
        f"{_IS_LLM} AND "
        + one_of("finish_reason", "content_filter", "safety", "refusal", "recitation", "prohibited_content"),
        _FINISH,
        of_its_own=True,
    ),
    Rule(
        "finish_length",
        "the model's answer was cut at its token limit",
        f"{_IS_LLM} AND "
        + one_of("finish_reason", "length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"),
        _FINISH,
        of_its_own=True,
    ),
    Rule("empty_output", "a model answered neither text nor a tool call", "answered_nothing", _EMPTY, of_its_own=True),
    Rule(
        "truncated_output",
        "a tool's output ends with a note that it was cut",
        f"{_IS_TOOL} AND {_matches('tail', CUT)}",
        f"'output cut: ' || regexp_extract(tail, {quoted(LAST_LINE)}, 1)",
        of_its_own=True,
    ),
    Rule(
        "empty_tool_output",
        "a tool's recorded output is empty (many tools have nothing to say, so it counts only on request)",
        "returned_nothing",
        _EMPTY,
        default=False,
    ),
)
"""In the order in which they are tried: the first that holds gives a span its ``failure_rule``. Rule i is bit i."""

STATUS_RULE: Final = "status_error"
"""The name given to hard errors; it cannot be left out."""
LOOP_RULE: Final = "repeated_call"
LOOP_MEANING: Final = f"called {LOOP_CALLS} or more times in a row with the same arguments"
LOOP_DESCRIPTION: Final = (
    f"one agent of a trace called a tool {LOOP_CALLS} times or more in a row with the same arguments"
)
RULE_NAMES: Final = (*(rule.name for rule in SOFT_RULES), LOOP_RULE)
DEFAULT_RULES: Final = (*(rule.name for rule in SOFT_RULES if rule.default), LOOP_RULE)


def mask(names: tuple[str, ...]) -> int:
    """The bits of ``soft_rules`` that these rules set."""
    return sum(1 << bit for bit, rule in enumerate(SOFT_RULES) if rule.name in names)


OF_ITS_OWN: Final = mask(tuple(rule.name for rule in SOFT_RULES if rule.of_its_own))


def first_rule(bits: str) -> str:
    """SQL for the name of the first rule among these bits; NULL for none."""
    return by_rule(bits, [quoted(rule.name) for rule in SOFT_RULES])


def by_rule(bits: str, values: list[str]) -> str:
    """SQL for the value that belongs to the first rule among these bits; NULL for none."""
    cases = " ".join(f"WHEN {bits} & {1 << bit} <> 0 THEN {value}" for bit, value in enumerate(values))
    return f"CASE {cases} END"
