"""What a file is, from its first bytes; never from its name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from halo_mcp.index.formats.canonical import is_span, read_line
from halo_mcp.index.formats.head import Head, read_head

_BINARY: Final = (
    (b"PAR1", "it is a Parquet file"),
    (b"SQLite format 3", "it is an SQLite database"),
    (b"ustar", "it is a tar archive; unpack it first"),
    (b"%PDF", "it is a PDF"),
)
_LINE_BYTES: Final = 16 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_TAR_MAGIC_AT: Final = 257


def is_canonical(head: Head) -> bool:
    """Whether these are canonical JSON lines, perhaps with damaged ones among them."""
    return head.shape == "lines" and any(is_span(value) for value in head.values)


def why_unknown(head: Head) -> str | None:
    """What a file of no known format is that cannot be read as lines of text; None when it can."""
    if head.shape == "zip":
        if not head.names:
            return "it is a zip archive, and damaged, cut off or empty"
        return "it is a zip archive of no known format; unpack it first"
    packed = f"{head.compression}-compressed" if head.compression else ""
    for magic, what in _BINARY:
        if head.data.startswith(magic) or head.data.startswith(magic, _TAR_MAGIC_AT):
            return f"{what} ({packed})" if packed else what
    if packed:
        if not head.data:
            return f"it is {packed}, and damaged or empty"
        return f"it is {packed}, and its content is of no known format"
    return "it is a binary file" if b"\x00" in head.data else None


def why_not_traces(path: Path) -> str:
    """In a few words, what a file without readable spans is instead. Raises: OSError."""
    head = read_head(path)
    if why := why_unknown(head):
        return why
    if head.shape == "array":
        return "it is one JSON array of no known format"
    if head.shape == "document":
        return "it is one JSON object of no known format"
    with path.open("rb") as file:
        file.seek(len(head.data) - len(head.data.lstrip()) + (len(_BOM) if file.read(3) == _BOM else 0))
        first = file.readline(_LINE_BYTES)
        followed = file.read(1) != b""
    if not first.strip():
        return "it is empty"
    if not followed and not first.endswith((b"\n", b"}")):
        return "its only line is incomplete"
    problem = read_line(first).problem or "no span"
    return f"its first line is {'not a span: ' if problem.startswith('no ') else ''}{problem}"
