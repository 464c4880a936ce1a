"""What every format offers, and what it tells about its reading.

A format is a module with one ``FORMAT``, listed in ``table.py``. It decides from content whether a file is of its kind,
and turns the file into canonical span records (``values.span`` builds one). It knows no other format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Final, TypeAlias

from halo_mcp.index.span import Json

if TYPE_CHECKING:
    from halo_mcp.index.formats.head import Head
    from halo_mcp.index.formats.trace_file import TraceFile

SKIPPED_KEPT: Final = 20
"""Skipped records described per source; the rest are only counted."""

Record: TypeAlias = Mapping[str, Json]
"""A canonical span."""

# Kinds of repairs, so that all formats count the same thing under the same name.
RECOVERED: Final = "records recovered from damaged lines"
SYNTHETIC_TIME: Final = "synthetic times"
NULL_END: Final = "null end times"
NO_ZONE: Final = "times without a zone"
CHANGED_IDS: Final = "ids respelled as hex"
MADE_IDS: Final = "ids made up"
MADE_ROOTS: Final = "roots made up"
WRAPPED_CALLS: Final = "model calls recorded twice, the outer one taken as a step"
MOVED_MESSAGES: Final = "spans with messages in events, which became attributes"
REPEATED: Final = "records stored more than once"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that was left out, wholly or in part, and where it stands."""

    reason: str
    line_number: int = 0
    """0: the record is no line."""
    byte_offset: int = 0
    """In the uncompressed text."""
    place: str = ""
    """Where it stands, if that is no line: ``item 17``, ``samples/3.json``."""


@dataclass(slots=True)
class Report:
    """What became of a source's records. A format tells ``skip`` and ``repaired``; the rest is counted for it."""

    records: int = 0
    """Lines, items of an array, or documents read."""
    spans: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    skipped_records: int = 0
    """Records of which nothing was kept, without those that were ignored."""
    bookkeeping: Counter[str] = field(default_factory=Counter[str])
    """Records that tell nothing of a trace, by what they are."""
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    repairs: Counter[str] = field(default_factory=Counter[str])
    line_number: int = 0
    byte_offset: int = 0
    place: str = ""
    """Where the current record is; whoever hands records out sets it."""

    def skip(self, reason: str, *, whole: bool = True, place: str = "") -> None:
        """Count what was left out of the current record: all of it, or with ``whole=False`` a part.

        ``reason`` is a few words without data of the record (equal reasons are counted together); ``place`` tells where
        in the record.
        """
        self.reasons[reason] += 1
        self.skipped_records += whole
        if len(self.skipped) < SKIPPED_KEPT:
            where = " ".join(part for part in (self.place, place) if part)
            self.skipped.append(Skipped(reason, self.line_number, self.byte_offset, where))

    def ignored(self, reason: str) -> None:
        """Count the current record as one that tells nothing of a trace, which is no loss: bookkeeping of the source,
        or what another record says too."""
        self.bookkeeping[reason] += 1

    def as_json(self) -> dict[str, Json]:
        """Everything in it, to be read back by ``from_json``."""
        members: dict[str, Json] = {each.name: getattr(self, each.name) for each in fields(self)}
        return members | {
            "reasons": dict(self.reasons),
            "bookkeeping": dict(self.bookkeeping),
            "repairs": dict(self.repairs),
            "skipped": [asdict(one) for one in self.skipped],
        }

    @staticmethod
    def from_json(members: Mapping[str, Json]) -> Report:
        """What ``as_json`` gave; an empty report from nothing."""
        report = Report(**members)
        report.reasons, report.repairs = Counter(report.reasons), Counter(report.repairs)
        report.bookkeeping = Counter(report.bookkeeping)
        report.skipped = [Skipped(**one) for one in members.get("skipped", ())]
        return report

    def repaired(self, kind: str, count: int = 1) -> None:
        """Count something that was mended: one of the kinds above, or a few words in the plural."""
        self.repairs[kind] += count


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of trace file."""

    name: str
    """Short and lower-case: ``otlp-json``."""
    title: str
    """For people: ``OTLP JSON``."""
    description: str
    """What is read, for the table in docs/formats.md."""
    sniff: Callable[[Head], bool]
    """Whether a file that begins like this is of the format. Never looks at names; called for every unknown file."""
    convert: Callable[[TraceFile, Report], Iterator[Record]]
    """The spans of a file, in any order. Bad records are told to the report, never raised."""
    resumable: bool = False
    """Lines stand for themselves: the spans of a line are yielded before the next line is asked for, and depend on no
    other line. Then only what was appended to a file is converted, and a long conversion is gone on with."""
