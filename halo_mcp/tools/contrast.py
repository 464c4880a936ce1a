"""contrast_traces: what separates two groups of traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from halo_mcp.index.filters import TraceFilters
from halo_mcp.tools.budget import COMPARE_CHARS, Page, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters, call_text
from halo_mcp.tools.render import number, points_between, probability, quantity, share_of

if TYPE_CHECKING:
    from halo_mcp.index.contrast import Contrast, Finding, NumberFinding, Same

_FINDINGS_SHOWN: Final = 10
_EXPLAINED_SHOWN: Final = 6
_SAME_CHARS: Final = 320
_FEATURE_CHARS: Final = 140
_WARNING_CHARS: Final = 300
_JSON_AGENTS: Final = 20
_SMALL_GROUP: Final = 10
"""Groups of fewer traces show only very large differences."""

Group = Annotated[TraceFilters, Field(description="filters; {} = all others")]


def contrast_traces(
    call: Call, group_a: Group = ALL_TRACES, group_b: Group = ALL_TRACES, filters: Filters = ALL_TRACES
) -> Answer:
    """What separates failing from passing traces (or group_a from group_b): ranked, corrected, confounding checked.

    Call it before believing a cause: what is as common in both is no difference. Next: view_trace on an example.
    """
    a, b = _groups(group_a, group_b)
    found = call.store.contrast(filters, a, b, call.work)
    names = _named(a, b)
    text = Page(COMPARE_CHARS, reserve=500)
    text.add(_head(found, names))
    for line in (*_version_lines(call, found, names, filters), *_lines(found, names)):
        if not text.add(line):
            break
    return Answer(text.close(_next(call, found, filters, a, b)), _json(found, names))


_FAIL: Final = TraceFilters(outcome=["fail"])
_PASS: Final = TraceFilters(outcome=["pass"])


def _groups(a: TraceFilters, b: TraceFilters) -> tuple[TraceFilters | None, TraceFilters | None]:
    """The two groups; None stands for all other traces."""
    if not a.given() and not b.given():
        return _FAIL, _PASS
    return a if a.given() else None, b if b.given() else None


def _named(a: TraceFilters | None, b: TraceFilters | None) -> tuple[str, str]:
    if a is _FAIL and b is _PASS:
        return "failing", "passing"
    return "a", "b"


def _head(found: Contrast, names: tuple[str, str]) -> str:
    a, b = names
    text = f"{number(found.traces_a)} {a} against {number(found.traces_b)} {b} traces"
    text += f"; {number(found.tested)} features tested, {number(len(found.findings) + len(found.numbers))} differ"
    left = {
        "hardly any trace has or lacks": found.too_rare,
        "decided by the groups' own filters": found.by_definition,
        "of rarer names": found.names_left_out,
    }
    told = ", ".join(f"{number(count)} {why}" for why, count in left.items() if count)
    text += f" (not tested: {told})" if told else ""
    if found.overlap:
        text += f"\n{number(found.overlap)} traces are in both groups and were left out of both."
    smaller = min(found.traces_a, found.traces_b)
    if not smaller:
        text += "\nA group is empty: there is nothing to contrast."
    elif smaller < _SMALL_GROUP:
        text += f"\nA group has only {number(smaller)} traces: only very large differences can be told from chance."
    return text


def _version_lines(call: Call, found: Contrast, names: tuple[str, str], filters: TraceFilters) -> Iterator[str]:
    listing = call_text("list_harness_versions", dataset=call.named, filters=filters.given())
    if found.mixed_a is None or found.mixed_b is None:
        yield f"Harness versions were not read (too many traces), so they are no feature here: {listing}"
        return
    for name, mixed in zip(names, (found.mixed_a, found.mixed_b), strict=True):
        if mixed:
            yield f"warning: {name} {preview(mixed.warning, _WARNING_CHARS)}"
    if found.mixed_a or found.mixed_b:
        yield f"  A difference may come from what changed between versions; narrow filters to one: {listing}"


def _lines(found: Contrast, names: tuple[str, str]) -> Iterator[str]:
    holding = [one for one in found.findings if one.standing == "holds"]
    others = [one for one in found.findings if one.standing != "holds"]
    if not min(found.traces_a, found.traces_b):
        return
    if not found.findings and not found.numbers:
        yield "Nothing separates the groups: no feature differs beyond chance."
    if holding:
        yield f"differences, strongest first: {names[0]} | {names[1]} | difference, 95% interval, corrected p"
        yield from (_line(one, found, names) for one in holding[:_FINDINGS_SHOWN])
        if len(holding) > _FINDINGS_SHOWN:
            yield f"  +{len(holding) - _FINDINGS_SHOWN} weaker ones (response_format json has them)"
    if any(one.difference < 0 for one in holding[:_FINDINGS_SHOWN]):
        yield f"  ({names[1]} traces may have more of what is reached only when nothing went wrong before)"
    if others:
        yield "differ, but not on their own:"
        yield from _explained_lines(others[:_EXPLAINED_SHOWN], found)
        if len(others) > _EXPLAINED_SHOWN:
            yield f"  +{len(others) - _EXPLAINED_SHOWN} more"
    if found.unchecked:
        yield f"{number(found.unchecked)} still weaker differences are not listed."
    if found.numbers:
        yield (
            "sizes (they describe the groups; a longer trace has more of everything): "
            f"median {names[0]} | {names[1]} | Cliff's delta, p"
        )
        yield from (f"  {_number_line(one)}" for one in found.numbers)
    if found.same_count:
        yield _same_line(found)


def _explained_lines(some: Sequence[Finding], found: Contrast) -> Iterator[str]:
    """What has the same reason stands on one line."""
    for reason in dict.fromkeys(one.reason for one in some):
        yield f"  {reason}: " + "; ".join(_rates(one, found) for one in some if one.reason == reason)


def _line(one: Finding, found: Contrast, names: tuple[str, str]) -> str:
    interval = points_between(one.difference, *one.interval)
    line = f"  {_rates(one, found)} | {interval}, p {probability(one.p)}"
    groups = zip(names, (one.example_a, one.example_b), (one.span_a, one.span_b), strict=True)
    examples = [f"{name} {id_}" + (f" span {span_id}" if span_id else "") for name, id_, span_id in groups if id_]
    about = f"    e.g. {', '.join(examples)}"
    return f"{line}\n{about}" + (f" · {one.reason}" if one.reason else "")


def _rates(one: Finding | Same, found: Contrast) -> str:
    text = preview(one.text, _FEATURE_CHARS)
    return f"{text}: {share_of(one.a, found.traces_a)} | {share_of(one.b, found.traces_b)}"


def _number_line(one: NumberFinding) -> str:
    medians = f"{quantity(one.median_a, one.unit)} | {quantity(one.median_b, one.unit)}"
    return f"{one.text}: {medians} | {one.delta:+.2f}, {probability(one.p)}"


def _same_line(found: Contrast) -> str:
    line = f"no difference ({number(found.same_count)}):"
    for shown, same in enumerate(found.same):
        part = f"{';' if shown else ''} {_rates(same, found)}"
        if len(line) + len(part) > _SAME_CHARS:
            return f"{line}; ..."
        line += part
    return line if found.same_count == len(found.same) else f"{line}; ..."


def _next(call: Call, found: Contrast, filters: TraceFilters, a: TraceFilters | None, b: TraceFilters | None) -> str:
    """The literal next calls: the strongest feature's traces, where filters select them, and an example to read."""
    if not min(found.traces_a, found.traces_b):
        groups = {"group_a": {"has_errors": True}, "filters": filters.given()}
        retry = call_text("contrast_traces", dataset=call.named, **groups)
        known = call_text("count_traces", dataset=call.named, filters=filters.given(), group_by="outcome")
        return f"Next: {known} shows what is recorded; {retry} contrasts traces with errors instead."
    steps: list[str] = []
    strongest = [one for one in found.findings if one.standing == "holds"] or list(found.findings)
    for one in strongest:
        more_in_a = one.difference > 0
        group, example, span_id = (a, one.example_a, one.span_a) if more_in_a else (b, one.example_b, one.span_b)
        given = [given for given in (filters.given(), {} if group is None else group.given(), one.filters) if given]
        if not steps and example and span_id:
            steps.append(call_text("view_spans", dataset=call.named, trace_id=example, span_ids=[span_id]))
        elif not steps and example:
            steps.append(call_text("view_trace", dataset=call.named, trace_id=example))
        if one.filters and sum(map(len, given)) == len(together := _merged(given)):
            steps.append(call_text("query_traces", dataset=call.named, filters=together))
            break
    return "Next: " + " or ".join(steps) if steps else ""


def _merged(given: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for filters in given for name, value in filters.items()}


def _json(found: Contrast, names: tuple[str, str]) -> dict[str, Any]:
    def finding(one: Finding) -> dict[str, Any]:
        return {
            "kind": one.kind,
            "name": one.name,
            "feature": one.text,
            "filters": dict(one.filters),
            "trace_count_a": one.a,
            "trace_count_b": one.b,
            "rate_a": one.a / found.traces_a,
            "rate_b": one.b / found.traces_b,
            "difference": one.difference,
            "interval_95": list(one.interval),
            "p_corrected": one.p,
            "standing": one.standing,
            "reason": one.reason,
            "example_trace_id_a": one.example_a,
            "example_trace_id_b": one.example_b,
            "example_span_id_a": one.span_a,
            "example_span_id_b": one.span_b,
        }

    return {
        "group_names": list(names),
        "total_traces_a": found.traces_a,
        "total_traces_b": found.traces_b,
        "overlap_count": found.overlap,
        "tested_count": found.tested,
        "too_rare_count": found.too_rare,
        "decided_by_filters_count": found.by_definition,
        "names_left_out": found.names_left_out,
        "harness_versions_read": found.mixed_a is not None,
        "mixed_versions": [
            {agent: dict(some) for agent, some in mixed.agents[:_JSON_AGENTS]} if mixed else {}
            for mixed in (found.mixed_a, found.mixed_b)
        ],
        "features": [finding(one) for one in found.findings],
        "features_left_out": found.unchecked,
        "numbers": [
            {
                "name": one.name,
                "unit": one.unit,
                "median_a": one.median_a,
                "median_b": one.median_b,
                "cliffs_delta": one.delta,
                "p_corrected": one.p,
            }
            for one in found.numbers
        ],
        "no_difference": [
            {"feature": same.text, "trace_count_a": same.a, "trace_count_b": same.b} for same in found.same
        ],
        "no_difference_count": found.same_count,
    }
