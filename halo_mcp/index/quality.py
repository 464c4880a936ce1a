"""How well a dataset was understood: whole traces that are not whole, fields that are missing, attributes that no rule
reads. Asked of the finished index, so that building it costs nothing more."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from halo_mcp.index import semconv
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.places import Places
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.span import Json, as_mapping
from halo_mcp.index.work import Work

SAMPLED_SPANS: Final = 400
"""Spans whose attributes are looked at: spread evenly over all."""
_KEYS_KEPT: Final = 30
_SAMPLE_BYTES: Final = 64 * 1024 * 1024
"""Of very large spans fewer are read."""
_DIGITS: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")

_FIELDS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("model name", "model_name", ("LLM", "EMBEDDING")),
    ("input tokens", "input_tokens", ("LLM",)),
    ("output tokens", "output_tokens", ("LLM",)),
    ("finish reason", "finish_reason", ("LLM",)),
    ("answer", "output_chars", ("LLM",)),
    ("tool name", "tool_name", ("TOOL",)),
    ("arguments", "input_hash", ("TOOL",)),
    ("result", "output_hash", ("TOOL",)),
    ("agent name", "own_agent_name", ("AGENT",)),
    ("session", "session_id", semconv.OBSERVATION_KINDS),
    ("start time", "start_time_unix_nano", semconv.OBSERVATION_KINDS),
    ("end time", "end_time_unix_nano", semconv.OBSERVATION_KINDS),
)
"""What is said, the column, and the kinds of spans that should say it."""

_STRUCTURE: Final = """
SELECT count(*) - count(DISTINCT (trace_key, span_id)),
       count_if(NOT has_parent AND parent_span_id IS NOT NULL)
FROM spans
"""
_ROOTS: Final = """
SELECT count_if(roots = 0), count_if(roots > 1)
FROM (SELECT count_if(parent_span_id IS NULL) AS roots FROM spans GROUP BY trace_key)
"""
_CIRCLES: Final = """
SELECT count(*) FROM (SELECT trace_key, parent_span_id FROM spans WHERE NOT has_parent AND parent_span_id IS NOT NULL) c
SEMI JOIN spans AS p ON c.trace_key = p.trace_key AND c.parent_span_id = p.span_id
"""


@dataclass(frozen=True, slots=True)
class FieldCoverage:
    """How many spans of one kind say a fact."""

    field: str
    observation_kind: str
    present: int
    spans: int


@dataclass(frozen=True, slots=True)
class DataQuality:
    """Counts are exact and cover the dataset, except those of a sample."""

    duplicate_span_ids: int
    """Spans beyond the first with their id in their trace."""
    orphan_parents: int
    """Spans that name a parent which is not in the data."""
    circles: int
    """Spans that are their own ancestors, at which the circle was cut."""
    traces_without_root: int
    """Traces in which every span names a parent."""
    traces_with_several_roots: int
    coverage: tuple[FieldCoverage, ...]
    unknown_attributes: tuple[tuple[str, int], ...]
    """(key, sampled spans with a text or a number in it) for keys that no rule reads; numbers in keys as ``N``."""
    sampled_spans: int


def read_quality(snapshot: Snapshot, work: Work) -> DataQuality:
    """Raises: SourceChanged, SourceUnreadable, IndexFailure, Cancelled, DeadlineExceeded."""
    ((duplicates, parentless),) = snapshot.query(_STRUCTURE, work=work)
    ((without, several),) = snapshot.query(_ROOTS, work=work)
    ((circles,),) = snapshot.query(_CIRCLES, work=work) if parentless else [(0,)]
    unknown, sampled = _unknown_attributes(snapshot, work) if snapshot.privacy.payloads else (Counter[str](), 0)
    return DataQuality(
        duplicate_span_ids=duplicates,
        orphan_parents=parentless - circles,
        circles=circles,
        traces_without_root=without,
        traces_with_several_roots=several,
        coverage=tuple(_coverage(snapshot, work)),
        unknown_attributes=tuple(sorted(unknown.items(), key=lambda one: (-one[1], one[0]))[:_KEYS_KEPT]),
        sampled_spans=sampled,
    )


def _coverage(snapshot: Snapshot, work: Work) -> list[FieldCoverage]:
    counts = ", ".join(f"count({column})" for _, column, _ in _FIELDS)
    rows = snapshot.query(f"SELECT observation_kind, count(*), {counts} FROM spans GROUP BY ALL", work=work)
    order = {kind: number for number, kind in enumerate(semconv.OBSERVATION_KINDS)}
    rows.sort(key=lambda row: order[row[0]])
    return [
        FieldCoverage(field, kind, present, spans)
        for number, (field, _, kinds) in enumerate(_FIELDS)
        for kind, spans, present in ((row[0], row[1], row[2 + number]) for row in rows)
        if kind in kinds
    ]


def _unknown_attributes(snapshot: Snapshot, work: Work) -> tuple[Counter[str], int]:
    """With the number of spans that were looked at: none where payloads are withheld."""
    found: Counter[str] = Counter()
    if not snapshot.privacy.payloads:
        return found, 0
    everywhere = Places.joined([segment.places for segment in snapshot.located])
    chosen = np.unique(np.linspace(0, max(len(everywhere) - 1, 0), min(SAMPLED_SPANS, len(everywhere)), dtype=np.int64))
    places = everywhere.where(chosen)
    places = places.where(np.cumsum(places.length) <= _SAMPLE_BYTES)
    for text in snapshot.sources().texts(places):
        work.check()
        attributes = as_mapping(as_mapping(parse_record(text)).get("attributes"))
        found.update(_unread(attributes))
    return found, len(places)


def _unread(attributes: Mapping[str, Json]) -> set[str]:
    return {
        _DIGITS.sub("N", key)
        for key, value in attributes.items()
        if value not in ("", None) and not isinstance(value, bool) and not semconv.is_understood(key)
    }
