"""verify_evidence: what a client reads, and what a model is told whose evidence does not stand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from halo_mcp.engine.types import LedgerItem
from halo_mcp.errors import BadArgument
from halo_mcp.index.claims import Claim
from halo_mcp.index.verification import MAX_EVIDENCE, verify
from halo_mcp.index.work import Work
from halo_mcp.tools.agent_tools import Seen
from halo_mcp.tools.budget import DEFAULT_CHARS, REJECTION_CHARS
from halo_mcp.tools.evidence import EXISTENCE, rejection
from tests.tools.conftest import Demo
from tests.tools.desk import calls_in, serving


def quoted(demo: Demo, **changes: str) -> dict[str, str]:
    """A quote that stands in the sample dataset."""
    quote = next(mode.quote for mode in demo.truth.before.failure_modes.values() if mode.quote)
    return {"trace_id": quote.trace_id, "span_id": quote.span_id, "quote": quote.text} | changes


def rejected(demo: Demo, *claims: dict[str, Any], answer: str = "") -> str:
    _, store = demo.desk.datasets.get("before")
    return rejection(verify(store, [Claim.model_validate(claim) for claim in claims], answer, Work()))


def test_evidence_that_stands_is_told_in_a_line_each(demo: Demo) -> None:
    place = quoted(demo)
    text = demo.desk.text("verify_evidence", claims=[{"claim": "It fails.", "evidence": [place]}])
    assert text.splitlines()[0] == "dataset before: 1 citation: 1 exact"
    assert f"   exact · trace {place['trace_id']} span {place['span_id']} " in text
    assert EXISTENCE in text
    assert calls_in(text) == []


def test_the_next_call_reads_the_span_where_a_quote_really_stands(demo: Demo) -> None:
    place = quoted(demo)
    _, store = demo.desk.datasets.get("before")
    other = next(row.span_id for row in store.spans(place["trace_id"]) if row.span_id != place["span_id"])
    text = demo.desk.text("verify_evidence", claims=[{"evidence": [{**place, "span_id": other}]}])
    assert "1 moved" in text
    (call,) = calls_in(text)
    assert call.arguments == {"trace_id": place["trace_id"], "span_ids": [place["span_id"]]}
    assert place["quote"][:40] in demo.desk.follow(call).text


def test_what_is_missing_is_shown_beside_what_stands_there(demo: Demo) -> None:
    place = quoted(demo)
    forged = place["quote"].rsplit(" ", 1)[0] + " forgery"
    text = demo.desk.text("verify_evidence", claims=[{"evidence": [{**place, "quote": forged}]}])
    assert "1 missing" in text
    assert forged[:100] in text
    assert f"stands there: “{place['quote'][:100]}" in text


def test_json_has_the_same_facts_with_ids_corrected(demo: Demo) -> None:
    place = quoted(demo)
    claims = [
        {"claim": "a", "severity": "high", "evidence": [{**place, "trace_id": place["trace_id"][:10]}]},
        {"claim": "b", "check": {"filters": {"outcome": ["fail"]}, "expected": 1}},
        {"claim": "c", "evidence": [{"trace_id": "0123456789abcdef"}], "counterexample": place},
    ]
    data = demo.desk.data("verify_evidence", claims=claims, answer="See 0123456789abcdef.")
    first = data["claims"][0]["evidence"][0]
    assert (first["trace_id"], first["cited_trace_id"]) == (place["trace_id"], place["trace_id"][:10])
    assert data["claims"][1]["check"] == {
        "verdict": "wrong",
        "expected": 1,
        "actual": demo.truth.before.fail_traces,
    }
    assert data["claims"][2]["counterexample"]["verdict"] == "exact"
    assert data["citations"] == {
        "total": 3,
        "verified": 2,
        "moved": 0,
        "failed": 1,
        "by_verdict": {"exact": 2, "unknown_id": 1},
    }
    assert (data["unknown_ids"], data["failed"]) == (["0123456789abcdef"], True)
    assert [claim["supported"] for claim in data["claims"]] == [True, True, True]


def test_another_dataset_is_named_in_the_next_call(demo: Demo) -> None:
    place = quoted(demo)
    text = demo.desk.ask(
        "verify_evidence", dataset="both", claims=[{"evidence": [{**place, "quote": "never said"}]}]
    ).text
    assert all(call.arguments["dataset"] == "both" for call in calls_in(text))
    assert calls_in(text)


def test_a_claim_without_evidence_is_called_that(demo: Demo) -> None:
    assert "no evidence given" in demo.desk.text("verify_evidence", claims=[{"claim": "All is lost."}])


def test_many_claims_fit_into_an_answer_that_says_what_is_left(demo: Demo) -> None:
    claims = [{"claim": f"claim number {n} " + "x" * 500, "evidence": [quoted(demo)]} for n in range(MAX_EVIDENCE)]
    text = demo.desk.text("verify_evidence", claims=claims)
    assert len(text) <= DEFAULT_CHARS
    assert "further claims not shown" in text


@pytest.mark.parametrize(
    "claims, complaint",
    [
        ([{"evidence": [{"trace_id": "t"}] * 50}] * 7, "at most 300"),
        ([{"evidence": [dict[str, str]()] * 10_000}], "at most 300"),
        ([], "Nothing to verify"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_a_sentence(demo: Demo, claims: Any, complaint: str) -> None:
    with pytest.raises(BadArgument, match=complaint):
        demo.desk.text("verify_evidence", claims=claims)


@pytest.mark.parametrize(
    "claims",
    [
        [dict[str, str]()] * 10_000,
        ["words"],
        [{"evidence": "words"}],
        [{"check": {"expected": "many"}}],
        [{"check": {"filters": {"nosuch": 1}, "expected": 1}}],
        [{"evidence": [{"trace_id": "\ud800"}]}],
    ],
)
def test_hostile_claims_are_refused_before_anything_is_read(demo: Demo, claims: Any) -> None:
    with pytest.raises(ValidationError):
        demo.desk.text("verify_evidence", claims=claims)


async def test_claims_may_come_as_json_text_through_mcp(demo: Demo) -> None:
    place = quoted(demo)
    directory = demo.desk.datasets.settings.index_dir.parent
    async with serving(directory / "mcp", {"before": [directory / "before.jsonl"]}) as caller:
        assert "1 exact" in await caller.text("verify_evidence", claims=json.dumps([{"evidence": [place]}]))
        deep = json.loads("[" * 150 + "]" * 150)
        assert (await caller.json("verify_evidence", claims=[{"x": deep}], answer="0123456789abcdef"))["failed"]
        assert "at most 300" in await caller.error("verify_evidence", claims=[{}] * 301)


async def test_its_entry_in_the_tool_list_is_small_and_says_what_it_does_not_prove(demo: Demo) -> None:
    directory = demo.desk.datasets.settings.index_dir.parent
    async with serving(directory / "mcp2", {"before": [directory / "before.jsonl"]}) as caller:
        (tool,) = [tool for tool in (await caller.client.list_tools()).tools if tool.name == "verify_evidence"]
    entry = json.dumps(tool.model_dump(mode="json", by_alias=True, exclude_none=True), separators=(",", ":"))
    assert len(entry) <= 900
    assert "not whether they support" in (tool.description or "")


# --- for a model whose answer does not stand --------------------------------------------------------------------------
def test_nothing_is_rejected_when_all_stands_or_can_be_put_right(demo: Demo) -> None:
    place = quoted(demo)
    claim = {"evidence": [place, {**place, "trace_id": place["trace_id"][:9]}, {**place, "span_id": "f" * 24}]}
    assert rejected(demo, claim, answer=f"See {place['trace_id']}.") == ""


def test_a_rejection_names_each_piece_why_it_fails_and_what_is_there_instead(demo: Demo) -> None:
    place = quoted(demo)
    forged = {**place, "quote": place["quote"].rsplit(" ", 1)[0] + " forgery"}
    text = rejected(
        demo,
        {"evidence": [place, forged, {**place, "span_id": "f" * 24}, {**place, "quote": "few"}]},
        {"check": {"expected": 7}},
        answer="As 0123456789abcdef shows.",
    )
    head, *lines = text.splitlines()
    assert "Fix or drop" in head
    assert [line.split(":")[0] for line in lines] == [
        "- claim 1, evidence 2",
        "- claim 1, evidence 4",
        "- claim 1, evidence 3",
        "- claim 2",
        "- ids in the text that this dataset does not have",
    ]
    assert f"stands there: “{place['quote'][:60]}" in lines[0]
    assert "too short" in lines[1]
    assert f"span {place['span_id']}" in lines[2]
    assert lines[3].endswith(f"expected 7, is {demo.truth.before.traces}")


def test_a_long_rejection_is_cut_and_says_so(demo: Demo) -> None:
    place = quoted(demo, quote="words that nobody has ever said " * 9)
    text = rejected(demo, {"evidence": [place] * 50}, {"evidence": [place] * 50})
    assert len(text) <= REJECTION_CHARS
    assert text.splitlines()[-1].endswith(" more")


@pytest.mark.parametrize(
    "place, seen",
    [(("t1", "s2"), True), (("t1", ""), True), (("t2", "s2"), False), (("t1", "s"), False), (("t1", "s9"), False)],
)
def test_a_place_was_seen_when_one_result_names_both_its_ids(place: tuple[str, str], seen: bool) -> None:
    shown = LedgerItem("r1", "root", "view_trace", {}, "trace t1 span s2 failed")
    failed = LedgerItem("r2", "root", "view_trace", {}, "error: no trace t2 with span s9", failed=True)
    words = LedgerItem("r3", "root", "call_subagent", {}, "a subagent says t2 s2")
    assert (place in Seen([shown, failed, words])) is seen
