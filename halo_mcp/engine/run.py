"""One run: what its agents share. Slots, budget, ledger, events, warnings and the saved state."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import anyio

from halo_mcp.engine.budget import Meter, Totals
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.failures import RateGate, redact
from halo_mcp.engine.history import History, Ledger
from halo_mcp.engine.settings import Limits
from halo_mcp.engine.state import Agent, meter_of
from halo_mcp.engine.types import (
    AgentResult,
    Event,
    EventKind,
    FinalAnswer,
    Json,
    LedgerItem,
    Tool,
    Turn,
    Verification,
    Verify,
)
from halo_mcp.engine.wires import Request
from halo_mcp.errors import BadArgument

STATE_VERSION: Final = 2
"""Bumped when a saved state can no longer be read."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to and what it used."""

    run_id: str
    result: AgentResult
    totals: Totals
    seconds: float
    subagents: int
    tool_calls: int
    model: str
    api: str
    warnings: Sequence[str]

    def to_json(self) -> Json:
        return {**asdict(self), "result": self.result.to_json()}


@dataclass(slots=True)
class Hooks:
    """What a run tells its owner. A hook that raises ends the run."""

    on_event: Callable[[Event], None] | None = None
    """Called at once, in order; must not wait."""
    checkpoint: Callable[[Json], Awaitable[None]] | None = None
    """Gets the state after every paid turn and at the end, as JSON; see `Run.restore`."""
    verify: Verify | None = None
    on_reply: Callable[[Agent, Request, Turn, float], None] | None = None
    """Gets every reply that counted, with its usage, what was sent for it, and when (seconds since the epoch)."""


@dataclass(slots=True)
class Run:
    """One question and everything that is done for it. Made inside an event loop; used once."""

    endpoint: Endpoint
    tools: Sequence[Tool]
    """For every agent."""
    root_tools: Sequence[Tool] = ()
    """For the root agent only."""
    hooks: Hooks = field(default_factory=Hooks)
    limits: Limits = field(default_factory=Limits)
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))
    dataset_context: str = ""
    sections: Sequence[str] = ()
    """Further parts of the system prompts."""
    agents: dict[str, Agent] = field(default_factory=dict[str, Agent], init=False)
    warnings: list[str] = field(default_factory=list[str], init=False)
    nonce: str = field(default_factory=lambda: secrets.token_hex(4), init=False)
    ledger: Ledger = field(init=False)
    meter: Meter = field(init=False)
    gate: RateGate = field(default_factory=RateGate, init=False)
    slots: dict[int, anyio.Semaphore] = field(default_factory=dict[int, anyio.Semaphore], init=False)
    """Subagents at work, by depth: one cap for all depths would let parents wait for their own children."""
    requests: anyio.Semaphore = field(init=False)
    _sequence: int = field(default=0, init=False)
    singles: dict[str, Json] = field(default_factory=dict[str, Json], init=False)
    """What came of single calls that were paid for, by what was sent: a resumed run does not pay for them again."""
    failures: int = field(default=0, init=False)
    """Rounds of failed requests in a row."""
    round: int = field(default=0, init=False)
    """Counts rounds: requests that fail side by side are one failure of the endpoint."""
    _saving: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    def __post_init__(self) -> None:
        self.endpoint.settings.require()
        self.ledger = Ledger(self.nonce)
        self.meter = Meter(self.limits)
        self.requests = anyio.Semaphore(self.limits.max_requests)
        self.slots = {depth: anyio.Semaphore(self.limits.max_parallel) for depth in range(1, self.limits.max_depth + 1)}

    # -- what happened -------------------------------------------------------------------------------------------

    def emit(self, agent: Agent | None, kind: EventKind, **data: Any) -> None:
        self._sequence += 1
        if self.hooks.on_event:
            agent_id, parent_id, depth = (agent.id, agent.parent_id, agent.depth) if agent else ("", "", 0)
            self.hooks.on_event(Event(self._sequence, self.run_id, agent_id, parent_id, depth, kind, data))

    def warn(self, agent: Agent | None, text: str, detail: str = "") -> None:
        """Say something once, as an event and in the result; with the detail of the first time."""
        if not any(said.startswith(text) for said in self.warnings):
            self.warnings.append(text + detail)
            self.emit(agent, "warning", text=text + detail)

    def clean(self, text: str) -> str:
        """The text without the endpoint's secrets, and without what the user wants masked."""
        return self.endpoint.settings.mask(redact(text, self.endpoint.secrets))

    # -- the saved state -----------------------------------------------------------------------------------------

    def state(self) -> Json:
        """Everything needed to go on, as JSON. Holds tool results and no settings; `clean` what is kept of it."""
        return {
            "version": STATE_VERSION,
            "run_id": self.run_id,
            "nonce": self.nonce,
            "sequence": self._sequence,
            "warnings": [*self.warnings],
            "meter": self.meter.to_json(),
            "ledger": self.ledger.to_json(),
            "singles": dict(self.singles),
            "agents": [agent.to_json() for agent in self.agents.values()],
        }

    async def save(self) -> None:
        """Hand the state to the checkpoint hook. One at a time, so that an older state never overwrites a newer."""
        if self.hooks.checkpoint:
            async with self._saving:
                await self.hooks.checkpoint(self.state())

    def restore(self, state: Json) -> None:
        """Go on where a saved run stopped, under this run's limits. Raises: BadArgument."""
        if state.get("version") != STATE_VERSION:
            raise BadArgument("This run was saved by another version of halo-mcp and cannot be resumed; ask again.")
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadArgument("The saved state of this run is damaged and cannot be resumed; ask again.") from None

    def _restore(self, state: Json) -> None:
        self.run_id, self.nonce, self._sequence = state["run_id"], state["nonce"], state["sequence"]
        self.warnings, self.singles = [*state["warnings"]], dict(state["singles"])
        self.ledger = Ledger(self.nonce, [LedgerItem(**item) for item in state["ledger"]])
        self.meter = meter_of(state["meter"], None, self.limits)
        for data in state["agents"]:
            agent = self._agent(data)
            self.agents[agent.id] = agent
        self.agents["root"]  # there is nothing to go on with without it

    def _agent(self, data: Json) -> Agent:
        parent = self.agents.get(data["parent_id"])
        parts: Json = {
            **data,
            "history": History.from_json(data["history"]),
            "meter": meter_of(data["meter"], parent.meter) if parent else self.meter,
            "draft": FinalAnswer.model_validate(data["draft"]) if data["draft"] else None,
            "result": AgentResult.from_json(data["result"]) if data["result"] else None,
        }
        agent = Agent(**parts)
        if not parent:
            agent.max_turns = self.limits.max_turns
            if agent.result and agent.result.salvaged:  # what ended it then may be over now
                agent.result, agent.stop, agent.rescuing = None, None, False
        return agent

    # -- what the agents ask of their run ------------------------------------------------------------------------

    def window(self, model: str) -> int:
        """Tokens of the model's context, as configured or as the endpoint said."""
        learned = self.endpoint.quirks(model).window
        return min(self.endpoint.settings.context_tokens, learned or self.endpoint.settings.context_tokens)

    async def verified(self, answer: FinalAnswer) -> Verification:
        """What the check from outside says; when the check itself fails, the answer is kept and flagged."""
        if self.hooks.verify is None:
            return Verification()
        try:
            return await self.hooks.verify(answer, self.ledger.items())
        except Exception as error:
            return Verification([self.clean(f"The evidence could not be checked: {type(error).__name__}: {error}")])

    def outcome(self, result: AgentResult) -> RunResult:
        """The result of the run with what it used so far."""
        settings = self.endpoint.settings
        return RunResult(
            self.run_id,
            result,
            self.meter.totals,
            round(self.meter.elapsed_s(), 3),
            len(self.agents) - 1,
            sum(agent.tool_calls for agent in self.agents.values()),
            settings.model,
            self.endpoint.wire(settings.model),
            [*self.warnings],
        )
