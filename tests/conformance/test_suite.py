"""The MCP conformance suite finds nothing in our server that is not explained, and nothing explained is stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.packages import flagged
from tests.conformance.suite import PATIENCE_S, REVISIONS, Outcome, Revision, explained, outcome_of
from tests.server.asking import traces
from tests.server.over_http import serving_http


@flagged
@pytest.mark.parametrize("revision", REVISIONS, ids=[revision.version for revision in REVISIONS])
async def test_every_check_of_the_suite_passes_or_has_a_reason_not_to(tmp_path: Path, revision: Revision) -> None:
    reasons = explained(revision)
    async with serving_http(tmp_path, str(traces(tmp_path)), patience_s=PATIENCE_S) as server:
        outcome = await outcome_of(revision, server.url, tmp_path / "results")
    assert outcome.unexplained(reasons) == {}
    assert outcome.stale(reasons) == []
    assert len(outcome.passed) == revision.passes


def test_a_failure_without_a_reason_and_a_reason_without_a_failure_are_both_told() -> None:
    outcome = Outcome(frozenset({"ping/ping"}), {"tools-list/tools-list": "no tools", "caching/hints": "none"})
    reasons = {"caching/hints": "There are none.", "ping/ping": "It was broken.", "gone/gone": "It was there once."}
    assert outcome.unexplained(reasons) == {"tools-list/tools-list": "no tools"}
    assert outcome.stale(reasons) == ["gone/gone", "ping/ping"]
