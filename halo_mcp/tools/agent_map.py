"""Reading many traces at once, for the server-side agent: digests, and the check of what was noted about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from halo_mcp.datasets import Datasets
from halo_mcp.engine.map_tools import MapArguments, Reading, Texts, map_tools
from halo_mcp.engine.run import Run
from halo_mcp.engine.synthesis import Row
from halo_mcp.engine.types import FinalAnswer, Tool
from halo_mcp.tools.agent_tools import in_worker
from halo_mcp.tools.calls import on_dataset
from halo_mcp.tools.chosen import choose, digests, facts, strata_line
from halo_mcp.tools.params import Call, checked_filters
from halo_mcp.tools.render import number
from halo_mcp.tools.synthesis import problems_of, row_verdicts


def reading_tools(datasets: Datasets, dataset: str, run: Callable[[], Run]) -> list[Tool]:
    """``map_traces`` and ``synthesize_traces`` on a dataset; ``run`` is asked when one of them is called."""

    async def read(wanted: MapArguments) -> Texts:
        return await in_worker(partial(on_dataset, datasets, dataset, partial(_texts, wanted)))

    async def check(rows: Sequence[Row]) -> Sequence[str]:
        return await in_worker(partial(row_verdicts, datasets.get(dataset)[1].pinned(), rows))

    async def verify(answer: FinalAnswer) -> Sequence[str]:
        return await in_worker(partial(problems_of, datasets.get(dataset)[1].pinned(), answer, None))

    return map_tools(run, Reading(read, check, verify))


def _texts(wanted: MapArguments, call: Call) -> Texts:
    """The digests that are asked for. Raises: BadArgument and what reading raises."""
    chosen = choose(call, wanted.trace_ids, checked_filters(wanted.filters), wanted.max_traces, 0)
    made = digests(call.store, chosen.trace_ids[: wanted.max_traces], call.work)
    notes = [f"unknown: {why}" for why in chosen.unknown.values()]
    if chosen.sampled:
        notes.append(f"{number(len(made))} of {number(chosen.total)} traces, {strata_line(chosen, chosen.trace_ids)}")
    elif len(made) < len(chosen.trace_ids):
        notes.append(f"only the first {number(len(made))} of {number(len(chosen.trace_ids))} traces were read")
    return Texts({digest.trace_id: digest.text for digest in made}, notes, facts(call, chosen.among))
