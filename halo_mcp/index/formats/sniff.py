"""What a file is, from its first bytes; never from its name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from halo_mcp.index.formats.canonical import read_line

_MAGIC: Final = (
    (b"\x1f\x8b", "it is gzip-compressed; decompress it first (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "it is zstd-compressed; decompress it first (unzstd)"),
    (b"PK\x03\x04", "it is a zip archive; unpack it first"),
    (b"BZh", "it is bzip2-compressed; decompress it first (bunzip2)"),
    (b"PAR1", "it is a Parquet file"),
    (b"SQLite format 3", "it is an SQLite database"),
)
_HEAD_BYTES: Final = 64 * 1024


def why_not_traces(path: Path) -> str:
    """In a few words, what a file without readable spans is instead. Raises: OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        return "it is empty"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if b"\x00" in head:
        return "it is a binary file"
    first = next(line for line in head.splitlines() if line.strip())
    if head.lstrip().startswith(b"[") and len(head.splitlines()) > 1:
        return "it is one JSON array, not JSON lines"
    if first.strip() == b"{":
        return "it is one pretty-printed JSON object, not JSON lines"
    return f"its first line is {read_line(first).problem or 'no span'}"
