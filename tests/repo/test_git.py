"""History of real repositories, friendly ones and hostile ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from halo_mcp.errors import BadArgument, BadRepoPath, BadRevision, GitFailed
from halo_mcp.repo.git_process import Git
from halo_mcp.repo.root import Root
from halo_mcp.repo.tools import open_repository
from tests.repo.conftest import Work


def subjects(work: Work, **arguments: object) -> list[str]:
    return [commit["subject"] for commit in work.call("git_log", **arguments)["commits"]]


@pytest.fixture
def history(git_work: Work) -> Work:
    git_work.commit("First", {"app.py": "limit = 3\n", "lib/b.py": "b\n"}, "2026-03-01T09:00:00+0100")
    git_work.commit("Raise the limit", {"app.py": "limit = 5\nretry = 1\n"}, "2026-03-02T09:00:00+0100")
    git_work.git("tag", "v1")
    git_work.git("mv", "lib/b.py", "lib/c.py")
    git_work.commit("Rename, add a picture", {"p.png": b"\0\1"}, "2026-03-03T09:00:00+0100")
    return git_work


def test_the_log_tells_commits_newest_first(history: Work) -> None:
    sha = history.git("rev-parse", "v1")
    page = history.call("git_log", max_commits=2)
    assert (page["returned_count"], page["has_more"]) == (2, True)
    assert page["commits"][1] == {
        "full_sha": sha,
        "short_sha": sha[:12],
        "author": "Ada",
        "authored_at": "2026-03-02T09:00:00+01:00",
        "subject": "Raise the limit",
    }


@pytest.mark.parametrize(
    "arguments,expected",
    [
        ({"since": "2026-03-02", "until": "2026-03-02T23:00:00Z"}, ["Raise the limit"]),
        ({"path": "app.py"}, ["Raise the limit", "First"]),
        ({"path": "lib/b.py"}, ["Rename, add a picture", "First"]),
        ({"ref_range": "v1..HEAD"}, ["Rename, add a picture"]),
        ({"ref_range": "v1~1..v1"}, ["Raise the limit"]),
        ({"ref_range": "v1"}, ["Raise the limit", "First"]),
        ({"pickaxe_string": "retry"}, ["Raise the limit"]),
        ({"pickaxe_regex": "limit = [0-9]"}, ["Raise the limit", "First"]),
        ({"pickaxe_string": "--output=x"}, []),
        ({"path": "never.py"}, []),
    ],
)
def test_the_log_is_narrowed(history: Work, arguments: dict[str, object], expected: list[str]) -> None:
    assert subjects(history, **arguments) == expected


def test_show_and_diff_tell_files_and_on_request_the_patch(history: Work) -> None:
    shown = history.call("git_show", ref="HEAD")
    assert shown["commit"]["subject"] == "Rename, add a picture"
    assert shown["changes"]["files"] == [
        {"path": "lib/c.py", "added": 0, "deleted": 0, "old_path": "lib/b.py"},
        {"path": "p.png", "added": None, "deleted": None, "old_path": None},
    ]
    assert shown["changes"]["patch"] is None
    assert "+retry = 1" in history.call("git_show", ref="v1", include_patch=True)["changes"]["patch"]
    changes = history.call("git_diff", from_ref="v1~1", to_ref="v1", path="app.py", stat_only=False)["changes"]
    assert changes["files"] == [{"path": "app.py", "added": 2, "deleted": 1, "old_path": None}]
    assert "-limit = 3" in changes["patch"]
    assert not changes["truncated"]


def test_a_merge_is_shown_against_its_first_parent(history: Work) -> None:
    history.git("checkout", "-q", "-b", "side", "v1")
    history.commit("Side", {"side.py": "s\n"})
    history.git("checkout", "-q", "main")
    history.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    assert [file["path"] for file in history.call("git_show", ref="HEAD")["changes"]["files"]] == ["side.py"]


def test_blame_names_the_commit_of_each_line(history: Work) -> None:
    history.commit("Again", {"app.py": "limit = 5\nretry = 2\n"})
    blame = history.call("git_blame", path="app.py", start_line=1, end_line=2)
    assert [(line["line_number"], line["summary"], line["line_text"]) for line in blame["lines"]] == [
        (1, "Raise the limit", "limit = 5"),
        (2, "Again", "retry = 2"),
    ]
    old = history.call("git_blame", path="app.py", start_line=1, end_line=1, ref="v1~1")
    assert (old["lines"][0]["summary"], old["lines"][0]["author"]) == ("First", "Ada")


def test_files_are_read_as_they_were(history: Work) -> None:
    assert history.call("git_read_file", ref="v1~1", path="app.py")["content"] == "1\tlimit = 3\n"
    assert history.call("git_read_file", ref="v1", path="./lib/b.py")["content"] == "1\tb\n"
    for path, reason in (("lib", "directory"), ("p.png", "binary"), ("gone", "no such file"), ("../x", "relative")):
        with pytest.raises(BadRepoPath, match=reason):
            history.call("git_read_file", ref="HEAD", path=path)


@pytest.mark.parametrize("ref", ["--output=/tmp/x", "-p", "nothing", " ", "HEAD\n", "HEAD:app.py", "a..b", "v1 HEAD"])
def test_what_is_no_commit_is_refused(history: Work, ref: str) -> None:
    for tool, arguments in (
        ("git_show", {"ref": ref}),
        ("git_diff", {"from_ref": "HEAD", "to_ref": ref}),
        ("git_read_file", {"ref": ref, "path": "app.py"}),
        ("git_blame", {"ref": ref, "path": "app.py", "start_line": 1, "end_line": 1}),
        ("git_log", {"ref_range": ref}),
        ("git_log", {"ref_range": f"{ref}..HEAD"}),
    ):
        with pytest.raises(BadRevision):
            history.call(tool, **arguments)


def test_other_arguments_that_make_no_sense_are_refused(history: Work) -> None:
    for arguments in ({"since": "recently"}, {"until": "--all"}, {"pickaxe_string": "a", "pickaxe_regex": "b"}):
        with pytest.raises(BadArgument):
            history.call("git_log", **arguments)
    for start, end in ((2, 1), (1, 2_001)):
        with pytest.raises(BadArgument, match="2,000"):
            history.call("git_blame", path="app.py", start_line=start, end_line=end)
    with pytest.raises(GitFailed, match="has only 2 lines"):
        history.call("git_blame", path="app.py", start_line=5, end_line=6)
    with pytest.raises(GitFailed, match="only read"):
        Git(Root(history.path)).run("push")


def test_a_directory_without_commits_or_without_git_says_so(git_work: Work, work: Work) -> None:
    with pytest.raises(BadRevision):
        git_work.call("git_log")
    shutil.rmtree(work.path / ".git")
    repository = open_repository(work.path)
    assert len(repository.tools) == 4
    assert repository.git_off


def test_a_root_inside_a_work_tree_sees_its_own_part_only(history: Work) -> None:
    part = Work(history.path / "lib")
    assert subjects(part) == ["Rename, add a picture", "First"]
    assert [file["path"] for file in part.call("git_show", ref="HEAD")["changes"]["files"]] == ["c.py"]
    assert "app.py" not in str(part.call("git_diff", from_ref="v1~1", to_ref="HEAD", stat_only=False))
    assert part.call("git_read_file", ref="v1", path="b.py")["content"] == "1\tb\n"
    assert part.call("git_blame", path="c.py", start_line=1, end_line=1)["lines"][0]["line_text"] == "b"
    with pytest.raises(BadRepoPath):
        part.call("git_read_file", ref="v1", path="app.py")


def test_weird_names_in_history_come_back_as_they_are(git_work: Work) -> None:
    for name in ("-p", "a b", "é", ":(top)x", "*"):
        git_work.commit(f"Add {name}", {name: "text\n"})
        assert git_work.call("git_show", ref="HEAD")["changes"]["files"][0]["path"] == name
        assert subjects(git_work, path=name) == [f"Add {name}"]
        assert git_work.call("git_read_file", ref="HEAD", path=name)["content"] == "1\ttext\n"
        assert git_work.call("git_blame", path=name, start_line=1, end_line=1)["lines"][0]["summary"] == f"Add {name}"


def test_the_callers_git_environment_changes_nothing(history: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert len(subjects(history)) == 3


def call_everything(work: Work) -> None:
    work.call("git_log", path="app.py", pickaxe_regex="x")
    work.call("git_log", pickaxe_string="limit")
    work.call("git_show", ref="HEAD", include_patch=True)
    work.call("git_show", ref="v1", include_patch=True)
    work.call("git_diff", from_ref="v1~1", to_ref="HEAD", stat_only=False)
    work.call("git_blame", path="app.py", start_line=1, end_line=1)
    work.call("git_read_file", ref="HEAD", path="app.py")


def test_no_program_that_a_repository_names_is_started(history: Work) -> None:
    mark = history.path.parent / "started"
    program = history.write("evil.sh", f"#!/bin/sh\necho $0 $@ >> {mark}\ncat\n")
    program.chmod(0o755)
    history.commit("Attributes", {".gitattributes": "* diff=evil filter=evil\n"})
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(program, history.path / ".git/hooks" / hook)
    for key in (
        *("core.fsmonitor", "core.pager", "pager.log", "pager.show", "core.editor", "core.sshCommand", "gpg.program"),
        *("diff.external", "diff.evil.command", "diff.evil.textconv", "filter.evil.clean", "filter.evil.smudge"),
        *("filter.evil.process", "core.alternateRefsCommand", "credential.helper", "core.askPass", "alias.log"),
    ):
        history.git("config", key, f"!{program}" if key == "alias.log" else str(program))
    for key, value in {
        "log.showSignature": "true",
        "diff.submodule": "log",
        "core.hooksPath": str(history.path / ".git/hooks"),
        "color.ui": "always",
        "log.follow": "true",
        "diff.noprefix": "true",
        "blame.ignoreRevsFile": "/etc/passwd",
    }.items():
        history.git("config", key, value)
    mark.unlink(missing_ok=True)  # setting all this up may have started it
    call_everything(history)
    assert not mark.exists()
    assert "\x1b" not in str(history.call("git_show", ref="v1", include_patch=True))


def test_objects_that_are_missing_are_not_fetched(history: Work) -> None:
    mark = history.path.parent / "started"
    program = history.write("evil.sh", f"#!/bin/sh\necho $@ >> {mark}\n")
    program.chmod(0o755)
    blob = history.git("rev-parse", "HEAD:app.py")
    (history.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    for url in (f"ext::{program} %S", f"ssh://host/{program}", str(history.path)):
        for key, value in {
            "core.repositoryFormatVersion": "1",
            "extensions.partialClone": "origin",
            "remote.origin.url": url,
            "remote.origin.promisor": "true",
            "remote.origin.uploadpack": str(program),
            "protocol.ext.allow": "always",
            "protocol.allow": "always",
            "core.sshCommand": str(program),
        }.items():
            history.git("config", key, value)
        with pytest.raises(BadRepoPath, match="never fetched"):
            history.call("git_read_file", ref="HEAD", path="app.py")
        assert not mark.exists()


def test_a_repository_kept_elsewhere_that_does_not_name_this_one_is_not_read(history: Work, tmp_path: Path) -> None:
    thief = Work(tmp_path / "thief")
    thief.write(".git", f"gitdir: {history.path / '.git'}\n")
    linked = Work(tmp_path / "linked")
    linked.path.mkdir()
    (linked.path / ".git").symlink_to(history.path / ".git")
    common = Work(tmp_path / "common")
    common.write(".git/HEAD", "ref: refs/heads/main\n")
    common.write(".git/commondir", str(history.path / ".git"))
    moved = Work(tmp_path / "moved")
    moved.path.mkdir()
    moved.git("init", "-q")
    moved.git("config", "core.worktree", str(history.path))
    for work in (thief, linked, common, moved):
        assert open_repository(work.path).git_off


def test_linked_work_trees_and_submodules_are_read(history: Work, tmp_path: Path) -> None:
    history.git("worktree", "add", "-q", str(tmp_path / "tree"), "v1")
    assert subjects(Work(tmp_path / "tree")) == ["Raise the limit", "First"]
    outer = Work(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(history.path), "inner")
    outer.commit("Add a submodule", {})
    assert len(subjects(Work(outer.path / "inner"))) == 3
    files = outer.call("git_show", ref="HEAD", include_patch=True)["changes"]
    assert "Subproject commit" in files["patch"]
    with pytest.raises(BadRepoPath):
        outer.call("git_read_file", ref="HEAD", path="inner")
    assert outer.call("glob_files", pattern="inner/app.py")["returned_count"] == 1


def test_a_bare_repository_inside_the_work_tree_is_not_taken_for_one(history: Work) -> None:
    history.git("clone", "-q", "--bare", str(history.path), str(history.path / "bare.git"))
    assert open_repository(history.path / "bare.git").git_off


def test_a_patch_that_is_too_long_is_cut_and_says_so(git_work: Work) -> None:
    git_work.commit("Large", {"big.txt": "line of text\n" * 30_000})
    changes = git_work.call("git_show", ref="HEAD", include_patch=True)["changes"]
    assert changes["truncated"]
    assert len(changes["patch"]) <= 150_000
