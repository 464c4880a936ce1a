"""The table of the analyses: each as a process's first call, and all of them in one session."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.analyses import COLD, READ_SPANS
from benchmarks.measure import Measured
from benchmarks.report import Goal, Row, below, times

_JUDGED = ("list_failure_modes", "analyze_tool_use", "contrast_traces")
"""With goals for the first call and for later ones."""


def analysis_rows(measured: Measured, *, full_size: bool) -> list[Row]:
    """Rows without a figure are left out; goals are for the small spans at full size."""
    found = [row for row in (*_first_calls(measured), *_session(measured)) if row.ours is not None]
    judged = full_size and measured.dataset.name == "small"
    return found if judged else [replace(row, goal=None) for row in found]


def _first_calls(measured: Measured) -> list[Row]:
    ours = measured.ours.figures
    table: list[Row] = []
    for tool in COLD:
        goals = (below(2, "≤ 2 s"), below(0.3, "≤ 0.3 s")) if tool in _JUDGED else (None, None)
        table += [
            Row(f"{tool}, fresh process", ours[f"{tool}, cold"], goal=goals[0]),
            Row(f"{tool}, again", ours[f"{tool}, warm"], goal=goals[1]),
            Row(f"{tool}, other filters", ours[f"{tool}, other filters"]),
        ]
    return table


def _session(measured: Measured) -> list[Row]:
    ours, size = measured.ours.figures, measured.dataset.facts.bytes

    def row(text: str, figure: str, goal: Goal | None = None) -> Row:
        return Row(text, ours[figure], goal=goal)

    literal, mode = measured.ripgrep_best("literal")
    alternation, other_mode = measured.ripgrep_best("alternation")
    memory = below(600, "≤ 600 MB")
    return [
        Row(
            "search_dataset: literal, in the session",
            ours["search_dataset, literal"],
            literal,
            times(0.5),
            of=mode,
            scanned_bytes=size,
        ),
        Row(
            "search_dataset: (?i) alternation, in the session",
            ours["search_dataset, alternation"],
            alternation,
            below(size / 1.2e9, "≥ 1.2 GB/s"),
            of=other_mode,
            scanned_bytes=size,
        ),
        row("compare_datasets: two halves", "compare_datasets"),
        row("compare_datasets, again", "compare_datasets, again"),
        row("query_sql: group-by, starts its process", "query_sql"),
        row("query_sql: group-by, again", "query_sql, again", below(0.1, "≤ 0.1 s")),
        row("list_harness_versions", "list_harness_versions"),
        row("list_harness_versions, again", "list_harness_versions, again"),
        row("analyze_cost", "analyze_cost"),
        row("analyze_cost, again", "analyze_cost, again"),
        row("run_code: starts its process", "run_code"),
        row("run_code: a line of code, again", "run_code, again"),
        row(f"run_code: {READ_SPANS:,} spans as dictionaries", "run_code, spans"),
        Row("peak memory, session", ours["session: peak"], goal=memory, unit="MB"),
        Row("private memory, session, all processes", ours["session: peak, all"], goal=memory, unit="MB"),
    ]
