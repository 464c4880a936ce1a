"""How tools were used, against a count by hand over small generated traces; and where two runs part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.sequences import ToolCall, first_divergence
from halo_mcp.index.tool_use import ToolFacts, ToolUse
from halo_mcp.index.work import Work
from tests.builders import Record, span, store_of


class Made(NamedTuple):
    """One call."""

    tool: str
    agent: str
    argument: str
    """Empty: not recorded."""
    output: str
    """Empty: not recorded; "Error: ..." is a soft failure."""
    error: str
    """The status message of a hard failure."""
    ms: int

    @property
    def failed(self) -> bool:
        return bool(self.error) or self.output.startswith("Error")


Trace = tuple[str, list[Made]]
"""(outcome, calls in time order)."""

made_calls = st.builds(
    Made,
    tool=st.sampled_from("fgh"),
    agent=st.sampled_from("ab"),
    argument=st.sampled_from(("", "x", "y")),
    output=st.sampled_from(("", "done", "other", "Error: limit must be < 100", "Error: boom")),
    error=st.sampled_from(("", "", "", "broken", "missing 1 required argument")),
    ms=st.integers(1, 500),
)
made_traces = st.lists(
    st.tuples(st.sampled_from(("pass", "fail", "")), st.lists(made_calls, max_size=9)), min_size=1, max_size=6
)


def spans_of(traces: Sequence[Trace]) -> Iterator[Record]:
    for number, (outcome, calls) in enumerate(traces):
        marks = {"task.outcome": outcome} if outcome else {}
        yield span("root", trace=f"t{number}", kind="CHAIN", attributes=marks)
        for agent in "ab":
            yield span(agent, "root", trace=f"t{number}", kind="AGENT", attributes={"agent.name": agent})
        for at, call in enumerate(calls):
            given = {"tool.name": call.tool, "input.value": call.argument, "output.value": call.output}
            yield span(
                f"c{at}",
                call.agent,
                trace=f"t{number}",
                kind="TOOL",
                error=call.error,
                start_ms=1_000 * at,
                ms=call.ms,
                attributes={key: value for key, value in given.items() if value},
            )


def expected(traces: Sequence[Trace]) -> dict[str, dict[str, Any]]:
    """The facts of each tool, counted call by call."""
    facts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    within: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for number, (outcome, calls) in enumerate(traces):
        seen: set[tuple[str, str, str]] = set()
        for call in calls:
            fact = facts[call.tool]
            fact["calls"] += 1
            fact["failures"] += call.failed
            fact["hard_failures"] += bool(call.error)
            told = f"{call.error} {call.output}"
            fact["argument_errors"] += call.failed and ("limit must" in told or "missing 1" in told)
            within[call.tool, "traces"].add(number)
            if outcome:
                within[call.tool, f"{outcome}_traces"].add(number)
                if call.failed:
                    within[call.tool, f"{outcome}_traces_with_failure"].add(number)
            same = (call.tool, call.argument, call.output)
            if call.argument and call.output:
                if same in seen and not call.failed:
                    fact["repeats"] += 1
                    fact["repeated_chars"] += len(call.output)
                seen.add(same)
        for agent in "ab":
            turns = [call for call in calls if call.agent == agent]
            for at, call in enumerate(turns):
                if call.failed:
                    facts[call.tool]["retries"] += at + 1 < len(turns) and turns[at + 1].tool == call.tool
                    facts[call.tool]["recovered"] += any(
                        later.tool == call.tool and not later.failed for later in turns[at + 1 :]
                    )
            for (tool, argument), run in groupby(turns, lambda call: (call.tool, call.argument)):
                if argument and (length := len(list(run))) >= 3:
                    facts[tool]["loops"] += 1
                    facts[tool]["loop_calls"] += length
    return {
        tool: {name: fact[name] for name in COUNTED} | {name: len(within[tool, name]) for name in WITHIN}
        for tool, fact in facts.items()
    }


COUNTED = (
    *("calls", "failures", "hard_failures", "argument_errors", "retries", "recovered"),
    *("loops", "loop_calls", "repeats", "repeated_chars"),
)
WITHIN = ("traces", "fail_traces", "pass_traces", "fail_traces_with_failure", "pass_traces_with_failure")


def steps(traces: Sequence[Trace]) -> Counter[tuple[str | None, str | None]]:
    found: Counter[tuple[str | None, str | None]] = Counter()
    for _, calls in traces:
        for agent in "ab":
            turns = [call.tool for call in calls if call.agent == agent]
            if turns:
                found.update(zip([None, *turns], [*turns, None], strict=True))
    return found


def use_of(store: LocalStore, **filters: Any) -> ToolUse:
    return store.tool_use(TraceFilters(**filters), Work())


def facts_of(use: ToolUse) -> Mapping[str, ToolFacts]:
    return {tool.name: tool for tool in use.tools}


@settings(max_examples=40, phases=[Phase.generate])
@given(traces=made_traces)
def test_all_counts_are_those_of_a_count_by_hand(traces: list[Trace]) -> None:
    with TemporaryDirectory() as directory:
        store = store_of(Path(directory), *spans_of(traces))
        use = use_of(store)
        store.close()
    assert {tool.name: {name: getattr(tool, name) for name in (*COUNTED, *WITHIN)} for tool in use.tools} == expected(
        traces
    )
    assert {(step.before, step.after): step.count for step in use.transitions} == steps(traces)
    assert use.transition_count == len(use.transitions)
    assert [use.total_traces, use.traces_with_calls] == [len(traces), sum(bool(calls) for _, calls in traces)]
    outcomes = Counter(outcome for outcome, _ in traces)
    assert [use.failing_traces, use.passing_traces] == [outcomes["fail"], outcomes["pass"]]
    ranks = [(-tool.failures, -tool.calls, tool.name) for tool in use.tools]
    assert ranks == sorted(ranks)


def call(tool: str = "f", argument: str = "x", output: str = "done", error: str = "", ms: int = 1) -> Made:
    return Made(tool, "a", argument, output, error, ms)


def test_spreads_are_medians_95th_percentiles_and_maxima(tmp_path: Path) -> None:
    calls = [call(ms=ms, output="x" * ms) for ms in range(1, 102)]
    tool = facts_of(use_of(store_of(tmp_path, *spans_of([("", calls)]))))["f"]
    assert (tool.ms.median, tool.ms.p95, tool.ms.most) == (51, 96, 101)
    assert (tool.output_chars.median, tool.output_chars.p95, tool.output_chars.most) == (51, 96, 101)


def test_what_is_not_recorded_has_no_spread(tmp_path: Path) -> None:
    record = span("c", kind="TOOL", attributes={"tool.name": "f"}, end_time="")
    tool = facts_of(use_of(store_of(tmp_path, record)))["f"]
    assert (tool.ms.median, tool.output_chars.median) == (None, None)


def test_filters_choose_traces_not_calls(tmp_path: Path) -> None:
    store = store_of(tmp_path, *spans_of([("fail", [call("f"), call("g")]), ("pass", [call("f")])]))
    use = use_of(store, tool_names=["g"])
    assert {tool.name: tool.calls for tool in use.tools} == {"f": 1, "g": 1}
    assert (use.total_traces, use.failing_traces, use.passing_traces) == (1, 1, 0)


def test_a_dataset_without_tools_has_none(tmp_path: Path) -> None:
    use = use_of(store_of(tmp_path, span("a")))
    assert (use.tools, use.transitions, use.total_traces, use.traces_with_calls) == ((), (), 1, 0)


# --- two runs --------------------------------------------------------------------------------------------------------
def a_call(tool: str = "f", *, agent: str = "a", arguments: int | None = 1, failed: bool = False) -> ToolCall:
    return ToolCall("s", agent, tool, 0, 1.0, failed, None, None, False, arguments, None, None)


F, G = a_call("f"), a_call("g")


@pytest.mark.parametrize(
    "one, other, same, kind",
    [
        ([], [], 0, ""),
        ([F, G], [F, G], 2, ""),
        ([F], [F, G], 1, "length"),
        ([], [F], 0, "length"),
        ([F, F], [F, G], 1, "tool"),
        ([F], [a_call("f", agent="b")], 0, "tool"),
        ([F, F], [F, a_call("f", arguments=2)], 1, "arguments"),
        ([F], [a_call("f", arguments=None)], 1, ""),
        ([F, G], [F, a_call("g", failed=True)], 1, "result"),
        ([a_call("f", failed=True)], [a_call("f", arguments=2)], 0, "arguments"),
    ],
)
def test_two_runs_part_at_their_first_difference(
    one: list[ToolCall], other: list[ToolCall], same: int, kind: str
) -> None:
    for parting in (first_divergence(one, other), first_divergence(other, one)):
        assert (parting.same, parting.kind) == (same, kind)


def run_of(trace: str, task: str, outcome: str, run: str = "", start_ms: float = 0) -> Record:
    marks = {"task.id": task, "task.outcome": outcome, "run.id": run}
    return span("r", trace=trace, start_ms=start_ms, attributes={key: value for key, value in marks.items() if value})


def test_the_opposite_run_is_of_the_same_task_and_run_then_the_earliest(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        run_of("f1", "A", "fail", "r2"),
        run_of("p1", "A", "pass", "r1", start_ms=1),
        run_of("p2", "A", "pass", "r2", start_ms=9),
        run_of("p3", "A", "pass", "r2", start_ms=5),
        run_of("other", "B", "pass", "r2"),
        run_of("unknown", "A", ""),
    )
    found = {trace: store.opposite_run(trace) for trace in ("f1", "p1", "other", "unknown")}
    assert found == {"f1": "p3", "p1": "f1", "other": None, "unknown": None}


def test_calls_come_in_time_order_and_those_without_a_start_last(tmp_path: Path) -> None:
    spans = [
        span(name, kind="TOOL", start_ms=start, attributes={"tool.name": "f"}) for name, start in (("b", 5), ("a", 1))
    ]
    spans.insert(0, span("none", kind="TOOL", start_time="", end_time="", attributes={"tool.name": "f"}))
    assert [one.span_id for one in store_of(tmp_path, *spans).tool_calls("t1")] == ["a", "b", "none"]
