"""The server's read tools as the server-side agent calls them, and the check of its answers."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from halo_mcp.datasets import Datasets
from halo_mcp.engine.prompts import CALL_SUBAGENT
from halo_mcp.engine.types import Evidence, FinalAnswer, Finding, LedgerItem, Tool, Verification, Verify
from halo_mcp.errors import BadArgument
from halo_mcp.index.claims import Claim
from halo_mcp.index.verdicts import EvidenceVerdict
from halo_mcp.index.verification import verify
from halo_mcp.index.work import Work
from halo_mcp.tools.calls import answer, checked, problems
from halo_mcp.tools.catalog import CATALOG, Published
from halo_mcp.tools.code_evidence import check_code, without_commits
from halo_mcp.tools.evidence import rejected_lines, verification_json
from halo_mcp.tools.publish import publish
from halo_mcp.tools.render import printable
from halo_mcp.tools.threads import run_in_thread

if TYPE_CHECKING:
    from halo_mcp.repo.tools import Repository

_NEVER: Final = frozenset(("list_datasets", "verify_evidence", "synthesize_traces"))
"""The first may open files, the second is done to every answer anyway, the third has a budget of its own: see below."""
_NO_EVIDENCE: Final = frozenset((CALL_SUBAGENT, "verify_evidence"))
"""Tools whose results are a model's own words."""
_ADDED: Final = ("dataset", "response_format")

T = TypeVar("T")


def read_tools(datasets: Datasets, dataset: str, *, run_code: bool) -> list[Tool]:
    """Every read tool on one dataset. A call may name another loaded dataset, as suggested next calls do."""
    can_run = run_code and importlib.util.find_spec("wasmtime") is not None
    left_out = _NEVER if can_run else _NEVER | {"run_code"}
    entries = [entry for entry in CATALOG if entry.function.__name__ not in left_out]
    return [_tool(entry, datasets, dataset) for entry in entries]


def _tool(entry: Published, datasets: Datasets, dataset: str) -> Tool:
    published = publish(entry)
    schema = dict(published.parameters)
    schema["properties"] = {name: value for name, value in schema["properties"].items() if name not in _ADDED}
    takes = frozenset(inspect.signature(entry.function).parameters)

    async def call(arguments: dict[str, Any]) -> str:
        given = dict(arguments)
        given.pop("response_format", None)
        asked = str(given.pop("dataset", "") or dataset)
        if "dataset" in takes:  # run_code takes the name itself
            given["dataset"] = asked
        valid = checked(entry.function, given)
        result = await in_worker(partial(answer, datasets, asked, entry.function, valid))
        return printable(result.text)

    return Tool(published.name, published.description or "", schema, call)


async def in_worker(call: Callable[[Work], T]) -> T:
    """Run ``call`` in a thread that is told to stop when the caller is cancelled."""
    work = Work()
    try:
        return await run_in_thread(call, work)
    finally:
        work.stop()


# --- the check of an answer ---------------------------------------------------------------------------------------
class Seen:
    """The (trace id, span id) that tool results have shown; a trace without a span as (trace id, "")."""

    def __init__(self, items: Sequence[LedgerItem]) -> None:
        self._texts = [item.text for item in items if not item.failed and item.tool not in _NO_EVIDENCE]

    def __contains__(self, place: object) -> bool:
        match place:
            case (str(trace_id), str(span_id)):
                return any(_stands(trace_id, text) and (not span_id or _stands(span_id, text)) for text in self._texts)
            case _:
                return False


def _stands(identifier: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(identifier)}(?![\w-])", text) is not None


def verifier(datasets: Datasets, dataset: str, repository: Repository | None = None) -> Verify:
    """Checks answers against one dataset, and the code they cite against the repository."""

    async def check(given: FinalAnswer, items: Sequence[LedgerItem]) -> Verification:
        return await in_worker(partial(_check, datasets, dataset, repository, given, items))

    return check


def _check(
    datasets: Datasets,
    dataset: str,
    repository: Repository | None,
    given: FinalAnswer,
    items: Sequence[LedgerItem],
    work: Work,
) -> Verification:
    claims, wrong = _claims(given.findings)
    _, store = datasets.get(dataset)
    store.refresh(work)
    prose = f"{given.answer}\n{given.limitations}"
    code_tools = {tool.name for tool in repository.tools} if repository else frozenset[str]()
    seen = Seen([item for item in items if item.tool not in code_tools])  # files may hold ids too
    found = verify(store.pinned(), claims, prose, work.renewed(datasets.settings.deadline_s), seen)
    found = without_commits(repository, found) if repository else found
    code = check_code(repository, given, items)
    corrected = [
        _corrected(finding, [*verdict.evidence], verdict.counterexample)
        for finding, verdict in zip(code.corrected(given.findings), found.claims, strict=True)
    ]
    answer = given.model_copy(update={"findings": corrected})
    return Verification(
        [*wrong, *rejected_lines(found), *code.problems()], code.report(verification_json(found)), answer
    )


def _claims(findings: Sequence[Finding]) -> tuple[list[Claim], list[str]]:
    """The findings as claims; and a line for each count that cannot be taken."""
    claims, wrong = list[Claim](), list[str]()
    for number, finding in enumerate(findings, 1):
        written = finding.model_dump()
        try:
            claims.append(Claim.model_validate(written))
        except (ValidationError, BadArgument) as error:
            why = problems(error) if isinstance(error, ValidationError) else str(error)
            wrong.append(f"claim {number}: its check cannot be run: {why}")
            claims.append(Claim.model_validate({**written, "check": None}))
    return claims, wrong


def _corrected(finding: Finding, verdicts: Sequence[EvidenceVerdict], counter: EvidenceVerdict | None) -> Finding:
    """The finding with the ids that verification completed or moved."""
    changes: dict[str, Any] = {"evidence": [_placed(*pair) for pair in zip(finding.evidence, verdicts, strict=True)]}
    if finding.counterexample and counter:
        changes["counterexample"] = _placed(finding.counterexample, counter)
    return finding.model_copy(update=changes)


def _placed(evidence: Evidence, verdict: EvidenceVerdict) -> Evidence:
    if not verdict.corrected:
        return evidence
    return evidence.model_copy(update={"trace_id": verdict.trace_id, "span_id": verdict.span_id or None})


def scope_text(filters: Mapping[str, Any]) -> str:
    """What an agent is told when the question is about some traces only."""
    import json

    return f"\n\nThe question is about the traces that match filters={json.dumps(filters)}: use these filters."
