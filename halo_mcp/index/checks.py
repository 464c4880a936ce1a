"""Checks: findings saved as predicates, to be asked again of any later dataset.

A file of checks is JSON, described by ``CheckFile`` and in docs/checks.md. Knows the store's protocol only.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from halo_mcp.errors import BadArgument, BadCheckFile, DeadlineExceeded, why_unusable
from halo_mcp.index.failure_rules import RULE_NAMES, STATUS_RULE
from halo_mcp.index.filters import Text, TraceFilters
from halo_mcp.index.store import Measured, Occurrence, SpanStore
from halo_mcp.index.work import Work

CHECK_FILE_VERSION: Final = 1
Metric = Literal["share_of_traces", "traces", "spans"]
Operator = Literal["<=", "<", ">=", ">"]
Status = Literal["pass", "fail", "error"]

_HOLDS: Final[dict[Operator, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
_RULES: Final = (STATUS_RULE, *RULE_NAMES)
_VARYING: Final = (
    re.compile(r"\S*[0-9/\\]\S*"),
    re.compile(r"""(?P<quote>["'`])[^"'`\n]*(?P=quote)|\S*[0-9/\\]\S*"""),
)
"""What other cases of a failure may say instead: words with digits or slashes; and quoted texts, if need be."""
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_PATTERN_TEXT_CHARS: Final = 160
_NAME_TEXT_CHARS: Final = 60


class FailureSelector(BaseModel):
    """Spans where a failure begins. All given conditions must hold; at least one must be given."""

    model_config = ConfigDict(extra="forbid")

    id: Text = ""
    """A failure mode's id. It depends on how halo-mcp masks texts: a check that shall last gives words instead."""
    rule: Text = ""
    """The rule by which it is known to be a failure, such as status_error."""
    span_name: Text = ""
    text: Text = ""
    """Stands in the words of the failure, exactly as written."""
    pattern: Text = ""
    """RE2; matches somewhere in the words of the failure."""

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("give at least one of id, rule, span_name, text, pattern")
        if self.rule and self.rule not in _RULES:
            raise ValueError(f"there is no rule {self.rule!r}; rules are {', '.join(_RULES)}")
        return self


class Evidence(BaseModel):
    """Where the failure was seen when the check was written. For readers; not evaluated."""

    model_config = ConfigDict(extra="forbid")

    trace_id: Text
    span_id: Text = ""
    quote: Text = ""


class Check(BaseModel):
    """``metric`` of the traces that match, ``op`` ``threshold``.

    A trace matches when it meets ``of`` and ``filters`` and, with ``failure_mode``, such a failure begins in it.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Text = ""
    of: TraceFilters = TraceFilters()
    """Among which traces; all of them by default."""
    filters: TraceFilters = TraceFilters()
    failure_mode: FailureSelector | None = None
    metric: Metric = "share_of_traces"
    """Share: matching traces over those of ``of``, 0 to 1. Spans: those where ``failure_mode`` begins."""
    op: Operator = "<="
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    allow_empty: bool = False
    """Without this, a check of no trace at all is an error: it would hold whatever happens."""
    evidence: list[Evidence] = []

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.metric == "spans" and self.failure_mode is None:
            raise ValueError("metric spans counts where a failure begins: give failure_mode")
        if self.metric == "share_of_traces":
            if self.threshold > 1:
                raise ValueError("a share is between 0 and 1: give threshold 0.02 for 2 %")
            if self.failure_mode is None and not self.filters.given():
                raise ValueError("every trace would match: give filters or failure_mode")
        return self


class CheckFile(BaseModel):
    """A file of checks; their names are unique."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    checks: Annotated[list[Check], Field(min_length=1)]

    @model_validator(mode="after")
    def _have_unique_names(self) -> Self:
        names = [check.name for check in self.checks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two checks have one name: {', '.join(twice)}")
        return self

    def to_json(self) -> str:
        """As it is written to a file: indented; of what is as by default only that which says what is compared."""
        checks = [_written(check) for check in self.checks]
        return json.dumps({"version": self.version, "checks": checks}, ensure_ascii=False, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What became of one check on one dataset."""

    check: Check
    status: Status
    value: float | None
    """The metric; None where it could not be had."""
    measured: Measured | None
    reason: str = ""
    """Why there is no verdict, for status error; why there was nothing to measure, for an allowed empty check."""

    @property
    def asks_for_more(self) -> bool:
        """The check is a lower bound: it fails for the traces that do not match."""
        return self.check.op in (">=", ">")

    @property
    def offending(self) -> tuple[Occurrence, ...]:
        """Examples of what broke a failed check, in time order: traces that match, or those that do not match
        where a check asks for more."""
        if self.status != "fail" or self.measured is None:
            return ()
        return self.measured.others if self.asks_for_more else self.measured.examples


def _written(check: Check) -> dict[str, Any]:
    values = check.model_dump(mode="json", exclude_defaults=True) | {"metric": check.metric, "op": check.op}
    return {name: values[name] for name in Check.model_fields if name in values}


def load_checks(path: Path) -> CheckFile:
    """Raises: BadCheckFile."""
    try:
        return CheckFile.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadCheckFile(str(path), _problems(error)) from error


def evaluate(store: SpanStore, checks: Sequence[Check], work: Work, deadline_s: float) -> list[CheckResult]:
    """One result per check, in their order; each check may take ``deadline_s``.

    A check that cannot be evaluated (a bad pattern, out of time, nothing to measure) is a result with status error.
    Raises: Cancelled, SourceError, IndexFailure.
    """
    return [_evaluated(store, check, work.renewed(deadline_s)) for check in checks]


def check_for(store: SpanStore, mode_id: str, max_share: float, of: TraceFilters, work: Work) -> Check:
    """A check that at most ``max_share`` of the traces have this failure mode, with an occurrence as evidence.

    The mode is told by rule, span name and words, with what varies left open; by its id where these do not select as
    many spans. Raises: BadArgument when no span among ``of`` has the mode.
    """
    mode = next((mode for mode in store.failure_modes(of, None, work).modes if mode.id == mode_id), None)
    if mode is None:
        raise BadArgument(
            f"No trace here has a failure mode {mode_id!r}. Take the id from list_failure_modes (halo-mcp failures)."
        )
    text, chosen = mode.text or "", FailureSelector(id=mode_id)
    for varying in _VARYING:
        selector = FailureSelector(rule=mode.rule, span_name=mode.span_name, pattern=_pattern_of(text, varying))
        same = store.measure(of, TraceFilters(), selector, work)
        if (same.traces, same.spans) == (mode.traces, mode.spans):
            chosen = selector
            break
    words = " ".join(text[:_NAME_TEXT_CHARS].split()) or mode.rule
    quote = store.failure_evidence([mode], work)[0].quote
    return Check(
        name=f"{mode.span_name[:_NAME_TEXT_CHARS]}: {words}",
        of=of,
        failure_mode=chosen,
        threshold=max_share,
        evidence=[Evidence(trace_id=mode.trace_id, span_id=mode.span_id, quote=quote.text if quote else "")],
    )


def _pattern_of(text: str, varying: re.Pattern[str]) -> str:
    """RE2 for the beginning of ``text`` with anything in place of what varies."""
    text, pattern, end = text[:_PATTERN_TEXT_CHARS].strip(), "", 0
    for match in varying.finditer(text):
        quote = match[0][0] if "quote" in varying.groupindex and match["quote"] else ""
        pattern += _literal(text[end : match.start()]) + (f"{quote}[^{quote}]*{quote}" if quote else r"\S*")
        end = match.end()
    return pattern + _literal(text[end:])


def _literal(text: str) -> str:
    return re.sub(r"\s{2,}|[^\S ]", r"\\s+", _SPECIAL.sub(r"\\\g<0>", text))


def _evaluated(store: SpanStore, check: Check, work: Work) -> CheckResult:
    try:
        measured = store.measure(check.of, check.filters, check.failure_mode, work)
    except (BadArgument, DeadlineExceeded) as error:
        return CheckResult(check, "error", None, None, str(error))
    if not measured.population:
        among = "no trace meets its filters `of`" if check.of.given() else "the dataset holds no trace"
        return CheckResult(
            check, "pass" if check.allow_empty else "error", None, measured, f"nothing to check: {among}"
        )
    value = {
        "share_of_traces": measured.traces / measured.population,
        "traces": measured.traces,
        "spans": measured.spans,
    }[check.metric]
    return CheckResult(check, "pass" if _HOLDS[check.op](value, check.threshold) else "fail", value, measured)


def _problems(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)
        return "; ".join(": ".join(filter(None, (".".join(map(str, p["loc"])), p["msg"]))) for p in found)
    return why_unusable(error)
