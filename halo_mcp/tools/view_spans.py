"""view_spans: chosen spans of a trace, or one of their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from halo_mcp.errors import UnknownAttribute
from halo_mcp.index import semconv
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.messages import conversation
from halo_mcp.index.span import Span
from halo_mcp.index.store import SpanRow
from halo_mcp.tools.budget import (
    DEFAULT_CHARS,
    REPEATED_CALL_CHARS,
    SPAN_ATTRIBUTE_CHARS,
    MaxChars,
    Page,
    cut,
    name,
    preview,
)
from halo_mcp.tools.messagetext import conversation_text
from halo_mcp.tools.params import Answer, Call, TraceId, call_text
from halo_mcp.tools.render import readable
from halo_mcp.tools.spanpages import SpanPage, common_chars, common_line, paired
from halo_mcp.tools.spantext import SpanTexts


def view_spans(
    call: Call,
    trace_id: TraceId,
    span_ids: Annotated[list[str], Field(min_length=1, max_length=200, description="full span ids of this trace")],
    attribute: Annotated[str, Field(description="read only this attribute, by character range")] = "",
    offset: Annotated[
        int, Field(ge=0, description="first character (of the attribute, else of the first span's text)")
    ] = 0,
    around: Annotated[int, Field(ge=0, le=20, description="also the n spans before and after in time")] = 0,
    max_chars: MaxChars = DEFAULT_CHARS,
) -> Answer:
    """Read chosen spans of a trace with up to 16,384 characters per attribute.

    For a longer attribute give its key as `attribute` and go on with `offset` = next_offset. `around` adds neighbours.
    Spans that do not fit into max_chars are listed with the call that shows them.
    Next: search_trace(trace_id, pattern, span_ids=[...]) to find a place in a long span.
    """
    rows = call.store.spans(trace_id)
    wanted = _with_neighbours(rows, span_ids, around)
    spans = call.store.payloads(trace_id, wanted)
    known = {span.span_id for span in spans}
    unknown = [given for given in span_ids if normalize_id(given.strip()) not in known]
    chosen = _Chosen(call, trace_id, max_chars, f"Not in this trace: {_few(unknown)}." if unknown else "", unknown)
    if attribute:
        call.store.privacy.require_payloads()
        return chosen.attribute(spans, attribute, offset)
    return chosen.texts([row for row in rows if row.span_id in known], spans, offset)


def _with_neighbours(rows: Sequence[SpanRow], span_ids: Sequence[str], around: int) -> list[str]:
    if not around:
        return list(span_ids)
    asked = {normalize_id(span_id.strip()) for span_id in span_ids}
    positions = [i for i, row in enumerate(rows) if row.span_id in asked]
    near = {j for i in positions for j in range(max(0, i - around), min(len(rows), i + around + 1))}
    return list(dict.fromkeys([*span_ids, *(rows[j].span_id for j in sorted(near))]))


def _few(values: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(preview(value) for value in values[:limit]) + more


class _Chosen:
    """One answer of view_spans."""

    def __init__(self, call: Call, trace_id: str, max_chars: int, note: str, unknown: Sequence[str]) -> None:
        self._call = call
        self._trace_id = trace_id
        self._max_chars = max_chars
        self._note = note
        self._unknown = list(unknown)

    def _next(self, span_ids: Sequence[str], **arguments: Any) -> str:
        """The literal call that goes on with these spans (as many ids as a line should have)."""
        listed, length = list[str](), 0
        for span_id in span_ids:
            length += len(span_id) + 3
            if listed and length > min(REPEATED_CALL_CHARS, self._max_chars // 4):
                break
            listed.append(span_id)
        text = call_text(
            "view_spans",
            dataset=self._call.named,
            trace_id=self._trace_id,
            span_ids=listed,
            **arguments,
            max_chars=self._max_chars if self._max_chars != DEFAULT_CHARS else None,
        )
        hidden = len(span_ids) - len(listed)
        return text + (f", then the {hidden} ids behind {listed[-1]} of your list in time order" if hidden else "")

    def _page(self, rest: Sequence[str], attribute: str = "") -> Page:
        """A page that keeps room for the next calls about ``rest``."""
        calls = [self._next(ids, attribute=attribute, offset=10**9) for ids in (rest, rest[:1])]
        return Page(self._max_chars, reserve=sum(map(len, calls)) + len(self._note) + 120)

    # --- whole spans ---------------------------------------------------------------------------------------------
    def texts(self, rows: Sequence[SpanRow], spans: Sequence[Span], offset: int) -> Answer:
        """Blocks of the spans in time order, from character ``offset`` of the first one on."""
        payloads = paired(rows, spans)
        start = self._call.store.trace(self._trace_id).start_time_unix_nano
        writer = SpanTexts(SPAN_ATTRIBUTE_CHARS, dataset=self._call.named)
        page = self._page(list(dict.fromkeys(row.span_id for row in rows)))
        common = common_chars(self._max_chars)
        page.add_cut(cut(common_line(payloads, {}), common))
        shown = SpanPage(page, self._max_chars, SPAN_ATTRIBUTE_CHARS)
        position, cut_at = 0, offset
        for row, span in zip(rows, payloads, strict=True):
            agent = f" · agent {name(row.agent_name)}" if row.agent_name else ""
            about = f"{agent} · parent {row.parent_span_id or 'none'}"
            rest = shown.add(span, writer.block(row, span, start, about), cut_at)
            if rest is not None:
                cut_at = rest
                break
            position, cut_at = position + 1, 0
        closing = [self._note]
        if left := list(dict.fromkeys(row.span_id for row in rows[position:])):
            if cut_at:
                closing.append(f"The text of {left[0]} goes on: {self._next(left, offset=cut_at)}")
            else:
                closing.append(f"{len(left)} spans did not fit: {self._next(left)}")
        data = {
            "trace_id": self._trace_id,
            "spans": shown.records,
            "oversized": None,
            "span_ids_left_out": list(dict.fromkeys(row.span_id for row in rows[len(shown.records) :])),
            "unknown_span_ids": self._unknown,
        }
        return Answer(page.close(*closing), data)

    # --- one attribute -------------------------------------------------------------------------------------------
    def attribute(self, spans: Sequence[Span], attribute: str, offset: int) -> Answer:
        """The attribute of each span that has it, from ``offset`` on. Raises: UnknownAttribute, when none has."""
        texts: dict[str, str] = {}
        lacking: list[str] = []
        problem: UnknownAttribute | None = None
        for span in spans:
            try:
                texts.setdefault(span.span_id, attribute_text(span, attribute))
            except UnknownAttribute as error:
                problem = error
                lacking.append(span.span_id)
        if not texts and problem:
            raise problem
        label = name(attribute)
        page = self._page(list(texts), attribute)
        room = max(400, page.left // len(texts) - len(label) - 100)
        items, left = list[dict[str, Any]](), list(texts)
        for span_id, text in texts.items():
            part = text[offset : offset + room]
            end = offset + len(part) if part else len(text)
            block = f"[{span_id}] {label} characters {min(offset, len(text))}-{end} of {len(text)}:\n{part}"
            if not page.add(block):
                if items:
                    break
                excess = len(block) - page.left
                part = part[: max(1, len(part) - excess)]
                end = offset + len(part)
                page.add_cut(f"[{span_id}] {label} characters {offset}-{end} of {len(text)}:\n{part}")
            items.append(
                {
                    "span_id": span_id,
                    "attribute": attribute,
                    "offset": offset,
                    "text": part,
                    "total_chars": len(text),
                    "next_offset": end if part and end < len(text) else None,
                }
            )
            left.remove(span_id)
        closing = [self._note]
        if lacking:
            closing.append(f"Without {label}: {_few(lacking)}.")
        unread = next((item for item in items if item["next_offset"] is not None), None)
        if unread:
            same = [item["span_id"] for item in items if item["next_offset"] == unread["next_offset"]]
            closing.append("More: " + self._next(same, attribute=attribute, offset=unread["next_offset"]))
        if left:
            closing.append(
                f"{len(left)} spans did not fit: {self._next(left, attribute=attribute, offset=offset or None)}"
            )
        return Answer(
            page.close(*closing), {"trace_id": self._trace_id, "attributes": items, "span_ids_left_out": left}
        )


def attribute_text(span: Span, attribute: str) -> str:
    """An attribute as the text a view shows, whole.

    Accepts keys with "attributes." in front, "status.message", "name", the key of a message list, and the paths that
    search_trace prints. Raises: UnknownAttribute.
    """
    from halo_mcp.index.patterns import decoded_values

    key = attribute.removeprefix("attributes.")
    if key in span.attributes:
        return readable(span.attributes[key])
    own = {"status.message": span.status_message, "name": span.name}
    if key in own:
        return own[key]
    if key.removeprefix("resource.") in span.resource:
        return readable(span.resource[key.removeprefix("resource.")])
    for direction in ("input", "output"):
        found = conversation(span.attributes, direction)
        if found and key == found.key:
            return conversation_text(found)
    record = {
        **span.extra,
        "attributes": dict(span.attributes),
        "resource": {"attributes": dict(span.resource)},
        "scope": dict(span.scope),
        "events": [{"name": event.name, "attributes": dict(event.attributes)} for event in span.events],
        "links": list(span.links),
    }
    for path, text in decoded_values(record):
        if attribute == path:
            return text
    known = [key for key in span.attributes if not key.startswith(semconv.FLAT_PREFIXES)]
    folded = [found.key for d in ("input", "output") if (found := conversation(span.attributes, d))]
    raise UnknownAttribute(span.span_id, attribute, [*dict.fromkeys([*known, *folded]), "status.message", "name"])
