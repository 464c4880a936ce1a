"""One trace made of steps in order: an AGENT root and the model's and the tools' steps below it.

For sources that have no spans of their own, and often no clock: a step without a time gets one that tells the order
only, marked ``source.synthetic_time``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.protocol import SYNTHETIC_TIME, Record, Report
from halo_mcp.index.formats.values import (
    ERROR,
    FAULTS,
    UNSET,
    attribute_value,
    exception_event,
    given,
    reason_of,
    span,
)
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_mapping

SYNTHETIC_BEGIN: Final = 946_684_800_000_000_000
"""2000-01-01: where the made up times of the first record of a file begin; each further record is a second later."""
_STEP: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_SAYS_OUTCOME: Final = ("resolved", "success", "passed", "is_correct", "correct")
_ENDED_WELL: Final = ("submitted", "skipped", "early_exit", "completed", "success")
_RENAMED: Final = {"success": "task.success"}
"""As the attribute of a span, ``success`` would tell how the span went, not the task."""


@dataclass(slots=True)
class Step:
    """A span in the making. Change it until the trajectory is finished."""

    kind: semconv.ObservationKind
    name: str
    attributes: dict[str, Json]
    start: int
    synthetic: bool
    end: int | None = None
    status: str = UNSET
    message: str = ""
    events: list[Json] = field(default_factory=list[Json])
    parent: Step | None = None
    span_id: str = ""

    def fail(self, message: str, kind: str = "") -> None:
        """It ended in an error."""
        self.status, self.message = ERROR, message
        if kind:
            self.events.append(exception_event(kind, message))


class Trajectory:
    """The steps of one trace."""

    def __init__(self, trace_id: Json, *, mark: str, report: Report, number: int = 0, begin: int | None = None) -> None:
        """``mark`` begins the span ids: two records of one trace must differ in it. ``number``: which record of its
        file this is. ``begin``: the first time that the record knows of itself, in nanoseconds."""
        self._trace_id = trace_id
        self._mark = mark
        self.report = report
        self._clock = SYNTHETIC_BEGIN + number * _SECOND if begin is None else begin
        self._steps: list[Step] = []
        self.root = Step("AGENT", "", {}, self._clock, begin is None, span_id=mark)
        """Its name, attributes and status are the caller's to set."""

    def add(
        self,
        kind: semconv.ObservationKind,
        name: str,
        attributes: Mapping[str, Json],
        *,
        step: int | None = None,
        time: int | None = None,
        parent: Step | None = None,
    ) -> Step:
        """The next step. ``step`` is its position in the source, ``time`` its start if the source tells one: no step
        starts before an earlier one."""
        synthetic = time is None or time < self._clock
        start = self._clock if time is None or synthetic else time
        self._clock = start + _STEP
        own = given(attributes) | given({semconv.SOURCE_STEP: step})
        return self.keep(Step(kind, name, own, start, synthetic, start + _STEP if synthetic else None, parent=parent))

    def keep(self, step: Step) -> Step:
        """A step with a time and perhaps an id of its own."""
        self._steps.append(step)
        step.span_id = step.span_id or f"{self._mark}-{len(self._steps)}"
        self._clock = max(self._clock, step.start)
        return step

    def drop(self, step: Step) -> None:
        """Take a step out again."""
        self._steps = [one for one in self._steps if one is not step]

    @property
    def now(self) -> int:
        """The latest start so far, in nanoseconds."""
        return self._clock

    def spans(self, *, resource: Mapping[str, Json], scope: Mapping[str, Json]) -> Iterator[Record]:
        """The root and all steps."""
        root = self.root
        root.end = max([root.start, root.end or 0, *(one.end or one.start for one in self._steps)])
        for one in [root, *self._steps]:
            parent = "" if one is root else (one.parent or root).span_id
            attributes: dict[str, Json] = {semconv.OBSERVATION_KIND: one.kind}
            attributes |= {key: value for key, value in one.attributes.items() if value is not None}
            if one.synthetic:
                attributes[semconv.SYNTHETIC_TIME] = True
                self.report.repaired(SYNTHETIC_TIME)
            yield span(
                trace_id=self._trace_id,
                span_id=one.span_id,
                parent_span_id=parent,
                name=one.name,
                kind="CLIENT" if one.kind == "LLM" else "INTERNAL",
                start=one.start,
                end=one.end,
                status=one.status,
                message=one.message,
                attributes=attributes,
                resource=resource,
                scope=scope,
                events=one.events,
                report=self.report,
            )


def digest(value: Json) -> str:
    """Eight hex digits that tell this content from other content."""
    return hashlib.blake2b(json_text(value).encode("utf-8", "replace"), digest_size=4).hexdigest()


def members(value: Mapping[str, Json], *, without: Sequence[str] = (), prefix: str = "") -> dict[str, Json]:
    """What else a record says, each member as an attribute under its own key; objects as their JSON text."""
    found: dict[str, Json] = {}
    for key, member in value.items():
        if key not in without and member not in (None, "", [], {}):
            found[prefix + (key if prefix else _RENAMED.get(key, key))] = attribute_value(member)
    return found


def outcome(*records: Mapping[str, Json]) -> dict[str, Json]:
    """The outcome attribute, where a record says without a doubt whether the task was done; else nothing."""
    for record in records:
        for key in _SAYS_OUTCOME:
            if isinstance(record.get(key), bool):
                return verdict(bool(record[key]))
    return {}


def verdict(passed: bool) -> dict[str, Json]:
    """The outcome attribute."""
    return {semconv.OUTCOME[0]: "pass" if passed else "fail"}


def end_with(root: Step, exit_status: Json) -> None:
    """Tell why the agent stopped; it is an error when that was not of its own will."""
    if exit_status and isinstance(exit_status, str):
        root.attributes[semconv.STOP_REASON[0]] = exit_status
        if not exit_status.lower().startswith(_ENDED_WELL):
            root.fail(exit_status)


def usage(counts: Json) -> dict[str, Json]:
    """Token counts as OpenAI and Anthropic spell them. What else stands there is kept as ``usage.<key>``."""
    left = dict(as_mapping(counts))
    details = [as_mapping(left.get(key)) for key in ("prompt_tokens_details", "input_tokens_details")]
    cached = [one.get("cached_tokens") for one in details]
    cached += [left.get(key) for key in ("cache_read_input_tokens", "input_tokens_cache_read", "cached_tokens")]
    known: dict[str, Json] = {
        semconv.INPUT_TOKENS[0]: _taken(left, "prompt_tokens", "input_tokens"),
        semconv.OUTPUT_TOKENS[0]: _taken(left, "completion_tokens", "output_tokens"),
        semconv.TOTAL_TOKENS[0]: _taken(left, "total_tokens"),
        semconv.CACHED_INPUT_TOKENS[0]: next((count for count in cached if _is_count(count)), None),
    }
    for key in ("cache_read_input_tokens", "input_tokens_cache_read", "cached_tokens"):
        left.pop(key, None)
    return given(known) | members(left, prefix="usage.")


def _taken(left: dict[str, Json], *keys: str) -> Json:
    return next((left.pop(key) for key in keys if _is_count(left.get(key))), None)


def _is_count(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def per_part(
    parts: Iterable[tuple[str, Json]], report: Report, spans_of: Callable[[Json], Iterable[Record]]
) -> Iterator[Record]:
    """Of each (place, part) of a record the spans that ``spans_of`` makes. A part that it cannot take is reported."""
    for place, part in parts:
        try:
            spans: list[Any] = list(spans_of(part))
        except FAULTS as error:
            report.skip(reason_of(error), whole=False, place=place)
            continue
        yield from spans
