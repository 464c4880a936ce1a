"""Population facts about a set of traces, from a snapshot of a local index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.failure_rules import LOOP_RULE
from halo_mcp.index.failures import FailureMode, read_failure_modes
from halo_mcp.index.snapshot import Snapshot, among_spans
from halo_mcp.index.store import Coverage, NamedCount, Outcome, Overview, ToolStats
from halo_mcp.index.work import Work

SAMPLE_TRACES: Final = 20
"""HALO's number of sample ids."""
_ID_LISTS: Final = 500

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

_SOURCES: Final = """
SELECT outcome_source, count(*) FROM traces WHERE outcome_source IS NOT NULL AND {selected}
GROUP BY 1 ORDER BY 2 DESC, 1
"""

_AGENT_IDS: Final = f"""
SELECT DISTINCT agent_id FROM spans WHERE agent_id IS NOT NULL AND {{spans}} ORDER BY agent_id LIMIT {_ID_LISTS}
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
        reading = pool.submit(read_failure_modes, snapshot, selected, values, work)
        (totals,) = query(_TOTALS)
        facets = query(_FACETS)
        outcomes, runs = _outcomes(query)
        sources = tuple(query(_SOURCES)) if outcomes["pass"] or outcomes["fail"] else ()
        agent_ids = tuple(row[0] for row in query(_AGENT_IDS))
        samples = _samples(snapshot, selected, values, work)
        exception_types = _exception_types(query)
        failures = reading.result()
    return Overview(
        *totals[:15],
        outcomes=outcomes,
        outcome_sources=sources,
        runs=runs,
        task_count=totals[15],
        kinds=_named(facets, 0),
        services=_named(facets, 1),
        agents=_named(facets, 2),
        agent_ids=agent_ids,
        models=_named([row for row in facets if row[0] == "LLM"], 3) or _named(facets, 3),
        tools=_tools(facets, failures.modes),
        exception_types=exception_types,
        failures=failures,
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


def _exception_types(query: Callable[[str], list[tuple[Any, ...]]]) -> tuple[NamedCount, ...]:
    rows = query(
        "SELECT exception_type, count(*) FROM spans WHERE is_original_error AND exception_type IS NOT NULL "
        "AND {spans} GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return tuple(NamedCount(*row) for row in rows)


def _tools(facets: Sequence[tuple[Any, ...]], modes: Sequence[FailureMode]) -> tuple[ToolStats, ...]:
    calls: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for row in facets:
        if row[4] is not None:
            calls[row[4]] += row[9]
            failures[row[4]] += row[9] if row[5] else 0
    soft: Counter[str] = Counter()
    top: dict[str, FailureMode] = {}
    for mode in modes:
        if mode.tool_name is not None and mode.rule != LOOP_RULE:
            soft[mode.tool_name] += 0 if mode.is_hard else mode.spans
            top[mode.tool_name] = max(top.get(mode.tool_name, mode), mode, key=lambda other: other.spans)
    told = {name: (mode.text, mode.spans) for name, mode in top.items()}
    ordered = sorted(calls, key=lambda name: (-failures[name] - soft[name], -calls[name], name))
    return tuple(
        ToolStats(name, calls[name], failures[name], soft[name], *told.get(name, (None, 0))) for name in ordered
    )


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
