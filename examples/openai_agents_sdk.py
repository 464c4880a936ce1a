"""Traces of the OpenAI Agents SDK: a trace processor that writes one JSON line per span.

By default the SDK talks to the Responses API, and the span of such a call exports an id and token counts only: no
model, no messages. They are there all the same, on the span's data (``response``, ``input``); ``llm_attributes`` takes
them. Needs ``openai-agents``; with OPENAI_BASE_URL and OPENAI_API_KEY set:

    python examples/openai_agents_sdk.py traces.jsonl
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from agents import Agent, RunContextWrapper, Runner, custom_span, function_tool, set_trace_processors, trace
from agents.tracing import Span, Trace
from agents.tracing.processor_interface import TracingProcessor

KINDS = {
    "agent": "AGENT",
    "response": "LLM",
    "generation": "LLM",
    "function": "TOOL",
    "mcp_tools": "TOOL",
    "guardrail": "GUARDRAIL",
    "handoff": "CHAIN",
}


class FileProcessor(TracingProcessor):
    """Appends every span to a file when it ends. ``metadata`` of a trace (task.id, run.id) goes onto its spans."""

    def __init__(self, path: Path, service: str) -> None:
        self._path = path
        self._service = service
        self._writing = threading.Lock()
        self._traces: dict[str, Trace] = {}

    def on_trace_start(self, trace: Trace) -> None:
        self._traces[trace.trace_id] = trace

    def on_trace_end(self, trace: Trace) -> None:
        self._traces.pop(trace.trace_id, None)

    def on_span_start(self, span: Span[Any]) -> None:
        pass

    def on_span_end(self, span: Span[Any]) -> None:
        line = json.dumps(self._line(span), default=str) + "\n"
        with self._writing, self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass

    def _line(self, span: Span[Any]) -> dict[str, Any]:
        data = span.span_data
        exported = data.export()
        trace = self._traces.get(span.trace_id)
        attributes: dict[str, Any] = {"openinference.span.kind": KINDS.get(data.type, "CHAIN")}
        if trace is not None:
            exported_trace = trace.export() or {}
            attributes["agent.workflow.name"] = trace.name
            attributes["session.id"] = exported_trace.get("group_id")
            attributes.update(exported_trace.get("metadata") or {})
        attributes.update(attributes_of(data, exported))
        name = exported.get("name") or attributes.get("llm.model_name")
        return {
            "trace_id": span.trace_id.removeprefix("trace_"),
            "span_id": span.span_id.removeprefix("span_"),
            "parent_span_id": (span.parent_id or "").removeprefix("span_"),
            "name": f"{data.type}.{name}" if name else data.type,
            "kind": "SPAN_KIND_CLIENT" if KINDS.get(data.type) == "LLM" else "SPAN_KIND_INTERNAL",
            "start_time": utc(span.started_at),
            "end_time": utc(span.ended_at),
            "status": status_of(span),
            "resource": {"attributes": {"service.name": self._service}},
            "scope": {"name": "openai-agents-sdk"},
            "attributes": {key: value for key, value in attributes.items() if value is not None},
        }


def attributes_of(data: Any, exported: dict[str, Any]) -> dict[str, Any]:
    """What is worth knowing of a span, by its type."""
    if data.type in ("response", "generation"):
        return llm_attributes(data)
    if data.type == "agent":
        return {"agent.name": exported["name"], "agent.tools": as_json(exported.get("tools"))}
    if data.type == "function":
        return {
            "tool.name": exported["name"],
            "input.value": exported.get("input"),
            "output.value": as_text(exported.get("output")),
        }
    if data.type == "handoff":
        return {"agent.handoff.from": exported.get("from_agent"), "agent.handoff.to": exported.get("to_agent")}
    if data.type == "guardrail":
        return {"guardrail.name": exported.get("name"), "guardrail.triggered": exported.get("triggered")}
    if data.type == "custom":
        return dict(exported.get("data") or {})
    return {f"sdk.{key}": as_text(value) for key, value in exported.items() if key != "type"}


def llm_attributes(data: Any) -> dict[str, Any]:
    """Model, messages, tools and tokens of a call, on the Responses path and on the Chat Completions path."""
    usage = data.usage or {}
    attributes = {
        "llm.provider": "openai",
        "llm.token_count.prompt": usage.get("input_tokens"),
        "llm.token_count.completion": usage.get("output_tokens"),
        "llm.token_count.prompt_details.cache_read": (usage.get("input_tokens_details") or {}).get("cached_tokens"),
    }
    if data.type == "generation":
        return attributes | {
            "llm.model_name": data.model,
            "llm.input_messages": as_json(data.input),
            "llm.output_messages": as_json(data.output),
            "llm.invocation_parameters": as_json(data.model_config),
        }
    if (response := data.response) is None:  # the call failed before there was one
        return attributes
    instructions = response.instructions if isinstance(response.instructions, str) else None
    system = [{"role": "system", "content": instructions}] if instructions else []
    given = [{"role": "user", "content": data.input}] if isinstance(data.input, str) else list(data.input or [])
    return attributes | {
        "llm.model_name": response.model,
        "llm.response.id": response.id,
        "llm.input_messages": as_json([message for item in [*system, *given] for message in messages_of(item)]),
        "llm.output_messages": as_json([message for item in response.output for message in messages_of(item)]),
        "llm.tools": as_json([tool.model_dump(exclude_none=True) for tool in response.tools]),
    }


def messages_of(item: Any) -> list[dict[str, Any]]:
    """An item of the Responses API as a message: role, content, tool calls."""
    item = item if isinstance(item, dict) else item.model_dump(exclude_none=True)
    if item.get("type") == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        return [
            {"role": "assistant", "tool_calls": [{"id": item["call_id"], "type": "function", "function": function}]}
        ]
    if item.get("type") == "function_call_output":
        return [{"role": "tool", "tool_call_id": item["call_id"], "content": as_text(item["output"])}]
    if "role" in item:
        content = item.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        return [{"role": item["role"], "content": "".join(p.get("text") or p.get("refusal") or "" for p in parts)}]
    return [{"role": "assistant", "content": as_json(item)}]  # reasoning, searches of the host, and what comes next


def status_of(span: Span[Any]) -> dict[str, str]:
    """The SDK says "Error running tool (non-fatal)" and keeps the cause beside it, unless it was told to redact it."""
    if not span.error:
        return {"code": "STATUS_CODE_OK", "message": ""}
    cause = (span.error.get("data") or {}).get("error")
    return {"code": "STATUS_CODE_ERROR", "message": as_text(cause) or span.error["message"]}


def utc(moment: str | None) -> str:
    return datetime.fromisoformat(moment).isoformat(timespec="microseconds") if moment else ""


def as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, default=str)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)


# --- an agent that uses it -------------------------------------------------------------------------------------------


def told(_: RunContextWrapper[Any], error: Exception) -> str:
    """What the model reads of a failed tool. With the SDK's own function, neither model nor trace learns the cause."""
    return f"Error: {error}"


@function_tool(failure_error_function=told)
def get_order(order_id: str) -> str:
    """Where an order is."""
    if order_id != "A-1":
        raise LookupError(f"no order {order_id}")
    return "shipped"


def run_task(agent: Agent, task_id: str, question: str, expected: str) -> None:
    """One task, one trace. Task, run and outcome make two runs comparable."""
    with trace("orders", group_id="example", metadata={"task.id": task_id, "run.id": "example"}):
        answer = str(Runner.run_sync(agent, question).final_output)
        with custom_span("outcome", {"task.outcome": "pass" if expected in answer else "fail"}):
            pass


def main() -> None:
    # In place of the SDK's own processor, which sends traces to OpenAI; add_trace_processor() keeps it.
    set_trace_processors([FileProcessor(Path(sys.argv[1]), service="orders-example")])
    model = sys.argv[2] if len(sys.argv) > 2 else "gpt-5.2-mini"
    instructions = "You answer questions about orders. Use the tool."
    agent = Agent(name="orders", instructions=instructions, tools=[get_order], model=model)
    run_task(agent, "shipped-order", "Where is order A-1", expected="shipped")
    run_task(agent, "unknown-order", "Where is order B-2", expected="delivered")


if __name__ == "__main__":
    main()
