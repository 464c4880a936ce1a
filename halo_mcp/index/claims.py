"""What someone says about a dataset, with the evidence: as it is written in JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from halo_mcp.index.checks import FailureSelector
from halo_mcp.index.filters import Text, TraceFilters
from halo_mcp.index.store import GroupKey


def _given(value: Any) -> Any:
    return "" if value is None else value


OptionalText = Annotated[Text, BeforeValidator(_given)]


class Evidence(BaseModel):
    """A place in the traces, and the words that stand there. Members of other meaning are ignored."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    trace_id: OptionalText = ""
    span_id: OptionalText = ""
    quote: OptionalText = ""


class CountCheck(BaseModel):
    """A count that can be taken again: of the traces that match, or of the spans in them where a failure begins."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    filters: TraceFilters = TraceFilters()
    failure_mode: FailureSelector | Text | None = None
    """Such a failure begins in the traces; a text is the id of a mode."""
    metric: Literal["traces", "spans"] = "traces"
    group_by: GroupKey | None = None
    expected: int | dict[str, int] = Field(validation_alias=AliasChoices("expected", "expected_count"))
    """The number; with ``group_by`` a number for each group that is named."""

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if isinstance(self.expected, dict) != (self.group_by is not None):
            raise ValueError('group_by and expected={"GROUP": COUNT, ...} go together; else expected is one number')
        if self.group_by is not None and (self.failure_mode or self.metric == "spans"):
            raise ValueError("group_by counts traces: say which ones with filters, such as failure_mode")
        if self.metric == "spans" and not self.failure_mode:
            raise ValueError("metric spans counts where a failure begins: give failure_mode")
        return self

    @property
    def failure(self) -> FailureSelector | None:
        if isinstance(self.failure_mode, str):
            return FailureSelector(id=self.failure_mode) if self.failure_mode else None
        return self.failure_mode


class Claim(BaseModel):
    """A statement and what shall show it. Members of other meaning (severity, ...) are ignored."""

    model_config = ConfigDict(extra="ignore")

    claim: OptionalText = ""
    evidence: list[Evidence] = []
    counterexample: Evidence | None = None
    check: CountCheck | None = None
