"""Which files .gitignore files exclude, and glob patterns as RE2 expressions.

Patterns as in gitignore(5). Only .gitignore files under the root count, tracked files are no exception, and a pattern
that cannot be used excludes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from halo_mcp.errors import InvalidPattern

if TYPE_CHECKING:
    from halo_mcp.index.patterns import Regex

_MAX_BYTES: Final = 1 << 20
_MAX_EXPRESSION: Final = 1_900
# What one compiled expression may hold: the limit of patterns, less the group around it.
_PIECE: Final = re.compile(
    r"""
      (?P<lead>^\*\*/) | (?P<between>/\*\*/) | (?P<tail>/\*\*$) | (?P<stars>\*+) | (?P<any>\?)
    | (?P<class>\[ (?P<not>[!^])? (?P<members>\]?(?:\\.|\[:\w+:\]|[^\]\\])*) \] )
    | \\(?P<escaped>.) | (?P<literal>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns of one .gitignore that follow each other and say the same."""

    negated: bool
    regex: Regex
    """Matches a path relative to the .gitignore's directory, with a slash at the end when it is a directory."""


class Ignores:
    """What the .gitignore files under a root say. They are read when first needed, once in a walk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rules: dict[str, list[Rules]] = {}

    def ignored(self, path: str, *, directory: bool) -> bool:
        """Whether ``path``, or a directory it is in, is excluded."""
        parts = path.split("/")
        parents = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return any(self.entry_ignored(parent, directory=True) for parent in parents) or self.entry_ignored(
            path, directory=directory
        )

    def entry_ignored(self, path: str, *, directory: bool) -> bool:
        """Whether ``path`` is excluded, given that no directory it is in is."""
        subject = path + "/" if directory else path
        at = len(path)
        while at > 0:  # the nearest .gitignore decides, in it the last pattern
            at = path.rfind("/", 0, at)
            for rules in reversed(self._of(path[: max(at, 0)])):
                if rules.regex.search(subject[at + 1 :]):
                    return not rules.negated
        return False

    def _of(self, directory: str) -> list[Rules]:
        if directory not in self._rules:
            self._rules[directory] = list(_rules(_read(self._root / directory / ".gitignore")))
        return self._rules[directory]


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, UnicodeError):
        return ""  # most directories have none, and git does not follow a symlink here
    with open(descriptor, "rb") as file:
        return file.read(_MAX_BYTES).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""


def _rules(text: str) -> Iterator[Rules]:
    pending: list[str] = []
    negated = False
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = re.sub(r"(?<!\\)[ \t]+$", "", line.removesuffix("\r"))
        if not pattern or pattern.startswith("#"):
            continue
        says_not = pattern.startswith("!")
        expression = _ignore_expression(pattern.removeprefix("!"))
        if pending and (
            says_not != negated or sum(map(len, pending)) + len(pending) + len(expression) > _MAX_EXPRESSION
        ):
            yield from _compiled(pending, negated)
            pending = []
        negated = says_not
        pending.append(expression)
    yield from _compiled(pending, negated)


def _compiled(expressions: list[str], negated: bool) -> Iterator[Rules]:
    from halo_mcp.index.patterns import compile_pattern  # it loads RE2

    try:
        if expressions:
            yield Rules(negated, compile_pattern("|".join(expressions)).text)
    except InvalidPattern:
        if len(expressions) > 1:
            for expression in expressions:
                yield from _compiled([expression], negated)


def _ignore_expression(pattern: str) -> str:
    only_directories = pattern.endswith("/")
    pattern = pattern.rstrip("/") if only_directories else pattern
    start = "^" if "/" in pattern else "(?:^|/)"
    return f"{start}{expression_of(pattern.removeprefix('/'))}{'/' if only_directories else '/?'}$"


def expression_of(glob: str) -> str:
    """An RE2 expression, without anchors, for what ``glob`` matches; ``*``, ``?`` and classes match no slash."""
    parts: list[str] = []
    for piece in _PIECE.finditer(glob):
        if piece["lead"]:
            parts.append("(?:.*/)?")
        elif piece["between"]:
            parts.append("/(?:.*/)?")
        elif piece["tail"]:
            parts.append("/.+")
        elif piece["stars"]:
            parts.append("[^/]*")
        elif piece["any"]:
            parts.append("[^/]")
        elif piece["class"]:
            members = piece["members"].replace("]", r"\]", 1) if piece["members"][:1] == "]" else piece["members"]
            parts.append(f"[{'^/' if piece['not'] else ''}{members}]")
        else:
            character = piece["escaped"] or piece["literal"]
            parts.append(f"\\{character}" if character in "\\.+*?()|[]{}^$" else character)
    return "".join(parts)
