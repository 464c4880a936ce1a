"""The MCP conformance suite against a URL: every check that it made, and those that are expected to fail, with reasons.

The suite's own list of expected failures names whole scenarios; here single checks are named, so that a scenario with
one check that cannot pass still guards the others.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import anyio

from tests import node_packages as npm
from tests.node_packages import NodePackage

PATIENCE_S: Final = 300
EXPLAINED: Final = Path(__file__).with_name("expected_failures.toml")
_RESULT: Final = re.compile(r"server-(?P<scenario>.+?)-\d{4}-\d\d-\d\dT[\d-]+Z")
_PASSED: Final = ("SUCCESS", "INFO")


class Revision(NamedTuple):
    """A protocol version, and the suite's release and options that check it."""

    version: str
    package: NodePackage
    passes: int
    """Checks that pass: so that none disappears unseen."""
    options: tuple[str, ...] = ()


REVISIONS: Final = (
    Revision("2025-11-25", npm.CONFORMANCE, 12),
    Revision("2026-07-28", npm.CONFORMANCE_NEXT, 107, ("--requirements", "2026-07-28")),
)


class Outcome(NamedTuple):
    """What the suite found: checks as "scenario/check"."""

    passed: frozenset[str]
    failed: Mapping[str, str]
    """Those that failed, warned or could not be made, and what was said."""

    def unexplained(self, reasons: Mapping[str, str]) -> dict[str, str]:
        return {check: said for check, said in self.failed.items() if check not in reasons}

    def stale(self, reasons: Mapping[str, str]) -> list[str]:
        """Explained failures that are none: they pass, or are no longer checked."""
        return sorted(check for check in reasons if check not in self.failed)


def explained(revision: Revision) -> dict[str, str]:
    """Why each check that fails does. Every reason is a sentence."""
    reasons: dict[str, str] = {}
    for entry in tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))[revision.version]:
        reason, checks = str(entry["reason"]), list(map(str, entry["checks"]))
        assert reason.endswith("."), f"{checks}: no reason"
        assert not reasons.keys() & checks, f"explained twice: {reasons.keys() & checks}"
        reasons |= dict.fromkeys(checks, reason)
    return reasons


async def outcome_of(revision: Revision, url: str, results: Path) -> Outcome:
    """Run the suite; its reports are left in ``results``."""
    node = await anyio.to_thread.run_sync(npm.here, npm.node)
    suite = await anyio.to_thread.run_sync(npm.here, lambda: npm.installed(revision.package))
    command = [str(node), str(suite), "server", "--url", url, *revision.options, "-o", str(results)]
    with anyio.fail_after(PATIENCE_S):
        run = await anyio.run_process(command, check=False)
    outcome = _read(results)
    assert outcome.passed, run.stderr.decode() + run.stdout.decode()
    return outcome


def _read(results: Path) -> Outcome:
    passed: set[str] = set()
    failed: dict[str, str] = {}
    for report in sorted(results.glob("*/checks.json")):
        found = _RESULT.fullmatch(report.parent.name)
        assert found, report.parent.name
        for check in json.loads(report.read_bytes()):
            name = f"{found['scenario']}/{check['id']}"
            if check["status"] in _PASSED:
                passed.add(name)
            else:
                failed[name] = str(check.get("errorMessage") or check.get("details") or check["status"])
    return Outcome(frozenset(passed) - failed.keys(), failed)
