"""LangSmith runs."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

RUNS = [json.loads(line) for line in (SAMPLES / "langsmith.runs.jsonl").read_bytes().splitlines()]
NESTED = json.loads((SAMPLES / "langsmith.nested.json").read_bytes())
ROOT, MODEL, TOOL = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))


def test_a_model_call_has_its_messages_model_and_tokens() -> None:
    found = read_lines(*RUNS).by_id[MODEL]
    attributes = found["attributes"]
    assert (found["trace_id"], found["parent_span_id"]) == (ROOT, ROOT)
    assert attributes["inference.observation_kind"] == "LLM"
    assert attributes["inference.llm.model_name"] == "m-2026"
    assert attributes["inference.llm.provider"] == "openai"
    assert attributes["inference.llm.input_tokens"] == 20
    assert attributes["inference.llm.output_tokens"] == 6
    assert attributes["inference.llm.cached_input_tokens"] == 8
    assert attributes["llm.finish_reason"] == "tool_calls"
    assert json.loads(attributes["llm.input_messages"]) == [{"role": "user", "content": "hi"}]
    (answer,) = json.loads(attributes["llm.output_messages"])
    assert answer["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"q":"x"}'}
    assert "otel.events" not in attributes


def test_chains_that_repeat_the_usage_of_what_is_below_are_not_counted(tmp_path: Path) -> None:
    trace = open_store(tmp_path, SAMPLES / "langsmith.runs.jsonl").trace(ROOT)
    assert (trace.input_tokens, trace.output_tokens, trace.cached_input_tokens) == (20, 6, 8)
    assert (trace.error_span_count, trace.session_id, trace.task_key) == (1, "s-1", "ex-1")


def test_an_error_is_an_exception_and_its_traceback_stands_apart() -> None:
    found = read_lines(*RUNS)
    tool = found.by_id[TOOL]
    assert tool["status"]["code"] == "STATUS_CODE_ERROR"
    (event,) = tool["attributes"]["otel.events"]
    assert event["attributes"]["exception.type"] == "ValueError"
    assert event["attributes"]["exception.message"] == "ValueError('no x')"
    assert "a.py" in event["attributes"]["exception.stacktrace"]
    assert tool["attributes"]["tool.name"] == "find"
    assert tool["attributes"]["input.value"] == "{'q': 'x'}"
    assert found.report.repairs[NULL_END] == 1


def test_what_is_said_of_the_trace_stands_on_its_root() -> None:
    attributes = read_lines(*RUNS).by_id[ROOT]["attributes"]
    assert attributes["inference.observation_kind"] == "AGENT"
    assert attributes["inference.session_id"] == "s-1"
    assert attributes["input.value"] == "hi"
    assert attributes["output.value"] == "done"
    assert attributes["langsmith.feedback.correctness"] == attributes["task.outcome"] == 0.0


def test_every_container_holds_the_same_spans(tmp_path: Path) -> None:
    wanted = read_file(SAMPLES / "langsmith.runs.jsonl", tmp_path).spans
    for shape in (read(RUNS), read({"runs": RUNS, "cursors": {}}), read(RUNS, indent=1)):
        assert (shape.format, shape.spans) == ("langsmith", wanted)


def test_nested_runs_have_the_trace_and_the_parent_that_they_are_in() -> None:
    found = read(NESTED).by_id
    assert {key: (one["trace_id"], one["parent_span_id"]) for key, one in found.items()} == {
        "r1": ("r1", ""),
        "r2": ("r1", "r1"),
        "r3": ("r1", "r2"),
    }
    assert found["r2"]["attributes"]["inference.llm.input_tokens"] == 3
    assert found["r2"]["attributes"]["inference.llm.model_name"] == "m"
    assert json.loads(found["r2"]["attributes"]["llm.output_messages"])[0]["content"] == "yo"


def test_a_run_that_is_given_by_itself_and_in_its_parent_counts_once() -> None:
    assert sorted(read({"runs": [NESTED, NESTED["child_runs"][0]]}).by_id) == ["r1", "r2", "r3"]


def test_the_trace_of_a_run_is_in_its_dotted_order() -> None:
    order = f"20260302T090000000001Z{ROOT}.20260302T090001000000Z{MODEL}"
    run = {key: held for key, held in RUNS[1].items() if key != "trace_id"} | {"dotted_order": order}
    assert read([run]).span["trace_id"] == ROOT
