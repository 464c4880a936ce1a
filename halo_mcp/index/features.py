"""What can be said about each trace of a selection: numbers, and features that it has or has not.

The raw material of contrasts and comparisons: counted once per selection, as arrays with one place per trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.filters import DURATION_MS
from halo_mcp.index.snapshot import Snapshot, among_spans
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

FeatureKind = Literal["failure_mode", "tool_failed", "tool_again", "tool", "tool_pair", "model", "agent", "service"]
"""Where two features are in the same traces, the earlier kind is the better name for it."""

NAMES_KEPT: Final = 200
"""Of each column, the names that most traces have; rarer ones are left out."""
PAIRS_KEPT: Final = 400
_FACETS: Final = {column.name for column in columns.FACET_COLUMNS}
_UNKNOWN: Final = "'nan'::DOUBLE"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that some traces have and others have not."""

    kind: FeatureKind
    name: str
    """Unique among the features of its kind."""
    text: str
    """What a reader sees."""
    filters: Mapping[str, Any]
    """The TraceFilters that select exactly the traces that have it; empty where no filter does."""
    about: tuple[str, frozenset[str]]
    """The filter field and the names that it speaks of: a group chosen by them has it by definition."""
    traces: Positions
    """Positions of the traces that have it, ascending."""


@dataclass(frozen=True, slots=True)
class NumberOf:
    """A number that every trace has; NaN where it is unknown."""

    name: str
    text: str
    unit: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TraceFeatures:
    """The traces of a selection; ``keys`` ascend, and everything else is in their order."""

    keys: Positions
    trace_ids: NDArray[np.object_]
    outcome: NDArray[np.int8]
    """1 pass, 0 fail, -1 unknown."""
    start: NDArray[np.int64]
    """Nanoseconds since the epoch; 0 when unknown."""
    end: NDArray[np.int64]
    task: Positions
    """Number in ``tasks``; -1 when unknown."""
    tasks: tuple[str, ...]
    run: Positions
    """Number in ``runs``; -1 when unknown."""
    runs: tuple[str, ...]
    numbers: tuple[NumberOf, ...]
    features: tuple[Feature, ...]
    names_left_out: int = 0
    """Names too rare to be among NAMES_KEPT, over all kinds."""

    def __len__(self) -> int:
        return len(self.keys)

    def number(self, name: str) -> NDArray[np.float64]:
        """The values of one number. Raises: StopIteration."""
        return next(number.values for number in self.numbers if number.name == name)


@dataclass(slots=True)
class _Reader:
    """Asks about the spans of the selected traces."""

    snapshot: Snapshot
    selected: str
    values: list[Any]
    work: Work
    keys: Positions
    left_out: int = field(default=0)

    def arrays(self, sql: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Runs ``sql``, in which {named} has the columns ``value`` and ``no`` of these names, {spans} the condition."""
        named = "(SELECT unnest(?::VARCHAR[]) AS value, unnest(range(?)) AS no)"
        sql = sql.format(named=named, spans=among_spans(self.selected))
        return self.snapshot.arrays(sql, [list(names), len(names), *self.values], self.work)

    def names(self, column: str) -> list[str]:
        """The names that a column has, those on most spans first; counts the names left out."""
        facets = self.selected == "true" and self.snapshot.facets_known and column in _FACETS
        count, rows = ("sum(spans)", "facets") if facets else ("count(*)", "spans")
        found = self.snapshot.query(
            f"SELECT {column}, {count} FROM {rows} WHERE {column} IS NOT NULL AND {among_spans(self.selected)} "
            "GROUP BY 1 ORDER BY 2 DESC, 1",
            self.values,
            self.work,
        )
        self.left_out += max(0, len(found) - NAMES_KEPT)
        return [row[0] for row in found[:NAMES_KEPT]]

    def position(self, keys: NDArray[np.int64]) -> Positions:
        return np.searchsorted(self.keys, keys)


def read_features(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> TraceFeatures:
    """The features of the traces for which the condition ``selected`` (with its values) holds."""
    traces = snapshot.arrays(_TRACES.format(selected=selected), values, work)
    reader = _Reader(snapshot, selected, values, work, traces["trace_key"].astype(np.int64))
    task, tasks = _numbered(reader, "task_key")
    run, runs = _numbered(reader, "run_id")
    calls = reader.arrays(_CALLS, ())
    features = tuple(feature for source in FEATURE_SOURCES for feature in source(reader))
    return TraceFeatures(
        keys=reader.keys,
        trace_ids=traces["trace_id"],
        outcome=traces["outcome"].astype(np.int8),
        start=traces["start"],
        end=traces["finish"],
        task=task,
        tasks=tasks,
        run=run,
        runs=runs,
        numbers=tuple(
            NumberOf(name, text, unit, (calls if name in calls else traces)[name].astype(np.float64))
            for name, text, unit in _NUMBERS
        ),
        features=features,
        names_left_out=reader.left_out,
    )


_TRACES: Final = f"""
SELECT trace_key, trace_id, CASE outcome WHEN 'pass' THEN 1 WHEN 'fail' THEN 0 ELSE -1 END AS outcome,
       coalesce(start_time_unix_nano, 0) AS start, coalesce(end_time_unix_nano, 0) AS finish,
       coalesce(input_tokens::DOUBLE, {_UNKNOWN}) AS input_tokens,
       coalesce(output_tokens::DOUBLE, {_UNKNOWN}) AS output_tokens,
       coalesce(({DURATION_MS})::DOUBLE, {_UNKNOWN}) AS duration_ms,
       original_error_count AS errors, span_count AS spans
FROM traces WHERE {{selected}} ORDER BY trace_key
"""
_CALLS: Final = """
SELECT count_if(observation_kind = 'LLM') AS llm_calls, count_if(observation_kind = 'TOOL') AS tool_calls
FROM spans WHERE len(?::VARCHAR[]) = ? AND {spans} GROUP BY trace_key ORDER BY trace_key
"""
_NUMBERS: Final = (
    ("input_tokens", "input tokens", "tokens"),
    ("output_tokens", "output tokens", "tokens"),
    ("llm_calls", "LLM calls", "calls"),
    ("tool_calls", "tool calls", "calls"),
    ("spans", "spans", "spans"),
    ("duration_ms", "duration", "ms"),
    ("errors", "original errors", "spans"),
)
"""Name, words, unit."""


def _numbered(reader: _Reader, column: str) -> tuple[Positions, tuple[str, ...]]:
    """The number of each trace's value among the sorted values of a column of ``traces`` (-1 for none), and these."""
    rows = reader.snapshot.query(
        f"SELECT DISTINCT {column} AS value FROM traces WHERE {column} IS NOT NULL AND {reader.selected} ORDER BY 1",
        reader.values,
        reader.work,
    )
    names = tuple(row[0] for row in rows)
    if not names:
        return np.full(len(reader.keys), -1, np.int64), ()
    numbers = reader.snapshot.arrays(
        f"SELECT coalesce(no, -1) AS no FROM traces LEFT JOIN (SELECT unnest(?::VARCHAR[]) AS value, "
        f"unnest(range(?)) AS no) ON value = {column} WHERE {reader.selected} ORDER BY trace_key",
        [list(names), len(names), *reader.values],
        reader.work,
    )
    return numbers["no"].astype(np.int64), names


def _by_number(numbers: Positions, positions: Positions, count: int, traces: int) -> list[Positions]:
    """For each number below ``count`` the distinct positions that come with it, ascending."""
    pairs = np.sort(numbers * traces + positions)
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs  # np.unique hashes: 5 times slower
    bounds = np.searchsorted(pairs, np.arange(count + 1) * traces)
    return [pairs[bounds[no] : bounds[no + 1]] - no * traces for no in range(count)]


_COLUMNS: Final[tuple[tuple[FeatureKind, str, str, str], ...]] = (
    ("model", "model_name", "calls model {}", "model_names"),
    ("agent", "agent_name", "runs agent {}", "agent_names"),
    ("service", "service_name", "comes from service {}", "service_names"),
)
"""Kind, column of ``spans``, words, the filter that selects the same traces."""


def _column_features(reader: _Reader) -> Iterator[Feature]:
    """A feature for each name that a column of spans has."""
    for kind, column, text, filter_name in _COLUMNS:
        if not (names := reader.names(column)):
            continue
        sql = (
            f"SELECT DISTINCT no, trace_key FROM spans JOIN {{named}} ON value = {column} "
            f"WHERE {column} IS NOT NULL AND {{spans}}"
        )
        found = reader.arrays(sql, names)
        groups = _by_number(found["no"], reader.position(found["trace_key"]), len(names), len(reader.keys))
        for name, traces in zip(names, groups, strict=True):
            about = (filter_name, frozenset({name}))
            yield Feature(kind, name, text.format(name), {filter_name: [name]}, about, traces)


_TOOL_CALLS: Final = """
SELECT no, trace_key, status_code = 'ERROR' AS failed FROM spans JOIN {named} ON value = tool_name
WHERE tool_name IS NOT NULL AND {spans}
ORDER BY trace_key, start_time_unix_nano NULLS LAST, source_no, byte_offset
"""


def _tool_features(reader: _Reader) -> Iterator[Feature]:
    """Tools called, tools that failed, tools called again right after they failed, and which tool follows which."""
    if not (names := reader.names("tool_name")):
        return
    calls = reader.arrays(_TOOL_CALLS, names)
    tool, failed, trace = calls["no"], calls["failed"].astype(np.bool_), reader.position(calls["trace_key"])
    follows = trace[1:] == trace[:-1]
    again = follows & (tool[1:] == tool[:-1]) & failed[:-1]
    count, traces = len(names), len(reader.keys)
    kinds: tuple[tuple[FeatureKind, str, list[Positions]], ...] = (
        ("tool", "calls tool {}", _by_number(tool, trace, count, traces)),
        ("tool_failed", "tool {} fails", _by_number(tool[failed], trace[failed], count, traces)),
        (
            "tool_again",
            "calls tool {} again right after it failed",
            _by_number(tool[1:][again], trace[1:][again], count, traces),
        ),
    )
    for kind, text, groups in kinds:
        for name, found in zip(names, groups, strict=True):
            if len(found):
                filters = {"tool_names": [name]} if kind == "tool" else {}
                yield Feature(kind, name, text.format(name), filters, ("tool_names", frozenset({name})), found)
    pair = tool[:-1][follows] * count + tool[1:][follows]
    groups = _by_number(pair, trace[1:][follows], count * count, traces)
    frequent = sorted(range(len(groups)), key=lambda no: -len(groups[no]))
    reader.left_out += max(0, sum(len(group) > 0 for group in groups) - PAIRS_KEPT)
    for no in sorted(frequent[:PAIRS_KEPT]):
        if len(groups[no]):
            first, then = (names[part] for part in divmod(no, count))
            about = ("tool_names", frozenset({first, then}))
            yield Feature("tool_pair", f"{first} → {then}", f"calls {first}, then {then}", {}, about, groups[no])


FEATURE_SOURCES: Final[tuple[Callable[[_Reader], Iterator[Feature]], ...]] = (_tool_features, _column_features)
"""All features come from here."""
