"""What the tools need from a store of spans. One class per engine, no shared SQL, nothing about files.

All times are nanoseconds since the epoch (None when unknown). Lists are in a stable order: most frequent first, then by
name. All methods may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from halo_mcp.index.failures import FailureEvidence, FailureMode, FailureModes
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.labelling import NO_LABELS, Labelling
from halo_mcp.index.semconv import ObservationKind
from halo_mcp.index.sequences import ToolCall
from halo_mcp.index.span import Json, Span
from halo_mcp.index.tool_use import ToolUse
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from halo_mcp.errors import HaloError
    from halo_mcp.index.checks import FailureSelector
    from halo_mcp.index.contrast import Contrast
    from halo_mcp.index.cost import CostReport
    from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroupKey, Where
    from halo_mcp.index.digest import TraceDigest
    from halo_mcp.index.features import TraceFeatures
    from halo_mcp.index.harness import HarnessVersions
    from halo_mcp.index.harness_facts import Configuration
    from halo_mcp.index.harness_reading import Version
    from halo_mcp.index.patterns import Pattern
    from halo_mcp.index.prices import PriceTable
    from halo_mcp.index.privacy import Privacy
    from halo_mcp.index.quality import DataQuality
    from halo_mcp.index.sampling import Stratum
    from halo_mcp.index.segments import IngestReport
    from halo_mcp.index.views import SqlState

SortKey = Literal[
    "start_time",
    "-start_time",
    "-duration_ms",
    "-tokens",
    "-error_span_count",
    "-span_count",
    "-raw_jsonl_bytes",
]
"""How traces are ordered; "-" means descending. Ties are broken by trace id."""

GroupKey = Literal[
    "outcome",
    "has_errors",
    "service_name",
    "agent_name",
    "model_name",
    "tool_name",
    "span_name",
    "task_key",
    "run_id",
    "session_id",
    "project_id",
    "day",
    "hour",
]
"""How counts are grouped. A trace counts once in every group that one of its spans is in."""

StatusCode = Literal["OK", "ERROR", "UNSET"]
Outcome = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One trace, rolled up from its spans. Tokens are summed over LLM spans."""

    trace_id: str
    span_count: int
    start_time_unix_nano: int | None
    end_time_unix_nano: int | None
    root_name: str | None
    error_span_count: int
    original_error_count: int
    tool_error_count: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    missing_parent_count: int
    missing_agent_count: int
    raw_bytes: int
    session_id: str | None
    project_id: str | None
    other_project_count: int
    task_key: str | None
    run_id: str | None
    outcome: Outcome
    service_names: tuple[str, ...] = ()
    agent_names: tuple[str, ...] = ()
    agent_ids: tuple[str, ...] = ()
    model_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanRow:
    """What the index knows about one span."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str | None
    start_time_unix_nano: int | None
    end_time_unix_nano: int | None
    status_code: StatusCode
    status_message: str | None
    observation_kind: ObservationKind
    model_name: str | None
    tool_name: str | None
    agent_name: str | None
    input_tokens: int | None
    output_tokens: int | None
    has_parent: bool
    is_original_error: bool
    error_text: str | None
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class TracePage:
    """One page of traces.

    ``positions[i]`` is where trace i stands in the order: given as ``after`` it continues behind that trace.
    """

    traces: tuple[TraceRow, ...]
    positions: tuple[tuple[float, str], ...]
    total: int
    more: bool
    """There are traces behind the last one."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many traces; ``value`` is None for those without the grouped property."""

    value: str | None
    traces: int


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A trace, and where in it a failure begins (if that was asked)."""

    trace_id: str
    span_id: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Traces that match, among a population. Examples are the first few in time order, one per trace."""

    population: int
    traces: int
    spans: int
    """Where the failure begins, in matching traces; 0 without a failure."""
    examples: tuple[Occurrence, ...]
    others: tuple[Occurrence, ...]
    """Of the population that does not match."""


IdKind = Literal["trace", "span", "session", "run", "task", "project", "failure mode"]


@dataclass(frozen=True, slots=True)
class IdMatch:
    """Something that has an id: a trace, a span of it, or what else the trace is an example of."""

    kind: IdKind
    trace_id: str
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class NamedCount:
    """How many spans carry a name."""

    name: str
    spans: int
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolStats:
    """Calls of one tool; failures are calls with status ERROR, soft failures those that failed by some rule."""

    name: str
    calls: int
    failures: int
    soft_failures: int = 0
    top_error: str | None = None
    """Verbatim text of the most common failure."""
    top_error_count: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Spans that lack what an instrumentation should have told."""

    without_kind: int
    llm_spans: int
    llm_without_model: int
    llm_without_tokens: int
    without_session: int
    without_start_time: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Population facts about a set of traces."""

    total_traces: int
    total_spans: int
    start_time_unix_nano: int | None
    end_time_unix_nano: int | None
    raw_bytes: int
    error_traces: int
    error_spans: int
    original_errors: int
    tool_error_spans: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    missing_parents: int
    missing_agents: int
    other_projects: int
    outcomes: dict[Outcome, int]
    runs: tuple[tuple[str, Outcome, int], ...]
    """(run id, outcome, traces)."""
    outcome_sources: tuple[tuple[str, int], ...]
    """(attribute, or "labels FILE"; traces whose outcome it says), most traces first."""
    task_count: int
    kinds: tuple[NamedCount, ...]
    services: tuple[NamedCount, ...]
    agents: tuple[NamedCount, ...]
    agent_ids: tuple[str, ...]
    models: tuple[NamedCount, ...]
    tools: tuple[ToolStats, ...]
    exception_types: tuple[NamedCount, ...]
    failures: FailureModes
    coverage: Coverage
    sample_trace_ids: tuple[str, ...]
    """At most 20, spread evenly over the traces in time order."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where spans come from, and what became of its records."""

    name: str
    size_bytes: int
    modified_unix_nano: int
    report: IngestReport


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What the store holds."""

    total_traces: int
    total_spans: int
    sources: tuple[Source, ...]
    index_location: str
    labelling: Labelling = NO_LABELS
    """What files of labels say about the traces."""
    undecided_score: float | None = None
    """The highest score on spans, where it is on another scale than 0 to 1 and nobody said what passes."""


@dataclass(frozen=True, slots=True)
class Match:
    """One match of a pattern inside a span; positions are characters in the text at ``path``."""

    span_id: str
    span_index: int
    span_name: str
    kind: str
    status_code: str
    parent_span_id: str
    raw_bytes: int
    path: str
    start: int
    end: int
    text: str
    context: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Matches inside one trace. ``total`` is exact unless ``incomplete``."""

    matches: tuple[Match, ...]
    total: int
    spans_searched: int
    spans_total: int
    spans_matched: int
    incomplete: bool = False
    """The deadline came first: ``spans_searched`` of ``spans_total`` were searched."""
    unknown_span_ids: tuple[str, ...] = field(default=())


class SpanStore(Protocol):
    """A dataset to ask. Raises UnknownTrace for ids it does not have, Interrupted when ``work`` ends first."""

    @property
    def privacy(self) -> Privacy:
        """What of the payloads it gives."""
        ...

    def refresh(self, work: Work) -> None:
        """Take in what was added since; builds the index the first time."""
        ...

    def pinned(self) -> SpanStore:
        """The same store, held at its present state, so that the answers to one call agree with each other."""
        ...

    def forget(self) -> None:
        """Trust nothing at the next refresh: the data changed in a way that went unnoticed."""
        ...

    def mend(self, seen: SpanStore, error: HaloError, work: Work) -> bool:
        """Whether asking again may help after ``error``, met by a call on ``seen``, a pinned state of this store."""
        ...

    def info(self) -> StoreInfo:
        """What is loaded."""
        ...

    def sql_state(self) -> SqlState:
        """The present state, for a worker process that runs SQL over it; the same object as long as it is the same."""
        ...

    def overview(self, filters: TraceFilters, work: Work) -> Overview:
        """Population facts about the matching traces."""
        ...

    def quality(self, work: Work) -> DataQuality:
        """How well the whole dataset was understood."""
        ...

    def features(self, filters: TraceFilters, work: Work) -> TraceFeatures:
        """What can be said about each of the matching traces, to compare them with others."""
        ...

    def contrast(
        self, filters: TraceFilters, group_a: TraceFilters | None, group_b: TraceFilters | None, work: Work
    ) -> Contrast:
        """What separates two groups among the traces that match ``filters``; None (at most once) is all others."""
        ...

    def cost(self, filters: TraceFilters, prices: PriceTable | None, work: Work) -> CostReport:
        """Where the tokens of the matching traces go; money too where there are prices."""
        ...

    def harness_versions(self, filters: TraceFilters, work: Work) -> HarnessVersions:
        """Which prompts, tools, models and parameters the matching traces ran under."""
        ...

    def harness_configuration(self, version: Version) -> Configuration:
        """What one harness version is, in full."""
        ...

    def failure_modes(self, filters: TraceFilters, rules: tuple[str, ...] | None, work: Work) -> FailureModes:
        """What fails in the matching traces; ``rules``: the soft-error rules that count, None for the usual ones."""
        ...

    def failure_evidence(self, modes: Sequence[FailureMode], work: Work) -> list[FailureEvidence]:
        """The modes, each with a quote from its example."""
        ...

    def tool_use(self, filters: TraceFilters, work: Work) -> ToolUse:
        """What tools did in the matching traces."""
        ...

    def tool_calls(self, trace_id: str) -> list[ToolCall]:
        """The tool calls of one trace, in time order."""
        ...

    def opposite_run(self, trace_id: str) -> str | None:
        """A trace of the same task with the other outcome; None when there is none."""
        ...

    def traces(
        self, filters: TraceFilters, sort_by: SortKey, limit: int, after: tuple[float, str] | None, work: Work
    ) -> TracePage:
        """A page of matching traces, behind ``after``."""
        ...

    def count(self, filters: TraceFilters, group_by: GroupKey | None, work: Work) -> list[Count]:
        """How many traces match; one Count with value None without ``group_by``."""
        ...

    def measure(self, of: TraceFilters, filters: TraceFilters, failure: FailureSelector | None, work: Work) -> Measured:
        """How many of the traces of ``of`` match ``filters`` too and hold the failure."""
        ...

    def trace(self, trace_id: str) -> TraceRow:
        """One trace."""
        ...

    def trace_ids(self, prefix: str, limit: int, work: Work) -> list[str]:
        """The first ids that begin with ``prefix``, sorted."""
        ...

    def digest(self, trace_id: str, work: Work) -> TraceDigest:
        """What has to be known of one trace, from few of its spans."""
        ...

    def strata(self, filters: TraceFilters, work: Work) -> list[Stratum]:
        """The matching traces, grouped by their outcome and the failure that begins first in them."""
        ...

    def spans(self, trace_id: str) -> list[SpanRow]:
        """All spans of a trace in time order (those without a start last), then in the order they were written."""
        ...

    def payloads(self, trace_id: str, span_ids: Sequence[str] = ()) -> list[Span]:
        """The spans themselves, in the order they were written; all of the trace's, or those named."""
        ...

    def records(self, filters: TraceFilters, offset: int, limit: int, work: Work) -> Iterator[Mapping[str, Json]]:
        """The spans of the matching traces as the JSON objects of their sources, in the order they were written.

        ``limit`` of them from number ``offset`` on; read one by one.
        """
        ...

    def search(
        self,
        trace_id: str,
        pattern: Pattern,
        span_ids: Sequence[str],
        *,
        context_chars: int,
        max_matches: int,
        work: Work,
    ) -> SearchResult:
        """Where a pattern occurs in one trace."""
        ...

    def search_dataset(
        self,
        filters: TraceFilters,
        pattern: Pattern,
        *,
        group_by: MatchGroupKey | None,
        max_groups: int,
        max_snippets: int,
        context_chars: int,
        after: Where | None,
        work: Work,
    ) -> DatasetMatches:
        """Which spans of the matching traces a pattern matches; goes on behind ``after``. A deadline ends it early."""
        ...

    def find_ids(self, texts: Collection[str], work: Work, trace_id: str = "") -> Mapping[str, tuple[IdMatch, ...]]:
        """What each text is the id of; if of nothing, the traces and spans whose ids begin so (8 characters or more).

        Traces first; at most three of each kind. With ``trace_id`` only spans of that trace.
        """
        ...

    def sample_ids(self, work: Work) -> list[str]:
        """Ids of some traces and spans: what ids look like here."""
        ...

    def close(self) -> None:
        """Release what is held; running calls finish first."""
        ...
