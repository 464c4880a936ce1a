"""The transcript of an Inspect sample: its events as spans.

``span_begin``/``span_end`` (in older logs ``step``, and events inside events) make the tree, ``model`` and ``tool`` the
leaves that count. A tool call has an event and, around what happened inside, a span of type ``tool``: they are one.
What says nothing new (``state``, ``sample_init``, the raw ``call`` of a model) is left out; every other event goes
along on the span in which it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import plain
from halo_mcp.index.formats.protocol import Report
from halo_mcp.index.formats.trajectory import Step, Trajectory, members, usage
from halo_mcp.index.formats.values import (
    FAULTS,
    attribute_value,
    event,
    exception_event,
    given,
    nanoseconds,
    reason_of,
    seconds_as_nanoseconds,
)
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_ATTACHMENT: Final = "attachment://"
_NO_TEXT: Final = "data:"
_SAID_ELSEWHERE: Final = frozenset(("state", "sample_init"))
_COMMON: Final = (
    "event", "uuid", "span_id", "id", "parent_id", "timestamp", "working_start", "working_time", "completed", "pending",
)  # fmt: skip


class Contents:
    """What a sample keeps apart: texts that are used more than once, and the messages of all calls."""

    def __init__(self, sample: Mapping[str, Json]) -> None:
        self._attachments = as_mapping(sample.get("attachments"))
        data = as_mapping(sample.get("events_data"))
        self._pool = as_list(sample.get("message_pool")) or as_list(data.get("messages"))

    def expanded(self, value: Json) -> Json:
        """The value with its attachments in their places; pictures and other data stay references."""
        if isinstance(value, str):
            if not value.startswith(_ATTACHMENT):
                return value
            text = self._attachments.get(value.removeprefix(_ATTACHMENT))
            return text if isinstance(text, str) and not text.startswith(_NO_TEXT) else value
        if isinstance(value, list):
            return [self.expanded(item) for item in as_list(value)]
        if isinstance(value, dict):
            return {key: self.expanded(item) for key, item in as_mapping(value).items()}
        return value

    def input_of(self, call: Mapping[str, Json]) -> list[Json]:
        """The messages that a model was given. ``input_refs`` are [first, behind the last] in the pool."""
        messages = list(as_list(call.get("input")))
        for place in as_list(call.get("input_refs")):
            first, end = as_list(place) or (place, place + 1)
            messages += self._pool[first:end]
        return [chat_message(self, as_mapping(item)) if isinstance(item, dict) else item for item in messages]


def chat_message(contents: Contents, message: Mapping[str, Json]) -> dict[str, Json]:
    """A message with its attachments, its tool calls spelled as everybody else's, and no ids of Inspect's own."""
    shown = {key: contents.expanded(value) for key, value in message.items() if key not in ("id", "source")}
    calls = as_list(shown.get("tool_calls"))
    if calls:
        shown["tool_calls"] = [_spelled(as_mapping(call)) for call in calls]
    return shown


def _spelled(call: Mapping[str, Json]) -> Json:
    if not isinstance(call.get("function"), str):
        return call
    rest = {key: value for key, value in call.items() if key not in ("function", "arguments", "view", "type")}
    return rest | {"type": "function", "function": {"name": call["function"], "arguments": call.get("arguments")}}


def failure_of(error: Mapping[str, Json]) -> tuple[str, str]:
    """(message, type) of the error of a tool call; empty ones when there is none."""
    return as_text(error.get("message")) or as_text(error.get("type")), as_text(error.get("type"))


def text_of(content: Json) -> Json:
    """The text of a content; its JSON when it is more than texts."""
    return attribute_value(plain(content))


class Events:
    """Takes the events in order."""

    def __init__(self, trajectory: Trajectory, contents: Contents, report: Report) -> None:
        self._trajectory = trajectory
        self._contents = contents
        self._report = report
        self._spans: dict[str, Step] = {}
        self._tool_spans: list[Step] = []
        self._tools: list[Step] = []
        self.model_calls = 0
        self.tool_calls = 0
        self.limit = ""
        """The limit that stopped the sample; "" when none did."""
        self._takers: Mapping[str, Callable[[Mapping[str, Json], Step], None]] = {
            "span_begin": self._begin,
            "span_end": self._end,
            "model": self._model,
            "tool": self._tool,
            "subtask": self._subtask,
            "sandbox": self._sandbox,
            "error": self._failed,
            "sample_limit": self._limited,
        }

    def take(self, events: Sequence[Json], inside: Step) -> None:
        """Events that happened in a step, if they do not name another."""
        open_steps = [inside]
        for number, item in enumerate(events):
            try:
                self._take(as_mapping(item), open_steps)
            except FAULTS as fault:
                self._report.skip(reason_of(fault), whole=False, place=f"event {number + 1}")

    def _take(self, one: Mapping[str, Json], open_steps: list[Step]) -> None:
        owner = self._spans.get(as_text(one.get("span_id"))) or open_steps[-1]
        kind = as_text(one.get("event"))
        if not kind:
            raise ValueError("an event without a name")
        if kind == "step":
            self._step(one, open_steps)
        elif taker := self._takers.get(kind):
            taker(one, owner)
        elif kind not in _SAID_ELSEWHERE:
            self._note(kind, one, owner)

    def finish(self) -> None:
        """Make one of what a tool's event and its span say."""
        left = list(self._tool_spans)
        for tool in self._tools:
            name = tool.attributes.get(semconv.TOOL_NAME[0])
            around = next((s for s in left if s.name == name and (s.parent is tool.parent or s is tool.parent)), None)
            if around is None:
                continue
            left.remove(around)
            around.attributes |= tool.attributes
            around.status, around.message, around.events = tool.status, tool.message, [*tool.events, *around.events]
            around.start = min(around.start, tool.start)
            around.end = max(filter(None, (around.end, tool.end)), default=None)
            self._trajectory.drop(tool)
        for span in self._tool_spans:
            span.kind = "TOOL"
            span.attributes.setdefault(semconv.TOOL_NAME[0], span.name)
            span.name = f"execute_tool {span.name}"

    # --- the tree ------------------------------------------------------------------------------------------------
    def _begin(self, one: Mapping[str, Json], owner: Step) -> None:
        kind, name = as_text(one.get("type")), as_text(one.get("name"))
        parent = self._spans.get(as_text(one.get("parent_id")))
        # A span's begin names itself as the span that it is in.
        inside = parent or (owner if as_text(one.get("span_id")) != as_text(one.get("id")) else self._trajectory.root)
        step = self._add("AGENT" if kind == "agent" else "CHAIN", name or kind, one, inside, as_text(one.get("id")))
        step.attributes |= members({"type": kind, "metadata": one.get("metadata")}, prefix="inspect.span.")
        if kind == "agent":
            step.attributes[semconv.AGENT_NAME[0]] = name
        if kind == "tool":
            self._tool_spans.append(step)
        self._spans[step.span_id] = step

    def _end(self, one: Mapping[str, Json], owner: Step) -> None:
        step = self._spans.get(as_text(one.get("id")))
        if step:
            step.end = nanoseconds(one.get("timestamp"))

    def _step(self, one: Mapping[str, Json], open_steps: list[Step]) -> None:
        name = as_text(one.get("name")) or as_text(one.get("type")) or "step"
        if one.get("action") == "begin":
            step = self._add("CHAIN", name, one, open_steps[-1])
            open_steps.append(step)
        else:
            place = next((no for no in range(len(open_steps) - 1, 0, -1) if open_steps[no].name == name), 0)
            if place:
                open_steps[place].end = nanoseconds(one.get("timestamp"))
                del open_steps[place:]

    def _add(
        self, kind: semconv.ObservationKind, name: str, one: Mapping[str, Json], owner: Step, span_id: str = ""
    ) -> Step:
        start = nanoseconds(one.get("timestamp"), self._report)
        end = nanoseconds(one.get("completed"), self._report)
        worked = seconds_as_nanoseconds(one.get("working_time"))
        if end is None and start is not None and worked is not None:
            end = start + worked
        known = self._trajectory.now if start is None else start
        step = Step(
            kind, name, {}, known, start is None, end, parent=owner, span_id=span_id or as_text(one.get("uuid"))
        )
        return self._trajectory.keep(step)

    # --- what counts -----------------------------------------------------------------------------------------------
    def _model(self, one: Mapping[str, Json], owner: Step) -> None:
        self.model_calls += 1
        output = as_mapping(one.get("output"))
        model = as_text(output.get("model")) or as_text(one.get("model"))
        choices = [as_mapping(choice) for choice in as_list(output.get("choices"))]
        answers: list[Json] = [chat_message(self._contents, as_mapping(choice.get("message"))) for choice in choices]
        messages, tools = self._contents.input_of(one), self._contents.expanded(one.get("tools"))
        step = self._add("LLM", f"chat {model}".strip(), one, owner)
        step.attributes |= usage(output.get("usage"))
        step.attributes |= given(
            {
                semconv.MODEL_NAME[0]: model,
                semconv.INPUT_MESSAGES[0]: json_text(messages) if messages else None,
                semconv.OUTPUT_MESSAGES[0]: json_text(answers) if answers else None,
                semconv.FINISH_REASON[0]: as_text(choices[0].get("stop_reason")) if choices else None,
                semconv.INVOCATION_PARAMETERS: json_text(one["config"]) if one.get("config") else None,
                semconv.TOOL_DEFINITIONS[0]: json_text(tools) if tools else None,
            }
        )
        known = (*_COMMON, "model", "input", "input_refs", "tools", "config", "output", "call", "error", "call_refs")
        step.attributes |= members(one, without=known, prefix="model.")
        step.attributes |= members(
            output, without=("model", "choices", "usage", "completion", "error"), prefix="output."
        )
        error = as_text(one.get("error")) or as_text(output.get("error"))
        if error:
            step.fail(error)

    def _tool(self, one: Mapping[str, Json], owner: Step) -> None:
        self.tool_calls += 1
        name = as_text(one.get("function"))
        step = self._add("TOOL", f"execute_tool {name}".strip(), one, owner)
        self._tools.append(step)
        step.attributes |= given(
            {
                semconv.TOOL_NAME[0]: name,
                semconv.INPUT_VALUE[0]: attribute_value(self._contents.expanded(one.get("arguments"))),
                semconv.TOOL_CALL_ID: as_text(one.get("id")),
            }
        )
        if not one.get("pending") and one.get("result") is not None:
            step.attributes[semconv.OUTPUT_VALUE[0]] = text_of(self._contents.expanded(one["result"]))
        known = (*_COMMON, "type", "function", "arguments", "result", "view", "events", "error", "message_id")
        step.attributes |= members(one, without=known, prefix="tool.")
        message, kind = failure_of(as_mapping(self._contents.expanded(one.get("error"))))
        if message or one.get("failed") is True:
            step.fail(message or "failed", kind)
        self.take(as_list(one.get("events")), step)

    def _subtask(self, one: Mapping[str, Json], owner: Step) -> None:
        step = self._add("CHAIN", as_text(one.get("name")) or "subtask", one, owner)
        step.attributes |= given(
            {
                semconv.INPUT_VALUE[0]: attribute_value(self._contents.expanded(one.get("input"))),
                semconv.OUTPUT_VALUE[0]: attribute_value(self._contents.expanded(one.get("result"))),
            }
        )
        self.take(as_list(one.get("events")), step)

    def _sandbox(self, one: Mapping[str, Json], owner: Step) -> None:
        expanded = as_mapping(self._contents.expanded(one))
        step = self._add("SPAN", f"sandbox {as_text(one.get('action'))}".strip(), one, owner)
        asked = next((expanded[key] for key in ("cmd", "file") if expanded.get(key)), None)
        step.attributes |= given({semconv.INPUT_VALUE[0]: attribute_value(asked)})
        # Its output is not the span's: what fails in it is the failure of the tool that asked for it, once.
        known = (*_COMMON, "action", "cmd" if expanded.get("cmd") else "file")
        step.attributes |= members(expanded, without=known, prefix="sandbox.")

    def _failed(self, one: Mapping[str, Json], owner: Step) -> None:
        error = as_mapping(one.get("error"))
        message = as_text(error.get("message")) or "error"
        owner.fail(message)
        stack = as_text(error.get("traceback"))
        owner.events.append(exception_event("error", message, nanoseconds(one.get("timestamp")), stack))

    def _limited(self, one: Mapping[str, Json], owner: Step) -> None:
        self.limit = as_text(one.get("type")) or "sample"
        self._note("sample_limit", one, owner)

    def _note(self, kind: str, one: Mapping[str, Json], owner: Step) -> None:
        told = members(as_mapping(self._contents.expanded(one)), without=_COMMON)
        owner.events.append(event(kind, nanoseconds(one.get("timestamp")), told))
