"""Whether ``path:line`` citations hold: the file is there, the line is there, and the quoted text stands on it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal

from halo_mcp.errors import BadRepoPath
from halo_mcp.repo.root import Root, decoded, lines_of
from halo_mcp.repo.text import capped
from halo_mcp.repo.walk import Clock, walk

if TYPE_CHECKING:
    from halo_mcp.index.quotes import Quote, Tier

CitationVerdict = Literal[
    "exact", "normalised", "loose", "moved", "exists", "missing", "no_line", "no_file", "refused", "unchecked"
]
"""The first three: the quote stands on the cited lines. Moved: it stands on other lines of the file. Exists: there was
no quote, and the lines are there. Missing: the quote is nowhere in the file. Refused: no file that tools read.
Unchecked: given by callers who did not come to it."""
CONFIRMED: Final[frozenset[CitationVerdict]] = frozenset(("exact", "normalised", "loose", "moved", "exists"))
_MAX_SHOWN_CHARS: Final = 500
_IN_PROSE: Final = re.compile(
    r"(?<![\w./:@-]) (?P<path> (?:\.?/)? (?: [\w.@+-]+/ )*"
    r" (?: [\w@+-]* (?:\.[\w-]+)* \.[A-Za-z]\w* | Makefile | Dockerfile ))"
    r" :L? (?P<line>\d{1,7}) (?: [-–] L? (?P<end>\d{1,7}) )? (?![\w:]|\.\d)",
    re.VERBOSE,
)
_MAX_PLACES: Final = 100
"""Of a quote with ellipses, which may be put together in very many ways."""
_NUMBERED: Final = re.compile(r"(?m)^ *\d+\t")
"""What read_file writes before a line."""


@dataclass(frozen=True, slots=True)
class Citation:
    """Lines of a file, from 1, both included, and what is said to stand there."""

    path: str
    line: int
    end_line: int
    quote: str = ""


@dataclass(frozen=True, slots=True)
class CheckedCitation:
    """What became of a citation."""

    cited: Citation
    verdict: CitationVerdict
    path: str = ""
    """The file, corrected; "" when there is none."""
    line: int = 0
    """Where the quote stands; else the cited line; 0 when there is none."""
    end_line: int = 0
    line_text: str = ""
    """What stands on ``line``, at most 500 characters."""
    reason: str = ""

    @property
    def corrected(self) -> bool:
        """The place to cite is another than the one given."""
        return self.verdict in CONFIRMED and (self.path, self.line) != (self.cited.path, self.cited.line)


def citations_in(prose: str) -> list[Citation]:
    """``path:line`` and ``path:line-line`` in a text, each once, in order. Times, addresses and URLs are none."""
    found: dict[Citation, None] = {}
    for match in _IN_PROSE.finditer(prose):
        line = int(match["line"])
        found[Citation(match["path"].removeprefix("./"), line, max(line, int(match["end"] or 0)))] = None
    return list(found)


def check_citations(root: Root, citations: Iterable[Citation]) -> list[CheckedCitation]:
    """One result for each citation, in order. Raises DeadlineExceeded."""
    clock = Clock()
    files: dict[str, tuple[str, list[str]] | CheckedCitation] = {}
    checked: list[CheckedCitation] = []
    for cited in citations:
        clock.left()
        if cited.path not in files:
            files[cited.path] = _file(root, cited, clock)
        file = files[cited.path]
        if isinstance(file, CheckedCitation):
            checked.append(CheckedCitation(cited, file.verdict, reason=file.reason))
        else:
            checked.append(_checked(cited, *file))
    return checked


def _file(root: Root, cited: Citation, clock: Clock) -> tuple[str, list[str]] | CheckedCitation:
    """The path and lines of the file that is meant, or why there is none."""
    try:
        path = root.resolve(cited.path).relative_to(root.path).as_posix()
    except BadRepoPath as error:
        alike = _meant(root, cited.path, clock)
        if len(alike) != 1:
            listed = f" Several end alike: {', '.join(alike[:5])}." if alike else ""
            return CheckedCitation(cited, "no_file", reason=f"{error}{listed}")
        path = alike[0]
    try:
        return path, lines_of(decoded(root.read(path)))
    except BadRepoPath as error:
        return CheckedCitation(cited, "refused", reason=str(error))


def _meant(root: Root, path: str, clock: Clock) -> list[str]:
    """Files of which only the end was cited, or more than the path: traces name files as they lie in a container."""
    cited = "/" + path.replace("\\", "/").strip("/")
    if "/../" in cited + "/":
        return []
    files = [entry.path for entry in walk(root, clock) if not entry.directory]
    longer = [file for file in files if f"/{file}".endswith(cited)]
    shorter = [file for file in files if cited.endswith(f"/{file}")]
    return longer or [file for file in shorter if len(file) == max(map(len, shorter))]


def _checked(cited: Citation, path: str, lines: Sequence[str]) -> CheckedCitation:
    from halo_mcp.index.quotes import MIN_CHARS, TIERS, Quote

    def at(verdict: CitationVerdict, start: int, end: int, reason: str = "") -> CheckedCitation:
        return CheckedCitation(cited, verdict, path, start, end, capped(lines[start - 1], _MAX_SHOWN_CHARS), reason)

    there = 1 <= cited.line <= cited.end_line <= len(lines)
    quote = Quote(_NUMBERED.sub("", cited.quote).strip("\n"))
    if quote.text.strip():
        for tier in TIERS:
            places = list(_places(lines, quote, tier))
            for start, end in places:
                if start <= cited.end_line and end >= cited.line:
                    return at(tier, cited.line if there else start, cited.end_line if there else end)
            if places and quote.alphanumeric_count >= MIN_CHARS:
                start, end = min(places, key=lambda place: abs(place[0] - cited.line))
                more = f", and {len(places) - 1} more times" if len(places) > 1 else ""
                return at("moved", start, end, f"The text stands on line {start}{more}.")
    if not there:
        reason = f"The file has {len(lines)} lines."
        return CheckedCitation(cited, "no_line", path, reason=reason)
    if not quote.text.strip():
        return at("exists", cited.line, cited.end_line)
    return at("missing", cited.line, cited.end_line, "The cited lines do not say this, nor does the file elsewhere.")


def _places(lines: Sequence[str], quote: Quote, tier: Tier) -> Iterator[tuple[int, int]]:
    """First and last line (from 1) of every place where the quote stands, in this way of matching."""
    from halo_mcp.index.quotes import alphanumerics, normalised

    if tier == "exact":
        text, starts, needles = "\n".join(lines), _starts(lines, 1), (quote.text,)
    elif tier == "normalised":
        # A line that is blank takes no part: any white space counts as one space.
        spelled = [f"{line} " if line else "" for line in map(normalised, lines)]
        text, starts, needles = "".join(spelled), _starts(spelled, 0), (quote.normalised,)
        if needles[0] not in text:
            needles = quote.segments
    else:
        spelled = [alphanumerics(normalised(line)) for line in lines]
        text, starts, needles = "".join(spelled), _starts(spelled, 0), quote.loose
    position, places = 0, 0
    while needles and needles[0] and (span := _span(text, needles, position)):
        places += 1
        if len(needles) > 1 and places > _MAX_PLACES:
            return
        yield bisect_right(starts, span[0]), bisect_right(starts, span[1] - 1)
        position = span[0] + 1


def _starts(lines: Sequence[str], between: int) -> list[int]:
    """Where each line starts in all of them joined."""
    return list(accumulate((len(line) + between for line in lines[:-1]), initial=0))


def _span(text: str, needles: Sequence[str], position: int) -> tuple[int, int] | None:
    """From the first needle to the end of the last, each after the one before."""
    start, end = -1, position
    for needle in needles:
        found = text.find(needle, end)
        if found < 0:
            return None
        start = found if start < 0 else start
        end = found + len(needle)
    return start, end
