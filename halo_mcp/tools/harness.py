"""list_harness_versions: which prompts, tools, models and parameters the traces ran under, and how two differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.errors import BadArgument
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.harness import AgentVersion, HarnessVersions
from halo_mcp.index.harness_facts import MASKED, Configuration
from halo_mcp.index.times import time_text
from halo_mcp.tools.budget import VERSIONS_CHARS, Page, cut, preview
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters, call_text
from halo_mcp.tools.render import counted, names, number, period, share

_JSON_VERSIONS: Final = 200
_LINE_CHARS: Final = 300
_TOOL_CHARS: Final = 900
_SENTENCE_LINE: Final = 120
"""Longer lines of a prompt are compared sentence by sentence."""
_COLUMNS: Final = "id | model | traces, failing | prompt characters, tools | releases; runs | first to last trace"
_SENTENCE_END: Final = re.compile(r"(?<=[.!?]) +")


def list_harness_versions(
    call: Call,
    filters: Filters = ALL_TRACES,
    diff: Annotated[list[str], Field(max_length=2, description="two version ids: how they differ")] = [],  # noqa: B006
    other_dataset: Annotated[str, Field(description="of the second id")] = "",
) -> Answer:
    """List the harness versions that traces ran under: per agent its hashed system prompt, tools, model, parameters.

    With traces, fail rate, runs, times; `diff` shows what changed between two. Mixed versions mislead comparisons.
    Reads prompts: 1 s per 30,000 traces.
    Next: filter by run_ids or time.
    """
    if other_dataset and not diff:
        raise BadArgument("other_dataset goes with diff: a version id of this dataset and one of the other.")
    found = call.store.harness_versions(filters, call.work)
    if diff:
        return _difference(call, found, diff, call.on(other_dataset) if other_dataset else call, filters)
    page = Page(VERSIONS_CHARS, reserve=700)
    for line in _head(call, found):
        page.add(line)
    shown = 0
    for item in found.versions:
        if not page.add(_line(item)):
            break
        shown += 1
    left = len(found.versions) - shown
    closing = [f"{counted(left, 'version')} not shown (fewer traces); narrow the filters." if left else ""]
    closing += [_mixed_line(found), _varying_line(found), _next(call, found)]
    return Answer(page.close(*closing), _json(found))


def _head(call: Call, found: HarnessVersions) -> Iterator[str]:
    mixed = found.mixed
    how = "all of them"
    if mixed.sampled:
        how = f"a sample of {number(mixed.traces_read)}, one at random per equal stretch of time (seed fixed)"
    yield (
        f"dataset {call.dataset}: {counted(len(found.versions), 'agent version')} in {counted(mixed.traces, 'trace')} "
        f"with LLM spans; read: {how}. A version hashes model, system prompt, tools and parameters of an agent's first "
        f"call ({MASKED})."
    )
    if found.versions:
        yield _COLUMNS


def _line(item: AgentVersion) -> str:
    marks = item.version.marks
    told = f"{number(marks.prompt_chars)}, {marks.tool_count}"
    if not marks.prompt:
        told = f"no prompt recorded, {marks.tool_count}"
    about = [names(map(preview, item.service_versions), 3), names(map(preview, item.run_ids), 3)]
    return " | ".join(
        (
            cut(item.id, _LINE_CHARS),
            preview(item.version.model) or "(no model)",
            _traces(item),
            told,
            "; ".join(part for part in about if part) or "-",
            period(item.first_seen_unix_nano, item.last_seen_unix_nano),
        )
    )


def _traces(item: AgentVersion) -> str:
    known = item.passes + item.fails
    if not known:
        return f"{number(item.traces)}, no outcomes"
    of_known = "" if known == item.traces else f" of {number(known)} with an outcome"
    return f"{number(item.traces)}, {share(item.fails, known)}{of_known}"


def _mixed_line(found: HarnessVersions) -> str:
    if not found.versions:
        return "No LLM spans match; drop a filter."
    if not found.mixed:
        return "One harness: no agent has versions that never share a trace."
    line = f"This set {preview(found.mixed.warning, 300)}."
    if len(found.mixed.agents) > 1:
        labels = names((f"{preview(label, 120)} {number(count)}" for label, count in found.labels), 4)
        line += f" Together (traces): {labels}"
    return line


def _varying_line(found: HarnessVersions) -> str:
    """Says when a prompt seems to hold something of each trace, so that its versions mean nothing."""
    for agent, alternatives in found.mixed.agents:
        traces = sum(count for _, count in alternatives)
        if len(alternatives) > max(10, traces // 4):
            return (
                f"{preview(agent)} has {number(len(alternatives))} versions in {number(traces)} traces: its prompt "
                "holds values of the single trace (names?) that are not masked; diff two versions to see them."
            )
    return ""


def _next(call: Call, found: HarnessVersions) -> str:
    if found.mixed:
        (first, _), (second, _), *_ = found.mixed.agents[0][1]
        if len(first) + len(second) < _LINE_CHARS:
            # The older one first, so that the difference reads as what was changed.
            seen = {item.id: (item.first_seen_unix_nano or 0, item.id) for item in found.versions}
            pair = sorted((first, second), key=lambda given: seen[given])
            return "Next: " + call_text("list_harness_versions", dataset=call.named, diff=pair)
    return ""


def _json(found: HarnessVersions) -> dict[str, Any]:
    return {
        "versions": [_version_json(item) for item in found.versions[:_JSON_VERSIONS]],
        "version_count": len(found.versions),
        "mixed": {agent: dict(some[:_JSON_VERSIONS]) for agent, some in found.mixed.agents},
        "harnesses": dict(found.labels[:_JSON_VERSIONS]),
        "trace_count": found.mixed.traces,
        "traces_read": found.mixed.traces_read,
        "spans_read": found.spans_read,
    }


def _version_json(item: AgentVersion) -> dict[str, Any]:
    marks = item.version.marks
    return {
        "version_id": item.id,
        "agent_name": item.version.agent,
        "model_name": item.version.model or None,
        "alternative": item.alternative,
        "trace_count": item.traces,
        "span_count": item.spans,
        "pass_count": item.passes,
        "fail_count": item.fails,
        "prompt_chars": marks.prompt_chars,
        "prompt_count": item.prompts,
        "tool_count": marks.tool_count,
        "prompt_version": marks.prompt_version or None,
        "service_versions": list(item.service_versions),
        "run_ids": list(item.run_ids),
        "first_seen": time_text(item.first_seen_unix_nano),
        "last_seen": time_text(item.last_seen_unix_nano),
        "example_trace_id": item.trace_id,
    }


# --- the difference of two versions -----------------------------------------------------------------------------------
def _difference(call: Call, found: HarnessVersions, ids: Sequence[str], other: Call, filters: TraceFilters) -> Answer:
    if len(ids) != 2:
        raise BadArgument("diff takes two version ids, such as diff=['agent@1a2b3c4d', 'agent@5e6f7a8b'].")
    there = found if other is call else other.store.harness_versions(filters, other.work)
    old, new = _named(found, ids[0]), _named(there, ids[1])
    before, after = call.store.harness_configuration(old.version), other.store.harness_configuration(new.version)
    prompt = _prompt_diff(before.prompt, after.prompt, old.id, new.id)
    tools, parameters = _tool_changes(before, after), _changes(_settings(old, before), _settings(new, after))
    page = Page(VERSIONS_CHARS, reserve=260)
    page.add(f"{cut(old.id, _LINE_CHARS)} ({_where(old)}) -> {cut(new.id, _LINE_CHARS)} ({_where(new)})")
    page.add("model, versions and parameters: " + ("; ".join(parameters) or "no difference"))
    page.add("tools: " + ("" if tools else f"no difference ({names(before.tools, 20) or 'none recorded'})"))
    for line in tools:
        page.add_cut(line)
    page.add("system prompt: " + ("" if prompt else _same_prompt(before, after)))
    left = 0
    for line in prompt:
        left += not page.add(cut(line, _LINE_CHARS))
    closing = f"{counted(left, 'further line')} of the difference left out." if left else ""
    spot = call_text("view_trace", dataset=other.named, trace_id=new.trace_id)
    data = {
        "diff": [_version_json(old), _version_json(new)],
        "changed": parameters,
        "tools": tools,
        "prompt_diff": [cut(line, _LINE_CHARS) for line in prompt[:_JSON_VERSIONS]],
    }
    return Answer(page.close(closing, f"As recorded in the earliest trace of each. Next: {spot}"), data)


def _named(found: HarnessVersions, given: str) -> AgentVersion:
    """By id, or by the part behind its @ where that is unique. Raises: BadArgument."""
    matching = [item for item in found.versions if given in (item.id, item.version.mark)]
    if len(matching) == 1:
        return matching[0]
    known = names((item.id for item in found.versions), 8) or "none"
    problem = "names several versions" if matching else "is not among the versions of these traces"
    raise BadArgument(f"diff: {preview(given)!r} {problem}. Known: {cut(known, 1_000)}.")


def _where(item: AgentVersion) -> str:
    runs = f", runs {names(map(preview, item.run_ids), 3)}" if item.run_ids else ""
    return f"{counted(item.traces, 'trace')}{runs}"


def _settings(item: AgentVersion, configuration: Configuration) -> dict[str, str]:
    return {
        "agent": item.version.agent,
        "model": item.version.model,
        "service.version": ", ".join(item.service_versions),
        "prompt version": configuration.prompt_version,
        **configuration.parameters,
    }


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """ "temperature 0.2 -> 0.7" for every name that differs."""
    both = dict.fromkeys((*before, *after))
    return [
        f"{name} {preview(before.get(name) or '(none)')} -> {preview(after.get(name) or '(none)')}"
        for name in both
        if before.get(name, "") != after.get(name, "")
    ]


def _tool_changes(before: Configuration, after: Configuration) -> list[str]:
    lines = [f"  removed: {preview(tool)}" for tool in before.tools if tool not in after.tools]
    lines += [
        f"  added: {preview(tool)} {cut(after.tools[tool], _TOOL_CHARS)}"
        for tool in after.tools
        if tool not in before.tools
    ]
    for tool in before.tools:
        old, new = before.tools[tool], after.tools.get(tool)
        if new is not None and old != new:
            lines.append(f"  changed: {preview(tool)}\n    - {cut(old, _TOOL_CHARS)}\n    + {cut(new, _TOOL_CHARS)}")
    return lines


def _same_prompt(before: Configuration, after: Configuration) -> str:
    if not before.prompt and not after.prompt:
        return "none recorded"
    return "no difference" if before.prompt == after.prompt else "differs in whitespace only"


def _prompt_diff(before: str, after: str, old: str, new: str) -> list[str]:
    """A unified diff; long lines are compared by sentence."""
    return list(unified_diff(_compared(before), _compared(after), old, new, n=1, lineterm=""))


def _compared(prompt: str) -> list[str]:
    lines: list[str] = []
    for line in prompt.splitlines():
        lines += _SENTENCE_END.split(line) if len(line) > _SENTENCE_LINE else [line]
    return [line.rstrip() for line in lines]
