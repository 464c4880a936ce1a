"""What became of claims and their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from halo_mcp.index.claims import Claim, CountCheck, Evidence
from halo_mcp.index.quotes import Tier

Verdict = Literal[
    "exact",
    "normalised",
    "loose",
    "moved",
    "exists",
    "missing",
    "unknown_id",
    "ambiguous_id",
    "too_short",
    "too_long",
    "unchecked",
]
"""The first three: the quote stands in the cited span (anywhere in the trace when none was cited). Moved: it stands, or
the span is, elsewhere. Exists: ids without a quote. Unchecked: time or a limit came first."""
CONFIRMED: Final[frozenset[Verdict]] = frozenset(("exact", "normalised", "loose", "moved", "exists"))
FAILED: Final[frozenset[Verdict]] = frozenset(("missing", "unknown_id", "ambiguous_id"))


@dataclass(frozen=True, slots=True)
class EvidenceVerdict:
    """What became of one piece of evidence."""

    cited: Evidence
    verdict: Verdict
    trace_id: str = ""
    """In full, corrected; "" when unknown."""
    span_id: str = ""
    """Where the quote stands; else the cited span, in full; "" when unknown."""
    tier: Tier | None = None
    """How the quote matches there."""
    path: str = ""
    """Where in the span it stands."""
    reason: str = ""
    nearest: str = ""
    """For a missing quote: what the cited span says where it comes nearest."""
    seen: bool | None = None
    """Whether the span was read before it was cited; None when nobody kept a record."""

    @property
    def corrected(self) -> bool:
        """The ids to use differ from those that were given."""
        return self.verdict in CONFIRMED and (self.trace_id, self.span_id) != (self.cited.trace_id, self.cited.span_id)


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """A count taken again."""

    check: CountCheck
    verdict: Literal["holds", "wrong", "unchecked"]
    actual: int | Mapping[str, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """A claim, with a verdict on each piece of its evidence in their order."""

    claim: Claim
    evidence: tuple[EvidenceVerdict, ...]
    counterexample: EvidenceVerdict | None
    check: CheckVerdict | None

    @property
    def all_evidence(self) -> tuple[EvidenceVerdict, ...]:
        return self.evidence if self.counterexample is None else (*self.evidence, self.counterexample)

    @property
    def supported(self) -> bool:
        """There is something to check."""
        return bool(self.evidence or self.check)


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdicts on all claims."""

    claims: tuple[ClaimVerdict, ...]
    unknown_ids: tuple[str, ...]
    """Words in the answer and the claims that look like ids and are none of this dataset."""
    ids_in_text: int
    """Distinct words that look like ids."""
    limits: tuple[str, ...] = ()
    """What was not looked at, and why."""

    @property
    def evidence(self) -> tuple[EvidenceVerdict, ...]:
        return tuple(one for claim in self.claims for one in claim.all_evidence)

    @property
    def checks(self) -> tuple[CheckVerdict, ...]:
        return tuple(claim.check for claim in self.claims if claim.check is not None)

    @property
    def failed(self) -> bool:
        """Something that was cited, counted or named is not so."""
        return bool(
            self.unknown_ids
            or any(one.verdict in FAILED for one in self.evidence)
            or any(check.verdict == "wrong" for check in self.checks)
        )

    @property
    def undecided(self) -> bool:
        """Something could not be checked: too short or long, out of time, beyond a limit."""
        return bool(
            self.limits
            or any(one.verdict not in CONFIRMED | FAILED for one in self.evidence)
            or any(check.verdict == "unchecked" for check in self.checks)
        )
