"""OTLP JSON, in the shapes that exporters, collectors and back ends write."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.formats.protocol import CHANGED_IDS, MOVED_MESSAGES, NULL_END
from halo_mcp.index.work import Work
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

TRACE, ROOT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
START = 1_772_442_000_123_456_789
REAL = Path(__file__).parents[3] / "shared" / "data" / "otlp-json"


def attribute(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def otlp_span(span_id: str = ROOT, parent: str = "", trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "traceId": trace,
        "spanId": span_id,
        "parentSpanId": parent,
        "name": "chat m",
        "kind": 3,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 1),
        "attributes": [attribute("gen_ai.operation.name", {"stringValue": "chat"})],
        "status": {},
    }
    return record | fields


def resource_spans(*spans: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    return {
        "resource": {"attributes": [attribute("service.name", {"stringValue": service})]},
        "scopeSpans": [{"scope": {"name": "lib", "version": "2"}, "spans": list(spans)}],
    }


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [resource_spans(*spans)]}


def test_a_span_becomes_a_canonical_one() -> None:
    found = read(request(otlp_span(CHILD, ROOT)))
    assert found.format == "otlp-json"
    assert found.span == {
        "trace_id": TRACE,
        "span_id": CHILD,
        "parent_span_id": ROOT,
        "trace_state": "",
        "name": "chat m",
        "kind": "SPAN_KIND_CLIENT",
        "start_time": "2026-03-02T09:00:00.123456789Z",
        "end_time": "2026-03-02T09:00:00.123456790Z",
        "status": {"code": "STATUS_CODE_UNSET", "message": ""},
        "resource": {"attributes": {"service.name": "shop"}},
        "scope": {"name": "lib", "version": "2"},
        "attributes": {"gen_ai.operation.name": "chat"},
    }


def test_every_shape_holds_the_same_spans() -> None:
    one, two = otlp_span(ROOT), otlp_span(CHILD, ROOT)
    both = [resource_spans(one), resource_spans(two)]
    old = {
        "resource": both[0]["resource"],
        "instrumentationLibrarySpans": [
            {"instrumentationLibrary": {"name": "lib", "version": "2"}, "spans": [one, two]}
        ],
    }
    wanted = read_lines(request(one), request(two)).spans
    assert [span["span_id"] for span in wanted] == [ROOT, CHILD]
    for shape in (
        read({"resourceSpans": both}),
        read({"resourceSpans": both}, indent=2),
        read([request(one), request(two)]),
        read([request(one), request(two)], indent=1),
        read({"batches": both}, indent=4),
        read({"trace": {"resourceSpans": both}}),
        read({"resourceSpans": [old]}),
        read(old),
        read_lines(*both),
        read_lines([request(one)], [request(two)]),
    ):
        assert shape.format == "otlp-json"
        assert shape.spans == wanted


def test_names_of_protobuf_are_understood() -> None:
    item = {
        "trace_id": TRACE,
        "span_id": ROOT,
        "start_time_unix_nano": START,
        "end_time_unix_nano": START,
        "name": "a",
        "kind": "SPAN_KIND_SERVER",
    }
    found = read({"resource_spans": [{"scope_spans": [{"spans": [item]}]}]}).span
    assert (found["trace_id"], found["kind"]) == (TRACE, "SPAN_KIND_SERVER")
    assert found["start_time"] == "2026-03-02T09:00:00.123456789Z"


def test_an_id_in_base64_is_the_same_id_in_hex_and_the_original_is_kept() -> None:
    spelled = {
        "trace": base64.b64encode(bytes.fromhex(TRACE)).decode(),
        "span_id": base64.b64encode(bytes.fromhex(CHILD)).decode(),
    }
    found = read_lines(request(otlp_span(ROOT)), request(otlp_span(parent=ROOT, **spelled)))
    assert {span["trace_id"] for span in found.spans} == {TRACE}
    respelled = found.by_id[CHILD]
    assert respelled["attributes"]["source.trace_id"] == spelled["trace"]
    assert respelled["attributes"]["source.span_id"] == spelled["span_id"]
    assert "source.trace_id" not in found.by_id[ROOT]["attributes"]
    assert found.report.repairs == {CHANGED_IDS: 1}


def test_attributes_of_every_type() -> None:
    values: dict[str, Any] = {
        "text": {"stringValue": "a"},
        "digits": {"intValue": "9007199254740993"},
        "number": {"intValue": 5},
        "half": {"doubleValue": 0.5},
        "yes": {"boolValue": True},
        "list": {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "2"}]}},
        "nothing": {"arrayValue": {}},
        "object": {"kvlistValue": {"values": [attribute("k", {"arrayValue": {"values": [{"boolValue": False}]}})]}},
        "bytes": {"bytesValue": "aGk="},
        "null": {},
        "plain": "not an AnyValue",
    }
    listed = [attribute(key, value) for key, value in values.items()]
    assert read(request(otlp_span(attributes=listed))).span["attributes"] == {
        "text": "a",
        "digits": 9007199254740993,
        "number": 5,
        "half": 0.5,
        "yes": True,
        "list": ["x", 2],
        "nothing": [],
        "object": {"k": [False]},
        "bytes": "aGk=",
        "null": None,
        "plain": "not an AnyValue",
    }


@pytest.mark.parametrize(
    "status, code",
    [
        ({}, "UNSET"),
        (None, "UNSET"),
        ({"code": 0}, "UNSET"),
        ({"code": 1}, "OK"),
        ({"code": "STATUS_CODE_OK"}, "OK"),
        ({"code": 2, "message": "no"}, "ERROR"),
        ({"code": "STATUS_CODE_ERROR"}, "ERROR"),
    ],
)
def test_statuses(status: Any, code: str) -> None:
    assert read(request(otlp_span(status=status))).span["status"]["code"] == f"STATUS_CODE_{code}"


def test_events_and_links_are_kept() -> None:
    events = [
        {
            "timeUnixNano": str(START),
            "name": "exception",
            "attributes": [attribute("exception.type", {"stringValue": "KeyError"})],
        }
    ]
    links: list[Any] = [{"traceId": TRACE, "spanId": CHILD, "attributes": []}]
    found = read(request(otlp_span(events=events, links=links))).span["attributes"]
    assert found["otel.events"] == [
        {"name": "exception", "time": "2026-03-02T09:00:00.123456789Z", "attributes": {"exception.type": "KeyError"}}
    ]
    assert found["otel.links"] == [{"trace_id": TRACE, "span_id": CHILD, "attributes": {}}]


def test_a_span_without_an_end_ends_where_it_starts_and_is_counted() -> None:
    found = read(request(otlp_span(endTimeUnixNano="0")))
    assert found.span["end_time"] == found.span["start_time"]
    assert found.report.repairs == {NULL_END: 1}


def test_bad_spans_are_told_and_do_not_stop_the_others() -> None:
    found = read_lines(
        request(otlp_span(ROOT), {"name": "no ids"}, cast("Any", 7), otlp_span(attributes=[1])),
        b"nonsense",
        {"resourceMetrics": []},
        request(otlp_span(CHILD)),
    )
    assert sorted(found.by_id) == [CHILD, ROOT]
    assert [(where.split(" (")[0], why) for where, why in found.skipped] == [
        ("line 1", "no trace id"),
        ("line 1", "a span not shaped as expected (TypeError)"),
        ("line 1", "a span not shaped as expected (TypeError)"),
        ("line 2", "not JSON: unreadable"),
        ("line 3", "not an OTLP export request: no resourceSpans"),
    ]
    assert (found.report.lines_read, found.report.lines_skipped) == (4, 2)


def test_a_span_with_names_of_both_spellings_is_read() -> None:
    mixed = otlp_span(ROOT)
    mixed |= {"trace_id": mixed.pop("traceId"), "start_time_unix_nano": mixed.pop("startTimeUnixNano")}
    assert read(json.dumps(request(mixed))).by_id == read(json.dumps(request(otlp_span(ROOT)))).by_id


def test_requests_glued_on_one_line_are_all_read() -> None:
    glued = json.dumps(request(otlp_span(ROOT))) + json.dumps(request(otlp_span(CHILD)))
    assert sorted(read(glued).by_id) == [CHILD, ROOT]


def test_a_cut_array_keeps_the_items_before_the_cut() -> None:
    text = json.dumps([request(otlp_span(ROOT)), request(otlp_span(CHILD))])
    found = read(text[:-30])
    assert list(found.by_id) == [ROOT]
    assert found.skipped == [("item 2", "cut off or not JSON: what follows in the array is lost")]


def test_spans_of_one_trace_are_joined_across_lines_and_files(tmp_path: Path) -> None:
    spelled = base64.b64encode(bytes.fromhex(TRACE)).decode()
    parent = base64.b64encode(bytes.fromhex(ROOT)).decode()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text(json.dumps(request(otlp_span(CHILD, parent, spelled)), indent=2))
    (tmp_path / "runs" / "b.jsonl").write_text(json.dumps(request(otlp_span(ROOT))) + "\n")
    store = open_store(tmp_path, tmp_path / "runs")
    trace = store.trace(TRACE)
    assert (trace.span_count, trace.missing_parent_count) == (2, 0)
    assert sorted(payload.span_id for payload in store.payloads(TRACE)) == [CHILD, ROOT]


@pytest.mark.parametrize("path", sorted(REAL.glob("*.json")), ids=lambda path: path.stem)
def test_real_exports_are_read_in_full(path: Path, tmp_path: Path) -> None:
    found = read_file(path, tmp_path)
    assert len(found.spans) == path.read_bytes().count(b'"spanId"') - path.read_bytes().count(b'"links"')
    assert found.report.problems == []


NOTHING: list[dict[str, Any]] = [
    {"resourceSpans": []},
    {"resourceSpans": [{"scopeSpans": [{}]}]},
    {"resourceSpans": [{"scopeSpans": {"spans": []}}]},
]


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_request_without_spans_is_told(nothing: dict[str, Any]) -> None:
    found = read_lines(request(otlp_span()), nothing)
    assert len(found.spans) == found.report.lines_skipped == sum(found.report.reasons.values()) == 1


def told_event(name: str, **attributes: str) -> dict[str, Any]:
    return {
        "name": name,
        "timeUnixNano": str(START),
        "attributes": [attribute(key, {"stringValue": value}) for key, value in attributes.items()],
    }


def test_messages_in_events_become_attributes_and_are_kept_once() -> None:
    asked, answered = (
        told_event("gen_ai.user.message", content="Where is it?"),
        told_event("gen_ai.choice", message="In the shop.", finish_reason="end_turn"),
    )
    other = told_event("retried", attempt="2")
    found = read(request(otlp_span(events=[asked, other, answered])))
    attributes = found.span["attributes"]
    assert json.loads(attributes["gen_ai.input.messages"]) == [{"role": "user", "content": "Where is it?"}]
    assert json.loads(attributes["gen_ai.output.messages"]) == [{"role": "assistant", "content": "In the shop."}]
    assert json.loads(attributes["gen_ai.response.finish_reasons"]) == ["end_turn"]
    assert [event["name"] for event in attributes["otel.events"]] == ["retried"]
    assert found.report.repairs == {MOVED_MESSAGES: 1}


def test_messages_in_attributes_go_before_those_in_events() -> None:
    said = attribute("gen_ai.input.messages", {"stringValue": '[{"role": "user", "content": "short"}]'})
    asked = told_event("gen_ai.user.message", content="long")
    found = read(request(otlp_span(attributes=[said], events=[asked])))
    assert json.loads(found.span["attributes"]["gen_ai.input.messages"])[0]["content"] == "short"
    assert [event["name"] for event in found.span["attributes"]["otel.events"]] == ["gen_ai.user.message"]
    assert not found.report.repairs


def test_columns_and_rules_see_what_only_events_tell(tmp_path: Path) -> None:
    tool = [attribute("gen_ai.operation.name", {"stringValue": "execute_tool"})]
    called = [
        told_event("gen_ai.tool.message", content='{"q": 1}'),
        told_event("gen_ai.choice", message="Error: no such order"),
    ]
    answered = [told_event("gen_ai.choice", message="I looked it up.", finish_reason="max_tokens")]
    path = tmp_path / "spans.json"
    spans = request(otlp_span(CHILD, ROOT, attributes=tool, events=called), otlp_span(events=answered))
    path.write_text(json.dumps(spans))
    store = open_store(tmp_path, path)
    said = {(one.field, one.observation_kind): one.present for one in store.quality(Work()).coverage}
    for field, kind in (("finish reason", "LLM"), ("answer", "LLM"), ("arguments", "TOOL"), ("result", "TOOL")):
        assert said[field, kind] == 1
    modes = store.failure_modes(TraceFilters(), None, Work()).modes
    assert {mode.rule: mode.text for mode in modes} == {
        "error_prefix": "Error: no such order",
        "finish_length": "finish_reason=max_tokens",
    }
    store.close()
