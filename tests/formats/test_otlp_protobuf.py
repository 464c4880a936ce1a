"""OTLP in protobuf: single requests, and streams as the Collector's file exporter writes them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mcp.index.formats.head import Head, read_head
from halo_mcp.index.formats.table import named, recognised
from tests.formats.protobuf import as_protobuf, stream
from tests.formats.reading import read
from tests.formats.test_otlp_json import CHILD, ROOT, START, TRACE, attribute, otlp_span, request, resource_spans

EVENT = {
    "name": "exception",
    "timeUnixNano": str(START),
    "attributes": [attribute("exception.message", {"stringValue": "limit must be <= 100"})],
}
ATTRIBUTES = [
    attribute("text", {"stringValue": "grün ☃"}),
    attribute("whole", {"intValue": str(2**53 + 1)}),
    attribute("part", {"doubleValue": 0.5}),
    attribute("flag", {"boolValue": False}),
    attribute("bytes", {"bytesValue": "AP8="}),
    attribute("nothing", {}),
    attribute("list", {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "2"}]}}),
    attribute("map", {"kvlistValue": {"values": [attribute("k", {"arrayValue": {"values": []}})]}}),
]
FULL = otlp_span(
    CHILD,
    ROOT,
    attributes=ATTRIBUTES,
    status={"code": 2, "message": "failed"},
    events=[EVENT],
    links=[{"traceId": TRACE, "spanId": ROOT, "attributes": [attribute("why", {"stringValue": "retry"})]}],
    traceState="a=b",
)
ONE, TWO = request(otlp_span(ROOT)), request(FULL)
BOTH = {"resourceSpans": [resource_spans(otlp_span(ROOT)), resource_spans(FULL)]}
MESSAGES = [as_protobuf(ONE), as_protobuf(TWO)]
JSON_MESSAGES = [json.dumps(ONE).encode(), json.dumps(TWO).encode()]
SHAPES: dict[str, bytes] = {
    "one request": as_protobuf(BOTH),
    "requests one behind the other": b"".join(MESSAGES),
    "a stream": stream(*MESSAGES),
    "a stream of one message": stream(as_protobuf(BOTH)),
    "a stream with an empty message": stream(MESSAGES[0], b"", MESSAGES[1]),
    "a stream of compressed messages": stream(*MESSAGES, compressed=True),
    "a stream of compressed JSON": stream(*JSON_MESSAGES, compressed=True),
}


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
def test_every_shape_holds_the_spans_that_json_holds(content: bytes, packed: Callable[[bytes], bytes]) -> None:
    found = read(packed(content))
    assert found.format == "otlp-protobuf"
    assert found.spans == read(BOTH).spans
    assert found.skipped == []
    assert (found.report.lines_read, found.report.repairs) == (
        2 - (content == SHAPES["a stream of one message"]) * 0,
        {},
    )


def test_a_span_without_times_has_none_and_one_without_an_end_ends_where_it_starts() -> None:
    untimed = otlp_span(ROOT, startTimeUnixNano="0", endTimeUnixNano="0")
    found = read(as_protobuf(request(otlp_span(CHILD, endTimeUnixNano="0"), untimed)))
    assert [(span["start_time"], span["end_time"]) for span in found.spans] == [
        ("2026-03-02T09:00:00.123456789Z", "2026-03-02T09:00:00.123456789Z"),
        ("", ""),
    ]
    assert found.report.repairs == {"null end times": 1}


def test_a_span_without_ids_is_reported_with_its_place() -> None:
    found = read(stream(MESSAGES[0], as_protobuf(request(otlp_span(CHILD, trace=""), otlp_span(CHILD)))))
    assert [span["span_id"] for span in found.spans] == [ROOT, CHILD]
    assert [reason for _, reason in found.skipped] == ["no trace id"]
    assert "message 2 batch 1 span 1" in found.skipped[0][0]


@pytest.mark.parametrize("framed", [False, True])
def test_a_file_that_is_cut_off_gives_what_comes_before(framed: bool) -> None:
    whole = stream(*MESSAGES) if framed else as_protobuf(request(otlp_span(ROOT), FULL))
    found = read(whole[:-20])
    assert [span["span_id"] for span in found.spans] == [ROOT]
    assert "cut off" in found.report.reasons


def test_a_text_that_is_not_utf_8_loses_its_span_only() -> None:
    bad = as_protobuf(request(otlp_span(ROOT), otlp_span(CHILD, name="XXXX"))).replace(b"XXXX", b"\xff\xff\xff\xff")
    found = read(bad)
    assert [span["span_id"] for span in found.spans] == [ROOT]
    assert [reason for _, reason in found.skipped] == ["damaged"]


def test_a_damaged_message_of_a_stream_loses_itself_only() -> None:
    for damaged in (b"\xff" * 50, zstd.compress(MESSAGES[0])[:-5], zstd.compress(b"{nonsense")):
        found = read(stream(MESSAGES[0], damaged, MESSAGES[1]))
        assert [span["span_id"] for span in found.spans] == [ROOT, CHILD]
        assert sum(found.report.reasons.values()) == 1
        assert (found.report.lines_read, found.report.lines_skipped) == (3, 1)


def test_metrics_and_logs_are_no_traces() -> None:
    # Fields 1 and 2 of a metric are texts of any length, those of a span its ids of 16 and 8 bytes.
    scope = b"\x0a\x10process_cpu_time\x12\x08CPU time\x1a\x01s\x3a\x00"
    metric = _field(1, _field(2, _field(2, scope)))
    log = _field(1, _field(2, _field(2, b"\x09" + bytes(8) + b"\x1a\x04INFO")))
    for content in (metric, log, stream(metric), stream(log), stream(log, compressed=True)):
        assert read(content).format != "otlp-protobuf"


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


BEGINNINGS = (b"", b"\n", b"\n\x7f\n", b"\0\0\0\x40\n", b"\0\0\0\x40\n\x30\x12")


@settings(max_examples=200, deadline=None)
@given(
    rest=st.binary(max_size=200),
    begin=st.sampled_from([b"", b"\n", b"\n\x7f\n", b"\0\0\0\x40\n", b"\0\0\0\x40\n\x30\x12"]),
)
def test_random_bytes_are_never_claimed(begin: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(begin + rest)
    found = recognised(read_head(path))
    assert found is None or found.name != "otlp-protobuf"


@pytest.mark.parametrize("begin", [b"\n", b"\0\0\0\x60\n"], ids=["request", "stream"])
def test_of_many_random_files_none_is_claimed(begin: bytes) -> None:
    sniff: Any = named("otlp-protobuf")
    random = Random(7)
    for _ in range(50_000):
        head = Head(begin + random.randbytes(120), True, "", "other", (), ())
        assert not sniff.sniff(head)


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@settings(max_examples=40, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_damage_never_crashes_and_is_told(content: bytes, random: Random) -> None:
    at, width = random.randrange(len(content)), random.choice((0, 1, 4))
    garbage = random.choice((b"", random.randbytes(1), random.randbytes(9), b"\0\0\0\0"))
    found = read(content[:at] + garbage + content[at + width :])
    assert found.spans or found.report.reasons or not found.format
    assert found.report.lines_skipped <= found.report.lines_read
    assert len({(span["trace_id"], span["span_id"]) for span in found.spans}) == len(found.spans)
