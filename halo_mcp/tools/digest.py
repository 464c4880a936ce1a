"""A trace's digest as text of a bounded size. Ids are whole or not there; everything left out is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from halo_mcp.index.digest import DigestFailure, DigestSpan, Excerpt, TraceDigest
from halo_mcp.index.store import TraceRow
from halo_mcp.tools.budget import DIGEST_CHARS, Page, cut, fair_shares, name, preview
from halo_mcp.tools.render import counted, duration, moment, names, number

_FAILING_IDS: Final = 40
"""So many ids of spans where failures begin are told: of each mode as many as of the others, or all of them."""
_QUOTE_CHARS: Final = 200
_NAME_CHARS: Final = 60
_LEAST_CHARS: Final = 120
"""Excerpts that would have to be cut to less than this make room for others."""
_LONGEST_CYCLE: Final = 4
_CLOSING_CHARS: Final = 240
_GAP: Final = " …[{} characters left out]… "


@dataclass(frozen=True, slots=True)
class Digest:
    """One trace as text."""

    trace_id: str
    text: str
    span_ids: frozenset[str]
    """Spans whose id the text names."""


def digest_text(digest: TraceDigest, max_chars: int = DIGEST_CHARS) -> Digest:
    """At most ``max_chars`` characters; the same for the same digest and size."""
    page, cited = Page(max_chars, reserve=_CLOSING_CHARS), set[str]()
    page.add_cut(cut(_head(digest), max_chars // 4))
    failing, missing_ids = _failure_lines(digest, max_chars, cited)
    if failing:
        page.add_cut(failing)
    if digest.calls:
        page.add(_sequence(digest, max_chars // 8))
    shown, lines = _excerpt_lines(digest, page.left, cited)
    page.add("\n".join(lines))
    text = page.close(_closing(digest, missing_ids, len(digest.excerpts) - shown))
    # Half of a surrogate pair is no character: it could not be sent.
    text = text.encode(errors="replace").decode()
    return Digest(digest.trace.trace_id, text, frozenset(span_id for span_id in cited if span_id in text))


# --- facts ------------------------------------------------------------------------------------------------------------
def _head(digest: TraceDigest) -> str:
    trace = digest.trace
    facts = [f"trace {trace.trace_id}", f"outcome {trace.outcome}"]
    facts += [
        f"{label} {_short(value)}"
        for label, value in (("task", trace.task_key), ("run", trace.run_id), ("root", trace.root_name))
        if value
    ]
    kinds = ", ".join(f"{number(count)} {kind}" for kind, count in digest.kinds)
    spans = f"{counted(trace.span_count, 'span')} ({kinds})"
    lasting = duration(trace.start_time_unix_nano, trace.end_time_unix_nano)
    lines = [
        " · ".join(facts),
        f"{moment(trace.start_time_unix_nano)} for {lasting}; {spans}{_tokens(trace)}",
    ]
    lines += [
        f"{label}: {names((_short(value) for value in values), 5)}"
        for label, values in (("agents", trace.agent_names), ("models", trace.model_names))
        if values
    ]
    if digest.finish_reasons:
        ends = ", ".join(f"{_short(why)} {number(count)}" for why, count in digest.finish_reasons)
        lines.append(f"models stopped because of: {ends}")
    begun = sum(len(failure.spans) for failure in digest.failures)
    lines.append(
        f"spans with status ERROR: {number(trace.error_span_count)}; failures begin at {counted(begun, 'span')}, in "
        f"{counted(len(digest.failures), 'failure mode')}"
    )
    return "\n".join(lines)


def _tokens(trace: TraceRow) -> str:
    if trace.input_tokens is None and trace.output_tokens is None:
        return ""
    return f"; {number(trace.input_tokens or 0)} tokens in, {number(trace.output_tokens or 0)} out"


def _short(text: str) -> str:
    return preview(name(text), _NAME_CHARS)


def _title(span: DigestSpan) -> str:
    return f"tool {_short(span.tool_name)}" if span.tool_name else f"{span.observation_kind} {_short(span.name)}"


# --- failures ---------------------------------------------------------------------------------------------------------
def _failure_lines(digest: TraceDigest, max_chars: int, cited: set[str]) -> tuple[str, int]:
    """The failure modes with ids and quotes, and how many ids of failing spans are not told."""
    failures = digest.failures[:_FAILING_IDS]
    total = sum(len(failure.spans) for failure in digest.failures)
    share = fair_shares([len(failure.spans) for failure in failures], _FAILING_IDS)
    # Ids come first: they take more than half of the digest if they must, quotes share what is left of 45 %.
    bare = [_failure_line(failure, failure.spans[:share]) for failure in failures]
    quotes = [preview(failure.quote.text, _QUOTE_CHARS) if failure.quote else "" for failure in failures]
    room = max_chars * 45 // 100 - sum(len(line) + 5 for line in bare)
    cap = fair_shares([len(quote) for quote in quotes], max(0, room))
    page, told = Page(max_chars * 65 // 100), 0
    for failure, line, quote in zip(failures, bare, quotes, strict=True):
        full = f"{line}: “{preview(quote, cap)}”" if quote and cap >= min(20, len(quote)) else line
        if page.add(full) or page.add(line):
            ids = [span.span_id for span in failure.spans[:share]]
            told += len(ids)
            cited.update(ids)
    return page.close(), total - told


def _failure_line(failure: DigestFailure, told: Sequence[DigestSpan]) -> str:
    ids = ", ".join(span.span_id for span in told)
    more = len(failure.spans) - len(told)
    first = failure.spans[0]
    rule = first.failure_rule or "failed"
    return f"- {_title(first)} {rule} ×{number(len(failure.spans))} [{ids}{f' +{number(more)} more' if more else ''}]"


# --- the sequence of tool calls ---------------------------------------------------------------------------------------
def _sequence(digest: TraceDigest, room: int) -> str:
    failed = sum(call.failed for call in digest.calls)
    label = f"{counted(len(digest.calls), 'tool call')}, {number(failed)} failed (marked !): "
    return label + excerpt(" → ".join(_collapsed(_steps(digest.calls))), max(40, room - len(label)))


def _steps(calls: Iterable[DigestSpan]) -> list[str]:
    steps, agent = list[str](), None
    for call in calls:
        mark = _short(call.tool_name or call.name) + ("!" if call.failed else "")
        if call.agent_name and call.agent_name != agent:
            agent = call.agent_name
            steps.append(f"[{_short(agent)}]")
        steps.append(mark)
    return steps


def _collapsed(steps: Sequence[str]) -> list[str]:
    """Steps with repeats, also of up to four steps together, written once: ``a×3``, ``(a → b)×2``."""
    found, position = list[str](), 0
    while position < len(steps):
        best, best_times = 1, 1
        for length in range(1, _LONGEST_CYCLE + 1):
            times = _times(steps, position, length)
            if times > 1 and length * times > best * best_times:
                best, best_times = length, times
        cycle = " → ".join(steps[position : position + best])
        found.append(cycle if best_times == 1 else f"{f'({cycle})' if best > 1 else cycle}×{best_times}")
        position += best * best_times
    return found


def _times(steps: Sequence[str], start: int, length: int) -> int:
    """How often the ``length`` steps from ``start`` on are there in a row."""
    times = 1
    while all(
        (other := start + times * length + i) < len(steps) and steps[other] == steps[start + i] for i in range(length)
    ):
        times += 1
    return times


# --- excerpts ---------------------------------------------------------------------------------------------------------
def excerpt(text: str, limit: int) -> str:
    """``text`` on one line, or its beginning and end with how much is missing between; at most ``limit`` characters."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    gap = _GAP.format(number(len(line)))
    room = limit - len(gap)
    if room < 20:
        return line[: max(0, limit - 1)] + "…"
    front = room - room // 3
    left_out = len(line) - room
    return line[:front] + _GAP.format(number(left_out)) + line[len(line) - room // 3 :]


def _excerpt_lines(digest: TraceDigest, room: int, cited: set[str]) -> tuple[int, list[str]]:
    """How many excerpts there is room for, and their lines in time order; each text gets its fair share."""
    shown = [(one, [" ".join(text.split()) for _, text in one.texts]) for one in digest.excerpts]
    while shown:
        overhead = sum(_overhead(one, digest.trace) for one, _ in shown)
        lengths = [len(text) for _, texts in shown for text in texts]
        cap = fair_shares(lengths, room - overhead) if room > overhead else 0
        if cap >= min(_LEAST_CHARS, max(lengths)) and overhead + sum(min(cap, length) for length in lengths) <= room:
            break
        shown.pop()
    else:
        return 0, []
    lines: list[str] = []
    for one, texts in sorted(shown, key=lambda item: item[0].position):
        cited.add(one.span.span_id)
        lines.append(_excerpt_head(one, digest.trace))
        labels = (label for label, _ in one.texts)
        lines += [f"  {label}: {excerpt(text, cap)}" for label, text in zip(labels, texts, strict=True)]
    return len(shown), lines


def _overhead(one: Excerpt, trace: TraceRow) -> int:
    return len(_excerpt_head(one, trace)) + 1 + sum(len(label) + 5 for label, _ in one.texts)


def _excerpt_head(one: Excerpt, trace: TraceRow) -> str:
    span = one.span
    facts = [f"[{span.span_id}] {_title(span)}"]
    if trace.start_time_unix_nano is not None and span.start_time_unix_nano is not None:
        facts.append(f"+{duration(trace.start_time_unix_nano, span.start_time_unix_nano)}")
    if span.failure_rule:
        facts.append(f"FAILED ({span.failure_rule})")
    elif span.status_code == "ERROR":
        facts.append("ERROR (propagated)")
    if span.finish_reason:
        facts.append(f"finish {_short(span.finish_reason)}")
    return " · ".join(facts)


def _closing(digest: TraceDigest, missing_ids: int, missing_excerpts: int) -> str:
    read = len(digest.excerpts) - missing_excerpts
    parts = [f"payloads of {number(digest.trace.span_count - read)} of {counted(digest.trace.span_count, 'span')}"]
    parts += [f"ids of {counted(missing_ids, 'failing span')}"] if missing_ids else []
    parts += [f"({counted(digest.too_large, 'telling span')} too large to read here)"] if digest.too_large else []
    return f"(left out: {', '.join(parts)})"
