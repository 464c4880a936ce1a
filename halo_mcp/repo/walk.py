"""The files of a repository in the order of their paths, and which of them a glob pattern names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from halo_mcp.errors import DeadlineExceeded, InvalidPattern
from halo_mcp.repo.ignore import Ignores, expression_of
from halo_mcp.repo.root import Root, excluded

MAX_SECONDS: Final = 20.0
"""Of one call that walks or searches."""
_MAX_BRACES: Final = 64


class Clock:
    """The time one call may take."""

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises DeadlineExceeded when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(self.seconds, "Narrow the path, the glob or the range and call again.")
        return left


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory that tools may show."""

    path: str
    directory: bool
    size_bytes: int


def walk(root: Root, clock: Clock, depth: int | None = None) -> Iterator[Entry]:
    """Entries depth first, each directory before what is in it, by name; at most ``depth`` levels.

    Leaves out symlinks (what they lead to stands in its own place), special files, excluded and ignored names, names
    that cannot be printed, and directories that cannot be listed. Raises DeadlineExceeded.
    """
    ignores = Ignores(root.path)

    def below(directory: str, level: int) -> Iterator[Entry]:
        clock.left()
        prefix = f"{directory}/" if directory else ""
        for found in _listed(root, directory):
            path = prefix + found.name
            is_directory = found.is_dir(follow_symlinks=False)
            if ignores.entry_ignored(path, directory=is_directory):
                continue
            if is_directory:
                yield Entry(path, True, 0)
                if depth is None or level < depth:
                    yield from below(path, level + 1)
            elif found.is_file(follow_symlinks=False):
                try:
                    yield Entry(path, False, found.stat(follow_symlinks=False).st_size)
                except FileNotFoundError:
                    pass  # deleted since it was listed

    yield from below("", 1)


def _listed(root: Root, directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root.path / directory) as entries:
            shown = [entry for entry in entries if entry.name.isprintable() and not excluded(entry.name)]
    except OSError:
        return []
    return sorted(shown, key=lambda entry: entry.name)


def glob_filter(glob: str) -> Callable[[str], bool]:
    """Whether a path matches. Without a slash the pattern names files in any directory; ``{a,b}`` means either.

    Raises InvalidPattern.
    """
    from halo_mcp.index.patterns import compile_pattern  # it loads RE2

    if not glob.strip("/"):
        raise InvalidPattern(glob, "It names no file; write **/* for all files.")
    pattern = glob.removeprefix("./")
    start = "^" if "/" in pattern else "(?:^|/)"
    expressions = [expression_of(each.removeprefix("/")) for each in _alternatives(glob, pattern)]
    regex = compile_pattern(f"{start}(?:{'|'.join(expressions)})$").text
    return lambda path: regex.search(path) is not None


def _alternatives(glob: str, pattern: str) -> list[str]:
    done, todo = list[str](), [pattern]
    while todo:
        each = todo.pop(0)
        close = each.find("}")
        opened = each.rfind("{", 0, max(close, 0))
        if close < 0 or opened < 0:
            done.append(each)
        else:
            todo += [each[:opened] + choice + each[close + 1 :] for choice in each[opened + 1 : close].split(",")]
        if len(done) + len(todo) > _MAX_BRACES:
            raise InvalidPattern(glob, f"Its braces stand for more than {_MAX_BRACES} patterns; make several calls.")
    return done
