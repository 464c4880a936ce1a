"""Population facts about a set of traces, from a snapshot of a local index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.snapshot import Snapshot, among_spans
from halo_mcp.index.store import Coverage, ErrorGroup, NamedCount, Outcome, Overview, ToolStats
from halo_mcp.index.work import Work

SAMPLE_TRACES: Final = 20
"""HALO's number of sample ids."""
ERROR_GROUPS: Final = 20
"""HALO's number of error groups; the text shows fewer."""
_EXAMPLE_TRACES: Final = 3
_ID_LISTS: Final = 500

_MASKED: Final = "regexp_replace(text, '[0-9a-fA-F]{8,}|[0-9]+', '#', 'g')"
"""Texts that differ only in numbers and hex ids are one group."""

_TOTALS: Final = """
SELECT count(*), coalesce(sum(span_count), 0)::BIGINT, min(start_time_unix_nano), max(end_time_unix_nano),
       coalesce(sum(raw_bytes), 0)::BIGINT, count(*) FILTER (error_span_count > 0),
       coalesce(sum(error_span_count), 0)::BIGINT, coalesce(sum(original_error_count), 0)::BIGINT,
       coalesce(sum(tool_error_count), 0)::BIGINT, coalesce(sum(input_tokens), 0)::BIGINT,
       coalesce(sum(output_tokens), 0)::BIGINT, coalesce(sum(cached_input_tokens), 0)::BIGINT,
       coalesce(sum(missing_parent_count), 0)::BIGINT, coalesce(sum(missing_agent_count), 0)::BIGINT,
       coalesce(sum(other_project_count), 0)::BIGINT, count(DISTINCT task_key)
FROM traces WHERE {selected}
"""

_FACET_NAMES: Final = [column.name for column in columns.FACET_COLUMNS[:9]]
_FACETS: Final = f"""
SELECT {", ".join(_FACET_NAMES)}, sum(spans)::BIGINT, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT
FROM {{facets}} GROUP BY ALL
"""
_FILTERED_FACETS: Final = f"(SELECT {columns.derived(columns.FACET_COLUMNS)} FROM spans WHERE {{spans}} GROUP BY ALL)"

_AGENT_IDS: Final = f"""
SELECT DISTINCT agent_id FROM spans WHERE agent_id IS NOT NULL AND {{spans}} ORDER BY agent_id LIMIT {_ID_LISTS}
"""

_ERRORS: Final = """
SELECT name, tool_name, failure_text AS text, exception_type, trace_id, span_id
FROM spans WHERE is_original_error AND status_code = 'ERROR' AND {spans}
"""


def read_overview(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> Overview:
    """The Overview of the traces for which the condition ``selected`` (with its values) holds."""
    facets_known = snapshot.facets_known and selected == "true"

    def query(sql: str) -> list[tuple[Any, ...]]:
        sql = sql.replace("{facets}", "facets" if facets_known else _FILTERED_FACETS)
        return snapshot.query(
            sql.replace("{spans}", among_spans(selected)).replace("{selected}", selected), values, work
        )

    with ThreadPoolExecutor(1, thread_name_prefix="halo-mcp-overview") as pool:
        errors = pool.submit(_errors, query)
        (totals,) = query(_TOTALS)
        facets = query(_FACETS)
        outcomes, runs = _outcomes(query)
        agent_ids = tuple(row[0] for row in query(_AGENT_IDS))
        samples = _samples(snapshot, selected, values, work)
        error_rows, exception_types = errors.result()
    return Overview(
        *totals[:15],
        outcomes=outcomes,
        runs=runs,
        task_count=totals[15],
        kinds=_named(facets, 0),
        services=_named(facets, 1),
        agents=_named(facets, 2),
        agent_ids=agent_ids,
        models=_named([row for row in facets if row[0] == "LLM"], 3) or _named(facets, 3),
        tools=_tools(facets, error_rows),
        exception_types=exception_types,
        errors=tuple(_error_group(row) for row in error_rows[:ERROR_GROUPS]),
        error_group_count=len(error_rows),
        coverage=_coverage(facets),
        sample_trace_ids=samples,
    )


def _named(facets: Sequence[tuple[Any, ...]], column: int) -> tuple[NamedCount, ...]:
    """Span counts by one facet column, most frequent first; tokens are those of LLM spans."""
    counts: Counter[str] = Counter()
    tokens: dict[str, tuple[int, int]] = {}
    for row in facets:
        if (name := row[column]) is None:
            continue
        counts[name] += row[9]
        if row[0] == "LLM":
            before = tokens.get(name, (0, 0))
            tokens[name] = (before[0] + row[10], before[1] + row[11])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(NamedCount(name, spans, *tokens.get(name, (0, 0))) for name, spans in ordered)


def _coverage(facets: Sequence[tuple[Any, ...]]) -> Coverage:
    def spans(condition: Callable[[tuple[Any, ...]], bool]) -> int:
        return sum(row[9] for row in facets if condition(row))

    return Coverage(
        without_kind=spans(lambda row: row[0] == "SPAN"),
        llm_spans=spans(lambda row: row[0] == "LLM"),
        llm_without_model=spans(lambda row: row[0] == "LLM" and row[3] is None),
        llm_without_tokens=spans(lambda row: row[0] == "LLM" and row[7]),
        without_session=spans(lambda row: row[6]),
        without_start_time=spans(lambda row: row[8]),
    )


def _outcomes(
    query: Callable[[str], list[tuple[Any, ...]]],
) -> tuple[dict[Outcome, int], tuple[tuple[str, Outcome, int], ...]]:
    rows = query("SELECT run_id, outcome, count(*) FROM traces WHERE {selected} GROUP BY ALL ORDER BY ALL")
    outcomes: dict[Outcome, int] = {"pass": 0, "fail": 0, "unknown": 0}
    for _, outcome, count in rows:
        outcomes[outcome] += count
    return outcomes, tuple(row for row in rows if row[0] is not None)


def _errors(
    query: Callable[[str], list[tuple[Any, ...]]],
) -> tuple[list[tuple[Any, ...]], tuple[NamedCount, ...]]:
    """Rows about groups of original errors, most frequent first; and exception types."""
    groups = query(
        f"SELECT name, {_MASKED} AS masked, tool_name, arg_min(text, (trace_id, span_id)), count(*), "
        f"count(DISTINCT trace_id), min((trace_id, span_id)), list_sort(list(DISTINCT trace_id))[1:{_EXAMPLE_TRACES}] "
        f"FROM ({_ERRORS}) GROUP BY ALL ORDER BY 5 DESC, 1, 2, 3"
    )
    types = query(
        f"SELECT exception_type, count(*) FROM ({_ERRORS}) WHERE exception_type IS NOT NULL "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return groups, tuple(NamedCount(*row) for row in types)


def _error_group(row: tuple[Any, ...]) -> ErrorGroup:
    return ErrorGroup(
        span_name=row[0],
        text=row[3] or "",
        spans=row[4],
        traces=row[5],
        trace_id=_member(row[6], 0),
        span_id=_member(row[6], 1),
        example_trace_ids=tuple(row[7]),
    )


def _tools(facets: Sequence[tuple[Any, ...]], errors: Sequence[tuple[Any, ...]]) -> tuple[ToolStats, ...]:
    calls: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for row in facets:
        if row[4] is not None:
            calls[row[4]] += row[9]
            failures[row[4]] += row[9] if row[5] else 0
    top: dict[str, tuple[str, int]] = {}
    for row in errors:
        if row[2] is not None and row[4] > top.get(row[2], ("", 0))[1]:
            top[row[2]] = (row[3] or "", row[4])
    ordered = sorted(calls, key=lambda name: (-failures[name], -calls[name], name))
    return tuple(ToolStats(name, calls[name], failures[name], *top.get(name, (None, 0))) for name in ordered)


def _member(pair: Any, index: int) -> str:
    members = list(cast("dict[str, Any]", pair).values()) if isinstance(pair, dict) else pair
    return str(members[index])


def _samples(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> tuple[str, ...]:
    """Ids spread evenly over the traces in time order, so that they are no accident of the first minutes."""
    start = f"coalesce(start_time_unix_nano, {np.iinfo(np.int64).max})"
    starts = snapshot.arrays(f"SELECT {start} AS start FROM traces WHERE {selected}", values, work)["start"]
    if not len(starts):
        return ()
    positions = np.unique(np.linspace(0, len(starts) - 1, SAMPLE_TRACES).astype(np.int64))
    chosen = np.partition(starts, positions)[positions]
    wanted = ", ".join(str(value) for value in np.unique(chosen))
    rows = snapshot.query(
        f"SELECT {start} AS start, trace_id FROM traces WHERE start IN ({wanted}) AND {selected} ORDER BY ALL",
        values,
        work,
    )
    # Among traces that start together, the position says how many come before in the order of their ids.
    firsts: list[int] = np.searchsorted(np.array([row[0] for row in rows]), chosen).tolist()
    ranks: list[int] = (positions - np.array([np.count_nonzero(starts < value) for value in chosen])).tolist()
    return tuple(rows[first + rank][1] for first, rank in zip(firsts, ranks, strict=True))
