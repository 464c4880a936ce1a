"""Tree, glob and read: what is shown, what is not, and where they stop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from halo_mcp.errors import BadArgument, BadRepoPath, InvalidPattern
from halo_mcp.repo.tools import open_repository
from tests.repo.conftest import Work


def paths(work: Work, pattern: str = "**/*") -> list[str]:
    return [file["path"] for file in work.call("glob_files", pattern=pattern)["files"]]


def test_the_tree_shows_four_levels_and_says_when_there_is_more(work: Work) -> None:
    work.write("a/b/c/d.py", "x")
    work.write("z.txt", "x")
    assert work.call("view_repo_tree") == {
        "root": "work",
        "tree": "a/\n  b/\n    c/\n      d.py\nz.txt",
        "entry_count": 5,
        "has_more": False,
    }
    work.write("a/b/c/e/f.py", "x")
    assert work.call("view_repo_tree")["tree"] == "a/\n  b/\n    c/\n      d.py\n      e/\nz.txt"
    assert work.call("view_repo_tree")["has_more"]


def test_a_large_tree_keeps_its_upper_levels(work: Work) -> None:
    for number in range(600):
        work.write(f"a/{number}.py", "")
    work.write("z/last.py", "")
    tree = work.call("view_repo_tree")
    assert (tree["entry_count"], tree["has_more"]) == (500, True)
    assert "\nz/" in tree["tree"]


@pytest.mark.parametrize(
    "pattern,expected",
    [
        ("*.py", ["app.py", "src/a.py", "src/deep/b.py"]),
        ("src/*.py", ["src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/b.py"]),
        ("/*.py", ["app.py"]),
        ("**/deep/**", ["src/deep/b.py", "src/deep/c.ts"]),
        ("{app,b}.py", ["app.py", "src/deep/b.py"]),
        ("*.{ts,md}", ["src/deep/c.ts"]),
        ("[ab].p?", ["src/a.py", "src/deep/b.py"]),
        ("[!a].py", ["src/deep/b.py"]),
        ("nothing", []),
    ],
)
def test_globs_name_files(work: Work, pattern: str, expected: list[str]) -> None:
    for name in ("app.py", "src/a.py", "src/deep/b.py", "src/deep/c.ts"):
        work.write(name, "x")
    assert paths(work, pattern) == expected


def test_a_glob_says_when_there_is_more(work: Work) -> None:
    for name in "abc":
        work.write(name, name)
    assert work.call("glob_files", pattern="*", max_results=2) == {
        "files": [{"path": "a", "size_bytes": 1}, {"path": "b", "size_bytes": 1}],
        "returned_count": 2,
        "has_more": True,
    }
    assert not work.call("glob_files", pattern="*", max_results=3)["has_more"]


@pytest.mark.parametrize("pattern", ["/", "{a,b}" * 7, "[z-a]"])
def test_a_glob_that_cannot_be_used_is_refused(work: Work, pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        work.call("glob_files", pattern=pattern)


def test_gitignore_files_are_honoured_as_git_does(git_work: Work) -> None:
    rules = "*.log\n!keep.log\n/build/\nsecret*\n**/gen/*.c\ndoc/**/tmp\n\\#odd\n[x-z].txt\ntrail  \nonly/\n*\\ x\n"
    git_work.write(".gitignore", "# comment\n\n" + rules)
    git_work.write("sub/.gitignore", "!a.log\n*.py\n")
    names = [
        "a.log",
        "keep.log",
        "build/x",
        "src/build/x",
        "secret.env",
        "sub/secret/y",
        "gen/a.c",
        "src/gen/a.c",
        "gen/deep/a.c",
        "doc/tmp",
        "doc/q/tmp/z",
        "#odd",
        "x.txt",
        "w.txt",
        "trail",
        "only",
        "src/only/x",
        "sub/a.log",
        "sub/b.log",
        "sub/c.py",
        "c.py",
        ".env",
    ]
    for name in (*names, "q x"):
        git_work.write(name, "x")
    listed = git_work.git("ls-files", "--others", "--exclude-standard").splitlines()
    assert paths(git_work) == sorted(listed, key=lambda path: path.split("/"))


def test_an_ignored_file_is_not_read(work: Work) -> None:
    work.write(".gitignore", ".env\nprivate/\n")
    work.write(".env", "KEY=1")
    work.write("private/key.pem", "k")
    for path in (".env", "private/key.pem", "./private/../.env"):
        with pytest.raises(BadRepoPath, match=r"a \.gitignore excludes it"):
            work.call("read_file", path=path)


def test_a_gitignore_of_nonsense_excludes_nothing_else(work: Work) -> None:
    work.write(".gitignore", b"[z-a]\n\xff\xfe\n*.log\n" + b"x" * 3_000 + b"\n[unclosed\n")
    work.write("a.log", "")
    work.write("b.txt", "")
    assert paths(work) == [".gitignore", "b.txt"]


def test_lines_are_numbered_and_ranges_go_on(work: Work) -> None:
    work.write("a.py", "one\r\ntwo\x0c\nthree")
    assert work.call("read_file", path="a.py", limit=2) == {
        "content": "1\tone\n2\ttwo\x0c\n",
        "start_line": 1,
        "end_line": 2,
        "total_line_count": 3,
        "truncated": True,
    }
    assert work.call("read_file", path="a.py", offset=3)["content"] == "3\tthree\n"
    assert work.call("read_file", path="a.py", offset=9) == {
        "content": "",
        "start_line": 0,
        "end_line": 0,
        "total_line_count": 3,
        "truncated": False,
    }


def test_long_lines_and_long_answers_are_cut_and_say_so(work: Work) -> None:
    work.write("wide.txt", "x" * 2_500 + "\n")
    assert work.call("read_file", path="wide.txt")["content"].endswith("x[… 500 characters …]\n")
    work.write("long.txt", ("y" * 1_999 + "\n") * 400)
    page = work.call("read_file", path="long.txt")
    assert len(page["content"]) <= 150_000
    assert page["truncated"]
    after = work.call("read_file", path="long.txt", offset=page["end_line"] + 1)
    assert after["start_line"] == page["end_line"] + 1


def test_what_is_no_text_file_is_not_read(work: Work) -> None:
    work.write("image.png", b"\x89PNG\0\0")
    work.write("latin.txt", b"caf\xe9\n")
    work.write("d/x", "")
    os.mkfifo(work.path / "pipe")
    with open(work.path / "huge.txt", "wb") as file:
        file.truncate((10 << 20) + 1)
    refused = {"image.png": "binary", "d": "directory", "pipe": "no regular file", "huge.txt": "10,485,761 bytes"}
    for path, reason in refused.items():
        with pytest.raises(BadRepoPath, match=reason):
            work.call("read_file", path=path)
    assert work.call("read_file", path="latin.txt")["content"] == "1\tcaf\ufffd\n"


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "link", "linked/secret", ".git/config", ".GIT/config", "up"]
)
def test_no_path_leads_out_of_the_root_or_into_git(work: Work, path: str) -> None:
    outside = work.path.parent
    (outside / "secret").write_text("s")
    work.write(".git/config", "[core]")
    work.write(".GIT/config", "[core]")
    (work.path / "link").symlink_to(outside / "secret")
    (work.path / "linked").symlink_to(outside)
    (work.path / "up").symlink_to(".git/config")
    with pytest.raises(BadRepoPath):
        work.call("read_file", path=path)
    assert paths(work) == []


def test_symlinks_within_the_root_are_followed_and_loops_are_no_trouble(work: Work) -> None:
    work.write("a/real.py", "x = 1\n")
    (work.path / "alias.py").symlink_to("a/real.py")
    (work.path / "a/loop").symlink_to(work.path)
    (work.path / "self").symlink_to("self")
    assert work.call("read_file", path="alias.py")["content"] == "1\tx = 1\n"
    assert work.call("read_file", path=str(work.path / "a/real.py"))["total_line_count"] == 1
    with pytest.raises(BadRepoPath):
        work.call("read_file", path="self")
    assert paths(work) == ["a/real.py"]


def test_weird_names_are_shown_when_they_can_be_given_back(work: Work) -> None:
    for name in ("-rf", "a b.py", "é.py", "$(x).py", "--help"):
        work.write(name, "find me\n")
    work.write("new\nline", "find me\n")
    (Path(os.fsdecode(os.fsencode(work.path) + b"/\xff.py"))).write_text("find me\n")
    expected = sorted(["$(x).py", "--help", "-rf", "a b.py", "é.py"])
    assert paths(work) == expected
    assert [match["path"] for match in work.call("grep_files", regex_pattern="find me")["matches"]] == expected
    assert [work.call("read_file", path=path)["total_line_count"] for path in expected] == [1] * 5


def test_wrong_arguments_are_named(work: Work) -> None:
    for arguments, reason in (
        ({"path": "x", "lines": 3}, "lines"),
        ({}, "path"),
        ({"path": "x", "limit": 2_001}, "limit"),
        ({"path": "a\0b"}, "no path"),
        ({"path": "gone.py"}, "glob_files"),
        ({"path": "\ud800"}, "cannot"),
    ):
        with pytest.raises(BadArgument, match=reason):
            work.call("read_file", **arguments)
    with pytest.raises(BadRepoPath):
        open_repository(work.path / "none")


def test_each_tool_describes_its_arguments_as_a_closed_object(git_work: Work) -> None:
    tools = open_repository(git_work.path).tools
    assert [tool.name for tool in tools] == [
        *("view_repo_tree", "glob_files", "grep_files", "read_file"),
        *("git_log", "git_show", "git_diff", "git_blame", "git_read_file"),
    ]
    for tool in tools:
        assert tool.schema["type"] == "object"
        assert tool.schema["additionalProperties"] is False
