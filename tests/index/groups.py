"""TraceFeatures with defaults, so that a test shows only what separates its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halo_mcp.index.features import Feature, FeatureKind, NumberOf, TraceFeatures

Flags = NDArray[np.bool_]


def numbered(names: Sequence[str] | None, size: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if names is None:
        return np.full(size, -1, np.int64), ()
    known = tuple(sorted(set(names)))
    return np.array([known.index(name) for name in names], np.int64), known


def traces(
    passed: Sequence[Any] | NDArray[Any],
    features: Mapping[str, Any] | None = None,
    *,
    kind: FeatureKind = "tool",
    tasks: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    numbers: Mapping[str, Any] | None = None,
    prefix: str = "t",
) -> TraceFeatures:
    """Traces of which each passed (True), failed (False) or is unknown (None); ``features`` say which have what."""
    size = len(passed)
    given = {"spans": np.full(size, 5.0), "failures": np.zeros(size)} | dict(numbers or {})
    task, all_tasks = numbered(tasks, size)
    run, all_runs = numbered(runs, size)
    return TraceFeatures(
        keys=np.arange(size, dtype=np.int64),
        trace_ids=np.array([f"{prefix}{number:06}" for number in range(size)], dtype=object),
        outcome=np.array([-1 if value is None else int(value) for value in passed], np.int8),
        start=np.arange(1, size + 1, dtype=np.int64),
        end=np.arange(2, size + 2, dtype=np.int64),
        task=task,
        tasks=all_tasks,
        run=run,
        runs=all_runs,
        numbers=tuple(NumberOf(name, name, "", np.asarray(values, float)) for name, values in given.items()),
        features=tuple(
            Feature(kind, name, name, {}, ("tool_names", frozenset({name})), np.flatnonzero(np.asarray(has)))
            for name, has in (features or {}).items()
        ),
    )
