"""A span as text: one line for an outline, a block of lines for reading. Nothing is dropped without saying so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.messages import Conversation, Direction, Message, conversation
from halo_mcp.index.span import Span
from halo_mcp.index.store import SpanRow
from halo_mcp.tools.budget import cut, fair_shares, preview
from halo_mcp.tools.render import duration, indent, number, readable

_IN_HEAD: Final = frozenset(
    key
    for keys in (
        semconv.MODEL_NAME,
        semconv.INPUT_TOKENS,
        semconv.OUTPUT_TOKENS,
        semconv.TOOL_NAME,
        semconv.AGENT_NAME,
        semconv.TOTAL_TOKENS,
        tuple(key for key, _ in semconv.KIND_RULES),
    )
    for key in keys
)
"""Attributes whose fact stands in the span's first line; shown again only when they say something else."""
_SHORT_CHARS: Final = 120


def head(row: SpanRow, trace_start: int | None) -> str:
    """The facts of a span on one line: id, kind, name, offset and duration, tokens, status, error."""
    label = row.observation_kind if row.observation_kind != "SPAN" else row.kind or "SPAN"
    named = row.tool_name or (row.model_name if row.observation_kind == "LLM" else None)
    name = row.name if not named or named in row.name else f"{row.name} ({named})"
    parts = [f"[{row.span_id}] {label} {name}"]
    if row.start_time_unix_nano is not None and trace_start is not None:
        lasting = duration(row.start_time_unix_nano, row.end_time_unix_nano)
        parts.append(f"+{duration(trace_start, row.start_time_unix_nano)} for {lasting}")
    if row.input_tokens is not None or row.output_tokens is not None:
        repeated = " (repeats its LLM spans)" if row.observation_kind == "AGENT" else ""
        parts.append(f"{number(row.input_tokens or 0)} in {number(row.output_tokens or 0)} out{repeated}")
    if row.status_code == "ERROR":
        text = preview(row.error_text or "no message", 200)
        parts.append(f"ERROR{'' if row.is_original_error else ' (propagated)'} {text}")
    elif row.status_code == "OK":
        parts.append("OK")
    return " · ".join(parts)


@dataclass(slots=True)
class SpanTexts:
    """Writes the blocks of one answer; remembers what it has shown, so that no conversation is printed twice."""

    attribute_chars: int
    constant: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Attributes that are the same on all spans shown: said once, by the caller."""
    fold: bool = True
    """Refer to messages that an earlier span already showed, instead of repeating them."""
    _shown: list[tuple[str, tuple[Message, ...]]] = field(default_factory=list[tuple[str, tuple[Message, ...]]])

    def block(self, row: SpanRow, span: Span, trace_start: int | None) -> str:
        """The span's first line and, indented, everything it carries; texts capped at ``attribute_chars`` each."""
        return "\n".join([head(row, trace_start), *(indent(line, "  ") for line in self._body(row, span))])

    def _body(self, row: SpanRow, span: Span) -> Iterator[str]:
        given = {key: value for key, value in span.attributes.items() if value not in (None, "", [], {})}
        used: set[str] = set(self.constant)
        conversations = {d: conversation(given, d) for d in ("input", "output")}
        for found in conversations.values():
            used |= found.keys if found else set()
        said = self._messages(row, conversations)
        yield from said
        if span.status_message and (row.error_text is None or span.status_message not in row.error_text):
            yield f"status message: {cut(span.status_message, self.attribute_chars)}"
        for event in span.events:
            attributes = ", ".join(f"{key}={readable(value)}" for key, value in event.attributes.items())
            yield cut(f"event {event.name}: {attributes}", self.attribute_chars)
        if span.links:
            yield cut(f"links: {readable(list(span.links))}", self.attribute_chars)
        used |= {semconv.EVENTS_ATTRIBUTE} if span.events else set()
        used |= {semconv.LINKS_ATTRIBUTE} if span.links else set()
        yield from self._attributes(row, given, used, conversations)
        if span.extra:
            yield cut(f"other members: {readable(dict(span.extra))}", self.attribute_chars)

    # --- messages ------------------------------------------------------------------------------------------------
    def _messages(self, row: SpanRow, conversations: Mapping[Direction, Conversation | None]) -> Iterator[str]:
        asked, answered = conversations["input"], conversations["output"]
        inputs = asked.messages if asked else ()
        skip, where = self._already_shown(inputs)
        if skip:
            yield f"messages 1-{skip}: as in [{where}]"
        yield from self._message_lines(inputs[skip:], skip, "")
        if answered:
            yield from self._message_lines(answered.messages, 0, "→ ")
        if inputs:
            self._shown.append((row.span_id, inputs + (answered.messages if answered else ())))

    def _already_shown(self, messages: Sequence[Message]) -> tuple[int, str]:
        best, where = 0, ""
        if not self.fold:
            return best, where
        for span_id, earlier in self._shown[-12:]:
            same = 0
            for one, other in zip(messages, earlier, strict=False):
                if (one.role, one.content, one.tool_calls) != (other.role, other.content, other.tool_calls):
                    break
                same += 1
            if same >= best and same > 0:
                best, where = same, span_id
        return best, where

    def _message_lines(self, messages: Sequence[Message], before: int, mark: str) -> Iterator[str]:
        texts = [_message_text(message) for message in messages]
        cap = fair_shares([len(text) for text in texts], self.attribute_chars)
        for number_, (message, text) in enumerate(zip(messages, texts, strict=True), before + 1):
            about = f" {message.name}" if message.name else ""
            about += f" ({message.tool_call_id})" if message.tool_call_id else ""
            counted = f"{number_} " if not mark else mark
            yield _labelled(f"{counted}{message.role}{about}", cut(text, cap))

    # --- attributes ----------------------------------------------------------------------------------------------
    def _attributes(
        self,
        row: SpanRow,
        given: Mapping[str, Any],
        used: set[str],
        conversations: Mapping[Direction, Conversation | None],
    ) -> Iterator[str]:
        facts = {
            str(fact)
            for fact in (row.model_name, row.tool_name, row.agent_name, row.observation_kind, row.input_tokens, row.output_tokens)
            if fact is not None
        }
        total = (row.input_tokens or 0) + (row.output_tokens or 0)
        facts |= {str(total)} if total else set()
        provider = next((key for key in semconv.PROVIDER if key in given), None)
        used = used | {key for key in semconv.PROVIDER if key in given and key != provider and given[key] == given[provider or key]}
        short: list[str] = []
        for key, value in given.items():
            if key in used or (key in _IN_HEAD and str(value) in facts):
                continue
            if repeated := _repeats(key, value, conversations):
                yield repeated
                continue
            text = readable(value)
            if key in semconv.INPUT_VALUE or key in semconv.OUTPUT_VALUE:
                yield _labelled("input" if key in semconv.INPUT_VALUE else "output", cut(text, self.attribute_chars))
            elif len(text) <= _SHORT_CHARS and "\n" not in text:
                short.append(f"{key}={text}")
            else:
                yield _labelled(key, cut(text, self.attribute_chars))
        if short:
            yield "attributes: " + ", ".join(short)


def _repeats(key: str, value: Any, conversations: Mapping[Direction, Conversation | None]) -> str | None:
    """A note for an input or output attribute that only says again what the messages say."""
    asked, answered = conversations["input"], conversations["output"]
    if not isinstance(value, str):
        return None
    if key in semconv.OUTPUT_VALUE and answered and any(m.content.strip() == value.strip() for m in answered.messages):
        return f"{key}: the text of the answer above"
    if key in semconv.INPUT_VALUE and asked and any(m.content.strip() == value.strip() for m in asked.messages):
        return f"{key}: the text of a message above"
    found = asked if key in semconv.INPUT_VALUE else answered if key in semconv.OUTPUT_VALUE else None
    if found and value[:1] in ("{", "[") and all(_inside(m.content, value) for m in found.messages):
        return f"{key}: {number(len(value))} characters of JSON with the messages above; view_spans(attribute={key!r}) shows it"
    return None


def _inside(text: str, encoded: str) -> bool:
    probe = max(text.replace("\\", "\n").replace('"', "\n").splitlines() or [""], key=len)
    return probe[:60] in encoded


def _message_text(message: Message) -> str:
    calls = [f"calls {call.name}({call.arguments}){f' id={call.id}' if call.id else ''}" for call in message.tool_calls]
    content = readable(message.content) if message.content else ""
    return "\n".join([*([content] if content else []), *calls]) or "(empty)"


def _labelled(label: str, text: str) -> str:
    return f"{label}: {text}" if "\n" not in text else f"{label}:\n{indent(text, '  ')}"


def in_tree_order(rows: Sequence[SpanRow]) -> list[tuple[int, SpanRow]]:
    """Spans with their depth, parents before children, siblings in time order. Circles are cut where they close."""
    known = {row.span_id: row for row in rows}
    children: dict[str | None, list[SpanRow]] = {}
    for row in rows:
        parent = row.parent_span_id if row.parent_span_id in known and row.parent_span_id != row.span_id else None
        children.setdefault(parent, []).append(row)
    ordered: list[tuple[int, SpanRow]] = []
    seen: set[int] = set()

    def walk(start: Sequence[SpanRow]) -> None:
        todo = [(0, row) for row in reversed(start)]
        while todo:
            depth, row = todo.pop()
            if id(row) in seen:
                continue
            seen.add(id(row))
            ordered.append((depth, row))
            if known[row.span_id] is row:  # of spans with the same id, the one found by it has the children
                todo.extend((depth + 1, child) for child in reversed(children.get(row.span_id, [])))

    walk(children.get(None, []))
    walk([row for row in rows if id(row) not in seen])
    return ordered


Describe = Callable[[SpanRow], str]
"""A few words on what a span did, for the outline."""
