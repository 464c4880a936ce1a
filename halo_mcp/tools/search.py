"""search_trace: where a pattern occurs inside one trace."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.index.store import Match
from halo_mcp.tools.budget import DEFAULT_CHARS, NAME_CHARS, SPAN_ATTRIBUTE_CHARS, Page, cut, name, preview
from halo_mcp.tools.params import Answer, Call, TraceId, call_text
from halo_mcp.tools.render import counted, number

_MATCH_CHARS: Final = 1_000
"""Of a longer match the text shows the beginning and the end."""


def search_trace(
    call: Call,
    trace_id: TraceId,
    pattern: Annotated[str, Field(min_length=1, description="RE2 regex; (?i) ignores case; no look-around")],
    span_ids: Annotated[list[str], Field(max_length=200, description="only these spans")] = [],  # noqa: B006
    context_buffer_chars: Annotated[int, Field(ge=0, le=2_000, description="characters shown on each side")] = 100,
    max_matches: Annotated[int, Field(ge=1, le=500)] = 50,
    literal: Annotated[bool, Field(description="find `pattern` exactly as written, no regex")] = False,
) -> Answer:
    """Find a regex inside one trace: snippets with span id, attribute and position, and the exact number of matches.

    Searches decoded texts (messages, tool input and output, JSON inside strings) as the view tools show them, and the
    raw JSON of a span where no text matches. For many traces use filters.regex_pattern of query_traces or count_traces.
    Next: view_spans(trace_id, span_ids=[...]) to read around a match.
    """
    from halo_mcp.index.patterns import compile_pattern

    found = call.store.search(
        trace_id,
        compile_pattern(pattern, literal=literal),
        span_ids,
        context_chars=context_buffer_chars,
        max_matches=max_matches,
        work=call.work,
    )
    page, shown = Page(DEFAULT_CHARS, reserve=1_400), list[Match]()
    searched = f"{number(found.spans_searched)} of {number(found.spans_total)} spans searched"
    matches = f"{number(found.total)} match{'' if found.total == 1 else 'es'}"
    page.add(f"{matches} in {counted(found.spans_matched, 'span')}; {searched}.")
    for match in found.matches:
        text = _line(match, new_span=not shown or shown[-1].span_id != match.span_id)
        if not page.add(text):
            if shown:
                break
            page.add_cut(text)
        shown.append(match)
    closing: list[str] = []
    if found.unknown_span_ids:
        closing.append(f"Not in this trace: {', '.join(map(preview, found.unknown_span_ids[:10]))}.")
    if found.incomplete:
        closing.append("The time for one call was over before the rest; search fewer spans with span_ids.")
    if len(shown) < found.total:
        closing.append(
            f"{number(found.total - len(shown))} matches not shown: refine the pattern, or raise max_matches."
        )
    if shown:
        ids = list(dict.fromkeys(match.span_id for match in shown))[:5]
        closing.append(f"Next: {call_text('view_spans', dataset=call.named, trace_id=trace_id, span_ids=ids)}")
    elif not found.total:
        wanted = {"regex_pattern": re.escape(pattern) if literal else pattern}
        elsewhere = call_text("query_traces", dataset=call.named, filters=wanted)
        closing.append(f"No match: try fewer words, (?i), or another spelling; other traces: {elsewhere}")
    data = {
        "trace_id": trace_id,
        "match_count": found.total,
        "returned_match_count": len(shown),
        "has_more": len(shown) < found.total or found.incomplete,
        "matches": [match_json(trace_id, match) for match in shown],
        "spans_searched": found.spans_searched,
        "spans_total": found.spans_total,
        "unknown_span_ids": list(found.unknown_span_ids),
    }
    return Answer(page.close(*closing), data)


def _line(match: Match, *, new_span: bool) -> str:
    head = (
        f"[{match.span_id}] {name(match.span_name)} ({match.status_code.removeprefix('STATUS_CODE_')})\n"
        if new_span
        else ""
    )
    context = " ".join(bounded_context(match).split())
    return f"{head}  {preview(match.path, NAME_CHARS)} @{match.start}: …{context}…"


def bounded_context(match: Match) -> str:
    """The match with its context; of a very long match the beginning and the end."""
    excess = len(match.text) - _MATCH_CHARS
    if excess <= 0:
        return match.context
    before = match.context.find(match.text)
    keep = before + _MATCH_CHARS // 2
    return f"{match.context[:keep]} [… {number(excess)} characters …] {match.context[keep + excess :]}"


def match_json(trace_id: str, match: Match) -> dict[str, Any]:
    return {
        "trace_id": trace_id,
        "span_id": match.span_id,
        "span_index": match.span_index,
        "span_name": name(match.span_name),
        "kind": match.kind,
        "status_code": match.status_code,
        "parent_span_id": match.parent_span_id,
        "raw_jsonl_bytes": match.raw_bytes,
        "path": match.path,
        "match_text": cut(match.text, SPAN_ATTRIBUTE_CHARS),
        "matched_context": cut(bounded_context(match), SPAN_ATTRIBUTE_CHARS),
        "match_start_char": match.start,
        "match_end_char": match.end,
    }
