"""Messages that spans tell in events read like those told in attributes, whatever the source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Record, span, write_lines
from tests.tools.desk import Desk, desk_over

Events = list[tuple[str, dict[str, Any]]]

STRANDS_CHAT: Events = [
    ("gen_ai.system.message", {"content": "Be brief."}),
    ("gen_ai.user.message", {"content": '[{"text": "What is six times seven?"}]'}),
    ("gen_ai.assistant.message", {"content": '[{"toolUse": {"toolUseId": "t1", "name": "calc", "input": {"x": 6}}}]'}),
    ("gen_ai.tool.message", {"content": '[{"toolResult": {"toolUseId": "t1", "content": [{"text": "forty-two"}]}}]'}),
    ("gen_ai.choice", {"message": '[{"text": "It is 42."}]', "finish_reason": "end_turn"}),
]
OPENAI_CHAT: Events = [
    ("gen_ai.system.message", {"gen_ai.system": "openai", "content": "Be brief."}),
    ("gen_ai.user.message", {"gen_ai.system": "openai", "content": "What is six times seven?"}),
    ("gen_ai.tool.message", {"gen_ai.system": "openai", "id": "t1", "content": "forty-two"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": '{"role":"assistant","content":"It is 42."}'}),
]
BODY_AS_JSON: Events = [
    ("gen_ai.system.message", {"gen_ai.event.content": '{"role":"system","content":"Be brief."}'}),
    ("gen_ai.user.message", {"gen_ai.event.content": '{"role":"user","content":"What is six times seven?"}'}),
    ("gen_ai.tool.message", {"gen_ai.event.content": '{"role":"tool","id":"t1","content":"forty-two"}'}),
    (
        "gen_ai.choice",
        {"gen_ai.event.content": '{"index":0,"finish_reason":"stop","message":{"content":"It is 42."}}'},
    ),
]
DETAILS: Events = [
    (
        "gen_ai.client.inference.operation.details",
        {
            "gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]',
            "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"What is six times seven?"}]},'
            '{"role":"tool","parts":[{"type":"tool_call_response","id":"t1","response":"forty-two"}]}]',
            "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"It is 42."}]}]',
        },
    )
]
CHATS = {"Strands": STRANDS_CHAT, "OpenAI": OPENAI_CHAT, "JSON bodies": BODY_AS_JSON, "details": DETAILS}


def canonical(record: Record, events: Events) -> Record:
    return record | {"events": [{"name": name, "time": "", "attributes": members} for name, members in events]}


def in_attributes(record: Record, events: Events) -> Record:
    listed = [{"name": name, "attributes": members} for name, members in events]
    return record | {"attributes": {**record["attributes"], "otel.events": listed}}


def otlp(record: Record, events: Events) -> Record:
    """The span as an OTLP export request."""

    def pairs(members: Mapping[str, Any]) -> list[Any]:
        return [
            {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
            if not isinstance(value, bool)
            else {"key": key, "value": {"boolValue": value}}
            for key, value in members.items()
        ]

    sent = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "name": record["name"],
        "startTimeUnixNano": "1770000000000000000",
        "endTimeUnixNano": "1770000001000000000",
        "attributes": pairs(record["attributes"]),
        "events": [{"name": name, "attributes": pairs(members)} for name, members in events],
        "status": {},
    }
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [sent]}]}]}


SHAPES = {"canonical": canonical, "otel.events": in_attributes, "OTLP": otlp}


def desk_of(tmp_path: Path, *records: Record) -> Desk:
    return desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))


def chat(**attributes: Any) -> Record:
    return span(attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **attributes}, name="chat m")


def only_trace(desk: Desk) -> str:
    return desk.data("query_traces")["traces"][0]["trace_id"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("events", CHATS.values(), ids=CHATS)
def test_a_conversation_in_events_is_shown_as_one_and_once(events: Events, shape: Any, tmp_path: Path) -> None:
    desk = desk_of(tmp_path, shape(chat(), events))
    text = desk.text("view_trace", trace_id=only_trace(desk))
    for said in ("Be brief.", "What is six times seven?", "forty-two", "It is 42."):
        assert text.count(said) == 1, text
    assert "→ assistant: It is 42." in text
    assert "user: What is six times seven?" in text
    assert "event gen_ai" not in text


def test_a_tool_call_in_events_is_shown_as_a_call(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, canonical(chat(), STRANDS_CHAT))
    assert 'calls calc({"x":6}) id=t1' in desk.text("view_trace", trace_id="t1")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_tools_events_are_its_arguments_and_its_result(shape: Any, tmp_path: Path) -> None:
    record = span(attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "calc"}, name="calc")
    events: Events = [
        ("gen_ai.tool.message", {"role": "tool", "content": '{"x": 6}', "id": "t1"}),
        ("gen_ai.choice", {"message": '[{"text": "Error: no such operation"}]', "id": "t1"}),
    ]
    desk = desk_of(tmp_path, shape(record, events))
    text = desk.text("view_trace", trace_id=only_trace(desk))
    assert text.count("Error: no such operation") == 1


def test_messages_in_attributes_stay_and_events_beside_them_are_shown(tmp_path: Path) -> None:
    said = [{"role": "assistant", "content": "From an attribute."}]
    record = canonical(chat(**{"gen_ai.output.messages": json.dumps(said)}), OPENAI_CHAT)
    text = desk_of(tmp_path, record).text("view_trace", trace_id="t1")
    assert text.count("→ assistant") == text.count("From an attribute.") == 1
    assert "event gen_ai.choice" in text


def test_what_an_event_says_can_be_searched_and_read_where_it_was_found(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, canonical(chat(), STRANDS_CHAT))
    found = desk.data("search_trace", trace_id="t1", pattern="forty-two")
    assert found["match_count"] == 1
    read = desk.text("view_spans", trace_id="t1", span_ids=["s1"], attribute="gen_ai.input.messages")
    assert "forty-two" in read


def test_a_system_prompt_in_events_is_part_of_the_harness(tmp_path: Path) -> None:
    told: Events = [("gen_ai.system.message", {"content": "Be long."}), *STRANDS_CHAT[1:]]
    desk = desk_of(tmp_path, canonical(chat(), STRANDS_CHAT), canonical(chat() | {"trace_id": "t2"}, told))
    assert "2 agent versions in 2 traces" in desk.text("list_harness_versions")


@pytest.mark.parametrize(
    "attributes, status, message",
    [
        ({"success": False, "error": "boom"}, "ERROR", "boom"),
        ({"success": "false"}, "ERROR", None),
        ({"error": "boom"}, "ERROR", "boom"),
        ({"success": True}, "UNSET", None),
        ({}, "UNSET", None),
    ],
)
def test_claude_code_tells_status_model_and_tokens_by_its_own_attributes(
    attributes: Any, status: str, message: str | None, tmp_path: Path
) -> None:
    """And only on spans of its own kinds."""
    told = {"model": "claude-m", "input_tokens": 2, "output_tokens": 1200, "cache_read_tokens": 84562, **attributes}
    for kind, expected in (("llm_request", [status, message]), ("http", ["UNSET", None])):
        desk = desk_of(tmp_path / kind, otlp(span(attributes={"span.type": kind, **told}), []))
        tokens = "input_tokens, output_tokens, cached_input_tokens"
        sql = f"SELECT status_code, status_message, model_name, {tokens} FROM spans"
        (row,) = desk.data("query_sql", sql=sql)["rows"]
        assert list(row) == [*expected, "claude-m", 2, 1200, 84562]


def test_openinference_messages_that_are_only_flat_are_whole(tmp_path: Path) -> None:
    flat: dict[str, Any] = {"openinference.span.kind": "LLM"}
    for number in range(12):
        flat[f"llm.input_messages.{number}.message.role"] = "user"
        flat[f"llm.input_messages.{number}.message.content"] = f"message number {number}"
    call = "llm.output_messages.0.message.tool_calls"
    flat |= {"llm.output_messages.0.message.role": "assistant"}
    for number in range(3):
        flat[f"{call}.{number}.tool_call.id"] = f"call_{number}"
        flat[f"{call}.{number}.tool_call.function.name"] = "look"
        flat[f"{call}.{number}.tool_call.function.arguments"] = f'{{"page": {number}}}'
    text = desk_of(tmp_path, span(attributes=flat)).text("view_trace", trace_id="t1")
    told = [text.find(f"message number {number}\n") for number in range(12)]
    assert sorted(told) == told
    assert min(told) > 0
    for number in range(3):
        assert f'calls look({{"page": {number}}}) id=call_{number}' in text
