"""Which traces are put before a reader as digests, and what was computed over all of those they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from halo_mcp.errors import BadArgument, UnknownTrace
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.sampling import Stratum, sample
from halo_mcp.index.store import SpanStore
from halo_mcp.index.work import Work
from halo_mcp.tools.budget import DIGEST_CHARS
from halo_mcp.tools.digest import Digest, digest_text
from halo_mcp.tools.failures import pattern, where
from halo_mcp.tools.params import Call
from halo_mcp.tools.render import counted, names, number, share_of

MOST_TRACES: Final = 100
_MODES: Final = 8
_STRATA: Final = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """Ids in the order in which they are read, and which traces they are among."""

    trace_ids: Sequence[str]
    among: TraceFilters
    total: int
    """Traces that match."""
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    """Given id -> why it is none."""
    strata: Sequence[Stratum] = ()
    """Where the traces were chosen by filters."""

    @property
    def sampled(self) -> bool:
        return bool(self.strata)


def choose(call: Call, trace_ids: Sequence[str], filters: TraceFilters, most: int, seed: int) -> Chosen:
    """The traces given by id, in their order; else ``most`` of those that match, some of every kind.

    Unknown ids are told, not fatal. Raises: BadArgument.
    """
    if not trace_ids:
        strata = call.store.strata(filters, call.work)
        total = sum(len(stratum.trace_ids) for stratum in strata)
        return Chosen(sample(strata, most, seed), filters, total, strata=strata)
    if filters.given():
        raise BadArgument("Give trace_ids or filters, not both.")
    known, unknown = dict[str, None](), dict[str, str]()
    for given in dict.fromkeys(trace_ids):
        call.work.check()
        try:
            known[call.store.trace(normalize_id(given.strip())).trace_id] = None
        except UnknownTrace as error:
            unknown[given] = str(error)
    if not known:
        raise BadArgument(f"None of these traces is in dataset {call.dataset!r}: {next(iter(unknown.values()))}")
    return Chosen(list(known), TraceFilters(trace_ids=list(known)), len(known), unknown)


def digests(store: SpanStore, trace_ids: Sequence[str], work: Work, max_chars: int = DIGEST_CHARS) -> list[Digest]:
    """A digest of each trace. Raises: UnknownTrace, Cancelled, DeadlineExceeded, SourceError."""
    made: list[Digest] = []
    for number_done, trace_id in enumerate(trace_ids):
        work.report(number_done, len(trace_ids), f"digest {number_done + 1} of {len(trace_ids)}")
        made.append(digest_text(store.digest(trace_id, work), max_chars))
    return made


def facts(call: Call, among: TraceFilters) -> str:
    """What is known about all these traces: outcomes, and the failure modes that set failing ones apart."""
    found = call.store.failure_modes(among, None, call.work)
    unknown = found.total_traces - found.failing_traces - found.passing_traces
    total = (
        f"{counted(found.total_traces, 'trace')}: outcome fail {number(found.failing_traces)}, pass "
        f"{number(found.passing_traces)}, unknown {number(unknown)}; {counted(found.mode_count, 'failure mode')} in "
        f"{counted(found.traces, 'trace')}"
    )
    lines = [total]
    for mode in found.modes[:_MODES]:
        shares = ""
        if found.failing_traces or found.passing_traces:
            shares = (
                f"; of failing {share_of(mode.failing_traces, found.failing_traces)}, of passing "
                f"{share_of(mode.passing_traces, found.passing_traces)}"
            )
        lines.append(
            f"- [{mode.id}] {where(mode)} {mode.rule}: {pattern(mode)}: {counted(mode.traces, 'trace')}{shares}"
        )
    if found.mode_count > _MODES:
        lines.append(f"- and {counted(found.mode_count - _MODES, 'further mode')}: list_failure_modes has them")
    return "\n".join(lines)


def strata_line(chosen: Chosen, shown: Sequence[str]) -> str:
    """How many of each kind of trace were chosen."""
    read = set(shown)
    parts = [
        f"{stratum.outcome}/{stratum.failure_mode or 'no failure'} "
        f"{number(sum(trace_id in read for trace_id in stratum.trace_ids))} of {number(len(stratum.trace_ids))}"
        for stratum in chosen.strata
    ]
    return f"chosen by outcome and first failure mode, in turn: {names(parts, _STRATA)}"
