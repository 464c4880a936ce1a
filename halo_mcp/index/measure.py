"""How many traces meet a condition and hold a failure, from a snapshot of a local index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.errors import BadArgument
from halo_mcp.index.failure_rules import STATUS_RULE
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.selection import Selection
from halo_mcp.index.snapshot import Snapshot, among_spans
from halo_mcp.index.store import Measured, Occurrence
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from halo_mcp.index.checks import FailureSelector

EXAMPLES: Final = 5
_IN_TIME_ORDER: Final = f"ORDER BY start_time_unix_nano NULLS LAST, trace_id LIMIT {EXAMPLES}"


def read_measured(
    snapshot: Snapshot, base: Selection, chosen: Selection, failure: FailureSelector | None, work: Work
) -> Measured:
    """Counts of the traces of ``base``, and of those among them that are also chosen and hold the failure.

    Raises: BadArgument, Cancelled, DeadlineExceeded, IndexFailure.
    """
    on_spans, failure_values = _failing(failure, snapshot.failures.rules)
    matching, values = f"({base[0]}) AND ({chosen[0]})", [*base[1], *chosen[1]]
    if failure is not None:
        matching += f" AND trace_key IN (SELECT trace_key FROM spans WHERE {on_spans})"
        values += failure_values
    ((population,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {base[0]}", base[1], work)
    ((traces,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {matching}", values, work)
    among = among_spans(matching)
    if failure is None:
        spans = 0
        sql = f"SELECT trace_id FROM traces WHERE {matching} {_IN_TIME_ORDER}"
        rows = snapshot.query(sql, values, work)
    else:
        both = [*failure_values, *values]
        ((spans,),) = snapshot.query(f"SELECT count(*) FROM spans WHERE {on_spans} AND {among}", both, work)
        first = (
            "SELECT trace_id, span_id, coalesce(failure_text, ''), start_time_unix_nano FROM spans "
            f"WHERE {on_spans} AND {among} QUALIFY row_number() OVER "
            "(PARTITION BY trace_key ORDER BY start_time_unix_nano NULLS LAST, source_no, byte_offset) = 1"
        )
        rows = [row[:3] for row in snapshot.query(f"{first} {_IN_TIME_ORDER}", both, work)]
    others = snapshot.query(
        f"SELECT trace_id FROM traces WHERE ({base[0]}) AND ({matching}) IS NOT TRUE {_IN_TIME_ORDER}",
        [*base[1], *values],
        work,
    )
    return Measured(
        population=population,
        traces=traces,
        spans=spans,
        examples=tuple(Occurrence(*row) for row in rows),
        others=tuple(Occurrence(row[0]) for row in others),
    )


def _failing(failure: FailureSelector | None, counted: Sequence[str]) -> Selection:
    """A condition on ``spans``: a failure begins there that the selector means. ``counted``: rules that count here."""
    conditions, values = ["failure_mode IS NOT NULL"], list[Any]()
    if failure is None:
        return conditions[0], values
    if failure.rule and failure.rule not in (STATUS_RULE, *counted):
        raise BadArgument(f"Rule {failure.rule!r} counts nothing as a failure here. Name it in HALO_MCP_SOFT_RULES.")
    if failure.pattern:
        compile_pattern(failure.pattern)  # DuckDB runs RE2 too, but says less well what is wrong
    for condition, value in (
        ("failure_mode = ?", failure.id),
        ("failure_rule = ?", failure.rule),
        ("name = ?", failure.span_name),
        ("contains(failure_text, ?)", failure.text),
        ("regexp_matches(failure_text, ?)", failure.pattern),
    ):
        if value:
            conditions.append(condition)
            values.append(value)
    return " AND ".join(conditions), values
