"""The outline of a trace that is too large to be shown whole: a line per span, and which calls lead on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.messages import conversation
from halo_mcp.index.span import Span
from halo_mcp.index.store import SpanRow
from halo_mcp.tools.asked_trace import AskedTrace, indented
from halo_mcp.tools.budget import cut, name, preview
from halo_mcp.tools.params import Answer, call_text
from halo_mcp.tools.render import number, readable
from halo_mcp.tools.spantext import head

_SUGGESTED_SPANS: Final = 5


def outline(asked: AskedTrace, first: int) -> Answer:
    """One line per span (or per run of alike siblings) from line ``first`` on, and the size summary."""
    summary, suggestions = _size_summary(asked), _suggestions(asked)
    page, records = asked.page(120 + (0 if first else len(suggestions))), list[dict[str, Any]]()
    if not first:
        page.add_cut(cut(_size_line(summary), asked.max_chars // 4))
    runs = _runs(asked)
    for position, count in runs[first:]:
        depth, row = asked.ordered[position]
        line = indented(_outline_line(asked, position, count), depth)
        if not page.add(line):
            if records:
                break
            page.add_cut(line)
        records.append(_outline_json(row, depth, count))
    following = first + len(records)
    cursor = "" if following >= len(runs) else asked.cursor("outline", following)
    closing = [] if first else [suggestions]
    if cursor:
        numbers = f"Lines {number(first + 1)}-{number(following)} of {number(len(runs))} of the outline."
        closing.insert(0, f"{numbers} More: {asked.next_call(cursor)}")
    data = {
        "trace_id": asked.trace.trace_id,
        "spans": [],
        "oversized": summary | {"recommendation": suggestions},
        "outline": records,
        "next_cursor": cursor or None,
    }
    return Answer(page.close(*closing), data, cursor)


def _runs(asked: AskedTrace) -> list[tuple[int, int]]:
    """(position of the first span, number of spans) of each line of the outline."""
    runs, position = list[tuple[int, int]](), 0
    while position < len(asked.ordered):
        runs.append((position, _alike_from(asked.ordered, position)))
        position += runs[-1][1]
    return runs


def _alike_from(ordered: Sequence[tuple[int, SpanRow]], position: int) -> int:
    """How many consecutive childless siblings look the same, from ``position`` on (three or more; else 1)."""
    key, end = _look(*ordered[position]), position
    while end < len(ordered) and _look(*ordered[end]) == key:
        end += 1
    if end < len(ordered) and ordered[end][0] > ordered[position][0]:
        end -= 1  # the last one has children
    return end - position if end - position >= 3 else 1


def _look(depth: int, row: SpanRow) -> tuple[object, ...]:
    return depth, row.parent_span_id, row.observation_kind, row.name, row.status_code, row.error_text


def _outline_line(asked: AskedTrace, position: int, count: int) -> str:
    text = head(asked.ordered[position][1], asked.start)
    if asked.payloads.few_bytes and (words := _in_a_few_words(asked.payloads[position])):
        text += f" · {words}"
    if count > 1:
        last = asked.ordered[position + count - 1][1]
        text += f" · and {count - 1} more alike, to [{last.span_id}]"
    return text


def _in_a_few_words(span: Span) -> str:
    """What a span took and gave, as one-line previews."""
    parts: list[str] = []
    answer = conversation(span.attributes, "output")
    if answer:
        last = answer.messages[-1]
        called = ", ".join(f"{call.name}({preview(call.arguments, 60)})" for call in last.tool_calls)
        parts.append(f"→ {called or preview(last.content)}")
        return " ".join(parts)
    for label, keys in (("in", semconv.INPUT_VALUE), ("out", semconv.OUTPUT_VALUE)):
        value = next((span.attributes[key] for key in keys if span.attributes.get(key) not in (None, "")), None)
        if value is not None:
            parts.append(f"{label}: {preview(readable(value))}")
    return " ".join(parts)


def _outline_json(row: SpanRow, depth: int, count: int) -> dict[str, Any]:
    return {
        "span_id": row.span_id,
        "parent_span_id": row.parent_span_id or "",
        "depth": depth,
        "name": row.name,
        "observation_kind": row.observation_kind,
        "status_code": row.status_code,
        "is_original_error": row.is_original_error,
        "error_text": row.error_text,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "raw_jsonl_bytes": row.raw_bytes,
        "alike": count,
    }


def _size_summary(asked: AskedTrace) -> dict[str, Any]:
    """HALO's OversizedTraceSummary; sizes are those of the JSON records."""
    sizes = [row.raw_bytes for _, row in asked.ordered]
    names = Counter(name(row.name) for _, row in asked.ordered)
    return {
        "trace_id": asked.trace.trace_id,
        "span_count": len(sizes),
        "truncated_response_bytes": sum(sizes),
        "response_bytes_budget": asked.max_chars,
        "span_response_bytes_min": min(sizes, default=0),
        "span_response_bytes_median": int(median(sizes)) if sizes else 0,
        "span_response_bytes_max": max(sizes, default=0),
        "top_span_names": [[title, count] for title, count in names.most_common(10)],
        "error_span_count": asked.trace.error_span_count,
    }


def _size_line(summary: Mapping[str, Any]) -> str:
    names = ", ".join(f"{preview(title)} {count}" for title, count in summary["top_span_names"])
    return (
        f"outline of {number(summary['truncated_response_bytes'])} bytes of spans (an answer holds "
        f"{number(summary['response_bytes_budget'])} characters); span sizes min "
        f"{number(summary['span_response_bytes_min'])}, median {number(summary['span_response_bytes_median'])}, max "
        f"{number(summary['span_response_bytes_max'])} bytes; span names: {names}"
    )


def _suggestions(asked: AskedTrace) -> str:
    """The literal calls that lead on: failures first, else the largest spans."""
    rows = [row for _, row in asked.ordered]
    chosen = [row for row in rows if row.is_original_error] or sorted(rows, key=lambda row: -row.raw_bytes)
    ids = [row.span_id for row in chosen[:_SUGGESTED_SPANS]]
    arguments = {"dataset": asked.call.named, "trace_id": asked.trace.trace_id}
    calls = [
        call_text("view_spans", **arguments, span_ids=ids),
        call_text("search_trace", **arguments, pattern="(?i)error|exception|fail"),
        call_text("view_trace", **arguments, detail="full"),
    ]
    what = "its failures" if any(row.is_original_error for row in rows) else "its largest spans"
    return f"To read {what}: {calls[0]}. To find a place: {calls[1]}. To page through everything: {calls[2]}."
