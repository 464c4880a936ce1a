"""Running git on a repository that nobody vouches for: to read only, and without starting a program that it names.

A repository's own configuration and attributes may name programs (hooks, a file system monitor, pagers, external and
textconv diffs, clean filters, signature checks, transports that fetch missing objects). Each is switched off below;
clean filters run on work tree files only, which no command here compares.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from halo_mcp.errors import BadRepoPath, BadRevision, GitFailed, why_unusable
from halo_mcp.repo.processes import Ran, run
from halo_mcp.repo.root import Root
from halo_mcp.repo.walk import Clock

COMMANDS: Final = frozenset(("log", "show", "diff", "blame", "rev-parse", "cat-file", "config"))
MAX_OUTPUT_BYTES: Final = 12 << 20
_CONFIGURATION: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.attributesFile=/dev/null",
    "core.quotePath=false",
    "core.alternateRefsCommand=false",
    "diff.external=",
    "log.showSignature=false",
    "mailmap.file=/dev/null",
    "color.ui=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
)
_ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
DIFF_OPTIONS: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", "-M")


class Git:
    """The git repository that ``root`` is in. Only what is below ``root`` is shown."""

    def __init__(self, root: Root) -> None:
        """Raises GitFailed when git is missing, or when ``root`` is in no work tree, or in one that is not its own."""
        program = shutil.which("git")
        if program is None:
            raise GitFailed("rev-parse", "git is not installed")
        self.root = root
        self._program = os.path.abspath(program)
        places = self.text("rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-common-dir").splitlines()
        if len(places) != 3 or not all(places):
            raise GitFailed("rev-parse", f"{root.path} is in no work tree")
        top, directory, common = ((root.path / place).resolve() for place in places)
        if not root.path.is_relative_to(top) or not self._belongs(top, directory, common):
            raise GitFailed("rev-parse", f"the repository of {root.path} is kept elsewhere and does not name it")
        self.whole = root.path == top
        """The root is the top of the work tree."""

    def _belongs(self, top: Path, directory: Path, common: Path) -> bool:
        """Whether the git directory is in the work tree, or names it: linked work trees and submodules have such."""
        if directory.is_relative_to(top):
            return common.is_relative_to(top)
        try:
            if Path((directory / "gitdir").read_text().strip()).resolve() == (top / ".git").resolve():
                return directory.is_relative_to(common)
        except (OSError, ValueError):
            pass  # not a linked work tree
        named = self.run("config", "--file", str(directory / "config"), "--get", "core.worktree")
        return named.code == 0 and (directory / os.fsdecode(named.output.rstrip(b"\n"))).resolve() == top

    def run(self, command: str, *arguments: str, clock: Clock | None = None, max_bytes: int = MAX_OUTPUT_BYTES) -> Ran:
        """Run a read-only command. Raises GitFailed when it cannot be started, DeadlineExceeded."""
        if command not in COMMANDS:
            raise GitFailed(command, "it is not one of the commands that only read")
        settings = [word for setting in _CONFIGURATION for word in ("-c", setting)]
        line = [self._program, "--no-pager", *settings, "-c", f"safe.directory={self.root.path}", command, *arguments]
        environment = {**_ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath)}
        try:
            return run(line, self.root.path, environment, clock or Clock(), max_bytes)
        except (OSError, ValueError) as error:
            raise GitFailed(command, why_unusable(error)) from None

    def read(self, command: str, *arguments: str) -> Ran:
        """Run a command that must succeed. Raises GitFailed, DeadlineExceeded."""
        ran = self.run(command, *arguments)
        if ran.code != 0 and not ran.cut:
            raise GitFailed(command, ran.error or f"exit code {ran.code}")
        return ran

    def text(self, command: str, *arguments: str) -> str:
        """What a command that must succeed writes."""
        return self.read(command, *arguments).output.decode("utf-8", "replace")

    def commit(self, revision: str) -> str:
        """The full sha of a commit. Raises BadRevision."""
        if not revision.strip() or revision.startswith("-") or not revision.isprintable():
            raise BadRevision(revision, "a revision is a commit, a tag or a branch")
        return self._parsed(f"{revision}^{{commit}}") or _no_commit(revision)

    def blob(self, revision: str, path: str) -> str:
        """The full sha of a file in a commit. Raises BadRevision, BadRepoPath."""
        found = self._parsed(f"{self.commit(revision)}:./{inside(path)}")
        if found is None:
            raise BadRepoPath(path, f"there is no such file in {revision}; git_show lists what a commit changed")
        return found

    def _parsed(self, expression: str) -> str | None:
        ran = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", expression)
        return ran.output.decode("ascii", "replace").strip() if ran.code == 0 else None

    def paths(self, path: str | None) -> tuple[str, ...]:
        """The end of a command line: what it is limited to. Raises BadRepoPath."""
        if path:
            return ("--", inside(path))
        return () if self.whole else ("--", ".")


def _no_commit(revision: str) -> str:
    raise BadRevision(revision)


def inside(path: str) -> str:
    """A path as git takes it, relative to the root; it need not be there now. Raises BadRepoPath."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path or not parts:
        raise BadRepoPath(path, "give a path relative to the repository, such as src/app.py")
    return "/".join(parts)
