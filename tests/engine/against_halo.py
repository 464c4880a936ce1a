"""The comparison in docs/engine.md. ``python -m tests.engine.against_halo docs/engine.md`` measures and writes it.

What HALO's own agent does was measured once, with halo-engine 0.3.5 against a scripted server. What ours does is
measured here, each time, by the function of the row: it plays the same situation and says what came of it.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

from halo_mcp.engine.run import Hooks
from halo_mcp.engine.settings import LLMSettings, Wire
from halo_mcp.engine.types import FinalAnswer, LedgerItem, Tool, Verification
from halo_mcp.index.claims import Claim
from halo_mcp.index.verification import verify
from halo_mcp.index.work import Work
from halo_mcp.tools.evidence import rejection
from tests.builders import llm, store_of
from tests.engine.fake_llm import Json, Reply, Status, Step, answer, conversation, tool_results
from tests.engine.harness import ANY_OBJECT, Played, play

BEGIN: Final = "<!-- comparison: measured by `python -m tests.engine.against_halo docs/engine.md` -->"
END: Final = "<!-- end of comparison -->"
LOOK: Final = Reply(calls=[("view_trace", {"n": 1})])
VIEWS: Final = 15
VIEW_CHARS: Final = 12_500
"""15 of these grow a conversation as far as HALO's did."""


@dataclass
class Waits:
    """Seconds that were slept, without sleeping."""

    seconds: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await anyio.lowlevel.checkpoint()


@contextmanager
def longest_waits() -> Generator[Waits]:
    """Waits take no time, and the random part of each is as long as it can be."""
    waits = Waits()

    def longest(least: float, most: float) -> float:
        return most

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio, "sleep", waits.sleep)
        patch.setattr(random, "uniform", longest)
        yield waits


def real_waits() -> Json:
    """The waits that users have; the other tests shorten them."""
    return {"backoff_s": LLMSettings().backoff_s}


def kilobytes(request: Json) -> float:
    return len(json.dumps(conversation(request))) / 1000


def turns_shown(played: Played) -> list[str]:
    """The turn counters of the requests, as the model saw them."""
    notes = [json.dumps(conversation(request)[-1]) for request in played.server.requests]
    return [found[1] for note in notes if (found := re.search(r"\[turn (\d+ of \d+)", note))]


async def one_wire_only(wire: Wire) -> str:
    other = "chat" if wire == "responses" else "responses"

    def script(request: Json) -> Step:
        if ("input" in request) == (wire == "responses"):
            return answer("ok") if tool_results(request) else LOOK
        return Status(404) if other == "responses" else Status(400, {"message": "use /v1/responses", "code": None})

    played = await play(script, None, first_wire=other)
    assert played.result.result.answer == "ok"
    refused = played.result.totals.requests - played.result.totals.turns
    return f"either wire is enough: {refused} refused request, then the other wire for good"


async def context_growth(wire: Wire) -> str:
    async def view(arguments: Json) -> str:
        return f"<{arguments['n']}>" + "x" * VIEW_CHARS

    def script(request: Json) -> Step:
        done = len(tool_results(request))
        return Reply(calls=[("view_trace", {"n": done})], usage=None) if done < VIEWS else answer("ok")

    figures: list[str] = []
    for tokens in (128_000, 32_000):
        views = [Tool("view_trace", "Shows a trace.", ANY_OBJECT, view)]
        played = await play(script, wire, tools=views, settings={"context_tokens": tokens})
        most = max(kilobytes(request) for request in played.server.requests)
        cleared = [data["how"] for data in played.data("compacted")]
        assert cleared == ["cleared"] * len(cleared)
        assert played.result.result.answer == "ok"
        assert [len(item.text) > VIEW_CHARS for item in played.run.ledger.items()] == [True] * VIEWS
        fits = "fits, nothing is cleared" if not cleared else f"old results are cleared {len(cleared)} times"
        figures.append(f"a context of {tokens:,} tokens: {fits}, at most {most:.0f} kB")
    return "; ".join(figures) + "; all of them can be read again"


async def overflow(wire: Wire) -> str:
    refused: list[Json] = []

    def script(request: Json) -> Step:
        done = len(tool_results(request))
        if done == 2 and not refused:
            refused.append(request)
            return Status(400, {"message": "This is too long.", "code": "context_length_exceeded"})
        return Reply(calls=[("big", {"n": done})]) if done < 4 else answer("ok")

    played = await play(script, wire)
    result, totals = played.result.result, played.result.totals
    assert kilobytes(played.server.requests[3]) < kilobytes(refused[0])
    assert (totals.requests - totals.turns, len(played.run.ledger)) == (1, 4)
    return f"shortened and sent again: {totals.requests - totals.turns} request lost, answer {result.status}"


async def every_second_fails(wire: Wire) -> str:
    asked: list[Json] = []

    def script(request: Json) -> Step:
        asked.append(request)
        if len(asked) % 2:
            return Status(503)
        return LOOK if len(tool_results(request)) < VIEWS else answer("ok")

    with longest_waits() as waits:
        played = await play(script, wire, settings=real_waits())
    result, totals = played.result.result, played.result.totals
    assert {data["failure"] for data in played.data("retry")} == {1}
    return (
        f"answer {result.status} after {totals.requests} requests, {totals.requests - totals.turns} of which failed; "
        f"waits do not grow, at most {waits.seconds:.0f} s together"
    )


async def turn_budget(wire: Wire) -> str:
    asked: list[Json] = []

    def script(request: Json) -> Step:
        asked.append(request)
        return Reply(calls=LOOK.calls, cut_after=2) if len(asked) == 2 else LOOK

    played = await play(script, wire, limits={"max_turns": 4})
    result, shown = played.result.result, turns_shown(played)
    assert shown == ["1 of 4", "2 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert (result.status, result.tool_calls) == ("partial", 3)
    return (
        f"{result.turns} turns, the last for an answer in plain text; the counter goes from {shown[0]} to {shown[-1]} "
        f"once; the result is {result.status} and lists what was looked at"
    )


async def storm(wire: Wire) -> str:
    def script(request: Json) -> Step:
        return Status(503) if tool_results(request) else LOOK

    with longest_waits() as waits:
        played = await play(script, wire, settings=real_waits())
    result, totals = played.result.result, played.result.totals
    assert (result.stop_reason, "view_trace(n=1)" in result.answer) == ("llm_failures", True)
    return (
        f"{totals.requests - totals.turns} requests and at most {waits.seconds:.0f} s, "
        f"then a {result.status} answer with what was found"
    )


async def fabricated_citation(wire: Wire) -> str:
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), llm("s1", trace="t1", attributes={"output.value": "the tool timed out"}))

        async def check(given: FinalAnswer, items: Sequence[LedgerItem]) -> Verification:
            claims = [Claim.model_validate(finding.model_dump()) for finding in given.findings]
            found = verify(store, claims, given.answer, Work())
            return Verification([text] if (text := rejection(found)) else [])

        place = {"trace_id": "no-such-trace", "quote": "the disk was on fire"}
        forged = answer("It burns.", findings=[{"claim": "Disks burn.", "evidence": [place]}])
        played = await play([LOOK, forged, forged], wire, hooks=Hooks(verify=check))
    result = played.result.result
    sent_back = len(played.data("rejected"))
    assert "no-such-trace" in [*tool_results(played.server.requests[2]).values()][-1]
    assert "no-such-trace" in result.problems[0]
    assert len(result.findings) == 1
    return f"sent back {sent_back} time with what is wrong; repeated, it is kept and flagged"


async def never_answers(wire: Wire) -> str:
    talk = await play(lambda request: Reply(text="I will look at it."), wire)
    silent = await play(lambda request: Reply() if tool_results(request) else LOOK, wire)
    words, nothing = talk.result.result, silent.result.result
    assert words.answer == "I will look at it."
    return (
        f"after {words.turns - 1} reminders its words are the answer, marked {words.status}; a silent one ends "
        f"{nothing.status}, stop reason {nothing.stop_reason}"
    )


async def subagent_at_its_limit(wire: Wire) -> str:
    def script(request: Json) -> Step:
        if len(conversation(request)[0]["content"]) == len("dig"):
            return LOOK
        return answer("ok") if tool_results(request) else Reply(calls=[("call_subagent", {"objective": "dig"})])

    played = await play(script, wire, limits={"sub_turns": 4})
    [shown] = tool_results(played.server.requests[-1]).values()
    result: dict[str, Any] = json.loads(shown.split("\n")[1])
    looked = len(re.findall(r"- view_trace\(n=1\)", result["answer"]))
    assert looked == result["tool_calls"]
    return (
        f"the parent gets status {result['status']}, stop reason {result['stop_reason']}, {result['turns']} turns, "
        f"{result['tool_calls']} tool calls and a list of what they returned"
    )


@dataclass(frozen=True)
class Row:
    """A situation, what HALO 0.3.5 does in it, and how to find out what this engine does."""

    situation: str
    halo: str
    measure: Callable[[Wire], Awaitable[str]]


ROWS: Final = (
    Row("a server with one wire", "`/v1/responses` only; one with chat only ends the run with a 404", one_wire_only),
    Row("15 large views", "input grows from 5 to 196 kB, 0 compactions before the answer", context_growth),
    Row("`context_length_exceeded` on turn 3", "`BadRequestError`, everything lost", overflow),
    Row(
        "every second request fails", 'killed after 20 requests as "10 consecutive failures"; 56 s', every_second_fails
    ),
    Row(
        "4 turns, a cut stream, a model that never ends", "12 turns; its counter restarts at 1 of 4 twice", turn_budget
    ),
    Row("503 to everything", "30 requests and 69 s, then an error", storm),
    Row("a made-up trace id and quote", "accepted as final", fabricated_citation),
    Row("a model that never gives a final answer", "no final item and no error", never_answers),
    Row(
        "a subagent at its 4 turns",
        "`Subagent failed: MaxTurnsExceeded`, `turns_used: 0`; its work is gone",
        subagent_at_its_limit,
    ),
)


def line(row: Row, measured: str) -> str:
    return f"| {row.situation} | {row.halo} | {measured} |"


def with_table(document: str, measured: Sequence[str]) -> str:
    """The document with the table between its markers. Raises: ValueError, when it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no markers {BEGIN} and {END}")
    table = ["| situation | HALO 0.3.5 | this engine |", "| --- | --- | --- |", *map(line, ROWS, measured)]
    return f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}"


async def measure_all() -> list[str]:
    return [await row.measure("chat") for row in ROWS]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8"), anyio.run(measure_all)), encoding="utf-8")
