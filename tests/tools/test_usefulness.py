"""The usual first questions, answered exactly in a few calls and a few thousand characters, on two datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from halo_mcp.demo import write_demo
from tests.otherworld import write_world
from tests.tools.desk import serving
from tests.walkthrough import MOST_CALLS, MOST_CHARS, Exchange, first_questions, transcript

WALKTHROUGH = Path(__file__).parents[2] / "docs" / "walkthrough.md"


class Tool(Protocol):
    """Calls of a tool, and those with status ERROR."""

    @property
    def calls(self) -> int: ...
    @property
    def failures(self) -> int: ...


@dataclass(frozen=True)
class Facts:
    """What a reader must have learnt."""

    error_traces: int
    error_spans: int
    original_errors: int
    input_tokens: int
    output_tokens: int
    exception_types: Mapping[str, int]
    tools: Mapping[str, Tool]
    tool_error: tuple[str, str]
    """The tool that fails most, and words of its error."""
    root_cause_spans: int
    root_cause_traces: int
    root_cause_failed_traces: int
    root_cause_quotes: frozenset[tuple[str, str, str]]
    """(trace id, span id, verbatim text) of every span where it begins."""


@dataclass(frozen=True)
class Asked:
    """What was said about a dataset, and what is true about it."""

    exchanges: Sequence[Exchange]
    facts: Facts

    @property
    def text(self) -> str:
        return "\n".join(exchange.answer for exchange in self.exchanges)


def demo_facts(directory: Path) -> tuple[Path, Facts]:
    run = write_demo(directory).before
    mode = run.failure_modes["limit_rejected"]
    path = directory / "before.jsonl"
    refused = [span for span in map(json.loads, path.read_bytes().splitlines()) if span["name"] == mode.span_name]
    return path, Facts(
        error_traces=run.error_traces,
        error_spans=run.error_spans,
        original_errors=run.original_error_spans,
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        exception_types=run.exception_types,
        tools=run.tools,
        tool_error=("search_orders", "limit must be <= 100, got"),
        root_cause_spans=mode.spans,
        root_cause_traces=mode.traces,
        root_cause_failed_traces=mode.failed_traces,
        root_cause_quotes=frozenset(
            (span["trace_id"], span["span_id"], span["status"]["message"])
            for span in refused
            if span["status"]["message"].startswith("limit must be")
        ),
    )


def world_facts(directory: Path) -> tuple[Path, Facts]:
    path = directory / "world.jsonl"
    world = write_world(path)
    mode = world.modes[world.root_cause]
    return path, Facts(
        error_traces=world.error_traces,
        error_spans=world.error_spans,
        original_errors=world.original_error_spans,
        input_tokens=world.input_tokens,
        output_tokens=world.output_tokens,
        exception_types=world.exception_types,
        tools=world.tools,
        tool_error=("run_tests", "ModuleNotFoundError: No module named"),
        root_cause_spans=mode.spans,
        root_cause_traces=len(mode.trace_ids),
        root_cause_failed_traces=mode.failed_traces,
        root_cause_quotes=frozenset((quote.trace_id, quote.span_id, quote.text) for quote in mode.quotes),
    )


DATASETS = {"demo": demo_facts, "otherworld": world_facts}


@pytest.fixture(scope="module", params=DATASETS)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    directory = tmp_path_factory.mktemp("asked")
    path, facts = DATASETS[request.param](directory)

    async def ask() -> list[Exchange]:
        async with serving(directory, {"data": [path]}) as caller:
            return await first_questions(caller)

    return Asked(anyio.run(ask), facts)


def test_a_few_calls_and_a_few_thousand_characters_are_enough(asked: Asked) -> None:
    assert asked.exchanges[0].tool == "get_dataset_overview"
    assert len(asked.exchanges) <= MOST_CALLS
    assert sum(exchange.chars for exchange in asked.exchanges) < MOST_CHARS


def test_every_tool_is_there_with_its_calls_and_failures(asked: Asked) -> None:
    lines = re.findall(r"^  (\w+) ([\d,]+) / ([\d,]+)", asked.text, re.MULTILINE)
    known = {name: (int(calls.replace(",", "")), int(failed.replace(",", ""))) for name, calls, failed in lines}
    assert known == {name: (tool.calls, tool.failures) for name, tool in asked.facts.tools.items()}


def test_the_tool_that_fails_most_comes_first_with_the_words_of_its_error(asked: Asked) -> None:
    name, words = asked.facts.tool_error
    first = re.search(r"^tools .*\n  (.*)", asked.text, re.MULTILINE)
    assert first
    assert first[1].startswith(f"{name} ")
    assert words in first[1]


def test_original_failures_are_told_from_propagated_ones(asked: Asked) -> None:
    facts = asked.facts
    assert re.search(rf"\b{facts.error_traces}\b[^\n]* of traces have a span with status ERROR", asked.text)
    propagated = facts.error_spans - facts.original_errors
    assert f"{facts.error_spans} ERROR spans = {facts.original_errors} original failures + {propagated}" in asked.text


def test_no_token_is_counted_twice(asked: Asked) -> None:
    assert f"{asked.facts.input_tokens:,} in, {asked.facts.output_tokens:,} out" in asked.text


def test_exception_types_have_their_counts(asked: Asked) -> None:
    (line,) = re.findall(r"^exception types.*: (.*)", asked.text, re.MULTILINE)
    found = {name: int(count) for name, count in re.findall(r"([\w.]+) (\d+)", line)}
    assert found == dict(asked.facts.exception_types)


_MODE = re.compile(
    r"(?P<spans>\d+) spans?, (?P<traces>\d+) traces?; of failing traces (?P<failing>\d+).*\n"
    r" +e\.g\. trace (?P<trace>\w+) span (?P<span>\w+) \S+: “(?P<quote>.*)”"
)


def test_the_root_cause_is_what_most_failing_traces_have_with_a_quote_that_can_be_checked(asked: Asked) -> None:
    facts = asked.facts
    found = max(_MODE.finditer(asked.text), key=lambda mode: int(mode["failing"]))
    counts = [int(found[name]) for name in ("spans", "traces", "failing")]
    assert counts == [facts.root_cause_spans, facts.root_cause_traces, facts.root_cause_failed_traces]
    assert (found["trace"], found["span"], found["quote"]) in facts.root_cause_quotes


async def test_the_walkthrough_shows_what_the_tools_say_now(tmp_path: Path) -> None:
    shown = WALKTHROUGH.read_text(encoding="utf-8")
    assert await transcript(tmp_path) == shown, "python -m tests.walkthrough docs/walkthrough.md brings it up to date"
