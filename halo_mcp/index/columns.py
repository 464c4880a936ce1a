# ruff: noqa: E501  (one column, one line)
"""Each index column once: name, type, unit, meaning, and how it is derived.

The index of one segment has four tables. ``own`` holds what a span says about itself, straight from the JSON reader,
one row per input line (lines that were no span are all NULL). ``tree`` adds, per span, what only its trace knows.
``traces`` rolls the spans of one trace up. ``facets`` counts all spans for overviews. Tools see two views: ``spans``
(own joined with tree) and ``traces``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from halo_mcp.index import failure_columns, semconv
from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_patterns import ERROR_PREFIX, SAYS_NOTHING
from halo_mcp.index.failure_rules import DEFAULT_RULES, LOOP_CALLS, LOOP_RULE, STATUS_RULE, first_rule, mask
from halo_mcp.index.outcomes import USUAL_KEYS, OutcomeKeys, identifier

INDEX_VERSION: Final = 10
"""Bump when a column, a derivation or the layout of a segment changes: older indexes are then rebuilt."""

MESSAGE_CHARS: Final = 500
"""Status and exception messages are cut to this many characters in the index; payloads keep all of it."""

NAME_CHARS: Final = 500
"""Names of any kind (spans, tools, models, agents, tasks, runs, ...) are cut to this many characters in the index."""

MOST_TOKENS: Final = 10**12
"""More tokens on one span are a mistake, and their sums would leave BIGINT."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``sql`` derives it: from a raw JSON row (own), or from the spans of a trace (traces)."""

    name: str
    type: str
    description: str
    sql: str = ""
    unit: str = ""
    repeats: bool = True
    """False for ids that hardly repeat: compressing them costs more time, at every read too, than it saves space."""


def _name(sql: str) -> str:
    return f"left({sql}, {NAME_CHARS})"


def _attribute(key: str) -> str:
    return f"nullif(a.\"{key}\", '')"


def _first(keys: Iterable[str]) -> str:
    return f"coalesce({', '.join(_attribute(key) for key in keys)})"


def _integer(keys: Iterable[str]) -> str:
    # Numbers may arrive as strings ("12", "12.0"); what is no number, or no credible one, counts as not set, so the next
    # alias is tried.
    def of(key: str) -> str:
        value = f"try_cast({_attribute(key)} AS BIGINT)"
        return f"CASE WHEN {value} BETWEEN 0 AND {MOST_TOKENS} THEN {value} END"

    return f"coalesce({', '.join(map(of, keys))})"


def _mapped(value: str, mapping: Mapping[str, str]) -> str:
    branches = " ".join(f"WHEN {quoted(given)} THEN {quoted(meant)}" for given, meant in mapping.items())
    return f"CASE lower({value}) {branches} END"


def _identifier(field: str) -> str:
    # Hex ids are lower-cased; base64 of exactly 16 or 8 bytes becomes hex; anything else stays as it is.
    # Hex is tested first, because a hex string also looks like base64. ``ids.normalize_id`` is the same in Python.
    return (
        f"CASE WHEN {field} = lower({field}) AND right({field}, 1) <> '=' THEN {field} "
        f"WHEN regexp_full_match({field}, '[0-9A-Fa-f]{{16}}|[0-9A-Fa-f]{{24}}|[0-9A-Fa-f]{{32}}') THEN lower({field}) "
        f"WHEN regexp_full_match({field}, '[A-Za-z0-9+/]{{22}}==|[A-Za-z0-9+/]{{11}}=') "
        f"THEN coalesce(try(lower(hex(from_base64({field})))), {field}) ELSE {field} END"
    )


def unix_nano(field: str) -> str:
    """SQL for the nanoseconds since the epoch of a time given as text; NULL when it is no time, or not within 64 bits.

    RFC 3339 with any number of fractional digits and any zone (none means UTC), or digits whose count tells the unit:
    10 seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds. Never goes through a float.
    """
    # RFC 3339 allows "t" and "z"; DuckDB does not, and upper() is only tried where the plain cast fails.
    wall_clock = f"epoch_ns(coalesce(try_cast({field} AS TIMESTAMP_NS), try_cast(upper({field}) AS TIMESTAMP_NS)))"
    zone = r"'([+-])(\d\d):?(\d\d)$'"
    offset_s = (
        f"CASE regexp_extract({field}, {zone}, 1) WHEN '-' THEN -1 ELSE 1 END * "
        f"(3600 * regexp_extract({field}, {zone}, 2)::BIGINT + 60 * regexp_extract({field}, {zone}, 3)::BIGINT)"
    )
    scale = f"CASE length({field}) WHEN 10 THEN 1000000000 WHEN 13 THEN 1000000 WHEN 16 THEN 1000 WHEN 19 THEN 1 END"
    return (
        # A time starts with a digit: DuckDB also takes words such as "infinity" and "epoch".
        f"nullif(try(CASE WHEN {field} IS NULL OR NOT left(ltrim({field}), 1) BETWEEN '0' AND '9' THEN NULL "
        f"WHEN right({field}, 1) IN ('Z', 'z') THEN {wall_clock} "
        rf"WHEN regexp_full_match({field}, '\d+') THEN try_cast({field} AS BIGINT) * ({scale}) "
        rf"WHEN regexp_full_match({field}, '\d{{10}}\.\d{{1,9}}') THEN "
        f"try_cast(left({field}, 10) || rpad(substr({field}, 12), 9, '0') AS BIGINT) "
        rf"WHEN regexp_matches({field}, ':\d\d(\.\d+)?[+-]\d\d:?\d\d$') THEN {wall_clock} - 1000000000 * ({offset_s}) "
        f"ELSE {wall_clock} END), {2**63 - 1})"  # which is "infinity" to DuckDB
    )


def _observation_kind() -> str:
    rules = [_mapped(f'a."{key}"', values) for key, values in semconv.KIND_RULES]
    prefixes = " ".join(
        f"WHEN starts_with(name, {quoted(prefix)}) THEN {quoted(kind)}" for prefix, kind in semconv.KIND_NAME_PREFIXES
    )
    return f"coalesce({', '.join(rules)}, CASE {prefixes} END, 'SPAN')"


def _status_code() -> str:
    def one_of(values: Iterable[str]) -> str:
        return f"upper(status.code) IN ({', '.join(quoted(value) for value in values)})"

    return (
        f"CASE WHEN {one_of(semconv.STATUS_ERROR)} THEN 'ERROR' WHEN {one_of(semconv.STATUS_OK)} THEN 'OK' "
        "WHEN exception IS NOT NULL THEN 'ERROR' ELSE 'UNSET' END"
    )


def _tool_name() -> str:
    prefixes = "|".join(prefix.replace(".", r"\.") for prefix in semconv.TOOL_NAME_PREFIXES)
    from_name = f"regexp_replace(name, '^({prefixes})', '')"
    return f"CASE WHEN observation_kind = 'TOOL' THEN coalesce({_first(semconv.TOOL_NAME)}, {from_name}) END"


def _agent_name() -> str:
    prefix = quoted(semconv.AGENT_NAME_PREFIX)
    from_name = (
        f"CASE WHEN observation_kind = 'AGENT' AND starts_with(name, {prefix}) THEN substr(name, {len(prefix) - 1}) END"
    )
    return f"coalesce({_first(semconv.AGENT_NAME)}, {from_name})"


def _model_name() -> str:
    parameters = f'a."{semconv.INVOCATION_PARAMETERS}"'
    from_parameters = f"CASE WHEN {parameters} IS NOT NULL THEN try(json_extract_string({parameters}, '$.model')) END"
    return f"coalesce({_first(semconv.MODEL_NAME)}, nullif({from_parameters}, ''))"


def _exception(member: str, keys: Iterable[str]) -> str:
    return f"coalesce(nullif(exception.attributes.\"exception.{member}\", ''), {_first(keys)})"


_USUAL: Final = USUAL_KEYS.own()

_SAID_COLUMNS: Final[tuple[Column, ...]] = (
    Column("trace_id", "VARCHAR", "Trace id; hex is lower-cased, base64 of 16 bytes becomes hex.", _identifier("trace_id")),
    Column("span_id", "VARCHAR", "Span id, normalised as trace_id.", _identifier("span_id"), repeats=False),
    Column("parent_span_id", "VARCHAR", "Id of the parent span; NULL for a root.", f"nullif({_identifier('parent_span_id')}, '')", repeats=False),
    Column("name", "VARCHAR", "Span name.", _name("coalesce(name, '')")),
    Column("kind", "VARCHAR", "OpenTelemetry span kind without its prefix: INTERNAL, CLIENT, SERVER, ...", "nullif(replace(upper(kind), 'SPAN_KIND_', ''), '')"),
    Column("start_time_unix_nano", "BIGINT", "Start; NULL when unknown.", unix_nano("start_time"), "ns"),
    Column("end_time_unix_nano", "BIGINT", "End; NULL when unknown.", unix_nano("end_time"), "ns"),
    Column("status_code", "VARCHAR", "OK, ERROR or UNSET; UNSET with an exception event counts as ERROR.", _status_code()),
    Column("status_message", "VARCHAR", f"Status message, at most {MESSAGE_CHARS} characters.", f"nullif(left(status.message, {MESSAGE_CHARS}), '')"),
    Column("service_name", "VARCHAR", "Resource attribute service.name.", _name(f"nullif(resource.attributes.\"{semconv.SERVICE_NAME}\", '')")),
    Column("observation_kind", "VARCHAR", "AGENT, LLM, TOOL, CHAIN, GUARDRAIL, RETRIEVER, EMBEDDING or SPAN. An LLM span with tokens directly around another one with tokens (a call recorded twice) is a CHAIN.", _observation_kind()),
    Column("model_name", "VARCHAR", "Model that answered (else the one asked for).", _name(_model_name())),
    Column("tool_name", "VARCHAR", "Tool called; only on TOOL spans.", _name(_tool_name())),
    Column("own_agent_name", "VARCHAR", "Agent named on the span itself.", _name(_agent_name())),
    Column("agent_id", "VARCHAR", "Agent id named on the span itself.", _name(_first(semconv.AGENT_ID))),
    Column("input_tokens", "BIGINT", "Prompt tokens of this span; AGENT spans may repeat those of their LLM spans, so sum over observation_kind = 'LLM', or use traces.", _integer(semconv.INPUT_TOKENS), "tokens"),
    Column("output_tokens", "BIGINT", "Completion tokens of this span; likewise.", _integer(semconv.OUTPUT_TOKENS), "tokens"),
    Column("cached_input_tokens", "BIGINT", "Prompt tokens served from a cache; some sources count them in input_tokens, some beside.", _integer(semconv.CACHED_INPUT_TOKENS), "tokens"),
    Column("session_id", "VARCHAR", "Session or conversation.", _name(_first(semconv.SESSION_ID))),
    Column("project_id", "VARCHAR", "HALO project id.", _name(_first(semconv.PROJECT_ID))),
    Column("task_key", "VARCHAR", "Which task was attempted; pairs runs.", _name(USUAL_KEYS.task_key())),
    Column("run_id", "VARCHAR", "Which run of the harness.", _name(_first(semconv.RUN_ID))),
    Column("outcome", "VARCHAR", "pass or fail as the span says; NULL when it does not say.", _USUAL["outcome"]),
    Column("score", "DOUBLE", "Score or reward as the span says.", _USUAL["score"]),
    Column("outcome_key", "VARCHAR", "The attribute that says the outcome, else the score.", _USUAL["outcome_key"]),
    Column("exception_type", "VARCHAR", "Type of the first exception event, else of the exception attributes.", _name(_exception("type", semconv.EXCEPTION_TYPE))),
    Column("exception_message", "VARCHAR", f"Its message, at most {MESSAGE_CHARS} characters.", f"left({_exception('message', semconv.EXCEPTION_MESSAGE)}, {MESSAGE_CHARS})"),
)  # fmt: skip

_HARD_TEXT: Final = (
    "CASE WHEN exception_type IS NOT NULL OR exception_message IS NOT NULL "
    "THEN concat_ws(': ', exception_type, coalesce(exception_message, status_message)) "
    f"ELSE coalesce(nullif(concat_ws(' | ', status_message, CASE WHEN observation_kind = 'TOOL' "
    f"AND strlen(output) <= {failure_columns.BRIEF_BYTES} AND output IS DISTINCT FROM status_message "
    f"AND (regexp_matches(output, {quoted(ERROR_PREFIX)}) OR regexp_full_match(status_message, {quoted(SAYS_NOTHING)})) "
    "THEN output END), ''), "
    "CASE WHEN observation_kind = 'TOOL' THEN left(output, 200) END) END"
)
"""What failed in a span with status ERROR: the exception, else the status message, with a short output behind it if
that speaks of an error or the message says nothing; without either, the beginning of the output."""

_FAILURE_COLUMNS: Final[tuple[Column, ...]] = (
    Column("input_hash", "UBIGINT", "Equal for equal arguments of a tool; only on TOOL spans with arguments.", "CASE WHEN observation_kind = 'TOOL' AND input IS NOT NULL THEN hash(input) END", repeats=False),
    Column("output_hash", "UBIGINT", "Equal for equal outputs of a tool; only on TOOL spans with an output.", "CASE WHEN observation_kind = 'TOOL' AND output IS NOT NULL THEN hash(output) END", repeats=False),
    Column("output_chars", "INTEGER", "Length of the output (of an LLM span: of its answer) as recorded; NULL when it is not.", "length(coalesce(output, flat_answer, messages))::INTEGER", "characters"),
    Column("finish_reason", "VARCHAR", "Why a model stopped, lower-cased: stop, length, tool_calls, ...", "finish_reason"),
    Column("soft_rules", "INTEGER", "Which soft-error rules hold, one bit each; 0 on spans with status ERROR.", "soft_rules"),
    Column("failure_text", "VARCHAR", f"What failed: exception, status message with a tool's output, or the telling part of an output; at most {failure_columns.TEXT_CHARS} characters.", "failure_text"),
    Column("failure_key", "VARCHAR", "Failure mode that the span would be of; also on spans that only repeat a failure below.", "failure_mode"),
)  # fmt: skip

OWN_COLUMNS: Final = (*_SAID_COLUMNS, *_FAILURE_COLUMNS)
"""What a span says about itself."""

TREE_COLUMNS: Final[tuple[Column, ...]] = (
    Column("row", "INTEGER", "rowid in own."),
    Column("trace_no", "INTEGER", "Number of the trace in its segment, in trace id order."),
    Column("source_no", "INTEGER", "Number of the source file in the manifest."),
    Column("byte_offset", "BIGINT", "Where the span's JSON object starts in its source.", unit="bytes"),
    Column("byte_length", "INTEGER", "How long it is.", unit="bytes"),
    Column("agent_name", "VARCHAR", "Own agent name, else the nearest ancestor's, else (in traces that name none) the service name."),
    Column("has_parent", "BOOLEAN", "The parent span is in the dataset."),
    Column("is_original_error", "BOOLEAN", "Status ERROR and no descendant with status ERROR: a failure, not its propagation."),
    Column("is_soft_error", "BOOLEAN", "Some soft-error rule holds, and it is not the echo of a span below that failed."),
    Column("in_loop", "BOOLEAN", f"The tool was called with the same arguments {LOOP_CALLS} times or more in a row by one agent; this is one of the calls."),
)  # fmt: skip
"""What only the whole trace knows about a span, and where its text is."""


def _over_llm(column: str) -> str:
    # AGENT spans repeat their children's usage: they count only in traces where no LLM span has any.
    def of(kind: str) -> str:
        return f"CASE WHEN observation_kind = '{kind}' THEN {column} END"

    return f"coalesce(sum({of('LLM')}), max({of('AGENT')}))"


# Plain aggregates with a condition inside are a good deal faster than FILTER, and an integer key than (has_parent, row).
_FIRST_ROOT: Final = "CASE WHEN NOT has_parent THEN row END"
_ROOTS_FIRST: Final = "row + (has_parent::BIGINT << 32)"

_USUAL_OF_TRACE: Final = USUAL_KEYS.of_trace(_ROOTS_FIRST)

TRACE_COLUMNS: Final[tuple[Column, ...]] = (
    Column("trace_no", "INTEGER", "Number of the trace in its segment, in trace id order.", "trace_no"),
    Column("trace_id", "VARCHAR", "Trace id.", "any_value(trace_id)", repeats=False),
    Column("first_row", "INTEGER", "First row of the trace in its segment.", "min(row)"),
    Column("last_row", "INTEGER", "Last row of the trace in its segment.", "max(row)"),
    Column("span_count", "INTEGER", "Spans.", "count(*)::INTEGER", "spans"),
    Column("start_time_unix_nano", "BIGINT", "Earliest start.", "min(start_time_unix_nano)", "ns"),
    Column("end_time_unix_nano", "BIGINT", "Latest end (or start, where no end is known).", "max(coalesce(end_time_unix_nano, start_time_unix_nano))", "ns"),
    Column("root_name", "VARCHAR", "Name of the first span without a parent in the dataset.", f"arg_min(name, {_FIRST_ROOT})"),
    Column("error_span_count", "INTEGER", "Spans with status ERROR.", "count_if(status_code = 'ERROR')::INTEGER", "spans"),
    Column("original_error_count", "INTEGER", "Of these, spans with no failing descendant.", "count_if(is_original_error)::INTEGER", "spans"),
    Column("tool_error_count", "INTEGER", "TOOL spans with status ERROR.", "count_if(status_code = 'ERROR' AND observation_kind = 'TOOL')::INTEGER", "spans"),
    Column("input_tokens", "HUGEINT", "Prompt tokens, summed over LLM spans (over none: the AGENT span's own).", _over_llm("input_tokens"), "tokens"),
    Column("output_tokens", "HUGEINT", "Completion tokens, likewise.", _over_llm("output_tokens"), "tokens"),
    Column("cached_input_tokens", "HUGEINT", "Cached prompt tokens, likewise.", _over_llm("cached_input_tokens"), "tokens"),
    Column("missing_parent_count", "INTEGER", "Spans that name a parent which is not in the dataset.", "count_if(NOT has_parent AND parent_span_id IS NOT NULL)::INTEGER", "spans"),
    Column("missing_agent_count", "INTEGER", "Spans that name no agent themselves (neither name nor id).", "count_if(own_agent_name IS NULL AND agent_id IS NULL)::INTEGER", "spans"),
    Column("raw_bytes", "BIGINT", "JSON text of all spans.", "sum(byte_length)::BIGINT", "bytes"),
    Column("session_id", "VARCHAR", "First session id in the trace.", "arg_min(session_id, row)"),
    Column("project_id", "VARCHAR", "First project id in the trace.", "arg_min(project_id, row)"),
    Column("other_project_count", "INTEGER", "Further project ids in the trace.", "greatest(count(DISTINCT project_id) - 1, 0)::INTEGER"),
    Column("task_key", "VARCHAR", "Task attempted; a root's word before any other span's.", f"arg_min(task_key, {_ROOTS_FIRST})"),
    Column("run_id", "VARCHAR", "Run of the harness; likewise.", f"arg_min(run_id, {_ROOTS_FIRST})"),
    Column("outcome", "VARCHAR", "pass, fail or unknown: of a file of labels, else a root's word before any other span's.", _USUAL_OF_TRACE["outcome"]),
    Column("score", "DOUBLE", "Score or reward; likewise.", _USUAL_OF_TRACE["score"]),
    Column("outcome_source", "VARCHAR", "What says the outcome: an attribute, or 'labels FILE'; NULL when unknown.", _USUAL_OF_TRACE["outcome_source"]),
)  # fmt: skip
"""The spans of one trace, rolled up."""

FACET_COLUMNS: Final[tuple[Column, ...]] = (
    Column("observation_kind", "VARCHAR", "As in own.", "observation_kind"),
    Column("service_name", "VARCHAR", "As in own.", "service_name"),
    Column("agent_name", "VARCHAR", "As in tree.", "agent_name"),
    Column("model_name", "VARCHAR", "As in own.", "model_name"),
    Column("tool_name", "VARCHAR", "As in own.", "tool_name"),
    Column("error", "BOOLEAN", "Status ERROR.", "status_code = 'ERROR'"),
    Column("no_session", "BOOLEAN", "Names no session.", "session_id IS NULL"),
    Column("no_tokens", "BOOLEAN", "Tells no tokens.", "input_tokens IS NULL AND output_tokens IS NULL"),
    Column("no_start", "BOOLEAN", "Tells no start.", "start_time_unix_nano IS NULL"),
    Column("spans", "BIGINT", "How many spans are like this.", "count(*)", "spans"),
    Column("input_tokens", "HUGEINT", "Their prompt tokens.", "coalesce(sum(input_tokens), 0)", "tokens"),
    Column("output_tokens", "HUGEINT", "Their completion tokens.", "coalesce(sum(output_tokens), 0)", "tokens"),
)  # fmt: skip
"""Spans counted by what overviews count them by: far fewer rows than spans. To be grouped by all that is no aggregate."""


@dataclass(frozen=True, slots=True)
class FailureColumns:
    """What the view ``spans`` adds when these rules count: SQL over own and tree."""

    rules: tuple[str, ...] = DEFAULT_RULES

    @property
    def mode(self) -> str:
        """The failure mode that begins at a span; NULL where none does."""
        loop = failure_columns.LOOP_MODE if LOOP_RULE in self.rules else "NULL"
        return (
            f"CASE WHEN is_original_error OR (is_soft_error AND soft_rules & {mask(self.rules)} <> 0) THEN failure_key "
            f"WHEN in_loop THEN {loop} END"
        )

    @property
    def rule(self) -> str:
        """The rule by which it counts; NULL where none does."""
        loop = quoted(LOOP_RULE) if LOOP_RULE in self.rules else "NULL"
        bits = f"(soft_rules & {mask(self.rules)})"
        return (
            f"CASE WHEN is_original_error THEN {quoted(STATUS_RULE)} "
            f"WHEN is_soft_error AND {bits} <> 0 THEN {first_rule(bits)} WHEN in_loop THEN {loop} END"
        )

    @property
    def select(self) -> str:
        """Both, for a SELECT list."""
        return f"{self.mode} AS failure_mode, {self.rule} AS failure_rule"


DEFAULT_FAILURES: Final = FailureColumns()

VIEW_COLUMNS: Final[tuple[Column, ...]] = (
    Column("failure_mode", "VARCHAR", "Failure mode that begins at this span, an id of list_failure_modes; NULL where none does.", DEFAULT_FAILURES.mode),
    Column("failure_rule", "VARCHAR", "Why it counts as failed: status_error, or the name of a soft-error rule.", DEFAULT_FAILURES.rule),
)  # fmt: skip
"""What the view ``spans`` has beside own and tree."""


def table(columns: Iterable[Column]) -> str:
    """The column definitions of a CREATE TABLE."""
    defined = (f"{c.name} {c.type}{'' if c.repeats else ' USING COMPRESSION uncompressed'}" for c in columns)
    return ", ".join(defined)


def trace_columns(keys: OutcomeKeys) -> tuple[Column, ...]:
    """TRACE_COLUMNS as derived with these keys."""
    return _changed(TRACE_COLUMNS, keys.of_trace(_ROOTS_FIRST))


def _changed(columns: Iterable[Column], sql: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(replace(column, sql=sql.get(column.name, column.sql)) for column in columns)


def reader_columns(keys: OutcomeKeys = USUAL_KEYS) -> str:
    """The ``columns`` argument of DuckDB's read_json: only what the index needs, every leaf as text.

    Text accepts any JSON value, so a number where a string was expected never loses a row.
    """
    attributes = ", ".join(f"{identifier(key)} VARCHAR" for key in keys.attributes())
    resource = {key.casefold(): key for key in (semconv.SERVICE_NAME, *keys.chosen)}
    events = 'STRUCT(name VARCHAR, attributes STRUCT("exception.type" VARCHAR, "exception.message" VARCHAR))[]'
    fields = {
        "trace_id": "VARCHAR",
        "span_id": "VARCHAR",
        "parent_span_id": "VARCHAR",
        "name": "VARCHAR",
        "kind": "VARCHAR",
        "start_time": "VARCHAR",
        "end_time": "VARCHAR",
        "status": "STRUCT(code VARCHAR, message VARCHAR)",
        "resource": f"STRUCT(attributes STRUCT({', '.join(f'{identifier(key)} VARCHAR' for key in resource.values())}))",
        "attributes": f'STRUCT({attributes}, "{semconv.EVENTS_ATTRIBUTE}" {events})',
        "events": events,
    }
    return "{" + ", ".join(f"{name}: {quoted(kind)}" for name, kind in fields.items()) + "}"


def own_select(rows: str, keys: OutcomeKeys = USUAL_KEYS) -> str:
    """The query that turns raw rows (a FROM item with ``reader_columns``) into OWN_COLUMNS, order kept."""
    events = f'CASE WHEN len(events) > 0 THEN events ELSE attributes."{semconv.EVENTS_ATTRIBUTE}" END'
    exception = f"list_filter({events}, lambda e: e.name = {quoted(semconv.EXCEPTION_EVENT)})[1]"
    raw = f"SELECT *, attributes AS a, {exception} AS exception FROM {rows}"
    own = keys.own()
    first = _changed((c for c in _SAID_COLUMNS if c.name not in own), {"task_key": _name(keys.task_key())})
    said = f"SELECT {derived(first)}, {keys.said()}, {failure_columns.inputs()} FROM ({raw})"
    names = ", ".join(f"{own[c.name]} AS {c.name}" if c.name in own else c.name for c in _SAID_COLUMNS)
    return f"SELECT {names}, {derived(_FAILURE_COLUMNS)} FROM ({failure_columns.stages(said, _HARD_TEXT)})"


def derived(columns: Iterable[Column]) -> str:
    """The SELECT list that makes these columns."""
    return ", ".join(f"{column.sql} AS {column.name}" for column in columns)
