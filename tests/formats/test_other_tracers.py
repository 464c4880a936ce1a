"""Jaeger JSON, Zipkin JSON, and what the SDKs of OpenTelemetry print."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

JAEGER = json.loads((SAMPLES / "jaeger.ui.json").read_bytes())
ZIPKIN = json.loads((SAMPLES / "zipkin.traces.json").read_bytes())
REAL = Path(__file__).parents[3] / "shared" / "data" / "openai-agents"


def test_a_span_of_jaeger_becomes_a_canonical_one() -> None:
    found = read(JAEGER).by_id["0f00000000000002"]
    assert (found["parent_span_id"], found["name"]) == ("0f00000000000001", "execute_tool find")
    assert (found["start_time"], found["end_time"]) == (
        "2026-03-02T09:00:00.500000000Z",
        "2026-03-02T09:00:00.500005000Z",
    )
    assert found["status"] == {"code": "STATUS_CODE_ERROR", "message": "no"}
    assert found["resource"] == {"attributes": {"host.name": "h", "service.name": "shop"}}
    assert found["scope"] == {"name": "lib"}
    assert found["attributes"]["n"] == 7
    assert found["attributes"]["jaeger.warnings"] == ["clock skew"]
    assert [event["name"] for event in found["attributes"]["otel.events"]] == ["exception"]
    assert [link["span_id"] for link in found["attributes"]["otel.links"]] == ["0f00000000000009"]
    assert read(JAEGER).by_id["0f00000000000001"]["kind"] == "SPAN_KIND_SERVER"


def test_traces_and_spans_of_jaeger_without_the_answer_around_them() -> None:
    (trace,) = JAEGER["data"]
    wanted = read(JAEGER).spans
    for shape in (read(trace), read([trace]), read_lines(trace)):
        assert (shape.format, shape.spans) == ("jaeger", wanted)
    process = trace["processes"]["p1"]
    assert read_lines(*({**one, "process": process} for one in trace["spans"])).spans == wanted


def test_a_tag_that_says_there_was_no_error_is_none() -> None:
    (trace,) = JAEGER["data"]
    span = trace["spans"][0] | {"tags": [{"key": "error", "type": "bool", "value": False}]}
    assert read({"data": [trace | {"spans": [span]}]}).span["status"]["code"] == "STATUS_CODE_UNSET"


def test_a_span_of_zipkin_becomes_a_canonical_one() -> None:
    found = read(ZIPKIN).by_id["a100000000000001"]
    assert (found["kind"], found["status"]) == (
        "SPAN_KIND_CLIENT",
        {"code": "STATUS_CODE_ERROR", "message": "rate limited"},
    )
    assert (found["start_time"], found["end_time"]) == (
        "2026-03-02T09:00:00.000001000Z",
        "2026-03-02T09:00:00.001501000Z",
    )
    assert found["resource"] == {"attributes": {"service.name": "shop"}}
    assert found["attributes"]["zipkin.remote.serviceName"] == "llm"
    assert found["attributes"]["otel.events"][0]["name"] == "first token"


def test_both_sides_of_a_shared_span_of_zipkin_are_kept() -> None:
    client = ZIPKIN[0][0]
    shared = {"kind": "SERVER", "shared": True, "localEndpoint": {"serviceName": "llm"}, "tags": {}}
    found = read([client, client | shared])
    server = found.by_id["a100000000000001-server"]
    assert (server["parent_span_id"], server["status"]["code"]) == ("a100000000000001", "STATUS_CODE_UNSET")
    assert server["attributes"]["source.span_id"] == "a100000000000001"


def test_a_span_of_zipkin_that_did_not_end_is_counted() -> None:
    assert read(ZIPKIN).report.repairs == {NULL_END: 1}


def test_spans_of_zipkin_in_one_array_or_as_lines() -> None:
    flat = [span for trace in ZIPKIN for span in trace]
    assert read(flat).spans == read_lines(*flat).spans == read(ZIPKIN).spans


def test_a_span_as_an_sdk_prints_it(tmp_path: Path) -> None:
    found = read_file(SAMPLES / "otel-sdk.console.json", tmp_path).span
    assert (found["trace_id"], found["span_id"], found["parent_span_id"]) == (
        "d0000000000000000000000000000001",
        "d000000000000001",
        "d000000000000009",
    )
    assert (found["kind"], found["status"]) == ("SPAN_KIND_CLIENT", {"code": "STATUS_CODE_ERROR", "message": "no"})
    assert found["resource"] == {"attributes": {"service.name": "shop"}}


def test_integer_nanoseconds_and_agents_of_hand_written_spans(tmp_path: Path) -> None:
    found = read_file(SAMPLES / "otel-sdk.file.json", tmp_path).span
    assert found["start_time"] == "2026-03-02T09:00:00.000001000Z"
    assert found["attributes"]["agent.name"] == "Writer"


def test_a_store_counts_the_spans_of_both(tmp_path: Path) -> None:
    store = open_store(tmp_path, SAMPLES / "jaeger.ui.json", SAMPLES / "zipkin.traces.json")
    assert (store.info().total_traces, store.info().total_spans) == (3, 4)


def test_real_spans_of_an_sdk_are_read_in_full(tmp_path: Path) -> None:
    for path in REAL.glob("otel_*.json"):
        found = read_file(path, tmp_path)
        raw = {one["context"]["span_id"]: one for one in json.loads(path.read_bytes())["spans"]}
        assert found.by_id.keys() == raw.keys()
        assert {key: one["parent_span_id"] or None for key, one in found.by_id.items()} == {
            key: one["parent_id"] for key, one in raw.items()
        }
        assert found.report.problems == []
