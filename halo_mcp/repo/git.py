"""What a repository's history says: commits, what they changed, who wrote a line, and files as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from halo_mcp.errors import BadArgument, BadRepoPath, BadRevision
from halo_mcp.repo.git_process import DIFF_OPTIONS, Git
from halo_mcp.repo.root import MAX_FILE_BYTES, SNIFFED_BYTES, decoded, lines_of
from halo_mcp.repo.text import MAX_LINE_CHARS, MAX_RESPONSE_CHARS, Excerpt, capped, excerpt

MAX_SUBJECT_CHARS: Final = 500
MAX_BODY_CHARS: Final = 20_000
MAX_FILES: Final = 1_000
MAX_BLAMED_LINES: Final = 2_000
_SHORT: Final = 12
_FORMAT: Final = "--format=format:%H%x00%an%x00%aI%x00%s"
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|[+-]\d\d:?\d\d))?)?"
    r"|\d{9,10}|\d+ (second|minute|hour|day|week|month|year)s? ago"
)


@dataclass(frozen=True, slots=True)
class CommitSummary:
    """A commit; ``authored_at`` in ISO 8601 with the author's offset."""

    full_sha: str
    short_sha: str
    author: str
    authored_at: str
    subject: str


@dataclass(frozen=True, slots=True)
class Log:
    """Commits, newest first."""

    commits: list[CommitSummary]
    returned_count: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that differs; line counts are None for a binary file."""

    path: str
    added: int | None
    deleted: int | None
    old_path: str | None = None
    """What it was called before, when it was renamed."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two commits."""

    files: list[ChangedFile]
    has_more_files: bool
    patch: str | None
    """None when none was asked for."""
    truncated: bool
    """The patch goes on; ask for one path."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A commit and what it changed against its first parent."""

    commit: CommitSummary
    body: str
    changes: Changes


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two commits."""

    from_sha: str
    to_sha: str
    changes: Changes


@dataclass(frozen=True, slots=True)
class BlameLine:
    """A line and the commit that last changed it."""

    line_number: int
    short_sha: str
    author: str
    summary: str
    line_text: str


@dataclass(frozen=True, slots=True)
class Blame:
    """Lines of a file as it is in the commit ``sha``."""

    sha: str
    lines: list[BlameLine]
    truncated: bool


def log(
    git: Git,
    max_commits: int,
    since: str | None = None,
    until: str | None = None,
    ref_range: str | None = None,
    path: str | None = None,
    pickaxe_string: str | None = None,
    pickaxe_regex: str | None = None,
) -> Log:
    """Commits of ``ref_range`` (HEAD by default).

    ``pickaxe_string`` leaves those that change how often it occurs, ``pickaxe_regex`` those with a changed line that
    matches.
    Raises BadArgument, GitFailed, DeadlineExceeded.
    """
    if pickaxe_string and pickaxe_regex:
        raise BadArgument("Give pickaxe_string or pickaxe_regex, not both.")
    limits = [f"--{name}={_time(name, value)}" for name, value in (("since", since), ("until", until)) if value]
    pickaxe = [f"-S{pickaxe_string}"] if pickaxe_string else [f"-G{pickaxe_regex}"] if pickaxe_regex else []
    revisions = _range(git, ref_range or "HEAD")
    options = (*_commit_options(), "-z", f"-n{max_commits + 1}", *limits, *pickaxe, *revisions)
    commits = list(_commits(git.text("log", *options, *(git.paths(path) or ("--",)))))
    return Log(commits[:max_commits], min(len(commits), max_commits), len(commits) > max_commits)


def show(git: Git, ref: str, path: str | None, include_patch: bool) -> Shown:
    """One commit. Raises BadArgument, GitFailed, DeadlineExceeded."""
    sha = git.commit(ref)
    commit = next(_commits(git.text("log", *_commit_options(), "-n1", sha, "--")))
    body = git.text(
        "log", "-s", "--no-color", "--no-show-signature", "--encoding=UTF-8", "--format=format:%b", "-n1", sha, "--"
    )
    parent = ("--diff-merges=first-parent", "--format=", sha)
    return Shown(commit, capped(body.strip(), MAX_BODY_CHARS), _changes(git, "show", parent, path, include_patch))


def diff(git: Git, from_ref: str, to_ref: str, path: str | None, stat_only: bool) -> Difference:
    """What changed from one commit to another. Raises BadArgument, GitFailed, DeadlineExceeded."""
    first, second = git.commit(from_ref), git.commit(to_ref)
    return Difference(first, second, _changes(git, "diff", (first, second), path, not stat_only))


def blame(git: Git, path: str, start_line: int, end_line: int, ref: str | None) -> Blame:
    """Who last changed lines of a committed file. At most 2,000. Raises BadArgument, GitFailed, DeadlineExceeded."""
    if not start_line <= end_line < start_line + MAX_BLAMED_LINES:
        raise BadArgument(f"start_line to end_line must be 1 to {MAX_BLAMED_LINES:,} lines, in this order.")
    # Never the work tree's file: reading it runs the clean filters that attributes name.
    sha = git.commit(ref or "HEAD")
    _text_blob(git, git.blob(sha, path), path)
    # A file of revisions to ignore is named by the repository, and its lines would show in an error.
    options = (
        "--porcelain",
        "--no-textconv",
        "--no-ignore-revs-file",
        "--encoding=UTF-8",
        "-L",
        f"{start_line},{end_line}",
    )
    output = decoded(git.read("blame", *options, sha, *git.paths(path)).output)
    lines, size = list[BlameLine](), 0
    for line in _blamed(output):
        size += len(line.line_text) + len(line.summary) + len(line.author)
        if size > MAX_RESPONSE_CHARS:
            return Blame(sha, lines, True)
        lines.append(line)
    return Blame(sha, lines, False)


def read_file(git: Git, ref: str, path: str, offset: int, limit: int) -> Excerpt:
    """Lines of a text file as it is in a commit. Raises BadRevision, BadRepoPath, GitFailed, DeadlineExceeded."""
    return excerpt(lines_of(decoded(_text_blob(git, git.blob(ref, path), path))), offset, limit)


def _text_blob(git: Git, blob: str, path: str) -> bytes:
    kind = git.run("cat-file", "-t", blob)
    if kind.code != 0:
        raise BadRepoPath(path, "this repository does not hold it: it is a submodule, or was never fetched")
    if kind.output.strip() != b"blob":
        raise BadRepoPath(path, "it is a directory")
    ran = git.run("cat-file", "blob", blob, max_bytes=MAX_FILE_BYTES)
    if ran.cut:
        raise BadRepoPath(path, f"it has more than the {MAX_FILE_BYTES:,} bytes that are read")
    if b"\0" in ran.output[:SNIFFED_BYTES]:
        raise BadRepoPath(path, "it is a binary file")
    return ran.output


def _commit_options() -> tuple[str, ...]:
    return ("-s", *DIFF_OPTIONS, "--no-show-signature", "--no-notes", "--encoding=UTF-8", _FORMAT)


def _commits(output: str) -> Iterator[CommitSummary]:
    fields = iter(output.split("\0") if output else ())
    while record := list(islice(fields, 4)):
        sha, author, when, subject = record
        yield CommitSummary(
            sha, sha[:_SHORT], capped(author, MAX_SUBJECT_CHARS), when, capped(subject, MAX_SUBJECT_CHARS)
        )


def _range(git: Git, asked: str) -> tuple[str, ...]:
    first, dots, second = asked.partition("...") if "..." in asked else asked.partition("..")
    if not dots:
        return (git.commit(asked),)
    if asked.startswith("-"):
        raise BadRevision(asked, "a range is written FROM..TO")
    return (f"{git.commit(first or 'HEAD')}{dots}{git.commit(second or 'HEAD')}",)


def _time(argument: str, value: str) -> str:
    if not _TIME.fullmatch(value):  # git takes what it cannot read for the present
        raise BadArgument(f"{argument}={value!r} is no time: give 2026-03-02, 2026-03-02T09:00:00Z or '3 days ago'.")
    return f"{value}T00:00:00Z" if len(value) == 10 and "-" in value else value


def _changes(git: Git, command: str, what: tuple[str, ...], path: str | None, with_patch: bool) -> Changes:
    options = (*DIFF_OPTIONS, *(() if git.whole else ("--relative",)))
    limits = git.paths(path) or ("--",)
    files = list(islice(_changed(git.text(command, *options, "--numstat", "-z", *what, *limits)), MAX_FILES + 1))
    patch, truncated = None, False
    if with_patch:
        ran = git.read(command, *options, "--patch", *what, *limits)
        text = decoded(ran.output)
        truncated = ran.cut or len(text) > MAX_RESPONSE_CHARS
        # By \n only: str.splitlines would cut at form feeds too.
        patch = "\n".join(capped(line, MAX_LINE_CHARS) for line in text[:MAX_RESPONSE_CHARS].split("\n"))
    return Changes(files[:MAX_FILES], len(files) > MAX_FILES, patch, truncated)


def _changed(output: str) -> Iterator[ChangedFile]:
    fields = iter(output.lstrip("\n").split("\0"))
    for field in fields:
        added, tab, rest = field.partition("\t")
        deleted, _, path = rest.partition("\t")
        if not tab:
            return
        old = None
        if not path:
            old, path = next(fields, ""), next(fields, "")
        yield ChangedFile(path, _count(added), _count(deleted), old)


def _count(digits: str) -> int | None:
    return None if digits == "-" else int(digits)


def _blamed(output: str) -> Iterator[BlameLine]:
    known: dict[str, dict[str, str]] = {}
    sha, number = "", 0
    expecting_header = True
    for line in output.split("\n"):
        if expecting_header:
            if not line:
                return
            sha, _, place = line.partition(" ")
            number = int(place.split(" ")[1])
            known.setdefault(sha, {})
            expecting_header = False
        elif line.startswith("\t"):
            facts = known[sha]
            text = capped(line[1:].removesuffix("\r"), MAX_LINE_CHARS)
            summary = capped(facts.get("summary", ""), MAX_SUBJECT_CHARS)
            yield BlameLine(number, sha[:_SHORT], facts.get("author", ""), summary, text)
            expecting_header = True
        else:
            key, _, value = line.partition(" ")
            known[sha][key] = value
