"""Phoenix spans and data frames."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

ROOT, MODEL = "c000000000000001", "c000000000000002"
SPANS = [json.loads(line) for line in (SAMPLES / "phoenix.spans.jsonl").read_bytes().splitlines()]


def test_nested_attributes_become_dotted_ones() -> None:
    found = read_lines(*SPANS)
    attributes = found.by_id[MODEL]["attributes"]
    assert attributes == {
        "llm.model_name": "m",
        "llm.token_count.prompt": 11,
        "llm.token_count.completion": 3,
        "llm.token_count.prompt_details.cache_read": 4,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hi",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "find",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
        "openinference.span.kind": "LLM",
        "otel.events": attributes["otel.events"],
    }
    assert found.by_id[ROOT]["attributes"]["session.id"] == "s-1"
    assert json.loads(found.by_id[ROOT]["attributes"]["metadata"]) == {"a": {"b": 1}}
    assert found.by_id[MODEL]["status"] == {"code": "STATUS_CODE_ERROR", "message": "rate limited"}
    assert found.report.repairs[NULL_END] == 1


def test_every_container_holds_the_same_spans() -> None:
    wanted = read_lines(*SPANS).spans
    for shape in (SPANS, {"data": SPANS, "next_cursor": None}, {"spans": SPANS}):
        assert read(shape).spans == wanted


def test_a_data_frame_written_by_columns_rows_or_split_is_the_same(tmp_path: Path) -> None:
    by_columns = json.loads((SAMPLES / "phoenix.columns.json").read_bytes())
    found = read_file(SAMPLES / "phoenix.columns.json", tmp_path)
    assert found.by_id[MODEL]["parent_span_id"] == ROOT
    assert found.by_id[MODEL]["start_time"] == "2026-03-02T09:00:01.000000000Z"
    assert found.by_id[MODEL]["attributes"] == {
        "llm.model_name": "m",
        "llm.token_count.prompt": 11.0,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hi",
        "openinference.span.kind": "LLM",
    }
    assert found.by_id[ROOT]["attributes"] == {"input.value": "hi", "openinference.span.kind": "AGENT"}
    rows = {key: {name: column[key] for name, column in by_columns.items()} for key in (ROOT, MODEL)}
    records = [{**row, "context.span_id": key} for key, row in rows.items()]
    split = {"columns": list(records[0]), "index": [0, 1], "data": [list(row.values()) for row in records]}
    for shape in (read(rows), read(records), read(split), read_lines(*records)):
        assert shape.format == "phoenix"
        assert shape.spans == found.spans


def test_rows_of_the_table_with_kinds_in_lower_case_and_no_parent() -> None:
    row = {
        "span_id": MODEL,
        "trace_rowid": 5,
        "name": "x",
        "span_kind": "llm",
        "start_time": "2026-03-02 09:00:01",
        "end_time": "2026-03-02 09:00:01",
        "status_code": "UNSET",
        "attributes": '{"llm": {"model_name": "m"}}',
        "events": "[]",
        "llm_token_count_prompt": 3,
    }
    found = read([row]).span
    assert (found["trace_id"], found["parent_span_id"]) == ("5", "")
    assert found["attributes"] == {
        "llm.model_name": "m",
        "openinference.span.kind": "LLM",
        "phoenix.llm_token_count_prompt": 3,
        "source.trace_id": 5,
    }


def test_tokens_are_counted_once_and_cached_ones_apart(tmp_path: Path) -> None:
    trace = open_store(tmp_path, SAMPLES / "phoenix.spans.jsonl").trace("c0000000000000000000000000000001")
    assert (trace.input_tokens, trace.output_tokens, trace.cached_input_tokens) == (11, 3, 4)
    assert trace.error_span_count == 1
