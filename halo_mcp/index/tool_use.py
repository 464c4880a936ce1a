"""What tools did over many traces: calls, failures, retries, recovery, loops, waste, latency, transitions.

The calls of one agent in one trace, in time order, are its sequence. A failed call is retried when the agent's next
call is of the same tool, and recovered when some later call of that tool by that agent in that trace does not fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_patterns import INVALID_ARGUMENTS
from halo_mcp.index.failure_rules import LOOP_RULE
from halo_mcp.index.filters import DURATION_MS

if TYPE_CHECKING:
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

_TRANSITIONS: Final = 200
_MIXED_TASKS: Final = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 95th percentile and maximum (DuckDB's quantile_cont); None when nothing is recorded."""

    median: float | None
    p95: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """One tool. Counts are calls unless named otherwise."""

    name: str
    calls: int
    traces: int
    failures: int
    """Status ERROR, or failed by a soft-error rule."""
    hard_failures: int
    argument_errors: int
    """Failures whose text speaks of the arguments: missing, unexpected, invalid, out of bounds."""
    retries: int
    recovered: int
    loops: int
    """Runs of equal calls."""
    loop_calls: int
    repeats: int
    """Calls that gave what an earlier call of the trace with the same arguments had given."""
    repeated_chars: int
    """Their output, in characters."""
    ms: Spread
    output_chars: Spread
    fail_traces: int
    """Traces with outcome fail that call it."""
    pass_traces: int
    fail_traces_with_failure: int
    """Traces with outcome fail in which it fails."""
    pass_traces_with_failure: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One tool called right after another by the same agent; None stands for the start or the end."""

    before: str | None
    after: str | None
    count: int


@dataclass(frozen=True, slots=True)
class UnusedTools:
    """Tools that agents were offered and that none of the traces calls."""

    tools: tuple[tuple[str, tuple[str, ...]], ...]
    """(tool, agents that were offered it), both in alphabetical order."""
    offered: int
    """Different tools in the definitions."""
    traces_read: int
    """Traces whose definitions were read: the first LLM call of each agent and model."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """All tools of a set of traces, most failures first, then most calls, then by name."""

    tools: tuple[ToolFacts, ...]
    transitions: tuple[Transition, ...]
    """The most frequent, at most 200; of ``transition_count`` kinds."""
    transition_count: int
    total_traces: int
    traces_with_calls: int
    failing_traces: int
    passing_traces: int
    mixed_tasks: tuple[tuple[str, str, str], ...]
    """(task key, a failing trace, a passing trace) of a few tasks with both outcomes."""
    mixed_task_count: int
    unused: UnusedTools | None
    """None where no tool definitions are recorded."""


_CALLS: Final = f"""
SELECT trace_key, coalesce(agent_name, '') AS agent, tool_name AS tool, start_time_unix_nano AS start, row,
  status_code = 'ERROR' AS hard,
  status_code = 'ERROR' OR (failure_mode IS NOT NULL AND failure_rule <> {quoted(LOOP_RULE)}) AS failed,
  failure_text, in_loop, input_hash, output_hash, output_chars,
  {DURATION_MS} AS ms
FROM spans WHERE observation_kind = 'TOOL' AND tool_name IS NOT NULL AND {{spans}}
"""
_SEQUENCED: Final = """
SELECT *, lead(tool) OVER turns AS next_tool, lag(tool) OVER turns AS last_tool,
  lag(input_hash) OVER turns AS last_input,
  coalesce(bool_or(NOT failed) OVER (PARTITION BY trace_key, agent, tool ORDER BY start NULLS LAST, row
    ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), false) AS succeeds_later,
  input_hash IS NOT NULL AND output_hash IS NOT NULL AND row_number() OVER (
    PARTITION BY trace_key, tool, input_hash, output_hash ORDER BY start NULLS LAST, row) > 1 AS repeats
FROM calls WINDOW turns AS (PARTITION BY trace_key, agent ORDER BY start NULLS LAST, row)
"""
_TOOLS: Final = f"""
WITH calls AS ({_CALLS}), sequenced AS ({_SEQUENCED})
SELECT tool, count(*), count(DISTINCT trace_key), count(*) FILTER (WHERE failed), count(*) FILTER (WHERE hard),
  count(*) FILTER (WHERE failed
    AND ({" OR ".join(f"regexp_matches(failure_text, {quoted(p)})" for p in INVALID_ARGUMENTS)})),
  count(*) FILTER (WHERE failed AND next_tool = tool),
  count(*) FILTER (WHERE failed AND succeeds_later),
  count(*) FILTER (WHERE in_loop AND (last_tool IS DISTINCT FROM tool OR last_input IS DISTINCT FROM input_hash)),
  count(*) FILTER (WHERE in_loop),
  count(*) FILTER (WHERE repeats AND NOT failed),
  coalesce(sum(CASE WHEN repeats AND NOT failed THEN output_chars END), 0)::BIGINT,
  quantile_cont(ms, [0.5, 0.95]), max(ms), quantile_cont(output_chars, [0.5, 0.95]), max(output_chars),
  count(DISTINCT CASE WHEN outcome = 'fail' THEN trace_key END),
  count(DISTINCT CASE WHEN outcome = 'pass' THEN trace_key END),
  count(DISTINCT CASE WHEN outcome = 'fail' AND failed THEN trace_key END),
  count(DISTINCT CASE WHEN outcome = 'pass' AND failed THEN trace_key END)
FROM sequenced JOIN (SELECT trace_key, outcome FROM traces WHERE {{selected}}) USING (trace_key)
GROUP BY tool ORDER BY count(*) FILTER (WHERE failed) DESC, count(*) DESC, tool
"""
_STEPS: Final = f"""
WITH calls AS ({_CALLS}), steps AS (
  SELECT tool AS before, lead(tool) OVER turns AS after, lag(tool) OVER turns AS earlier
  FROM calls WINDOW turns AS (PARTITION BY trace_key, agent ORDER BY start NULLS LAST, row))
SELECT before, after, count(*) AS n FROM (
  SELECT before, after FROM steps UNION ALL SELECT NULL, before FROM steps WHERE earlier IS NULL)
GROUP BY ALL ORDER BY n DESC, before NULLS FIRST, after NULLS LAST
"""
_TOTALS: Final = """
SELECT count(*), count(*) FILTER (WHERE outcome = 'fail'), count(*) FILTER (WHERE outcome = 'pass'),
  count(*) FILTER (WHERE trace_key IN (
    SELECT trace_key FROM spans WHERE observation_kind = 'TOOL' AND tool_name IS NOT NULL))
FROM traces WHERE {selected}
"""
_MIXED: Final = """
SELECT task_key, min(CASE WHEN outcome = 'fail' THEN trace_id END) AS failing,
  min(CASE WHEN outcome = 'pass' THEN trace_id END) AS passing
FROM traces WHERE task_key IS NOT NULL AND {selected}
GROUP BY task_key HAVING failing IS NOT NULL AND passing IS NOT NULL ORDER BY task_key
"""


def read_tool_use(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> ToolUse:
    """Tool use in the traces for which the condition ``selected`` (with its values) holds.

    Raises: Cancelled, DeadlineExceeded.
    """
    from halo_mcp.index.snapshot import among_spans

    def query(sql: str, conditions: int = 1) -> list[tuple[Any, ...]]:
        sql = sql.replace("{spans}", among_spans(selected)).replace("{selected}", selected)
        return snapshot.query(sql, values * conditions, work)

    steps = query(_STEPS)
    mixed = [(str(task), str(fails), str(passes)) for task, fails, passes in query(_MIXED)]
    ((total, failing, passing, calling),) = query(_TOTALS)
    tools = tuple(_facts(row) for row in query(_TOOLS, 2))
    return ToolUse(
        tools=tools,
        transitions=tuple(Transition(*row) for row in steps[:_TRANSITIONS]),
        transition_count=len(steps),
        total_traces=total,
        traces_with_calls=calling,
        failing_traces=failing,
        passing_traces=passing,
        mixed_tasks=tuple(mixed[:_MIXED_TASKS]),
        mixed_task_count=len(mixed),
        unused=_unused(snapshot, selected, values, {tool.name for tool in tools}, work),
    )


def _unused(snapshot: Snapshot, selected: str, values: list[Any], called: set[str], work: Work) -> UnusedTools | None:
    from halo_mcp.index.harness import offered_tools
    from halo_mcp.index.harness_reading import read_some

    seen = read_some(snapshot, selected, values, work)
    offered = offered_tools(snapshot, seen, work)
    if not offered:
        return None
    unused = tuple((tool, agents) for tool, agents in offered.items() if tool not in called)
    return UnusedTools(unused, len(offered), seen.traces_read)


def _facts(row: tuple[Any, ...]) -> ToolFacts:
    ms, longest, chars, largest = row[12:16]
    return ToolFacts(
        *row[:12],
        ms=_spread(ms, longest),
        output_chars=_spread(chars, largest),
        fail_traces=row[16],
        pass_traces=row[17],
        fail_traces_with_failure=row[18],
        pass_traces_with_failure=row[19],
    )


def _spread(quantiles: list[float | None] | None, most: float | None) -> Spread:
    median, p95 = quantiles or (None, None)
    return Spread(median, p95, most)
