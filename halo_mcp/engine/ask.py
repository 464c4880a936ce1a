"""Ask one question, or go on with a saved run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from halo_mcp.engine.agent import run_agent
from halo_mcp.engine.run import Run, RunResult
from halo_mcp.engine.state import Agent
from halo_mcp.engine.subagents import root_of, tools_for
from halo_mcp.engine.types import Json
from halo_mcp.errors import BadArgument

MOST_CHARS: Final = 100_000
"""Of a question."""


async def ask(run: Run, question: str) -> RunResult:
    """The answer, complete or not. Raises: BadArgument; EngineError only when nothing was paid for yet."""
    return await _work(run, root_of(run, checked_question(question)))


def checked_question(text: str) -> str:
    """The question without white space around it. Raises: BadArgument."""
    question = text.strip()
    if not question:
        raise BadArgument("The question is empty: say what you want to know about the traces.")
    if len(question) > MOST_CHARS:
        raise BadArgument(
            f"The question has {len(question):,} characters, and every request would repeat it: at most "
            f"{MOST_CHARS:,} are taken."
        )
    return question


async def resume(run: Run, state: Json, warnings: Sequence[str] = ()) -> RunResult:
    """Go on with a run that was saved by its checkpoint hook; turns that were paid for are not repeated.

    ``run`` brings the tools and limits; tools that had no result yet are called again. ``warnings`` are told with the
    result. Raises: as `ask`.
    """
    run.restore(state)
    for text in warnings:
        run.warn(None, text)
    return await _work(run, run.agents["root"])


async def _work(run: Run, root: Agent) -> RunResult:
    run.emit(root, "run_started", model=root.model, api=run.endpoint.wire(root.model), turns=root.turns)
    result = await run_agent(run, root, tools_for(run, 0))
    run.emit(root, "run_finished", status=result.status, stop_reason=result.stop_reason, turns=run.meter.totals.turns)
    return run.outcome(result)
