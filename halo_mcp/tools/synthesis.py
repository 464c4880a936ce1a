"""synthesize_traces with a model: digests to rows to findings, all evidence checked, as text and JSON."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import anyio.to_thread
import orjson
from pydantic import ValidationError

from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.run import Run
from halo_mcp.engine.synthesis import (
    MAP_SYSTEM,
    REDUCE_SYSTEM,
    Row,
    Synthesis,
    row_line,
    synthesize,
)
from halo_mcp.engine.types import FinalAnswer, Finding
from halo_mcp.index.claims import Claim, Evidence
from halo_mcp.index.store import SpanStore
from halo_mcp.index.verdicts import Verification
from halo_mcp.index.verification import MAX_EVIDENCE, verify
from halo_mcp.index.work import Work
from halo_mcp.tools.budget import DEFAULT_CHARS, Page, preview
from halo_mcp.tools.chosen import Chosen, digests, strata_line
from halo_mcp.tools.digest import Digest
from halo_mcp.tools.engine_loop import Told, run_engine
from halo_mcp.tools.evidence import EXISTENCE, claim_lines, rejected_lines, summary, verification_json
from halo_mcp.tools.params import Answer, Call, call_text
from halo_mcp.tools.render import counted, number

_KEPT: Final = 32
"""Syntheses that are remembered."""
_VERIFY_S: Final = 60.0
_LABELS: Final = 8
_FAILED_SHOWN: Final = 5


Seen = frozenset[tuple[str, str]]
"""(trace id, span id) that were read; a trace without a span as (trace id, "")."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one synthesis came to, and what it used."""

    synthesis: Synthesis
    usage: Mapping[str, Any]
    warnings: Sequence[str]
    run_id: str
    model: str
    api: str


class _Remembered:
    """Complete syntheses by what was sent: the same digests are not paid for twice. Any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()

    def get(self, key: str) -> Outcome | None:
        with self._lock:
            return self._outcomes.get(key)

    def put(self, key: str, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[key] = outcome
            while len(self._outcomes) > _KEPT:
                self._outcomes.popitem(last=False)


_REMEMBERED: Final = _Remembered()


def synthesis_answer(call: Call, chosen: Chosen, facts: str, focus: str) -> Answer:
    """Findings across the chosen traces. Raises: EngineError where nothing was paid for."""
    made = digests(call.store, chosen.trace_ids, call.work)
    # The question's deadline is that of the index; a model has its own.
    work = call.work.renewed(call.llm.limits.max_seconds)
    key = _key(call, made, facts, focus)
    known = _REMEMBERED.get(key)
    outcome = known or _run(call, made, facts, focus, work)
    if not known and outcome.synthesis.answer and not outcome.synthesis.failed:
        _REMEMBERED.put(key, outcome)
    verified, problems = None, list[str]()
    if answer := outcome.synthesis.answer:
        verified, problems = _verified(call.store, answer, seen_in(made), call.work.renewed(_VERIFY_S))
    return _answer(call, chosen, outcome, verified, problems, focus, cached=known is not None)


def _key(call: Call, made: Sequence[Digest], facts: str, focus: str) -> str:
    llm = call.llm
    texts = [[digest.trace_id, digest.text] for digest in made]
    how = [llm.endpoint, llm.api, llm.model, llm.subagent_model, llm.synthesis_model]
    how += [llm.reasoning_effort, llm.temperature, llm.max_output_tokens]
    return hashlib.sha256(orjson.dumps([how, MAP_SYSTEM, REDUCE_SYSTEM, facts, focus, texts])).hexdigest()


def _run(call: Call, made: Sequence[Digest], facts: str, focus: str, work: Work) -> Outcome:
    texts = {digest.trace_id: digest.text for digest in made}
    seen = seen_in(made)

    async def check(rows: Sequence[Row]) -> list[str]:
        return await anyio.to_thread.run_sync(row_verdicts, call.store, rows, work)

    async def problems(answer: FinalAnswer) -> list[str]:
        return await anyio.to_thread.run_sync(problems_of, call.store, answer, seen, work)

    async def main(told: Told) -> Outcome:
        endpoint = Endpoint(call.llm)
        try:
            run = Run(endpoint, (), limits=call.llm.limits)
            found = await synthesize(run, texts, facts, focus, check, problems, told)
        finally:
            # Shielded: a cancelled call must still give its sockets back.
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await endpoint.aclose()
        usage = {**asdict(run.meter.totals), "seconds": round(run.meter.elapsed_s(), 3)}
        model = call.llm.synthesis_model or call.llm.model
        return Outcome(found, usage, [*run.warnings], run.run_id, model, endpoint.wire(model))

    return run_engine(work, main)


# --- evidence ---------------------------------------------------------------------------------------------------------
def row_verdicts(store: SpanStore, rows: Sequence[Row], work: Work) -> list[str]:
    """The verdict on the evidence of each row. Raises: Cancelled, SourceError, IndexFailure."""
    claims = [Claim(evidence=[Evidence(trace_id=row.trace_id, span_id=row.span_id, quote=row.quote)]) for row in rows]
    verdicts: list[str] = []
    for start in range(0, len(claims), MAX_EVIDENCE):
        checked = verify(store, claims[start : start + MAX_EVIDENCE], "", work.renewed(_VERIFY_S))
        verdicts += [one.verdict.replace("_", " ") for one in checked.evidence]
    return verdicts


def problems_of(store: SpanStore, answer: FinalAnswer, seen: Seen | None, work: Work) -> list[str]:
    """What does not stand in the findings, a line each; [] when all does. Raises: as `row_verdicts`."""
    found, problems = _verified(store, answer, seen, work.renewed(_VERIFY_S))
    return [*problems, *rejected_lines(found)]


def seen_in(made: Sequence[Digest]) -> Seen:
    """The places that digests show."""
    return frozenset((digest.trace_id, span_id) for digest in made for span_id in ("", *digest.span_ids))


def _verified(store: SpanStore, answer: FinalAnswer, seen: Seen | None, work: Work) -> tuple[Verification, list[str]]:
    """The verdicts on the findings, and what could not be checked at all."""
    problems: list[str] = []
    claims = [_claim(number, finding, problems) for number, finding in enumerate(answer.findings, 1)]
    return verify(store, claims, answer.answer, work, seen), problems


def _claim(number: int, finding: Finding, problems: list[str]) -> Claim:
    """A finding as a claim; a count that makes no sense is told and left out."""
    content = finding.model_dump(exclude_none=True)
    try:
        return Claim.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problems.append(f"finding {number}: its count cannot be taken: {first['msg']}")
        return Claim.model_validate({name: value for name, value in content.items() if name != "check"})


# --- the answer -------------------------------------------------------------------------------------------------------
def _answer(
    call: Call,
    chosen: Chosen,
    outcome: Outcome,
    verified: Verification | None,
    problems: list[str],
    focus: str,
    *,
    cached: bool,
) -> Answer:
    found = outcome.synthesis
    status = "complete" if found.answer and not found.failed else "partial"
    text = Page(DEFAULT_CHARS, reserve=2_500)
    text.add_cut(_head(call, chosen, outcome, status, cached=cached))
    text.add_cut(found.answer.answer if found.answer else "No findings were written; the rows below are what was read.")
    if verified is not None:
        text.add(f"Evidence: {summary(verified)}")
        for number_, claim in enumerate(verified.claims, 1):
            text.add(claim_lines(number_, claim))
    if found.answer and found.answer.limitations:
        text.add_cut(f"Limits, as the model says: {found.answer.limitations}")
    shown = _add_rows(text, found)
    closing = _closing(call, chosen, outcome, problems, len(found.rows) - shown)
    data = _json(chosen, outcome, verified, problems, status, focus, cached=cached)
    return Answer(text.close(*closing), data)


def _head(call: Call, chosen: Chosen, outcome: Outcome, status: str, *, cached: bool) -> str:
    usage = outcome.usage
    cost = "" if usage["usd"] is None else f", {usage['usd']:.4f} USD"
    paid = (
        "nothing paid: remembered"
        if cached
        else (
            f"{counted(usage['requests'], 'request')}, {number(usage['input_tokens'])} tokens in, "
            f"{number(usage['output_tokens'])} out{cost}"
        )
    )
    read = len(chosen.trace_ids) - len(outcome.synthesis.failed)
    stop = f" ({outcome.synthesis.stop_reason})" if outcome.synthesis.stop_reason else ""
    return (
        f"dataset {call.dataset}: {status}{stop} synthesis of {number(read)} traces, {number(chosen.total)} match; "
        f"model {outcome.model}; {paid}"
    )


def _add_rows(text: Page, found: Synthesis) -> int:
    """How many rows were added."""
    if not found.rows:
        return 0
    labels = Counter(row.label for row in found.rows)
    common = ", ".join(f"{preview(label)} {count}" for label, count in labels.most_common(_LABELS))
    text.add(f"{counted(len(found.rows), 'row')} about single traces; labels: {common}")
    shown = 0
    for row, verdict in zip(found.rows, found.verdicts, strict=True):
        if not text.add(f"- {row_line(row, verdict)}"):
            break
        shown += 1
    return shown


def _closing(call: Call, chosen: Chosen, outcome: Outcome, problems: Sequence[str], rows_left: int) -> list[str]:
    failed = outcome.synthesis.failed
    lines = [f'{counted(rows_left, "further row")}: response_format="json" has all.'] if rows_left > 0 else []
    lines += [f"Not read: trace {trace_id}: {preview(why, 160)}" for trace_id, why in [*failed.items()][:_FAILED_SHOWN]]
    lines += [f"and {number(len(failed) - _FAILED_SHOWN)} more not read"] if len(failed) > _FAILED_SHOWN else []
    lines += [f"Unknown: {preview(why, 160)}" for why in [*chosen.unknown.values()][:_FAILED_SHOWN]]
    if chosen.sampled:
        lines.append(f"Traces were {strata_line(chosen, chosen.trace_ids)}.")
    lines += [f"Warning: {preview(text, 240)}" for text in (*problems, *outcome.warnings)[:_FAILED_SHOWN]]
    lines.append(EXISTENCE)
    if outcome.synthesis.rows:
        first = outcome.synthesis.rows[0]
        lines.append(f"Next: {call_text('view_trace', dataset=call.named, trace_id=first.trace_id)}")
    return lines


def _json(
    chosen: Chosen,
    outcome: Outcome,
    verified: Verification | None,
    problems: Sequence[str],
    status: str,
    focus: str,
    *,
    cached: bool,
) -> Mapping[str, Any]:
    found = outcome.synthesis
    checked: dict[str, Any] = {"claims": []} if verified is None else verification_json(verified)
    findings = found.answer.findings if found.answer else []
    return {
        "status": status,
        "stop_reason": found.stop_reason,
        "focus": focus,
        "answer": found.answer.answer if found.answer else "",
        "findings": [
            {**verdicts, "claim": finding.claim, "severity": finding.severity}
            for finding, verdicts in zip(findings, checked.pop("claims"), strict=True)
        ],
        "limitations": found.answer.limitations if found.answer else "",
        "verification": checked,
        "rows": [
            {**row.model_dump(), "verdict": verdict} for row, verdict in zip(found.rows, found.verdicts, strict=True)
        ],
        "total_traces": chosen.total,
        "trace_ids": list(chosen.trace_ids),
        "failed": dict(found.failed),
        "unknown_trace_ids": list(chosen.unknown),
        "usage": dict(outcome.usage),
        "cached": cached,
        "model": outcome.model,
        "api": outcome.api,
        "run_id": outcome.run_id,
        "warnings": [*problems, *outcome.warnings],
    }
