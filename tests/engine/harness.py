"""What the engine's tests share: settings for the loopback model, a few tools, and runs over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from halo_mcp.engine.ask import ask
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.run import Hooks, Run, RunResult
from halo_mcp.engine.settings import Limits, LLMSettings, Wire
from halo_mcp.engine.types import Event, Json, Tool
from tests.engine.fake_llm import FakeLLM, Script

KEY = "sk-very-secret-0123456789"
WIRES = pytest.mark.parametrize("wire", ["chat", "responses"])
ANY_OBJECT: Json = {"type": "object", "properties": {"n": {"type": "integer"}}}


async def _view(arguments: Json) -> str:
    return f"trace {arguments.get('n', 0)}: tool timeout"


async def _big(arguments: Json) -> str:
    return f"<{arguments.get('n', 0)}>" + "x" * 9_000 + "END"


async def _fail(arguments: Json) -> str:
    raise RuntimeError("disk on fire")


TOOLS = (
    Tool("view_trace", "Shows a trace.", ANY_OBJECT, _view),
    Tool("big", "A large result.", ANY_OBJECT, _big),
    Tool("fail", "Always fails.", ANY_OBJECT, _fail),
)


def settings_for(server: FakeLLM, wire: Wire | None = "chat", **changes: Any) -> LLMSettings:
    known: dict[str, Any] = {"api": wire or "auto", "backoff_s": 0.001, "idle_s": 20.0, **changes}
    return LLMSettings(model="m", base_url=server.base_url, api_key=KEY, **known)


@dataclass
class Played:
    """What came of a run against a script."""

    server: FakeLLM
    run: Run
    result: RunResult
    events: list[Event]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "text"]

    def data(self, kind: str) -> list[Json]:
        return [event.data for event in self.events if event.kind == kind]


@dataclass
class Stage:
    """A server, an endpoint and a run, ready to be asked."""

    script: Script
    wire: Wire | None = "chat"
    settings: Json = field(default_factory=dict[str, Any])
    limits: Json = field(default_factory=dict[str, Any])
    tools: Sequence[Tool] = TOOLS
    hooks: Hooks = field(default_factory=Hooks)
    first_wire: Wire | None = None
    """What was learned about the endpoint before."""


async def play(script: Script, wire: Wire | None = "chat", **more: Any) -> Played:
    """Ask one question; `more` as in Stage. Afterwards no request is open and every call was answered once."""
    stage = Stage(script, wire, **more)
    events: list[Event] = []
    stage.hooks.on_event = events.append
    async with FakeLLM(stage.script) as server:
        endpoint = Endpoint(settings_for(server, stage.wire, **stage.settings))
        endpoint.quirks("m").wire = stage.first_wire
        run = Run(endpoint, stage.tools, hooks=stage.hooks, limits=Limits(**stage.limits))
        try:
            result = await ask(run, "What goes wrong?")
        finally:
            await endpoint.aclose()
        await server.idle()
    assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
    return Played(server, run, result, events)
