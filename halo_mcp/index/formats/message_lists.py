"""Plain conversations: lists of messages with ``role`` and ``content``, with or without something around them.

A JSON array of messages or one message a line is one conversation. An object with a list of messages in it, or a list
of messages where another list could stand beside it (an array of arrays, a line each), is a conversation by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import MODEL_ROLES, Talk, first_text, is_message, plain, time_of
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Trajectory, digest, members, outcome
from halo_mcp.index.formats.values import attribute_value, given, per_record
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_KEYS: Final = ("messages", "conversation", "trajectory", "transcript")
_NAMES_ITSELF: Final = ("trajectory_format", "schema_version", "format_version")
"""What has these is of a format of its own, even if it holds messages."""
_IDS: Final = ("conversation_id", "session_id", "id", "uuid", "instance_id", "task_id")
_SESSIONS: Final = ("session_id", "conversation_id")
_AGENTS: Final = ("agent_name", "agent")
_SCORES: Final = ("score", "scores")
_USER: Final = frozenset(("user", "human"))


# --- whether a file is one: every value at its beginning must be ---------------------------------------------------
def _sniff(head: Head) -> bool:
    if head.shape not in ("lines", "array", "document") or not head.values:
        return False
    values = list(head.values)
    if any(key in value for value in head.objects for key in _NAMES_ITSELF):
        return False
    if all(is_message(value) for value in (values if head.whole or len(values) == 1 else values[:-1])):
        return len(values) > 1 and _a_model_speaks(values)
    conversations = [_messages_in(value) for value in values]
    if not head.whole:
        conversations = [*conversations[:-1], conversations[-1][:-1]]  # what is cut off does not count
        if len(conversations) > 1 and not conversations[-1]:
            conversations.pop()
    whole = all(messages and all(map(is_message, messages)) for messages in conversations)
    return whole and any(map(_a_model_speaks, conversations))


def _messages_in(value: Json) -> list[Json]:
    """The messages of a conversation; none when it is no conversation."""
    if isinstance(value, list):
        return as_list(value)
    record = as_mapping(value)
    return as_list(next((record[key] for key in _KEYS if as_list(record.get(key))), None))


def _a_model_speaks(messages: Sequence[Json]) -> bool:
    return any(as_mapping(message).get("role") in MODEL_ROLES for message in messages)


# --- what is in it ---------------------------------------------------------------------------------------------------
def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    loose: list[Json] = []
    yield from per_record(file.values(), report, lambda value: _of_value(value, loose, report))
    if loose:
        yield from per_record([{"messages": loose}], report, lambda value: _spans(as_mapping(value), report, 0))


def _of_value(value: Json, loose: list[Json], report: Report) -> Iterator[Record]:
    record = as_mapping(value)
    if ("content" in record and isinstance(record.get("role"), str)) or is_message(value):
        loose.append(value)
        return iter(())
    messages = _messages_in(value)
    if not any(isinstance(as_mapping(message).get("role"), str) for message in messages):
        raise ValueError("neither a message nor a list of messages")
    return _spans(record or {"messages": value}, report, report.records - 1)


def _spans(record: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    key = next(key for key in _KEYS if as_list(record.get(key)))
    messages, mark = as_list(record[key]), digest(record)
    about = as_mapping(record.get("metadata"))
    label = next((as_text(record[key]) for key in _IDS if isinstance(record.get(key), str | int)), "conversation")
    known_id = record.get("trace_id")
    times = [time for item in messages if (time := time_of(as_mapping(item))) is not None]
    trajectory = Trajectory(
        known_id if isinstance(known_id, str) and known_id else f"{label}-{mark}",
        mark=mark,
        report=report,
        number=number,
        begin=min(times, default=None),
    )
    Talk(trajectory, as_text(record.get("model")) or as_text(about.get("model"))).take(messages)
    trajectory.root.name = "conversation"
    trajectory.root.attributes = _about(record, key, messages) | outcome(record, about)
    yield from trajectory.spans(resource={}, scope={"name": FORMAT.name})


def _about(record: Mapping[str, Json], key: str, messages: Sequence[Json]) -> dict[str, Json]:
    """What the record says beside its messages, most of it under its own keys."""
    answers = [as_mapping(one) for one in messages if as_mapping(one).get("role") in MODEL_ROLES]
    agent = next((record[name] for name in _AGENTS if isinstance(record.get(name), str)), "")
    session = next((record[name] for name in _SESSIONS if isinstance(record.get(name), str)), "")
    known: dict[str, Json] = {
        semconv.AGENT_NAME[0]: agent,
        semconv.SESSION_ID[0]: session,
        semconv.INPUT_VALUE[0]: first_text(messages, _USER),
        semconv.OUTPUT_VALUE[0]: attribute_value(plain(answers[-1].get("content"))) if answers else None,
        semconv.TOOL_DEFINITIONS[0]: attribute_value(record.get("tools")),
        semconv.SYSTEM_INSTRUCTIONS[0]: attribute_value(plain(record.get("system"))),
    }
    scores = {name: as_mapping(record.get(name)) for name in _SCORES}
    taken = [name for name, values in scores.items() if values]
    found = given(known) | members(record, without=(key, *_AGENTS, *_SESSIONS, "trace_id", "tools", "system", *taken))
    for values in scores.values():
        found |= members(values, prefix="score.")
    return found


FORMAT: Final = Format(
    name="message-list",
    title="Message lists",
    description="lists of messages with `role` and `content` (OpenAI's and Anthropic's shapes): a JSON array, an "
    "object with `messages`, or JSON lines of messages or of such objects",
    sniff=_sniff,
    convert=_convert,
)
