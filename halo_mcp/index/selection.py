"""Which traces filters choose: as a condition on the view ``traces``; payloads are scanned where filters need them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from halo_mcp.index.filters import AttributeFilter, TraceFilters, attribute_holds, where
from halo_mcp.index.finding import finder
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.scan import Condition, matching_traces, pattern_condition
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.span import as_mapping
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

Selection: TypeAlias = tuple[str, list[Any]]
"""A condition on ``traces`` with its values."""


def selected(snapshot: Snapshot, filters: TraceFilters, work: Work) -> Selection:
    """The traces that meet all the filters; what a scan of payloads found is remembered with the snapshot."""
    condition = where(filters)
    if not filters.needs_payloads:
        return condition.sql, condition.values

    def scan() -> NDArray[np.int64]:
        return _scanned(snapshot, keys_of(snapshot, (condition.sql, condition.values), work), filters, work)

    keys = snapshot.remembered(f"scan {filters.model_dump_json()}", scan)
    return "trace_key IN (SELECT unnest(?::BIGINT[]))", [keys.tolist()]


def keys_of(snapshot: Snapshot, selection: Selection, work: Work) -> NDArray[np.int64]:
    """The keys of the selected traces."""
    condition, values = selection
    keys = snapshot.arrays(f"SELECT trace_key FROM traces WHERE {condition}", values, work)["trace_key"]
    return keys.astype(np.int64)


def _scanned(snapshot: Snapshot, candidates: NDArray[np.int64], filters: TraceFilters, work: Work) -> NDArray[np.int64]:
    """Those candidate trace keys whose payloads meet regex_pattern and attributes."""
    sources = snapshot.sources()
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
