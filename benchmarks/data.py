"""The two generated files: the same bytes for the same scale, and what is true about them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import orjson

from benchmarks.questions import ALTERNATION, LITERAL, RUNS, SEARCHED, VIEWED_TRACES
from benchmarks.stories import Call, Counts, Story, story

Size: TypeAlias = Literal["small", "large"]
"""Of a span: about 0.7 KB or about 37 KB."""

_VERSION = 3
"""Raised when other bytes are generated."""
_TRACES: dict[Size, int] = {"small": 170_000, "large": 2_250}
_PLANTED = 20
_PHRASES = ALTERNATION.removeprefix("(?i)").split("|")
_START_S = 1_760_000_000


@dataclass(slots=True)
class Facts:
    """What is true about a file, counted while it was written."""

    version: int = _VERSION
    bytes: int = 0
    traces: int = 0
    spans: int = 0
    error_traces: int = 0
    error_spans: int = 0
    input_tokens: int = 0
    planted_spans: int = _PLANTED
    """Each of its own trace; both the literal and the alternation match exactly these."""
    searched_matches: int = 0
    """In the viewed traces."""
    viewed: list[str] = field(default_factory=list[str])
    """Trace ids, spread evenly."""
    tail_spans: int = 0
    tail_bytes: int = 0
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One generated file, a second one with 1 % more traces to append, and the facts."""

    name: Size
    path: Path
    tail: Path
    facts: Facts


def dataset(directory: Path, size: Size, scale: float) -> Dataset:
    """Read from ``directory`` when it was generated before."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{size}-{scale:g}"
    path, tail, about = (directory / f"{stem}{end}" for end in (".jsonl", ".tail.jsonl", ".facts.json"))
    facts = _read(about, path, tail)
    if facts is None:
        about.unlink(missing_ok=True)
        facts = _write(path, tail, size, max(_PLANTED, round(_TRACES[size] * scale)))
        about.write_text(json.dumps(asdict(facts)))
    return Dataset(size, path, tail, facts)


def _read(about: Path, path: Path, tail: Path) -> Facts | None:
    if not about.exists():
        return None
    stored = json.loads(about.read_text())
    if stored.get("version") != _VERSION or not path.exists() or not tail.exists():
        return None
    facts = Facts(**stored | {"counts": Counts(**stored["counts"])})
    if path.stat().st_size > facts.bytes:  # an earlier run was stopped between appending and cutting off again
        with path.open("r+b") as file:
            file.truncate(facts.bytes)
    return facts if path.stat().st_size == facts.bytes and tail.stat().st_size == facts.tail_bytes else None


def _write(path: Path, tail: Path, size: Size, traces: int) -> Facts:
    writer = _Writer(size, traces)
    facts = Facts(traces=traces)
    viewed = min(VIEWED_TRACES, max(_PLANTED, traces // 10))
    step, viewed_step = traces // _PLANTED, traces // viewed
    with path.open("wb") as file:
        for number in range(traces):
            index, offset = divmod(number, step)
            planted = f"{LITERAL}: {_phrase(index)}" if offset == step // 2 and index < _PLANTED else ""
            trace_id, lines = writer.trace(number, planted)
            text = b"".join(lines)
            errors = text.count(b'"STATUS_CODE_ERROR"')
            facts.bytes += file.write(text)
            facts.spans += len(lines)
            facts.error_spans += errors
            facts.error_traces += errors > 0
            if number % viewed_step == 0 and len(facts.viewed) < viewed:
                facts.viewed.append(trace_id)
                facts.searched_matches += text.count(SEARCHED.encode())
    facts.input_tokens = writer.input_tokens
    facts.counts = replace(writer.counts)
    with tail.open("wb") as file:
        for number in range(traces, traces + max(1, traces // 100)):
            lines = writer.trace(number, "")[1]
            facts.tail_spans += len(lines)
            facts.tail_bytes += file.write(b"".join(lines))
    return facts


def _phrase(number: int) -> str:
    phrase = _PHRASES[number % len(_PHRASES)]
    return (phrase, phrase.upper(), phrase.title())[number // len(_PHRASES) % 3]


SpanJson: TypeAlias = dict[str, object]


class _Writer:
    """Makes traces: an agent, below it LLM and tool spans by turns; children come before their parents."""

    def __init__(self, size: Size, traces: int) -> None:
        """``traces``: the first half of so many is the first run of all tasks, the others are the second."""
        self._random = random.Random(f"halo-mcp {size}")
        self._size = size
        self._tasks = traces // 2
        self.counts = Counts()
        self._clock_ms = _START_S * 1000
        self.input_tokens = 0
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(self._random.choices(letters, k=self._random.randrange(3, 10))) for _ in range(5_000)]
        self._paragraphs = [" ".join(self._random.choices(words, k=400)) for _ in range(300)]

    def trace(self, number: int, planted: str) -> tuple[str, list[bytes]]:
        """Its id and its lines. ``planted`` stands in the output of the last LLM span."""
        draw = self._random
        trace_id, root_id = f"{draw.getrandbits(128):032x}", f"{draw.getrandbits(64):016x}"
        self._clock_ms += draw.randrange(1_000)
        told = story(draw, draw.choices((2, 3, 4, 5, 6), weights=(3, 4, 4, 4, 4))[0] if self._size == "small" else 12)
        errors = tuple(
            f"timed out after {draw.randrange(10_000)} ms" if draw.random() < 0.03 else "" for _ in told.kinds
        )
        self.counts.add(told, errors)
        spans = [orjson.dumps(span) + b"\n" for span in self._spans(number, trace_id, root_id, told, errors, planted)]
        return trace_id, spans[::-1]

    def _spans(
        self, number: int, trace_id: str, root_id: str, told: Story, errors: tuple[str, ...], planted: str
    ) -> Iterator[SpanJson]:
        draw, calls = self._random, iter(told.calls)
        last_llm = len(told.kinds) - 1 - told.kinds[::-1].index("LLM")
        for position, (kind, error) in enumerate(zip(told.kinds, errors, strict=True)):
            started_ms = self._clock_ms + position
            attributes: SpanJson = {
                "inference.export.schema_version": 1,
                "inference.project_id": "bench",
                "inference.observation_kind": kind,
                "inference.agent_name": "planner" if position == 0 else "",
                "inference.session_id": f"session-{number // 4}",
            }
            if kind == "AGENT":
                attributes |= self._root(number, told)
            elif kind == "LLM":
                attributes |= self._llm(number, planted if position == last_llm else "")
            else:
                attributes |= self._tool(next(calls), error)
            yield {
                "trace_id": trace_id,
                "span_id": root_id if position == 0 else f"{draw.getrandbits(64):016x}",
                "parent_span_id": "" if position == 0 else root_id,
                "trace_state": "",
                "name": f"{kind.lower()}.step",
                "kind": "SPAN_KIND_INTERNAL",
                "start_time": _time(started_ms),
                "end_time": _time(started_ms + draw.randrange(1_000)),
                "status": {"code": "STATUS_CODE_ERROR" if error else "STATUS_CODE_OK", "message": error},
                "resource": {"attributes": {"service.name": f"service-{number % 5}"}},
                "scope": {"name": "bench", "version": "1"},
                "attributes": attributes,
            }

    def _run(self, number: int) -> int:
        return min(number // self._tasks, len(RUNS) - 1)

    def _root(self, number: int, told: Story) -> SpanJson:
        about: SpanJson = {
            "task.id": f"task-{number % self._tasks}",
            "run.id": RUNS[self._run(number)],
            "task.outcome": "fail" if told.failed else "pass",
        }
        draw = self._random
        return about if self._size == "small" else about | {"input.value": draw.choice(self._paragraphs)}

    def _llm(self, number: int, planted: str) -> SpanJson:
        draw = self._random
        prompt = {"llm.prompt_template.version": f"v{self._run(number)}"}
        if self._size == "small":
            answer = f"answer {draw.randrange(10**6)} needs more data {planted}"
            return self._model() | prompt | {"output.value": answer}
        messages = [{"role": "system", "content": self._paragraphs[self._run(number)]}]
        messages += [{"role": "user", "content": f'{draw.choice(self._paragraphs)}\n"quoted"'} for _ in range(12)]
        answer = f"{draw.choice(self._paragraphs)} {planted}"
        return self._model() | prompt | {"llm.input_messages": json.dumps(messages), "output.value": answer}

    def _tool(self, call: Call, error: str) -> SpanJson:
        draw = self._random
        failed = f"Error: {error}" if error else call.problem
        if self._size == "small":
            given, result = f'{{"query": "item {call.query}"}}', f"row {draw.randrange(10**5)}"
        else:
            # The same for the same query: a loop repeats its arguments.
            pages = (self._paragraphs[(call.query + page) % len(self._paragraphs)] for page in range(13))
            given, result = "\n".join((f"item {call.query}", *pages)), draw.choice(self._paragraphs)
        return {"tool.name": call.tool, "input.value": given, "output.value": failed or result}

    def _model(self) -> SpanJson:
        draw = self._random
        tokens = draw.randrange(100, 5_000)
        self.input_tokens += tokens
        return {
            "inference.llm.provider": "openai",
            "inference.llm.model_name": draw.choice(("gpt-5.4", "gpt-5.4-mini")),
            "inference.llm.input_tokens": tokens,
            "inference.llm.output_tokens": draw.randrange(10, 500),
        }


def _time(milliseconds: int) -> str:
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}000000Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
