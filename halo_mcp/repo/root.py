"""The directory that everything stays in, and the only way to open a file of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from halo_mcp.errors import BadRepoPath, why_unusable
from halo_mcp.repo.ignore import Ignores

MAX_FILE_BYTES: Final = 10 << 20
"""Larger files are neither read nor searched."""
SNIFFED_BYTES: Final = 8_192
"""A NUL among the first bytes makes a file binary, as in git."""
EXCLUDED_NAMES: Final = frozenset(
    (
        *(".git", ".hg", ".svn", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"),
        *(".eggs", ".tox", ".venv", "node_modules"),
    )
)
"""Neither listed nor read, in any case of letters: version control's own files, and what tools put there."""


class Root:
    """A directory. Paths in and out are relative to it, with slashes."""

    def __init__(self, path: Path) -> None:
        """Raises BadRepoPath when there is no such directory."""
        try:
            self.path = path.expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadRepoPath(str(path), why_unusable(error)) from None
        if not self.path.is_dir():
            raise BadRepoPath(str(path), "it is not a directory")

    def resolve(self, path: str) -> Path:
        """Where ``path`` leads, symlinks followed: an existing place that tools may read.

        Raises BadRepoPath when it is outside, excluded, ignored by a .gitignore, or not there.
        """
        if not path or "\0" in path:
            raise BadRepoPath(path, "it is no path; take one from glob_files")
        try:
            real = (self.path / path).resolve(strict=True)
        except (OSError, RuntimeError, UnicodeError) as error:
            raise BadRepoPath(path, f"{why_unusable(error)}; find the right path with glob_files") from None
        # The name first: whether a file outside is there is nobody's business either.
        if not real.is_relative_to(self.path):
            raise BadRepoPath(path, "it leads out of the repository; take a path from glob_files")
        relative = real.relative_to(self.path)
        if any(excluded(part) for part in relative.parts):
            raise BadRepoPath(path, "files of version control, dependencies and caches are not read")
        if Ignores(self.path).ignored(relative.as_posix(), directory=real.is_dir()):
            raise BadRepoPath(path, "a .gitignore excludes it; git_read_file reads it if it was committed")
        return real

    def read(self, path: str) -> bytes:
        """The bytes of a text file of up to 10 MiB. Raises BadRepoPath for others, and as ``resolve`` does."""
        data = read_text_bytes(self.resolve(path), path)
        if data is None:
            raise BadRepoPath(path, "it is a binary file")
        return data


def excluded(name: str) -> bool:
    """Whether no file of this name, nor anything in a directory of this name, is shown."""
    return name.casefold() in EXCLUDED_NAMES


def read_text_bytes(file: Path, shown_as: str) -> bytes | None:
    """The bytes of a file, None when it is binary. Raises BadRepoPath for what is no regular file of up to 10 MiB."""
    try:
        # Not blocking: a pipe would wait for a writer for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise BadRepoPath(shown_as, "it is a directory; list it with glob_files")
            if not stat.S_ISREG(status.st_mode):
                raise BadRepoPath(shown_as, "it is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise BadRepoPath(shown_as, f"it has {status.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
            head = opened.read(SNIFFED_BYTES)
            return None if b"\0" in head else head + opened.read(MAX_FILE_BYTES)
    except OSError as error:
        raise BadRepoPath(shown_as, why_unusable(error)) from None


def decoded(data: bytes) -> str:
    """Text of bytes: UTF-8, what is not as U+FFFD, without a byte order mark."""
    return data.decode("utf-8-sig", "replace")


def lines_of(text: str) -> list[str]:
    """Lines as git and editors count them: ended by a line feed, a carriage return before it taken off."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
