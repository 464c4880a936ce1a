"""The tools that the engine adds itself, and the agents that `call_subagent` starts."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from halo_mcp.engine.history import History
from halo_mcp.engine.prompts import CALL_SUBAGENT, CODE_TOOL, CONTEXT_ITEM, FINAL_ANSWER, system_prompt
from halo_mcp.engine.run import Run
from halo_mcp.engine.state import Agent
from halo_mcp.engine.types import Call, FinalAnswer, Json, ToolSpec


class Delegation(BaseModel):
    """The arguments of call_subagent."""

    model_config = ConfigDict(extra="forbid")

    objective: str = Field(min_length=1, description="What to find out. The subagent sees only this call.")
    context: str = Field(default="", description="What it needs to know: trace ids, span ids, what was found so far.")
    deliverable: str = Field(default="", description="What to bring back, and in which form.")


_ITEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "item_id": {"type": "string", "description": "Such as 'r7'."},
        "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "First character to show."},
    },
    "required": ["item_id"],
    "additionalProperties": False,
}

RECALL: Final = ToolSpec(
    CONTEXT_ITEM, "Read a tool result again, or on from an offset, after it was shortened or cleared.", _ITEM_SCHEMA
)


def _without_code() -> dict[str, Any]:
    """The schema of an answer by someone who cannot read code."""
    schema = deepcopy(FinalAnswer.model_json_schema())
    del schema["$defs"]["CodeEvidence"], schema["$defs"]["Finding"]["properties"]["code"]
    return schema


FINAL: Final = ToolSpec(
    FINAL_ANSWER,
    "Give the complete answer and end your work. Every finding's evidence is checked against the traces.",
    _without_code(),
)
FINAL_WITH_CODE: Final = ToolSpec(
    FINAL_ANSWER,
    "Give the complete answer and end your work. Every finding's evidence is checked against the traces, its code "
    "against the repository.",
    FinalAnswer.model_json_schema(),
)
SPAWN: Final = ToolSpec(
    CALL_SUBAGENT,
    "Let a subagent with the same read tools and a fresh context look into one well-defined question. Returns "
    "{status, stop_reason, answer, findings}; several calls in one turn run in parallel.",
    Delegation.model_json_schema(),
)


def tools_for(run: Run, depth: int) -> list[ToolSpec]:
    """What an agent at this depth may call: below the maximum depth nobody is offered call_subagent."""
    mine: list[ToolSpec] = [*run.tools, *(run.root_tools if depth == 0 else ()), RECALL]
    final = FINAL_WITH_CODE if any(tool.name == CODE_TOOL for tool in mine) else FINAL
    return [*mine, *([SPAWN] if depth < run.limits.max_depth else []), final]


def root_of(run: Run, question: str) -> Agent:
    """The agent that answers the question."""
    agent = Agent(
        "root",
        "",
        0,
        _system(run, 0),
        History(),
        run.limits.max_turns,
        run.endpoint.settings.model,
        run.meter,
    )
    agent.history.user(question)
    run.agents[agent.id] = agent
    return agent


def child_of(run: Run, parent: Agent, call: Call, arguments: Json, siblings: int) -> Agent:
    """The agent of one call: the saved one when the run was resumed, else a new one with its share of the budget.

    ``siblings``: calls of this kind in the same turn; each gets an equal part, and the parent keeps one.
    Raises: ValidationError.
    """
    wanted = Delegation.model_validate(arguments)
    mine = [agent for agent in run.agents.values() if agent.parent_id == parent.id]
    for agent in mine:
        if agent.call_id == call.id:
            return agent
    depth = parent.depth + 1
    settings = run.endpoint.settings
    child = Agent(
        f"{parent.id}.{len(mine) + 1}",
        parent.id,
        depth,
        _system(run, depth),
        History(),
        run.limits.sub_turns,
        settings.subagent_model or settings.model,
        parent.meter.share(siblings + 1),
        call_id=call.id,
    )
    parts = [wanted.objective]
    parts += [f"Context:\n{wanted.context}"] if wanted.context else []
    parts += [f"Bring back:\n{wanted.deliverable}"] if wanted.deliverable else []
    child.history.user("\n\n".join(parts))
    run.agents[child.id] = child
    return child


def _system(run: Run, depth: int) -> str:
    names = {tool.name for tool in tools_for(run, depth)}
    return system_prompt(names, run.limits, depth=depth, dataset_context=run.dataset_context, sections=run.sections)
