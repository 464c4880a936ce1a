"""OTLP in protobuf: one export request, or a stream of them as the OpenTelemetry Collector's file exporter writes it.

In a stream every message stands behind its length, four bytes, big-endian; with ``compression: zstd`` each is
compressed by itself, and then also JSON is written in this way.
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/fileexporter
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

import orjson
from pydantic_core import from_json

from halo_mcp.index.formats.head import HEAD_BYTES, Head
from halo_mcp.index.formats.otlp import is_request, never_silent, request_spans, status_of
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.streams import compression_of, unpacked
from halo_mcp.index.formats.trace_file import DOCUMENT_BYTES_LIMIT, TooLarge, TraceFile
from halo_mcp.index.formats.values import event, given, per_record, span, status_code
from halo_mcp.index.formats.wire import I32, I64, LEN, VARINT, Field, fields, varint
from halo_mcp.index.span import Json, as_mapping

_BATCH_TAG: Final = b"\n"
"""Field 1, of variable length: ``ExportTraceServiceRequest.resource_spans``."""
_LENGTH_BYTES: Final = 4
_CUT_OFF: Final = "cut off"
_NO_REQUEST: Final = "not an OTLP export request: what follows in the message is lost"

# Which fields the messages have, and the one that leads to the spans: opentelemetry/proto/trace/v1/trace.proto.
_REQUEST: Final = {1: LEN}
_BATCH: Final = {1: LEN, 2: LEN, 3: LEN}
_SPAN: Final = {
    **dict.fromkeys((1, 2, 3, 4, 5, 9, 11, 13, 15), LEN),
    **dict.fromkeys((6, 10, 12, 14), VARINT),
    **dict.fromkeys((7, 8), I64),
    16: I32,
}
_WAY: Final = ((_REQUEST, 1), (_BATCH, 2), (_BATCH, 2))
_TRACE_ID, _SPAN_ID, _START = 1, 2, 7
_RESOURCE, _GROUPS = 1, 2
_SCOPE, _SPANS = 1, 2
_ENDLESS: Final = 1 << 62
"""The end of a message whose rest is not at hand."""


class _Batch(NamedTuple):
    """The bytes of a ``ResourceSpans``."""

    payload: bytes


# --- what a file is --------------------------------------------------------------------------------------------------
def _sniff(head: Head) -> bool:
    data = head.data
    if data.startswith(_BATCH_TAG):
        return _has_span(data, _ENDLESS)  # also when the file is cut off
    if len(data) <= _LENGTH_BYTES or head.shape == "zip":
        return False
    length = int.from_bytes(data[:_LENGTH_BYTES])
    message = data[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if compression_of(message):
        message = unpacked(message, HEAD_BYTES)[0]
        return _has_span(message, _ENDLESS) or _is_json_request(message)
    return _has_span(message, length)


def _has_span(data: bytes, end: int) -> bool:
    """Whether it is an export request up to its first span. That has ids of the right length and a start, so that
    requests with metrics or logs, which begin alike, are not meant."""
    try:
        return any(_is_span(data, one) for one in _inner(data, 0, end, 0))
    except ValueError:
        return False


def _inner(data: bytes, begin: int, end: int, depth: int) -> Iterator[Field]:
    known, way = _WAY[depth]
    for field in fields(data, begin, end):
        if known.get(field.number) != field.wire_type:
            raise ValueError("another message")
        if field.number != way:
            continue
        if depth + 1 < len(_WAY):
            yield from _inner(data, field.begin, field.end, depth + 1)
        else:
            yield field


def _is_span(data: bytes, span: Field) -> bool:
    lengths: dict[int, int] = {}
    for field in fields(data, span.begin, span.end):
        if _SPAN.get(field.number) != field.wire_type:
            raise ValueError("another message")
        if field.end <= len(data):
            lengths[field.number] = field.end - field.begin
    return (lengths.get(_TRACE_ID), lengths.get(_SPAN_ID), _START in lengths) == (16, 8, True)


def _is_json_request(text: bytes) -> bool:
    try:
        value = as_mapping(from_json(text, allow_partial=True))
    except ValueError:
        return False
    return is_request(value)


# --- its messages ----------------------------------------------------------------------------------------------------
def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    if file.head.data.startswith(_BATCH_TAG):
        batches = _batches(file.take, lambda number: file.next_record(f"batch {number}"), report)
    else:
        batches = _framed(file, report)
    return per_record(batches, report, lambda batch: never_silent(_spans_of(batch, report), report))


def _spans_of(value: _Batch | Json, report: Report) -> Iterator[Record]:
    return _spans(_parsed(value.payload, report), report) if isinstance(value, _Batch) else request_spans(value, report)


def _framed(file: TraceFile, report: Report) -> Iterator[_Batch | Json]:
    """The batches in all messages of a stream, or JSON requests. Raises: TooLarge."""
    number = 0
    while prefix := file.take(_LENGTH_BYTES):
        number += 1
        length = int.from_bytes(prefix)
        message = file.take(length) if len(prefix) == _LENGTH_BYTES else b""
        if message or not length:
            yield from _in_message(file, message, f"message {number}", report)
        else:
            file.next_record(f"message {number}")
            report.skip(_CUT_OFF)
    report.place = ""


def _in_message(file: TraceFile, message: bytes, place: str, report: Report) -> Iterator[_Batch | Json]:
    if compression_of(message):
        message, damage = unpacked(message, DOCUMENT_BYTES_LIMIT + 1)
        if len(message) > DOCUMENT_BYTES_LIMIT:
            raise TooLarge(f"a message of more than {DOCUMENT_BYTES_LIMIT >> 20} MiB")
        if damage:
            file.next_record(place)
            report.skip(damage)
            return
    if message.startswith((b"{", b"[")):
        file.next_record(place)
        try:
            value: Json = orjson.loads(message)
        except orjson.JSONDecodeError:
            report.skip("neither protobuf nor JSON")
            return
        yield value
        return
    data = io.BytesIO(message)
    yield from _batches(data.read, lambda batch: file.next_record(f"{place} batch {batch}"), report)


def _batches(read: Callable[[int], bytes], next_record: Callable[[int], None], report: Report) -> Iterator[_Batch]:
    """The batches of one request, each read by itself. Raises: TooLarge."""
    number = 0
    while tag := read(1):
        number += 1
        next_record(number)
        length = _length(read) if tag == _BATCH_TAG else None
        if length is None:
            report.skip(_NO_REQUEST)
            return
        payload = read(length)
        if len(payload) < length:
            report.skip(_CUT_OFF, whole=False)
        yield _Batch(payload)


def _length(read: Callable[[int], bytes]) -> int | None:
    """None when there is none."""
    digits = b""
    while digit := read(1):
        digits += digit
        if digit[0] < 0x80:
            return varint(digits, 0)[0]
        if len(digits) == 10:  # the longest that there is
            return None
    return None


def _parsed(payload: bytes, report: Report) -> Any:
    """The ``ResourceSpans``; where it is damaged, with the spans that are not."""
    trace, error = _protobuf()
    try:
        return trace.ResourceSpans.FromString(payload)
    except error:
        return _mended(payload, report)


def _mended(payload: bytes, report: Report) -> Any:
    """What parses, span by span. The rest is reported. Raises: ValueError when no span does."""
    trace, _ = _protobuf()
    batch, number = trace.ResourceSpans(), 0
    try:
        for part in _parts(payload, 0, _ENDLESS):
            if part.number == _RESOURCE:
                _merge(batch.resource, payload, part, "the resource", report)
            elif part.number == _GROUPS:
                group = batch.scope_spans.add()
                for one in _parts(payload, part.begin, part.end):
                    if one.number == _SPANS:
                        number += 1
                        if not _merge(group.spans.add(), payload, one, f"span {number}", report):
                            del group.spans[-1]
                    elif one.number == _SCOPE:
                        _merge(group.scope, payload, one, "the scope", report)
    except ValueError:
        report.skip("damaged: what follows in the batch is lost", whole=False)
    if not any(group.spans for group in batch.scope_spans):
        raise ValueError("damaged, or no OTLP export request")
    return batch


def _parts(payload: bytes, begin: int, end: int) -> Iterator[Field]:
    return (field for field in fields(payload, begin, end) if field.wire_type == LEN)


def _merge(message: Any, payload: bytes, part: Field, place: str, report: Report) -> bool:
    try:
        message.MergeFromString(payload[part.begin : part.end])
    except _protobuf()[1]:
        report.skip(_CUT_OFF if part.end > len(payload) else "damaged", whole=False, place=place)
        return False
    return True


@cache
def _protobuf() -> tuple[Any, type[Exception]]:
    """The messages of traces, and what parsing them raises. Imported late: only such files need it."""
    trace = import_module("opentelemetry.proto.trace.v1.trace_pb2")
    return trace, import_module("google.protobuf.message").DecodeError


# --- its spans -------------------------------------------------------------------------------------------------------
def _spans(batch: Any, report: Report) -> Iterator[Record]:
    resource, number = _attributes(batch.resource.attributes), 0
    for group in batch.scope_spans:
        scope = given({"name": group.scope.name, "version": group.scope.version})
        if group.scope.attributes:
            scope["attributes"] = _attributes(group.scope.attributes)
        for item in group.spans:
            number += 1
            try:
                yield _span(item, resource, scope, report)
            except ValueError as error:
                report.skip(str(error), whole=False, place=f"span {number}")


def _span(item: Any, resource: dict[str, Json], scope: dict[str, Json], report: Report) -> Record:
    attributes = _attributes(item.attributes)
    code, message = status_of(status_code(item.status.code), item.status.message, attributes)
    return span(
        trace_id=item.trace_id.hex(),
        span_id=item.span_id.hex(),
        parent_span_id=item.parent_span_id.hex(),
        name=item.name,
        kind=item.kind,
        start=item.start_time_unix_nano or None,
        end=item.end_time_unix_nano or None,
        status=code,
        message=message,
        attributes=attributes,
        resource=resource,
        scope=scope,
        events=[event(one.name, one.time_unix_nano or None, _attributes(one.attributes)) for one in item.events],
        links=[_link(one) for one in item.links],
        trace_state=item.trace_state,
        report=report,
    )


def _link(item: Any) -> dict[str, Json]:
    ids = {"trace_id": item.trace_id.hex(), "span_id": item.span_id.hex()}
    return ids | {"attributes": _attributes(item.attributes)}


def _attributes(items: Any) -> dict[str, Json]:
    return {item.key: _value(item.value) for item in items}


def _value(value: Any) -> Json:
    """As from JSON: bytes are base64 text."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind) if kind else None


FORMAT: Final = Format(
    name="otlp-protobuf",
    title="OTLP protobuf",
    description="one export request, or the stream of the Collector's file exporter: each message behind its length "
    "in four bytes, with `compression: zstd` compressed by itself, JSON too",
    sniff=_sniff,
    convert=_convert,
)
