"""From the row of one span to what failed in it: ``soft_rules``, ``failure_text``, ``failure_mode``. SQL for the build.

A failure mode is all failures that differ only in what varies from case to case: ids, numbers, paths, URLs, quoted
values, times, white space. Its id is a hash of the masked text, the exception type, the tool (else the span name) and
an HTTP status if the text has one; so it is the same in every dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_rules import SOFT_RULES, by_rule, one_of

TEXT_CHARS: Final = 500
"""Of a failure's text, this much is kept."""
BRIEF_BYTES: Final = 300
"""An output up to this length is a message rather than a document."""
_HEAD_CHARS: Final = 400
_TAIL_CHARS: Final = 1_000
_ANSWER_BYTES: Final = 2_000
"""A refusal is short; so is an answer that holds nothing."""
_FINGERPRINT_CHARS: Final = 200
_MODE_DIGITS: Final = 12

_JSON: Final = {
    "is_error": ("$.isError", "$.is_error"),
    "success": ("$.success", "$.ok", "$.succeeded"),
    "completed": ("$.completed", "$.finalized"),
    "error": ("$.error.message", "$.error", "$.errors", "$.error_message", "$.exception", "$.Err", "$.result.Err"),
    "status": ("$.status", "$.state", "$.outcome"),
    "http_status": ("$.status_code", "$.statusCode", "$.http_status", "$.status", "$.error.code"),
    "code": ("$.code",),
    "exit_code": ("$.exit_code", "$.exitCode", "$.returncode", "$.return_code", "$.exit_status"),
    "timed_out": ("$.timed_out", "$.timedOut"),
    "words": ("$.content[0].text", "$[0].text", "$.stderr"),
    "message": ("$.message", "$.detail", "$.reason"),
}  # fmt: skip
"""What the top level of a JSON output may say; of each, the first path with a value counts."""
_JSON_KEYS: Final = (
    r'"(?:isError|is_error|success|ok|completed|finalized|succeeded|errors?|error_message|exception|Err|status|state|'
    r'outcome|status_?[cC]ode|http_status|code|exit_?[cC]ode|return_?code|exit_status|timed_?[oO]ut|text|stderr)"\s*:'
)
"""Of the paths above: without one of these keys there is nothing to parse for."""
_FINE_STATUSES: Final = ("ok", "success", "succeeded", "successful", "completed", "passed", "done")
_JSON_WORDS: Final = r'"(?:message|detail|reason)"\s*:'
"""In a long output these are rarely about the call."""
_NO_PROBLEM: Final = ("", "null", "none", "false", "[]", "{}", "0", "no error", "n/a")

_NOTHING_INSIDE: Final = r'\{\s*(?:"[^"]*"\s*:\s*(?:null|""|0|false|\[\]|\{\})\s*,?\s*)*\}'
"""An error object of which no member says anything."""

_ERROR_WORDS: Final = (
    "(?i:must|should|expect|stopped|"
    "err|exce|fail|fatal|panic|interrupt|exit|return|code|status|http|[45][0-9][0-9] [a-z]|traceback|rate|"
    "too many|quota|overload|timed|timeout|limit|deadline|max|budget|invalid|missing|unknown|unexpected|"
    "unrecognized|malformed|required|valid|schema|no such|not found|does not|is not|unauth|not auth|denied|forbidden|"
    "reject|block|permit|refused|reset|resolve|not recognized|not known|space left|truncated|omitted|cut off|"
    "exhausted|❌)"
)
"""Some word of every text rule. A property test keeps it so."""

_ANSWER_PATHS: Final = (
    "$[0].content", "$[0].parts[0].content", "$[0].content[0].text", "$[0].message.content", "$.content",
    "$.choices[0].message.content", "$[0].contents[0].message_content.text", "$.content[0].text", "$[0].refusal",
)  # fmt: skip
_MAYBE_REFUSES: Final = r"(?i:cannot|can['’]t|can not|not able|unable|won['’]t|will not|decline)"
_CALLS: Final = r'"(?:tool_calls?|function_call|tool_use|toolCalls?|toolUse)"\s*(?::\s*(?:\[\s*\{|\{)|[,}])'
_REASON: Final = r"(?:\w+\.)?([A-Za-z][A-Za-z_-]{2,})"
_FINISHED: Final = r'"finish_reason"\s*:\s*"([A-Za-z_-]+)"'
_SAYS: Final = r'"(?:content|text|refusal|output|thinking|reasoning|arguments|parts)"\s*:\s*(?:"[^"]|\[\s*[^\]\s]|\{)'


def _first(keys: Iterable[str]) -> str:
    values = (f"nullif(a.\"{key}\", '')" for key in keys)
    return f"coalesce({', '.join(values)})"


def inputs() -> str:
    """What the rules need from the attributes ``a`` of a raw row, beside the columns that the index keeps."""
    messages, finish = _first(semconv.OUTPUT_MESSAGES), _first(semconv.FINISH_REASON)
    reason = f"regexp_extract({finish}, {quoted(_REASON)}, 1)"
    in_messages = f"regexp_extract({messages}, {quoted(_FINISHED)}, 1)"
    recorded = " OR ".join(f'a."{key}" IS NOT NULL' for key in semconv.OUTPUT_VALUE)
    return ", ".join(
        (
            f"{_first(semconv.INPUT_VALUE)} AS input",
            f"{_first(semconv.OUTPUT_VALUE)} AS output",
            f"{messages} AS messages",
            f"{_first(semconv.OUTPUT_TEXT)} AS flat_answer",
            f"{_first(semconv.OUTPUT_CALLS)} AS flat_calls",
            f"replace(nullif(lower(coalesce({reason}, {in_messages})), ''), '-', '_') AS finish_reason",
            f"{_first(semconv.SAYS_ERROR)} AS said_error",
            f"{_first(semconv.SAYS_SUCCESS)} AS said_success",
            f"{_first(semconv.TOOL_STATUS)} AS said_status",
            f"{_first(semconv.STOP_REASON)} AS said_stop",
            f"({recorded}) AS output_recorded",
        )
    )


def stages(rows: str, hard_text: str) -> str:
    """A SELECT with all columns of the SELECT ``rows`` (made with ``inputs``) and those of this module.

    ``hard_text`` is the SQL for the words of a span with status ERROR.
    """
    facts = f"SELECT *, {_json_values()} AS facts, {_answer()} AS answer FROM ({rows})"
    named = f"SELECT *, {_json_columns()} FROM ({facts})"
    words = (
        f"SELECT *, CASE WHEN NOT {one_of('json_error', *_NO_PROBLEM)} "
        f"AND NOT regexp_full_match(json_error, {quoted(_NOTHING_INSIDE)}) THEN json_error END AS json_problem, "
        f"CASE WHEN observation_kind <> 'LLM' THEN coalesce(json_words, CASE WHEN strlen(output) <= {BRIEF_BYTES} "
        f"THEN json_message END, output, answer) END AS words, {_says_fine()} AS fine, "
        f"{_answered_nothing()} AS answered_nothing, "
        "observation_kind = 'TOOL' AND output IS NULL AND output_recorded AS returned_nothing "
        f"FROM ({named})"
    )
    ends = (
        f"SELECT *, CASE WHEN NOT fine THEN left(words, {_HEAD_CHARS}) END AS head, "
        f"NOT fine AND strlen(words) <= {BRIEF_BYTES} AS brief, "
        f"CASE WHEN strlen(words) <= {_TAIL_CHARS} THEN words ELSE substr(words, -{_TAIL_CHARS}) END AS tail "
        f"FROM ({words})"
    )
    bits = " | ".join(f"CASE WHEN {rule.sql} THEN {1 << bit} ELSE 0 END" for bit, rule in enumerate(SOFT_RULES))
    ruled = (
        f"SELECT *, CASE WHEN status_code <> 'ERROR' AND ({_worth_a_look()}) THEN {bits} ELSE 0 END AS soft_rules "
        f"FROM ({ends})"
    )
    soft_text = by_rule("soft_rules", [rule.text for rule in SOFT_RULES])
    text = (
        f"left(trim(CASE WHEN status_code = 'ERROR' THEN {hard_text} "
        f"WHEN soft_rules <> 0 THEN {soft_text} END, ' \n\r\t'), "
        f"{TEXT_CHARS})"
    )
    told = f"SELECT *, {text} AS failure_text FROM ({ruled})"
    return f"SELECT *, {_mode()} AS failure_mode FROM ({told})"


def _worth_a_look() -> str:
    """What any span has that any rule could hold for; a few regexes instead of dozens."""
    given = ("facts", "answer", "said_error", "said_success", "said_status", "said_stop", "finish_reason")
    words = quoted(_ERROR_WORDS)
    return (
        f"{' OR '.join(f'{name} IS NOT NULL' for name in given)} OR answered_nothing OR returned_nothing "
        f"OR regexp_matches(head, {words}) OR (NOT brief AND regexp_matches(tail, {words}))"
    )


def _json_values() -> str:
    paths = ", ".join(quoted(path) for of in _JSON.values() for path in of)
    return (
        "CASE WHEN observation_kind <> 'LLM' AND regexp_matches(output, '^\\s*[\\[{]') "
        f"AND (regexp_matches(output, {quoted(_JSON_KEYS)}) OR "
        f"(strlen(output) <= {BRIEF_BYTES} AND regexp_matches(output, {quoted(_JSON_WORDS)}))) "
        f"THEN try(json_extract_string(output, [{paths}])) END"
    )


def _says_fine() -> str:
    """Whether a JSON output says that all went well: then its words are not about a failure of the call."""
    return (
        "coalesce(try_cast(json_exit_code AS BIGINT) = 0, false) OR coalesce(lower(json_success) = 'true', false) "
        "OR coalesce(try_cast(json_http_status AS BIGINT) BETWEEN 200 AND 299, false) "
        f"OR coalesce({one_of('json_status', *_FINE_STATUSES)}, false)"
    )


def _json_columns() -> str:
    columns, first = list[str](), 1
    for name, paths in _JSON.items():
        values = [f"nullif(facts[{number}], '')" for number in range(first, first + len(paths))]
        columns.append(f"coalesce({', '.join(values)}) AS json_{name}")
        first += len(paths)
    return ", ".join(columns)


def _answer() -> str:
    """The text of a short answer in messages: of a model where it may refuse, of anything else without an output."""
    said = "coalesce(flat_answer, messages, output)"
    paths = ", ".join(map(quoted, _ANSWER_PATHS))
    inside = f"list_filter(try(json_extract_string({said}, [{paths}])), lambda x: x IS NOT NULL)[1]"
    refuses = f"regexp_matches({said}, {quoted(_MAYBE_REFUSES)})"
    wanted = f"CASE WHEN observation_kind = 'LLM' THEN {refuses} ELSE output IS NULL END"
    return f"CASE WHEN strlen({said}) <= {_ANSWER_BYTES} AND {wanted} THEN coalesce(flat_answer, {inside}, {said}) END"


def _answered_nothing() -> str:
    return (
        "coalesce(observation_kind = 'LLM' AND messages IS NOT NULL AND flat_answer IS NULL AND flat_calls IS NULL "
        f"AND output IS NULL AND strlen(messages) <= {_ANSWER_BYTES} "
        f"AND NOT regexp_matches(messages, {quoted(_SAYS)}) AND NOT regexp_matches(messages, {quoted(_CALLS)}), false)"
    )


# --- fingerprints --------------------------------------------------------------------------------------------------
_MASKS: Final = (
    (r"""https?://[^\s"'<>)\]]+""", "<url>"),
    (r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)?", "<time>"),
    (r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", "#"),
    (r'"[^"\n]*"', "<text>"),
    (r"(^|[^\w'])'[^'\n]*'", r"\1<text>"),
    (r"`[^`\n]*`", "<text>"),
    (r"\b[\w-]+(?:\.[\w-]+)+:\d+\b", "<host>"),
    (r"(?:[A-Za-z]:)?(?:[\w.@~+-]*[/\\][\w.@~+-]+){2,}[/\\]?|[~.]{1,2}/[\w./@~+-]+", "<path>"),
    (r"\b(?:0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\w*\d[A-Za-z]+\d\w*)\b", "#"),
    (r"\d+(?:[.,]\d+)*", "#"),
    (r"\s+", " "),
)
"""(what varies, what stands for it), applied in this order. Of ids some are numbers, so both have one placeholder."""

_HTTP_CODE: Final = r"(?i)\b(?:http|status)(?:/\d(?:\.\d)?)?(?: (?:status|code|error))*\W{1,3}([45]\d\d)\b"


def masked(text: str) -> str:
    """SQL for ``text`` without what varies from case to case."""
    expression = f"left({text}, {2 * _FINGERPRINT_CHARS})"
    for pattern, stand_in in _MASKS:
        expression = f"regexp_replace({expression}, {quoted(pattern)}, {quoted(stand_in)}, 'g')"
    return f"trim(left({expression}, {_FINGERPRINT_CHARS}))"


def _mode() -> str:
    parts = (
        "coalesce(exception_type, '')",
        "coalesce(tool_name, name)",
        f"coalesce(regexp_extract(failure_text, {quoted(_HTTP_CODE)}, 1), '')",
        f"coalesce({masked('failure_text')}, '')",
    )
    failed = "status_code = 'ERROR' OR soft_rules <> 0"
    return f"CASE WHEN {failed} THEN left(md5(concat_ws(chr(31), {', '.join(parts)})), {_MODE_DIGITS}) END"


LOOP_MODE: Final = f"left(md5(concat_ws(chr(31), 'repeated_call', coalesce(tool_name, name))), {_MODE_DIGITS})"
"""The failure mode of a call that a loop repeats: one for each tool."""
