"""OTLP JSON in all shapes that exporters, collectors and back ends write.

An export request, an array of them, or one a line; ``resourceSpans`` as well as Tempo's ``batches``, ``scopeSpans`` as
well as the old ``instrumentationLibrarySpans``; or bare ResourceSpans. Also protobuf's snake_case names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.otlp import is_request, never_silent, request_spans
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.values import per_record
from halo_mcp.index.span import as_mapping


def _sniff(head: Head) -> bool:
    return any(is_request(value) or is_request(as_mapping(value.get("trace"))) for value in head.objects)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    return per_record(file.values(), report, lambda value: never_silent(request_spans(value, report), report))


FORMAT: Final = Format(
    name="otlp-json",
    title="OTLP JSON",
    description="export requests: one object, an array, or JSON lines; `resourceSpans`, Tempo's `batches`, "
    "`instrumentationLibrarySpans`, bare ResourceSpans",
    sniff=_sniff,
    convert=_convert,
    resumable=True,
)
