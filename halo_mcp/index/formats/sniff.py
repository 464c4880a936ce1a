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
_LINE_BYTES: Final = 16 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


def why_not_traces(path: Path) -> str:
    """In a few words, what a file without readable spans is instead. Raises: OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(len(head) - len(head.removeprefix(_BOM).lstrip()))
        first = file.readline(_LINE_BYTES)
        followed = file.read(1) != b""
    if not first.strip():
        return "it is empty"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if b"\x00" in head:
        return "it is a binary file"
    otlp = " of OTLP export requests" if b'"resourceSpans"' in head else ""
    if first.startswith(b"[") and (not followed or not first.rstrip().endswith(b"]")):
        return f"it is one JSON array{otlp}, not JSON lines"
    if first.strip() == b"{":
        return f"it is one pretty-printed JSON object{otlp}, not JSON lines"
    if not followed and not first.endswith((b"\n", b"}")):
        return "its only line is incomplete"
    problem = read_line(first).problem or "no span"
    return f"its first line is {'not a span: ' if problem.startswith('no ') else ''}{problem}"
