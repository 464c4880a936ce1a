"""Few traces that stand for many: some of every kind of outcome and failure, the same ones each time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.store import Outcome
    from halo_mcp.index.work import Work


@dataclass(frozen=True, slots=True)
class Stratum:
    """Traces with the same outcome in which the same failure begins first."""

    outcome: Outcome
    failure_mode: str | None
    trace_ids: tuple[str, ...]
    """Sorted."""


def read_strata(snapshot: Snapshot, selected: str, values: Sequence[Any], work: Work) -> list[Stratum]:
    """All selected traces; failing ones first, then the largest groups. Raises: Cancelled, DeadlineExceeded."""
    from halo_mcp.index.snapshot import among_spans

    first = "(coalesce(start_time_unix_nano, 9223372036854775807), source_no, byte_offset)"
    rows = snapshot.query(
        f"WITH f AS (SELECT trace_key, arg_min(failure_mode, {first}) AS mode FROM spans "
        f"WHERE failure_mode IS NOT NULL AND {among_spans(selected)} GROUP BY trace_key) "
        "SELECT outcome, mode, list(trace_id ORDER BY trace_id) FROM "
        f"(SELECT trace_key, trace_id, outcome FROM traces WHERE {selected}) LEFT JOIN f USING (trace_key) "
        "GROUP BY outcome, mode ORDER BY outcome <> 'fail', mode IS NULL, count(*) DESC, outcome, mode",
        [*values, *values],
        work,
    )
    return [Stratum(outcome, mode, tuple(trace_ids)) for outcome, mode, trace_ids in rows]


def sample(strata: Sequence[Stratum], count: int, seed: int = 0) -> list[str]:
    """``count`` trace ids, one of each stratum in turn; within a stratum in an order that only ``seed`` changes."""
    queues = [iter(sorted(stratum.trace_ids, key=lambda each: _shuffled(each, seed))) for stratum in strata]
    chosen: list[str] = []
    while queues and len(chosen) < count:
        alive = list[Any]()
        for queue in queues:
            if len(chosen) < count and (trace_id := next(queue, None)) is not None:
                chosen.append(trace_id)
                alive.append(queue)
        queues = alive
    return chosen


def _shuffled(trace_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {trace_id}".encode(errors="surrogatepass")).digest()
