"""What the repository holds: its tree, files by name, and what one file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from halo_mcp.repo.root import Root, decoded, lines_of
from halo_mcp.repo.text import Excerpt, excerpt
from halo_mcp.repo.walk import Clock, Entry, glob_filter, walk

TREE_DEPTH: Final = 4
TREE_ENTRIES: Final = 500


@dataclass(frozen=True, slots=True)
class Tree:
    """Directories and files, indented by depth."""

    root: str
    tree: str
    entry_count: int
    has_more: bool
    """There are more than 500 entries, or directories below the fourth level with something in them."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The first files whose paths match."""

    files: list[FoundFile]
    returned_count: int
    has_more: bool


def view_tree(root: Root) -> Tree:
    """Four levels, the upper ones first when not all of it fits. Raises DeadlineExceeded."""
    clock = Clock()
    entries = list(walk(root, clock, TREE_DEPTH + 1))
    kept = sorted((entry for entry in entries if _level(entry) <= TREE_DEPTH), key=_level)[:TREE_ENTRIES]
    chosen = {entry.path for entry in kept}
    lines = [
        f"{'  ' * (_level(entry) - 1)}{entry.path.rpartition('/')[2]}{'/' if entry.directory else ''}"
        for entry in entries
        if entry.path in chosen
    ]
    return Tree(root.path.name, "\n".join(lines), len(lines), len(entries) > len(lines))


def _level(entry: Entry) -> int:
    return entry.path.count("/") + 1


def glob_files(root: Root, pattern: str, max_results: int) -> FoundFiles:
    """Files whose paths match, in order. Raises InvalidPattern, DeadlineExceeded."""
    wanted = glob_filter(pattern)
    found: list[FoundFile] = []
    for entry in walk(root, Clock()):
        if not entry.directory and wanted(entry.path):
            if len(found) == max_results:
                return FoundFiles(found, len(found), True)
            found.append(FoundFile(entry.path, entry.size_bytes))
    return FoundFiles(found, len(found), False)


def read_file(root: Root, path: str, offset: int, limit: int) -> Excerpt:
    """Lines of a text file. Raises BadRepoPath."""
    return excerpt(lines_of(decoded(root.read(path))), offset, limit)
