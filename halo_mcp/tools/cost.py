"""analyze_cost: where tokens (and, with a price table, money) go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.index.cost import CostGroup, CostReport, ToolGrowth, TraceCost, Usage
from halo_mcp.tools.budget import COST_CHARS, Page, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters, call_text
from halo_mcp.tools.render import counted, names, number, share

_TRACES_SHOWN: Final = 5
_TOOLS_SHOWN: Final = 4
_JSON_GROUPS: Final = 200
_TURNS_SHOWN: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 30, 50, 75, 100)


def analyze_cost(
    call: Call,
    filters: Filters = ALL_TRACES,
    group_by: Annotated[CostGroup, Field(description="what the table is by")] = "model",
) -> Answer:
    """Say where tokens go: by model, agent, turn, tool, run or outcome; context growth, share re-sent and cached.

    Also tokens of failing traces and those spent after their failure, and the most expensive traces. Exact, over LLM
    spans; money only with the user's price table (--prices). Takes about a second.
    Next: view_trace on an expensive trace.
    """
    report = call.store.cost(filters, call.prices, call.work)
    page = Page(COST_CHARS, reserve=400)
    left = 0
    for line in _summary(call, report):
        page.add(line)
    for line in _table(report, group_by):
        left += not page.add(line)
    closing = [f"{counted(left, 'further line')} left out." if left else "", _assumptions(call, report)]
    if report.expensive:
        closing.append("Next: " + call_text("view_trace", dataset=call.named, trace_id=report.expensive[0].trace_id))
    return Answer(page.close(*closing), _json(report, group_by))


def _summary(call: Call, r: CostReport) -> Iterator[str]:
    total = r.total
    yield (
        f"dataset {call.dataset}: {counted(r.traces, 'trace')}, {counted(r.calls, 'LLM call')}: "
        f"{number(total.input_tokens)} tokens in, {number(total.output_tokens)} out{_money(total.usd)}"
    )
    if lacking := r.calls_without_input:
        yield f"not counted: {share(lacking, r.calls)} LLM calls tell no input tokens"
    if r.agent_only_traces:
        yield (
            f"not counted: {counted(r.agent_only_traces, 'trace')} tell their usage ({number(r.agent_only_tokens)} "
            "tokens) on AGENT spans only"
        )
    if not r.calls:
        return
    cached = "not recorded"
    if r.cached_told_input or total.cached_input_tokens:
        cached = f"{number(total.cached_input_tokens)} in calls with {number(r.cached_told_input)} input tokens"
    yield (
        f"input tokens sent again (up to the size of the agent's previous call): "
        f"{share(r.resent_tokens, total.input_tokens)}; cached: {cached}"
    )
    yield "context by turn (n-th LLM call of an agent in a trace): calls, median / p90 input tokens"
    chosen = [turn for turn in r.turns if turn.turn in _TURNS_SHOWN or turn is r.turns[-1]]
    left_out = f" ({counted(len(r.turns) - len(chosen), 'turn')} not shown)" if len(chosen) < len(r.turns) else ""
    told = "; ".join(f"{t.turn}: {number(t.calls)}, {number(t.median)} / {number(t.p90)}" for t in chosen)
    yield f"  {told}{left_out}"
    yield from _failing(r)
    if r.tools:
        growing = names((f"{preview(t.name)} {share(t.tokens, r.growth)}" for t in r.tools), _TOOLS_SHOWN)
        yield f"context growth between calls: {number(r.growth)} tokens, of these after tools: {growing}"
    expensive = names(map(_trace, r.expensive[:_TRACES_SHOWN]), _TRACES_SHOWN)
    yield f"most expensive traces (tokens in + out): {expensive}"


def _money(usd: float | None) -> str:
    return "" if usd is None else f", USD {usd:,.2f}" if usd >= 1 else f", USD {usd:.4f}"


def _failing(r: CostReport) -> Iterator[str]:
    f, whole = r.failing, r.total.input_tokens + r.total.output_tokens
    kind = "failing traces" if f.by_outcome else "traces with a failure (no outcome is recorded)"
    yield f"{kind}: {number(f.traces)} spent {share(f.tokens, whole)} of all tokens"
    if f.with_failure:
        yield (
            f"  {number(f.with_failure)} of them show where: after their first failure they spent "
            f"{share(f.after_first, f.with_failure_tokens)} of their tokens, after the last (decisive) one "
            f"{share(f.after_last, f.with_failure_tokens)}"
        )


def _trace(trace: TraceCost) -> str:
    tokens = number(trace.input_tokens + trace.output_tokens)
    return f"{trace.trace_id} {tokens} in {counted(trace.calls, 'call')} ({trace.outcome}{_money(trace.usd)})"


def _table(r: CostReport, group_by: CostGroup) -> Iterator[str]:
    if group_by == "tool":
        yield "tool | calls | between two LLM calls | output chars | context growth (share of all), per call"
        for tool in r.tools:
            yield _tool_line(tool, r.growth)
        return
    yield f"{group_by} | LLM calls | tokens in | out | cached | share of all tokens" + (
        "" if r.total.usd is None else " | USD"
    )
    whole = r.total.input_tokens + r.total.output_tokens
    for usage in r.groups[group_by]:
        yield _usage_line(usage, whole)


def _usage_line(usage: Usage, whole: int) -> str:
    tokens = usage.input_tokens + usage.output_tokens
    parts = [
        preview(usage.name),
        number(usage.calls),
        number(usage.input_tokens),
        number(usage.output_tokens),
        number(usage.cached_input_tokens),
        f"{100 * tokens / whole if whole else 0:.1f}%",
    ]
    return "  " + " | ".join(parts if usage.usd is None else [*parts, f"{usage.usd:,.4f}"])


def _tool_line(tool: ToolGrowth, growth: int) -> str:
    mean = number(tool.tokens / tool.followed) if tool.followed else "-"
    return (
        f"  {preview(tool.name)} | {number(tool.calls)} | {number(tool.followed)} | {number(tool.output_chars)} | "
        f"{share(tool.tokens, growth)}, {mean}"
    )


def _assumptions(call: Call, r: CostReport) -> str:
    """What the figures take for granted, where it matters for these data."""
    said: list[str] = []
    if r.total.cached_input_tokens and r.beside_models:
        said.append(
            f"cached tokens count beside input for {names(map(preview, r.beside_models), 3)} (more cached than input)"
        )
    if r.total.cached_input_tokens and len(r.beside_models) < len(r.groups["model"]):
        said.append("cached tokens are taken as part of input" + (" for the others" if r.beside_models else ""))
    if r.unpriced_models:
        said.append(f"the prices have no {names(map(preview, r.unpriced_models), 3)}: not in USD")
    elif call.prices is None:
        said.append("no prices were given (--prices FILE), so no money")
    return f"Covers every matching trace. Assumed: {'; '.join(said)}." if said else "Covers every matching trace."


def _json(r: CostReport, group_by: CostGroup) -> dict[str, Any]:
    listed = r.tools if group_by == "tool" else r.groups[group_by]
    return {
        "trace_count": r.traces,
        "llm_call_count": r.calls,
        "calls_without_input_tokens": r.calls_without_input,
        "agent_only_trace_count": r.agent_only_traces,
        "agent_only_tokens": r.agent_only_tokens,
        "total_input_tokens": r.total.input_tokens,
        "total_output_tokens": r.total.output_tokens,
        "total_cached_input_tokens": r.total.cached_input_tokens,
        "usd": r.total.usd,
        "resent_tokens": r.resent_tokens,
        "cached_told_input_tokens": r.cached_told_input,
        "cached_beside_input_models": list(r.beside_models[:_JSON_GROUPS]),
        "models_without_price": list(r.unpriced_models[:_JSON_GROUPS]),
        "context_growth_tokens": r.growth,
        "turns": [asdict(turn) for turn in r.turns],
        "failing": asdict(r.failing),
        "expensive_traces": [asdict(trace) for trace in r.expensive],
        "group_by": group_by,
        "groups": [asdict(item) for item in listed[:_JSON_GROUPS]],
        "groups_left_out": max(0, len(listed) - _JSON_GROUPS),
    }
