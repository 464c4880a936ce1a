"""The local store: JSON-lines files, indexed into DuckDB segments. Implements ``store.SpanStore``."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from halo_mcp.errors import IndexFailure, NotTraces, SourceUnreadable, UnknownSpan, UnknownTrace
from halo_mcp.index.build import update_index
from halo_mcp.index.columns import FailureColumns
from halo_mcp.index.contrast import Contrast, contrast
from halo_mcp.index.cost import CostReport, read_cost
from halo_mcp.index.dataset_matches import DatasetMatches, MatchGroupKey, Where
from halo_mcp.index.dataset_search import search_dataset
from halo_mcp.index.evidence import quote_failure
from halo_mcp.index.failure_rules import DEFAULT_RULES
from halo_mcp.index.failures import FailureEvidence, FailureMode, FailureModes, read_failure_modes
from halo_mcp.index.features import TraceFeatures, read_features
from halo_mcp.index.filters import DURATION_MS, TOKENS, AttributeFilter, TraceFilters, attribute_holds, where
from halo_mcp.index.finding import finder
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.formats.sniff import why_not_traces
from halo_mcp.index.harness import HarnessVersions, read_versions
from halo_mcp.index.harness_facts import Configuration
from halo_mcp.index.harness_reading import Version, read_configuration
from halo_mcp.index.identify import find_ids, sample_ids
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.measure import read_measured
from halo_mcp.index.overview import read_overview
from halo_mcp.index.patterns import Pattern, compile_pattern
from halo_mcp.index.places import Places
from halo_mcp.index.prices import PriceTable
from halo_mcp.index.reading import Sources
from halo_mcp.index.scan import Condition, matching_traces, pattern_condition
from halo_mcp.index.search import SpanSearch
from halo_mcp.index.segments import IndexDirectory, Listed, Manifest
from halo_mcp.index.sequences import ToolCall, opposite_run, read_calls
from halo_mcp.index.snapshot import Snapshot, TraceRows, among_spans
from halo_mcp.index.sources import list_sources
from halo_mcp.index.span import Json, Span, as_mapping
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
from halo_mcp.index.views import SqlState
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halo_mcp.index.checks import FailureSelector

_SORT_SQL: Final[dict[SortKey, str]] = {
    "start_time": "start_time_unix_nano",
    "-start_time": "-start_time_unix_nano",
    "-duration_ms": f"-({DURATION_MS})",
    "-tokens": f"-({TOKENS})",
    "-error_span_count": "-error_span_count",
    "-span_count": "-span_count",
    "-raw_jsonl_bytes": "-raw_bytes",
}
_LAST: Final = 1 << 62
"""Stands for an unknown sort value: such traces come last."""

_TRACE_GROUPS: Final[dict[str, str]] = {
    "outcome": "outcome",
    "has_errors": "(error_span_count > 0)::VARCHAR",
    "task_key": "task_key",
    "run_id": "run_id",
    "session_id": "session_id",
    "project_id": "project_id",
    "day": "strftime(make_timestamp_ns(start_time_unix_nano), '%Y-%m-%d')",
    "hour": "strftime(make_timestamp_ns(start_time_unix_nano), '%Y-%m-%dT%H:00Z')",
}
_SPAN_GROUPS: Final[dict[str, str]] = {
    "service_name": "service_name",
    "agent_name": "agent_name",
    "model_name": "model_name",
    "tool_name": "tool_name",
    "span_name": "name",
}
_TRACE_FIELDS: Final = [field.name for field in fields(TraceRow) if not field.name.endswith(("_names", "_ids"))]
_OPEN_ATTEMPTS: Final = 3
_TRACE_ROWS: Final = "trace_key, first_row, last_row"
_NAMES: Final = {
    "service_names": "service_name",
    "agent_names": "agent_name",
    "agent_ids": "agent_id",
    "model_names": "model_name",
}
_SPAN_FIELDS: Final = [field.name for field in fields(SpanRow) if field.name not in ("error_text", "raw_bytes")]


class LocalStore:
    """Source arguments as one dataset. Opening is free; ``refresh`` lists, indexes and opens."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        index_root: Path,
        roots: Sequence[Path] = (),
        soft_rules: tuple[str, ...] = DEFAULT_RULES,
    ) -> None:
        """``soft_rules``: names of the soft-error rules that count as failures."""
        self.name = name
        self.arguments = tuple(arguments)
        self._index_root = index_root
        self._roots = tuple(roots)
        self._failures = FailureColumns(soft_rules)
        self._refreshing = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._listed: list[Listed] = []

    # --- keeping up with the sources ---------------------------------------------------------------------------
    @cached_property
    def _directory(self) -> IndexDirectory:
        key = "\n".join(sorted(os.path.abspath(os.path.expanduser(argument)) for argument in self.arguments))
        return IndexDirectory(self._index_root, key, self.name)

    def refresh(self, work: Work) -> None:
        """Raises: SourceError, IndexFailure, Cancelled, DeadlineExceeded."""
        listed = self._list()
        if self._snapshot is not None and listed == self._listed:
            return
        while not self._refreshing.acquire(timeout=0.1):
            work.check()
        try:
            if self._snapshot is not None and listed == self._listed:
                return
            self._update(work)
        finally:
            self._refreshing.release()

    def _list(self) -> list[Listed]:
        return list_sources(self.arguments, self._roots)

    def _update(self, work: Work) -> None:
        for attempt in range(_OPEN_ATTEMPTS):
            manifest, listed = update_index(self._directory, self._list, work)
            if self._snapshot is not None and manifest == self._snapshot.manifest:
                self._listed = listed  # another call has taken it in meanwhile
                return
            try:
                self._open(manifest, listed)
                return
            except IndexFailure:
                # Damaged, or another process has merged these segments meanwhile; only the former is thrown away.
                if attempt + 1 == _OPEN_ATTEMPTS:
                    raise
                self._directory.discard(manifest, work)

    def pinned(self) -> LocalStore:
        """This store as it is now: what another call takes in meanwhile does not show."""
        return copy(self)

    def forget(self) -> None:
        """Take nothing for granted at the next refresh: the sources changed in a way that their size did not show."""
        self._listed = []
        self._directory.discard_any()

    def _open(self, manifest: Manifest, listed: list[Listed]) -> None:
        _check_usable(manifest)
        snapshot = Snapshot(self._directory, manifest, self._snapshot, self._failures)
        self._snapshot, self._listed = snapshot, listed

    @property
    def _current(self) -> Snapshot:
        if self._snapshot is None:
            self.refresh(Work())
        assert self._snapshot is not None
        return self._snapshot

    def close(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    # --- what is loaded ----------------------------------------------------------------------------------------
    def info(self) -> StoreInfo:
        snapshot = self._current
        ((traces, spans),) = snapshot.query("SELECT count(*), coalesce(sum(span_count), 0)::BIGINT FROM traces")
        sources = (Source(state.path, state.size, state.mtime_ns, state.report) for state in snapshot.manifest.sources)
        return StoreInfo(traces, spans, tuple(sources), str(self._directory.path))

    def sql_state(self) -> SqlState:
        return self._current.sql_state

    def overview(self, filters: TraceFilters, work: Work) -> Overview:
        snapshot = self._current
        return snapshot.remembered(
            f"overview {filters.model_dump_json()}",
            lambda: read_overview(snapshot, *self._selection(snapshot, filters, work), work),
        )

    # --- groups of traces against each other --------------------------------------------------------------------
    def features(self, filters: TraceFilters, work: Work) -> TraceFeatures:
        return self._features(self._current, filters, work)

    def _features(self, snapshot: Snapshot, filters: TraceFilters, work: Work) -> TraceFeatures:
        return snapshot.remembered(
            f"features {filters.model_dump_json()}",
            lambda: read_features(snapshot, *self._selection(snapshot, filters, work), work),
        )

    def contrast(
        self, filters: TraceFilters, group_a: TraceFilters | None, group_b: TraceFilters | None, work: Work
    ) -> Contrast:
        snapshot = self._current

        def answer() -> Contrast:
            population = self._features(snapshot, filters, work)
            groups = [group for group in (group_a, group_b) if group is not None]
            members = [self._membership(snapshot, population, group, work) for group in groups]
            a = ~members[-1] if group_a is None else members[0]
            b = ~members[0] if group_b is None else members[-1]
            return contrast(population, a, b, [group.given() for group in groups])

        question = [group and group.model_dump_json() for group in (filters, group_a, group_b)]
        return snapshot.remembered(f"contrast {question}", answer)

    def _membership(
        self, snapshot: Snapshot, population: TraceFeatures, group: TraceFilters, work: Work
    ) -> NDArray[np.bool_]:
        """Which traces of ``population`` are in the group."""
        condition, values = self._selection(snapshot, group, work)
        keys = snapshot.arrays(f"SELECT trace_key FROM traces WHERE {condition}", values, work)["trace_key"]
        return np.isin(population.keys, keys.astype(np.int64))

    def cost(self, filters: TraceFilters, prices: PriceTable | None, work: Work) -> CostReport:
        snapshot = self._current
        return snapshot.remembered(
            f"cost {prices} {filters.model_dump_json()}",
            lambda: read_cost(snapshot, *self._selection(snapshot, filters, work), prices, work),
        )

    def harness_versions(self, filters: TraceFilters, work: Work) -> HarnessVersions:
        snapshot = self._current
        return snapshot.remembered(
            f"harness versions {filters.model_dump_json()}",
            lambda: read_versions(snapshot, *self._selection(snapshot, filters, work), work),
        )

    def harness_configuration(self, version: Version) -> Configuration:
        return read_configuration(self._current, version)

    # --- failures ------------------------------------------------------------------------------------------------
    def failure_modes(self, filters: TraceFilters, rules: tuple[str, ...] | None, work: Work) -> FailureModes:
        snapshot = self._current
        return snapshot.remembered(
            f"failures {rules} {filters.model_dump_json()}",
            lambda: read_failure_modes(snapshot, *self._selection(snapshot, filters, work), work, rules),
        )

    def failure_evidence(self, modes: Sequence[FailureMode], work: Work) -> list[FailureEvidence]:
        snapshot, found = self._current, list[FailureEvidence]()
        sources = Sources(snapshot.manifest.sources)
        for mode in modes:
            work.check()
            key = self._key(snapshot, mode.trace_id)
            places, _, _ = self._chosen(snapshot, key, mode.trace_id, [mode.span_id])
            (text,) = list(sources.texts(places))[:1]
            record = sources.record(int(places.source_no[0]), text, snapshot.trace_id(key))
            found.append(FailureEvidence(mode, quote_failure(record, mode.rule, mode.text)))
        return found

    # --- tools ---------------------------------------------------------------------------------------------------
    def tool_use(self, filters: TraceFilters, work: Work) -> ToolUse:
        snapshot = self._current
        return snapshot.remembered(
            f"tool use {filters.model_dump_json()}",
            lambda: read_tool_use(snapshot, *self._selection(snapshot, filters, work), work),
        )

    def tool_calls(self, trace_id: str) -> list[ToolCall]:
        snapshot = self._current
        return read_calls(snapshot, self._key(snapshot, trace_id))

    def opposite_run(self, trace_id: str) -> str | None:
        snapshot = self._current
        return opposite_run(snapshot, self._key(snapshot, trace_id))

    # --- traces ------------------------------------------------------------------------------------------------
    def _selection(self, snapshot: Snapshot, filters: TraceFilters, work: Work) -> tuple[str, list[Any]]:
        """A condition on ``traces`` for all the filters, with its values."""
        condition = where(filters)
        sql, values = condition.sql, condition.values
        if not filters.needs_payloads:
            return sql, values
        keys = self._scan(snapshot, filters, sql, values, work)
        return "trace_key IN (SELECT unnest(?::BIGINT[]))", [keys.tolist()]

    def _scan(
        self, snapshot: Snapshot, filters: TraceFilters, sql: str, values: list[Any], work: Work
    ) -> NDArray[np.int64]:
        def scan() -> NDArray[np.int64]:
            candidates = snapshot.arrays(f"SELECT trace_key FROM traces WHERE {sql}", values, work)["trace_key"]
            return _scan_payloads(snapshot, candidates.astype(np.int64), filters, work)

        return snapshot.remembered(f"scan {filters.model_dump_json()}", scan)

    def traces(
        self, filters: TraceFilters, sort_by: SortKey, limit: int, after: tuple[float, str] | None, work: Work
    ) -> TracePage:
        snapshot = self._current
        condition, values = self._selection(snapshot, filters, work)
        ((total,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {condition}", values, work)
        order = f"coalesce({_SORT_SQL[sort_by]}, {_LAST})"
        behind = "" if after is None else f"AND ({order}, trace_id) > (?, ?)"
        rows = snapshot.query(
            f"SELECT {order}, {_TRACE_ROWS}, {', '.join(_TRACE_FIELDS)} FROM traces WHERE {condition} {behind} "
            f"ORDER BY 1, trace_id LIMIT {limit + 1}",
            [*values, *(after or ())],
            work,
        )
        page = rows[:limit]
        names = _names(snapshot, [TraceRows(*row[1:4]) for row in page])
        return TracePage(
            traces=tuple(_trace_row(row[4:], names.get(row[1], {})) for row in page),
            positions=tuple((row[0], row[4]) for row in page),
            total=total,
            more=len(rows) > limit,
        )

    def count(self, filters: TraceFilters, group_by: GroupKey | None, work: Work) -> list[Count]:
        snapshot = self._current
        condition, values = self._selection(snapshot, filters, work)
        if group_by is None:
            ((total,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {condition}", values, work)
            return [Count(None, total)]
        if group_by in _TRACE_GROUPS:
            sql = f"SELECT {_TRACE_GROUPS[group_by]} AS value, count(*) AS n FROM traces WHERE {condition} GROUP BY 1"
        else:
            column = _SPAN_GROUPS[group_by]
            sql = (
                f"SELECT value, count(*) AS n FROM (SELECT DISTINCT trace_key, {column} AS value FROM spans "
                f"WHERE {among_spans(condition)} AND {column} IS NOT NULL) GROUP BY 1"
            )
        return [Count(value, n) for value, n in snapshot.query(f"{sql} ORDER BY n DESC, value", values, work)]

    def measure(self, of: TraceFilters, filters: TraceFilters, failure: FailureSelector | None, work: Work) -> Measured:
        snapshot = self._current
        base, chosen = (self._selection(snapshot, given, work) for given in (of, filters))
        return read_measured(snapshot, base, chosen, failure, work)

    def trace(self, trace_id: str) -> TraceRow:
        snapshot = self._current
        key = self._key(snapshot, trace_id)
        ((*row,),) = snapshot.query(
            f"SELECT {_TRACE_ROWS}, {', '.join(_TRACE_FIELDS)} FROM traces WHERE trace_key = ?", [key]
        )
        return _trace_row(row[3:], _names(snapshot, [TraceRows(*row[:3])]).get(key, {}))

    def _key(self, snapshot: Snapshot, trace_id: str) -> int:
        wanted = normalize_id(trace_id.strip())
        key = snapshot.find(wanted)
        if key is None:
            raise UnknownTrace(trace_id, self.name, snapshot.similar(wanted))
        return key

    # --- spans -------------------------------------------------------------------------------------------------
    def spans(self, trace_id: str) -> list[SpanRow]:
        snapshot = self._current
        rows = snapshot.query(
            f"SELECT {', '.join(_SPAN_FIELDS)}, CASE WHEN status_code = 'ERROR' THEN failure_text END, byte_length "
            f"FROM {snapshot.spans_of(self._key(snapshot, trace_id))} "
            "ORDER BY start_time_unix_nano NULLS LAST, source_no, byte_offset"
        )
        return [SpanRow(*row) for row in rows]

    def payloads(self, trace_id: str, span_ids: Sequence[str] = ()) -> list[Span]:
        snapshot = self._current
        key = self._key(snapshot, trace_id)
        places, _, _ = self._chosen(snapshot, key, trace_id, span_ids)
        sources = Sources(snapshot.manifest.sources)
        return [
            Span.from_json(sources.record(source_no, text, snapshot.trace_id(key)), len(text))
            for source_no, text in zip(places.source_no.tolist(), sources.texts(places), strict=True)
        ]

    def records(self, filters: TraceFilters, offset: int, limit: int, work: Work) -> Iterator[Mapping[str, Json]]:
        snapshot = self._current
        condition, values = self._selection(snapshot, filters, work)
        selected = snapshot.arrays(f"SELECT trace_key FROM traces WHERE {condition}", values, work)["trace_key"]
        places, keys = snapshot.places_of_many(selected.astype(np.int64))
        chosen, owners = places.where(slice(offset, offset + limit)), keys[offset : offset + limit].tolist()
        sources = Sources(snapshot.manifest.sources)
        for source_no, key, text in zip(chosen.source_no.tolist(), owners, sources.texts(chosen), strict=True):
            work.check()
            yield sources.record(source_no, text, snapshot.trace_id(key))

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
        key = self._key(snapshot, trace_id)
        places, chosen, unknown = self._chosen(snapshot, key, trace_id, span_ids)
        found = SpanSearch(pattern, context_chars, max_matches)
        sources, own_id = Sources(snapshot.manifest.sources), snapshot.trace_id(key)
        stands = zip(chosen, places.source_no.tolist(), sources.texts(places), strict=True)
        for index, source_no, text in stands:
            if work.expired:
                break
            work.check()
            found.add(index, text, partial(sources.record, source_no, trace_id=own_id))
        return SearchResult(
            matches=tuple(found.matches),
            total=found.total,
            spans_searched=found.searched,
            spans_total=len(chosen),
            spans_matched=found.matched,
            incomplete=found.searched < len(chosen),
            unknown_span_ids=unknown,
        )

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
            self._selection(snapshot, filters, work),
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

    def _chosen(
        self, snapshot: Snapshot, key: int, trace_id: str, span_ids: Sequence[str]
    ) -> tuple[Places, Sequence[int], tuple[str, ...]]:
        """The places of the asked spans of a trace (all without ids), their numbers in it, and the unknown ids.

        Raises: UnknownSpan when none of the ids is known.
        """
        places = snapshot.places_of(key)
        if not span_ids:
            return places, range(len(places)), ()
        wanted = {normalize_id(span_id.strip()): span_id for span_id in span_ids}
        rows = snapshot.query(
            f"SELECT span_id, source_no, byte_offset FROM {snapshot.spans_of(key)} AND list_contains(?, span_id)",
            [list(wanted)],
        )
        known = {row[0] for row in rows}
        if not known:
            raise UnknownSpan(trace_id, span_ids)
        at = {(source_no, offset) for _, source_no, offset in rows}
        stands = zip(places.source_no.tolist(), places.offset.tolist(), strict=True)
        positions = [position for position, place in enumerate(stands) if place in at]
        return (
            places.where(np.array(positions, dtype=np.int64)),
            positions,
            tuple(wanted[i] for i in wanted if i not in known),
        )


def _check_usable(manifest: Manifest) -> None:
    """Raises NotTraces when no source holds a span, about the first source."""
    if any(segment.span_count for segment in manifest.segments) or not manifest.sources:
        return
    first = manifest.sources[0]
    try:
        reason = why_not_traces(Path(first.path))
    except OSError as error:
        raise SourceUnreadable(first.path, error.strerror or str(error)) from error
    raise NotTraces(first.path, reason)


def _names(snapshot: Snapshot, traces: Sequence[TraceRows]) -> dict[int, dict[str, tuple[str, ...]]]:
    """The distinct services, agents and models of a few traces, by trace key."""
    found: dict[int, list[set[str]]] = {trace.key: [set() for _ in _NAMES] for trace in traces}
    for spans in snapshot.spans_of_many(traces):
        for key, *names in snapshot.query(f"SELECT DISTINCT trace_key, {', '.join(_NAMES.values())} FROM {spans}"):
            for known, name in zip(found[key], names, strict=True):
                known.add(name)
    return {
        key: {field: tuple(sorted(known - {None})) for field, known in zip(_NAMES, sets, strict=True)}
        for key, sets in found.items()
    }


def _trace_row(row: Sequence[Any], names: Mapping[str, Any]) -> TraceRow:
    return TraceRow(**dict(zip(_TRACE_FIELDS, row, strict=True)), **names)


def _scan_payloads(
    snapshot: Snapshot, candidates: NDArray[np.int64], filters: TraceFilters, work: Work
) -> NDArray[np.int64]:
    """Those candidate trace keys whose payloads meet regex_pattern and attributes."""
    sources = Sources(snapshot.manifest.sources)
    for condition in _conditions(filters):
        places, keys = snapshot.places_of_many(candidates)
        candidates = matching_traces(sources, places, keys, condition, work)
    return candidates


def _conditions(filters: TraceFilters) -> Iterator[Condition]:
    for wanted in filters.attributes:
        yield Condition(finder(compile_pattern(wanted.key, literal=True)), partial(_attribute_confirmed, wanted))
    if filters.regex_pattern:
        yield pattern_condition(compile_pattern(filters.regex_pattern))


def _attribute_confirmed(wanted: AttributeFilter, text: bytes) -> bool:
    record = parse_record(text) or {}
    for attributes in (
        as_mapping(record.get("attributes")),
        as_mapping(as_mapping(record.get("resource")).get("attributes")),
    ):
        if attribute_holds(wanted, wanted.key in attributes, attributes.get(wanted.key)):
            return True
    return False
