"""A run of the server-side agent as a trace in canonical form, so that halo-mcp itself can diagnose it.

A root AGENT span, AGENT spans of subagents under the tool span that called them, an LLM span per reply with its
messages and tokens, a TOOL span per result. Spans are appended as they end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from halo_mcp.engine.prompts import CALL_SUBAGENT
from halo_mcp.engine.run import Run
from halo_mcp.engine.state import Agent
from halo_mcp.engine.types import Event, Json, Message, Turn, each_text
from halo_mcp.engine.wires import Request
from halo_mcp.index import semconv

_KIND: Final = semconv.KIND_RULES[0][0]
_ERROR_CHARS: Final = 500


class Transcript:
    """Writes one run; ``event`` and ``reply`` are its hooks."""

    def __init__(self, run: Run, path: Path) -> None:
        """Goes on with the file of a run that is resumed."""
        self._run = run
        self._path = path
        self._trace_id = _digest(run.run_id, 32)
        self._open: dict[str, tuple[float, Json]] = {}
        """By span id: start and attributes of what has begun."""
        self._started = 0.0

    def event(self, event: Event) -> None:
        agent = self._run.agents.get(event.agent_id)
        if agent is None:
            return
        data, key = event.data, f"tool {event.agent_id} {event.data.get('call_id', '')}"
        if event.kind == "agent_started" and agent.result is None:
            if not agent.parent_id and self._path.exists():
                self._started = self._without_root()
            self._open[f"agent {agent.id}"] = (time.time(), {semconv.INPUT_VALUE[0]: data["question"]})
        elif event.kind == "agent_finished" and f"agent {agent.id}" in self._open:
            self._agent(agent)
        elif event.kind == "tool_call":
            self._open[key] = (time.time(), {})
        elif event.kind == "tool_result" and key in self._open:
            self._tool(agent, key, data)

    def reply(self, agent: Agent, request: Request, turn: Turn, sent_at: float) -> None:
        """The LLM span of a reply that counted."""
        usage = turn.usage
        sent: list[Json] = [{"role": "system", "content": request.system}, *map(_message, request.messages)]
        sent += [{"role": "user", "content": request.note}] if request.note else []
        attributes: Json = {
            semconv.MODEL_NAME[0]: request.model,
            semconv.INPUT_MESSAGES[0]: self._cleaned(sent),
            semconv.OUTPUT_MESSAGES[0]: self._cleaned([_message(Message("assistant", turn.text, turn))]),
            semconv.FINISH_REASON[0]: turn.finish,
        }
        if usage:
            attributes |= {
                semconv.INPUT_TOKENS[0]: usage.input,
                semconv.OUTPUT_TOKENS[0]: usage.output,
                semconv.CACHED_INPUT_TOKENS[0]: usage.cached,
            }
        number = self._run.meter.totals.turns
        # Single calls, such as those of map_traces, are made by nobody who has a span.
        owner = agent.id if agent.id in self._run.agents else "root"
        self._write(f"llm {number}", f"agent {owner}", f"chat {request.model}", "LLM", sent_at, attributes)

    def _agent(self, agent: Agent) -> None:
        began, attributes = self._open.pop(f"agent {agent.id}")
        if agent.parent_id:
            parent = f"tool {agent.parent_id} {agent.call_id}"
        else:
            parent, began = "", self._started or began
        result = agent.result
        attributes |= {semconv.AGENT_NAME[0]: "subagent" if agent.parent_id else "root", semconv.AGENT_ID[0]: agent.id}
        attributes[semconv.SESSION_ID[0]] = attributes[semconv.RUN_ID[0]] = self._run.run_id
        if result:
            attributes[semconv.OUTPUT_VALUE[0]] = result.answer
            attributes[semconv.STOP_REASON[0]] = result.stop_reason or result.status
        name = f"subagent {agent.id}" if agent.parent_id else "ask"
        self._write(f"agent {agent.id}", parent, name, "AGENT", began, attributes)

    def _tool(self, agent: Agent, key: str, data: Json) -> None:
        began, attributes = self._open.pop(key)
        item = self._run.ledger.get(str(data["item"]))
        text = item.text if item else ""
        attributes |= {
            semconv.TOOL_NAME[0]: data["tool"],
            semconv.INPUT_VALUE[0]: self._cleaned(item.arguments) if item else "{}",
            semconv.OUTPUT_VALUE[0]: text,
        }
        error = text[:_ERROR_CHARS] if data["failed"] else ""
        kind = "CHAIN" if data["tool"] == CALL_SUBAGENT else "TOOL"
        self._write(key, f"agent {agent.id}", str(data["tool"]), kind, began, attributes, error)

    def _write(
        self, key: str, parent: str, name: str, kind: str, began: float, attributes: Json, error: str = ""
    ) -> None:
        span: Json = {
            "trace_id": self._trace_id,
            "span_id": self._span_id(key),
            "parent_span_id": self._span_id(parent) if parent else "",
            "trace_state": "",
            "name": name,
            "kind": "SPAN_KIND_CLIENT" if kind == "LLM" else "SPAN_KIND_INTERNAL",
            "start_time": _moment(began),
            "end_time": _moment(time.time()),
            "status": {"code": "STATUS_CODE_ERROR" if error else "STATUS_CODE_OK", "message": error},
            "resource": {"attributes": {semconv.SERVICE_NAME: "halo-mcp ask"}},
            "scope": {"name": "halo_mcp.engine", "version": "1"},
            "attributes": {_KIND: kind, **attributes},
        }
        line = _json(each_text(span, self._run.clean))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")
        except OSError as error_:
            self._incomplete(error_)

    def _cleaned(self, value: Json | Sequence[Any]) -> str:
        """JSON for an attribute; cleaned before it is one text, in which a replaced word could break it."""
        return _json(each_text(value, self._run.clean))

    def _span_id(self, key: str) -> str:
        return _digest(f"{self._run.run_id} {key}", 16)

    def _without_root(self) -> float:
        """Take an early root span out of a transcript that goes on; returns the earliest start, 0.0 without spans."""
        root, kept, starts = self._span_id("agent root"), list[bytes](), list[float]()
        try:
            for line in self._path.read_bytes().splitlines():
                try:
                    span = orjson.loads(line)
                    starts.append(_seconds(span["start_time"]))
                    keep = span["span_id"] != root
                except (ValueError, KeyError, TypeError):  # the last line of a process that was killed
                    continue
                if keep:
                    kept.append(line)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
            temporary.replace(self._path)
        except OSError as error:
            self._incomplete(error)
        return min(starts, default=0.0)

    def _incomplete(self, error: OSError) -> None:
        self._run.warn(None, f"The transcript is incomplete: {error.strerror or error}.")


def _seconds(moment: str) -> float:
    """Seconds since the epoch of a time as this module writes it."""
    return datetime.fromisoformat(moment).timestamp()


def _moment(seconds: float) -> str:
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e6):06d}Z"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _json(value: Json | Sequence[Any]) -> str:
    # Not orjson: it refuses the halves of surrogate pairs that models sometimes send.
    return json.dumps(value, default=str)


def _message(message: Message) -> Json:
    shown: Json = {"role": message.role, "content": message.text}
    if message.call_id:
        shown["tool_call_id"] = message.call_id
    if message.turn and message.turn.calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.turn.calls
        ]
    return shown
