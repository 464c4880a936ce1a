"""Rollout files of Codex: one trace a session: an AGENT root, a CHAIN a turn, LLM and TOOL spans in it.

``response_item`` lines hold what was said and called, ``event_msg`` lines repeat most of it and add usage, exit codes
and errors. A model's answer has no id of its own: it is what comes between what the model was given and its
``token_count``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import REPEATED, Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import ERROR, UNSET, attribute_value, given, nanoseconds, per_record, span
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_AGENT: Final = "codex"
_LINES: Final = frozenset(("session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state"))
_DONE_TOOLS: Final = 64
"""Answered tool calls for which the event that tells their exit code may still come."""
_CALL_FACTS: Final = ("exec_command_end", "mcp_tool_call_end", "patch_apply_end", "dynamic_tool_call_response")
"""Events that tell how a call ended."""
_REPEATS: Final = frozenset(
    (
        "user_message", "agent_message", "agent_reasoning", "agent_reasoning_raw_content", "item_started",
        "item_completed", "raw_response_item", "dynamic_tool_call_request", "view_image_tool_call", "web_search_end",
        "image_generation_end", "exec_command_begin", "mcp_tool_call_begin", "patch_apply_begin", "web_search_begin",
        "thread_settings_applied", "thread_name_updated", "context_compacted", "turn_diff", "plan_update",
    )
)  # fmt: skip
"""Events that repeat a response item or a line of another type, or hold no word of the conversation."""
_NOTHING_SAID: Final = frozenset(("world_state", "inter_agent_communication_metadata"))
_ENVELOPE: Final = frozenset(("type", "id", "call_id", "metadata", "internal_chat_message_metadata_passthrough"))
_INSTRUCTIONS: Final = ("base_instructions", "instructions")


def _sniff(head: Head) -> bool:
    if head.shape != "lines":
        return False
    return any(one.get("type") in _LINES and isinstance(one.get("payload"), dict) for one in _hashable(head.objects))


def _hashable(objects: Iterable[Mapping[str, Json]]) -> Iterator[Mapping[str, Json]]:
    return (one for one in objects if isinstance(one.get("type"), str))


@dataclass(slots=True)
class _Tool:
    """A tool call, and what is known of its end."""

    name: str
    given: str | None
    start: int | None
    end: int | None = None
    output: str | None = None
    failed: bool = False
    message: str = ""
    own: dict[str, Json] = field(default_factory=dict[str, Json])


@dataclass(slots=True)
class _Answer:
    """What the model says in one go."""

    number: int
    start: int | None
    end: int | None
    asked: list[Json]
    said: list[Json] = field(default_factory=list[Json])
    followed: bool = False
    """The model has been given something since: what it says now is another answer."""


@dataclass(slots=True)
class _Turn:
    """From what the user wants to the model's last word on it."""

    span_id: str
    turn_id: str
    start: int | None
    end: int | None
    own: dict[str, Json] = field(default_factory=dict[str, Json])
    model: str = ""
    prompt: str = ""
    answer: str = ""
    failed: bool = False
    message: str = ""


class _Session:
    """One session; its lines in order."""

    def __init__(self, trace_id: str, meta: Mapping[str, Json], start: int | None, report: Report) -> None:
        self._trace_id = trace_id
        self._meta = meta
        self._report = report
        self._start = self._end = start
        self._before = start
        """When the model was given what it answers next."""
        self._turns = self._answers = self._made = 0
        self._turn: _Turn | None = None
        self._answer: _Answer | None = None
        self._asked: list[Json] = []
        self._tools: dict[str, _Tool] = {}
        self._known: set[int] = set()
        """Hashes of the ids of all tool calls."""
        self._given = {hash(trace_id)}
        self._spent: Json = None
        """The last cumulative usage."""
        self._prompt = self._last_word = ""
        instructions = next((meta[key] for key in _INSTRUCTIONS if meta.get(key)), None)
        self._instructions = as_text(as_mapping(instructions).get("text") or instructions)

    # --- lines -----------------------------------------------------------------------------------------------------
    def take(self, kind: str, payload: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        """The spans that are complete with this line. Raises: ValueError for a line of no known type."""
        time = time if time is not None else self._end
        self._end = time if self._end is None or (time is not None and time > self._end) else self._end
        if kind == "turn_context":
            yield from self._begin(payload, time)
        elif kind == "response_item":
            yield from self._item(payload, time)
        elif kind == "event_msg":
            yield from self._event(payload, time)
        elif kind == "compacted":
            yield self._other("compacted", payload, time)
        elif kind in _NOTHING_SAID:
            self._report.ignored(f"tells nothing of the conversation: {kind}")
        else:
            raise ValueError("a line of an unknown type")

    def _begin(self, about: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        """A turn begins, unless this is more about the one that has begun."""
        turn_id, turn = as_text(about.get("turn_id")), self._turn
        same = turn is not None and turn.turn_id == turn_id and (turn_id or turn.start == turn.end)
        if turn is None or not same:
            yield from self._end_turn()
            self._turns += 1
            turn = self._turn = _Turn(self._id(turn_id, "turn"), turn_id, time, time)
        turn.model = as_text(about.get("model")) or turn.model
        for key, value in about.items():
            if key not in ("turn_id", "type") and isinstance(value, str | int | float):
                turn.own[f"codex.{key}"] = value

    def _current(self, time: int | None) -> _Turn:
        if self._turn is None:
            self._turns += 1
            self._turn = _Turn(self._id("", "turn"), "", time, time)
        turn = self._turn
        turn.end = time if turn.end is None or (time is not None and time > turn.end) else turn.end
        return turn

    def _item(self, item: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        kind = as_text(item.get("type"))
        turn = self._current(time)
        if kind == "message" and item.get("role") != "assistant":
            self._was_given(time)
            self._asked.append({"role": item.get("role"), "content": item.get("content")})
            if item.get("role") == "user":
                self._prompt = self._prompt or _words(item.get("content"))
                turn.prompt = turn.prompt or _words(item.get("content"))
        elif kind.endswith("_output") or kind == "tool_result":
            self._output(kind, item, time)
            yield from self._done_tools(_DONE_TOOLS)
        elif kind == "ghost_snapshot":
            self._report.ignored("tells nothing of the conversation: ghost_snapshot")
        else:
            if self._answer is not None and self._answer.followed:
                yield self._answered({})
            if self._answer is None:
                self._answers += 1
                self._answer = _Answer(self._answers, self._before, time, self._asked)
                self._asked = []
            self._answer.end = time
            if kind.endswith("_call"):
                self._call(kind, item, time)
            else:
                self._says(turn, kind, item)

    def _says(self, turn: _Turn, kind: str, item: Mapping[str, Json]) -> None:
        assert self._answer is not None
        if kind == "message":
            turn.answer = self._last_word = _words(item.get("content")) or turn.answer
            self._answer.said.append({"role": "assistant", "content": item.get("content")})
        elif kind == "reasoning":
            parts = [*as_list(item.get("summary")), *as_list(item.get("content"))]
            if parts:
                self._answer.said.append({"role": "assistant", "type": "reasoning", "content": parts})
        else:
            self._answer.said.append({"role": kind or "assistant", **{k: v for k, v in item.items() if k != "type"}})

    def _call(self, kind: str, item: Mapping[str, Json], time: int | None) -> None:
        assert self._answer is not None
        function = as_mapping(item.get("function"))
        name = as_text(item.get("name") or function.get("name")) or kind.removesuffix("_call")
        given_to = next((item[key] for key in ("arguments", "input", "action") if item.get(key) is not None), None)
        call_id = as_text(item.get("call_id") or item.get("id"))
        if not call_id or hash(call_id) in self._known:
            self._made += 1
            call_id = f"{call_id or self._trace_id}:call-{self._made}"
        self._known.add(hash(call_id))
        arguments = attribute_value(given_to)
        call = {"id": call_id, "function": {"name": name, "arguments": arguments}}
        self._answer.said.append({"role": "assistant", "tool_calls": [call]})
        tool = self._tools[call_id] = _Tool(name, None if arguments is None else as_text(arguments), time)
        if not item.get("call_id") and item.get("status") == "completed":
            # Done by the model's provider: there is no line of its own with an output.
            tool.output, tool.end = as_text(item.get("result")), time
        if item.get("namespace"):
            tool.own["codex.namespace"] = item["namespace"]

    def _output(self, kind: str, item: Mapping[str, Json], time: int | None) -> None:
        self._was_given(time)
        name = as_text(item.get("name"))
        call_id = as_text(item.get("call_id"))
        if not call_id:  # older files: the call of this name that waits longest
            waiting = (key for key, one in self._tools.items() if one.output is None and one.name == name)
            call_id = next(waiting, "")
        found = next((item[key] for key in ("output", "result", "tools") if key in item), None)
        tool = self._tools.get(call_id)
        if tool is None or tool.output is not None:
            self._asked.append({"role": "tool", "tool_call_id": call_id, "content": attribute_value(found)})
            return
        tool.output, tool.end = _words(found), time
        _read_exit_code(tool, found)

    def _was_given(self, time: int | None) -> None:
        self._before = time
        if self._answer is not None:
            self._answer.followed = True

    # --- events ------------------------------------------------------------------------------------------------------
    def _event(self, event: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        kind = as_text(event.get("type"))
        if kind in ("task_started", "turn_started"):
            yield from self._begin({"turn_id": event.get("turn_id")}, time)
            return
        if kind in _REPEATS:
            self._report.ignored(f"repeats another line or tells no word: {kind}")
            return
        turn = self._current(time)
        if kind == "token_count":
            yield from self._usage(as_mapping(event.get("info")), time)
        elif kind in ("task_complete", "turn_complete"):
            turn.answer = as_text(event.get("last_agent_message")) or turn.answer
        elif kind == "turn_aborted":
            turn.failed, turn.message = True, f"turn aborted: {as_text(event.get('reason')) or 'no reason given'}"
        elif kind == "error":
            turn.failed, turn.message = True, as_text(event.get("message"))
            turn.own["codex.error_info"] = attribute_value(event.get("codex_error_info"))
        elif kind in _CALL_FACTS and as_text(event.get("call_id")):
            self._call_facts(kind, as_text(event.get("call_id")), event, time)
            yield from self._done_tools(_DONE_TOOLS)
        else:
            yield self._other(kind or "event", event, time)

    def _usage(self, info: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        total, last = info.get("total_token_usage"), as_mapping(info.get("last_token_usage"))
        if not last:
            self._report.ignored("a token count without usage")
        elif total is not None and total == self._spent:
            self._report.repaired(REPEATED)
        else:
            self._spent = total
            if self._answer is None:  # an answer of which nothing was written down
                self._answers += 1
                self._answer = _Answer(self._answers, self._before, time, self._asked)
                self._asked = []
            yield self._answered(last)

    def _call_facts(self, kind: str, call_id: str, event: Mapping[str, Json], time: int | None) -> None:
        tool = self._tools.get(call_id)
        invocation = as_mapping(event.get("invocation"))
        if tool is None:
            if hash(call_id) in self._known:
                self._report.ignored("more about a tool call that has been told")
                return
            called = invocation.get("tool") or event.get("tool") or kind.removesuffix("_end").removesuffix("_response")
            arguments = next((event[k] for k in ("command", "arguments", "changes") if k in event), None)
            arguments = attribute_value(invocation.get("arguments", arguments))
            tool = _Tool(as_text(called), None if arguments is None else as_text(arguments), time)
            self._tools[call_id] = tool
            self._known.add(hash(call_id))
        tool.end = time if tool.end is None else tool.end
        if invocation.get("server"):
            tool.own["mcp.server"] = invocation["server"]
        result = as_mapping(event.get("result"))
        if "Err" in result or as_mapping(result.get("Ok")).get("isError") is True:
            tool.failed, tool.message = True, as_text(result.get("Err"))
        if event.get("success") is False:
            tool.failed, tool.message = True, as_text(event.get("error") or event.get("stderr"))
        exit_code = event.get("exit_code")
        if type(exit_code) is int:
            _take_exit_code(tool, exit_code)
        if tool.output is None:
            told = ("aggregated_output", "formatted_output", "stdout", "content_items", "result")
            tool.output = next((_words(event[key]) for key in told if event.get(key)), None)

    # --- spans -------------------------------------------------------------------------------------------------------
    def _id(self, wanted: str, kind: str) -> str:
        """A span id; one made up where the source gives none, or one that it gave before."""
        if not wanted or hash(wanted) in self._given:
            self._made += 1
            wanted = f"{self._trace_id}:{kind}-{self._made}"
        self._given.add(hash(wanted))
        return wanted

    def _span(
        self,
        span_id: str,
        name: str,
        kind: str,
        times: tuple[int | None, int | None],
        attributes: Mapping[str, Json],
        *,
        parent: str | None = None,
        failed: bool = False,
        message: str = "",
    ) -> Record:
        session = as_text(self._meta.get("session_id")) or self._trace_id
        begin, end = times
        if begin is not None and end is not None and begin > end:
            begin = end
        inside = self._turn.span_id if self._turn is not None else self._trace_id
        return span(
            trace_id=self._trace_id,
            span_id=span_id,
            parent_span_id=inside if parent is None else parent,
            name=name,
            kind="CLIENT" if kind == "LLM" else "INTERNAL",
            start=begin,
            end=end,
            status=ERROR if failed else UNSET,
            message=message if failed else "",
            attributes=given({semconv.OBSERVATION_KIND: kind, semconv.SESSION_ID[0]: session, **attributes}),
            resource=given({semconv.SERVICE_NAME: _AGENT, semconv.SERVICE_VERSION: self._meta.get("cli_version")}),
            scope={"name": as_text(self._meta.get("originator")) or _AGENT},
            report=self._report,
        )

    def _answered(self, usage: Mapping[str, Json]) -> Record:
        one, turn = self._answer, self._current(self._end)
        assert one is not None
        self._answer = None
        instructions, self._instructions = self._instructions, ""
        attributes = {
            semconv.MODEL_NAME[0]: turn.model,
            semconv.PROVIDER[0]: self._meta.get("model_provider"),
            semconv.INPUT_TOKENS[0]: usage.get("input_tokens"),
            semconv.OUTPUT_TOKENS[0]: usage.get("output_tokens"),
            semconv.CACHED_INPUT_TOKENS[0]: usage.get("cached_input_tokens"),
            "gen_ai.usage.reasoning.output_tokens": usage.get("reasoning_output_tokens"),
            semconv.SYSTEM_INSTRUCTIONS[0]: instructions,
            semconv.INPUT_MESSAGES[0]: json_text(one.asked) if one.asked else None,
            semconv.OUTPUT_MESSAGES[0]: json_text(one.said) if one.said else None,
        }
        name = f"chat {turn.model}".strip()
        span_id = self._id(f"{self._trace_id}:answer-{one.number}", "answer")
        return self._span(span_id, name, "LLM", (one.start, one.end), attributes)

    def _done_tools(self, kept: int) -> Iterator[Record]:
        """The calls that were answered, but for the ``kept`` latest."""
        done = [key for key, tool in self._tools.items() if tool.output is not None]
        for key in done[: max(len(done) - kept, 0)]:
            yield self._told(key, self._tools.pop(key))

    def _told(self, call_id: str, tool: _Tool) -> Record:
        attributes = {
            semconv.TOOL_NAME[0]: tool.name,
            semconv.INPUT_VALUE[0]: tool.given,
            semconv.RESULT_MISSING: True if tool.output is None else None,
            **tool.own,
        }
        record = self._span(
            self._id(call_id, "call"),
            tool.name,
            "TOOL",
            (tool.start, tool.end),
            attributes,
            failed=tool.failed,
            # What it gave back tells more than the number.
            message=tool.message or ("" if tool.output else f"exit code {tool.own.get('exit_code')}"),
        )
        # An output of "" is an output: given() takes it for none.
        output = {} if tool.output is None else {semconv.OUTPUT_VALUE[0]: tool.output}
        return {**record, "attributes": {**as_mapping(record["attributes"]), **output}}

    def _other(self, kind: str, payload: Mapping[str, Json], time: int | None) -> Record:
        """Something beside the conversation, as it is."""
        said = as_text(payload.get("message"))
        left = {f"codex.{k}": attribute_value(v) for k, v in payload.items() if k not in (*_ENVELOPE, "message")}
        return self._span(self._id("", kind), kind, "SPAN", (time, time), {semconv.OUTPUT_VALUE[0]: said, **left})

    def _end_turn(self) -> Iterator[Record]:
        turn = self._turn
        if turn is None:
            return
        if self._answer is not None:
            yield self._answered({})
        for call_id, tool in self._tools.items():
            yield self._told(call_id, tool)
        self._tools.clear()
        if self._asked:
            unanswered = {semconv.INPUT_MESSAGES[0]: json_text(self._asked)}
            times = (self._before, self._before)
            yield self._span(self._id("", "unanswered"), "unanswered messages", "SPAN", times, unanswered)
            self._asked = []
        attributes = {**turn.own, semconv.INPUT_VALUE[0]: turn.prompt, semconv.OUTPUT_VALUE[0]: turn.answer}
        yield self._span(
            turn.span_id,
            "turn",
            "CHAIN",
            (turn.start, turn.end),
            attributes,
            parent=self._trace_id,
            failed=turn.failed,
            message=turn.message,
        )
        self._turn = None

    def end(self) -> Iterator[Record]:
        """What was still open, and the root."""
        yield from self._end_turn()
        about = {
            f"codex.{key}": attribute_value(value)
            for key, value in self._meta.items()
            if key not in ("id", "session_id", "timestamp", *_INSTRUCTIONS)
        }
        attributes = about | {
            semconv.AGENT_NAME[0]: _AGENT,
            semconv.INPUT_VALUE[0]: self._prompt,
            semconv.OUTPUT_VALUE[0]: self._last_word,
            # Of a session in which the model said nothing.
            semconv.SYSTEM_INSTRUCTIONS[0]: self._instructions,
        }
        yield self._span(self._trace_id, _AGENT, "AGENT", (self._start, self._end), attributes, parent="")


def _words(content: Json) -> str:
    """The text in an output or a message: text, a part, or parts; the JSON of what is none of them."""
    parts = [as_mapping(part) for part in as_list(content) or [content]]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    pictures = [part for part in parts if part.get("image_url")]
    if texts and not pictures:
        return "\n".join(texts)
    return as_text(content)


def _read_exit_code(tool: _Tool, output: Json) -> None:
    """The exit code in an output that is ``{"output": "...", "metadata": {"exit_code": 1}}``, as JSON or its text."""
    if isinstance(output, str) and output.startswith("{") and '"exit_code"' in output:
        try:
            output = orjson.loads(output)
        except orjson.JSONDecodeError:
            return
    members = as_mapping(output)
    code = as_mapping(members.get("metadata")).get("exit_code", members.get("exitCode", members.get("exit_code")))
    if type(code) is int:
        _take_exit_code(tool, code)


def _take_exit_code(tool: _Tool, code: int) -> None:
    tool.own["exit_code"] = code
    tool.failed = tool.failed or code != 0


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    session: _Session | None = None
    known = ""
    copied = ""

    def spans_of(value: Json) -> Iterator[Record]:
        nonlocal session, known, copied
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        line = as_mapping(value)
        kind, payload = as_text(line.get("type")), as_mapping(line.get("payload"))
        if not payload:
            raise ValueError("a line without a payload")
        time = nanoseconds(line.get("timestamp"), report)
        if kind != "session_meta":
            if session is None:
                raise ValueError("a line before the session's first")
            yield from session.take(kind, payload, time)
            return
        found = as_text(payload.get("id") or payload.get("session_id"))
        if not found:
            raise ValueError("a session without an id")
        if found in (known, copied):
            # Written again when the session goes on; a fork begins with the lines of the session it was made from.
            report.ignored("repeats the session's first line")
            return
        if session is not None:
            yield from session.end()
        known, copied = found, as_text(payload.get("forked_from_id"))
        session = _Session(found, payload, time, report)

    yield from per_record(file.values(), report, spans_of)
    if session is not None:
        yield from session.end()


FORMAT: Final = Format(
    name="codex",
    title="Codex rollouts",
    description="rollout files, one trace a session, with its turns",
    sniff=_sniff,
    convert=_convert,
)
