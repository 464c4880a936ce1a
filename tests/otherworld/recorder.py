"""One trace of the coding agent, written span by span as OpenTelemetry's GenAI conventions say.

https://opentelemetry.io/docs/specs/semconv/gen-ai/ (gen-ai-spans, gen-ai-agent-spans).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

Span = dict[str, Any]
Part = dict[str, Any]

START_NANO: Final = 1_783_036_800_000_000_000
MODELS: Final = {"engineer": "claude-sonnet-4-5", "tester": "claude-haiku-4-5"}
PROMPTS: Final = {
    "engineer": "You change code in a repository. Hand testing to the tester.",
    "tester": "You run the test suite and say what failed.",
}


class Recorded(NamedTuple):
    """A written span, and what was put into it on purpose."""

    span: Span
    mode: str
    """The failure that begins here; "" for none."""
    false_alarm: str
    """Looks like a failure and is none."""


@dataclass(frozen=True)
class Fault:
    """How a span says that it failed: an ERROR status, an exception event, or only ``error.type``."""

    message: str
    exception_type: str = ""
    error_type: str = ""
    exception_message: str | None = None
    """The status message by default."""

    @property
    def attributes(self) -> dict[str, str]:
        return {"error.type": self.error_type or self.exception_type} if self.error_type or self.exception_type else {}

    def events(self, time: str) -> list[dict[str, Any]]:
        if not self.exception_type:
            return []
        message = self.message if self.exception_message is None else self.exception_message
        attributes = {"exception.type": self.exception_type, "exception.message": message}
        return [{"name": "exception", "time": time, "attributes": attributes}]


@dataclass
class Agent:
    """An open ``invoke_agent`` span with its conversation."""

    name: str
    parent: Agent | None
    span_id: str
    start: int
    messages: list[dict[str, Any]]
    usage: list[int] = field(default_factory=lambda: [0, 0])


class Recorder:
    """Writes the spans of one trace in the order in which they end."""

    def __init__(self, number: int, rng: Random) -> None:
        self.rng = rng
        self.trace_id = self._hex(32)
        self.conversation_id = f"conv_{self._hex(12)}"
        self.recorded: list[Recorded] = []
        self._now = START_NANO + number * 3_000_000_000

    def open(self, name: str, text: str, parent: Agent | None = None) -> Agent:
        message = {"role": "user", "parts": [{"type": "text", "content": text}]}
        return Agent(name, parent, self._hex(16), self._advance(2), [message])

    def close(
        self,
        agent: Agent,
        text: str,
        *,
        fault: Fault | None = None,
        mode: str = "",
        task: Mapping[str, Any] | None = None,
    ) -> None:
        self._advance(3)
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": agent.name,
            "gen_ai.agent.id": f"agent-{agent.name}-01",
            "gen_ai.input.messages": _json(agent.messages[:1]),
            "gen_ai.output.messages": _json([_assistant([{"type": "text", "content": text}] if text else [], "stop")]),
            **_usage(*agent.usage),
            **(task or {}),
        }
        self._write(
            f"invoke_agent {agent.name}", agent.parent, agent.start, attributes, fault, mode, span_id=agent.span_id
        )
        if agent.parent:
            agent.parent.usage = [a + b for a, b in zip(agent.parent.usage, agent.usage, strict=True)]
            said = [{"type": "text", "content": f"{agent.name}: {fault.message if fault else text}"}]
            agent.parent.messages.append({"role": "user", "parts": said})

    def chat(
        self,
        agent: Agent,
        text: str,
        calls: Sequence[Part] = (),
        *,
        finish: str = "",
        fault: Fault | None = None,
        mode: str = "",
    ) -> None:
        """One request to the model; ``calls`` are ``tool_call`` parts. A failed request has no answer and no usage."""
        parts = ([{"type": "text", "content": text}] if text else []) + list(calls)
        finish = finish or ("tool_call" if calls else "stop")
        inputs = _json(agent.messages)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": MODELS[agent.name],
            "gen_ai.request.max_tokens": 2048,
            "gen_ai.system_instructions": _json([{"type": "text", "content": PROMPTS[agent.name]}]),
            "gen_ai.input.messages": inputs,
        }
        start = self._advance(5)
        self._advance(400)
        if fault is None:
            answer = _assistant(parts, finish)
            usage = (40 + len(inputs) // 4, 3 + len(_json(answer)) // 4)
            attributes |= {
                "gen_ai.response.model": f"{MODELS[agent.name]}-20260101",
                "gen_ai.response.finish_reasons": [finish],
                "gen_ai.output.messages": _json([answer]),
                **_usage(*usage),
            }
            agent.usage = [agent.usage[0] + usage[0], agent.usage[1] + usage[1]]
            agent.messages.append(answer)
        self._write(f"chat {MODELS[agent.name]}", agent, start, attributes, fault, mode, kind="CLIENT")

    def tool(
        self,
        agent: Agent,
        tool: str,
        arguments: Mapping[str, Any],
        result: str,
        *,
        fault: Fault | None = None,
        mode: str = "",
        false_alarm: str = "",
    ) -> None:
        """A request that asks for one tool, then the call."""
        call_id = f"toolu_{self._hex(10)}"
        self.chat(agent, "", [{"type": "tool_call", "id": call_id, "name": tool, "arguments": dict(arguments)}])
        start = self._advance(1)
        self._advance(150)
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.call.arguments": _json(arguments),
        } | ({} if fault else {"gen_ai.tool.call.result": result})
        self._write(f"execute_tool {tool}", agent, start, attributes, fault, mode, false_alarm=false_alarm)
        response = {"type": "tool_call_response", "id": call_id, "response": (fault.message if fault else result)[:200]}
        agent.messages.append({"role": "tool", "parts": [response]})

    def _write(
        self,
        name: str,
        parent: Agent | None,
        start: int,
        attributes: Mapping[str, Any],
        fault: Fault | None,
        mode: str,
        *,
        span_id: str = "",
        kind: str = "INTERNAL",
        false_alarm: str = "",
    ) -> None:
        attributes = {**attributes, "gen_ai.conversation.id": self.conversation_id}
        status = {"code": "STATUS_CODE_UNSET"}
        if fault:
            attributes |= fault.attributes
            status = {"code": "STATUS_CODE_ERROR", "message": fault.message}
        span: Span = {
            "trace_id": self.trace_id,
            "span_id": span_id or self._hex(16),
            "parent_span_id": parent.span_id if parent else None,
            "name": name,
            "kind": f"SPAN_KIND_{kind}",
            "start_time": str(start),
            "end_time": str(self._now),
            "status": status,
            "resource": {"attributes": {"service.name": "patch-bot", "service.version": "0.9.2"}},
            "scope": {"name": "opentelemetry.instrumentation.genai", "version": "0.3"},
            "attributes": attributes,
            "events": fault.events(str(self._now)) if fault else [],
        }
        self.recorded.append(Recorded(span, mode, false_alarm))

    def _advance(self, ms: int) -> int:
        self._now += self.rng.randint(ms * 700_000, ms * 1_300_000)
        return self._now

    def _hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"


def _assistant(parts: Sequence[Part], finish: str) -> dict[str, Any]:
    return {"role": "assistant", "parts": list(parts), "finish_reason": finish}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": input_tokens, "gen_ai.usage.output_tokens": output_tokens}
