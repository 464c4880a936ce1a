"""Reading many traces as tools of the root agent: map_traces, and synthesize_traces, which goes on to findings.

Both spend from the budget of the run that calls them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halo_mcp.engine.run import Run
from halo_mcp.engine.synthesis import CheckRows, Row, VerifyAnswer, map_texts, row_line, synthesize
from halo_mcp.engine.types import FinalAnswer, Finding, Json, Tool
from halo_mcp.errors import BadArgument

MOST_TRACES: Final = 100
_DEFAULT_TRACES: Final = 40


class MapArguments(BaseModel):
    """The arguments of both tools."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, description="What to note about each trace.")
    trace_ids: list[str] = Field(default=[], max_length=MOST_TRACES)
    filters: Json = Field(default={}, description="The filters argument of count_traces, instead of ids.")
    max_traces: int = Field(default=_DEFAULT_TRACES, ge=1, le=MOST_TRACES)


@dataclass(frozen=True, slots=True)
class Texts:
    """Digests by trace id, what has to be said about how they were chosen, and what was computed over all traces."""

    by_id: Mapping[str, str]
    notes: Sequence[str] = ()
    facts: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tools need of the traces."""

    read: Callable[[MapArguments], Awaitable[Texts]]
    check: CheckRows
    verify: VerifyAnswer


def map_tools(run: Callable[[], Run], reading: Reading) -> list[Tool]:
    """``map_traces`` and ``synthesize_traces``; ``run``: the one that calls them, which is made after its tools."""
    return [
        Tool(
            "map_traces",
            "Read up to 100 traces in one call: a digest of each is put to a model with your question; returns rows of "
            "trace, label, note, quote and span, the quotes checked. The default way to read many traces; with filters "
            "it takes a sample of every outcome and failure.",
            MapArguments.model_json_schema(),
            partial(_map_traces, run, reading),
            paid=True,
        ),
        Tool(
            "synthesize_traces",
            "As map_traces, and then findings across these traces, their evidence checked, with what was counted over "
            "all traces. Costs one more request.",
            MapArguments.model_json_schema(),
            partial(_synthesize_traces, run, reading),
            paid=True,
        ),
    ]


async def _map_traces(run: Callable[[], Run], reading: Reading, arguments: dict[str, Any]) -> str:
    wanted = _wanted("map_traces", arguments)
    texts = await reading.read(wanted)
    mapped = await map_texts(run(), texts.by_id, wanted.question, _untold)
    return "\n".join(_rows(texts, mapped.rows, await reading.check(mapped.rows), mapped.failed))


async def _synthesize_traces(run: Callable[[], Run], reading: Reading, arguments: dict[str, Any]) -> str:
    wanted = _wanted("synthesize_traces", arguments)
    texts = await reading.read(wanted)
    found = await synthesize(run(), texts.by_id, texts.facts, wanted.question, reading.check, reading.verify, _untold)
    lines = _answer(found.answer, await reading.verify(found.answer)) if found.answer else []
    lines += [] if found.answer else [f"no findings: {found.stop_reason}"]
    return "\n".join([*lines, *_rows(texts, found.rows, found.verdicts, found.failed), texts.facts])


def _wanted(tool: str, arguments: dict[str, Any]) -> MapArguments:
    try:
        return MapArguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadArgument(f"{tool}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _untold(share: float, what: str) -> None:
    """Progress nobody asked for."""


def _rows(texts: Texts, rows: Sequence[Row], verdicts: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    lines = [f"{len(rows)} rows about {len(texts.by_id) - len(failed)} of {len(texts.by_id)} traces", *texts.notes]
    lines += [row_line(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    return [*lines, *(f"not read: trace {trace_id}: {why}" for trace_id, why in failed.items())]


def _answer(answer: FinalAnswer, problems: Sequence[str]) -> list[str]:
    lines = [answer.answer]
    for number, finding in enumerate(answer.findings, 1):
        lines += [f"{number}. [{finding.severity}] {finding.claim}", *_evidence(finding)]
    lines += [f"limits: {answer.limitations}"] if answer.limitations else []
    return [*lines, *(f"not confirmed: {problem}" for problem in problems)]


def _evidence(finding: Finding) -> list[str]:
    return [f"   trace {one.trace_id} span {one.span_id or '?'}: “{one.quote or ''}”" for one in finding.evidence]
