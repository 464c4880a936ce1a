"""Traces of any OpenTelemetry or OpenInference instrumentation: an exporter that writes one JSON line per span.

Here with the OpenInference instrumentation of the ``openai`` client, and spans of one's own for agent and tools.
Needs ``opentelemetry-sdk``, ``openinference-instrumentation-openai`` and ``openai``; with OPENAI_BASE_URL and
OPENAI_API_KEY set:

    python examples/opentelemetry_file.py traces.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode


class JsonLinesExporter(SpanExporter):
    """Appends finished spans to a file. Use it beside or instead of an OTLP exporter."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(json.dumps(line_of(span), default=str) + "\n" for span in spans)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(lines)
        return SpanExportResult.SUCCESS


def line_of(span: ReadableSpan) -> dict[str, Any]:
    """A span with the names of OTLP; times in nanoseconds."""
    return {
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": f"SPAN_KIND_{span.kind.name}",
        "start_time": span.start_time,
        "end_time": span.end_time,
        "status": {"code": f"STATUS_CODE_{span.status.status_code.name}", "message": span.status.description or ""},
        "resource": {"attributes": dict(span.resource.attributes)},
        "scope": {"name": span.instrumentation_scope.name, "version": span.instrumentation_scope.version},
        "attributes": dict(span.attributes or {}),
        "events": [
            {"name": event.name, "time": event.timestamp, "attributes": dict(event.attributes or {})}
            for event in span.events
        ],
        "links": [
            {"trace_id": f"{link.context.trace_id:032x}", "span_id": f"{link.context.span_id:016x}"}
            for link in span.links
        ],
    }


def set_up(path: Path, service: str) -> TracerProvider:
    """Instrument the ``openai`` client; ``shutdown()`` of what comes back writes the last spans."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(JsonLinesExporter(path)))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    return provider


# --- an agent that uses it -------------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Where an order is.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}


def get_order(order_id: str) -> str:
    if order_id != "A-1":
        raise LookupError(f"no order {order_id}")
    return "shipped"


def call_tool(tracer: Any, name: str, arguments: str) -> str:
    """No instrumentation sees one's own tools: without this span their failures are in no count."""
    facts = {"openinference.span.kind": "TOOL", "tool.name": name, "input.value": arguments}
    # The exception is recorded, and the model is told instead of the program ended.
    with tracer.start_as_current_span(name, attributes=facts) as span:
        try:
            result = get_order(**json.loads(arguments))
        except LookupError as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            return f"Error: {error}"
        span.set_attribute("output.value", result)
        return result


def run_task(tracer: Any, client: openai.OpenAI, model: str, task_id: str, question: str, expected: str) -> None:
    """One task, one trace. Task, run and outcome on the root span make two runs comparable."""
    facts = {"openinference.span.kind": "AGENT", "agent.name": "orders", "task.id": task_id, "run.id": "example"}
    with tracer.start_as_current_span("orders", attributes=facts) as span:
        messages: list[Any] = [
            {"role": "system", "content": "You answer questions about orders. Use the tool."},
            {"role": "user", "content": question},
        ]
        while True:
            reply = client.chat.completions.create(model=model, messages=messages, tools=[TOOL]).choices[0].message
            if not reply.tool_calls:
                break
            messages.append(reply.model_dump(exclude_none=True))
            for call in reply.tool_calls:
                result = call_tool(tracer, call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        span.set_attribute("output.value", reply.content or "")
        span.set_attribute("task.outcome", "pass" if expected in (reply.content or "") else "fail")


def main() -> None:
    provider = set_up(Path(sys.argv[1]), service="orders-example")
    model = sys.argv[2] if len(sys.argv) > 2 else "gpt-5.2-mini"
    tracer, client = provider.get_tracer("orders-example"), openai.OpenAI()
    run_task(tracer, client, model, "shipped-order", "Where is order A-1", expected="shipped")
    run_task(tracer, client, model, "unknown-order", "Where is order B-2", expected="delivered")
    provider.shutdown()


if __name__ == "__main__":
    main()
