"""Whether the code that an answer cites is there: places in its findings, each path:line and commit in its text."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.engine.types import CodeEvidence, FinalAnswer, Finding, LedgerItem
from halo_mcp.errors import BadRevision, DeadlineExceeded, GitFailed
from halo_mcp.index.verdicts import Verification
from halo_mcp.tools.budget import preview

if TYPE_CHECKING:
    from halo_mcp.repo.citations import CheckedCitation
    from halo_mcp.repo.tools import Repository

_MAX_CHECKED: Final = 200
_MAX_COMMITS: Final = 20
_MAX_PROBLEMS: Final = 20
_QUOTE_CHARS: Final = 160
_READERS: Final = frozenset(("read_file", "git_read_file", "git_blame"))
_FAILED: Final = frozenset(("missing", "no_line", "no_file", "refused"))
_NO_REPOSITORY: Final = "no repository is open (--repo-path)"
_ELSEWHERE: Final = "If it is no place of this repository, write it without :LINE."


@dataclass(frozen=True, slots=True)
class CheckedCode:
    """The verdicts on the code that an answer cites, as JSON."""

    findings: Sequence[Sequence[Mapping[str, Any]]]
    """By finding, in the order of its ``code``."""
    text: Sequence[Mapping[str, Any]]
    """Of every further path:line in the text."""
    has_repository: bool

    def problems(self) -> list[str]:
        """A line for each place that does not hold; with them, those that had to be corrected."""
        wrong, moved = list[str](), list[str]()
        for number, rows in enumerate(self.findings, 1):
            for place, row in enumerate(rows, 1):
                line = f"claim {number}, code {place}: {code_line(row)}"
                wrong += [line] if row["verdict"] in _FAILED else []
                moved += [line] if row["verdict"] == "moved" else []
        wrong += [f"in the text: {code_line(row)} {_ELSEWHERE}" for row in self.text if row["verdict"] in _FAILED]
        lines = [*wrong, *moved] if wrong else []
        more = len(lines) - _MAX_PROBLEMS
        return [*lines[:_MAX_PROBLEMS], *([f"and {more} more places in the code"] if more > 0 else [])]

    def report(self, checked: Mapping[str, Any]) -> dict[str, Any]:
        """The report on an answer, with these verdicts in it."""
        claims = [{**claim, "code": [*rows]} for claim, rows in zip(checked["claims"], self.findings, strict=True)]
        rows = [*self.text, *(row for rows in self.findings for row in rows)]
        if not rows and not self.has_repository:
            return {**checked, "claims": claims}
        verdicts = [row["verdict"] for row in rows]
        failed = sum(verdict in _FAILED for verdict in verdicts)
        moved, unchecked = verdicts.count("moved"), verdicts.count("unchecked")
        tally = {
            "total": len(rows),
            "verified": len(rows) - moved - failed - unchecked,
            "moved": moved,
            "failed": failed,
            "unchecked": unchecked,
            "text": [*self.text],
        }
        return {**checked, "claims": claims, "citations": {**checked["citations"], "code": tally}}

    def corrected(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings with the places where their quotes stand."""
        return [
            finding.model_copy(update={"code": [_placed(*pair) for pair in zip(finding.code, rows, strict=True)]})
            for finding, rows in zip(findings, self.findings, strict=True)
        ]


def check_code(repository: Repository | None, given: FinalAnswer, items: Sequence[LedgerItem]) -> CheckedCode:
    """Check what an answer cites; ``items``: what tools returned in this run. Places beyond 200 are unchecked."""
    from halo_mcp.repo.citations import CheckedCitation, Citation, check_citations, citations_in

    cited = [
        [Citation(one.path, one.line, max(one.line, one.end_line or 0), one.quote or "") for one in finding.code]
        for finding in given.findings
    ]
    flat = [one for places in cited for one in places]
    if repository is None:
        checked = [CheckedCitation(one, "unchecked", reason=_NO_REPOSITORY) for one in flat]
    else:
        known = {(one.path, one.line, one.end_line) for one in flat}
        prose = "\n".join([given.answer, given.limitations, *(finding.claim for finding in given.findings)])
        flat += [one for one in citations_in(prose) if (one.path, one.line, one.end_line) not in known]
        try:
            checked = check_citations(repository.root, flat[:_MAX_CHECKED])
            why = f"only the first {_MAX_CHECKED} places are checked"
        except DeadlineExceeded as error:
            checked, why = [], str(error)
        checked += [CheckedCitation(one, "unchecked", reason=why) for one in flat[len(checked) :]]
    rows = iter([_json(one, _seen(one, items)) for one in checked])
    return CheckedCode([[next(rows) for _ in places] for places in cited], [*rows], repository is not None)


def _json(checked: CheckedCitation, seen: bool) -> dict[str, Any]:
    cited = checked.cited
    path, line, end_line = (
        (checked.path, checked.line, checked.end_line) if checked.line else (cited.path, cited.line, cited.end_line)
    )
    return {
        "path": path,
        "line": line,
        "end_line": end_line,
        "quote": preview(cited.quote, _QUOTE_CHARS),
        "verdict": checked.verdict,
        "reason": checked.reason,
        **({"nearest": preview(checked.line_text, _QUOTE_CHARS)} if checked.verdict == "missing" else {}),
        **({"cited_path": cited.path, "cited_line": cited.line} if checked.corrected else {}),
        "seen": seen,
    }


def _seen(checked: CheckedCitation, items: Sequence[LedgerItem]) -> bool:
    """Whether a tool has shown something of the file in this run."""
    path = checked.path or checked.cited.path
    for item in items:
        if item.failed:
            continue
        if item.tool in _READERS and posixpath.normpath(str(item.arguments.get("path", ""))) == path:
            return True
        if item.tool == "grep_files" and f'"path": {json.dumps(path, ensure_ascii=False)}' in item.text:
            return True
    return False


def _placed(evidence: CodeEvidence, row: Mapping[str, Any]) -> CodeEvidence:
    if "cited_path" not in row:
        return evidence
    end = row["end_line"] if row["end_line"] > row["line"] else None
    return evidence.model_copy(update={"path": row["path"], "line": row["line"], "end_line": end})


def code_line(row: Mapping[str, Any]) -> str:
    """A cited place and what became of it, on one line."""
    end = row.get("end_line")
    place = f"{preview(row['path'])}:{row['line']}" + (f"-{end}" if end and end > row["line"] else "")
    line = f"{row.get('verdict', 'unchecked').replace('_', ' ')} · {place}"
    if "cited_path" in row:
        line += f" (cited as {preview(row['cited_path'])}:{row['cited_line']})"
    line += f" “{preview(row['quote'], _QUOTE_CHARS)}”" if row.get("quote") else ""
    line += f": {row['reason']}" if row.get("reason") else ""
    line += f" There stands “{row['nearest']}”" if row.get("nearest") else ""
    return line + (" · never read in this run" if row.get("seen") is False else "")


def without_commits(repository: Repository, found: Verification) -> Verification:
    """The verification without the commits among what looked like unknown ids; the first 20 words are looked up."""
    if repository.git is None or not found.unknown_ids:
        return found
    commits = {word for word in found.unknown_ids[:_MAX_COMMITS] if _is_commit(repository, word)}
    return replace(found, unknown_ids=tuple(word for word in found.unknown_ids if word not in commits))


def _is_commit(repository: Repository, word: str) -> bool:
    assert repository.git is not None
    try:
        return repository.git.commit(word).startswith(word.lower())
    except (BadRevision, GitFailed, DeadlineExceeded):
        return False
