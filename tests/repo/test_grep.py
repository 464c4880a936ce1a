"""Search: RE2 decides, ripgrep only helps."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mcp.errors import InvalidPattern
from halo_mcp.repo.grep import grep, widened
from halo_mcp.repo.root import Root
from tests.repo.conftest import Work

needs_ripgrep = pytest.mark.skipif(shutil.which("rg") is None, reason="ripgrep is not installed")


def found(work: Work, pattern: str) -> list[tuple[str, int]]:
    matches = work.call("grep_files", regex_pattern=pattern)["matches"]
    return [(match["path"], match["line_number"]) for match in matches]


def test_lines_come_in_the_order_of_paths_and_say_when_there_is_more(work: Work) -> None:
    work.write("b.py", "raise Timeout\nok\nraise Timeout\n")
    work.write("a/c.py", "raise Timeout\r\n")
    assert found(work, "^raise \\w+$") == [("a/c.py", 1), ("b.py", 1), ("b.py", 3)]
    first = work.call("grep_files", regex_pattern="raise", max_matches=2, glob_pattern="*.py")
    assert (first["returned_count"], first["has_more"]) == (2, True)
    assert first["matches"][0] == {"path": "a/c.py", "line_number": 1, "line_text": "raise Timeout"}
    assert not work.call("grep_files", regex_pattern="raise", max_matches=3)["has_more"]


def test_a_long_line_is_shown_around_its_match(work: Work) -> None:
    work.write("min.js", "x" * 10_000 + "needle" + "y" * 10_000)
    (match,) = work.call("grep_files", regex_pattern="needle")["matches"]
    assert "needle" in match["line_text"]
    assert len(match["line_text"]) < 550


def test_binary_ignored_and_large_files_are_not_searched(work: Work) -> None:
    work.write("a.bin", b"\0needle")
    work.write(".gitignore", "b.txt\n")
    work.write("b.txt", "needle")
    with open(work.path / "c.txt", "wb") as file:
        file.write(b"needle\n")
        file.truncate((10 << 20) + 1)
    result = work.call("grep_files", regex_pattern="needle")
    assert result == {"matches": [], "returned_count": 0, "has_more": False, "skipped_large_files": 1}


def test_patterns_that_backtrack_elsewhere_end_here_and_others_are_refused(work: Work) -> None:
    work.write("a.txt", "a" * 50_000 + "!")
    assert found(work, "(a+)+$") == []
    for pattern in ("(", "a(?=b)"):
        with pytest.raises(InvalidPattern):
            work.call("grep_files", regex_pattern=pattern)


PIECES = st.sampled_from(
    [
        *(
            "a",
            "é",
            "K",
            "foo",
            ".",
            ".*",
            "^",
            "$",
            r"\b",
            r"\w+",
            r"\W",
            r"\d",
            r"\s*",
            "[ab]",
            "[^a]",
            "(?i)",
            "(?i:k)",
        ),
        *("|", "(a|b)", r"\.", r"\\", " ", "x?", "[0-9]+", r"\D", "{2}", r"\x41", r"\pL", "]", "/", '"'),
    ]
)
CONTENT = rb"ab .\x41foo Foo 12\xc3\xa9\xe2\x84\xaaK" + b'\xe9 \xff\r\n a\xc2\xa0b \x0b\x0c\xe2\x80\xa8 ]/"\\.{}'


@needs_ripgrep
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=st.lists(PIECES, min_size=1, max_size=5).map("".join), data=st.data())
def test_with_and_without_ripgrep_the_lines_are_the_same(work: Work, pattern: str, data: st.DataObject) -> None:
    for name in ("a", "b", "-c"):
        indices = data.draw(st.lists(st.integers(0, len(CONTENT) - 1), max_size=12))
        work.write(name, (b"\xef\xbb\xbf" if name == "b" else b"") + bytes(CONTENT[index] for index in indices))
    work.write("d", CONTENT + b"\nab\nfoo\r\nFoo k\n")
    try:
        ours = grep(Root(work.path), pattern, None, 500, ripgrep="")
    except InvalidPattern:
        return
    assert grep(Root(work.path), pattern, None, 500) == ours


@pytest.mark.parametrize("pattern", ["retry", "^def (run|stop)", r"\bclass \w+", "(?i)timeout", r"max_turns\s*=\s*\d+"])
def test_the_usual_patterns_are_given_to_ripgrep(pattern: str) -> None:
    assert widened(pattern) is not None


def test_a_ripgrep_that_fails_changes_nothing(work: Work) -> None:
    work.write("a", "needle")
    script = work.write("../rg", "#!/bin/sh\nexit 2\n")
    script.chmod(0o755)
    assert grep(Root(work.path), "needle", None, 5, ripgrep=str(script)).returned_count == 1
