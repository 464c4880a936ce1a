"""TraceFilters: which traces a call is about, and the same as bound SQL over the views ``traces`` and ``spans``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from halo_mcp.errors import InvalidTime
from halo_mcp.index.columns import NAME_CHARS
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.semconv import ObservationKind
from halo_mcp.index.span import as_text


def whole_characters(text: str) -> str:
    """``text`` if it can be written as UTF-8. Raises: ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(whole_characters)]
Names = Annotated[list[Text], Field(max_length=500)]
Bound = Annotated[float | None, Field(ge=0)]

AttributeOperator = Literal["eq", "ne", "contains", "exists", "gt", "lt"]


class AttributeFilter(BaseModel):
    """One span or resource attribute, by its exact key."""

    model_config = ConfigDict(extra="forbid")

    key: Text
    op: AttributeOperator = "eq"
    value: Text = ""


class TraceFilters(BaseModel):
    """Which traces; all given conditions must hold, lists mean any of. Unknown keys are refused.

    Conditions on spans (names, models, tools, kinds, regex, attributes) hold when some span of the trace meets them.
    """

    model_config = ConfigDict(extra="forbid")

    has_errors: bool | None = Field(default=None, description="some span has status ERROR; false is not success")
    outcome: list[Literal["pass", "fail", "unknown"]] = Field(default=[], description="recorded verdict")
    trace_ids: Names = []
    session_ids: Names = []
    service_names: Names = []
    agent_names: Names = []
    model_names: Names = []
    tool_names: Names = []
    span_names: Names = []
    observation_kinds: list[ObservationKind] = []
    failure_mode: Names = Field(default=[], description="ids from list_failure_modes")
    project_id: Text = ""
    task_keys: Names = []
    run_ids: Names = []
    start_time_gte: Text = Field(default="", description="RFC 3339 or epoch digits; trace starts at or after")
    end_time_lte: Text = Field(default="", description="trace ends at or before")
    min_duration_ms: Bound = None
    max_duration_ms: Bound = None
    min_tokens: Bound = Field(default=None, description="input + output over LLM spans")
    max_tokens: Bound = None
    min_span_count: Bound = None
    max_span_count: Bound = None
    attributes: list[AttributeFilter] = Field(
        default=[], max_length=5, description="value compared as text; gt/lt as numbers"
    )
    regex_pattern: Text = Field(default="", description="RE2; some span's JSON or decoded text matches. Scans payloads")

    @property
    def needs_payloads(self) -> bool:
        """Whether the index alone cannot decide."""
        return bool(self.regex_pattern or self.attributes)

    def given(self) -> dict[str, Any]:
        """Only the conditions that were given, as JSON values."""
        return self.model_dump(exclude_defaults=True)


@dataclass(slots=True)
class Where:
    """Conditions on ``traces`` (aliased t) with their bound values."""

    conditions: list[str] = field(default_factory=list[str])
    values: list[Any] = field(default_factory=list[Any])

    def add(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition)
        self.values.extend(values)

    @property
    def sql(self) -> str:
        return " AND ".join(f"({condition})" for condition in self.conditions) or "true"


_TRACE_LISTS: Final = {"session_ids": "session_id", "task_keys": "task_key", "run_ids": "run_id", "outcome": "outcome"}
_SPAN_LISTS: Final = {
    "service_names": "service_name",
    "agent_names": "agent_name",
    "model_names": "model_name",
    "tool_names": "tool_name",
    "span_names": "name",
    "observation_kinds": "observation_kind",
    "failure_mode": "failure_mode",
}
_TRACES_OF_SPANS: Final = "SELECT trace_key FROM spans WHERE"
DURATION_MS: Final = "(end_time_unix_nano::HUGEINT - start_time_unix_nano) / 1e6"
"""Subtracted in HUGEINT: BIGINT overflows over some 292 years, and DOUBLE knows such times to 256 ns only."""
TOKENS: Final = "coalesce(input_tokens, 0) + coalesce(output_tokens, 0)"
_RANGES: Final = {"duration_ms": DURATION_MS, "tokens": TOKENS, "span_count": "span_count"}


def where(filters: TraceFilters) -> Where:
    """The conditions that the index decides; regex_pattern and attributes are left to a payload scan.

    Raises: InvalidTime.
    """
    result = Where()
    if filters.has_errors is not None:
        result.add("(error_span_count > 0) = ?", filters.has_errors)
    if filters.trace_ids:
        result.add("list_contains(?, trace_id)", [normalize_id(given) for given in filters.trace_ids])
    for name, column in _TRACE_LISTS.items():
        if values := getattr(filters, name):
            result.add(f"list_contains(?, {column})", _as_indexed(values))
    for name, column in _SPAN_LISTS.items():
        if values := getattr(filters, name):
            result.add(f"trace_key IN ({_TRACES_OF_SPANS} list_contains(?, {column}))", _as_indexed(values))
    if filters.project_id:
        result.add(f"trace_key IN ({_TRACES_OF_SPANS} project_id = ?)", *_as_indexed([filters.project_id]))
    if filters.start_time_gte:
        result.add("start_time_unix_nano >= ?", parse_time("start_time_gte", filters.start_time_gte))
    if filters.end_time_lte:
        result.add("end_time_unix_nano <= ?", parse_time("end_time_lte", filters.end_time_lte))
    for name, expression in _RANGES.items():
        if (low := getattr(filters, f"min_{name}")) is not None:
            result.add(f"{expression} >= ?", low)
        if (high := getattr(filters, f"max_{name}")) is not None:
            result.add(f"{expression} <= ?", high)
    return result


def _as_indexed(names: Sequence[str]) -> list[str]:
    return [name[:NAME_CHARS] for name in names]


_SCALES: Final = {10: 1_000_000_000, 13: 1_000_000, 16: 1_000, 19: 1}
_EPOCH_SECONDS: Final = re.compile(r"(\d{10})\.(\d{1,9})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_NANO: Final = 2**63 - 2
_TIME_CHARS: Final = 64


def parse_time(argument: str, text: str) -> int:
    """Nanoseconds since the epoch; the same rules as ``columns.unix_nano``. Raises: InvalidTime."""
    text = text.strip()
    if len(text) > _TIME_CHARS:
        raise InvalidTime(argument, text[: _TIME_CHARS - 3] + "...")
    if text.isdecimal() and text.isascii():
        nano = int(text) * _SCALES.get(len(text), 0)
        if not 0 < nano <= _LATEST_NANO:
            raise InvalidTime(argument, text)
        return nano
    if seconds := _EPOCH_SECONDS.fullmatch(text):
        return int(seconds[1] + seconds[2].ljust(9, "0"))
    whole, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat((whole + rest[len(digits) :]).upper())
    except ValueError:
        raise InvalidTime(argument, text) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int((digits + "0" * 9)[:9])


def attribute_holds(given: AttributeFilter, present: bool, value: Any) -> bool:
    """Whether one attribute (``present`` or not, with its JSON value) meets the filter.

    Every operator needs the attribute to be there, ``ne`` too. What is no string compares as JSON: "true", "[1,2]".
    """
    if given.op == "exists" or not present:
        return present
    if given.op in ("eq", "ne"):
        return (as_text(value) == given.value) is (given.op == "eq")
    if given.op == "contains":
        return given.value in as_text(value)
    try:
        left, right = float(as_text(value)), float(given.value)
    except ValueError:
        return False
    return left > right if given.op == "gt" else left < right
