"""Canonical spans that are not JSON lines: one JSON array of them, or one object over several lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from halo_mcp.index.formats.canonical import is_span
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.span import as_list


def _sniff(head: Head) -> bool:
    return head.shape in ("array", "document") and any(is_span(value) for value in head.objects)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    for value in file.values():
        for item in as_list(value) or [value]:
            if is_span(item):
                yield item
            else:
                report.skip("not a span: it has no trace_id or no span_id")


FORMAT: Final = Format(
    name="canonical-json",
    title="Canonical JSON",
    description="canonical spans as one JSON array, or as one object over several lines",
    sniff=_sniff,
    convert=_convert,
)
