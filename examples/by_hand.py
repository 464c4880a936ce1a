"""Traces by hand, with the standard library: copy ``Tracer`` into your program, or write the same lines elsewhere.

python examples/by_hand.py traces.jsonl
halo-mcp overview traces.jsonl
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_open_span: ContextVar[dict[str, Any] | None] = ContextVar("open_span", default=None)
"""The span that the next one is a child of; follows threads and tasks as context variables do."""


class Tracer:
    """Appends one JSON line per span to a file, when the span ends."""

    def __init__(self, path: Path, service: str, version: str = "") -> None:
        self._path = path
        self._resource = {"service.name": service, **({"service.version": version} if version else {})}
        self._writing = threading.Lock()

    @contextmanager
    def span(self, kind: str, name: str, **attributes: Any) -> Generator[dict[str, Any]]:
        """A span of kind AGENT, LLM, TOOL, CHAIN or GUARDRAIL, inside the one that is open.

        Yields its attributes, to be added to. An exception becomes the span's status, and goes on.
        """
        parent = _open_span.get()
        span: dict[str, Any] = {
            "trace_id": parent["trace_id"] if parent else secrets.token_hex(16),
            "span_id": secrets.token_hex(8),
            "parent_span_id": parent["span_id"] if parent else "",
            "name": name,
            "start_time": time.time_ns(),
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "resource": {"attributes": self._resource},
            "attributes": {"openinference.span.kind": kind, **attributes},
            "events": [],
        }
        token = _open_span.set(span)
        try:
            yield span["attributes"]
        except Exception as error:
            span["status"] = {"code": "STATUS_CODE_ERROR", "message": str(error)}
            facts = {"exception.type": type(error).__name__, "exception.message": str(error)}
            facts["exception.stacktrace"] = "".join(traceback.format_exception(error))
            span["events"].append({"name": "exception", "time": time.time_ns(), "attributes": facts})
            raise
        finally:
            _open_span.reset(token)
            self._write({**span, "end_time": time.time_ns()})

    def _write(self, span: dict[str, Any]) -> None:
        line = json.dumps(span, default=str) + "\n"
        with self._writing, self._path.open("a", encoding="utf-8") as file:
            file.write(line)


# --- an agent that uses it; its model is scripted ------------------------------------------------------------------

MODEL = "scripted-1"
PROMPT = "You answer questions about orders. Use the tool."
ORDERS = {"A-1": "shipped"}


def ask_model(tracer: Tracer, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """One call of the model; what was sent and what came back stand on the span, with the tokens."""
    with tracer.span("LLM", f"chat {MODEL}", **{"llm.model_name": MODEL, "llm.provider": "none"}) as attributes:
        attributes["llm.input_messages"] = json.dumps(messages)
        reply = scripted_model(messages)
        attributes["llm.output_messages"] = json.dumps([reply["message"]])
        attributes["llm.token_count.prompt"], attributes["llm.token_count.completion"] = reply["tokens"]
        return reply["message"]


def scripted_model(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Asks the tool once, then repeats what it said."""
    last = messages[-1]
    if last["role"] == "tool":
        return {"message": {"role": "assistant", "content": f"The tool says: {last['content']}"}, "tokens": (40, 8)}
    call: dict[str, Any] = {"id": "call_1", "type": "function"}
    call["function"] = {"name": "get_order", "arguments": json.dumps({"order_id": last["content"].split()[-1]})}
    return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "tokens": (25, 12)}


def get_order(tracer: Tracer, order_id: str) -> str:
    """A tool: its input, its output, and its exception stand on the span."""
    arguments = json.dumps({"order_id": order_id})
    with tracer.span("TOOL", "get_order", **{"tool.name": "get_order", "input.value": arguments}) as attributes:
        if order_id not in ORDERS:
            raise LookupError(f"no order {order_id}")
        attributes["output.value"] = ORDERS[order_id]
        return ORDERS[order_id]


def run_task(tracer: Tracer, task_id: str, run_id: str, question: str, expected: str) -> str:
    """One task, one trace. Task, run and outcome on the root span make two runs comparable."""
    with tracer.span("AGENT", "orders", **{"agent.name": "orders", "task.id": task_id, "run.id": run_id}) as attributes:
        messages: list[dict[str, Any]] = [{"role": "system", "content": PROMPT}, {"role": "user", "content": question}]
        attributes["input.value"] = question
        while (reply := ask_model(tracer, messages)).get("tool_calls"):
            (call,) = reply["tool_calls"]
            try:
                result = get_order(tracer, **json.loads(call["function"]["arguments"]))
            except LookupError as error:  # the model is told; the span of the tool keeps the error
                result = f"Error: {error}"
            messages += [reply, {"role": "tool", "tool_call_id": call["id"], "content": result}]
        attributes["output.value"] = answer = str(reply["content"])
        attributes["task.outcome"] = "pass" if expected in answer else "fail"
        return answer


def main() -> None:
    tracer = Tracer(Path(sys.argv[1]), service="orders-example", version="1")
    run_task(tracer, "shipped-order", "example", "Where is order A-1", expected="shipped")
    run_task(tracer, "unknown-order", "example", "Where is order B-2", expected="delivered")


if __name__ == "__main__":
    main()
