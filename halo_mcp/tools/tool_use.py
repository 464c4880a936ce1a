"""analyze_tool_use: how tools are called, fail, are retried and recover; and the calls of one trace beside another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.index import semconv
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.sequences import ToolCall, first_divergence
from halo_mcp.index.span import as_text
from halo_mcp.index.store import Outcome
from halo_mcp.index.tool_use import Spread, ToolFacts, ToolUse, Transition, UnusedTools
from halo_mcp.tools.budget import DEFAULT_CHARS, Page, name, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters, call_text
from halo_mcp.tools.render import counted, names, number, share

_TOOLS_SHOWN: Final = 12
_STEPS_SHOWN: Final = 8
_UNUSED_SHOWN: Final = 10
_JSON_TOOLS: Final = 200
_JSON_CALLS: Final = 100
_CALLS_SHOWN: Final = 60
_ARGUMENT_CHARS: Final = 300
_ERROR_CHARS: Final = 120


def analyze_tool_use(
    call: Call,
    filters: Filters = ALL_TRACES,
    tool_names: Annotated[list[str], Field(max_length=100, description="only these tools")] = [],  # noqa: B006
    trace_id: Annotated[str, Field(description="instead: this trace's calls, beside another run of its task")] = "",
    against: Annotated[str, Field(description="with trace_id: the other run; empty = of the other outcome")] = "",
) -> Answer:
    """Say how tools are used: calls, failures, bad arguments, retries and recovery, loops, repeated results, time.

    Per tool also its share among failing and passing traces. Exact, all traces. With `trace_id`: its call sequence and
    the first point where it parts from a passing (or failing) run of the same task.
    Next: list_failure_modes for the error texts, contrast_traces for what separates fail from pass.
    """
    if trace_id:
        return _one_trace(call, trace_id, against)
    found = call.store.tool_use(filters, call.work)
    chosen = [tool for tool in found.tools if not tool_names or tool.name in tool_names]
    page = Page(DEFAULT_CHARS, reserve=600)
    page.add(
        f"dataset {call.dataset}: {counted(len(chosen), 'tool')}, {counted(sum(t.calls for t in chosen), 'call')} in "
        f"{counted(found.traces_with_calls, 'trace')} of {number(found.total_traces)} (all scanned; "
        f"fail {number(found.failing_traces)}, pass {number(found.passing_traces)})"
    )
    shown = 0
    for tool in chosen[:_TOOLS_SHOWN]:
        if not page.add(_tool_lines(tool, found)):
            break
        shown += 1
    if len(chosen) > shown:
        page.add(f"+{len(chosen) - shown} more tools with fewer failures: name them in tool_names")
    unknown = [wanted for wanted in tool_names if wanted not in {tool.name for tool in found.tools}]
    if unknown:
        page.add(f"no calls of: {', '.join(unknown)}. Tools: {', '.join(name(t.name) for t in found.tools[:20])}")
    if found.unused and not tool_names:
        page.add(_unused_line(found.unused, found.total_traces))
    page.add(_transition_line(found))
    if found.mixed_task_count:
        example = name(found.mixed_tasks[0][0])
        page.add(f"{counted(found.mixed_task_count, 'task')} with passing and failing runs, e.g. {example}")
    return Answer(page.close(_next(call, found, chosen, filters)), _json(found, chosen))


def _tool_lines(tool: ToolFacts, found: ToolUse) -> str:
    lines = [f"tool {name(tool.name)}: {counted(tool.calls, 'call')} in {counted(tool.traces, 'trace')}"]
    if tool.failures:
        soft = tool.failures - tool.hard_failures
        detail = f"; {number(soft)} with status OK" if soft else ""
        detail += f"; {number(tool.argument_errors)} about arguments" if tool.argument_errors else ""
        lines.append(
            f"  failed {share(tool.failures, tool.calls)}{detail}; the same tool came next after "
            f"{number(tool.retries)}, a later call worked after {share(tool.recovered, tool.failures)}"
        )
    if tool.loops:
        lines.append(f"  {counted(tool.loops, 'loop')} of {number(tool.loop_calls)} equal calls in a row")
    if tool.repeats:
        chars = f", {number(tool.repeated_chars)} characters again" if tool.repeated_chars else ""
        lines.append(f"  {counted(tool.repeats, 'call')} repeated an earlier call and its result{chars}")
    lines.append(f"  {_spread('ms', tool.ms)}; {_spread('output characters', tool.output_chars)}")
    if found.failing_traces and found.passing_traces:
        lines.append(
            f"  used in {share(tool.fail_traces, found.failing_traces)} of failing and "
            f"{share(tool.pass_traces, found.passing_traces)} of passing traces"
            + (
                f"; fails in {share(tool.fail_traces_with_failure, found.failing_traces)} and "
                f"{share(tool.pass_traces_with_failure, found.passing_traces)}"
                if tool.failures
                else ""
            )
        )
    return "\n".join(lines)


def _spread(what: str, values: Spread) -> str:
    if values.median is None or values.p95 is None or values.most is None:
        return f"{what} not recorded"
    return f"{what} median {number(values.median)}, p95 {number(values.p95)}, max {number(values.most)}"


def _unused_line(unused: UnusedTools, traces: int) -> str:
    read = "all traces" if unused.traces_read >= traces else f"{number(unused.traces_read)} of {number(traces)} traces"
    coverage = f"{counted(unused.offered, 'tool')} in the definitions of {read}"
    if not unused.tools:
        return f"offered but never called (no tool span): none ({coverage})"
    if len(unused.tools) == unused.offered:
        coverage += "; perhaps calls are named differently"
    shown = names((f"{name(tool)} (by {names(map(name, agents), 3)})" for tool, agents in unused.tools), _UNUSED_SHOWN)
    return f"offered but never called (no tool span): {number(len(unused.tools))} ({coverage}): {shown}"


def _transition_line(found: ToolUse) -> str:
    def step(transition: Transition) -> str:
        before, after = transition.before or "(start)", transition.after or "(end)"
        return f"{name(before)} → {name(after)} {number(transition.count)}"

    shown = found.transitions[:_STEPS_SHOWN]
    more = found.transition_count - len(shown)
    return f"next call of the same agent: {', '.join(map(step, shown))}" + (
        f" +{number(more)} more kinds" if more else ""
    )


def _next(call: Call, found: ToolUse, chosen: Sequence[ToolFacts], filters: TraceFilters) -> str:
    steps: list[str] = []
    failing = next((tool for tool in chosen if tool.failures), None)
    if failing:
        given = filters.given() | {"tool_names": [failing.name]}
        steps.append(call_text("list_failure_modes", dataset=call.named, filters=given))
    if found.mixed_tasks:
        steps.append(call_text("analyze_tool_use", dataset=call.named, trace_id=found.mixed_tasks[0][1]))
    return "Next: " + " or ".join(steps) if steps else ""


def _json(found: ToolUse, chosen: Sequence[ToolFacts]) -> dict[str, Any]:
    return {
        "total_traces": found.total_traces,
        "traces_with_calls": found.traces_with_calls,
        "failing_trace_count": found.failing_traces,
        "passing_trace_count": found.passing_traces,
        "tools": [asdict(tool) for tool in chosen[:_JSON_TOOLS]],
        "tools_left_out": max(0, len(chosen) - _JSON_TOOLS),
        "transitions": [asdict(step) for step in found.transitions],
        "transition_kind_count": found.transition_count,
        "unused_tools": None if found.unused is None else asdict(found.unused),
        "tasks_with_both_outcomes": [
            {"task_key": task, "failing_trace_id": fails, "passing_trace_id": passes}
            for task, fails, passes in found.mixed_tasks
        ],
        "tasks_with_both_outcomes_count": found.mixed_task_count,
    }


# --- one trace ---------------------------------------------------------------------------------------------------
def _one_trace(call: Call, trace_id: str, against: str) -> Answer:
    trace = call.store.trace(trace_id)
    calls = call.store.tool_calls(trace_id)
    other_id = against or call.store.opposite_run(trace_id) or ""
    page = Page(DEFAULT_CHARS, reserve=500)
    page.add(f"trace {trace.trace_id} · outcome {trace.outcome} · {counted(len(calls), 'tool call')}")
    page.add_cut(_sequence(calls))
    data: dict[str, Any] = {"trace_id": trace.trace_id, "outcome": trace.outcome, **_calls_json(calls)}
    if not other_id:
        page.add("No run of the same task with the other outcome is known; name one in against.")
        return Answer(page.close(call_text("view_trace", dataset=call.named, trace_id=trace.trace_id)), data)
    other = call.store.trace(other_id)
    others = call.store.tool_calls(other.trace_id)
    page.add(f"trace {other.trace_id} · outcome {other.outcome} · {counted(len(others), 'tool call')}")
    page.add_cut(_sequence(others))
    parting = first_divergence(calls, others)
    page.add(_parting(call, (trace.trace_id, trace.outcome, calls), (other.trace_id, other.outcome, others)))
    data["against"] = {"trace_id": other.trace_id, "outcome": other.outcome, **_calls_json(others, parting.same)}
    data |= _calls_json(calls, parting.same)
    data["first_divergence"] = asdict(parting)
    return Answer(page.close(_next_views(call, trace.trace_id, calls, parting.same)), data)


def _calls_json(calls: Sequence[ToolCall], near: int = 0) -> dict[str, Any]:
    """At most _JSON_CALLS calls, from some before position ``near`` on."""
    first = max(0, min(near - _JSON_CALLS // 2, len(calls) - _JSON_CALLS))
    shown = calls[first : first + _JSON_CALLS]
    return {"calls": [asdict(one) for one in shown], "first_call": first, "call_count": len(calls)}


def _sequence(calls: Sequence[ToolCall]) -> str:
    """One step per run of calls that differ in nothing that is shown."""
    steps: list[tuple[str, int]] = []
    for one in calls:
        mark = "✗" if one.failed else ""
        step = f"{name(one.tool_name)}{mark}"
        if steps and steps[-1][0] == step:
            steps[-1] = (step, steps[-1][1] + 1)
        else:
            steps.append((step, 1))
    words = [step if times == 1 else f"{step}×{times}" for step, times in steps]
    more = f" … +{len(words) - _CALLS_SHOWN} more steps" if len(words) > _CALLS_SHOWN else ""
    return "  " + (" → ".join(words[:_CALLS_SHOWN]) + more if words else "(no tool calls)")


_Run = tuple[str, Outcome, Sequence[ToolCall]]
_HOW: Final = {
    "tool": "another tool or agent",
    "arguments": "the same tool with other arguments",
    "result": "the same call, of which one failed",
    "length": "one run ends there",
}


def _parting(call: Call, one: _Run, other: _Run) -> str:
    parting = first_divergence(one[2], other[2])
    if not parting.kind:
        return f"Both make the same {counted(parting.same, 'call')}: what separates them is not in the tool calls."
    lines = [f"They part at call {parting.same + 1} ({_HOW[parting.kind]}); before it {parting.same} equal calls:"]
    for trace_id, outcome, calls in (one, other):
        lines.append(f"  {outcome}: {_described(call, trace_id, calls, parting.same)}")
    return "\n".join(lines)


def _described(call: Call, trace_id: str, calls: Sequence[ToolCall], position: int) -> str:
    if position >= len(calls):
        return "no further call"
    one = calls[position]
    (span,) = call.store.payloads(trace_id, [one.span_id])[:1]
    given = next((span.attributes[key] for key in semconv.INPUT_VALUE if span.attributes.get(key)), None)
    arguments = preview(as_text(given), _ARGUMENT_CHARS) if given else "arguments not recorded"
    failed = f"; failed: {preview(one.failure_text or '', _ERROR_CHARS)}" if one.failed else ""
    return f"{name(one.tool_name)} {arguments}{failed} (span {one.span_id})"


def _next_views(call: Call, trace_id: str, calls: Sequence[ToolCall], position: int) -> str:
    if not calls:
        return "Next: " + call_text("view_trace", dataset=call.named, trace_id=trace_id)
    near = calls[min(position, len(calls) - 1)]
    return "Next: " + call_text("view_spans", dataset=call.named, trace_id=trace_id, span_ids=[near.span_id], around=2)
