"""Ask one question, or go on with a saved run."""

from __future__ import annotations

from halo_mcp.engine.agent import run_agent
from halo_mcp.engine.run import Run, RunResult
from halo_mcp.engine.state import Agent
from halo_mcp.engine.subagents import root_of, tools_for
from halo_mcp.engine.types import Json
from halo_mcp.errors import BadArgument


async def ask(run: Run, question: str) -> RunResult:
    """The answer, complete or not. Raises: BadArgument; EngineError only when nothing was paid for yet."""
    if not question.strip():
        raise BadArgument("The question is empty: say what you want to know about the traces.")
    return await _work(run, root_of(run, question.strip()))


async def resume(run: Run, state: Json) -> RunResult:
    """Go on with a run that was saved by its checkpoint hook; turns that were paid for are not repeated.

    ``run`` brings the tools and limits; tools that had no result yet are called again. Raises: as `ask`.
    """
    run.restore(state)
    return await _work(run, run.agents["root"])


async def _work(run: Run, root: Agent) -> RunResult:
    run.emit(root, "run_started", model=root.model, api=run.endpoint.wire(root.model), turns=root.turns)
    result = await run_agent(run, root, tools_for(run, 0))
    run.emit(root, "run_finished", status=result.status, stop_reason=result.stop_reason, turns=run.meter.totals.turns)
    return run.outcome(result)
