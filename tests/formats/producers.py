"""Traces as instrumentations of others really emit them, by the OpenTelemetry SDK and its own encoders.

    python producers.py openinference|openai-agents|gen-ai DIRECTORY

Runs two tasks of one agent against OPENAI_BASE_URL, and leaves ``traces.jsonl`` (OTLP JSON lines) and ``traces.pb``
(OTLP protobuf, each request behind its length) in the directory. Needs packages from PyPI; no test imports it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode

INSTRUCTIONS = "You answer questions about orders. Use the tool."
QUESTIONS = ("Where is order A-1", "Where is order B-2")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Where an order is.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}


class ProtobufExporter(SpanExporter):
    """Writes requests as the Collector's file exporter does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        message = encode_spans(spans).SerializeToString()
        with self._path.open("ab") as file:
            file.write(len(message).to_bytes(4, "big") + message)
        return SpanExportResult.SUCCESS


def get_order(order_id: str) -> str:
    """Where an order is."""
    if order_id != "A-1":
        raise LookupError(f"no order {order_id}")
    return "shipped"


# --- the openai client, with spans of one's own for agent and tools ---
OPENINFERENCE = {
    "agent": {"openinference.span.kind": "AGENT", "agent.name": "orders"},
    "tool": {"openinference.span.kind": "TOOL", "tool.name": "get_order"},
    "input": "input.value",
    "output": "output.value",
}
GEN_AI = {
    "agent": {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "orders"},
    "tool": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_order"},
    "input": "gen_ai.tool.call.arguments",
    "output": "gen_ai.tool.call.result",
}


def call_tool(tracer: Any, words: dict[str, Any], arguments: str) -> str:
    with tracer.start_as_current_span(
        "execute_tool get_order", attributes=words["tool"] | {words["input"]: arguments}
    ) as span:
        try:
            result = get_order(**json.loads(arguments))
        except LookupError as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            return f"Error: {error}"
        span.set_attribute(words["output"], result)
        return result


def run_client(provider: TracerProvider, words: dict[str, Any]) -> None:
    tracer, client = provider.get_tracer("orders"), openai.OpenAI()
    for question in QUESTIONS:
        with tracer.start_as_current_span("invoke_agent orders", attributes=words["agent"]):
            messages: list[Any] = [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": question},
            ]
            while True:
                reply = client.chat.completions.create(model="m", messages=messages, tools=[TOOL]).choices[0].message
                if not reply.tool_calls:
                    break
                messages.append(reply.model_dump(exclude_none=True))
                for call in reply.tool_calls:
                    result = call_tool(tracer, words, call.function.arguments)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)
    run_client(provider, OPENINFERENCE)


def gen_ai(provider: TracerProvider) -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)
    run_client(provider, GEN_AI)


# --- the agents SDK ---
def openai_agents(provider: TracerProvider) -> None:
    from agents import Agent, Runner, function_tool
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    OpenAIAgentsInstrumentor().instrument(tracer_provider=provider, exclusive_processor=True)
    tool = function_tool(get_order, failure_error_function=lambda _, error: f"Error: {error}")
    agent = Agent(name="orders", instructions=INSTRUCTIONS, tools=[tool], model="m")
    for question in QUESTIONS:
        Runner.run_sync(agent, question)


def main() -> None:
    directory = Path(sys.argv[2])
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(directory / "traces.jsonl")))
    provider.add_span_processor(BatchSpanProcessor(ProtobufExporter(directory / "traces.pb")))
    {"openinference": openinference, "openai-agents": openai_agents, "gen-ai": gen_ai}[sys.argv[1]](provider)
    provider.shutdown()


if __name__ == "__main__":
    main()
