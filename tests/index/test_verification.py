"""Evidence against a store: ids, quotes at their spans, counts, ids in prose."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.errors import Cancelled, DeadlineExceeded
from halo_mcp.index.claims import Claim
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import decoded_values
from halo_mcp.index.quotes import MIN_CHARS, Quote, alphanumerics, normalised
from halo_mcp.index.verdicts import EvidenceVerdict, Verification
from halo_mcp.index.verification import MAX_CHECKS, MAX_EVIDENCE, verify
from halo_mcp.index.work import Work
from tests.builders import open_store, span, store_of, trace_ids
from tests.index.conftest import Demo

T1, T2 = "3b97eed48c1621b46068443101ca7702", "3b97eed4aaaaaaaabbbbbbbbccccccc2"
S1, S2, S3 = "ba4deed0dbef454e", "ba4deed0ffffffff", "0c14d52e3f2fb35d"
SAID = "the order A-48664 was refunded twice"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Two traces whose ids begin alike; two spans of the first do too."""
    return store_of(
        tmp_path,
        span(S1, trace=T1, attributes={"output.value": SAID}, start_ms=1),
        span(S2, S1, trace=T1, attributes={"output.value": json.dumps({"note": 'Customer said "never again"'})}),
        span(S3, trace=T2, error="balance too low for this refund"),
    )


def checked(store: LocalStore, *evidence: Mapping[str, Any], answer: str = "", **fields: Any) -> Verification:
    claim = Claim.model_validate({"evidence": evidence, **fields})
    return verify(store, [claim] if evidence or fields else [], answer, Work())


def one(store: LocalStore, trace_id: str = "", span_id: str = "", quote: str = "") -> EvidenceVerdict:
    (verdict,) = checked(store, {"trace_id": trace_id, "span_id": span_id, "quote": quote}).evidence
    return verdict


# --- ids --------------------------------------------------------------------------------------------------------------
def test_ids_without_a_quote_exist_or_do_not(store: LocalStore) -> None:
    assert one(store, T1).verdict == "exists"
    assert one(store, T1, S1).verdict == "exists"
    assert one(store, T1[:-1] + "f").verdict == "unknown_id"
    assert one(store, T1, S1[:-1] + "f").verdict == "unknown_id"
    assert one(store).verdict == "unknown_id"


@pytest.mark.parametrize("given", [T1[:9], T1[:20] + "…", T1[:12] + "...", T1[:12].upper(), f" {T1} "])
def test_a_unique_beginning_of_an_id_is_expanded(store: LocalStore, given: str) -> None:
    verdict = one(store, given, S1[:9] + "…")
    assert (verdict.verdict, verdict.trace_id, verdict.span_id) == ("exists", T1, S1)
    assert verdict.corrected


def test_a_beginning_of_two_ids_is_ambiguous_unless_the_span_decides(store: LocalStore) -> None:
    verdict = one(store, T1[:8])
    assert (verdict.verdict, T1 in verdict.reason, T2 in verdict.reason) == ("ambiguous_id", True, True)
    assert one(store, T1, S1[:8]).verdict == "ambiguous_id"
    assert one(store, T1[:8], S3).trace_id == T2


def test_a_beginning_shorter_than_8_characters_is_no_id(store: LocalStore) -> None:
    assert one(store, T1, S3[:7]).verdict == "unknown_id"
    assert one(store, T2[:7]).verdict == "unknown_id"


def test_a_span_of_another_trace_is_put_right(store: LocalStore) -> None:
    verdict = one(store, T1, S3)
    assert (verdict.verdict, verdict.trace_id, verdict.span_id) == ("moved", T2, S3)
    assert (one(store, "f" * 32, S3).verdict, one(store, S3).trace_id) == ("moved", T2)


def test_a_span_id_alone_leads_to_its_trace(store: LocalStore) -> None:
    verdict = one(store, "", S1, SAID)
    assert (verdict.verdict, verdict.trace_id, verdict.corrected) == ("exact", T1, True)


def test_spans_that_share_an_id_in_several_traces_need_the_trace(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span("root", trace=f"run-{n}", name=f"step number {n}") for n in range(9)))
    assert one(store, "", "root").verdict == "ambiguous_id"
    verdict = one(store, "run-3", "root", "step number 3")
    assert (verdict.verdict, verdict.trace_id) == ("exact", "run-3")
    assert one(store, "run-3", "root", "step number 4").verdict == "missing"
    assert one(store, "run-33", "root").verdict == "unknown_id"


# --- quotes -----------------------------------------------------------------------------------------------------------
def test_a_quote_stands_in_its_span_and_the_path_is_told(store: LocalStore) -> None:
    verdict = one(store, T1, S1, "A-48664 was refunded")
    assert (verdict.verdict, verdict.path, verdict.corrected) == ("exact", "attributes.output.value", False)
    inside = one(store, T1, S2, 'said "never again"')
    assert (inside.verdict, inside.path) == ("exact", "attributes.output.value>note")
    assert one(store, T1, S2, "customer said “never  again”").verdict == "normalised"
    assert one(store, T1, S2, "note: Customer said never again").verdict == "loose"


def test_a_quote_of_another_span_is_moved_and_it_is_told_where(store: LocalStore) -> None:
    verdict = one(store, T1, S2, SAID.upper())
    assert (verdict.verdict, verdict.tier, verdict.span_id, verdict.path) == (
        "moved",
        "normalised",
        S1,
        "attributes.output.value",
    )
    assert S2 in verdict.reason


def test_a_quote_of_another_trace_is_missing(store: LocalStore) -> None:
    verdict = one(store, T2, S3, SAID)
    assert (verdict.verdict, verdict.trace_id, verdict.span_id) == ("missing", T2, S3)


def test_a_missing_quote_is_told_what_stands_there(store: LocalStore) -> None:
    assert one(store, T1, S1, "the order A-48664 was refunded once").nearest == SAID


def test_a_quote_without_a_span_is_sought_in_the_trace(store: LocalStore) -> None:
    verdict = one(store, T1, "", "never again")
    assert (verdict.verdict, verdict.span_id) == ("exact", S2)
    assert one(store, T1, "", "never at all").verdict == "missing"


def test_a_forged_span_with_a_real_quote_is_moved_to_where_the_quote_stands(store: LocalStore) -> None:
    verdict = one(store, T1, "f" * 16, SAID)
    assert (verdict.verdict, verdict.span_id) == ("moved", S1)
    assert "has no span" in verdict.reason


def test_a_quote_found_in_the_right_span_of_a_wrong_trace_is_moved(store: LocalStore) -> None:
    verdict = one(store, T1, S3, "balance too low for this refund")
    assert (verdict.verdict, verdict.tier, verdict.trace_id) == ("moved", "exact", T2)


@pytest.mark.parametrize("quote", ["refund", "…", "12-34-5", "\\n\\n\\n\\n\\n\\n\\n\\n\\n", "<=>=!==<"])
def test_few_letters_prove_nothing(store: LocalStore, quote: str) -> None:
    assert one(store, T1, S1, quote).verdict == "too_short"


def test_the_words_of_a_failure_as_other_tools_tell_them_stand(tmp_path: Path) -> None:
    event = {"name": "exception", "attributes": {"exception.type": "ValueError", "exception.message": "bad city name"}}
    store = store_of(tmp_path, span(events=[event]))
    assert one(store, "t1", "s1", "ValueError: bad city name").verdict == "exact"


def test_keys_and_values_together_can_be_quoted(tmp_path: Path) -> None:
    store = store_of(tmp_path, span(attributes={"arguments": {"city": "Rome", "days": 12}}))
    assert one(store, "t1", "s1", '"city":"Rome","days":12').verdict == "exact"
    assert one(store, "t1", "s1", "city: Rome, days: 12").verdict == "loose"


def test_json_nested_deeply_is_no_problem(tmp_path: Path) -> None:
    deep = b'{"trace_id":"t1","span_id":"s1","name":"deep","attributes":{"a":' + b"[" * 900 + b"]" * 900
    store = store_of(tmp_path, deep + b',"b":"these words are here"}}', span("s2"))
    assert one(store, "t1", "s1", "these words are here").verdict == "exact"
    assert one(store, "t1", "s1", "these words are not here").verdict == "missing"


def test_a_span_of_megabytes_is_read_through(tmp_path: Path) -> None:
    text = "".join(f"line {number}: all is well\n" for number in range(200_000)) + "And then it “broke”\tfor good."
    store = store_of(tmp_path, span(attributes={"output.value": text}), span("s2", "s1"))
    assert one(store, "t1", "s1", 'all is well And then it "broke" for good').verdict == "normalised"
    assert one(store, "t1", "s2", "line 199999 all is well and then").verdict == "moved"
    assert one(store, "t1", "s1", "and then it did not break").verdict == "missing"


# --- any span of the sample -------------------------------------------------------------------------------------------
def _pieces(record: Mapping[str, Any], chance: random.Random) -> list[str]:
    texts = [text for path, text in decoded_values(record) if not path.endswith("_id") and len(text) >= 20]
    return [
        text[(start := chance.randrange(len(text) - 15)) : start + chance.randrange(15, 400)]
        for text in chance.sample(texts, min(len(texts), 4))
    ]


def test_whatever_is_cut_from_a_span_stands_there_and_with_another_word_it_does_not(demos: dict[str, Demo]) -> None:
    demo, chance = demos["before"], random.Random(4)
    true, forged = list[dict[str, str]](), list[dict[str, str]]()
    for line in chance.sample(demo.lines, 60):
        record = json.loads(line)
        for quote in _pieces(record, chance):
            words = quote.split(" ")
            words[chance.randrange(len(words))] = "Xqzvorged"
            place = {"trace_id": record["trace_id"], "span_id": record["span_id"]}
            if Quote(quote).alphanumeric_count >= MIN_CHARS:
                true.append({**place, "quote": quote})
                true.append({**place, "quote": quote.replace(" ", "\n ").replace('"', "”")})
                forged.append({**place, "quote": " ".join(words)})
    for evidence, allowed in ((true, {"exact", "normalised", "loose"}), (forged, {"missing", "too_short"})):
        for start in range(0, len(evidence), 100):
            for verdict in checked(demo.store, *evidence[start : start + 100]).evidence:
                assert verdict.verdict in allowed, verdict


def test_the_quotes_of_the_truth_stand_where_it_says(demos: dict[str, Demo]) -> None:
    demo = demos["before"]
    quotes = [mode.quote for mode in demo.runs[0].failure_modes.values() if mode.quote]
    places = [{"trace_id": quote.trace_id, "span_id": quote.span_id, "quote": quote.text} for quote in quotes]
    assert {verdict.verdict for verdict in checked(demo.store, *places).evidence} <= {"exact", "normalised"}


SAMPLES = sorted((Path(__file__).parents[3] / "shared" / "data" / "halo").glob("*.jsonl"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_whatever_is_cut_from_a_real_span_stands_there(tmp_path: Path, path: Path) -> None:
    chance, evidence = random.Random(5), list[dict[str, str]]()
    lines = path.read_bytes().splitlines()
    for line in chance.sample(lines, min(len(lines), 40)):
        record = json.loads(line)
        for quote in _pieces(record, chance):
            if len(alphanumerics(normalised(quote))) >= MIN_CHARS:
                evidence.append({"trace_id": record["trace_id"], "span_id": record["span_id"], "quote": quote})
    found = checked(open_store(tmp_path, path), *evidence[:MAX_EVIDENCE])
    assert {verdict.verdict for verdict in found.evidence} <= {"exact", "normalised", "loose"}


# --- counts -----------------------------------------------------------------------------------------------------------
def test_counts_are_taken_again(demos: dict[str, Demo]) -> None:
    demo = demos["before"]
    truth = demo.runs[0]
    hard = next(mode for mode in truth.failure_modes.values() if mode.status == "ERROR" and mode.spans)
    mode = next(
        mode
        for mode in demo.store.failure_modes(TraceFilters(), None, Work()).modes
        if (mode.span_name, mode.spans) == (hard.span_name, hard.spans)
    )
    outcomes = {"pass": truth.pass_traces, "fail": truth.fail_traces}
    for check, expected in (
        ({"filters": {"outcome": ["fail"]}}, truth.fail_traces),
        ({"failure_mode": mode.id}, hard.traces),
        ({"failure_mode": {"span_name": hard.span_name}, "metric": "spans"}, hard.spans),
        ({"group_by": "outcome"}, outcomes),
    ):
        wrong = 1 + expected if isinstance(expected, int) else {**expected, "fail": 0}
        (holds,) = checked(demo.store, check={**check, "expected": expected}).checks
        assert (holds.verdict, holds.actual) == ("holds", expected)
        found = checked(demo.store, check={**check, "expected_count": wrong})
        assert (found.checks[0].verdict, found.checks[0].actual, found.failed) == ("wrong", expected, True)


def test_a_count_that_cannot_be_taken_is_unchecked_and_says_why(store: LocalStore) -> None:
    (check,) = checked(store, check={"filters": {"regex_pattern": "(?=x)"}, "expected": 1}).checks
    assert (check.verdict, check.actual) == ("unchecked", None)
    assert "look-ahead" in check.reason


@pytest.mark.parametrize(
    "check",
    [
        {"filters": {"outcom": ["fail"]}, "expected": 1},
        {"expected": 1, "metric": "spans"},
        {"expected": {"a": 1}},
        {"expected": 1, "group_by": "outcome"},
        {"filters": {}},
    ],
)
def test_a_count_that_makes_no_sense_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"check"):
        Claim.model_validate({"check": check})


# --- ids in prose -----------------------------------------------------------------------------------------------------
def test_ids_in_prose_must_exist(store: LocalStore) -> None:
    said = (
        f"Trace {T1} (see `{S1[:12]}…`) failed as {T2[:30]}ff did; at 1772442000000000000 ns, deadbeefcafe, span:{S3}."
    )
    found = checked(store, answer=said)
    assert (found.unknown_ids, found.ids_in_text, found.failed) == ((f"{T2[:30]}ff",), 4, True)


def test_ids_in_the_words_of_a_claim_count_too(store: LocalStore) -> None:
    forged = "00112233445566778899aabbccddeeff"
    assert checked(store, {"trace_id": T1}, claim=f"{forged} is bad").unknown_ids == (forged,)


def test_words_of_a_quote_that_stands_are_no_forged_ids(tmp_path: Path) -> None:
    store = store_of(tmp_path, span(attributes={"output.value": "commit 9f86d081884c7d65 is not signed"}))
    evidence = {"trace_id": "t1", "span_id": "s1", "quote": "commit 9f86d081884c7d65 is not signed"}
    assert checked(store, evidence, answer="Commit 9f86d081884c7d65 was refused.").unknown_ids == ()
    assert checked(store, answer="Commit 9f86d081884c7d65 was refused.").unknown_ids == ("9f86d081884c7d65",)


def test_other_ids_that_the_tools_print_are_known(demos: dict[str, Demo]) -> None:
    demo = demos["before"]
    mode = demo.store.failure_modes(TraceFilters(), None, Work()).modes[0]
    trace = demo.store.trace(trace_ids(demo.store)[0])
    said = f"Mode {mode.id} in session {trace.session_id} of task {trace.task_key}"
    assert checked(demo.store, answer=said).unknown_ids == ()


@pytest.mark.parametrize(
    "known, forged, innocent",
    [
        ("django__django-10880", "django__django-10881", "django 10881"),
        ("task-7-trial-0", "task-7-trial-9", "task 7"),
        ("call_Xa81bQ09zz", "call_Xa81bQ09zy", "call_me_maybe"),
        ("0a1b2c3d-4e5f-4061-8071-2a3b4c5d6e7f", "0a1b2c3d-4e5f-4061-8071-2a3b4c5d6e70", "well-known-half-truth"),
        ("root.1", "root.2", "root 2"),
    ],
)
def test_ids_of_any_shape_are_known_in_prose(tmp_path: Path, known: str, forged: str, innocent: str) -> None:
    store = store_of(tmp_path, span("a", trace=known), span("b", trace="other"))
    assert checked(store, answer=f"In {known}, not in {innocent}: 12 of 345 (6.7 %).").unknown_ids == ()
    assert checked(store, answer=f"In {forged}, not in {innocent}.").unknown_ids == (forged,)
    assert one(store, known, "a").verdict == "exists"


def test_short_ids_such_as_s1_make_no_ids_of_words(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s1", trace="42"), span("root", trace="43"))
    assert checked(store, answer="In 44 of 45 runs S3 and s9 failed at the root.").ids_in_text == 0


# --- what was read ----------------------------------------------------------------------------------------------------
def test_evidence_that_was_never_read_is_marked(store: LocalStore) -> None:
    claim = Claim.model_validate({"evidence": [{"trace_id": T1, "span_id": s, "quote": SAID} for s in (S1, S2)]})
    other = Claim.model_validate({"evidence": [{"trace_id": T2}, {"trace_id": "nosuch"}]})
    found = verify(store, [claim, other], "", Work(), seen={(T1, S1)})
    assert [verdict.seen for verdict in found.evidence] == [True, True, False, None]  # the second stands in S1
    assert not verify(store, [claim], "", Work(), seen=()).failed
    assert {verdict.seen for verdict in verify(store, [claim], "", Work()).evidence} == {None}


# --- limits -----------------------------------------------------------------------------------------------------------
class Spent(Work):
    """Work that is out of time after so many checks."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    @property
    def expired(self) -> bool:
        return self.left <= 0

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise DeadlineExceeded(1.0)


def test_out_of_time_is_reported_and_what_was_found_stays(tmp_path: Path) -> None:
    store = store_of(
        tmp_path, *(span(f"s{n}", attributes={"output.value": f"words number {n} here"}) for n in range(500))
    )
    evidence = [
        {"trace_id": "t1", "span_id": "s3", "quote": "words number 3 here"},
        {"trace_id": "t1", "span_id": "s3", "quote": "no such words in it"},
        {"trace_id": "t1", "quote": "words number 499 here"},
    ]
    found = verify(store, [Claim.model_validate({"evidence": evidence})], "", Spent(50))
    assert [verdict.verdict for verdict in found.evidence] == ["exact", "missing", "unchecked"]
    assert "rest of its trace was not searched" in found.evidence[1].reason
    assert "over while looking for quotes" in found.limits[0]


def test_without_any_time_all_is_unchecked_and_nothing_raised(store: LocalStore) -> None:
    claim = Claim.model_validate({"evidence": [{"trace_id": T1, "quote": SAID}], "check": {"expected": 2}})
    found = verify(store, [claim], T1, Work(deadline_s=0))
    assert (found.evidence[0].verdict, found.checks[0].verdict, found.failed) == ("unchecked", "unchecked", False)
    assert found.undecided
    assert found.limits


def test_a_caller_that_went_away_ends_it(store: LocalStore) -> None:
    work = Work()
    work.stop()
    with pytest.raises(Cancelled):
        verify(store, [Claim.model_validate({"evidence": [{"trace_id": T1, "quote": SAID}]})], "", work)


def test_only_cited_spans_are_read_when_the_quotes_stand_there(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = LocalStore.payloads

    def payloads(self: LocalStore, trace_id: str, span_ids: Any = ()) -> Any:
        read.append(trace_id)
        return real(self, trace_id, span_ids)

    monkeypatch.setattr(LocalStore, "payloads", payloads)
    monkeypatch.setattr(LocalStore, "records", None)  # the whole trace
    assert one(store, T1, S1, SAID).verdict == "exact"
    assert read == [T1]


def test_a_flood_of_claims_and_giant_quotes_is_bounded(store: LocalStore) -> None:
    claim = {"evidence": [{"trace_id": T1, "span_id": S1, "quote": SAID}], "check": {"expected": 2}}
    flood = [Claim.model_validate(claim) for _ in range(10_000)]
    found = verify(store, flood, "id " * 1_000_000, Work())
    verdicts = [verdict.verdict for verdict in found.evidence]
    assert (verdicts.count("exact"), verdicts.count("unchecked")) == (MAX_EVIDENCE, 10_000 - MAX_EVIDENCE)
    assert sum(check.verdict == "holds" for check in found.checks) == MAX_CHECKS
    assert "first 200,000 characters" in found.limits[0]
    giant = one(store, T1, S1, SAID * 30_000)
    assert (giant.verdict, "telling words" in giant.reason) == ("too_long", True)
    assert one(store, "f" * 1_000_000, "f" * 1_000_000).verdict == "unknown_id"


@pytest.mark.parametrize("text", ["\x00" * 20, "'; DROP TABLE spans", "%_%_%_%_%", "../../etc/passwd", "\u202e" * 9])
def test_hostile_ids_and_quotes_are_only_not_there(store: LocalStore, text: str) -> None:
    assert one(store, text, text, text).verdict == "unknown_id"
    assert one(store, T1, S1, text).verdict in ("missing", "too_short")
    assert checked(store, answer=text).unknown_ids == ()
