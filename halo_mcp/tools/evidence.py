"""verify_evidence: do the ids, quotes and counts of a diagnosis exist?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from halo_mcp.errors import BadArgument
from halo_mcp.index.claims import Claim
from halo_mcp.index.filters import Text
from halo_mcp.index.verdicts import CONFIRMED, FAILED, CheckVerdict, ClaimVerdict, EvidenceVerdict, Verification
from halo_mcp.index.verification import MAX_EVIDENCE, verify
from halo_mcp.tools.budget import DEFAULT_CHARS, REJECTION_CHARS, Page, preview
from halo_mcp.tools.params import Answer, Call, call_text
from halo_mcp.tools.render import counted, names

_QUOTE_CHARS: Final = 160
_ECHO_CHARS: Final = 240
_IDS_SHOWN: Final = 20
_CALLS: Final = 3
_SCHEMA: Final = {
    "type": "array",
    "items": {"type": "object"},
    "description": "[{claim, evidence: [{trace_id, span_id, quote}], "
    "check: {filters, failure_mode, metric: traces|spans, expected}}]",
}
EXISTENCE: Final = (
    "This shows that the words and numbers are there, not that they mean what the claim says: that is yours to judge."
)


def verify_evidence(
    call: Call,
    claims: Annotated[list[Claim], Field(max_length=MAX_EVIDENCE), WithJsonSchema(_SCHEMA)] = [],  # noqa: B006
    answer: Annotated[Text, Field(description="text; its ids are checked")] = "",
) -> Answer:
    """Check that the ids, quotes and counts of a diagnosis exist.

    Quotes: exact, normalised (spacing, case), loose (letters, digits), moved (says where) or missing.
    Existence, not whether they support it. Next: view_spans.
    """
    pieces = sum(len(claim.evidence) + (claim.counterexample is not None) for claim in claims)
    if pieces > MAX_EVIDENCE:
        raise BadArgument(f"claims hold {pieces:,} pieces of evidence; verify at most {MAX_EVIDENCE} in one call.")
    if not claims and not answer:
        raise BadArgument('Nothing to verify: give claims=[{"claim": ..., "evidence": [...]}], or the answer as text.')
    found = verify(call.store, claims, answer, call.work)
    text = Page(DEFAULT_CHARS, reserve=3_000)
    text.add(f"dataset {call.dataset}: {summary(found)}")
    shown = 0
    for number, claim in enumerate(found.claims, 1):
        if not text.add(claim_lines(number, claim)):
            break
        shown += 1
    left = len(found.claims) - shown
    closing = [f'{counted(left, "further claim")} not shown: response_format="json" has all.'] if left else []
    return Answer(text.close(*closing, *_closing(call, found)), verification_json(found))


def summary(found: Verification) -> str:
    """The verdicts in numbers, on one line."""
    parts = [_tally(len(found.evidence), "citation", [one.verdict for one in found.evidence])]
    if found.checks:
        parts.append(_tally(len(found.checks), "count", [check.verdict for check in found.checks]))
    if found.ids_in_text:
        unknown = f"{len(found.unknown_ids)} unknown" if found.unknown_ids else "all known"
        parts.append(f"{counted(found.ids_in_text, 'id')} in the text: {unknown}")
    return "; ".join(parts)


def _tally(count: int, noun: str, verdicts: Sequence[str]) -> str:
    kinds = ", ".join(f"{number} {_words(verdict)}" for verdict, number in Counter(verdicts).most_common())
    return counted(count, noun) + (f": {kinds}" if kinds else "")


def _words(verdict: str) -> str:
    return verdict.replace("_", " ")


def claim_lines(number: int, claim: ClaimVerdict) -> str:
    """A claim and what became of its evidence, a line each."""
    lines = [f"{number}. {_quoted(claim.claim.claim) if claim.claim.claim else '(no words)'}"]
    lines += [f"   {_evidence_line(one)}" for one in claim.evidence]
    if claim.counterexample is not None:
        lines.append(f"   counterexample: {_evidence_line(claim.counterexample)}")
    if claim.check is not None:
        lines.append(f"   {_check_line(claim.check)}")
    if not claim.supported:
        lines.append("   no evidence given")
    return "\n".join(lines)


def _evidence_line(one: EvidenceVerdict) -> str:
    words = [_words(one.verdict)]
    if one.verdict == "moved" and one.tier:
        words.append(f"({one.tier})")
    line = f"{' '.join(words)} · {_place(one)}"
    if one.path:
        line += f" {preview(one.path)}"
    if one.reason:
        line += f": {one.reason}"
    if one.verdict not in CONFIRMED and one.cited.quote:
        line += f" · {_quoted(one.cited.quote)}"
    if one.nearest:
        line += f" · stands there: {_quoted(one.nearest)}"
    return line + ("" if one.seen is not False else " · never read in this run")


def _place(one: EvidenceVerdict) -> str:
    trace_id = one.trace_id or preview(one.cited.trace_id) or "?"
    span_id = one.span_id or preview(one.cited.span_id)
    return f"trace {trace_id}" + (f" span {span_id}" if span_id else "")


def _quoted(text: str) -> str:
    return f"“{preview(text, _QUOTE_CHARS)}”"


def _check_line(check: CheckVerdict) -> str:
    what = check.check.metric if check.check.group_by is None else f"traces by {check.check.group_by}"
    if check.verdict == "unchecked":
        return f"count unchecked: {check.reason}"
    return f"count {check.verdict}: {what}, expected {check.check.expected}, is {check.actual}"


def _closing(call: Call, found: Verification) -> list[str]:
    lines: list[str] = []
    if found.unknown_ids:
        listed = names((preview(text) for text in found.unknown_ids), _IDS_SHOWN)
        lines.append(f"Look like ids in the text, and are none of this dataset: {listed}")
    lines += [f"Not complete: {limit}." for limit in found.limits]
    lines.append(EXISTENCE)
    if calls := _next_calls(call, found):
        lines.append(f"Next: {' or '.join(calls)}")
    return lines


def _next_calls(call: Call, found: Verification) -> list[str]:
    """To read the corrected spans and those that lack their quote; to count again."""
    places: dict[str, list[str]] = {}
    for one in found.evidence:
        if one.trace_id and one.span_id and (one.verdict in ("moved", "missing") or one.corrected):
            spans = places.setdefault(one.trace_id, [])
            spans += [] if one.span_id in spans else [one.span_id]
    calls = [
        call_text("view_spans", dataset=call.named, trace_id=trace_id, span_ids=spans[:5])
        for trace_id, spans in places.items()
    ]
    calls += [
        call_text("count_traces", dataset=call.named, filters=check.check.filters.given())
        for check in found.checks
        if check.verdict == "wrong" and check.check.failure is None and check.check.group_by is None
    ]
    return calls[:_CALLS]


# --- for a model whose answer does not stand --------------------------------------------------------------------------
def rejected_lines(found: Verification) -> list[str]:
    """The problems of `rejection`, a line each."""
    return [line.removeprefix("- ") for line in rejection(found).splitlines()[1:]]


def rejection(found: Verification) -> str:
    """What a model must fix or drop, and what was found instead; "" when nothing is wrong."""
    wrong = [*_wrong_evidence(found), *_wrong_checks(found)]
    if found.unknown_ids:
        listed = names((preview(text) for text in found.unknown_ids), _IDS_SHOWN)
        wrong.append(f"- ids in the text that this dataset does not have: {listed}")
    if not wrong:
        return ""
    text = Page(REJECTION_CHARS, reserve=200)
    text.add("Not accepted yet: parts of the evidence do not stand. Fix or drop each of these, then answer again.")
    shown = 0
    for line in wrong:
        if not text.add(line):
            break
        shown += 1
    left = len(wrong) - shown
    return text.close(f"and {left} more" if left else "")


def _wrong_evidence(found: Verification) -> list[str]:
    """Everything that failed, and quotes too short or too long to check; then what moved, if there is any of these."""
    wrong, moved = list[str](), list[str]()
    for number, claim in enumerate(found.claims, 1):
        for place, one in enumerate(claim.all_evidence, 1):
            line = f"- claim {number}, evidence {place}: {_evidence_line(one)}"
            if one.verdict in FAILED or one.verdict in ("too_short", "too_long"):
                wrong.append(line)
            elif one.verdict == "moved":
                moved.append(line)
    return [*wrong, *moved] if wrong else []


def _wrong_checks(found: Verification) -> list[str]:
    return [
        f"- claim {number}: {_check_line(claim.check)}"
        for number, claim in enumerate(found.claims, 1)
        if claim.check is not None and claim.check.verdict == "wrong"
    ]


# --- as JSON ----------------------------------------------------------------------------------------------------------
def verification_json(found: Verification) -> dict[str, Any]:
    """The same facts as JSON."""
    verdicts = Counter(one.verdict for one in found.evidence)
    return {
        "failed": found.failed,
        "undecided": found.undecided,
        "claims": [
            {
                "claim": preview(claim.claim.claim, _ECHO_CHARS),
                "supported": claim.supported,
                "evidence": [evidence_json(one) for one in claim.evidence],
                "counterexample": None if claim.counterexample is None else evidence_json(claim.counterexample),
                "check": None if claim.check is None else _check_json(claim.check),
            }
            for claim in found.claims
        ],
        "citations": {
            "total": len(found.evidence),
            "verified": sum(number for verdict, number in verdicts.items() if verdict in CONFIRMED - {"moved"}),
            "moved": verdicts["moved"],
            "failed": sum(number for verdict, number in verdicts.items() if verdict in FAILED),
            "by_verdict": dict(verdicts),
        },
        "unknown_ids": list(found.unknown_ids),
        "ids_in_text": found.ids_in_text,
        "limits": list(found.limits),
        "note": EXISTENCE,
    }


def evidence_json(one: EvidenceVerdict) -> dict[str, Any]:
    """One piece of evidence with its ids corrected; ``cited_`` ids where they were others."""
    cited = one.cited
    return {
        "trace_id": one.trace_id or cited.trace_id[:_ECHO_CHARS],
        "span_id": one.span_id or cited.span_id[:_ECHO_CHARS],
        "quote": preview(cited.quote, _ECHO_CHARS),
        "verdict": one.verdict,
        "tier": one.tier,
        "path": one.path,
        "reason": one.reason,
        **({"nearest": preview(one.nearest, _ECHO_CHARS)} if one.nearest else {}),
        **({"cited_trace_id": cited.trace_id, "cited_span_id": cited.span_id} if one.corrected else {}),
        **({} if one.seen is None else {"seen": one.seen}),
    }


def _check_json(check: CheckVerdict) -> dict[str, Any]:
    return {
        "verdict": check.verdict,
        "expected": check.check.expected,
        "actual": check.actual if check.actual is None or isinstance(check.actual, int) else dict(check.actual),
        **({"reason": check.reason} if check.reason else {}),
    }
