"""The vocabulary of the engine: tools, messages, turns, results, events. All of it can be written as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from halo_mcp.engine.settings import Wire

Json = dict[str, Any]
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined, and U+FFFD for halves: models write some, and no protocol carries them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def well_formed_json(value: Any) -> Any:
    """The JSON value with all its texts well-formed."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(well_formed(text)) if _SURROGATE.search(text) else value


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with ``change`` made to all its texts, but for the keys of objects."""
    match value:
        case str():
            return change(value)
        case dict():
            return {key: each_text(item, change) for key, item in cast("Json", value).items()}
        case list() | tuple():
            return [each_text(item, change) for item in cast("list[Any]", value)]
        case _:
            return value


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told about a tool."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON schema of the arguments, an object."""


@dataclass(frozen=True, slots=True)
class Tool(ToolSpec):
    """Something a model may call. ``call`` returns text; what it raises becomes text for the model."""

    call: Callable[[Json], Awaitable[str]]
    paid: bool = False
    """It asks the model too: it ends by itself when the budget does, and what it returned is part of any answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of a model, ``arguments`` as the model wrote them."""

    id: str
    name: str
    arguments: str

    def parse(self) -> Json | None:
        """The arguments, or None when they are no JSON object."""
        try:
            # Not strict: grammar-constrained servers leave raw control characters inside strings.
            value = json.loads(self.arguments or "{}", strict=False)
            value = well_formed_json(value)
        except (ValueError, RecursionError):
            return None
        return cast("Json", value) if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request cost, as the server reported it, or our estimate."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    usd: float | None = None
    estimated: bool = False


@dataclass(slots=True)
class Turn:
    """One reply of a model."""

    wire: Wire
    native: Any
    """What the server sent, to be replayed as it is: a message (chat) or a list of items (responses)."""
    text: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    refused: bool = False
    finish: str = ""
    """stop, tool_calls, length or content_filter, as chat calls them."""
    usage: Usage | None = None

    def to_json(self) -> Json:
        return asdict(self)

    @staticmethod
    def from_json(data: Json) -> Turn:
        usage = Usage(**data["usage"]) if data["usage"] else None
        parts: Json = {**data, "calls": [Call(**call) for call in data["calls"]], "usage": usage}
        return Turn(**parts)


Role = Literal["user", "assistant", "tool"]


@dataclass(slots=True)
class Message:
    """One entry of a conversation. A tool message holds the text the model sees, and where all of it is kept."""

    role: Role
    text: str = ""
    turn: Turn | None = None
    call_id: str = ""
    item_id: str = ""
    """The ledger's name for the whole result."""
    cleared: bool = False

    def to_json(self) -> Json:
        return {**asdict(self), "turn": self.turn.to_json() if self.turn else None}

    @staticmethod
    def from_json(data: Json) -> Message:
        parts: Json = {**data, "turn": Turn.from_json(data["turn"]) if data["turn"] else None}
        return Message(**parts)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Evidence(_Strict):
    """Where a claim can be seen."""

    trace_id: str
    span_id: str | None = None
    quote: str | None = Field(default=None, description="Verbatim text from the span, at least 8 letters or digits.")


class CodeEvidence(_Strict):
    """Where the cause of a claim stands in the source code."""

    path: str
    line: int = Field(ge=1)
    end_line: int | None = Field(default=None, ge=1, description="The last line, when it is more than one.")
    quote: str | None = Field(default=None, description="Verbatim text of these lines, without their numbers.")


class CountCheck(_Strict):
    """A count that can be run again."""

    filters: Json = Field(description="The filters argument of count_traces.")
    expected: int = Field(ge=0)


class Finding(_Strict):
    """One claim about the traces."""

    claim: str
    severity: Literal["high", "medium", "low", "info"] = "info"
    evidence: list[Evidence] = Field(default_factory=list[Evidence])
    code: list[CodeEvidence] = Field(default_factory=list[CodeEvidence])
    check: CountCheck | None = Field(default=None, description="How often it happens, as a count to re-run.")
    counterexample: Evidence | None = Field(default=None, description="Where the claim should hold but does not.")


class FinalAnswer(_Strict):
    """The arguments of final_answer."""

    answer: str = Field(min_length=1, description="The complete answer in markdown.")
    findings: list[Finding] = Field(default_factory=list[Finding])
    limitations: str = Field(default="", description="What was not looked at, and what stays uncertain.")


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of an answer found; an answer without problems is accepted as it is."""

    problems: Sequence[str] = ()
    """One line each, for the model: what is wrong and how to repair it."""
    report: Json = field(default_factory=dict[str, Any])
    """Facts for the result, such as the verdict of each citation."""
    answer: FinalAnswer | None = None
    """The answer with what could be corrected without asking, such as a completed id."""


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """One tool result, whole; ``call`` names the agent's turn and call that it answers."""

    id: str
    agent_id: str
    tool: str
    arguments: Json
    text: str
    failed: bool = False
    call: str = ""


Verify = Callable[[FinalAnswer, Sequence[LedgerItem]], Awaitable[Verification]]
"""Checks an answer against everything that tools returned in this run so far."""

Status = Literal["complete", "partial", "unstructured"]


@dataclass(slots=True)
class AgentResult:
    """What an agent came to. ``partial``: a limit or failure ended it early, ``stop_reason`` says which."""

    status: Status
    answer: str
    stop_reason: str | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    limitations: str = ""
    problems: list[str] = field(default_factory=list[str])
    """What verification still objects to; the answer was accepted nevertheless."""
    report: Json = field(default_factory=dict[str, Any])
    turns: int = 0
    tool_calls: int = 0
    salvaged: bool = False
    """Put together without the model from what had been paid for."""

    def to_json(self) -> Json:
        return {**asdict(self), "findings": [item.model_dump(exclude_none=True) for item in self.findings]}

    @staticmethod
    def from_json(data: Json) -> AgentResult:
        parts: Json = {**data, "findings": [Finding.model_validate(item) for item in data["findings"]]}
        return AgentResult(**parts)


EventKind = Literal[
    "run_started",
    "run_finished",
    "agent_started",
    "agent_finished",
    "text",
    "turn",
    "tool_call",
    "tool_result",
    "retry",
    "waiting",
    "learned",
    "compacted",
    "rejected",
    "warning",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in order of ``sequence`` over the whole run."""

    sequence: int
    run_id: str
    agent_id: str
    parent_id: str
    depth: int
    kind: EventKind
    data: Json
