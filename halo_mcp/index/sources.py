"""Which files source arguments lead to."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from halo_mcp.errors import SourceNotFound, SourceUnreadable, shown, why_unusable
from halo_mcp.index.formats.names import TRAJECTORY_ENDING, VERDICT_ENDING
from halo_mcp.index.segments import Listed, in_an_index

TRACE_FILE_SUFFIXES: Final = (
    ".jsonl", ".ndjson", ".json", ".otlp", ".traj", ".eval", ".pb", ".binpb", ".gz", ".zst", ".bz2", ".xz"
)  # fmt: skip
"""Files taken from a directory; a file named directly may have any name."""

_NOT_A_FILE: Final = "it is a pipe, socket or device, not a file; write its content to a file first"
_OUTSIDE: Final = "it leads out of the allowed directories"


def open_source(path: Path) -> BinaryIO:
    """The file, for reading bytes. Raises: SourceUnreadable."""
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceUnreadable(str(path), error.strerror or str(error)) from error


def list_sources(arguments: Sequence[str], roots: Sequence[Path] = ()) -> list[Listed]:
    """The files that source arguments (files, globs, directories) lead to, each once, in the order given,
    also where links lead to it by several paths.

    With roots, a file that links lead out of all of them is refused when named, and left out of a directory or glob.

    Raises: SourceNotFound, SourceUnreadable.
    """
    found: dict[object, Listed] = {}
    for argument in arguments:
        try:
            for path in _expand(argument, roots):
                number, file = _listed(path)
                found.setdefault(number, file)
        except FileNotFoundError as error:
            raise SourceNotFound(shown(str(error.filename or argument))) from None
        except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL byte, an unknown ~user
            name = str(getattr(error, "filename", None) or argument)
            raise SourceUnreadable(shown(name), why_unusable(error)) from error
    return list(found.values())


def _listed(path: Path) -> tuple[object, Listed]:
    """The file, and by what the file system knows it, whatever the path to it."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise SourceUnreadable(shown(str(path)), _NOT_A_FILE)
    file = Listed(os.path.abspath(path), state.st_size, modified_nano(path, state), state.st_ino)
    return (state.st_dev, state.st_ino) if state.st_ino else file.path, file


def modified_nano(path: Path, state: os.stat_result) -> int:
    """When a file was last written, or the verdict beside it: a new verdict makes a trajectory a changed file."""
    if not path.name.endswith(TRAJECTORY_ENDING):
        return state.st_mtime_ns
    try:
        verdict = path.with_name(path.name.removesuffix(TRAJECTORY_ENDING) + VERDICT_ENDING).stat()
    except OSError:
        return state.st_mtime_ns
    return max(state.st_mtime_ns, verdict.st_mtime_ns)


def _expand(argument: str, roots: Sequence[Path]) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_dir():
        os.scandir(path).close()  # rglob would pass over a directory that may not be read, in silence
        inside = sorted(
            p
            for p in path.rglob("*")
            if p.suffix.lower() in TRACE_FILE_SUFFIXES and p.is_file() and _allowed(p, roots) and not in_an_index(p)
        )
        if not inside:
            raise SourceNotFound(shown(argument), kind="directory")
        return inside
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(
            p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file() and _allowed(p, roots)
        )
        if not matches:
            raise SourceNotFound(shown(argument), kind="glob")
        return matches
    if not _allowed(path, roots):
        raise SourceUnreadable(shown(argument), _OUTSIDE)
    return [path]


def _allowed(path: Path, roots: Sequence[Path]) -> bool:
    if not roots:
        return True
    resolved = path.resolve()
    return any(resolved.is_relative_to(root) for root in roots)
