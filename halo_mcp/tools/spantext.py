"""A span as text: one line for an outline, a block of lines for reading. Nothing is dropped without saying so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.messages import Conversation, Direction, Message, conversation
from halo_mcp.index.span import Span, as_list
from halo_mcp.index.store import SpanRow
from halo_mcp.tools.budget import cut, fair_shares, name, preview
from halo_mcp.tools.messagetext import message_text, speaker, unsaid_members
from halo_mcp.tools.params import call_text
from halo_mcp.tools.render import duration, indent, number, readable

_IN_HEAD: Final = frozenset(
    key
    for keys in (
        semconv.MODEL_NAME,
        semconv.INPUT_TOKENS,
        semconv.OUTPUT_TOKENS,
        semconv.TOOL_NAME,
        semconv.AGENT_NAME,
        tuple(key for key, _ in semconv.KIND_RULES),
    )
    for key in keys
)
"""Attributes whose fact may stand in the span's first line; shown again when it does not."""
_SHORT_CHARS: Final = 120
_MESSAGE_CHARS: Final = 200
"""When a conversation cannot show this much of each message, its middle is left out."""
_FIRST_MESSAGES: Final = 2
_UNSAID_SHOWN: Final = 40


def head(row: SpanRow, trace_start: int | None) -> str:
    """The facts of a span on one line: id, kind, name, offset and duration, tokens, status, error."""
    label = row.observation_kind if row.observation_kind != "SPAN" else row.kind or "SPAN"
    own = {"LLM": row.model_name, "AGENT": row.agent_name}.get(row.observation_kind)
    named = row.tool_name or own
    title = row.name if not named or named in row.name else f"{row.name} ({named})"
    parts = [f"[{row.span_id}] {name(label)} {name(title)}"]
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
    dataset: str = ""
    """What a next call gives as ``dataset``."""
    _shown: list[tuple[str, tuple[Message, ...]]] = field(default_factory=list[tuple[str, tuple[Message, ...]]])
    _agents: dict[str, str] = field(default_factory=dict[str, str])
    """Span id -> the agent that stands in its first line or in the one of an ancestor."""

    def block(self, row: SpanRow, span: Span, trace_start: int | None, about: str = "") -> str:
        """The span's first line, ending with ``about``, and, indented, all it carries; each text capped."""
        first = head(row, trace_start) + about
        inherited = self._agents.get(row.parent_span_id or "", "")
        self._agents[row.span_id] = row.agent_name if row.agent_name and row.agent_name in first else inherited
        return "\n".join([first, *(indent(line, "  ") for line in self._body(row, span, first))])

    def _body(self, row: SpanRow, span: Span, first: str) -> Iterator[str]:
        given = {key: value for key, value in span.attributes.items() if value not in (None, "", [], {})}
        used: set[str] = set(self.constant)
        conversations: dict[Direction, Conversation | None] = {
            "input": conversation(given, "input"),
            "output": conversation(given, "output"),
        }
        for found in conversations.values():
            used |= found.keys if found else set()
        yield from self._messages(row, conversations)
        for found in conversations.values():
            if found:
                yield from self._unsaid(found, given, used)
        if span.status_message and not _stands_in(span.status_message, first):
            yield _labelled("status message", cut(span.status_message, self.attribute_chars))
        for event in span.events:
            if event.name in span.folded_events:
                continue
            when = f" at {event.time}" if event.time else ""
            attributes = ", ".join(f"{name(key)}={readable(value)}" for key, value in event.attributes.items())
            yield cut(f"event {name(event.name)}{when}: {attributes}", self.attribute_chars)
        if span.links:
            yield cut(f"links: {readable(list(span.links))}", self.attribute_chars)
        used |= {semconv.EVENTS_ATTRIBUTE} if as_list(given.get(semconv.EVENTS_ATTRIBUTE)) and span.events else set()
        used |= {semconv.LINKS_ATTRIBUTE} if as_list(given.get(semconv.LINKS_ATTRIBUTE)) and span.links else set()
        yield from self._attributes(row, first, given, used, conversations)
        if span.extra:
            yield _labelled("other members", cut(readable(dict(span.extra)), self.attribute_chars))

    # --- messages ------------------------------------------------------------------------------------------------
    def _messages(self, row: SpanRow, conversations: Mapping[Direction, Conversation | None]) -> Iterator[str]:
        asked, answered = conversations["input"], conversations["output"]
        inputs = asked.messages if asked else ()
        skip, where = self._already_shown(inputs)
        if skip:
            yield f"message{f's 1-{skip}' if skip > 1 else ' 1'}: as in [{where}]"
        if asked:
            yield from self._message_lines(row, asked, skip, "")
        if answered:
            yield from self._message_lines(row, answered, 0, "→ ")
        if inputs:
            self._shown.append((row.span_id, inputs + (answered.messages if answered else ())))

    def _already_shown(self, messages: Sequence[Message]) -> tuple[int, str]:
        best, where = 0, ""
        for span_id, earlier in self._shown[-12:]:
            same = 0
            for one, other in zip(messages, earlier, strict=False):
                if (one.role, one.content, one.tool_calls) != (other.role, other.content, other.tool_calls):
                    break
                same += 1
            if same >= best and same > 0:
                best, where = same, span_id
        return best, where

    def _message_lines(self, row: SpanRow, found: Conversation, skip: int, mark: str) -> Iterator[str]:
        """The messages from number ``skip`` on, the middle left out when there are too many to show much of each."""
        messages = found.messages[skip:]
        texts = [message_text(message) for message in messages]
        hidden = _hidden([len(text) for text in texts], self.attribute_chars)
        cap = fair_shares([len(text) for i, text in enumerate(texts) if i not in hidden], self.attribute_chars)
        for i, (message, text) in enumerate(zip(messages, texts, strict=True)):
            if i not in hidden:
                counted = mark or f"{skip + i + 1} "
                yield _labelled(counted + speaker(message), cut(text, cap))
            elif i == hidden.start:
                chars = sum(len(texts[j]) for j in hidden)
                reading = call_text(
                    "view_spans",
                    dataset=self.dataset,
                    trace_id=row.trace_id,
                    span_ids=[row.span_id],
                    attribute=found.key,
                )
                numbers = f"{skip + hidden.start + 1}-{skip + hidden.stop}"
                yield f"messages {numbers} left out, {number(chars)} characters: {reading} shows them"

    def _unsaid(self, found: Conversation, given: Mapping[str, Any], used: set[str]) -> Iterator[str]:
        """What the message attributes hold beside what the messages above say."""
        lines = [f"{where}={cut(text, _SHORT_CHARS * 4)}" for where, text in unsaid_members(found, given)]
        used |= found.keys
        if lines:
            more = len(lines) - _UNSAID_SHOWN
            shown = lines[:_UNSAID_SHOWN] + ([f"and {more} more members of {found.key}"] if more > 0 else [])
            yield _labelled("also in the messages", cut(", ".join(shown), self.attribute_chars))

    # --- attributes ----------------------------------------------------------------------------------------------
    def _attributes(
        self,
        row: SpanRow,
        first: str,
        given: Mapping[str, Any],
        used: set[str],
        conversations: Mapping[Direction, Conversation | None],
    ) -> Iterator[str]:
        provider = next((key for key in semconv.PROVIDER if key in given), None)
        aliases = {k for k in semconv.PROVIDER if k in given and k != provider and given[k] == given[provider or k]}
        short: list[str] = []
        for key, value in given.items():
            if key in used or key in aliases or self._said_in_head(row, first, key, value):
                continue
            if repeated := _repeats(key, value, conversations):
                yield repeated
                continue
            text = readable(value)
            if key in semconv.INPUT_VALUE or key in semconv.OUTPUT_VALUE:
                label = "input" if key in semconv.INPUT_VALUE else "output"
                label = label if given.keys().isdisjoint(_others(key)) else key
                yield _labelled(label, cut(text, self.attribute_chars))
            elif len(text) <= _SHORT_CHARS and "\n" not in text:
                short.append(f"{name(key)}={text}")
            else:
                yield _labelled(name(key), cut(text, self.attribute_chars))
        if short:
            yield "attributes: " + ", ".join(short)

    def _said_in_head(self, row: SpanRow, first: str, key: str, value: Any) -> bool:
        if key in semconv.TOTAL_TOKENS:
            return str(value) == str((row.input_tokens or 0) + (row.output_tokens or 0))
        if key not in _IN_HEAD:
            return False
        if key in semconv.INPUT_TOKENS:
            return str(value) == str(row.input_tokens) and f"{number(row.input_tokens or 0)} in " in first
        if key in semconv.OUTPUT_TOKENS:
            return str(value) == str(row.output_tokens) and f" {number(row.output_tokens or 0)} out" in first
        if key in semconv.AGENT_NAME and str(value) == self._agents.get(row.span_id):
            return True
        return str(value) in first.partition(" · ")[0].split("] ", 1)[1]


def _others(key: str) -> set[str]:
    keys = semconv.INPUT_VALUE if key in semconv.INPUT_VALUE else semconv.OUTPUT_VALUE
    return {other for other in keys if other != key}


def _stands_in(text: str, line: str) -> bool:
    return " ".join(text.split()) in line


def _hidden(lengths: Sequence[int], budget: int) -> range:
    """The positions of messages to leave out: none, or all but the first few and as many last ones as fit."""
    costs = [min(length, _MESSAGE_CHARS) + _MESSAGE_CHARS // 4 for length in lengths]
    if sum(costs) <= budget:
        return range(0)
    left = budget - sum(costs[:_FIRST_MESSAGES])
    start = len(costs)
    while start > _FIRST_MESSAGES and costs[start - 1] <= left:
        start -= 1
        left -= costs[start]
    return range(_FIRST_MESSAGES, max(start, _FIRST_MESSAGES))


def _repeats(key: str, value: Any, conversations: Mapping[Direction, Conversation | None]) -> str | None:
    """A note for an input or output attribute that only says again what the messages say."""
    found = conversations["input" if key in semconv.INPUT_VALUE else "output"]
    if not found or not isinstance(value, str) or key not in semconv.INPUT_VALUE + semconv.OUTPUT_VALUE:
        return None
    contents = [message.content for message in found.messages if message.content]
    if any(content.strip() == value.strip() for content in contents):
        where = "a message above" if key in semconv.INPUT_VALUE else "the answer above"
        return f"{key}: the text of {where}"
    if contents and value[:1] in ("{", "[") and all(_inside(content, value) for content in contents):
        shows = f"view_spans(attribute={orjson.dumps(key).decode()}) shows it"
        return f"{key}: {number(len(value))} characters of JSON with the messages above; {shows}"
    return None


def _inside(text: str, encoded: str) -> bool:
    probe = max(text.replace("\\", "\n").replace('"', "\n").splitlines() or [""], key=len)
    return probe[:60] in encoded


def _labelled(label: str, text: str) -> str:
    return f"{label}: {text}" if "\n" not in text else f"{label}:\n{indent(text, '  ')}"
