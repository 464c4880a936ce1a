"""Whether evidence exists: ids, quotes at their spans, counts, ids in prose. Knows the store's protocol only.

It shows that words stand where a claim says, not that they mean what it says. Only cited traces are read: first the
cited spans, then, for quotes that do not stand there, the rest of their traces.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import Final

from halo_mcp.errors import BadArgument, DeadlineExceeded
from halo_mcp.index.cited import Citation, resolve
from halo_mcp.index.claims import Claim, CountCheck, Evidence
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.prose_ids import MAX_TEXT_CHARS, id_pattern, words_like_ids
from halo_mcp.index.quotes import MAX_QUOTE_CHARS, MIN_CHARS, TIERS, Found, Quote, Texts
from halo_mcp.index.span import Span
from halo_mcp.index.span_texts import span_texts
from halo_mcp.index.store import SpanStore
from halo_mcp.index.verdicts import CheckVerdict, ClaimVerdict, EvidenceVerdict, Verdict, Verification
from halo_mcp.index.work import Work

MAX_NEAREST: Final = 50
"""For so many missing quotes it is told what stands there instead."""
MAX_EVIDENCE: Final = 300
MAX_CHECKS: Final = 100
_ALL_SPANS: Final = 1 << 40


def verify(
    store: SpanStore,
    claims: Sequence[Claim],
    answer: str,
    work: Work,
    seen: Container[tuple[str, str]] | None = None,
) -> Verification:
    """Check claims, and the ids named in ``answer`` and in the claims.

    ``seen``: the (trace id, span id) that were read before; a trace without a span as (trace id, ""). The deadline of
    ``work`` ends the search and is reported, not raised. Raises: Cancelled, SourceError, IndexFailure.
    """
    cited = [one for claim in claims for one in (*claim.evidence, claim.counterexample) if one is not None]
    run = _Run(store, work, cited[:MAX_EVIDENCE])
    checks = run.checked([claim.check for claim in claims])
    run.read()
    unknown, words = run.unknown_ids(answer, claims)
    verdicts = iter([*run.verdicts(seen), *(_left_out(one) for one in cited[MAX_EVIDENCE:])])
    return Verification(
        tuple(
            ClaimVerdict(
                claim,
                tuple(next(verdicts) for _ in claim.evidence),
                None if claim.counterexample is None else next(verdicts),
                check,
            )
            for claim, check in zip(claims, checks, strict=True)
        ),
        unknown,
        words,
        tuple(run.limits),
    )


def _left_out(cited: Evidence) -> EvidenceVerdict:
    return EvidenceVerdict(cited, "unchecked", reason=f"only the first {MAX_EVIDENCE:,} pieces of evidence are checked")


class _Run:
    """One verification: citations are resolved, then read, cheapest first."""

    def __init__(self, store: SpanStore, work: Work, cited: Sequence[Evidence]) -> None:
        self._store = store
        self._work = work
        self.limits: list[str] = []
        self._citations: list[Citation] = [Citation(one) for one in cited]
        self._found: dict[int, tuple[str, Found]] = {}
        """By number of the citation: the span where its quote stands."""
        self._nearest: dict[int, str] = {}
        self._read: set[int] = set()
        """Citations whose cited span was read."""
        self._searched: set[str] = set()
        """Traces that were read in full."""
        self._quotes = {
            number: Quote(one.quote)
            for number, one in enumerate(cited)
            if one.quote.strip() and len(one.quote) <= MAX_QUOTE_CHARS
        }
        try:
            resolve(store, self._citations, work)
        except DeadlineExceeded:
            self._out_of_time("looking up ids")

    def _out_of_time(self, what: str) -> None:
        self.limits.append(f"the time for one call was over while {what}")

    # --- counts ------------------------------------------------------------------------------------------------
    def checked(self, checks: Sequence[CountCheck | None]) -> list[CheckVerdict | None]:
        left, verdicts = MAX_CHECKS, list[CheckVerdict | None]()
        for check in checks:
            left -= check is not None
            verdicts.append(None if check is None else self._checked(check, left >= 0))
        return verdicts

    def _checked(self, check: CountCheck, within_limit: bool) -> CheckVerdict:
        if not within_limit:
            return CheckVerdict(check, "unchecked", reason=f"only the first {MAX_CHECKS} counts are taken again")
        try:
            self._work.check()
            if isinstance(check.expected, dict):
                counts = {one.value: one.traces for one in self._store.count(check.filters, check.group_by, self._work)}
                actual = {group: counts.get(group, 0) for group in check.expected}
            else:
                measured = self._store.measure(TraceFilters(), check.filters, check.failure, self._work)
                actual = measured.spans if check.metric == "spans" else measured.traces
        except (BadArgument, DeadlineExceeded) as error:
            return CheckVerdict(check, "unchecked", reason=str(error))
        return CheckVerdict(check, "holds" if actual == check.expected else "wrong", actual)

    # --- quotes ------------------------------------------------------------------------------------------------
    def read(self) -> None:
        """Look for the quotes: in the cited spans, then in the rest of the traces."""
        try:
            for (trace_id, span_id), numbers in self._by_place().items():
                self._work.check()
                self._look_at(self._store.payloads(trace_id, [span_id]), numbers)
            for trace_id, numbers in self._not_found_by_trace().items():
                self._look_through(trace_id, numbers)
        except DeadlineExceeded:
            self._out_of_time("looking for quotes")

    def _wanted(self) -> Iterator[tuple[int, Citation]]:
        for number, citation in enumerate(self._citations):
            if not self._store.privacy.payloads:
                return
            if number in self._quotes and citation.trace_id and self._quotes[number].alphanumeric_count >= MIN_CHARS:
                yield number, citation

    def _by_place(self) -> dict[tuple[str, str], list[int]]:
        places: dict[tuple[str, str], list[int]] = {}
        for number, citation in self._wanted():
            if citation.span_id:
                places.setdefault((citation.trace_id, citation.span_id), []).append(number)
        return places

    def _not_found_by_trace(self) -> dict[str, list[int]]:
        traces: dict[str, list[int]] = {}
        for number, citation in self._wanted():
            if number not in self._found:
                traces.setdefault(citation.trace_id, []).append(number)
        return traces

    def _look_at(self, spans: Sequence[Span], numbers: Sequence[int]) -> None:
        """Look for quotes in the span that they cite (several spans, when they have one id)."""
        for span in spans:
            texts = Texts(span_texts(span), self._work.check)
            for number in numbers:
                self._compare(number, span.span_id, texts)
                if number not in self._found and len(self._nearest) < MAX_NEAREST:
                    self._nearest[number] = texts.nearest(self._quotes[number])
        self._read.update(numbers)

    def _look_through(self, trace_id: str, numbers: Sequence[int]) -> None:
        """Look for quotes in all spans of a trace, read one by one; an exact match ends the search for a quote."""
        left = list(numbers)
        for record in self._store.records(TraceFilters(trace_ids=[trace_id]), 0, _ALL_SPANS, self._work):
            span = Span.from_json(record)
            texts = Texts(span_texts(span), self._work.check)
            for number in left:
                self._compare(number, span.span_id, texts)
            left = [number for number in left if number not in self._found or self._found[number][1].tier != "exact"]
            if not left:
                break
        self._searched.add(trace_id)

    def _compare(self, number: int, span_id: str, texts: Texts) -> None:
        """Remember where a quote stands, unless a better match is known."""
        known = self._found.get(number)
        better = TIERS if known is None else TIERS[: TIERS.index(known[1].tier)]
        if found := texts.find(self._quotes[number], better):
            self._found[number] = (span_id, found)

    # --- verdicts ----------------------------------------------------------------------------------------------
    def verdicts(self, seen: Container[tuple[str, str]] | None) -> Iterator[EvidenceVerdict]:
        for number, citation in enumerate(self._citations):
            verdict = self._verdict(number, citation)
            if seen is not None and verdict.trace_id:
                read = (verdict.trace_id, verdict.span_id) in seen
                verdict = replace(verdict, seen=read)
            yield verdict

    def _verdict(self, number: int, citation: Citation) -> EvidenceVerdict:
        cited = citation.cited
        verdict = EvidenceVerdict(cited, "unchecked", citation.trace_id, citation.span_id)
        if not citation.resolved:
            return replace(verdict, reason="the time for one call was over")
        if number in self._found:
            span_id, found = self._found[number]
            elsewhere = bool(cited.span_id) and span_id != citation.span_id
            other = f"the quote stands here, not in {citation.span_id or 'the cited span'}" if elsewhere else ""
            reason = "; ".join(part for part in (citation.reason, other) if part)
            moved: Verdict = "moved" if elsewhere or citation.moved else found.tier
            return replace(verdict, verdict=moved, span_id=span_id, tier=found.tier, path=found.path, reason=reason)
        if citation.failed:
            return replace(verdict, verdict=citation.failed, reason=citation.reason)
        if not cited.quote.strip():
            return replace(verdict, verdict="moved" if citation.moved else "exists", reason=citation.reason)
        if not self._store.privacy.payloads:
            return replace(verdict, reason="quotes cannot be checked: the texts of spans are withheld (--no-payloads)")
        if number not in self._quotes:
            reason = f"the quote is longer than {MAX_QUOTE_CHARS:,} characters: give the telling words"
            return replace(verdict, verdict="too_long", reason=reason)
        if self._quotes[number].alphanumeric_count < MIN_CHARS:
            reason = f"too short to verify: fewer than {MIN_CHARS} letters and digits"
            return replace(verdict, verdict="too_short", reason=reason)
        return self._missing(number, citation, verdict)

    def _missing(self, number: int, citation: Citation, verdict: EvidenceVerdict) -> EvidenceVerdict:
        searched = citation.trace_id in self._searched
        if number in self._read:
            rest = "nor in another span of the trace" if searched else "the rest of its trace was not searched in time"
            where = f"the quote is not in the cited span, {rest}"
            return replace(verdict, verdict="missing", reason=where, nearest=self._nearest.get(number, ""))
        if searched:
            return replace(verdict, verdict="missing", reason="the quote is in no span of the trace")
        return replace(verdict, reason="the time for one call was over before its trace was read")

    # --- ids in prose ------------------------------------------------------------------------------------------
    def unknown_ids(self, answer: str, claims: Sequence[Claim]) -> tuple[tuple[str, ...], int]:
        """Words that look like ids and are none, and how many look like ids. Words of quotes that stand are fine."""
        text = "\n".join([answer, *(claim.claim for claim in claims)])
        if len(text) > MAX_TEXT_CHARS:
            self.limits.append(f"ids were looked for in the first {MAX_TEXT_CHARS:,} characters of the texts")
        try:
            lookup = self._work if not self._work.expired else self._work.renewed(1.0)
            words = words_like_ids(text, id_pattern(self._store.sample_ids(lookup)))
            known = self._store.find_ids(words, lookup)
        except DeadlineExceeded:
            self._out_of_time("looking for ids in the texts")
            return (), 0
        quoted = [self._quotes[number].text for number in self._found]
        unknown = [word for word in words if not known[word] and not any(word in quote for quote in quoted)]
        return tuple(unknown), len(words)
