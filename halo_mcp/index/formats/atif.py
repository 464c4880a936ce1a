"""ATIF, the Agent Trajectory Interchange Format of Harbor, versions 1.0 to 1.8: documents of steps.

A step of the agent is a model's step and one for each tool call with its result. Steps that a continuation copied from
the trajectory before it are context, not work: they are not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import plain
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Step, Trajectory, digest, members, outcome, per_part, usage
from halo_mcp.index.formats.values import FAULTS, attribute_value, given, nanoseconds, per_record, reason_of
from halo_mcp.index.json_text import json_text
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "atif"
_VERSION: Final = "ATIF-v"
_ROLES: Final = {"agent": "assistant"}
_STEP_KEYS: Final = (
    "step_id", "timestamp", "source", "model_name", "message", "tool_calls", "observation", "metrics",
    "reasoning_content", "is_copied_context",
)  # fmt: skip
_ROOT_KEYS: Final = ("steps", "agent", "session_id", "schema_version", "final_metrics", "subagent_trajectories")


def _sniff(head: Head) -> bool:
    return any(_is_trajectory(value) for value in head.objects)


def _is_trajectory(value: Mapping[str, Json]) -> bool:
    return as_text(value.get("schema_version")).upper().startswith(_VERSION.upper())


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    def spans(value: Json) -> Iterator[Record]:
        document = as_mapping(value)
        if not isinstance(document.get("steps"), list):
            raise ValueError("not a trajectory: it has no steps")
        return _spans(document, report, report.records - 1)

    return per_record(file.values(), report, spans)


def _spans(document: Mapping[str, Json], report: Report, number: int) -> Iterator[Record]:
    mark = digest(document)
    session = as_text(document.get("session_id") or document.get("trajectory_id"))
    steps = [as_mapping(item) for item in as_list(document.get("steps"))]
    times = [time for step in steps if (time := nanoseconds(step.get("timestamp"), report)) is not None]
    trajectory = Trajectory(
        session or f"{_NAME}-{mark}", mark=mark, report=report, number=number, begin=min(times, default=None)
    )
    work = _Work(trajectory, as_mapping(document.get("agent")))
    for position, step in enumerate(steps):
        if not step:
            report.skip("a step that is no object", whole=False, place=f"step {position + 1}")
            continue
        try:
            work.take(step, position)
        except FAULTS as fault:
            report.skip(reason_of(fault), whole=False, place=f"step {position + 1}")
    work.end()
    agent = as_mapping(document.get("agent"))
    name, version = as_text(agent.get("name")), as_text(agent.get("version"))
    trajectory.root.name = f"invoke_agent {name}".strip()
    trajectory.root.attributes = _root_attributes(document, agent, session, work)
    yield from trajectory.spans(
        resource=given({semconv.SERVICE_NAME: name, semconv.SERVICE_VERSION: version}),
        scope=given({"name": _NAME, "version": as_text(document.get("schema_version"))}),
    )
    inside = [(f"subagent {no + 1}", one) for no, one in enumerate(as_list(document.get("subagent_trajectories")))]
    yield from per_part(inside, report, lambda one: _subagent(as_mapping(one), session, report, number))


def _subagent(document: Mapping[str, Json], session: str, report: Report, number: int) -> Iterator[Record]:
    if not isinstance(document.get("steps"), list):
        raise ValueError("a sub-agent without steps")
    # A trace of its own: which of the steps called it is told by ids that are often missing.
    own = as_text(document.get("session_id") or document.get("trajectory_id"))
    own = own if own != session else as_text(document.get("trajectory_id"))
    return _spans({**document, "session_id": own, "parent_session_id": session}, report, number)


def _root_attributes(
    document: Mapping[str, Json], agent: Mapping[str, Json], session: str, work: _Work
) -> dict[str, Json]:
    totals = as_mapping(document.get("final_metrics"))
    known: dict[str, Json] = {
        semconv.AGENT_NAME[0]: as_text(agent.get("name")),
        semconv.SESSION_ID[0]: session,
        semconv.INPUT_VALUE[0]: work.task,
        semconv.OUTPUT_VALUE[0]: work.answer,
        semconv.TOOL_DEFINITIONS[0]: attribute_value(agent.get("tool_definitions")),
        "source.copied_steps": work.copied or None,
    }
    if not work.counted:
        # Tokens of steps are better; the sum is of use where no step tells any.
        known[semconv.INPUT_TOKENS[0]] = totals.get("total_prompt_tokens")
        known[semconv.OUTPUT_TOKENS[0]] = totals.get("total_completion_tokens")
    return (
        given(known)
        | members(agent, without=("name", "tool_definitions", "version"), prefix="agent.")
        | members(totals, prefix="final_metrics.")
        | members(document, without=_ROOT_KEYS)
        | outcome(document, as_mapping(document.get("extra")))
    )


class _Work:
    """Takes the steps in order."""

    def __init__(self, trajectory: Trajectory, agent: Mapping[str, Json]) -> None:
        self._trajectory = trajectory
        self._model = as_text(agent.get("model_name"))
        self._said: list[Json] = []
        self._unseen: list[tuple[Json, int]] = []
        self.task: Json = None
        """What the user said first."""
        self.answer: Json = None
        """What the agent said last."""
        self.copied = 0
        self.counted = False
        """Some step tells its tokens."""

    def take(self, step: Mapping[str, Json], position: int) -> None:
        """One step."""
        content = attribute_value(plain(step.get("message")))
        if self.task is None and step.get("source") == "user":
            self.task = content
        if step.get("is_copied_context") is True:
            self.copied += 1
            self._hear(step, position)
            return
        if step.get("source") != "agent":
            self._hear(step, position)
            self._observe(step, position, [])
            return
        self.answer = content or self.answer
        self._answered(step, position)
        asked = [self._call(as_mapping(call), position) for call in as_list(step.get("tool_calls"))]
        self._observe(step, position, asked)

    def end(self) -> None:
        """What was said after the agent's last step stays visible."""
        for message, position in self._unseen:
            attributes: dict[str, Json] = {semconv.INPUT_MESSAGES[0]: json_text([message])}
            self._trajectory.add("SPAN", "message", attributes, step=position)

    def _hear(self, step: Mapping[str, Json], position: int) -> None:
        self._said.append(_message(step))
        self._unseen.append((self._said[-1], position))

    def _answered(self, step: Mapping[str, Json], position: int) -> None:
        model = as_text(step.get("model_name")) or self._model
        counts = usage(step.get("metrics"))
        self.counted = self.counted or semconv.INPUT_TOKENS[0] in counts
        attributes: dict[str, Json] = {
            semconv.MODEL_NAME[0]: model,
            semconv.INPUT_MESSAGES[0]: json_text(self._said) if self._said else None,
            semconv.OUTPUT_MESSAGES[0]: json_text([_message(step)]),
            semconv.NEW_MESSAGES_ONLY: True,
            "step_id": step.get("step_id"),
        }
        own = members(step, without=_STEP_KEYS)
        # A step may be the work of the harness alone.
        kind = "CHAIN" if step.get("llm_call_count") == 0 else "LLM"
        name = f"chat {model}".strip() if kind == "LLM" else "step"
        self._trajectory.add(
            kind, name, attributes | counts | own, step=position, time=nanoseconds(step.get("timestamp"))
        )
        self._said, self._unseen = [], []

    def _call(self, call: Mapping[str, Json], position: int) -> tuple[str, Step]:
        tool, call_id = as_text(call.get("function_name")), as_text(call.get("tool_call_id"))
        attributes: dict[str, Json] = {
            semconv.TOOL_NAME[0]: tool,
            semconv.INPUT_VALUE[0]: attribute_value(call.get("arguments")),
            semconv.TOOL_CALL_ID: call_id,
        }
        attributes |= members(call, without=("function_name", "tool_call_id", "arguments"))
        return call_id, self._trajectory.add("TOOL", f"execute_tool {tool}".strip(), attributes, step=position)

    def _observe(self, step: Mapping[str, Json], position: int, asked: list[tuple[str, Step]]) -> None:
        """Give each result to the call that it names, or to the only call; the others are steps of their own."""
        results = [as_mapping(one) for one in as_list(as_mapping(step.get("observation")).get("results"))]
        waiting = list(asked)
        for result in results:
            named = as_text(result.get("source_call_id"))
            found = next((one for one in waiting if named and one[0] == named), None)
            if found is None and not named and len(asked) == len(results) == 1:
                found = asked[0]
            own = members(result, without=("source_call_id", "content"))
            if found:
                waiting = [one for one in waiting if one is not found]
                found[1].attributes.update(own)
                added = found[1]
            else:
                added = self._trajectory.add("SPAN", "observation", own, step=position)
            if result.get("content") is not None:
                added.attributes[semconv.OUTPUT_VALUE[0]] = attribute_value(plain(result["content"]))
                self._said.append(given({"role": "tool", "content": result["content"], "tool_call_id": named}))


def _message(step: Mapping[str, Json]) -> dict[str, Json]:
    """A step as a message."""
    source = as_text(step.get("source"))
    calls: list[Json] = [
        {
            "id": call.get("tool_call_id"),
            "type": "function",
            "function": {"name": call.get("function_name"), "arguments": call.get("arguments")},
        }
        for call in map(as_mapping, as_list(step.get("tool_calls")))
    ]
    reasoning = step.get("reasoning_content")
    return given(
        {"role": _ROLES.get(source, source), "content": step.get("message"), "reasoning_content": reasoning}
    ) | ({"tool_calls": calls} if calls else {})


FORMAT: Final = Format(
    name=_NAME,
    title="ATIF",
    description="Harbor's trajectories (`schema_version` ATIF-v1.x), with their embedded sub-agents",
    sniff=_sniff,
    convert=_convert,
)
