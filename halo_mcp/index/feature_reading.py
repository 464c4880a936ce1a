"""Counts the numbers and features of the traces of a selection, once per selection: see ``features``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from halo_mcp.index import columns
from halo_mcp.index.duck import quoted
from halo_mcp.index.failure_rules import LOOP_MEANING, LOOP_RULE
from halo_mcp.index.features import Beginning, Feature, FeatureKind, NumberOf, TraceFeatures
from halo_mcp.index.filters import DURATION_MS
from halo_mcp.index.harness import ANY_VERSION, SEVERAL_FIT, trace_versions
from halo_mcp.index.harness_reading import Seen, read_quick
from halo_mcp.index.snapshot import Snapshot, among_spans
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

NAMES_KEPT: Final = 200
"""Of each column, the names that most traces have; rarer ones are left out."""
PAIRS_KEPT: Final = 400
_FACETS: Final = {column.name for column in columns.FACET_COLUMNS}
_UNKNOWN: Final = "'nan'::DOUBLE"


@dataclass(slots=True)
class _Reader:
    """Asks about the spans of the selected traces."""

    snapshot: Snapshot
    selected: str
    values: list[Any]
    work: Work
    keys: Positions
    harness: Seen | None
    left_out: int = field(default=0)
    modes_left_out: int = field(default=0)

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

    def traces_by_name(self, column: str, names: Sequence[str]) -> Iterator[tuple[str, Positions]]:
        """Each of these names of a column of spans, and the traces that have it."""
        if names:
            found = self.arrays(
                f"SELECT DISTINCT no, trace_key FROM spans JOIN {{named}} ON value = {column} "
                f"WHERE {column} IS NOT NULL AND {{spans}}",
                names,
            )
            groups = _by_number(found["no"], self.position(found["trace_key"]), len(names), len(self.keys))
            yield from zip(names, groups, strict=True)

    def position(self, keys: NDArray[np.int64]) -> Positions:
        return np.searchsorted(self.keys, keys)


def read_features(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> TraceFeatures:
    """The features of the traces for which the condition ``selected`` (with its values) holds."""
    with ThreadPoolExecutor(1, thread_name_prefix="halo-mcp-import") as pool:
        # Who asks for features goes on to test them; importing scipy takes as long as counting does.
        pool.submit(import_module, "scipy.stats")
        return _read_features(snapshot, selected, values, work)


def _read_features(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> TraceFeatures:
    traces = snapshot.arrays(_TRACES.format(selected=selected), values, work)
    harness = read_quick(snapshot, selected, values, work)
    reader = _Reader(snapshot, selected, values, work, traces["trace_key"].astype(np.int64), harness)
    task, tasks = _numbered(reader, "task_key")
    run, runs = _numbered(reader, "run_id")
    calls = snapshot.arrays(_CALLS.format(spans=among_spans(selected)), values, work)
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
        modes_left_out=reader.modes_left_out,
        harness=harness,
    )


_TRACES: Final = f"""
SELECT trace_key, trace_id, CASE outcome WHEN 'pass' THEN 1 WHEN 'fail' THEN 0 ELSE -1 END AS outcome,
       coalesce(start_time_unix_nano, 0) AS start, coalesce(end_time_unix_nano, 0) AS finish,
       coalesce(input_tokens::DOUBLE, {_UNKNOWN}) AS input_tokens,
       coalesce(output_tokens::DOUBLE, {_UNKNOWN}) AS output_tokens,
       coalesce(({DURATION_MS})::DOUBLE, {_UNKNOWN}) AS duration_ms,
       span_count AS spans, coalesce(score, {_UNKNOWN}) AS score
FROM traces WHERE {{selected}} ORDER BY trace_key
"""
_CALLS: Final = f"""
SELECT count_if(observation_kind = 'LLM') AS llm_calls, count_if(observation_kind = 'TOOL') AS tool_calls,
       coalesce(sum(CASE WHEN observation_kind = 'TOOL' THEN output_chars END)::DOUBLE, {_UNKNOWN})
       AS tool_output_chars,
       count(failure_mode) AS failures
FROM spans WHERE {{spans}} GROUP BY trace_key ORDER BY trace_key
"""
_NUMBERS: Final = (
    ("input_tokens", "input tokens", "tokens"),
    ("output_tokens", "output tokens", "tokens"),
    ("llm_calls", "LLM calls", "calls"),
    ("tool_calls", "tool calls", "calls"),
    ("spans", "spans", "spans"),
    ("duration_ms", "duration", "ms"),
    ("tool_output_chars", "tool output", "characters"),
    ("failures", "failures, hard and soft", "spans"),
    ("score", "score", ""),
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
    ("finish_reason", "finish_reason", "a model stopped with {}", ""),
    ("model", "model_name", "calls model {}", "model_names"),
    ("agent", "agent_name", "runs agent {}", "agent_names"),
    ("service", "service_name", "comes from service {}", "service_names"),
)
"""Kind, column of ``spans``, words, the filter that selects the same traces ("" for none)."""

_NORMAL_STOPS: Final = frozenset(
    (
        "stop", "end_turn", "end", "eos", "complete", "completed", "done", "success", "tool", "tool_call", "tool_calls",
        "tool_use", "function_call", "stop_sequence",
    )
)  # fmt: skip
"""As the index spells them ("tool" is "tool-calls"). A trace without them broke off; its other features tell why."""


def _column_features(reader: _Reader) -> Iterator[Feature]:
    """A feature for each name that a column of spans has."""
    for kind, column, text, filter_name in _COLUMNS:
        for name, traces in reader.traces_by_name(column, reader.names(column)):
            if kind == "finish_reason" and name in _NORMAL_STOPS:
                continue
            filters = {filter_name: [name]} if filter_name else {}
            yield Feature(kind, name, text.format(name), filters, (filter_name, frozenset({name})), traces)


_MODE_TEXTS: Final = """
SELECT failure_mode, min(failure_rule), min({where}),
       arg_min(failure_text, (coalesce(start_time_unix_nano, 9223372036854775807), trace_id, span_id))
FROM spans WHERE failure_mode IS NOT NULL AND {spans} GROUP BY 1 ORDER BY count(*) DESC, 1
"""
_WHERE: Final = "CASE WHEN tool_name IS NULL THEN name ELSE 'tool ' || tool_name END"


def _failure_mode_features(reader: _Reader) -> Iterator[Feature]:
    """A feature for each failure mode that begins in some trace."""
    rows = reader.snapshot.query(
        _MODE_TEXTS.format(where=_WHERE, spans=among_spans(reader.selected)), reader.values, reader.work
    )
    reader.modes_left_out = max(0, len(rows) - NAMES_KEPT)
    reader.left_out += reader.modes_left_out
    texts = {mode: _words(mode, rule, where, text) for mode, rule, where, text in rows[:NAMES_KEPT]}
    for mode, traces in reader.traces_by_name("failure_mode", list(texts)):
        about = ("failure_mode", frozenset({mode}))
        yield Feature("failure_mode", mode, texts[mode], {"failure_mode": [mode]}, about, traces)


def _words(mode: str, rule: str, where: str, text: str | None) -> str:
    said = LOOP_MEANING if rule == LOOP_RULE else text or "(no text)"
    return f"failure mode [{mode}] {where} · {rule} · {said}"


_BEGINS: Final = f"""
SELECT failure_mode, trace_id, span_id, failure_rule, {_WHERE}, failure_text
FROM spans WHERE list_contains(?, failure_mode)
AND trace_key IN (SELECT trace_key FROM traces WHERE list_contains(?, trace_id))
ORDER BY coalesce(start_time_unix_nano, 9223372036854775807), source_no, byte_offset
"""


def beginnings(
    snapshot: Snapshot, modes: Sequence[str], trace_ids: Sequence[str], work: Work
) -> dict[tuple[str, str], Beginning]:
    """(failure mode, trace id) -> the first span of this trace in which the mode begins, where it does."""
    found: dict[tuple[str, str], Beginning] = {}
    rows = snapshot.query(_BEGINS, [list(modes), list(trace_ids)], work) if modes else []
    for mode, trace_id, span_id, rule, where, text in rows:
        found.setdefault((mode, trace_id), Beginning(span_id, _words(mode, rule, where, text)))
    return found


def _version_features(reader: _Reader) -> Iterator[Feature]:
    """A feature for each harness, where traces ran under several."""
    if reader.harness is None:
        return
    found = trace_versions(reader.harness)
    positions = reader.position(found.trace_key)
    groups = _by_number(found.label, positions, len(found.labels), len(reader.keys))
    telling = [(name, group) for name, group in zip(found.labels, groups, strict=True) if name not in _NO_VERSION]
    reader.left_out += max(0, len(telling) - NAMES_KEPT)
    for name, group in sorted(telling, key=lambda item: (-len(item[1]), item[0]))[:NAMES_KEPT]:
        yield Feature("harness_version", name, f"ran under {name}", {}, ("", frozenset()), group)


_NO_VERSION: Final = (ANY_VERSION, SEVERAL_FIT)


_TOOL_CALLS: Final = f"""
SELECT no, trace_key, status_code = 'ERROR' OR coalesce(failure_rule <> {quoted(LOOP_RULE)}, false) AS failed
FROM spans JOIN {{named}} ON value = tool_name
WHERE tool_name IS NOT NULL AND {{spans}}
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


FEATURE_SOURCES: Final[tuple[Callable[[_Reader], Iterator[Feature]], ...]] = (
    _failure_mode_features,
    _tool_features,
    _version_features,
    _column_features,
)
"""All features come from here."""
