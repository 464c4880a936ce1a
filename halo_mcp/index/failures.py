"""Failure modes: all failures of a set of traces, grouped by fingerprint, with counts over every trace.

A failure is counted where it begins: a span with status ERROR and no failing span below it, a span whose output says
that it failed (a soft error, see ``failure_rules.py``), or a call that a loop repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.index.columns import FailureColumns
from halo_mcp.index.failure_columns import masked
from halo_mcp.index.failure_rules import RULE_NAMES, STATUS_RULE

if TYPE_CHECKING:
    from halo_mcp.index.evidence import Quote
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

MOST_MODES: Final = 5_000
"""So many failure modes are told one by one; beyond, only how many there are and what they sum up to."""
_EXAMPLE_TRACES: Final = 3


@dataclass(frozen=True, slots=True)
class FailureMode:
    """Failures that differ only in ids, numbers, paths, quoted values and the like."""

    id: str
    rule: str
    """``status_error`` for hard errors, else the soft-error rule that most of its spans met."""
    span_name: str
    tool_name: str | None
    exception_type: str | None
    text: str | None
    """Of the example, verbatim but cut; None where nothing is said (loops)."""
    pattern: str | None
    """The text with placeholders for what varies."""
    spans: int
    traces: int
    failing_traces: int
    passing_traces: int
    first_seen_unix_nano: int | None
    last_seen_unix_nano: int | None
    trace_id: str
    """An example: the earliest in a failing trace, else the earliest."""
    span_id: str
    example_trace_ids: tuple[str, ...]
    """At most 3, ``trace_id`` first."""

    @property
    def is_hard(self) -> bool:
        return self.rule == STATUS_RULE


@dataclass(frozen=True, slots=True)
class FailureModes:
    """All failure modes of a set of traces.

    In the order of their share of the failing traces minus that of the passing ones (where outcomes are known), then of
    traces, spans and id.
    """

    modes: tuple[FailureMode, ...]
    """At most MOST_MODES."""
    mode_count: int
    spans: int
    """Failing spans of all modes."""
    traces: int
    """Traces with some failure."""
    total_traces: int
    failing_traces: int
    """Of all traces: so many have the outcome fail."""
    passing_traces: int
    rules: tuple[str, ...]
    """The soft-error rules that counted."""
    spans_by_rule: tuple[tuple[str, int], ...]
    """Failing spans by the rule they count by, most first."""
    unused_rules: tuple[tuple[str, int], ...]
    """Spans that further rules would hold for, and no counted rule does."""


@dataclass(frozen=True, slots=True)
class FailureEvidence:
    """A failure mode with a quote that stands in its example span."""

    mode: FailureMode
    quote: Quote | None


def read_failure_modes(
    snapshot: Snapshot, selected: str, values: list[Any], work: Work, rules: tuple[str, ...] | None = None
) -> FailureModes:
    """The failure modes of the traces for which the condition ``selected`` (with its values) holds.

    ``rules``: the soft-error rules that count, instead of those of the snapshot. Raises: Cancelled, DeadlineExceeded.
    """
    from halo_mcp.index.snapshot import among_spans

    counted = snapshot.failures if rules is None else FailureColumns(rules)
    chosen = among_spans(selected)
    failures = (
        f"SELECT {counted.mode} AS mode, {counted.rule} AS rule, trace_key, trace_id, span_id, name, tool_name, "
        f"exception_type, failure_text, start_time_unix_nano AS start FROM spans WHERE {chosen} "
        f"AND (is_original_error OR is_soft_error OR in_loop) AND ({counted.mode}) IS NOT NULL"
    )
    # The example comes from a failing trace if there is one; the earliest such span, so that it stays the same.
    first = "(outcome <> 'fail', coalesce(start, 9223372036854775807), trace_id, span_id)"
    ((total, failing, passing),) = snapshot.query(
        "SELECT count(*), count(*) FILTER (WHERE outcome = 'fail'), count(*) FILTER (WHERE outcome = 'pass') "
        "FROM traces WHERE " + selected,
        values,
        work,
    )
    # What is about as common in passing traces explains nothing: it comes after what is not.
    harm = f"failing / {max(1, failing)} - passing / {max(1, passing)}"
    rows = snapshot.query(
        f"WITH f AS ({failures}), o AS (SELECT trace_key, outcome FROM traces WHERE {selected}), "
        "g AS (SELECT mode, mode(rule) AS rule, min(name) AS name, min(tool_name) AS tool_name, "
        f"min(exception_type) AS exception_type, arg_min(failure_text, {first}) AS text, count(*) AS spans, "
        "count(DISTINCT trace_key) AS traces, "
        "count(DISTINCT CASE WHEN outcome = 'fail' THEN trace_key END) AS failing, "
        "count(DISTINCT CASE WHEN outcome = 'pass' THEN trace_key END) AS passing, min(start) AS first_seen, "
        f"max(start) AS last_seen, arg_min(trace_id, {first}) AS trace_id, arg_min(span_id, {first}) AS span_id, "
        f"min(DISTINCT trace_id, {_EXAMPLE_TRACES}) AS examples "
        "FROM f JOIN o USING (trace_key) GROUP BY mode) "
        f"SELECT mode, rule, name, tool_name, exception_type, text, {masked('text')}, spans, traces, failing, passing, "
        f"first_seen, last_seen, trace_id, span_id, examples FROM g "
        f"ORDER BY {harm} DESC, traces DESC, spans DESC, mode "
        f"LIMIT {MOST_MODES}",
        [*values, *values],
        work,
    )
    by_rule = snapshot.query(
        f"WITH f AS ({failures}) SELECT rule, count(*), count(DISTINCT mode), count(DISTINCT trace_key) FROM f "
        "GROUP BY GROUPING SETS ((rule), ()) ORDER BY rule IS NULL, 2 DESC, 1",
        values,
        work,
    )
    (_, spans, mode_count, traces) = by_rule[-1]
    return FailureModes(
        modes=tuple(_mode(row) for row in rows),
        mode_count=mode_count,
        spans=spans,
        traces=traces,
        total_traces=total,
        failing_traces=failing,
        passing_traces=passing,
        rules=counted.rules,
        spans_by_rule=tuple((rule, count) for rule, count, *_ in by_rule[:-1]),
        unused_rules=_unused(snapshot, chosen, values, counted, work),
    )


def _mode(row: tuple[Any, ...]) -> FailureMode:
    first = row[-3]
    others = [other for other in row[-1] if other != first]
    return FailureMode(*row[:-1], example_trace_ids=(first, *others[: _EXAMPLE_TRACES - 1]))


def _unused(
    snapshot: Snapshot, chosen: str, values: list[Any], counted: FailureColumns, work: Work
) -> tuple[tuple[str, int], ...]:
    left_out = tuple(name for name in RULE_NAMES if name not in counted.rules)
    if not left_out:
        return ()
    rows = snapshot.query(
        f"SELECT {FailureColumns(left_out).rule} AS rule, count(*) FROM spans WHERE {chosen} "
        f"AND (is_soft_error OR in_loop) AND NOT is_original_error AND ({counted.mode}) IS NULL GROUP BY 1 "
        "HAVING rule IS NOT NULL ORDER BY 2 DESC, 1",
        values,
        work,
    )
    return tuple((rule, count) for rule, count in rows)
