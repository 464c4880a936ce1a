"""Asking the model: the only place that repeats a failed request, and that counts what a reply cost."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Set
from dataclasses import replace
from typing import Final

import anyio

from halo_mcp.engine.failures import Decision, classify
from halo_mcp.engine.run import Run
from halo_mcp.engine.state import CHARS_PER_TOKEN, Agent
from halo_mcp.engine.types import Call, Json, Message, ToolSpec, Turn, Usage
from halo_mcp.engine.wires import Request, message_chars
from halo_mcp.errors import ContextOverflow, GaveUp, MalformedReply, ModelRejected

MAX_BACKOFF_S: Final = 30.0
_TRUNCATED: Final = 0.4
"""A server that counts less than this share of what was sent has read only a part of it."""
_TRUNCATED_MIN_TOKENS: Final = 2_000


async def ask_model(run: Run, agent: Agent, request: Request) -> Turn:
    """One reply that counts. Raises: ContextOverflow; GaveUp; ModelRejected.

    Failures are repeated here and nowhere else. They count per run, and several that ran side by side count as
    one: an endpoint that is down fails all of them at once.
    """
    malformed = 0
    while True:
        await _may_ask(run, agent)
        # As the request is sent: another agent's request may teach the endpoint's ways meanwhile.
        round_, wire = run.round, run.endpoint.wire(request.model)
        known = frozenset(run.endpoint.quirks(request.model).dropped)
        sent_at = time.time()
        try:
            turn = await _try(run, agent, request)
        except Exception as error:
            if isinstance(error, TimeoutError) and run.meter.hard_stop():
                raise GaveUp("seconds", "the time of this run is over") from None
            decision = classify(error, wire, run.endpoint.secrets)
            if _learned(run, agent, request.model, decision, known):
                continue
            malformed += decision.kind == "malformed"
            if malformed >= 2:
                run.endpoint.quirks(request.model).no_stream = True
            if run.round == round_:
                run.round += 1
                run.failures += 1
            await _before_retry(run, agent, decision)
            continue
        run.failures = 0
        _count(run, agent, request, turn)
        if run.hooks.on_reply:
            run.hooks.on_reply(agent, request, turn, sent_at)
        return turn


async def _may_ask(run: Run, agent: Agent) -> None:
    if run.gate.remaining_s() > 0:
        run.emit(agent, "waiting", seconds=round(run.gate.remaining_s(), 1), reason="rate limited")
    await run.gate.wait(run.meter.remaining_s())
    if stop := agent.meter.hard_stop():
        raise GaveUp(stop, "the budget is used up")


async def _try(run: Run, agent: Agent, request: Request) -> Turn:
    seconds = min(run.endpoint.settings.turn_s, run.meter.remaining_s())
    async with run.requests:
        run.meter.totals.requests += 1
        with anyio.fail_after(seconds):
            return await run.endpoint.ask(request, lambda text: run.emit(agent, "text", text=text))


def _learned(run: Run, agent: Agent, model: str, decision: Decision, known: Set[str]) -> bool:
    """True when the same request, sent differently, may work; raises what no repetition cures."""
    quirks = run.endpoint.quirks(model)
    if decision.kind == "context":
        quirks.learn_window(decision.window)
        raise ContextOverflow(decision.message, decision.window)
    if decision.kind == "switch" and decision.wire and run.endpoint.settings.api == "auto":
        if quirks.wire == decision.wire:
            return True
        if quirks.switch(decision.wire):
            run.emit(agent, "learned", wire=decision.wire, reason=decision.message)
            return True
    if decision.kind == "drop" and decision.parameter not in known:
        if quirks.drop(decision.parameter):
            run.emit(agent, "learned", dropped=decision.parameter, reason=decision.message)
        return True
    if decision.kind in ("switch", "drop", "fatal"):
        raise ModelRejected(decision.message, decision.hint)
    return False


async def _before_retry(run: Run, agent: Agent, decision: Decision) -> None:
    run.emit(agent, "retry", failure=run.failures, reason=decision.message)
    if run.failures >= run.limits.llm_failures:
        raise GaveUp("llm_failures", decision.message)
    if decision.retry_after_s is not None:
        run.gate.hold(decision.retry_after_s)
        return
    most = min(MAX_BACKOFF_S, run.endpoint.settings.backoff_s * 2**run.failures)
    await anyio.sleep(min(random.uniform(0, most), run.meter.remaining_s()))


def _count(run: Run, agent: Agent, request: Request, turn: Turn) -> None:
    chars = request.chars()
    usage = turn.usage
    if usage is None or not usage.input:
        out = message_chars(Message("assistant", turn.text, turn))
        usage = Usage(input=agent.tokens(chars), output=agent.tokens(out), estimated=True)
    elif usage.input < _TRUNCATED * chars / CHARS_PER_TOKEN and chars / CHARS_PER_TOKEN > _TRUNCATED_MIN_TOKENS:
        run.warn(
            agent,
            "The server counts far fewer input tokens than were sent: it may cut off the beginning. Give the model a "
            "longer context there, or lower HALO_MCP_CONTEXT_TOKENS.",
            f" First seen: {usage.input:,} counted, about {chars / CHARS_PER_TOKEN:,.0f} sent.",
        )
    elif usage.input >= 500:
        agent.chars_per_token = min(6.0, max(1.5, chars / usage.input))
    turn.usage = _priced(run, agent, request.model, usage)
    agent.meter.add(turn.usage)


def _priced(run: Run, agent: Agent, model: str, usage: Usage) -> Usage:
    price = run.endpoint.settings.prices.get(model)
    if usage.usd is not None or price is None:
        if usage.usd is None and run.limits.max_usd is not None:
            run.warn(agent, f"The cost limit is not kept: there is no price for model {model!r}.")
        return usage
    cached = price.input if price.cached is None else price.cached
    usd = (usage.input - usage.cached) * price.input + usage.cached * cached + usage.output * price.output
    return replace(usage, usd=usd / 1e6)


async def one_call(run: Run, agent: Agent, system: str, text: str, tool: ToolSpec, model: str = "") -> Json:
    """One question that is answered by the arguments of one forced tool call, without a conversation.

    For work that needs no agent, such as reading a batch of digests. The same question is paid for once in a run.
    Raises: EngineError.
    """
    sent = json.dumps([model or agent.model, system, text, tool.name])
    key = hashlib.sha256(sent.encode()).hexdigest()
    if key in run.singles:
        return run.singles[key]
    request = Request(model or agent.model, system, [Message("user", text)], tools=[tool], force=tool.name)
    turn = await ask_model(run, agent, request)
    found = next((call.parse() for call in turn.calls if call.name == tool.name), None)
    if found is None:
        found = _json_in(turn.text)
    if found is None:
        raise MalformedReply(f"the model did not call {tool.name} with a JSON object")
    run.singles[key] = found
    await run.save()
    return found


def _json_in(text: str) -> Json | None:
    """The JSON object that a text consists of, in a code fence or not; models write that where they should call."""
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    return Call("", "", body).parse() if body.strip() else None
