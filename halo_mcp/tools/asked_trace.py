"""The trace that view_trace is asked for: its spans in tree order, their payloads, and the calls that go on in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from halo_mcp.index.span import Span
from halo_mcp.index.store import SpanRow, TraceRow
from halo_mcp.tools.budget import DEFAULT_CHARS, Page, cut
from halo_mcp.tools.params import Call, call_text, decode_cursor, encode_cursor
from halo_mcp.tools.query import describe_trace
from halo_mcp.tools.spanpages import paired

_READ_BYTES: Final = 32_000_000
"""Larger traces are outlined from the index alone, without previews, and paged through a few spans at a time."""
_BATCH: Final = 25
_INDENT_LIMIT: Final = 12
_CURSOR_CHARS: Final = 120


class AskedTrace:
    """One trace, as one call of view_trace asks for it."""

    def __init__(self, call: Call, trace_id: str, max_chars: int) -> None:
        self.call = call
        self.trace, rows = call.store.trace(trace_id), call.store.spans(trace_id)
        self.start = self.trace.start_time_unix_nano
        self.ordered = in_tree_order(rows)
        """Each span with its depth."""
        self.payloads = Payloads(call, self.trace, [row for _, row in self.ordered])
        self.max_chars = max_chars
        self._arguments = {"trace_id": self.trace.trace_id, "max_chars": max_chars}

    def page(self, reserve: int) -> Page:
        """A page that begins with the facts of the trace; it keeps room for a next call and ``reserve`` characters."""
        page = Page(self.max_chars, reserve=len(self.next_call("")) + _CURSOR_CHARS + reserve)
        page.add_cut(cut(describe_trace(self.trace), self.max_chars // 4))
        return page

    def state(self, cursor: str) -> Any:
        """What ``cursor`` was made of: [mode, position, character]; None without one. Raises: InvalidCursor."""
        return decode_cursor(cursor, "view_trace", self.call.dataset, self._arguments)

    def cursor(self, mode: str, position: int, char: int = 0) -> str:
        return encode_cursor("view_trace", self.call.dataset, self._arguments, [mode, position, char])

    def next_call(self, cursor: str) -> str:
        max_chars = self.max_chars if self.max_chars != DEFAULT_CHARS else None
        return call_text(
            "view_trace", dataset=self.call.named, trace_id=self.trace.trace_id, cursor=cursor, max_chars=max_chars
        )


class Payloads:
    """The spans of a trace by their position, read a few at a time; all at once when someone needs them all."""

    def __init__(self, call: Call, trace: TraceRow, rows: Sequence[SpanRow]) -> None:
        self._call = call
        self._trace = trace
        self._rows = rows
        self.few_bytes = trace.raw_bytes <= _READ_BYTES
        self._first, self._batch = 0, list[Span]()

    def __getitem__(self, position: int) -> Span:
        if not self._first <= position < self._first + len(self._batch):
            self._call.work.check()
            rows = self._rows[position : position + _BATCH]
            ids = list(dict.fromkeys(row.span_id for row in rows))
            self._first, self._batch = position, paired(rows, self._call.store.payloads(self._trace.trace_id, ids))
        return self._batch[position - self._first]

    def everything(self) -> list[Span]:
        """All of them, or none when they are too many bytes to be read at once."""
        if self.few_bytes and len(self._batch) < len(self._rows):
            self._first, self._batch = 0, paired(self._rows, self._call.store.payloads(self._trace.trace_id))
        return self._batch if self.few_bytes else []


def indented(text: str, depth: int) -> str:
    """``text`` as far to the right as a span of this depth stands."""
    by = "  " * min(depth, _INDENT_LIMIT)
    return "\n".join(by + line for line in text.split("\n"))


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
