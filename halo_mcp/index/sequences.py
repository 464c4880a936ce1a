"""The tool calls of one trace in time order, and where two runs of one task part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_rules import LOOP_RULE
from halo_mcp.index.filters import DURATION_MS

if TYPE_CHECKING:
    from halo_mcp.index.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool."""

    span_id: str
    agent_name: str | None
    tool_name: str
    start_time_unix_nano: int | None
    ms: float | None
    failed: bool
    failure_rule: str | None
    failure_text: str | None
    in_loop: bool
    input_hash: int | None
    output_hash: int | None
    output_chars: int | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two sequences part: the first ``same`` calls agree in agent, tool and arguments."""

    same: int
    kind: str
    """``tool``, ``arguments`` (of the same tool), ``result`` (one call failed), ``length``, or "" for nowhere."""


def read_calls(snapshot: Snapshot, key: int) -> list[ToolCall]:
    """The tool calls of the trace ``key`` in time order (those without a start last, then as written)."""
    failed = f"status_code = 'ERROR' OR (failure_mode IS NOT NULL AND failure_rule <> {quoted(LOOP_RULE)})"
    rows = snapshot.query(
        "SELECT span_id, agent_name, tool_name, start_time_unix_nano, "
        f"{DURATION_MS}, {failed}, failure_rule, "
        f"CASE WHEN {failed} THEN failure_text END, in_loop, input_hash, output_hash, output_chars "
        f"FROM {snapshot.spans_of(key)} AND observation_kind = 'TOOL' AND tool_name IS NOT NULL "
        "ORDER BY start_time_unix_nano NULLS LAST, source_no, byte_offset"
    )
    return [ToolCall(*row) for row in rows]


def opposite_run(snapshot: Snapshot, key: int) -> str | None:
    """A trace of the same task with the other outcome: of the same run if there is one, then the earliest."""
    rows = snapshot.query(
        "SELECT o.trace_id FROM traces AS t JOIN traces AS o ON o.task_key = t.task_key AND o.outcome <> t.outcome "
        "WHERE t.trace_key = ? AND t.outcome IN ('pass', 'fail') AND o.outcome IN ('pass', 'fail') "
        "ORDER BY o.run_id IS DISTINCT FROM t.run_id, o.start_time_unix_nano NULLS LAST, o.trace_id LIMIT 1",
        [key],
    )
    return str(rows[0][0]) if rows else None


def first_divergence(one: Sequence[ToolCall], other: Sequence[ToolCall]) -> Divergence:
    """Where the two part. A call without recorded arguments agrees with any call of its tool."""
    for same, (left, right) in enumerate(zip(one, other, strict=False)):
        if (left.agent_name, left.tool_name) != (right.agent_name, right.tool_name):
            return Divergence(same, "tool")
        if _differ(left.input_hash, right.input_hash):
            return Divergence(same, "arguments")
        if left.failed != right.failed:
            return Divergence(same, "result")
    same = min(len(one), len(other))
    return Divergence(same, "length" if len(one) != len(other) else "")


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other
