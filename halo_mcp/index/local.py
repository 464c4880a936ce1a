"""The local store: JSON-lines files, indexed into DuckDB segments. Implements ``store.SpanStore``.

A method pins one snapshot and asks it; the work is in the module of each question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from halo_mcp.errors import UnknownTrace
from halo_mcp.index.contrast import Contrast, contrast, with_spans
from halo_mcp.index.cost import CostReport
from halo_mcp.index.cost_reading import read_cost
from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroupKey, Where
from halo_mcp.index.dataset_search import search_dataset
from halo_mcp.index.digest import TraceDigest, read_digest
from halo_mcp.index.evidence import quote_failure
from halo_mcp.index.failures import FailureEvidence, FailureMode, FailureModes, read_failure_modes
from halo_mcp.index.feature_reading import beginnings, read_features
from halo_mcp.index.features import TraceFeatures
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.harness import HarnessVersions, read_versions
from halo_mcp.index.harness_facts import Configuration
from halo_mcp.index.harness_reading import Version, read_configuration
from halo_mcp.index.identify import find_ids, sample_ids
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.measure import read_measured
from halo_mcp.index.opened import OpenedSources
from halo_mcp.index.overview import read_overview
from halo_mcp.index.patterns import Pattern
from halo_mcp.index.prices import PriceTable
from halo_mcp.index.privacy import bare_span
from halo_mcp.index.quality import DataQuality, read_quality
from halo_mcp.index.sampling import Stratum, read_strata
from halo_mcp.index.selection import keys_of, selected
from halo_mcp.index.sequences import ToolCall, opposite_run, read_calls
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.span import Json, Span
from halo_mcp.index.store import (
    Count,
    GroupKey,
    IdMatch,
    Measured,
    Overview,
    SearchResult,
    SortKey,
    Source,
    SpanRow,
    StoreInfo,
    TracePage,
    TraceRow,
)
from halo_mcp.index.tool_use import ToolUse, read_tool_use
from halo_mcp.index.trace_rows import read_counts, read_page, read_trace
from halo_mcp.index.trace_spans import choose_spans, read_payloads, read_records, read_spans, search_spans
from halo_mcp.index.views import SqlState
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.checks import FailureSelector


class LocalStore(OpenedSources):
    """Source arguments as one dataset to ask."""

    # --- what is loaded ----------------------------------------------------------------------------------------
    def info(self) -> StoreInfo:
        snapshot = self._current
        ((traces, spans),) = snapshot.query("SELECT count(*), coalesce(sum(span_count), 0)::BIGINT FROM traces")
        sources = (Source(state.path, state.size, state.mtime_ns, state.report) for state in snapshot.manifest.sources)
        return StoreInfo(
            traces,
            spans,
            tuple(sources),
            str(self._directory.path),
            labelling=snapshot.labelling,
            undecided_score=snapshot.undecided_score,
        )

    def sql_state(self) -> SqlState:
        return self._current.sql_state

    def overview(self, filters: TraceFilters, work: Work) -> Overview:
        snapshot = self._current
        return snapshot.remembered(
            f"overview {filters.model_dump_json()}",
            lambda: read_overview(snapshot, *selected(snapshot, filters, work), work),
        )

    def quality(self, work: Work) -> DataQuality:
        snapshot = self._current
        return snapshot.remembered("quality", lambda: read_quality(snapshot, work))

    # --- groups of traces against each other --------------------------------------------------------------------
    def features(self, filters: TraceFilters, work: Work) -> TraceFeatures:
        return self._features(self._current, filters, work)

    def _features(self, snapshot: Snapshot, filters: TraceFilters, work: Work) -> TraceFeatures:
        return snapshot.remembered(
            f"features {filters.model_dump_json()}",
            lambda: read_features(snapshot, *selected(snapshot, filters, work), work),
            large=True,
        )

    def contrast(
        self, filters: TraceFilters, group_a: TraceFilters | None, group_b: TraceFilters | None, work: Work
    ) -> Contrast:
        snapshot = self._current

        def answer() -> Contrast:
            population = self._features(snapshot, filters, work)
            groups = [group for group in (group_a, group_b) if group is not None]
            members = [_membership(snapshot, population, group, work) for group in groups]
            a = ~members[-1] if group_a is None else members[0]
            b = ~members[0] if group_b is None else members[-1]
            found = contrast(population, a, b, [group.given() for group in groups])
            modes = [one for one in found.findings if one.kind == "failure_mode"]
            examples = [trace_id for one in modes for trace_id in (one.example_a, one.example_b) if trace_id]
            return with_spans(found, beginnings(snapshot, [one.name for one in modes], examples, work))

        question = [group and group.model_dump_json() for group in (filters, group_a, group_b)]
        return snapshot.remembered(f"contrast {question}", answer)

    def cost(self, filters: TraceFilters, prices: PriceTable | None, work: Work) -> CostReport:
        snapshot = self._current
        return snapshot.remembered(
            f"cost {prices} {filters.model_dump_json()}",
            lambda: read_cost(snapshot, *selected(snapshot, filters, work), prices, work),
        )

    def harness_versions(self, filters: TraceFilters, work: Work) -> HarnessVersions:
        snapshot = self._current
        return snapshot.remembered(
            f"harness versions {filters.model_dump_json()}",
            lambda: read_versions(snapshot, *selected(snapshot, filters, work), work),
        )

    def harness_configuration(self, version: Version) -> Configuration:
        return read_configuration(self._current, version)

    # --- failures ------------------------------------------------------------------------------------------------
    def failure_modes(self, filters: TraceFilters, rules: tuple[str, ...] | None, work: Work) -> FailureModes:
        snapshot = self._current
        return snapshot.remembered(
            f"failures {rules} {filters.model_dump_json()}",
            lambda: read_failure_modes(snapshot, *selected(snapshot, filters, work), work, rules),
        )

    def failure_evidence(self, modes: Sequence[FailureMode], work: Work) -> list[FailureEvidence]:
        snapshot, found = self._current, list[FailureEvidence]()
        if not self.privacy.payloads:
            return [FailureEvidence(mode, None) for mode in modes]
        sources = snapshot.sources()
        for mode in modes:
            work.check()
            chosen = choose_spans(snapshot, self._key(snapshot, mode.trace_id), [mode.span_id])
            (text,) = list(sources.texts(chosen.places))[:1]
            record = sources.record(int(chosen.places.source_no[0]), text, snapshot.trace_id(chosen.key))
            found.append(FailureEvidence(mode, quote_failure(record, mode.rule, mode.text)))
        return found

    # --- tools ---------------------------------------------------------------------------------------------------
    def tool_use(self, filters: TraceFilters, work: Work) -> ToolUse:
        snapshot = self._current
        return snapshot.remembered(
            f"tool use {filters.model_dump_json()}",
            lambda: read_tool_use(snapshot, *selected(snapshot, filters, work), work),
        )

    def tool_calls(self, trace_id: str) -> list[ToolCall]:
        snapshot = self._current
        return read_calls(snapshot, self._key(snapshot, trace_id))

    def opposite_run(self, trace_id: str) -> str | None:
        snapshot = self._current
        return opposite_run(snapshot, self._key(snapshot, trace_id))

    # --- traces ------------------------------------------------------------------------------------------------
    def traces(
        self, filters: TraceFilters, sort_by: SortKey, limit: int, after: tuple[float, str] | None, work: Work
    ) -> TracePage:
        snapshot = self._current
        return read_page(snapshot, selected(snapshot, filters, work), sort_by, limit, after, work)

    def count(self, filters: TraceFilters, group_by: GroupKey | None, work: Work) -> list[Count]:
        snapshot = self._current
        return read_counts(snapshot, selected(snapshot, filters, work), group_by, work)

    def measure(self, of: TraceFilters, filters: TraceFilters, failure: FailureSelector | None, work: Work) -> Measured:
        snapshot = self._current
        base, chosen = (selected(snapshot, given, work) for given in (of, filters))
        return read_measured(snapshot, base, chosen, failure, work)

    def trace(self, trace_id: str) -> TraceRow:
        snapshot = self._current
        return read_trace(snapshot, self._key(snapshot, trace_id))

    def _key(self, snapshot: Snapshot, trace_id: str) -> int:
        wanted = normalize_id(trace_id.strip())
        key = snapshot.find(wanted)
        if key is None:
            raise UnknownTrace(trace_id, self.name, snapshot.similar(wanted))
        return key

    def digest(self, trace_id: str, work: Work) -> TraceDigest:
        snapshot = self._current
        key = self._key(snapshot, trace_id)
        return read_digest(snapshot, key, read_trace(snapshot, key), work)

    def strata(self, filters: TraceFilters, work: Work) -> list[Stratum]:
        snapshot = self._current
        return read_strata(snapshot, *selected(snapshot, filters, work), work)

    def trace_ids(self, prefix: str, limit: int, work: Work) -> list[str]:
        rows = self._current.query(
            "SELECT trace_id FROM traces WHERE starts_with(trace_id, ?) ORDER BY trace_id LIMIT ?",
            [prefix, limit],
            work,
        )
        return [row[0] for row in rows]

    # --- spans -------------------------------------------------------------------------------------------------
    def spans(self, trace_id: str) -> list[SpanRow]:
        snapshot = self._current
        return read_spans(snapshot, self._key(snapshot, trace_id))

    def payloads(self, trace_id: str, span_ids: Sequence[str] = ()) -> list[Span]:
        snapshot = self._current
        key = self._key(snapshot, trace_id)
        chosen = choose_spans(snapshot, key, span_ids)
        if self.privacy.payloads:
            return read_payloads(snapshot, chosen)
        wanted = {normalize_id(given.strip()) for given in span_ids}
        return [bare_span(row) for row in read_spans(snapshot, key) if not wanted or row.span_id in wanted]

    def records(self, filters: TraceFilters, offset: int, limit: int, work: Work) -> Iterator[Mapping[str, Json]]:
        snapshot = self._current
        return read_records(snapshot, selected(snapshot, filters, work), offset, limit, work)

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
        snapshot = self._current
        chosen = choose_spans(snapshot, self._key(snapshot, trace_id), span_ids)
        return search_spans(snapshot, chosen, pattern, context_chars=context_chars, max_matches=max_matches, work=work)

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
        snapshot = self._current
        return search_dataset(
            snapshot,
            selected(snapshot, filters, work),
            pattern,
            question=f"{pattern.expression!r} {filters.model_dump_json()}",
            group_by=group_by,
            max_groups=max_groups,
            max_snippets=max_snippets,
            context_chars=context_chars,
            after=after,
            work=work,
        )

    # --- ids ----------------------------------------------------------------------------------------------------
    def find_ids(self, texts: Collection[str], work: Work, trace_id: str = "") -> dict[str, tuple[IdMatch, ...]]:
        snapshot = self._current
        return find_ids(snapshot, texts, self._key(snapshot, trace_id) if trace_id else None, work)

    def sample_ids(self, work: Work) -> list[str]:
        return sample_ids(self._current, work)


def _membership(snapshot: Snapshot, population: TraceFeatures, group: TraceFilters, work: Work) -> NDArray[np.bool_]:
    """Which traces of ``population`` are in the group."""
    return np.isin(population.keys, keys_of(snapshot, selected(snapshot, group, work), work))
