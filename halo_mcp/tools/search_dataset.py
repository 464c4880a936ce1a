"""search_dataset: which spans of many traces a pattern matches, counted in groups, with snippets."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroupKey, Snippet, TraceCounts, Where
from halo_mcp.tools.budget import DEFAULT_CHARS, MATCH_GROUPS, NAME_CHARS, REPEATED_CALL_CHARS, Page, name, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Cursor, Filters, call_text, decode_cursor, encode_cursor
from halo_mcp.tools.render import counted, number, share, size
from halo_mcp.tools.search import bounded_context, match_json

_Position = tuple[int, int, int]
_CLOSING_CHARS: Final = 900
_MATCHES: Final = 20


def search_dataset(
    call: Call,
    pattern: Annotated[str, Field(min_length=1, description="RE2 regex; (?i) ignores case")],
    filters: Filters = ALL_TRACES,
    group_by: Annotated[MatchGroupKey | None, Field(description="count per value")] = None,
    literal: Annotated[bool, Field(description="`pattern` is plain text")] = False,
    max_matches: Annotated[int, Field(ge=1, le=200)] = _MATCHES,
    context_buffer_chars: Annotated[int, Field(ge=0, le=2_000)] = 60,
    cursor: Cursor = "",
) -> Answer:
    """Find a text in all traces: exact counts of matching spans and traces, by outcome and group, with snippets.

    Snippets come from where a text begins in a trace. Reads about 1 GB/s; a cursor resumes what takes too long.
    Next: search_trace for all matches in a trace.
    """
    from halo_mcp.index.patterns import compile_pattern

    arguments = {"pattern": pattern, "literal": literal, "filters": filters.given()}
    after: _Position | None = decode_cursor(cursor, "search_dataset", call.dataset, arguments, _Position)
    if after is not None and min(after) < 0:
        after = None
    found = call.store.search_dataset(
        filters,
        compile_pattern(pattern, literal=literal),
        group_by=group_by,
        max_groups=MATCH_GROUPS,
        max_snippets=max_matches,
        context_chars=context_buffer_chars,
        after=None if after is None else Where(*after),
        work=call.work,
    )
    repeated = {
        **arguments,
        "literal": literal or None,
        "group_by": None if found.complete else group_by,
        "max_matches": None if max_matches == _MATCHES else max_matches,
    }
    long = len(call_text("search_dataset", dataset=call.named, **repeated)) > REPEATED_CALL_CHARS
    text = Page(DEFAULT_CHARS, reserve=_CLOSING_CHARS + (0 if long else REPEATED_CALL_CHARS))
    for line in _totals(found, filters.given() != {}):
        text.add(line)
    for line in _groups(found, group_by):
        text.add(line)
    shown = _add_snippets(text, found)
    next_cursor = ""
    if found.following is not None or shown < len(found.snippets):
        at = (found.here.searched_spans, found.here.matching_spans, found.here.snippet + shown)
        next_cursor = encode_cursor("search_dataset", call.dataset, arguments, at)
    following = (
        f'the same call with cursor="{next_cursor}"'
        if long
        else call_text("search_dataset", dataset=call.named, **repeated, cursor=next_cursor)
    )
    snippets = found.snippets[:shown]
    closing = _closing(call, pattern, literal, found, snippets, following if next_cursor else "")
    return Answer(text.close(*closing), _data(found, snippets, next_cursor))


def _totals(found: DatasetMatches, filtered: bool) -> list[str]:
    of = f"{counted(found.total_spans, 'span')} in {number(found.selected.traces)} {'selected ' * filtered}traces"
    lines: list[str] = []
    if found.restarted:
        lines.append("What was found before this cursor is no longer known, so the search began anew.")
    if found.complete:
        searched = f"all {size(found.total_bytes)} searched"
    else:
        searched = (
            f"PARTIAL, out of time: searched {size(found.searched_bytes)} of {size(found.total_bytes)} in file order, "
            f"{number(found.searched_spans)} spans"
        )
    at_least = "" if found.complete else "at least "
    lines.append(
        f"{at_least}{counted(found.matching_spans, 'span')} in {counted(found.matching.traces, 'trace')} match, "
        f"of {of}; {searched}."
    )
    if found.selected.failing or found.selected.passing:
        lines.append(
            f"{at_least}{_of(found.matching.failing, found.selected.failing)} failing and "
            f"{_of(found.matching.passing, found.selected.passing)} passing traces match."
        )
    if found.may_repeat:
        lines.append(
            f"Up to {number(found.may_repeat)} of the spans only repeat message history: they are LLM calls behind "
            "another match of their trace."
        )
    return lines


def _of(part: int, whole: int) -> str:
    return f"{share(part, whole)} of {number(whole)}"


def _groups(found: DatasetMatches, group_by: MatchGroupKey | None) -> list[str]:
    if not found.groups:
        return []
    outcomes = bool(found.selected.failing or found.selected.passing)
    lines = [
        f"{group_by} | matching spans | traces" + (" | failing (of all failing) | passing (of all passing)" * outcomes)
    ]
    for group in found.groups:
        value = "  (none)" if group.value is None else f"  {name(group.value)}"
        cells = [value, number(group.spans), number(group.traces.traces)]
        if outcomes:
            cells.append(share(group.traces.failing, found.selected.failing))
            cells.append(share(group.traces.passing, found.selected.passing))
        lines.append(" | ".join(cells))
    if found.group_count > len(found.groups):
        lines.append(f"{number(found.group_count - len(found.groups))} smaller groups are not shown.")
    return lines


def _add_snippets(text: Page, found: DatasetMatches) -> int:
    """How many fitted."""
    if not found.snippets:
        return 0
    first = found.here.snippet + 1
    text.add(
        f"Snippets from spans {number(first)} to {number(first + len(found.snippets) - 1)} of "
        f"{number(found.matching_spans)} (traces take turns, spread over time):"
    )
    for position, snippet in enumerate(found.snippets):
        line = _line(snippet)
        if not text.add(line):
            if position:
                return position
            text.add_cut(line)
    return len(found.snippets)


def _line(snippet: Snippet) -> str:
    match = snippet.match
    context = " ".join(bounded_context(match).split())
    marks = ["repeated from message history"] if snippet.repeated else []
    if snippet.matches_in_span > 1:
        marks.append(f"{number(snippet.matches_in_span)} matches in this span")
    status = match.status_code.removeprefix("STATUS_CODE_")
    said = (
        f"{preview(match.path, NAME_CHARS)} @{match.start}: …{context}…" if snippet.matches_in_span else "(empty match)"
    )
    return f"{snippet.trace_id} [{match.span_id}] {name(match.span_name)} ({status}){_in_brackets(marks)}\n  {said}"


def _in_brackets(marks: list[str]) -> str:
    return f" [{'; '.join(marks)}]" if marks else ""


def _closing(
    call: Call, pattern: str, literal: bool, found: DatasetMatches, shown: tuple[Snippet, ...], following: str
) -> list[str]:
    lines: list[str] = []
    if not found.complete:
        lines.append(f"To search on, with totals continued (snippets then begin anew): {following}")
    elif following:
        lines.append(f"More snippets: {following}")
    if shown:
        first = shown[0]
        ids = [first.match.span_id]
        view = call_text("view_spans", dataset=call.named, trace_id=first.trace_id, span_ids=ids)
        wanted = pattern if len(pattern) <= NAME_CHARS else "..."
        within = call_text(
            "search_trace", dataset=call.named, trace_id=first.trace_id, pattern=wanted, literal=literal or None
        )
        lines.append(f"Next: {view}; every match in a trace: {within}")
    elif found.complete and not found.matching_spans:
        hint = "" if literal or re.escape(pattern) == pattern else "literal=true if it is plain text, "
        lines.append(f"No match: try {hint}fewer words, (?i), or fewer filters.")
    return lines


def _data(found: DatasetMatches, shown: tuple[Snippet, ...], next_cursor: str) -> dict[str, Any]:
    return {
        "matching_span_count": found.matching_spans,
        "matching_traces": _traces_json(found.matching),
        "selected_traces": _traces_json(found.selected),
        "complete": found.complete,
        "restarted": found.restarted,
        "repeating_span_count_at_most": found.may_repeat,
        "spans_searched": found.searched_spans,
        "spans_total": found.total_spans,
        "bytes_searched": found.searched_bytes,
        "bytes_total": found.total_bytes,
        "groups": [
            {"value": group.value, "matching_span_count": group.spans, **_traces_json(group.traces)}
            for group in found.groups
        ],
        "groups_left_out": found.group_count - len(found.groups),
        "matches": [
            {
                **match_json(snippet.trace_id, snippet.match),
                "matches_in_span": snippet.matches_in_span,
                "first_in_trace": snippet.first_in_trace,
                "repeated_from_history": snippet.repeated,
            }
            for snippet in shown
        ],
        "returned_match_count": len(shown),
        "has_more": bool(next_cursor),
        "next_cursor": next_cursor or None,
    }


def _traces_json(counts: TraceCounts) -> dict[str, int]:
    return {"trace_count": counts.traces, "failing_trace_count": counts.failing, "passing_trace_count": counts.passing}
