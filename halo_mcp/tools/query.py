"""query_traces and count_traces: which traces, and how many."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.store import Count, GroupKey, SortKey, TraceRow
from halo_mcp.index.times import time_text
from halo_mcp.tools.budget import DEFAULT_CHARS, REPEATED_CALL_CHARS, Page, name, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Cursor, Filters, call_text, decode_cursor, encode_cursor
from halo_mcp.tools.render import duration, moment, names, number, share, size

_HEADER: Final = (
    "trace_id | start | duration | spans | errors (original) | tokens in/out | outcome | "
    "root; agents; models; task, run, session"
)
_CURSOR: Final = "\u27e8cursor\u27e9"
_CURSOR_CHARS: Final = 400
_Position = tuple[float | int, str]
"""Where a page ended: sort value (nanoseconds do not survive a float) and trace id."""


def query_traces(
    call: Call,
    filters: Filters = ALL_TRACES,
    sort_by: Annotated[SortKey, Field(description='"-" = largest first')] = "start_time",
    limit: Annotated[int, Field(ge=1, le=500)] = 50,
    cursor: Cursor = "",
) -> Answer:
    """List the traces that match `filters`, one line each, with the exact total. Pages with `cursor`.

    Use it to find traces to view: by outcome, errors, tool, model, agent, session, task, run, time, duration, tokens,
    or regex_pattern (RE2, over every payload of the dataset; combine it with other filters to make it faster).
    `errors` counts spans with status ERROR; in brackets those that are failures themselves, not propagation.
    Next: view_trace(trace_id=...) to read one; count_traces for numbers without a list.
    """
    arguments = {"filters": filters.given(), "sort_by": sort_by}
    after = decode_cursor(cursor, "query_traces", call.dataset, arguments, _Position)
    page = call.store.traces(filters, sort_by, limit, after, call.work)
    following = _following(call, filters, sort_by, limit)
    text = Page(DEFAULT_CHARS, reserve=len(following) + _CURSOR_CHARS + 120)
    text.add(_HEADER)
    shown: list[TraceRow] = []
    for trace in page.traces:
        line = _line(trace)
        if not text.add(line):
            if shown:
                break
            text.add_cut(line)
        shown.append(trace)
    next_cursor = ""
    if shown and (page.more or len(shown) < len(page.traces)):
        next_cursor = encode_cursor("query_traces", call.dataset, arguments, page.positions[len(shown) - 1])
    closing = f"{number(len(shown))} of {number(page.total)} matching traces shown."
    if next_cursor:
        closing += f" More: {following.replace(_CURSOR, next_cursor)}"
    elif not page.total:
        closing += " Nothing matches; drop a filter, or see what there is with get_dataset_overview()."
    data = {
        "traces": [trace_json(trace) for trace in shown],
        "total": page.total,
        "next_cursor": next_cursor or None,
    }
    return Answer(text.close(closing), data)


def _following(call: Call, filters: TraceFilters, sort_by: SortKey, limit: int) -> str:
    """The next call, with a mark where its cursor goes; in words when its filters are very long."""
    given = filters.given()
    text = call_text("query_traces", dataset=call.named, filters=given, sort_by=sort_by, limit=limit, cursor=_CURSOR)
    return text if len(text) <= REPEATED_CALL_CHARS else f'the same call with cursor="{_CURSOR}"'


def _line(trace: TraceRow) -> str:
    root = preview(trace.root_name or "") or "(no root)"
    about = [root, names(map(preview, trace.agent_names), 4), names(map(preview, trace.model_names), 3)]
    marks = {"task": trace.task_key, "run": trace.run_id, "session": trace.session_id}
    about.append(", ".join(f"{mark} {preview(value)}" for mark, value in marks.items() if value))
    errors = f"{trace.error_span_count} ({trace.original_error_count})" if trace.error_span_count else "0"
    return " | ".join(
        (
            trace.trace_id,
            moment(trace.start_time_unix_nano),
            duration(trace.start_time_unix_nano, trace.end_time_unix_nano),
            number(trace.span_count),
            errors,
            f"{number(trace.input_tokens or 0)}/{number(trace.output_tokens or 0)}",
            trace.outcome,
            "; ".join(part for part in about if part),
        )
    )


def trace_json(trace: TraceRow) -> dict[str, Any]:
    """A trace with HALO's field names (TraceSummary), and what HALO does not have."""
    return {
        "trace_id": trace.trace_id,
        "span_count": trace.span_count,
        "start_time": time_text(trace.start_time_unix_nano),
        "end_time": time_text(trace.end_time_unix_nano),
        "has_errors": trace.error_span_count > 0,
        "service_names": list(trace.service_names),
        "model_names": list(trace.model_names),
        "total_input_tokens": trace.input_tokens or 0,
        "total_output_tokens": trace.output_tokens or 0,
        "agent_names": list(trace.agent_names),
        "agent_ids": list(trace.agent_ids),
        "missing_parent_count": trace.missing_parent_count,
        "missing_agent_identity_count": trace.missing_agent_count,
        "project_id_mismatch_count": trace.other_project_count,
        "otel_error_span_count": trace.error_span_count,
        "original_error_span_count": trace.original_error_count,
        "tool_error_span_count": trace.tool_error_count,
        "raw_jsonl_bytes": trace.raw_bytes,
        "root_name": trace.root_name,
        "session_id": trace.session_id,
        "project_id": trace.project_id,
        "task_key": trace.task_key,
        "run_id": trace.run_id,
        "outcome": trace.outcome,
    }


def describe_trace(trace: TraceRow) -> str:
    """One line on a trace, for the head of a view."""
    parts = [
        f"trace {trace.trace_id}",
        f"{number(trace.span_count)} spans",
        f"{moment(trace.start_time_unix_nano)} + {duration(trace.start_time_unix_nano, trace.end_time_unix_nano)}",
        f"outcome {trace.outcome}",
        f"{number(trace.error_span_count)} ERROR spans ({number(trace.original_error_count)} original)",
        f"tokens {number(trace.input_tokens or 0)} in {number(trace.output_tokens or 0)} out",
        size(trace.raw_bytes),
    ]
    marks = {"task": trace.task_key, "run": trace.run_id, "session": trace.session_id, "project": trace.project_id}
    parts += [f"{mark} {preview(value)}" for mark, value in marks.items() if value]
    return " · ".join(parts)


def count_traces(
    call: Call,
    filters: Filters = ALL_TRACES,
    group_by: Annotated[GroupKey | None, Field(description="one line per value")] = None,
) -> Answer:
    """Count the traces that match `filters`, exactly; with `group_by` one count per value.

    The cheapest way to test a hypothesis on all traces: count it among passes and among failures before believing it.
    A trace counts once in every group that one of its spans belongs to, so groups may add up to more than the total.
    Next: query_traces(filters=...) lists them.
    """
    (total,) = call.store.count(filters, None, call.work)
    if group_by is None:
        return Answer(f"{number(total.traces)} traces match.", {"total": total.traces})
    counts = call.store.count(filters, group_by, call.work)
    text = Page(DEFAULT_CHARS, reserve=300)
    text.add(f"{group_by} | traces (share of {number(total.traces)} matching)")
    shown: list[Count] = []
    for count in counts:
        if not text.add(
            f"{'(none)' if count.value is None else name(count.value)} | {share(count.traces, total.traces)}"
        ):
            break
        shown.append(count)
    left = len(counts) - len(shown)
    closing = f"{number(left)} further values are not shown; narrow the filters." if left else ""
    data = {
        "total": total.traces,
        "groups": [{"value": count.value, "trace_count": count.traces} for count in shown],
        "groups_left_out": left,
    }
    return Answer(text.close(closing), data)
