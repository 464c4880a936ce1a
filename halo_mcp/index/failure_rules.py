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


def quoted(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _matches(column: str, *patterns: str) -> str:
    return "(" + " OR ".join(f"regexp_matches({column}, {quoted(pattern)})" for pattern in patterns) + ")"


def one_of(column: str, *values: str) -> str:
    """SQL: the column is one of these, in either case."""
    # Not IN or list_contains: DuckDB makes a join of a long list, and a join does not keep the order of the rows.
    return f"regexp_full_match({column}, {quoted('(?i:' + '|'.join(map(re.escape, values)) + ')')})"


_EXCEPTION_LINE: Final = r"\n[ \t]+[^\n]*\n(?:E +)?([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failure)\b[^\n]*)"
LAST_LINE: Final = r"([^\n]*\S)\s*$"
_LEADING: Final = r"^[\s\"'`\[({<*#>-]*"
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
            r"(?:response )?status(?: code)?|error|client error|server error|request failed with status code)\W{1,3}[45]\d\d\b",
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
    _matches("head", _LEADING + r"Traceback \(most recent call last\)")
    + " OR (contains(words, 'Traceback (most recent call last)') AND "
    + _matches(
        "tail",
        r"\n[ \t]+[^\n]*\n[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failure)\b[^\n]*\s*$",
        r"(?i)\b[1-9]\d* (?:failed|failures?|errors?)\b[^\n]*\s*$",
    )
    + ")"
)
_RATE_LIMIT: Final = (
    r"(?i:rate[ _-]?limit(?:ed\b|(?: was| has been| is)? (?:exceeded|reached|hit)\b|_(?:error|exceeded|reached))|"
    r"too many requests|quota (?:exceeded|exhausted|reached)|insufficient_quota|"
    r"exceeded (?:your|the) (?:current )?quota|overloaded_error|resource_?exhausted|"
    r"\b(?:api|engine|model|server|service|system)s?(?: is| are)?(?: currently| temporarily)? overloaded\b|"
    r"^\W*overloaded\W*$)"
)
_TIMEOUT: Final = (
    r"(?i:\btimed[ _-]?out\b|\bdeadline exceeded\b|\btime limit (?:exceeded|reached)|"
    r"\btimeout (?:error|exceeded|expired|reached|after|while|waiting|of \d+ ?\w+ (?:exceeded|expired|reached)))|"
    r"(?m:^\W*(?:[\w.]+: )?[\w.]*Timeout(?:Error|Exception|Expired)\b)"
)
_REACHED: Final = r"\b(?:reached|exceeded|exhausted|hit)\b"
_LIMIT: Final = (
    r"(?i:\bmax(?:imum)?[ _-]?(?:number of )?(?:turns?|steps?|iterations?|tool[ _]calls?|budget|retries|attempts)\b"
    rf"[^.;\n]{{0,40}}{_REACHED}|{_REACHED}[^.;\n]{{0,40}}\b(?:"
    r"max(?:imum)?[ _-]?(?:number of )?(?:turns?|steps?|iterations?)|"
    r"(?:turn|step|iteration|recursion|sample|message|token|cost|time)[ _-]?(?:limit|budget))|"
    r"\b(?:turn|step|iteration|recursion|sample|token|cost|budget)s?[ _-]?(?:limit|budget)?"
    r"(?: of \d+)?[ _](?:was |has been |is )?(?:exceeded|reached|exhausted)|"
    r"\bstopped (?:due to|because of|after)[^.;\n]{0,40}\b(?:limit|max|budget)|\bMaxTurnsExceeded|\bout of budget)"
)
_ABOUT_ARGUMENTS: Final = (
    _LEADING + r"(?i:(?:error:? )?(?:(?:input )?validation (?:error\b|errors? (?:for|in|on|at)\b|errors?:|failed)|"
    r"\d+ validation errors?|"
    r"(?:invalid|unexpected|unrecognized|malformed)(?: \w+){0,2} "
    r"(?:argument|parameter|input|field|json|tool|function|schema|property|keyword|key|type|value)s?\b|"
    r"missing(?: \w+){0,2} (?:argument|parameter|input|field|property|key)s?\b|"
    r"unknown(?: \w+)? (?:argument|parameter|field|property|key)s?\b|"
    r"(?:no such|unknown) (?:tool|function)\b|tool \S+ (?:not found|does not exist)|"
    r"schema (?:mismatch|validation (?:error|failed))|failed to parse))",
    r"(?i:missing \d+ required|got an unexpected keyword|is a required property|does not match (?:the )?schema|"
    r"\bis not of type\b)",
)
_MUST_BE: Final = (
    r"(?:must be|should be|expected) (?:<|>|=|at most|at least|one of|between|a |an |less|greater|positive|non-empty|"
    r"of type)"
)
_WRONG_ARGUMENTS: Final = (
    *_ABOUT_ARGUMENTS,
    # A sentence starts with a capital, a parameter's name does not.
    rf"^\W*[a-z]\w*\W{{1,2}}(?i:{_MUST_BE})|(?i:\b{_MUST_BE}[^\n]*\b(?:got|received|instead|but (?:is|was))\b)",
    r"(?i:required (?:argument|parameter|property|field)s?\b[^.\n]{0,60}\b(?:missing|absent|not (?:given|provided))|"
    r"\bfield required[ :]*[\[(]|[\"']field required[\"']|\n[ \t]+field required)",
)
INVALID_ARGUMENTS: Final = (
    *_ABOUT_ARGUMENTS,
    rf"(?i:required (?:argument|parameter|property|field)|field required|\b{_MUST_BE})",
)
"""What tells, of a text that is known to be an error's, that it is about arguments."""
_ACCESS_DENIED: Final = _LEADING + (
    r"(?i:(?:permission|access) denied|not authori[sz]ed|authentication (?:failed|required)|operation not permitted|"
    r"(?:unauthori[sz]ed|forbidden|rejected|denied)(?:\W*$|\s*[:.!(—-]\s*[A-Za-z]|,| by )|"
    r"blocked by (?:\w+ ){0,2}(?:policy|policies|security|firewall|admin\w*|user|hooks?|sandbox|guardrails?|rules?|"
    r"permissions?|filters?|robots)\b)"
)
_OS_ERROR: Final = (
    r"(?im:(?:^|[:\])] ?|\bopen )(?:no such file or directory|command not found|file not found|"
    r"connection (?:refused|reset)|could not resolve host|name or service not known|no space left on device)|"
    r"(?:no such file or directory|command not found|connection refused)\W*$|"
    r"is not recognized as an internal)|(?i:permission denied\W*$)"
)
_ERROR_PREFIX: Final = _LEADING + (
    r"(?:(?i:error|fatal|failed|failure|exception|panic)\s*[:>!]|(?i:failed to\b|"
    r"an? (?:\w+ )?error (?:has )?occurred|"
    r"(?:tool|execution|runtime|internal|server|api|unexpected|unknown) error(?:\W*$|\s*[:.!(\[—-]|"
    r" (?:in|from|while|calling|\d))|"
    r"error (?:\d|(?:running|executing|calling|invoking|while|in|from|during|code|processing|fetching|reading|"
    r"parsing)\b)|"
    r"(?:tool|execution|command|request|call|operation|build|query)(?: \w+)? failed(?:\W*$|\s*[:!.(]| with\b)|"
    r"npm (?:ERR!|error)|thread '[^'\n]*' (?:\(\d+\) )?panicked)|"
    r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Failure|Timeout|Interrupt|Exceeded)\s*[:(]|"
    r"\[?Errno -?\d+\]|❌|tool_(?:use_)?error)"
)
_LOGGED_ERROR: Final = r"(?i)^\W*\[\s*(?:error|fatal|failed|failure|exception|panic)\s*\]"
_NO_ERROR: Final = (
    r"(?i)^\W*[\w ]{0,30}[:=]\s*(?:\W*$|(?:0|no|none|null|nil|false|n/a)(?:[\s,;.]|$)|raised (?:when|if|by)\b)"
)
"""A heading, or a count or value that says that there is no error; or a manual's entry."""
REFUSAL: Final = (
    r"(?i)^\W*(?:as an ai[^,.\n]*, )?(?:(?:i['’]?m|i am) (?:very |so |really |truly )?sorry|sorry|i apologi[sz]e|"
    r"unfortunately)?[,.!:;\s—–-]*(?:but )?(?:i|we)(?: am| are|['’]m|['’]re)? (?:"
    r"(?:must|have to|need to) (?:\w+ )?decline|"
    r"(?:cannot|can['’]t|can not|not able to|unable to|won['’]t(?: be able to)?|will not(?: be able to)?) "
    r"(?:\w+ ){0,2}(?:help|assist|comply|fulfil+|do that|engage|continue with|"
    r"(?:process|complete|handle|answer) (?:this|that|your|the) request|"
    r"(?:provide|share|support|discuss|create|generate|write|answer)\b[^,;.!?\n]*(?:[.!]|$)))"
)
_CUT: Final = (
    r"(?i)(?:(?:^|[\s.…])[\[(<][^\n\])>\"']*|(?:\.\.\.|…)[^\n\])>]{0,40})\b(?:truncated|omitted|cut off)\b[^\n]*\s*$"
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
        f"brief AND {_matches('words', _RATE_LIMIT)}",
    ),
    Rule(
        "timeout",
        "a short output says that something timed out",
        f"lower(json_timed_out) = 'true' OR (brief AND {_matches('words', _TIMEOUT)})",
    ),
    Rule(
        "limit_reached",
        "a turn, step, iteration, budget or recursion limit was reached",
        f"(brief AND {_matches('words', _LIMIT)}) OR "
        f"{_matches('said_stop', r'(?i:max|limit|budget|exceeded|exhausted|aborted)')}",
        of_its_own=True,
    ),
    Rule(
        "invalid_arguments",
        "a short output says that the tool, its arguments or their shape were wrong",
        f"brief AND {_matches('words', *_WRONG_ARGUMENTS)}",
    ),
    Rule(
        "access_denied",
        "a short output says that access was denied",
        f"brief AND {_matches('words', _ACCESS_DENIED)}",
    ),
    Rule(
        "os_error",
        "a short output says that a file, command or host was not found or not usable",
        f"brief AND {_matches('words', _OS_ERROR)}",
    ),
    Rule(
        "error_prefix",
        "the output starts as error messages do",
        f"({_matches('head', _ERROR_PREFIX)} OR (brief AND {_matches('words', _LOGGED_ERROR)})) "
        f"AND NOT {_matches('head', _NO_ERROR)}",
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
        f"{_IS_TOOL} AND {_matches('tail', _CUT)}",
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
