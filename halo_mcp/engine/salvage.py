"""An answer without the model, from what had been paid for when an agent had to stop."""

from __future__ import annotations

from typing import Final

from halo_mcp.engine.run import Run
from halo_mcp.engine.state import Agent
from halo_mcp.engine.types import AgentResult, FinalAnswer, Finding, LedgerItem

MAX_LISTED: Final = 40
MAX_ARGUMENTS: Final = 160
MAX_PAID_CHARS: Final = 8_000


async def salvage(run: Run, agent: Agent, stop: str, reason: str) -> AgentResult:
    """The rejected answer or the last words, what subagents and paid tools found, and what was looked at."""
    children = [child.result for child in run.agents.values() if child.parent_id == agent.id and child.result]
    findings: list[Finding] = [*agent.draft.findings] if agent.draft else []
    findings += [finding for child in children for finding in child.findings]
    parts = [f"This answer is incomplete. {reason}"]
    if agent.draft:
        parts.append(f"The last answer, which verification had sent back:\n{agent.draft.answer}")
    elif words := agent.history.last_text():
        parts.append(f"The last the model said:\n{words}")
    parts += [f"What a subagent found ({child.status}):\n{child.answer}" for child in children]
    parts += [f"What {item.tool} returned:\n{_short(item.text)}" for item in _paid(run, agent)]
    if looked := _looked_at(run, agent):
        parts.append(f"What was looked at:\n{looked}")
    text = run.clean("\n\n".join(parts))
    limitations = agent.draft.limitations if agent.draft else ""
    verdict = await run.verified(FinalAnswer(answer=text, findings=findings, limitations=limitations))
    answer = verdict.answer or FinalAnswer(answer=text, findings=findings, limitations=limitations)
    return AgentResult(
        "partial",
        answer.answer,
        stop,
        answer.findings,
        answer.limitations,
        [*verdict.problems],
        verdict.report,
        salvaged=True,
    )


def _paid(run: Run, agent: Agent) -> list[LedgerItem]:
    """What tools returned that asked the model themselves."""
    names = {tool.name for tool in (*run.tools, *run.root_tools) if tool.paid}
    return [item for item in run.ledger.items() if item.agent_id == agent.id and item.tool in names and not item.failed]


def _short(text: str) -> str:
    return (
        text
        if len(text) <= MAX_PAID_CHARS
        else f"{text[:MAX_PAID_CHARS]}\n[{len(text) - MAX_PAID_CHARS:,} more characters]"
    )


def _looked_at(run: Run, agent: Agent) -> str:
    items = [item for item in run.ledger.items() if item.agent_id == agent.id]
    lines: list[str] = []
    for item in items[:MAX_LISTED]:
        arguments = ", ".join(f"{key}={value!r}" for key, value in item.arguments.items())
        short = arguments if len(arguments) <= MAX_ARGUMENTS else arguments[:MAX_ARGUMENTS] + "…"
        lines.append(f"- {item.tool}({short}){' failed' if item.failed else f': {len(item.text):,} characters'}")
    if len(items) > MAX_LISTED:
        lines.append(f"- and {len(items) - MAX_LISTED} more calls")
    return "\n".join(lines)
