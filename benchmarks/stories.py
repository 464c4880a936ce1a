"""What happens in one generated trace: its tool calls, what goes wrong in them, and how the task ends."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

TOOLS: Final = ("search", "fetch", "sql", "calculator")
CAUSE: Final = "sql"
"""Its soft errors, when no later call of it succeeds, make a task fail. Those of the other tools do not matter."""
_LOOPING: Final = 0.03
_LOOP_CALLS: Final = 3
_SHORTEST_LOOPING: Final = 5
_WORDS: Final = tuple(
    f"{first}_{last}" for first in ("order", "client", "stock", "region") for last in ("name", "state", "owner", "kind")
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    tool: str
    query: int
    problem: str = ""
    """What its output says when it fails although its status is fine (a soft error)."""


@dataclass(frozen=True, slots=True)
class Story:
    """One trace. Without outcome and calls' results it would look like any other."""

    kinds: tuple[str, ...]
    """Observation kind of each span; the first is the root."""
    calls: tuple[Call, ...]
    """One for each TOOL, in order."""
    failed: bool


@dataclass(slots=True)
class Counts:
    """What the analyses must find, counted while the traces were made."""

    failing_traces: int = 0
    calls: int = 0
    failed_calls: int = 0
    retries: int = 0
    """Failed calls after which the same tool is called."""
    loop_calls: int = 0
    failures: int = 0
    """Spans with a hard error and none below it, a soft error, or a part in a loop."""

    def add(self, story: Story, errors: tuple[str, ...]) -> None:
        """``errors``: the hard error of each span, "" for none. All spans are children of the first."""
        hard = [bool(error) for kind, error in zip(story.kinds, errors, strict=True) if kind == "TOOL"]
        failed = [error or bool(call.problem) for error, call in zip(hard, story.calls, strict=True)]
        looping = _looping(story.calls)
        self.failing_traces += story.failed
        self.calls += len(story.calls)
        self.failed_calls += sum(failed)
        self.retries += sum(
            fails and call.tool == after.tool
            for fails, (call, after) in zip(failed[:-1], pairwise(story.calls), strict=True)
        )
        self.loop_calls += sum(looping)
        self.failures += sum(map(max, failed, looping)) if story.calls else 0
        self.failures += sum(
            bool(error) for kind, error in zip(story.kinds, errors, strict=True) if kind == "LLM"
        ) + bool(errors[0] and not any(errors[1:]))


def _looping(calls: tuple[Call, ...]) -> list[bool]:
    found: list[bool] = []
    for _, same in groupby(calls, lambda call: (call.tool, call.query)):
        length = len(list(same))
        found += [length >= _LOOP_CALLS] * length
    return found


def story(draw: random.Random, spans: int) -> Story:
    """LLM and TOOL by turns below an AGENT; where an agent loops, it calls three times in a row first."""
    kinds = ["AGENT", *("LLM" if position % 2 else "TOOL" for position in range(1, spans))]
    looping = spans >= _SHORTEST_LOOPING and draw.random() < _LOOPING
    if looping:
        kinds[2:5] = ["TOOL"] * _LOOP_CALLS
    calls: list[Call] = []
    for _ in range(kinds.count("TOOL")):
        calls.append(calls[-1] if looping and calls else _call(draw, calls[-1] if calls else None, looping))
    bad = looping or any(call.problem for call in calls if call.tool == CAUSE and not _recovers(call, calls))
    return Story(tuple(kinds), tuple(calls), failed=draw.random() < (0.9 if bad else 0.1))


def _call(draw: random.Random, before: Call | None, looping: bool) -> Call:
    retried = before is not None and before.problem and draw.random() < 0.6
    tool = before.tool if before and retried else draw.choice(TOOLS)
    fails = draw.random() < (0.1 if tool == CAUSE else 0.03) and not looping
    return Call(tool, draw.randrange(10**6), _problem(draw, tool) if fails else "")


def _problem(draw: random.Random, tool: str) -> str:
    number, word = draw.randrange(10**5), draw.choice(_WORDS)
    return {
        "search": f"Error: no index covers shard {number}",
        "fetch": f'{{"isError": true, "message": "HTTP 503 from https://host-{number}.example/{word}"}}',
        "sql": f"Error: there is no column {word} in table {number}",
        "calculator": f'Traceback (most recent call last):\n  File "{word}.py", line {number}\nValueError: {number}',
    }[tool]


def _recovers(failed: Call, calls: list[Call]) -> bool:
    """A later call of its tool goes well."""
    at = next(position for position, call in enumerate(calls) if call is failed)
    return any(call.tool == failed.tool and not call.problem for call in calls[at + 1 :])
