"""A conversation as a list of messages with roles, turned into a model's and its tools' steps.

OpenAI's shapes (``tool_calls``, ``function_call``, role ``tool``) and Anthropic's (content blocks of type ``tool_use``
and ``tool_result``). A call and its result make one TOOL step. The input of a model's step is what came since its last
answer; the whole conversation is the steps in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from halo_mcp.index import semconv
from halo_mcp.index.formats.trajectory import Step, Trajectory, usage
from halo_mcp.index.formats.values import FAULTS, attribute_value, nanoseconds, reason_of
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

MODEL_ROLES = frozenset(("assistant", "ai", "model"))
RESULT_ROLES = frozenset(("tool", "function"))
ROLES = MODEL_ROLES | RESULT_ROLES | {"system", "developer", "user", "human"}
_TIMES = ("timestamp", "created_at", "created")
_FIRST_TIME = 315_532_800_000_000_000
"""1980: smaller numbers are seconds since something else."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a model asked for."""

    name: str
    arguments: Json
    id: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave back."""

    output: Json
    id: str = ""
    name: str = ""
    error: str = ""
    """Why the source says that the call failed; "" when it does not say so."""


@dataclass(slots=True)
class Talk:
    """Takes messages in order and adds their steps. Subclasses know what is special about a source."""

    trajectory: Trajectory
    model: str = ""
    """Where a message names none."""
    _said: list[Json] = field(default_factory=list[Json])
    """Since the model's last answer."""
    _unseen: list[Json] = field(default_factory=list[Json])
    """Those of them that no step shows yet."""
    _open: list[tuple[Call, Step]] = field(default_factory=list[tuple[Call, Step]])
    _turn: int = 0
    """How many of the open calls are older than the model's last answer."""
    _step: int = 0

    def take(self, messages: Sequence[Json]) -> None:
        """Raises: ValueError when no message among them can be read."""
        taken = 0
        for item in messages:
            message = as_mapping(item)
            if message:
                try:
                    self.take_message(message)
                except FAULTS as fault:
                    self.trajectory.report.skip(reason_of(fault), whole=False, place=f"message {self._step + 1}")
                taken += 1
            else:
                self._said.append({"role": "?", "content": item})
                self._unseen.append(self._said[-1])
            self._step += 1
        if not taken:
            raise ValueError("no messages")
        self._close()

    def take_message(self, message: Mapping[str, Json]) -> None:
        """One message."""
        if self.is_answer(message):
            self.take_answer(message)
            return
        results = self.results(message)
        for result in results:
            self._take_result(result, message)
        self._said.append(self.shown(message))
        if not results or _says_more(message):
            self._unseen.append(self.shown(message))

    def take_answer(self, message: Mapping[str, Json]) -> None:
        """A model's step, and one for each tool that it calls."""
        model = self.model_of(message)
        attributes: dict[str, Json] = {
            semconv.MODEL_NAME[0]: model,
            semconv.INPUT_MESSAGES[0]: json_text(self._said) if self._said else None,
            semconv.OUTPUT_MESSAGES[0]: json_text([self.shown(message)]),
            semconv.NEW_MESSAGES_ONLY: True,
        }
        name = f"chat {model}" if model else "chat"
        time = self.time_of(message)
        self.trajectory.add("LLM", name, attributes | self.answer_attributes(message), step=self._step, time=time)
        self._said, self._unseen = [], []
        self._turn = len(self._open)
        for call in self.calls(message):
            asked: dict[str, Json] = {
                semconv.TOOL_NAME[0]: call.name,
                semconv.INPUT_VALUE[0]: attribute_value(call.arguments),
                semconv.TOOL_CALL_ID: call.id,
            }
            step = self.trajectory.add("TOOL", f"execute_tool {call.name}".strip(), asked, step=self._step)
            self._open.append((call, step))

    def _take_result(self, result: Result, message: Mapping[str, Json]) -> None:
        step = self._asked_by(result)
        if step is None:
            attributes: dict[str, Json] = {semconv.TOOL_NAME[0]: result.name, semconv.TOOL_CALL_ID: result.id}
            name = f"execute_tool {result.name}".strip()
            step = self.trajectory.add("TOOL", name, attributes, step=self._step, time=self.time_of(message))
        # An empty output is one, unlike none at all.
        step.attributes[semconv.OUTPUT_VALUE[0]] = attribute_value(result.output)
        if result.error:
            step.fail(result.error)

    def _asked_by(self, result: Result) -> Step | None:
        """The step of the call that this answers: the latest with its id; without an id the next of the last turn."""
        if result.id:
            found = [no for no, (call, _) in enumerate(self._open) if call.id == result.id][-1:]
            if not found:
                found = [no for no, (call, _) in enumerate(self._open) if not call.id and no >= self._turn][:1]
        else:
            recent = range(self._turn, len(self._open))
            found = [no for no in recent if self._open[no][0].name == result.name][:1] or list(recent)[:1]
        if not found:
            return None
        self._turn -= found[0] < self._turn
        return self._open.pop(found[0])[1]

    def _close(self) -> None:
        """What was said after the model's last answer stays visible."""
        for message in self._unseen:
            role = as_text(as_mapping(message).get("role")) or "message"
            attributes: dict[str, Json] = {semconv.INPUT_MESSAGES[0]: json_text([message])}
            self.trajectory.add("SPAN", f"{role} message", attributes, step=self._step - 1)

    # --- what sources may differ in ------------------------------------------------------------------------------
    def is_answer(self, message: Mapping[str, Json]) -> bool:
        """Whether a model wrote it."""
        return message.get("role") in MODEL_ROLES

    def calls(self, message: Mapping[str, Json]) -> list[Call]:
        """The tool calls that an answer asks for."""
        found = [_call(as_mapping(item)) for item in as_list(message.get("tool_calls")) if isinstance(item, dict)]
        if as_mapping(message.get("function_call")):
            found.append(_call(as_mapping(message["function_call"])))
        return found + [_call(block) for block in _blocks(message, ("tool_use", "tool_call", "server_tool_use"))]

    def results(self, message: Mapping[str, Json]) -> list[Result]:
        """The tool results that a message brings."""
        if message.get("role") in RESULT_ROLES and not _blocks(message, ("tool_result",)):
            call_id, name = as_text(message.get("tool_call_id")), as_text(message.get("name"))
            return [Result(plain(message.get("content")), call_id, name)]
        return [
            Result(
                output := plain(block.get("content")),
                as_text(block.get("tool_use_id") or block.get("tool_call_id")),
                error=(as_text(output) or "is_error") if block.get("is_error") is True else "",
            )
            for block in _blocks(message, ("tool_result",))
        ]

    def shown(self, message: Mapping[str, Json]) -> Json:
        """The message as a reader is shown it."""
        return message

    def model_of(self, message: Mapping[str, Json]) -> str:
        """The model that wrote it; "" when nothing says so."""
        return as_text(message.get("model")) or self.model

    def time_of(self, message: Mapping[str, Json]) -> int | None:
        """When it was written, in nanoseconds; None when the source does not say."""
        return time_of(message)

    def answer_attributes(self, message: Mapping[str, Json]) -> dict[str, Json]:
        """What else is known about an answer."""
        reason = as_text(message.get("finish_reason") or message.get("stop_reason"))
        return usage(message.get("usage")) | {semconv.FINISH_REASON[0]: reason}


def time_of(message: Mapping[str, Json]) -> int | None:
    """When a message was written, in nanoseconds; None when it does not say."""
    return first_time(*(message.get(key) for key in _TIMES))


def first_time(*values: Json) -> int | None:
    """The first of the values that is a time of day, in nanoseconds; None when none is."""
    times = map(nanoseconds, values)
    return next((time for time in times if time is not None and time >= _FIRST_TIME), None)


def plain(content: Json) -> Json:
    """The text of a message's content: of a list of text parts the texts, anything else as it is."""
    parts = as_list(content)
    texts: list[Json] = [as_mapping(part).get("text") if isinstance(part, dict) else part for part in parts]
    return "\n".join(map(str, texts)) if parts and all(isinstance(text, str) for text in texts) else content


def is_message(value: Json) -> bool:
    """Whether this is a message with a role that everybody uses."""
    message = as_mapping(value)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        return False
    if "content" in message:
        return message["content"] is None or isinstance(message["content"], str | list)
    return isinstance(message.get("tool_calls"), list) or isinstance(message.get("function_call"), dict)


def first_text(messages: Sequence[Json], roles: frozenset[str]) -> Json:
    """The content of the first message of these roles; None when there is none."""
    found = (as_mapping(item) for item in messages)
    return next((attribute_value(plain(one.get("content"))) for one in found if one.get("role") in roles), None)


def _call(call: Mapping[str, Json]) -> Call:
    function = as_mapping(call.get("function"))
    name = function.get("name") or call.get("name") or (call.get("function") if not function else "")
    arguments = next(
        (source[key] for source in (function, call) for key in ("arguments", "input", "args") if key in source), None
    )
    return Call(as_text(name), arguments, as_text(call.get("id") or call.get("call_id")))


def _says_more(message: Mapping[str, Json]) -> bool:
    """Whether something stands beside the tool results of a message."""
    return any(as_mapping(block).get("type") != "tool_result" for block in as_list(message.get("content")))


def _blocks(message: Mapping[str, Json], types: Sequence[str]) -> list[Mapping[str, Json]]:
    blocks = (as_mapping(block) for block in as_list(message.get("content")))
    return [block for block in blocks if block.get("type") in types]
