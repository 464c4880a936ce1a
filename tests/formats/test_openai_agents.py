"""Traces that the OpenAI Agents SDK exports."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

DUMP = json.loads((SAMPLES / "openai-agents.ingest.json").read_bytes())
TRACE = "a3000000000000000000000000000001"
AGENT, MODEL, TOOL, RESPONSE, GUARDRAIL, HANDOFF, CUSTOM = (f"a3{number:022}" for number in range(1, 8))
REAL = Path(__file__).parents[3] / "shared" / "data" / "openai-agents" / "traces.json"


def test_ids_are_those_of_other_exporters_and_the_originals_are_kept() -> None:
    found = read(DUMP).by_id[MODEL]
    assert (found["trace_id"], found["parent_span_id"]) == (TRACE, AGENT)
    assert found["attributes"]["source.trace_id"] == f"trace_{TRACE}"
    assert found["attributes"]["source.span_id"] == f"span_{MODEL}"
    assert found["attributes"]["source.parent_span_id"] == f"span_{AGENT}"


def test_kinds_of_spans() -> None:
    found = {one["name"]: one["attributes"]["inference.observation_kind"] for one in read(DUMP).spans}
    assert found == {
        "agent.helper": "AGENT",
        "generation.m": "LLM",
        "function.find": "TOOL",
        "response": "LLM",
        "guardrail.polite": "GUARDRAIL",
        "handoff": "CHAIN",
        "custom.step": "SPAN",
    }


def test_a_generation_has_its_messages_model_and_tokens() -> None:
    attributes = read(DUMP).by_id[MODEL]["attributes"]
    assert attributes["inference.llm.model_name"] == "m"
    assert attributes["inference.llm.input_tokens"] == 5
    assert attributes["inference.llm.cached_input_tokens"] == 3
    assert json.loads(attributes["llm.output_messages"])[0]["tool_calls"][0]["function"]["name"] == "find"
    assert attributes["inference.session_id"] == "s-1"
    assert attributes["agent.workflow.name"] == "support"
    assert attributes["agent.workflow.metadata.plan"] == "gold"


def test_a_response_written_as_the_text_of_a_python_object_is_read() -> None:
    attributes = read(DUMP).by_id[RESPONSE]["attributes"]
    assert attributes["inference.llm.model_name"] == "m-2"
    assert (attributes["inference.llm.input_tokens"], attributes["inference.llm.output_tokens"]) == (50, 7)
    assert attributes["inference.llm.cached_input_tokens"] == 10
    assert attributes["llm.response.id"] == "resp_1"
    assert attributes["gen_ai.system_instructions"] == "Be kind."
    assert json.loads(attributes["llm.input_messages"]) == [{"content": "it's me", "role": "user"}]
    assert json.loads(attributes["llm.output_messages"])[0]["content"][0]["text"] == "Hello you"
    assert json.loads(attributes["llm.invocation_parameters"]) == {"temperature": -1.0}


def test_text_that_only_looks_like_a_python_object_is_kept_as_it_is() -> None:
    text = "Response(id=<object at 0x1>, output=[)"
    span = DUMP["data"][3] | {"span_data_response": text}
    assert read([span]).span["attributes"]["output.value"] == text


def test_an_error_has_its_message_and_its_details() -> None:
    found = read(DUMP)
    tool = found.by_id[TOOL]
    assert tool["status"] == {"code": "STATUS_CODE_ERROR", "message": "Error running tool"}
    assert json.loads(tool["attributes"]["error.data"])["error"] == "no x"
    assert tool["start_time"] == tool["end_time"] == "2026-03-02T09:00:01.000000000Z"
    assert found.report.repairs[NULL_END] == 1


def test_the_rest_of_what_spans_say() -> None:
    found = read(DUMP).by_id
    assert found[AGENT]["attributes"]["inference.agent_name"] == "helper"
    assert found[AGENT]["attributes"]["agent.tools"] == '["find"]'
    assert found[GUARDRAIL]["attributes"]["guardrail.triggered"] is True
    assert found[GUARDRAIL]["status"]["code"] == "STATUS_CODE_UNSET"
    assert found[HANDOFF]["attributes"]["agent.handoff.to"] == "b"
    assert (found[CUSTOM]["attributes"]["sdk.data.n"], found[CUSTOM]["attributes"]["sdk.data.words"]) == (1, '["a"]')


def test_every_container_holds_the_same_spans() -> None:
    trace, *spans = DUMP["data"]
    wanted = read(DUMP).spans
    for shape in (
        read(DUMP["data"]),
        read_lines(*DUMP["data"]),
        read_lines(DUMP),
        read({"traces": [trace | {"spans": spans}]}, indent=1),
        read({"data": [*spans, trace]}),
    ):
        assert (shape.format, shape.spans) == ("openai-agents", wanted)


def test_traces_without_spans_are_told() -> None:
    other = DUMP["data"][0] | {"id": "trace_other"}
    assert [why for _, why in read({"data": [*DUMP["data"], other]}).skipped] == ["a trace without spans"]


def test_a_store_sums_the_tokens_of_the_calls(tmp_path: Path) -> None:
    trace = open_store(tmp_path, SAMPLES / "openai-agents.ingest.json").trace(TRACE)
    assert (trace.input_tokens, trace.output_tokens, trace.cached_input_tokens) == (55, 9, 13)
    assert trace.error_span_count == 1


def test_a_real_export_is_read_in_full(tmp_path: Path) -> None:
    for path in [REAL] if REAL.exists() else []:
        found = read_file(path, tmp_path)
        (trace,) = json.loads(path.read_bytes())["traces"]
        assert {f"span_{key}" for key in found.by_id} == {one["id"] for one in trace["spans"]}
        assert found.report.problems == []
        for one in trace["spans"]:
            attributes = found.by_id[one["id"].removeprefix("span_")]["attributes"]
            usage = one.get("response", "").rpartition("usage=ResponseUsage(input_tokens=")[2].partition(",")[0]
            assert attributes.get("inference.llm.input_tokens") == (int(usage) if usage else None)
            assert ("llm.output_messages" in attributes) == bool(usage)
