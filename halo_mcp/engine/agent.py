"""The loop of one agent: ask, run the tools it called, until there is an answer. What was paid for is never lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import anyio
from pydantic import ValidationError

from halo_mcp.engine.compaction import compact, shrink
from halo_mcp.engine.prompts import (
    AFTER_REFUSAL,
    CALL_SUBAGENT,
    CONTEXT_ITEM,
    FINAL_ANSWER,
    NUDGE,
    REJECTED,
    RESCUE,
    budget_note,
)
from halo_mcp.engine.requests import ask_model
from halo_mcp.engine.run import Run
from halo_mcp.engine.salvage import salvage
from halo_mcp.engine.state import Agent
from halo_mcp.engine.subagents import child_of, tools_for
from halo_mcp.engine.types import AgentResult, Call, FinalAnswer, Json, Tool, ToolSpec, Turn, each_text
from halo_mcp.engine.wires import Request
from halo_mcp.errors import ContextOverflow, EngineError, GaveUp, HaloError

MAX_FIELD_ERRORS: Final = 4
MAX_CALLS: Final = 32
"""Of one turn; more are answered without being run."""
PAID_GRACE_S: Final = 10.0
"""How long a paid tool may put together what it has when the time of the run is over."""


async def run_agent(run: Run, agent: Agent, tools: Sequence[ToolSpec]) -> AgentResult:
    """Work until there is a result. Raises: EngineError, only when not one turn of the run was paid for."""
    run.emit(agent, "agent_started", resumed=bool(agent.turns), question=agent.history.messages[0].text[:500])
    while agent.result is None:
        try:
            if calls := agent.history.pending():
                await _act(run, agent, tools, calls)
            else:
                await _think(run, agent, tools)
        except EngineError as error:
            if not run.meter.totals.turns:
                raise
            stop = error.stop if isinstance(error, GaveUp) else type(error).__name__
            agent.result = await salvage(run, agent, _STOPS.get(stop, stop), str(error))
    agent.result.turns, agent.result.tool_calls = agent.turns, agent.tool_calls
    run.emit(agent, "agent_finished", status=agent.result.status, stop_reason=agent.result.stop_reason)
    await run.save()
    return agent.result


_STOPS: Final = {"ContextOverflow": "context", "ModelRejected": "rejected_by_endpoint"}


async def _think(run: Run, agent: Agent, tools: Sequence[ToolSpec]) -> None:
    """One turn of the model, into the history."""
    overhead = Request(agent.model, agent.system, [], tools=tools).chars()
    await compact(run, agent, overhead)
    upcoming = agent.tokens(overhead + agent.history.chars())
    stop = "turns" if agent.turns + 1 >= agent.max_turns else agent.meter.soft_stop(upcoming)
    stop = agent.stop or stop
    note = RESCUE if agent.rescuing else budget_note(agent.turns + 1, agent.max_turns, agent.meter, stop)
    force = "none" if agent.rescuing else FINAL_ANSWER if stop else ""
    request = Request(agent.model, agent.system, agent.history.messages, note, tools, force, run.run_id)
    try:
        turn = await ask_model(run, agent, request)
    except ContextOverflow:
        if not shrink(run, agent):
            raise
        return
    agent.turns += 1
    agent.overflows = 0
    agent.stop = stop
    run.emit(agent, "turn", turn=agent.turns, of=agent.max_turns, calls=[call.name for call in turn.calls])
    await _take(run, agent, turn)
    await run.save()


async def _take(run: Run, agent: Agent, turn: Turn) -> None:
    """A reply into the history, or the end of the agent."""
    if turn.refused:
        agent.refusals += 1
        if agent.stop or agent.refusals > run.limits.refusals:
            raise GaveUp("refused", run.clean(turn.text)[:300])
        agent.history.user(AFTER_REFUSAL)
    elif turn.calls and not agent.rescuing:
        agent.history.turn(turn)
    elif turn.text.strip() and (agent.stop or agent.nudges >= run.limits.nudges):
        await _accept_text(run, agent, turn.text.strip())
    elif agent.rescuing:
        raise GaveUp(agent.stop or "no_answer", "the model gave no answer when it had to")
    elif agent.stop:
        agent.rescuing = True
    elif agent.nudges >= run.limits.nudges:
        raise GaveUp("no_answer", "the model neither called a tool nor answered")
    else:
        agent.nudges += 1
        # A turn without text and calls is refused by servers when it is replayed.
        if turn.text.strip():
            agent.history.turn(turn)
        agent.history.user(NUDGE)


async def _act(run: Run, agent: Agent, tools: Sequence[ToolSpec], calls: Sequence[Call]) -> None:
    """Answer every call of the last turn: tools side by side, the final answer after them."""
    finals = [call for call in calls if call.name == FINAL_ANSWER]
    others = [call for call in calls if call.name != FINAL_ANSWER]
    others, left_out = others[:MAX_CALLS], others[MAX_CALLS:]
    shown = {call.id: (f"not run: more than {MAX_CALLS} calls in one turn", "") for call in left_out}
    siblings = sum(call.name == CALL_SUBAGENT for call in others)

    async def one(call: Call) -> None:
        shown[call.id] = await _call(run, agent, tools, call, siblings)

    if agent.stop:
        shown |= {call.id: ("not run: this was the last turn", "") for call in others}
    else:
        async with anyio.create_task_group() as group:
            for call in others:
                group.start_soon(one, call)
    for call in finals:
        text = "ignored: only the first final_answer of a turn counts" if call is not finals[0] else None
        shown[call.id] = (text or await _final(run, agent, call), "")
        if agent.result:
            return
    for call in calls:
        text, item_id = shown[call.id]
        agent.history.result(call.id, text, item_id)
    if agent.stop:
        agent.rescuing = True


async def _call(run: Run, agent: Agent, tools: Sequence[ToolSpec], call: Call, siblings: int) -> tuple[str, str]:
    """(what the model sees, ledger id) of one call; whatever goes wrong is text for the model."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    arguments = call.parse()
    if tool is None:
        return f"error: there is no tool {call.name!r}. Tools: {', '.join(tool.name for tool in tools)}.", ""
    if arguments is None:
        return _unreadable(agent), ""
    place = f"{agent.turns} {call.id}"  # ids alone may come again after a summary
    before = run.ledger.of_call(agent.id, place)
    if before and not before.failed:
        return run.ledger.fenced(before, run.endpoint.settings.result_chars), before.id
    run.emit(agent, "tool_call", tool=call.name, call_id=call.id, arguments=run.clean(call.arguments)[:500])
    failed = False
    try:
        if tool.name == CALL_SUBAGENT:  # ends by itself, with what it has
            text = await _call_subagent(run, agent, call, arguments, siblings)
        elif tool.name == CONTEXT_ITEM:
            agent.tool_calls += 1
            return _context_item(run, arguments)
        else:
            assert isinstance(tool, Tool)
            with anyio.fail_after(run.meter.remaining_s() + (PAID_GRACE_S if tool.paid else 0)):
                text = await tool.call(arguments)
    except TimeoutError:
        text, failed = "error: stopped, the time of this run is over", True
    except HaloError as error:
        text, failed = f"error: {error}", True
    except ValidationError as error:
        text, failed = "error: " + _fields(error), True
    except Exception as error:
        text, failed = f"error: {type(error).__name__}: {error}", True
    agent.tool_calls += not before
    item = run.ledger.store(agent.id, tool.name, arguments, run.clean(text), failed=failed, call=place)
    run.emit(agent, "tool_result", tool=call.name, call_id=call.id, item=item.id, chars=len(text), failed=failed)
    return run.ledger.fenced(item, run.endpoint.settings.result_chars), item.id


async def _call_subagent(run: Run, agent: Agent, call: Call, arguments: Json, siblings: int) -> str:
    """The child's result as JSON, whatever became of it; its status says that."""
    child = child_of(run, agent, call, arguments, siblings)
    async with run.slots[child.depth]:
        result = await run_agent(run, child, tools_for(run, child.depth))
    shown = {key: value for key, value in result.to_json().items() if value not in (None, [], {}, "")}
    return json.dumps({"agent_id": child.id, **shown}, ensure_ascii=False)


def _unreadable(agent: Agent) -> str:
    if agent.history.last_finish() == "length":
        return "error: the call was cut off by the output limit; use shorter arguments"
    return "error: the arguments are no JSON object"


def _fields(error: ValidationError) -> str:
    found = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:MAX_FIELD_ERRORS]]
    return "; ".join(found)


def _context_item(run: Run, arguments: Json) -> tuple[str, str]:
    item = run.ledger.get(str(arguments.get("item_id", "")))
    if item is None:
        return f"error: there is no item {arguments.get('item_id')!r}; there are r1 to r{len(run.ledger)}", ""
    offset = arguments.get("offset", 0)
    if not isinstance(offset, int) or offset < 0 or (offset and offset >= len(item.text)):
        return f"error: offset must be a whole number from 0 to {max(0, len(item.text) - 1)}", ""
    return run.ledger.fenced(item, run.endpoint.settings.result_chars, offset), item.id


async def _final(run: Run, agent: Agent, call: Call) -> str:
    """Accept an answer as the agent's result, or say why it goes back."""
    # An endpoint that repeats a key in an error, or a model that was told one, must not bring it to the client.
    arguments = each_text(call.parse(), run.clean)
    if arguments is None:
        return _unreadable(agent)
    try:
        answer = FinalAnswer.model_validate(arguments)
    except ValidationError as error:
        return "error: " + _fields(error)
    verdict = await run.verified(answer)
    answer = verdict.answer or answer
    if verdict.problems and agent.rounds < run.limits.verify_rounds and not agent.stop:
        agent.rounds += 1
        agent.draft = answer
        run.emit(agent, "rejected", problems=[*verdict.problems])
        listed = "\n".join(f"- {problem}" for problem in verdict.problems)
        return f"{REJECTED}\n{listed}"
    agent.result = AgentResult(
        "partial" if agent.stop else "complete",
        answer.answer,
        agent.stop,
        answer.findings,
        answer.limitations,
        [*verdict.problems],
        verdict.report,
    )
    return "accepted"


async def _accept_text(run: Run, agent: Agent, text: str) -> None:
    """Plain text as the answer of a model that does not call final_answer."""
    text = run.clean(text)
    verdict = await run.verified(FinalAnswer(answer=text))
    agent.result = AgentResult("unstructured", text, agent.stop, problems=[*verdict.problems], report=verdict.report)
