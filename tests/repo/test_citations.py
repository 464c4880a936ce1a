"""Citations of code are checked against the files."""

from __future__ import annotations

import pytest

from halo_mcp.repo.citations import CheckedCitation, Citation, check_citations, citations_in
from halo_mcp.repo.root import Root
from tests.repo.conftest import Work

CODE = """\
def run(limit):
    retries = 3  # “enough”

    for attempt in range(retries):
        send(attempt, limit)
    return None
"""


def check(work: Work, path: str, line: int, quote: str = "", end_line: int | None = None) -> CheckedCitation:
    work.write("src/app.py", CODE)
    return check_citations(Root(work.path), [Citation(path, line, end_line or line, quote)])[0]


@pytest.mark.parametrize(
    "line,quote,verdict,found",
    [
        (2, "", "exists", 2),
        (2, "retries = 3", "exact", 2),
        (2, '    retries = 3 # "enough"', "normalised", 2),
        (5, "send( attempt,limit )", "loose", 5),
        (4, "4\t    for attempt in range(retries):\n5\t        send(attempt, limit)", "exact", 4),
        (4, "for attempt in range(retries): send(attempt, limit)", "normalised", 4),
        (1, "def run(limit): ... for attempt in", "normalised", 1),
        (2, "send(attempt, limit)", "moved", 5),
        (99, "send(attempt, limit)", "moved", 5),
        (2, "retries = 30 times", "missing", 2),
        (7, "", "no_line", 0),
        (0, "", "no_line", 0),
        (1, "limit", "exact", 1),
        (2, "None", "missing", 2),
    ],
)
def test_a_citation_gets_a_verdict(work: Work, line: int, quote: str, verdict: str, found: int) -> None:
    checked = check(work, "src/app.py", line, quote)
    assert (checked.verdict, checked.line) == (verdict, found)


def test_the_line_that_is_cited_comes_back(work: Work) -> None:
    checked = check(work, "src/app.py", 1, "send(attempt, limit)")
    assert checked.line_text == "        send(attempt, limit)"
    assert checked.corrected
    assert checked.reason == "The text stands on line 5."


@pytest.mark.parametrize("path", ["app.py", "/app/src/app.py", "./src/app.py", "b/src/app.py"])
def test_a_path_that_means_one_file_is_corrected(work: Work, path: str) -> None:
    checked = check(work, path, 1)
    assert (checked.verdict, checked.path) == ("exists", "src/app.py")


def test_what_cannot_be_checked_says_why(work: Work) -> None:
    work.write("lib/app.py", "x\n")
    work.write("a.bin", b"\0")
    (work.path.parent / "secret.py").write_text("x\n")
    assert check(work, "app.py", 1).verdict == "no_file"
    assert "lib/app.py, src/app.py" in check(work, "app.py", 1).reason
    assert check(work, "gone.py", 1).verdict == "no_file"
    assert check(work, "../secret.py", 1).verdict == "no_file"
    assert check(work, "a.bin", 1).verdict == "refused"
    assert check(work, "src", 1).verdict == "refused"


def test_citations_are_found_in_prose() -> None:
    prose = (
        "At 12:30 `src/app.py:12` fails (see ./a/b.test.ts:3-9, Makefile:3 and /app/q.py:L4). "
        "Not http://a.com:80/x.py:3, 127.0.0.1:8080, localhost:80 or src/app.py. Again src/app.py:12."
    )
    assert citations_in(prose) == [
        Citation("src/app.py", 12, 12),
        Citation("a/b.test.ts", 3, 9),
        Citation("Makefile", 3, 3),
        Citation("/app/q.py", 4, 4),
    ]
