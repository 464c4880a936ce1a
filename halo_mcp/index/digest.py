"""What a reader has to know of one trace, from few of its spans: they are chosen by the index, then only they are read.

The same trace gives the same digest. Its texts are whole; whoever shows them cuts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

from halo_mcp.index import semconv
from halo_mcp.index.messages import Conversation, conversation
from halo_mcp.index.semconv import ObservationKind
from halo_mcp.index.span import Json, Span, as_text

if TYPE_CHECKING:
    from halo_mcp.index.evidence import Quote
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.store import StatusCode, TraceRow
    from halo_mcp.index.work import Work

MOST_FAILING: Final = 10
"""Spans where a failure begins that are read; every failure mode's first one before any second."""
MOST_TURNS: Final = 6
_LONG_CHARS: Final = 300
MOST_BYTES: Final = 4 << 20
"""Of spans that are read for one digest; a larger one is left out and counted."""


@dataclass(frozen=True, slots=True)
class DigestSpan:
    """What the index knows about a span, as far as a digest needs it."""

    span_id: str
    observation_kind: ObservationKind
    name: str
    agent_name: str | None
    tool_name: str | None
    start_time_unix_nano: int | None
    end_time_unix_nano: int | None
    status_code: StatusCode
    has_parent: bool
    failure_mode: str | None
    """Of the failure that begins here."""
    failure_rule: str | None
    failure_text: str | None
    finish_reason: str | None
    place: tuple[int, int, int]
    """Source number, byte offset, length in bytes."""

    @property
    def failed(self) -> bool:
        return self.failure_mode is not None or self.status_code == "ERROR"


@dataclass(frozen=True, slots=True)
class DigestFailure:
    """One failure mode in the trace: every span where it begins, in time order."""

    mode: str
    spans: tuple[DigestSpan, ...]
    quote: Quote | None
    """From the first of the spans."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Texts of one span: (what it is, the whole text)."""

    span: DigestSpan
    position: int
    """In the trace, in time order."""
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TraceDigest:
    """One trace in short."""

    trace: TraceRow
    kinds: tuple[tuple[str, int], ...]
    failures: tuple[DigestFailure, ...]
    """In the order in which they begin."""
    calls: tuple[DigestSpan, ...]
    """Tool calls in time order."""
    finish_reasons: tuple[tuple[str, int], ...]
    """Why models stopped, where that is not the usual end of a turn."""
    excerpts: tuple[Excerpt, ...]
    """The most telling first."""
    too_large: int
    """Spans that would have been read and are larger than the limit allows."""


_COLUMNS: Final = (
    "span_id, observation_kind, name, agent_name, tool_name, start_time_unix_nano, end_time_unix_nano, status_code, "
    "has_parent, failure_mode, failure_rule, failure_text, finish_reason, source_no, byte_offset, byte_length"
)
_USUAL_ENDS: Final = frozenset(
    ("stop", "tool_calls", "tool_use", "end_turn", "function_call", "tool_call", "completed")
)


def read_digest(snapshot: Snapshot, key: int, trace: TraceRow, work: Work) -> TraceDigest:
    """The digest of the trace ``key``. Raises: Cancelled, DeadlineExceeded, SourceError, IndexFailure."""
    rows = snapshot.query(
        f"SELECT {_COLUMNS} FROM {snapshot.spans_of(key)} "
        "ORDER BY start_time_unix_nano NULLS LAST, source_no, byte_offset",
        work=work,
    )
    spans = [DigestSpan(row[0] or "", *row[1:-3], place=row[-3:]) for row in rows]
    wanted = _chosen(spans)
    read = _affordable(spans, wanted)
    records = _records(snapshot, key, spans, read, work)
    failures = _failures(spans, records)
    ends = Counter(span.finish_reason for span in spans if span.finish_reason)
    return TraceDigest(
        trace=trace,
        kinds=tuple(Counter(span.observation_kind for span in spans).most_common()),
        failures=failures,
        calls=tuple(span for span in spans if span.observation_kind == "TOOL"),
        finish_reasons=tuple((why, count) for why, count in ends.most_common() if why not in _USUAL_ENDS),
        excerpts=tuple(_excerpts(spans, read, records)),
        too_large=len(wanted) - len(read),
    )


# --- which spans ------------------------------------------------------------------------------------------------------
def _chosen(spans: Sequence[DigestSpan]) -> list[int]:
    """Positions of the spans to read, the most telling first: what was asked, what failed, what was answered."""
    models = [number for number, span in enumerate(spans) if span.observation_kind == "LLM"]
    roots = [number for number, span in enumerate(spans) if not span.has_parent][:1]
    failing = _first_of_each_mode(spans)
    worked = [n for n, span in enumerate(spans) if span.observation_kind == "TOOL" and not span.failed]
    after = [number for number in models if failing and number > failing[0]][:1]
    spread = models[:: max(1, -(-len(models) // MOST_TURNS))]
    order = chain(roots, models[:1], failing[:3], models[-1:], after, failing[3:], worked[-1:], spread, worked[:1])
    return list(dict.fromkeys(order))


def _first_of_each_mode(spans: Sequence[DigestSpan]) -> list[int]:
    """Spans where failures begin: the first of each mode, then the second of each, ..."""
    modes: dict[str, list[int]] = {}
    for number, span in enumerate(spans):
        if span.failure_mode is not None:
            modes.setdefault(span.failure_mode, []).append(number)
    turns = zip_longest(*(numbers[:MOST_FAILING] for numbers in modes.values()))
    return [number for turn in turns for number in turn if number is not None][:MOST_FAILING]


def _affordable(spans: Sequence[DigestSpan], wanted: Sequence[int]) -> list[int]:
    left, read = MOST_BYTES, list[int]()
    for position in wanted:
        size = spans[position].place[2]
        if size <= left:
            left -= size
            read.append(position)
    return read


def _records(
    snapshot: Snapshot, key: int, spans: Sequence[DigestSpan], read: Sequence[int], work: Work
) -> dict[int, Mapping[str, Json]]:
    """The records of the spans at these positions."""
    from halo_mcp.index.places import Places

    order = sorted(read, key=lambda position: spans[position].place)
    sources = snapshot.sources()
    texts = sources.texts(Places.of(spans[position].place for position in order))
    found: dict[int, Mapping[str, Json]] = {}
    for position, text in zip(order, texts, strict=True):
        work.check()
        found[position] = sources.record(spans[position].place[0], text, snapshot.trace_id(key))
    return found


# --- what they say ----------------------------------------------------------------------------------------------------
def _failures(spans: Sequence[DigestSpan], records: Mapping[int, Mapping[str, Json]]) -> tuple[DigestFailure, ...]:
    modes: dict[str, list[int]] = {}
    for position, span in enumerate(spans):
        if span.failure_mode is not None:
            modes.setdefault(span.failure_mode, []).append(position)
    return tuple(
        DigestFailure(
            mode, tuple(spans[position] for position in found), _quote(spans[found[0]], records.get(found[0]))
        )
        for mode, found in modes.items()
    )


def _quote(span: DigestSpan, record: Mapping[str, Json] | None) -> Quote | None:
    from halo_mcp.index.evidence import quote_failure

    return None if record is None else quote_failure(record, span.failure_rule or "", span.failure_text)


def _excerpts(
    spans: Sequence[DigestSpan], read: Sequence[int], records: Mapping[int, Mapping[str, Json]]
) -> Iterator[Excerpt]:
    """What the read spans say; a long text that another span has told is not told again."""
    told: set[str] = set()
    first_model = next((number for number in sorted(read) if spans[number].observation_kind == "LLM"), None)
    for position in read:
        said = [item for item in _texts(Span.from_json(records[position]), asked=position == first_model) if item[1]]
        texts = [
            (label, text)
            for number, (label, text) in enumerate(said)
            if text not in told and not any(text in other for _, other in (*said[:number], *said[number + 1 :]))
        ] or said[:1]
        told.update(text for _, text in texts if len(text) > _LONG_CHARS)
        if texts:
            yield Excerpt(spans[position], position, tuple(texts))


def _texts(span: Span, *, asked: bool) -> Iterator[tuple[str, str]]:
    """(what it is, text). Of the messages that a model was sent only the request, and only if ``asked``."""
    given, answered = conversation(span.attributes, "input"), conversation(span.attributes, "output")
    if given is None:
        yield "input", _first(span, semconv.INPUT_VALUE)
    elif asked:
        yield "request", _request(given)
    if span.status_message:
        yield "status message", span.status_message
    for event in span.events:
        kind, message = (
            _first_of(event.attributes, keys) for keys in (semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE)
        )
        if message and message != span.status_message:
            yield "exception", f"{kind}: {message}" if kind else message
    yield "output", _answer(answered) if answered else _first(span, semconv.OUTPUT_VALUE + semconv.OUTPUT_TEXT)


def _request(given: Conversation) -> str:
    """The first thing that a user said, else the last message."""
    users = (message.content for message in given.messages if message.role in ("user", "human") and message.content)
    return next(users, given.messages[-1].content)


def _answer(answered: Conversation) -> str:
    last = answered.messages[-1]
    calls = [f"calls {call.name}({call.arguments})" for call in last.tool_calls]
    return "\n".join(part for part in (last.content, *calls) if part)


def _first(span: Span, keys: Sequence[str]) -> str:
    return _first_of(span.attributes, keys)


def _first_of(attributes: Mapping[str, Json], keys: Sequence[str]) -> str:
    return next((text for key in keys if (text := as_text(attributes.get(key)))), "")
