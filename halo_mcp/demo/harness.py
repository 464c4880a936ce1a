"""One trace of the sample harness, recorded span by span in HALO's canonical form.

Knows how a span is written, not what happens in a trace (`stories`) and not what is counted (`truth`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal, NamedTuple

from halo_mcp.demo.texts import ORDER_RULE, PROMPTS

Span = dict[str, Any]
Message = dict[str, Any]

MODELS = {"coordinator": "gpt-4.1", "researcher": "gpt-4.1-mini", "billing": "gpt-4.1-mini"}
TOOLS = {
    "coordinator": ["calculator", "transfer_to_researcher", "transfer_to_billing"],
    "researcher": ["lookup_customer", "search_orders", "fetch_page"],
    "billing": ["refund"],
}
CONTEXT_CHARS = 200
"""The harness keeps this much of a tool result in the conversation; the tool span has all of it."""


class Recorded(NamedTuple):
    """A written span, and the failure mode that begins at it (empty for none)."""

    span: Span
    mode: str


@dataclass(frozen=True)
class Run:
    """What all traces of one run share."""

    id: str
    service_version: str
    start: datetime


@dataclass(frozen=True)
class Call:
    """One tool call and how it ends. With `error` the tool span gets status ERROR and this message."""

    tool: str
    arguments: Mapping[str, Any]
    output: str
    error: str = ""
    exception_type: str = ""
    mode: str = ""
    duration_ms: int = 0
    """0 draws a usual duration."""


@dataclass
class Agent:
    """An open agent span with its conversation."""

    name: str
    parent: "Agent | None"
    span_id: str
    start_us: int
    messages: list[Message]
    call_id: str = ""
    """The parent's tool call that this agent answers."""
    input_tokens: int = 0
    output_tokens: int = 0


def readable_json(value: object) -> str:
    """JSON without escapes for non-ASCII text."""
    return json.dumps(value, ensure_ascii=False)


def utc_time(moment: datetime, digits: Literal["seconds", "microseconds"]) -> str:
    """ISO 8601 without a zone; the caller adds what follows the last digit."""
    return moment.replace(tzinfo=None).isoformat(timespec=digits)


@dataclass
class TraceRecorder:
    """Writes the spans of one trace in the order in which they end, so children come before parents."""

    run: Run
    rng: Random
    offset_us: int
    """Start of the trace after the start of the run."""
    session_id: str
    user_id: str
    recorded: list[Recorded] = field(default_factory=list[Recorded])

    def __post_init__(self) -> None:
        self.trace_id = self._hex(32)
        self._now_us = self.offset_us

    def start(self, question: str) -> Agent:
        """Opens the root agent."""
        return self._open("coordinator", None, question)

    def delegate(self, parent: Agent, agent_name: str, brief: str) -> Agent:
        """Opens a sub-agent: an LLM span that asks for it, a handoff span, and an agent span still to be closed."""
        (call_id,) = self._generate(parent, "", [(f"transfer_to_{agent_name}", {"brief": brief})], "tool_calls", "")
        start_us = self._advance(2, 9)
        self._advance(1, 3)
        attributes = {
            "openinference.span.kind": "CHAIN",
            "agent.handoff.from": parent.name,
            "agent.handoff.to": agent_name,
        }
        self._write("handoff", "CHAIN", parent, start_us, attributes, agent_name=parent.name)
        agent = self._open(agent_name, parent, brief)
        agent.call_id = call_id
        return agent

    def turn(self, agent: Agent, thought: str, *calls: Call) -> None:
        """One LLM span that calls tools, and one tool span per call."""
        call_ids = self._generate(agent, thought, [(call.tool, call.arguments) for call in calls], "tool_calls", "")
        for call_id, call in zip(call_ids, calls, strict=True):
            self._call_tool(agent, call_id, call)

    def say(self, agent: Agent, text: str, *, finish_reason: str = "stop", mode: str = "") -> None:
        """One LLM span that answers with text."""
        self._generate(agent, text, [], finish_reason, mode)

    def close(self, agent: Agent, output: str, *, error: str = "", outcome: Mapping[str, Any] | None = None) -> None:
        """Ends an agent span; its answer, or its error, goes to the parent's conversation."""
        self._advance(1, 5)
        attributes: dict[str, Any] = {
            "openinference.span.kind": "AGENT",
            "agent.name": agent.name,
            "agent.handoffs": json.dumps(["researcher", "billing"] if agent.parent is None else []),
            "agent.tools": json.dumps(TOOLS[agent.name]),
            "agent.output_type": "str",
            "input.value": agent.messages[1]["content"],
            "output.value": output,
            **(outcome or {}),
        }
        usage = None
        if agent.parent is None:
            # A root span repeats the usage of its whole trace, as several SDKs write it.
            usage = (agent.input_tokens, agent.output_tokens)
            attributes |= _usage(*usage)
        self._write(
            f"agent.{agent.name}",
            "AGENT",
            agent.parent,
            agent.start_us,
            attributes,
            span_id=agent.span_id,
            agent_name=agent.name,
            error=error,
            usage=usage,
        )
        if agent.parent is not None:
            agent.parent.input_tokens += agent.input_tokens
            agent.parent.output_tokens += agent.output_tokens
            content = _cut(f"Error: {error}" if error else output)
            agent.parent.messages.append({"role": "tool", "tool_call_id": agent.call_id, "content": content})

    def _open(self, name: str, parent: Agent | None, text: str) -> Agent:
        prompt = PROMPTS[name] + (f" {ORDER_RULE[self.run.id]}" if name == "researcher" else "")
        messages: list[Message] = [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
        return Agent(name, parent, self._hex(24), self._advance(1, 4), messages)

    def _generate(
        self, agent: Agent, text: str, calls: Sequence[tuple[str, Mapping[str, Any]]], finish_reason: str, mode: str
    ) -> list[str]:
        """Writes an LLM span and returns the ids of its tool calls."""
        model = MODELS[agent.name]
        answer: Message = {"role": "assistant", "content": text}
        if calls:
            answer["tool_calls"] = [
                {
                    "id": f"call_{self._hex(12)}",
                    "type": "function",
                    "function": {"name": name, "arguments": readable_json(arguments)},
                }
                for name, arguments in calls
            ]
        inputs, outputs = readable_json(agent.messages), readable_json([answer])
        usage = (60 + len(inputs) // 4, 4 + len(outputs) // 4)
        start_us = self._advance(3, 20)
        self._advance(400 + usage[1] * 9, 900 + usage[1] * 14)
        attributes: dict[str, Any] = {
            "openinference.span.kind": "LLM",
            "llm.provider": "openai",
            "llm.model_name": model,
            "llm.invocation_parameters": '{"temperature": 0.2, "max_tokens": 1024}',
            "llm.input_messages": inputs,
            "llm.output_messages": outputs,
            **_usage(*usage),
            # HALO writes the input in this flat form too; left out here, it would add a third to the files.
            **_flat("llm.output_messages", answer),
            "gen_ai.response.finish_reasons": [finish_reason],
        }
        self._write(f"generation.{model}", "LLM", agent, start_us, attributes, model=model, usage=usage, mode=mode)
        agent.input_tokens += usage[0]
        agent.output_tokens += usage[1]
        agent.messages.append(answer)
        return [call["id"] for call in answer.get("tool_calls", [])]

    def _call_tool(self, agent: Agent, call_id: str, call: Call) -> None:
        start_us = self._advance(1, 12)
        if call.duration_ms:
            self._advance(call.duration_ms, call.duration_ms)
        else:
            self._advance(20, 900)
        attributes: dict[str, Any] = {
            "openinference.span.kind": "TOOL",
            "tool.name": call.tool,
            "input.value": readable_json(call.arguments),
            "output.value": call.output,
        }
        if call.exception_type:
            attributes["otel.events"] = [
                {
                    "name": "exception",
                    "time": self._time(self._now_us),
                    "attributes": {
                        "exception.type": call.exception_type,
                        "exception.message": call.error,
                        "exception.stacktrace": "Traceback (most recent call last):\n"
                        f'  File "/app/tools/{call.tool}.py", line 41, in run\n'
                        f"{call.exception_type}: {call.error}",
                    },
                }
            ]
        self._write(f"function.{call.tool}", "TOOL", agent, start_us, attributes, error=call.error, mode=call.mode)
        agent.messages.append({"role": "tool", "tool_call_id": call_id, "content": _cut(call.output)})

    def _write(
        self,
        name: str,
        kind: str,
        parent: Agent | None,
        start_us: int,
        attributes: Mapping[str, Any],
        *,
        span_id: str = "",
        agent_name: str = "",
        model: str | None = None,
        usage: tuple[int, int] | None = None,
        error: str = "",
        mode: str = "",
    ) -> None:
        span: Span = {
            "trace_id": self.trace_id,
            "span_id": span_id or self._hex(24),
            "parent_span_id": parent.span_id if parent else "",
            "trace_state": "",
            "name": name,
            "kind": "SPAN_KIND_CLIENT" if kind == "LLM" else "SPAN_KIND_INTERNAL",
            "start_time": self._time(start_us),
            "end_time": self._time(self._now_us),
            "status": {"code": "STATUS_CODE_ERROR" if error else "STATUS_CODE_OK", "message": error},
            "resource": {
                "attributes": {
                    "service.name": "support-harness",
                    "service.version": self.run.service_version,
                    "deployment.environment": "evaluation",
                }
            },
            "scope": {"name": "openai-agents-sdk", "version": "0.14.7"},
            "attributes": {
                **attributes,
                "agent.workflow.name": "support",
                "agent.workflow.group_id": self.session_id,
                "inference.export.schema_version": 1,
                "inference.project_id": "support-demo",
                "inference.observation_kind": kind,
                "inference.llm.provider": "openai" if model else None,
                "inference.llm.model_name": model,
                "inference.llm.input_tokens": usage[0] if usage else None,
                "inference.llm.output_tokens": usage[1] if usage else None,
                "inference.llm.cost.total": None,
                "inference.user_id": self.user_id,
                "inference.session_id": self.session_id,
                "inference.agent_name": agent_name,
            },
        }
        self.recorded.append(Recorded(span, mode))

    def _advance(self, low_ms: int, high_ms: int) -> int:
        """Moves the clock on and returns it, in microseconds after the start of the run."""
        self._now_us += self.rng.randint(low_ms * 1000, high_ms * 1000)
        return self._now_us

    def _time(self, offset_us: int) -> str:
        return utc_time(self.run.start + timedelta(microseconds=offset_us), "microseconds") + "000Z"

    def _hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"


def _cut(text: str) -> str:
    left_out = len(text) - CONTEXT_CHARS
    return text if left_out <= 0 else f"{text[:CONTEXT_CHARS]}… [{left_out} more characters]"


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "llm.token_count.prompt": input_tokens,
        "llm.token_count.completion": output_tokens,
        "llm.token_count.total": input_tokens + output_tokens,
    }


def _flat(prefix: str, message: Message) -> dict[str, str]:
    """OpenInference's flat form of a list of one message."""
    flat = {f"{prefix}.0.message.{key}": message[key] for key in ("role", "content") if message[key]}
    for i, call in enumerate(message.get("tool_calls", [])):
        call_prefix = f"{prefix}.0.message.tool_calls.{i}.tool_call"
        flat[f"{call_prefix}.id"] = call["id"]
        flat[f"{call_prefix}.function.name"] = call["function"]["name"]
        flat[f"{call_prefix}.function.arguments"] = call["function"]["arguments"]
    return flat
