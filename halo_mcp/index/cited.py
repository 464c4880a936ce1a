"""Which trace and span a citation means: ids in full, prefixes expanded, what stands elsewhere found there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from halo_mcp.index.claims import Evidence
from halo_mcp.index.store import IdMatch, SpanStore
from halo_mcp.index.work import Work

_MAX_ID_CHARS: Final = 500


@dataclass(slots=True)
class Citation:
    """A citation, and what its ids mean."""

    cited: Evidence
    trace_id: str = ""
    """In full; "" when unknown."""
    span_id: str = ""
    failed: Literal["unknown_id", "ambiguous_id"] | None = None
    moved: bool = False
    """The span is in another trace than the cited one."""
    reason: str = ""
    resolved: bool = False

    def fail(self, why: Literal["unknown_id", "ambiguous_id"], reason: str) -> None:
        self.failed, self.reason = why, reason

    def move(self, place: IdMatch, reason: str) -> None:
        self.trace_id, self.span_id, self.moved, self.reason = place.trace_id, place.span_id, True, reason


def resolve(store: SpanStore, citations: Sequence[Citation], work: Work) -> None:
    """Say of each citation what its ids mean. Raises: Cancelled, DeadlineExceeded."""
    given = {_id(text) for one in citations for text in (one.cited.trace_id, one.cited.span_id)} - {""}
    known = store.find_ids(given, work)
    for citation in citations:
        _find_trace(citation, known)
    for trace_id in dict.fromkeys(one.trace_id for one in citations if one.trace_id and _id(one.cited.span_id)):
        own = [one for one in citations if one.trace_id == trace_id and _id(one.cited.span_id) and not one.span_id]
        inside = store.find_ids({_id(one.cited.span_id) for one in own}, work, trace_id)
        for citation in own:
            _find_span(citation, inside, known)
    for citation in citations:
        citation.resolved = True


def _id(text: str) -> str:
    return text.strip()[:_MAX_ID_CHARS]


def _find_trace(citation: Citation, known: Mapping[str, tuple[IdMatch, ...]]) -> None:
    trace_text, span_text = _id(citation.cited.trace_id), _id(citation.cited.span_id)
    traces = [match.trace_id for match in known.get(trace_text, ()) if match.kind == "trace"]
    spans = _spans(known.get(span_text, ()))
    if len(traces) > 1:
        holding = [trace_id for trace_id in traces if any(span.trace_id == trace_id for span in spans)]
        traces = holding if len(holding) == 1 else traces
    if len(traces) == 1:
        citation.trace_id = traces[0]
    elif traces:
        citation.fail("ambiguous_id", f"several traces begin so: {', '.join(traces)}")
    elif len(spans) == 1:
        place = f"span {spans[0].span_id} is in trace {spans[0].trace_id}"
        citation.move(spans[0], place)
        citation.moved = bool(trace_text)
    elif not trace_text and spans:
        listed = ", ".join(span.trace_id for span in spans)
        citation.fail("ambiguous_id", f"several traces have a span {span_text}, among them {listed}: give trace_id")
    elif len(as_spans := _spans(known.get(trace_text, ()))) == 1:
        citation.move(as_spans[0], f"{trace_text} is the id of a span, in trace {as_spans[0].trace_id}")
    elif trace_text:
        citation.fail("unknown_id", f"there is no trace {trace_text[:80]!r}")
    else:
        citation.fail("unknown_id", f"there is no span {span_text[:80]!r}" if span_text else "no trace_id is given")


def _find_span(
    citation: Citation, inside: Mapping[str, tuple[IdMatch, ...]], known: Mapping[str, tuple[IdMatch, ...]]
) -> None:
    text = _id(citation.cited.span_id)
    own, anywhere = _spans(inside.get(text, ())), _spans(known.get(text, ()))
    if len(own) == 1:
        citation.span_id = own[0].span_id
    elif own:
        citation.fail("ambiguous_id", f"several spans begin so: {', '.join(span.span_id for span in own)}")
    elif len(anywhere) == 1:
        citation.move(anywhere[0], f"span {anywhere[0].span_id} is in trace {anywhere[0].trace_id}")
    else:
        other = f"; other traces have one, such as {anywhere[0].trace_id}" if anywhere else ""
        citation.fail("unknown_id", f"trace {citation.trace_id} has no span {text[:80]!r}{other}")


def _spans(matches: Sequence[IdMatch]) -> list[IdMatch]:
    return [match for match in matches if match.kind == "span"]
