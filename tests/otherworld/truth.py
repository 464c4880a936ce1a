"""What is true about the dataset, counted from the spans as written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.otherworld.plan import ROOT_CAUSE, Outcome
from tests.otherworld.recorder import Recorded, Span


@dataclass(frozen=True)
class Quote:
    """Text that stands verbatim in one span."""

    trace_id: str
    span_id: str
    text: str


@dataclass(frozen=True)
class ToolTruth:
    """Calls of one tool; failures are calls with status ERROR."""

    calls: int
    failures: int


@dataclass(frozen=True)
class ModeTruth:
    """One failure mode."""

    key: str
    hard: bool
    """The spans where it begins have status ERROR."""
    span_name: str
    spans: int
    """Where it begins; for the loop: all repeated calls."""
    propagated_spans: int
    """Ancestors with status ERROR, in traces of this mode."""
    trace_ids: tuple[str, ...]
    failed_traces: int
    quotes: tuple[Quote, ...]
    """What each of its spans says, in the order of the file."""


@dataclass(frozen=True)
class WorldTruth:
    """The whole dataset."""

    traces: int
    spans: int
    outcomes: Mapping[Outcome, int]
    error_traces: int
    error_spans: int
    original_error_spans: int
    """ERROR spans without an ERROR span below them."""
    exception_types: Mapping[str, int]
    """Of original failures: the exception event's type, else ``error.type``."""
    exception_events: int
    """On all spans: every span that an exception escapes through tells it again."""
    models: Mapping[str, int]
    """``chat`` spans by the model that answered, or that was asked."""
    input_tokens: int
    """Summed over ``chat`` spans; agent spans repeat what is below them."""
    output_tokens: int
    repeated_input_tokens: int
    """What agent spans would add if they were counted too."""
    tools: Mapping[str, ToolTruth]
    modes: Mapping[str, ModeTruth]
    root_cause: str
    """The mode that explains most failing traces."""
    false_alarms: Mapping[str, tuple[Quote, ...]]
    """Spans that look like failures and are none, by what they look like."""


def count_world(recorded: Sequence[Recorded]) -> WorldTruth:
    """The truth about spans in file order."""
    spans = [item.span for item in recorded]
    chats, agents, tools = (_operation(spans, name) for name in ("chat", "invoke_agent", "execute_tool"))
    errors = [span for span in spans if _failed(span)]
    above = {span["parent_span_id"] for span in errors}
    original = [span for span in errors if span["span_id"] not in above]
    outcomes: dict[str, Outcome] = {
        span["trace_id"]: span["attributes"].get("task.outcome", "unknown")
        for span in spans
        if not span["parent_span_id"]
    }
    calls = Counter(span["attributes"]["gen_ai.tool.name"] for span in tools)
    failures = Counter(span["attributes"]["gen_ai.tool.name"] for span in tools if _failed(span))
    keys = sorted({item.mode for item in recorded} - {""})
    alarms = sorted({item.false_alarm for item in recorded} - {""})
    return WorldTruth(
        traces=len(outcomes),
        spans=len(spans),
        outcomes=Counter(outcomes.values()),
        error_traces=len({span["trace_id"] for span in errors}),
        error_spans=len(errors),
        original_error_spans=len(original),
        exception_types=Counter(kind for span in original if (kind := _exception_type(span))),
        exception_events=sum(len(span["events"]) for span in spans),
        models=Counter(_model(span) for span in chats),
        input_tokens=_tokens(chats, "input"),
        output_tokens=_tokens(chats, "output"),
        repeated_input_tokens=_tokens(agents, "input"),
        tools={name: ToolTruth(calls[name], failures[name]) for name in sorted(calls)},
        modes={key: _count_mode(key, recorded, outcomes, errors, original) for key in keys},
        root_cause=ROOT_CAUSE,
        false_alarms={name: _quotes(recorded, lambda item, name=name: item.false_alarm == name) for name in alarms},
    )


def _count_mode(
    key: str,
    recorded: Sequence[Recorded],
    outcomes: Mapping[str, Outcome],
    errors: Sequence[Span],
    original: Sequence[Span],
) -> ModeTruth:
    begins = [item.span for item in recorded if item.mode == key]
    trace_ids = tuple(dict.fromkeys(span["trace_id"] for span in begins))
    (span_name,) = {span["name"] for span in begins}
    hard = _failed(begins[0])
    repeated = sum(span["trace_id"] in trace_ids for span in errors) - sum(s["trace_id"] in trace_ids for s in original)
    return ModeTruth(
        key=key,
        hard=hard,
        span_name=span_name,
        spans=len(begins),
        propagated_spans=repeated,
        trace_ids=trace_ids,
        failed_traces=sum(outcomes[trace_id] == "fail" for trace_id in trace_ids),
        quotes=_quotes(recorded, lambda item: item.mode == key),
    )


def _quotes(recorded: Sequence[Recorded], wanted: Callable[[Recorded], bool]) -> tuple[Quote, ...]:
    spans = [item.span for item in recorded if wanted(item)]
    return tuple(Quote(span["trace_id"], span["span_id"], _said(span)) for span in spans)


def _said(span: Span) -> str:
    """The words that tell the failure: status message, tool result, or what the model or agent said."""
    if _failed(span):
        return str(span["status"]["message"])
    attributes = span["attributes"]
    if "gen_ai.tool.call.result" in attributes:
        return str(attributes["gen_ai.tool.call.result"])
    (message,) = json.loads(attributes["gen_ai.output.messages"])
    return "".join(part["content"] for part in message["parts"])


def _operation(spans: Sequence[Span], name: str) -> list[Span]:
    return [span for span in spans if span["attributes"]["gen_ai.operation.name"] == name]


def _failed(span: Span) -> bool:
    return span["status"]["code"] == "STATUS_CODE_ERROR"


def _exception_type(span: Span) -> str:
    types = [event["attributes"]["exception.type"] for event in span["events"]]
    return types[0] if types else span["attributes"].get("error.type", "")


def _model(span: Span) -> str:
    attributes: dict[str, Any] = span["attributes"]
    return attributes.get("gen_ai.response.model") or attributes["gen_ai.request.model"]


def _tokens(spans: Sequence[Span], direction: str) -> int:
    return sum(span["attributes"].get(f"gen_ai.usage.{direction}_tokens", 0) for span in spans)
