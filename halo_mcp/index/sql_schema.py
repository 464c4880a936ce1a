"""What a writer of SQL must know: the views, their columns and the functions, made from ``columns.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.columns import OWN_COLUMNS, TRACE_COLUMNS, TREE_COLUMNS, VIEW_COLUMNS, Column

INTERNAL: Final = frozenset(
    {
        *("row", "trace_no", "trace_key", "source_no", "byte_offset", "first_row", "last_row"),
        *("own_agent_name", "soft_rules", "failure_key"),
    }
)
"""In the views, but about the index, and free to change with it."""

VIEWS: Final[dict[str, tuple[Column, ...]]] = {
    "spans": tuple(column for column in (*OWN_COLUMNS, *TREE_COLUMNS, *VIEW_COLUMNS) if column.name not in INTERNAL),
    "traces": tuple(column for column in TRACE_COLUMNS if column.name not in INTERNAL),
}
"""The documented columns of each view."""

_MEANINGS: Final = {
    "spans": "one row per span",
    "traces": "one row per trace, rolled up from its spans; join with USING (trace_id)",
}
_INPUT: Final = semconv.INPUT_VALUE[0]

_TOOL_CALLS: Final = "FROM spans WHERE observation_kind = 'TOOL'"

FUNCTIONS: Final = {
    f"attribute(spans, '{_INPUT}')": (
        "one attribute, read from the source file: its text (JSON text for values that are none), NULL when the span "
        "has none; at most 65,536 characters. The first argument is the view, or its alias"
    ),
    "span_json(spans)": "the whole span as JSON text, for json_extract_string(...); at most 1 MiB",
    "make_timestamp_ns(start_time_unix_nano)": "a time as TIMESTAMP (UTC)",
}
"""Calls and their meaning. The first two read files: filter by columns first."""

EXAMPLES: Final = {
    "failures per tool, with rates": (
        "SELECT tool_name, count(*) AS calls, count_if(status_code = 'ERROR') AS failures, "
        f"round(100 * failures / calls, 1) AS percent\n{_TOOL_CALLS} GROUP BY ALL ORDER BY failures DESC, tool_name "
        "LIMIT 20"
    ),
    "what failing traces take, against passing ones": (
        "SELECT outcome, count(*) AS traces, median(span_count) AS spans, median(input_tokens) AS input_tokens\n"
        "FROM traces GROUP BY ALL ORDER BY outcome"
    ),
    "arguments of failing tool calls": (
        f"SELECT trace_id, span_id, tool_name, attribute(spans, '{_INPUT}') AS arguments, status_message\n"
        f"{_TOOL_CALLS} AND is_original_error ORDER BY trace_id, span_id LIMIT 10"
    ),
}
"""Questions and the statements that answer them."""


def listed_columns() -> str:
    """All documented columns, as one line."""
    return "; ".join(f"{view}({', '.join(column.name for column in columns)})" for view, columns in VIEWS.items())


def schema_text() -> str:
    """The views, their columns with types and units, the functions and examples, as text for a model."""
    parts = [
        "SQL of query_sql: DuckDB, one read-only SELECT. Times are nanoseconds since the epoch (UTC); NULL is unknown."
    ]
    for view, columns in VIEWS.items():
        parts += ["", f"VIEW {view}: {_MEANINGS[view]}", *_lines(columns)]
    parts += ["", "FUNCTIONS (and all scalar, aggregate and window functions of DuckDB)"]
    parts += [f"  {call}: {meaning}" for call, meaning in FUNCTIONS.items()]
    parts += ["", "EXAMPLES"]
    parts += [f"-- {question}\n{statement};" for question, statement in EXAMPLES.items()]
    return "\n".join(parts) + "\n"


def _lines(columns: Sequence[Column]) -> list[str]:
    return [
        f"  {column.name} {column.type}{f' ({column.unit})' if column.unit else ''}: {column.description}"
        for column in columns
    ]
