"""MLflow traces."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

V3 = json.loads((SAMPLES / "mlflow.v3.json").read_bytes())
V2 = json.loads((SAMPLES / "mlflow.v2.json").read_bytes())
AGENT, MODEL, TOOL = "e000000000000001", "e000000000000002", "e000000000000003"


def test_a_model_call_has_its_messages_model_and_tokens() -> None:
    found = read(V3).by_id[MODEL]
    attributes = found["attributes"]
    assert found["trace_id"] == "e0000000000000000000000000000001"
    assert found["parent_span_id"] == AGENT
    assert attributes["inference.observation_kind"] == "LLM"
    assert attributes["inference.llm.model_name"] == "m-2"
    assert (attributes["inference.llm.input_tokens"], attributes["inference.llm.output_tokens"]) == (9, 4)
    assert json.loads(attributes["llm.input_messages"]) == [{"role": "user", "content": "q"}]
    assert json.loads(attributes["llm.output_messages"])[0]["content"] == "a"
    assert json.loads(attributes["llm.invocation_parameters"]) == {"model": "m", "temperature": 0}


def test_attributes_are_decoded_once() -> None:
    found = read(V3).by_id
    assert found[AGENT]["attributes"]["output.value"] == "a"
    assert found[AGENT]["attributes"]["agent.name"] == "planner"
    assert found[TOOL]["attributes"]["tool.name"] == "lookup"
    assert found[TOOL]["attributes"]["input.value"] == '{"id":5}'


def test_an_error_below_a_trace_that_is_ok_counts(tmp_path: Path) -> None:
    found = read(V3)
    assert found.by_id[TOOL]["status"] == {"code": "STATUS_CODE_ERROR", "message": "KeyError: 5"}
    assert found.by_id[AGENT]["status"]["code"] == "STATUS_CODE_OK"
    assert found.by_id[AGENT]["attributes"]["mlflow.trace.state"] == "OK"
    assert found.report.repairs[NULL_END] == 1
    assert open_store(tmp_path, SAMPLES / "mlflow.v3.json").info().total_spans == 3


def test_the_time_of_an_exception_in_microseconds_is_understood() -> None:
    (event,) = read(V3).by_id[TOOL]["attributes"]["otel.events"]
    assert event["time"] == "2026-03-02T09:00:03.500000000Z"


def test_what_is_said_of_the_trace_stands_on_its_root() -> None:
    attributes = read(V3).by_id[AGENT]["attributes"]
    assert attributes["inference.session_id"] == "s-1"
    assert attributes["inference.user_id"] == "u-1"
    assert attributes["mlflow.trace.tags.team"] == "blue"
    assert attributes["mlflow.assessment.helpful"] is False
    assert attributes["mlflow.assessment.helpful.rationale"] == "too short"


def test_a_trace_of_version_2_that_failed_without_an_erring_span_has_an_erring_root() -> None:
    found = read(V2).span
    assert found["span_id"] == "e200000000000001"
    assert found["status"]["code"] == "STATUS_CODE_ERROR"
    assert found["attributes"]["run.id"] == "run-1"
    assert found["attributes"]["input.value"] == "q"


def test_every_container_holds_the_same_spans() -> None:
    wanted = read(V3).spans
    assert read([V3], indent=1).spans == wanted
    assert read_lines(V3).spans == wanted
    assert read_lines({"trace_id": "tr-e1", "trace": json.dumps(V3), "state": "OK"}).spans == wanted


def test_traces_without_spans_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps({"info": V3["info"], "data": {"spans": []}}) + "\n" + json.dumps(V2))
    found = read_file(tmp_path / "a", tmp_path / "index")
    assert len(found.spans) == 1
    assert [why for _, why in found.skipped] == ["a trace without spans"]
