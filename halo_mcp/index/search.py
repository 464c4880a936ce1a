"""Where a pattern occurs inside spans: in the decoded values that a person reads, else in the raw JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.patterns import Pattern, decoded_values
from halo_mcp.index.span import Json, Span, as_mapping
from halo_mcp.index.store import Match

RAW_PATH: Final = "(raw JSON)"
"""The path of matches that only the undecoded line has, such as one that spans a key and its value."""


@dataclass(slots=True)
class SpanSearch:
    """Collects matches over the spans of a trace; feed each span's bytes to ``add``."""

    pattern: Pattern
    context_chars: int
    max_matches: int
    matches: list[Match] = field(default_factory=list[Match])
    total: int = 0
    searched: int = 0
    matched: int = 0

    def add(self, index: int, text: bytes, parse: Callable[[bytes], Mapping[str, Json]]) -> None:
        """Search one span (number ``index`` of its trace), which ``parse`` reads from its text."""
        self.searched += 1
        if self.pattern.raw.search(text) is None:
            return
        record = parse(text)
        span = Span.from_json(record, len(text))
        before = self.total
        for path, value, positions in occurrences(self.pattern, record, text):
            for position in positions:
                self.total += 1
                if len(self.matches) < self.max_matches:
                    self.matches.append(match_in(span, index, path, value, position, self.context_chars))
        self.matched += self.total > before


def match_in(span: Span, index: int, path: str, value: str, position: tuple[int, int], context_chars: int) -> Match:
    """The match at ``position`` of the text ``value``, which stands at ``path`` of the trace's span ``index``."""
    start, end = position
    return Match(
        span_id=span.span_id,
        span_index=index,
        span_name=span.name,
        kind=span.kind,
        status_code=span.status_code,
        parent_span_id=span.parent_span_id,
        raw_bytes=span.raw_bytes,
        path=path,
        start=start,
        end=end,
        text=value[start:end],
        context=value[max(0, start - context_chars) : end + context_chars],
    )


def occurrences(
    pattern: Pattern, record: Mapping[str, Json], raw: bytes
) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
    """(path, text, positions) of each value that matches.

    A string that holds JSON is searched value by value, and as a whole only when none of its values matches; the raw
    line counts only when no value matches. So nothing is counted twice.
    """
    found = False
    for hit in _hits(pattern, list(decoded_values(without_flat_copies(record)))):
        found = True
        yield hit
    if not found:
        line = raw.decode("utf-8", "replace")
        if positions := _positions(pattern, line):
            yield RAW_PATH, line, positions


def _hits(pattern: Pattern, values: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
    """As ``occurrences``, for values in document order: behind a string that holds JSON come the values inside it."""
    start = 0
    while start < len(values):
        path, text = values[start]
        inside = f"{path}>"
        end = start + 1
        while end < len(values) and values[end][0].startswith(inside):
            end += 1
        hits = list(_hits(pattern, values[start + 1 : end])) if end > start + 1 else []
        if not hits and (positions := _positions(pattern, text)):
            hits = [(path, text, positions)]
        yield from hits
        start = end


def _positions(pattern: Pattern, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.text.finditer(text) if match.end() > match.start()]


def without_flat_copies(record: Mapping[str, Json]) -> dict[str, Json]:
    """The record without flattened messages that stand beside the same messages as JSON."""
    attributes = as_mapping(record.get("attributes"))
    copied = [
        prefix
        for prefix in semconv.FLAT_PREFIXES
        if prefix[:-1] in semconv.INPUT_MESSAGES + semconv.OUTPUT_MESSAGES and attributes.get(prefix[:-1])
    ]
    if not copied:
        return dict(record)
    kept = {key: value for key, value in attributes.items() if not key.startswith(tuple(copied))}
    return {**record, "attributes": kept}
