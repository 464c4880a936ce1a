"""Keeping a conversation inside the model's context while the agent works."""

from __future__ import annotations

from typing import Final

from halo_mcp.engine.prompts import SUMMARY_INTRO, SUMMARY_SYSTEM
from halo_mcp.engine.requests import ask_model
from halo_mcp.engine.run import Run
from halo_mcp.engine.state import Agent
from halo_mcp.engine.types import Message
from halo_mcp.engine.wires import Request
from halo_mcp.errors import ContextOverflow, GaveUp, ModelRejected

CLEAR_AT: Final = 0.6
"""Share of the window from which old results are cleared ..."""
CLEAR_TOKENS: Final = 100_000
"""... or these tokens, whichever is less."""
SUMMARISE_AT: Final = 0.85
KEEP_TURNS: Final = 3
LEAST_FREED: Final = 0.2
SHRUNK_CHARS: Final = 2_000
SUMMARY_PART_CHARS: Final = 2_000
"""What a summary is shown of one message."""


async def compact(run: Run, agent: Agent, overhead_chars: int) -> None:
    """Clear, then summarise, as far as the estimated size asks for it. ``overhead_chars``: system prompt and tools."""
    window = run.window(agent.model)

    def size() -> int:
        return agent.tokens(overhead_chars + agent.history.chars())

    if size() > min(CLEAR_AT * window, CLEAR_TOKENS):
        freed = agent.history.clear(run.ledger, KEEP_TURNS, least_share=LEAST_FREED)
        if freed:
            run.emit(agent, "compacted", how="cleared", chars=freed)
    if size() > SUMMARISE_AT * window:
        await _summarise(run, agent)


def shrink(run: Run, agent: Agent) -> bool:
    """Make room after the endpoint found a request too long; False when there is nothing left to take away."""
    agent.overflows += 1
    if agent.overflows == 1:
        freed = agent.history.clear(run.ledger, 1)
        if freed:
            run.emit(agent, "compacted", how="cleared", chars=freed)
            return True
    freed = agent.history.clear(run.ledger, 0, limit=SHRUNK_CHARS)
    run.emit(agent, "compacted", how="shrunk", chars=freed)
    return freed > 0 and agent.overflows <= 2


async def _summarise(run: Run, agent: Agent) -> None:
    """Replace all but the question and the last turns by one summary; without one the agent goes on as it is."""
    head = agent.history.head(KEEP_TURNS)
    if len(head) < 2:
        return
    model = run.endpoint.settings.summary_model or agent.model
    question = agent.history.messages[0].text
    text = f"The question:\n{question}\n\nThe record:\n{_record(head)}"
    try:
        turn = await ask_model(run, agent, Request(model, SUMMARY_SYSTEM, [Message("user", text)]))
    except (ContextOverflow, ModelRejected, GaveUp) as error:
        run.warn(agent, f"An agent's work could not be summarised: {error}")
        return
    if turn.text.strip() and not turn.refused:
        before = agent.history.chars()
        agent.history.replace_head(len(head), SUMMARY_INTRO + turn.text.strip())
        run.emit(agent, "compacted", how="summarised", chars=before - agent.history.chars())


def _record(messages: list[Message]) -> str:
    lines: list[str] = []
    for message in messages:
        lines.append(f"[{message.role}{' ' + message.item_id if message.item_id else ''}] {_short(message.text)}")
        if message.turn:
            lines += [f"[call] {call.name} {_short(call.arguments)}" for call in message.turn.calls]
    return "\n".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= SUMMARY_PART_CHARS else text[:SUMMARY_PART_CHARS] + " …"
