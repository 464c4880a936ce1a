"""Session files of Claude Code: one trace a session, with an AGENT root, LLM, TOOL and sub-agents' AGENT spans.

A model's message is spread over lines, one for each content block, each of which repeats the usage; the last one has it
whole. A tool's result is a block of a later line. Sub-agents stand in the session's file (side chains, progress lines)
or in files of their own, which join the session's trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import MADE_IDS, REPEATED, Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import ERROR, UNSET, attribute_value, given, nanoseconds, per_record, span
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_AGENT: Final = "claude-code"
_SPOKEN: Final = frozenset(("user", "assistant", "system", "progress", "attachment"))
_BOOKKEEPING: Final = frozenset(
    (
        "summary", "file-history-snapshot", "queue-operation", "mode", "permission-mode", "last-prompt", "custom-title",
        "ai-title", "agent-name", "agent-color", "agent-setting", "tag", "pr-link", "worktree-state",
    )
)  # fmt: skip
_IN_LINES: Final = frozenset(("type", "uuid", "message", "sessionId", "trace_id"))
_SYNTHETIC: Final = "<synthetic>"
_OPEN_MESSAGES: Final = 8
"""Messages of one agent that may still get lines; the lines of a message stand close together."""
_KEPT_CHARS: Final = 500
"""Longer texts of what a tool reports beside its result repeat the result."""
_CONTEXT: Final = ("cwd", "gitBranch", "version", "entrypoint", "slug", "permissionMode")


def _sniff(head: Head) -> bool:
    return head.shape == "lines" and (any(_is_line(one) for one in head.objects) or _is_about_agent(head.first))


def _is_about_agent(line: Mapping[str, Json]) -> bool:
    """What stands beside a sub-agent's file."""
    scalars = not any(isinstance(value, dict | list) for value in line.values())
    return isinstance(line.get("agentType"), str) and scalars and not line.keys() & _IN_LINES


def _is_line(line: Mapping[str, Json]) -> bool:
    kind = line.get("type")
    if kind == "summary":
        return "leafUuid" in line
    if kind == "file-history-snapshot":
        return "snapshot" in line
    return isinstance(line.get("sessionId"), str) and "uuid" in line and isinstance(kind, str) and kind in _SPOKEN


@dataclass(slots=True)
class _Message:
    """A model's message whose lines are still coming."""

    span_id: str
    start: int | None
    end: int | None
    asked: list[Json]
    content: list[Json] = field(default_factory=list[Json])
    usage: Mapping[str, Json] = field(default_factory=dict[str, Json])
    model: str = ""
    stop_reason: Json = None
    own: dict[str, Json] = field(default_factory=dict[str, Json])


@dataclass(slots=True)
class _Tool:
    """A tool call whose result has not come."""

    span_id: str
    name: str
    given: Json
    start: int | None
    agent: str


@dataclass(slots=True)
class _Agent:
    """The main agent ("") or a sub-agent, and the end of what is known of it."""

    key: str
    span_id: str
    task: str = ""
    """Span id of the tool call that started it."""
    name: str = ""
    start: int | None = None
    end: int | None = None
    before: int | None = None
    """When the line before the next answer was written."""
    prompt: str = ""
    answer: str = ""
    asked: list[Json] = field(default_factory=list[Json])
    """Messages since the last answer."""
    open: dict[str, _Message] = field(default_factory=dict[str, _Message])


class _Session:
    """The lines of one session in one file."""

    def __init__(self, trace_id: str, file: TraceFile, report: Report) -> None:
        self._trace_id = trace_id
        self._path = file.path
        self._report = report
        self._agents: dict[str, _Agent] = {}
        self._tools: dict[str, _Tool] = {}
        self._tasks: dict[str, str] = {}
        """Agent id -> span id of the tool call that started it."""
        self._called: set[int] = set()
        """Hashes of the ids of tool calls."""
        self._chains: dict[int, str] = {}
        """Of the lines of side chains without an agent id: hash of the uuid -> agent."""
        self._seen: set[int] = set()
        self._answered: set[int] = set()
        """Hashes of the ids of messages that were given out."""
        self._given = {hash(trace_id)}
        """Hashes of the span ids that were given out; the root has the session's."""
        self._about: dict[str, Json] = {}
        self._has_root = False

    # --- lines -----------------------------------------------------------------------------------------------------
    def take(self, line: Mapping[str, Json]) -> Iterator[Record]:
        """The spans that are complete with this line. Raises: ValueError for a line of no known kind."""
        kind = as_text(line.get("type"))
        if kind == "progress":
            data = as_mapping(line.get("data"))
            if data.get("type") != "agent_progress":
                self._report.ignored("a progress line that tells nothing of the conversation")
                return
            agent = as_text(data.get("agentId") or line.get("parentToolUseID"))
            self._tasks.setdefault(agent, as_text(line.get("parentToolUseID")))
            if self._in_own_file(agent):
                self._report.ignored("a progress line of a sub-agent that has a file of its own")
                return
            line = {"timestamp": line.get("timestamp"), **as_mapping(data.get("message")), "agentId": agent}
            kind = as_text(line.get("type"))
        if kind not in ("user", "assistant", "system", "attachment"):
            raise ValueError("a line of an unknown type")
        if self._repeats(line, kind):
            return
        agent = self._agent_of(line, kind)
        for key in _CONTEXT:
            if isinstance(value := line.get(key), str | int):
                self._about[key] = value
        time = nanoseconds(line.get("timestamp"), self._report) or agent.end
        agent.start = time if agent.start is None or (time is not None and time < agent.start) else agent.start
        agent.end = time if agent.end is None or (time is not None and time > agent.end) else agent.end
        if kind == "assistant":
            yield from self._assistant(agent, line, time)
        elif kind == "user":
            yield from self._user(agent, line, time)
            agent.before = time
        elif kind == "system":
            yield from self._system(agent, line, time)
        else:
            self._attachment(agent, as_mapping(line.get("attachment")))

    def _repeats(self, line: Mapping[str, Json], kind: str) -> bool:
        if not (uuid := line.get("uuid")):
            return False
        # What was redacted may have one uuid on all its lines.
        known = hash((as_text(uuid), kind, as_text(line.get("timestamp")), as_text(line.get("message"))))
        if known in self._seen:
            self._report.repaired(REPEATED)
            return True
        self._seen.add(known)
        return False

    def _agent_of(self, line: Mapping[str, Json], kind: str) -> _Agent:
        key = as_text(line.get("agentId"))
        if not key and line.get("isSidechain") is True:
            key = self._chain(line, kind)
        if not key:
            self._has_root = True
        if key not in self._agents:
            self._agents[key] = _Agent(key, f"agent-{key}" if key else self._trace_id)
        agent = self._agents[key]
        agent.name = agent.name or as_text(line.get("attributionAgent"))
        return agent

    def _chain(self, line: Mapping[str, Json], kind: str) -> str:
        """The agent of a side chain's line; "" for a line of no side chain that is known."""
        uuid = as_text(line.get("uuid"))
        key = self._chains.get(hash(as_text(line.get("parentUuid"))), "") if line.get("parentUuid") else ""
        if not key and kind == "user":
            self._has_root = True
            prompt = _plain(as_mapping(line.get("message")).get("content"))
            started = (t for t in self._tools.values() if as_mapping(t.given).get("prompt") == prompt)
            taken = set(self._tasks.values())
            tool = next((t for t in started if t.span_id not in taken), None)
            key = uuid
            if tool is not None:
                self._tasks[key] = tool.span_id
        if key:
            self._chains[hash(uuid)] = key
        return key

    # --- what a line says --------------------------------------------------------------------------------------------
    def _assistant(self, agent: _Agent, line: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        message = as_mapping(line.get("message"))
        content = _blocks(message.get("content"))
        text = _plain([block for block in content if as_mapping(block).get("type") == "text"])
        uuid = as_text(line.get("uuid"))
        if line.get("isApiErrorMessage") is True:
            yield self._failed_call(agent, uuid, time, text, as_text(line.get("error")), {})
            return
        if message.get("model") == _SYNTHETIC:
            attributes = {semconv.OBSERVATION_KIND: "SPAN", semconv.OUTPUT_VALUE[0]: text or json_text(content)}
            yield self._span(agent, uuid, "synthetic message", time, time, attributes)
            return
        key = as_text(message.get("id") or line.get("requestId")) or uuid
        open_message = agent.open.get(key)
        if open_message is None:
            late = hash(key) in self._answered
            start = agent.before if agent.before is not None and (time is None or agent.before <= time) else time
            open_message = _Message(uuid if late and uuid else key, start, time, agent.asked)
            agent.asked = []
            agent.open[key] = open_message
            self._answered.add(hash(key))
            if late:
                open_message.own["source.message_id"] = key
                self._report.repaired("late lines of a message")
        late = "source.message_id" in open_message.own
        open_message.end = time
        open_message.content += content
        usage = as_mapping(message.get("usage"))
        open_message.usage = open_message.usage if late or not usage else usage
        open_message.model = as_text(message.get("model")) or open_message.model
        open_message.stop_reason = message.get("stop_reason") or open_message.stop_reason
        open_message.own["requestId"] = line.get("requestId")
        if line.get("error"):
            open_message.own["error"] = attribute_value(line["error"])
        agent.answer = text or agent.answer
        for block in map(as_mapping, content):
            if block.get("type") == "tool_use":
                self._call(agent, block, uuid, time)
        while len(agent.open) > _OPEN_MESSAGES:
            yield self._answer(agent, agent.open.pop(next(iter(agent.open))))

    def _call(self, agent: _Agent, block: Mapping[str, Json], uuid: str, time: int | None) -> None:
        call_id = as_text(block.get("id"))
        if not call_id:
            call_id = f"{uuid}:{len(self._tools)}"
            self._report.repaired(MADE_IDS)
        if hash(call_id) in self._called:
            self._report.repaired(REPEATED)
            return
        self._called.add(hash(call_id))
        self._tools[call_id] = _Tool(call_id, as_text(block.get("name")), block.get("input"), time, agent.key)

    def _user(self, agent: _Agent, line: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        message = line.get("message")
        members = as_mapping(message)
        if "content" not in members:
            agent.asked.append(members or {"role": "user", "content": as_text(message)})
            return
        kept: list[Json] = []
        for block in _blocks(members["content"]):
            if as_mapping(block).get("type") == "tool_result":
                record = self._result(agent, as_mapping(block), line, time)
                if record is not None:
                    yield record
                    continue
            kept.append(block)
        if kept:
            content = kept if isinstance(members["content"], list) else members["content"]
            asked: dict[str, Json] = {"role": as_text(members.get("role")) or "user", "content": content}
            agent.asked.append(asked)
            if line.get("isMeta") is not True:
                agent.prompt = agent.prompt or _plain(kept)

    def _result(
        self, agent: _Agent, block: Mapping[str, Json], line: Mapping[str, Json], time: int | None
    ) -> Record | None:
        """The span of the call that this answers; None when there is no such call."""
        call_id = as_text(block.get("tool_use_id"))
        if not call_id:  # one that was recorded without an id, then
            nameless = (key for key, tool in self._tools.items() if tool.agent == agent.key and ":" in key)
            call_id = next(nameless, "")
        tool = self._tools.pop(call_id, None)
        if tool is None:
            return None
        beside = as_mapping(line.get("toolUseResult"))
        if agent_id := as_text(beside.get("agentId")):
            self._tasks[agent_id] = tool.span_id
        own = {
            f"toolUseResult.{key}": value
            for key, value in beside.items()
            if isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= _KEPT_CHARS)
        }
        output = _plain(block.get("content"))
        failed = block.get("is_error") is True
        return self._tool(tool, time, output, failed=failed, own={key: own[key] for key in own if own[key] != output})

    def _system(self, agent: _Agent, line: Mapping[str, Json], time: int | None) -> Iterator[Record]:
        subtype, uuid = as_text(line.get("subtype")), as_text(line.get("uuid"))
        told = {key: attribute_value(value) for key, value in line.items() if key not in _ENVELOPE}
        if subtype == "api_error":
            error = as_mapping(line.get("error"))
            inner = as_mapping(as_mapping(error.get("error")).get("error")) or as_mapping(error.get("error")) or error
            words = as_text(inner.get("message") or error.get("message")) or json_text(line.get("error"))
            yield self._failed_call(agent, uuid, time, words, as_text(inner.get("type")), told)
        elif subtype == "compact_boundary" or line.get("content") or line.get("level") in ("error", "warning"):
            told |= {semconv.OBSERVATION_KIND: "SPAN", semconv.OUTPUT_VALUE[0]: _plain(line.get("content"))}
            told.pop("content", None)
            yield self._span(agent, uuid, subtype or "system", time, time, told)
        else:
            self._report.ignored("a system line without words")

    def _attachment(self, agent: _Agent, attachment: Mapping[str, Json]) -> None:
        kind = as_text(attachment.get("type"))
        if kind == "hook_success" or not attachment:
            self._report.ignored("a hook that went well")
        else:
            agent.asked.append({"role": "attachment", "content": json_text(attachment)})

    # --- spans -------------------------------------------------------------------------------------------------------
    def _span(
        self,
        agent: _Agent,
        span_id: str,
        name: str,
        start: int | None,
        end: int | None,
        attributes: Mapping[str, Json],
        *,
        status: str = UNSET,
        message: str = "",
        parent: str | None = None,
    ) -> Record:
        if parent is None:
            attributes = {**attributes, **self._source_id(span_id)}
            span_id = self._unique(span_id, agent)
        version = self._about.get("version")
        return span(
            trace_id=self._trace_id,
            span_id=span_id,
            parent_span_id=agent.span_id if parent is None else parent,
            name=name,
            kind="CLIENT" if attributes.get(semconv.OBSERVATION_KIND) == "LLM" else "INTERNAL",
            start=start,
            end=end,
            status=status,
            message=message,
            attributes=given({semconv.SESSION_ID[0]: self._trace_id, **attributes}),
            resource=given({semconv.SERVICE_NAME: _AGENT, semconv.SERVICE_VERSION: version}),
            scope={"name": _AGENT},
            report=self._report,
        )

    def _source_id(self, span_id: str) -> dict[str, Json]:
        return {semconv.SOURCE_SPAN_ID: span_id} if hash(span_id) in self._given else {}

    def _unique(self, span_id: str, agent: _Agent) -> str:
        """The id, or one made from it where the source has it twice (redacted) or has none."""
        if not span_id or hash(span_id) in self._given:
            span_id = f"{span_id or agent.span_id}:{self._report.line_number}:{len(self._given)}"
            self._report.repaired(MADE_IDS)
        self._given.add(hash(span_id))
        return span_id

    def _failed_call(
        self, agent: _Agent, uuid: str, time: int | None, words: str, kind: str, told: Mapping[str, Json]
    ) -> Record:
        attributes = {**told, semconv.OBSERVATION_KIND: "LLM", semconv.EXCEPTION_TYPE[1]: kind}
        start = agent.before if agent.before is not None and (time is None or agent.before <= time) else time
        agent.before = time
        return self._span(agent, uuid, "API error", start, time, attributes, status=ERROR, message=words)

    def _answer(self, agent: _Agent, one: _Message) -> Record:
        usage = one.usage
        attributes: dict[str, Json] = {
            semconv.OBSERVATION_KIND: "LLM",
            semconv.MODEL_NAME[0]: one.model,
            semconv.PROVIDER[0]: "anthropic" if one.model.startswith("claude") else None,
            semconv.INPUT_TOKENS[0]: usage.get("input_tokens"),
            semconv.OUTPUT_TOKENS[0]: usage.get("output_tokens"),
            semconv.CACHED_INPUT_TOKENS[0]: usage.get("cache_read_input_tokens"),
            "gen_ai.usage.cache_creation.input_tokens": usage.get("cache_creation_input_tokens"),
            semconv.FINISH_REASON[0]: attribute_value(one.stop_reason),
            semconv.INPUT_MESSAGES[0]: json_text(one.asked) if one.asked else None,
            semconv.OUTPUT_MESSAGES[0]: json_text([{"role": "assistant", "content": _unsigned(one.content)}]),
            **one.own,
        }
        return self._span(agent, one.span_id, f"chat {one.model}".strip(), one.start, one.end, attributes)

    def _tool(
        self, tool: _Tool, end: int | None, output: str | None, *, failed: bool, own: Mapping[str, Json]
    ) -> Record:
        attributes = {
            semconv.OBSERVATION_KIND: "TOOL",
            semconv.TOOL_NAME[0]: tool.name,
            semconv.INPUT_VALUE[0]: attribute_value(tool.given),
            semconv.RESULT_MISSING: True if output is None else None,
            **own,
        }
        record = self._span(
            self._agents[tool.agent],
            tool.span_id,
            tool.name or "tool",
            tool.start,
            end,
            attributes,
            status=ERROR if failed else UNSET,
        )
        # An output of "" is an output: given() takes it for none.
        if output is not None:
            record = {**record, "attributes": {**as_mapping(record["attributes"]), semconv.OUTPUT_VALUE[0]: output}}
        return record

    # --- the end -----------------------------------------------------------------------------------------------------
    def end(self) -> Iterator[Record]:
        """What was still open, and the agents."""
        for agent in list(self._agents.values()):
            for one in agent.open.values():
                yield self._answer(agent, one)
        for tool in self._tools.values():
            yield self._tool(tool, None, None, failed=False, own={})
            agent = self._agents[tool.agent]
        if self._has_root and "" not in self._agents:
            self._agents[""] = self._whole()
        for agent in self._agents.values():
            if agent.asked:
                attributes = {
                    semconv.OBSERVATION_KIND: "SPAN",
                    semconv.INPUT_MESSAGES[0]: json_text(agent.asked),
                }
                yield self._span(
                    agent, f"{agent.span_id}:unanswered", "unanswered messages", agent.end, agent.end, attributes
                )
            yield self._of_agent(agent)

    def _whole(self) -> _Agent:
        """A root for a file with nothing but side chains."""
        starts = [agent.start for agent in self._agents.values() if agent.start is not None]
        ends = [agent.end for agent in self._agents.values() if agent.end is not None]
        return _Agent("", self._trace_id, start=min(starts, default=None), end=max(ends, default=None))

    def _of_agent(self, agent: _Agent) -> Record:
        attributes: dict[str, Json] = {
            semconv.OBSERVATION_KIND: "AGENT",
            semconv.AGENT_NAME[0]: agent.name or (self._kind_of(agent.key) if agent.key else _AGENT),
            semconv.AGENT_ID[0]: agent.key,
            semconv.INPUT_VALUE[0]: agent.prompt,
            semconv.OUTPUT_VALUE[0]: agent.answer,
        }
        if not agent.key:
            attributes |= self._about
        return self._span(
            agent,
            agent.span_id,
            as_text(attributes[semconv.AGENT_NAME[0]]),
            agent.start,
            agent.end,
            attributes,
            parent=self._parent_of(agent.key) if agent.key else "",
        )

    # --- sub-agents and their files ----------------------------------------------------------------------------------
    def _in_own_file(self, agent_id: str) -> bool:
        folder = self._path.with_name(self._path.name.partition(".")[0])
        return any((place / f"agent-{agent_id}.jsonl").is_file() for place in (folder / "subagents", self._path.parent))

    def _parent_of(self, agent_id: str) -> str:
        """The span id of the tool call that started a sub-agent, else of the session."""
        task = self._tasks.get(agent_id, "")
        if self._has_root:
            return task if hash(task) in self._called else self._trace_id
        session = _session_file(self._path, self._trace_id)
        return "" if session is None else _task_of(session, agent_id) or self._trace_id

    def _kind_of(self, agent_id: str) -> str:
        try:
            about = as_mapping(orjson.loads(self._path.with_suffix(".meta.json").read_bytes()))
        except (OSError, ValueError):
            about = as_mapping(None)
        return as_text(about.get("agentType")) or "subagent"


_ENVELOPE: Final = frozenset(
    (
        "type", "uuid", "parentUuid", "timestamp", "sessionId", "isSidechain", "userType", "isMeta", "agentId",
        *_CONTEXT,
    )
)  # fmt: skip


def _blocks(content: Json) -> list[Json]:
    if isinstance(content, list):
        return as_list(content)
    return [] if content in (None, "") else [{"type": "text", "text": content}]


def _plain(content: Json) -> str:
    """The text of a content that is text or blocks of text; the JSON of any other."""
    blocks = [as_mapping(block) for block in as_list(content)]
    if blocks and all(block.get("type") == "text" and isinstance(block.get("text"), str) for block in blocks):
        return "\n".join(block["text"] for block in blocks)
    return "" if content in (None, []) else as_text(content)


def _unsigned(content: Iterable[Json]) -> list[Json]:
    """Without the signatures of thoughts, which are no words."""
    return [
        {key: value for key, value in as_mapping(block).items() if key != "signature"}
        if isinstance(block, dict)
        else block
        for block in content
    ]


def _session_file(agent_file: Path, session: str) -> Path | None:
    """Where the session of a sub-agent's file is, if it is there."""
    if "/" in session or "\\" in session:
        return None
    places = (agent_file.parent.parent.parent, agent_file.parent)
    return next((path for place in places if (path := place / f"{session}.jsonl").is_file()), None)


def _task_of(session: Path, agent_id: str) -> str:
    """The id of the tool call by which a session started an agent; "" when it does not say."""
    mark = b'"' + agent_id.encode("utf-8", "replace") + b'"'
    with session.open("rb") as lines:
        for text in lines:
            if mark not in text:
                continue
            try:
                line = as_mapping(orjson.loads(text))
            except orjson.JSONDecodeError:
                continue
            if as_mapping(line.get("data")).get("agentId") == agent_id and line.get("parentToolUseID"):
                return as_text(line["parentToolUseID"])
            if as_mapping(line.get("toolUseResult")).get("agentId") == agent_id:
                blocks = as_list(as_mapping(line.get("message")).get("content"))
                return next((as_text(as_mapping(b).get("tool_use_id")) for b in blocks), "")
    return ""


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    sessions: dict[str, _Session] = {}
    last = ""

    def spans_of(value: Json) -> Iterable[Record]:
        nonlocal last
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        line = as_mapping(value)
        kind = as_text(line.get("type"))
        if kind in _BOOKKEEPING:
            report.ignored(kind)
            return ()
        if _is_about_agent(line):
            report.ignored("about a sub-agent: read with its file")
            return ()
        trace_id = _trace_id(line, file.path) or last
        if not trace_id:
            raise ValueError("a line of no session")
        last = trace_id
        if trace_id not in sessions:
            sessions[trace_id] = _Session(trace_id, file, report)
        return sessions[trace_id].take(line)

    yield from per_record(file.values(), report, spans_of)
    for session in sessions.values():
        yield from session.end()


def _trace_id(line: Mapping[str, Json], path: Path) -> str:
    """The session; of a sub-agent's file that calls itself the session, the one whose folder it is in."""
    session = as_text(line.get("sessionId"))
    own = session == f"agent-{as_text(line.get('agentId'))}"
    return path.parent.parent.name if own and path.parent.name == "subagents" else session


FORMAT: Final = Format(
    name="claude-code",
    title="Claude Code sessions",
    description="session files, one trace a session, and their sub-agents' files, which join it",
    sniff=_sniff,
    convert=_convert,
)
