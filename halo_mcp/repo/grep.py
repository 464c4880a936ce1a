"""Lines that a regular expression matches, in the order of paths and lines.

RE2 decides. Where ripgrep is installed it names the files worth reading, so it changes the time and not the result: it
is given a wider expression, one that matches a line wherever RE2 does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halo_mcp.errors import BadRepoPath
from halo_mcp.repo.processes import run
from halo_mcp.repo.root import MAX_FILE_BYTES, Root, decoded, lines_of, read_text_bytes
from halo_mcp.repo.text import capped
from halo_mcp.repo.walk import Clock, glob_filter, walk

MAX_SHOWN_CHARS: Final = 500
_BATCH: Final = 500
"""Files for one run of ripgrep: their names must fit a command line."""
_MAX_OUTPUT: Final = 4 << 20
_ANY: Final = r"(?:(?-u:[^\n]){1,4})"
"""One character for ripgrep: valid UTF-8, or the bytes that become one U+FFFD."""
_TOKEN: Final = re.compile(
    r"""
      (?P<anchor> [\^$] | \\[bBAz] )
    | (?P<class> \\[dws] )
    | (?P<any> \. | \\[DWS] | \[\^ [^\]\[\\]+ \] )
    | (?P<same> \[ [A-Za-z0-9_ ]+ \] | \[ (?: [A-Z]-[A-Z] | [a-z]-[a-z] | [0-9]-[0-9] | [A-Za-z0-9_] )+ \]
        | \\[.+*?()|{}^$/\[\]] | \\\\ | [A-Za-z0-9_ "'<>=:;,/!@%&`#~-] | [|)] | \(\?i\) | \( (?:\?:|\?i:)? (?!\?) )
    | (?P<repeat> [*+?]\?? )
    """,
    re.VERBOSE,
)
"""What ripgrep reads as RE2 does, or can be given a wider form of."""


@dataclass(frozen=True, slots=True)
class LineMatch:
    """A line that matches."""

    path: str
    line_number: int
    line_text: str
    """At most 500 characters, around the match when the line is longer."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The first lines that match."""

    matches: list[LineMatch]
    returned_count: int
    has_more: bool
    skipped_large_files: int
    """Files over 10 MiB, which were not searched."""


def grep(
    root: Root, regex_pattern: str, glob_pattern: str | None, max_matches: int, *, ripgrep: str | None = None
) -> Matches:
    """Search the files of ``root``; ``ripgrep`` is the program to use, that on the path by default, "" for none.

    Raises InvalidPattern, DeadlineExceeded.
    """
    from halo_mcp.index.patterns import compile_pattern  # it loads RE2

    regex = compile_pattern(regex_pattern).text
    clock = Clock()
    wanted = glob_filter(glob_pattern or "**/*")
    files = [entry for entry in walk(root, clock) if not entry.directory and wanted(entry.path)]
    paths = [entry.path for entry in files if entry.size_bytes <= MAX_FILE_BYTES]
    found: list[LineMatch] = []
    for path in _worth_reading(root, regex_pattern, paths, clock, ripgrep):
        clock.left()
        for number, line in enumerate(_lines(root, path), 1):
            match = regex.search(line)
            if match is not None:
                start = max(0, min(match.start() - 100, len(line) - MAX_SHOWN_CHARS))
                found.append(LineMatch(path, number, ("…" if start else "") + capped(line[start:], MAX_SHOWN_CHARS)))
                if len(found) > max_matches:
                    return Matches(found[:max_matches], max_matches, True, len(files) - len(paths))
    return Matches(found, len(found), False, len(files) - len(paths))


def _lines(root: Root, path: str) -> list[str]:
    try:
        data = read_text_bytes(root.path / path, path)
    except BadRepoPath:
        return []  # gone or closed to us since it was listed
    return lines_of(decoded(data)) if data is not None else []


def _worth_reading(root: Root, pattern: str, paths: Sequence[str], clock: Clock, ripgrep: str | None) -> Iterable[str]:
    program = shutil.which("rg") if ripgrep is None else ripgrep
    wider = widened(pattern)
    return _candidates(program, wider, root.path, paths, clock) if program and wider else paths


def _candidates(program: str, pattern: str, root: Path, paths: Sequence[str], clock: Clock) -> Iterator[str]:
    options = (
        "--no-config",
        "--text",
        "--encoding=none",
        "--files-with-matches",
        "--null",
        "--no-messages",
        "--no-ignore",
    )
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        command = (program, *options, "--hidden", "-e", pattern, "--", *(f"./{path}" for path in batch))
        ran = run(command, root, {"LC_ALL": "C.UTF-8"}, clock, _MAX_OUTPUT)
        if ran.code in (0, 1) and not ran.cut:
            hits = {name.decode("utf-8").removeprefix("./") for name in ran.output.split(b"\0") if name}
            yield from (path for path in batch if path in hits)
        else:
            yield from batch


def widened(pattern: str) -> str | None:
    """An expression for ripgrep that matches wherever ``pattern`` matches within a line; None when there is none.

    Anchors become empty, since lines end differently for ripgrep; classes lose their Unicode.
    """
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            return None
        position = token.end()
        if token["anchor"]:
            parts.append("(?:)")
        elif token["class"]:
            parts.append(f"(?-u:{token[0]})")
        else:
            parts.append(_ANY if token["any"] else token[0])
    return "".join(parts)
