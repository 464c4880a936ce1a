"""compare_datasets: did a change help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from halo_mcp.errors import BadArgument
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.times import time_text
from halo_mcp.tools.budget import COMPARE_CHARS, Page, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, call_text
from halo_mcp.tools.render import names, number, period, points_between, probability, quantity, share_of

if TYPE_CHECKING:
    from halo_mcp.index.compare import Comparison, NumberChange, RateChange, Side

_MODES_SHOWN: Final = 12
_TEXT_CHARS: Final = 140
_SAME_TEXT_CHARS: Final = 90
_WARNING_CHARS: Final = 300
_VERSIONS_SHOWN: Final = 3
_RUNS_SHOWN: Final = 3
_ALL: Final = "{} = all traces"


def compare_datasets(
    call: Call,
    after: Annotated[str, Field(description="dataset; empty = the same")] = "",
    filters_before: Annotated[TraceFilters, Field(description=_ALL)] = ALL_TRACES,
    filters_after: Annotated[TraceFilters, Field(description=_ALL)] = ALL_TRACES,
) -> Answer:
    """Did a change help: `dataset` against `after`, or two sets of traces (run_ids, times) of one dataset.

    Verdict, pass rate, failure modes gone or appeared, tokens, time; paired by task. Next: contrast_traces.
    """
    from halo_mcp.index.compare import apart, compare

    other = call.on(after) if after else call
    if other.dataset == call.dataset and filters_before == filters_after:
        raise BadArgument(
            "Both sides are the same traces: name another dataset in after, or give filters_before and filters_after, "
            'for example {"run_ids":["1"]} and {"run_ids":["2"]}.'
        )
    before_traces = call.store.features(filters_before, other.work)
    after_traces = other.store.features(filters_after, other.work)
    for side, traces in (("before", before_traces), ("after", after_traces)):
        if not len(traces):
            raise BadArgument(f"No trace matches on the side {side}; change its dataset or its filters.")
    before_own, after_own, shared = apart(before_traces, after_traces)
    if not len(before_own) or not len(after_own):
        raise BadArgument(
            "All traces of one side are on the other side too; give filters that keep them apart (run_ids, times)."
        )
    found = compare(before_own, after_own, shared)
    warnings = list(_warnings(found))
    text = Page(COMPARE_CHARS, reserve=400)
    for line in _lines(found, warnings, _harness_line(found, call, other)):
        if not text.add(line):
            break
    return Answer(text.close(_next(other, found, filters_after)), _json(found, warnings))


def _lines(found: Comparison, warnings: list[str], harness: str) -> Iterator[str]:
    yield f"verdict: {found.verdict}. {_primary(found)}"
    yield from (f"warning: {warning}" for warning in warnings)
    yield _side_line("before", found.before)
    yield _side_line("after", found.after)
    yield harness
    if found.secondary:
        paired = found.secondary[-1].pairs
        yield (
            "per trace | before | after | change (95% interval), p corrected (Holm)"
            + (" · means over tasks" if paired else " · medians")
        )
        yield from (f"  {_change_line(change)}" for change in found.secondary)
    yield from _mode_lines(found)


def _primary(found: Comparison) -> str:
    one = found.primary
    how = f"paired over {number(one.pairs)} tasks" if one.pairs else "unpaired"
    text = (
        f"{one.text} {share_of(one.before, one.before_of)} → {share_of(one.after, one.after_of)}: "
        f"{_change_of(one)}, p {probability(one.p)}, {how}."
    )
    if found.verdict == "underpowered":
        what = "tasks in both" if one.pairs else "traces per side"
        text += f" A real difference of this size needs about {number(found.needed or 0)} {what} to show (power 80%)."
    elif found.verdict == "no evidence of a difference":
        largest = max(abs(one.interval.low), abs(one.interval.high))
        text += f" A change of up to {100 * largest:.0f} points either way cannot be excluded."
    return text


def _change_of(one: RateChange) -> str:
    return points_between(one.difference, *one.interval)


def _change_line(one: RateChange | NumberChange) -> str:
    from halo_mcp.index.compare import RateChange

    if isinstance(one, RateChange):
        sides = f"{share_of(one.before, one.before_of)} | {share_of(one.after, one.after_of)}"
        change = _change_of(one)
    else:
        sides = f"{quantity(one.before, one.unit)} | {quantity(one.after, one.unit)}"
        unit = "ms" if one.unit == "ms" else ""
        low, high = (quantity(bound, unit) for bound in one.interval)
        change = f"{'+' if one.difference > 0 else ''}{quantity(one.difference, unit)} ({low}..{high})"
    return f"{one.text} | {sides} | {change}, p {probability(one.p)}"


def _mode_lines(found: Comparison) -> Iterator[str]:
    changed = [mode for mode in found.failure_modes if mode.change != "no evidence"]
    same = [mode for mode in found.failure_modes if mode.change == "no evidence"]
    if not found.failure_modes:
        yield "failure modes: none on either side"
        return
    yield f"failure modes ({number(len(found.failure_modes))}): traces before | after, p corrected (Benjamini-Hochberg)"
    for mode in changed[:_MODES_SHOWN]:
        yield f"  {mode.change}: {_mode(mode, _TEXT_CHARS)} | {_change_of(mode)}, p {probability(mode.p)}"
    shown = same[: max(0, _MODES_SHOWN - len(changed))]
    if shown:
        yield "  no evidence of a change:"
        yield from (f"    {_mode(mode, _SAME_TEXT_CHARS)}" for mode in shown)
    left = len(found.failure_modes) - _MODES_SHOWN
    if left > 0:
        yield f"  +{number(left)} rarer or weaker ones (response_format json has them)"
    if found.modes_left_out:
        yield f"  {number(found.modes_left_out)} more are not compared: too rare on one side to be among its 200"


def _harness_line(found: Comparison, call: Call, other: Call) -> str:
    """Which versions of which agents each side ran under, and the call that shows what changed."""
    before, after = found.before.versions, found.after.versions
    listing = call_text("list_harness_versions", dataset=call.named)
    if before is None or after is None:
        return f"harness versions: not read (too many traces); {listing} lists them"
    if not before and not after:
        return "harness versions: no LLM spans on either side"
    agents = list(dict.fromkeys((*before, *after)))
    changed = [agent for agent in agents if set(before.get(agent, ())) != set(after.get(agent, ()))]
    if not changed:
        return f"harness versions: the same on both sides ({names(map(preview, before), _VERSIONS_SHOWN)})"
    shown = names((f"{_ids(before.get(agent))} → {_ids(after.get(agent))}" for agent in changed), _VERSIONS_SHOWN)
    line = f"harness versions: {shown}" + ("; the others are the same" if len(changed) < len(agents) else "")
    both = next((agent for agent in changed if agent in before and agent in after), None)
    if both is None:
        return line
    elsewhere = other.dataset if other.dataset != call.dataset else ""
    old = next((version for version in before[both] if version not in after[both]), before[both][0])
    new = next((version for version in after[both] if version not in before[both]), after[both][0])
    diff = call_text("list_harness_versions", dataset=call.named, diff=[old, new], other_dataset=elsewhere)
    return f"{line}. What changed: {diff}"


def _ids(versions: Sequence[str] | None) -> str:
    return names((preview(version) for version in versions or ()), 2).replace(", ", " and ") or "(none)"


def _mode(mode: RateChange, chars: int) -> str:
    counts = f"{share_of(mode.before, mode.before_of)} | {share_of(mode.after, mode.after_of)}"
    return f"{preview(mode.text.removeprefix('failure mode '), chars)}: {counts}"


def _side_line(name: str, side: Side) -> str:
    parts = [
        f"{name}: {number(side.traces)} traces",
        f"{number(side.passed)} pass, {number(side.failed)} fail"
        + (f", {number(side.unknown)} unknown" if side.unknown else ""),
        f"{number(side.tasks)} tasks" if side.tasks else "no task keys",
        f"run {names((run for run, _ in side.runs), _RUNS_SHOWN)}" if side.runs else "",
        f"models {names(side.models, _RUNS_SHOWN)}" if side.models else "",
        period(side.start_time_unix_nano, side.end_time_unix_nano),
    ]
    return " · ".join(part for part in parts if part)


def _warnings(found: Comparison) -> Iterator[str]:
    """What makes the comparison say less than it seems to."""
    if found.judged_by_failures:
        yield "outcomes are not recorded on both sides; judged by traces with failures, which is not success."
    for name, side in (("before", found.before), ("after", found.after)):
        if len(side.runs) > 1:
            yield f"{name} mixes {number(len(side.runs))} runs; filter by run_ids."
        if side.mixed:
            yield f"{name} {preview(side.mixed.warning, _WARNING_CHARS)}; filter by run_ids or time."
        if side.unknown and not found.judged_by_failures:
            yield f"{share_of(side.unknown, side.traces)} traces of {name} have no outcome and do not count."
    if found.shared_traces:
        yield f"{number(found.shared_traces)} traces were on both sides and are left out of both."
    only = found.before.tasks - found.shared_tasks, found.after.tasks - found.shared_tasks
    if any(only) and found.primary.pairs:
        yield (
            f"tasks differ: {number(only[0])} only before, {number(only[1])} only after; the paired changes are about "
            f"the {number(found.shared_tasks)} shared ones."
        )
    elif not found.primary.pairs:
        yield (
            f"{number(found.shared_tasks)} tasks in common, too few to pair: "
            "if the sides attempted different tasks, a difference may come from that."
        )
    if set(found.before.models) != set(found.after.models):
        yield f"models differ: {names(found.before.models)} before, {names(found.after.models)} after."
    if found.times_overlap:
        yield "the sides overlap in time."


def _next(other: Call, found: Comparison, filters_after: TraceFilters) -> str:
    given = filters_after.given()
    if found.after.passed and found.after.failed:
        return "Next: " + call_text("contrast_traces", dataset=other.named, filters=given)
    return "Next: " + call_text("query_traces", dataset=other.named, filters=given, sort_by="-error_span_count")


def _json(found: Comparison, warnings: list[str]) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "judged_by": found.primary.name,
        "primary": _change_json(found.primary),
        "needed_per_side": found.needed,
        "before": _side_json(found.before),
        "after": _side_json(found.after),
        "metrics": [_change_json(change) for change in found.secondary],
        "failure_modes": [_change_json(mode) for mode in found.failure_modes],
        "failure_modes_not_compared": found.modes_left_out,
        "shared_task_count": found.shared_tasks,
        "shared_trace_count": found.shared_traces,
        "warnings": warnings,
    }


def _change_json(one: RateChange | NumberChange) -> dict[str, Any]:
    from halo_mcp.index.compare import RateChange

    shared = {
        "name": one.name,
        "text": one.text,
        "before": one.before,
        "after": one.after,
        "difference": one.difference,
        "interval_95": list(one.interval),
        "p": one.p,
        "paired_tasks": one.pairs,
    }
    if isinstance(one, RateChange):
        return shared | {"before_of": one.before_of, "after_of": one.after_of, "change": one.change}
    return shared | {"unit": one.unit}


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "total_traces": side.traces,
        "pass": side.passed,
        "fail": side.failed,
        "unknown": side.unknown,
        "task_count": side.tasks,
        "runs": dict(side.runs),
        "model_names": list(side.models),
        "start_time": time_text(side.start_time_unix_nano),
        "end_time": time_text(side.end_time_unix_nano),
        "harness_versions": None if side.versions is None else {k: list(v) for k, v in side.versions.items()},
        "mixed_versions": bool(side.mixed),
    }
