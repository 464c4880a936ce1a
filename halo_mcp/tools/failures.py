"""list_failure_modes: what goes wrong, how often, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.errors import BadArgument
from halo_mcp.index.failure_rules import LOOP_MEANING, LOOP_RULE, RULE_NAMES
from halo_mcp.index.failures import FailureEvidence, FailureMode, FailureModes
from halo_mcp.index.times import time_text
from halo_mcp.tools.budget import DEFAULT_CHARS, Page, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Cursor, Filters, call_text, decode_cursor, encode_cursor
from halo_mcp.tools.render import counted, number, period, share

TOOL: Final = "list_failure_modes"
_PATTERN_CHARS: Final = 160
_QUOTE_CHARS: Final = 160
_NAME_CHARS: Final = 60


def list_failure_modes(
    call: Call,
    filters: Filters = ALL_TRACES,
    limit: Annotated[int, Field(ge=1, le=100)] = 10,
    soft_rules: Annotated[
        list[str], Field(max_length=50, description="count only these soft-error rules; [] = the usual ones")
    ] = [],  # noqa: B006  (never changed)
    cursor: Cursor = "",
) -> Answer:
    """List what fails in the matching traces, grouped by fingerprint; what sets failing traces apart first.

    Hard errors where they begin (propagation not counted), soft errors (status fine, output says it failed; each names
    its rule), loops. Per mode: spans, traces, how many of the failing and of the passing traces have it, an example
    with a verbatim quote. Exact, all traces.
    Next: view_spans on the example; filters={"failure_mode": [ID]} in other tools; contrast_traces.
    """
    rules = _checked(soft_rules)
    found = call.store.failure_modes(filters, rules, call.work)
    arguments = {"filters": filters.given(), "soft_rules": soft_rules}
    start: int = decode_cursor(cursor, TOOL, call.dataset, arguments, int) or 0
    page = found.modes[start : start + limit]
    evidence = call.store.failure_evidence(page, call.work)
    text = Page(DEFAULT_CHARS, reserve=900)
    for line in _head(call, found):
        text.add(line)
    shown = 0
    for place, item in enumerate(evidence, start + 1):
        if not text.add(_mode_lines(place, item, found)):
            break
        shown += 1
    end = start + shown
    next_cursor = encode_cursor(TOOL, call.dataset, arguments, end) if end < len(found.modes) else ""
    closing = _closing(call, found, end, arguments, next_cursor, limit)
    return Answer(text.close(*closing), _json(found, evidence[:shown], next_cursor))


def _checked(names: Sequence[str]) -> tuple[str, ...] | None:
    """Raises: BadArgument."""
    for name in names:
        if name not in RULE_NAMES:
            raise BadArgument(f"soft_rules: there is no rule {name!r}. Rules: {', '.join(RULE_NAMES)}.")
    return tuple(names) or None


def _head(call: Call, found: FailureModes) -> list[str]:
    total = (
        f"dataset {call.dataset}: {counted(found.mode_count, 'failure mode')} = {counted(found.spans, 'failing span')} "
        f"in {share(found.traces, found.total_traces)} of {counted(found.total_traces, 'trace')} (all scanned; "
        f"outcome fail {number(found.failing_traces)}, pass {number(found.passing_traces)})"
    )
    lines = [total]
    if found.spans_by_rule:
        lines.append("spans by rule: " + ", ".join(f"{rule} {number(count)}" for rule, count in found.spans_by_rule))
    if found.unused_rules:
        left = ", ".join(f"{rule} {number(count)}" for rule, count in found.unused_rules)
        lines.append(f"not counted (rules left out): {left}")
    return lines


def _mode_lines(place: int, item: FailureEvidence, found: FailureModes) -> str:
    mode = item.mode
    outcomes = ""
    if found.failing_traces or found.passing_traces:
        outcomes = (
            f"; of failing traces {share(mode.failing_traces, found.failing_traces)}, "
            f"of passing {share(mode.passing_traces, found.passing_traces)}"
        )
    return (
        f"{place}. [{mode.id}] {where(mode)} · {mode.rule} · {pattern(mode)}\n"
        f"   {counted(mode.spans, 'span')}, {counted(mode.traces, 'trace')}{outcomes}; {_seen(mode)}\n"
        f"   e.g. trace {mode.trace_id} span {mode.span_id}{_quote(item)}"
    )


def where(mode: FailureMode) -> str:
    """The tool that fails, or the span where there is none."""
    return f"tool {preview(mode.tool_name, _NAME_CHARS)}" if mode.tool_name else preview(mode.span_name, _NAME_CHARS)


def pattern(mode: FailureMode) -> str:
    """What is common to the failures of this mode, in one line."""
    if mode.rule == LOOP_RULE:
        return LOOP_MEANING
    return preview(mode.pattern or "", _PATTERN_CHARS) or "(no text)"


def _seen(mode: FailureMode) -> str:
    return f"seen {period(mode.first_seen_unix_nano, mode.last_seen_unix_nano)}"


def _quote(item: FailureEvidence) -> str:
    if item.quote is None:
        return ""
    text = item.quote.text
    return f" {item.quote.path}: “{text[:_QUOTE_CHARS]}”" + ("…" if len(text) > _QUOTE_CHARS else "")


def _closing(
    call: Call, found: FailureModes, end: int, arguments: dict[str, Any], next_cursor: str, limit: int
) -> list[str]:
    if not found.total_traces:
        return ["No trace matches; drop a filter."]
    if not found.mode_count:
        return ["Nothing failed by status or by the counted rules. That is not success: see outcomes in the overview."]
    lines: list[str] = []
    rest = found.modes[end:]
    if rest or found.mode_count > len(found.modes):
        spans = found.spans - sum(mode.spans for mode in found.modes[:end])
        lines.append(
            f"{counted(found.mode_count - end, 'further mode')} with {counted(spans, 'span')}: "
            + call_text(TOOL, dataset=call.named, **arguments, limit=limit, cursor=next_cursor)
        )
    top = found.modes[0]
    steps = [
        call_text("view_spans", dataset=call.named, trace_id=top.trace_id, span_ids=[top.span_id]),
        call_text("query_traces", dataset=call.named, filters={**arguments["filters"], "failure_mode": [top.id]}),
    ]
    return [*lines, "Next: " + " or ".join(steps)]


def _json(found: FailureModes, evidence: Sequence[FailureEvidence], next_cursor: str) -> dict[str, Any]:
    return {
        "total_traces": found.total_traces,
        "failing_trace_count": found.failing_traces,
        "passing_trace_count": found.passing_traces,
        "failure_mode_count": found.mode_count,
        "failing_span_count": found.spans,
        "traces_with_failures": found.traces,
        "soft_rules": list(found.rules),
        "spans_by_rule": dict(found.spans_by_rule),
        "spans_by_rules_left_out": dict(found.unused_rules),
        "failure_modes": [mode_json(item.mode) | _quote_json(item) for item in evidence],
        "next_cursor": next_cursor or None,
    }


def mode_json(mode: FailureMode) -> dict[str, Any]:
    """A failure mode as JSON, with the field names of HALO's error taxonomy where it has the fact."""
    return {
        "id": mode.id,
        "rule": mode.rule,
        "span_name": mode.span_name,
        "tool_name": mode.tool_name,
        "exception_type": mode.exception_type,
        "status_message": mode.text or "",
        "pattern": mode.pattern,
        "error_span_count": mode.spans,
        "trace_count": mode.traces,
        "failing_trace_count": mode.failing_traces,
        "passing_trace_count": mode.passing_traces,
        "first_seen": time_text(mode.first_seen_unix_nano),
        "last_seen": time_text(mode.last_seen_unix_nano),
        "example_trace_id": mode.trace_id,
        "example_span_id": mode.span_id,
        "example_trace_ids": list(mode.example_trace_ids),
    }


def _quote_json(item: FailureEvidence) -> dict[str, Any]:
    return {"quote": None if item.quote is None else {"path": item.quote.path, "text": item.quote.text}}
