"""Langfuse exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from halo_mcp.index.formats.protocol import MADE_ROOTS, NULL_END, WRAPPED_CALLS
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")
REAL = Path(__file__).parents[3] / "shared" / "data" / "langfuse"
TRACE = json.loads((SAMPLES / "langfuse.trace.json").read_bytes())
ROOT, MODEL, TOOL = "a000000000000002", "a000000000000003", "a000000000000004"


def observation(name: str, parent: str | None = None, kind: str = "SPAN", **members: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": name,
        "traceId": "t",
        "parentObservationId": parent,
        "type": kind,
        "name": name,
        "startTime": "2026-03-02T09:00:00Z",
        "endTime": "2026-03-02T09:00:01Z",
        "level": "DEFAULT",
        "usageDetails": {},
    }
    return record | members


def export(*observations: dict[str, Any], **trace: Any) -> dict[str, Any]:
    return {
        "trace": {"id": "t", "name": "T", "timestamp": "2026-03-02T09:00:00Z"} | trace,
        "observations": list(observations),
    }


def test_a_model_call_has_its_messages_model_and_tokens() -> None:
    found = read(TRACE).by_id[MODEL]
    attributes = found["attributes"]
    assert found["parent_span_id"] == ROOT
    assert (found["start_time"], found["end_time"]) == (
        "2026-03-02T09:00:01.000000000Z",
        "2026-03-02T09:00:03.500000000Z",
    )
    assert found["scope"] == {"name": "lib", "version": "1"}
    assert found["resource"] == {"attributes": {"service.name": "shop"}}
    assert attributes["inference.observation_kind"] == "LLM"
    assert attributes["inference.llm.model_name"] == "m-1"
    assert json.loads(attributes["llm.input_messages"])[1] == {"role": "user", "content": "where is my order?"}
    assert json.loads(attributes["llm.output_messages"])[0]["tool_calls"][0]["function"]["name"] == "find_order"
    assert json.loads(attributes["llm.invocation_parameters"]) == {"temperature": 0.1}
    assert attributes["langfuse.observation.prompt.version"] == 4
    assert attributes["langfuse.score.toxicity"] == 0
    assert attributes["inference.session_id"] == "chat-7"


def test_sub_keys_of_the_usage_are_not_added_and_cached_tokens_stand_apart() -> None:
    attributes = read(TRACE).by_id[MODEL]["attributes"]
    assert attributes["inference.llm.input_tokens"] == 100
    assert attributes["inference.llm.output_tokens"] == 20
    assert attributes["inference.llm.cached_input_tokens"] == 60


def test_a_warning_is_no_error_and_what_it_says_is_kept() -> None:
    found = read(TRACE).by_id
    assert found[MODEL]["status"] == {"code": "STATUS_CODE_UNSET", "message": ""}
    assert found[MODEL]["attributes"]["langfuse.observation.level"] == "WARNING"
    assert found[MODEL]["attributes"]["langfuse.observation.status_message"] == "slow"
    assert found[TOOL]["status"] == {"code": "STATUS_CODE_ERROR", "message": "no such order"}
    assert found[ROOT]["status"]["code"] == "STATUS_CODE_UNSET"


def test_a_null_end_is_the_start_and_is_counted() -> None:
    found = read(TRACE)
    assert found.by_id[TOOL]["end_time"] == found.by_id[TOOL]["start_time"] == "2026-03-02T09:00:03.600000000Z"
    assert found.report.repairs[NULL_END] == 1


def test_what_is_said_of_the_trace_stands_on_its_root() -> None:
    attributes = read(TRACE).by_id[ROOT]["attributes"]
    assert attributes["input.value"] == "where is my order?"
    assert "langfuse.trace.input" not in attributes
    assert attributes["output.value"] == "It left us on Monday."
    assert attributes["inference.user_id"] == "u-1"
    assert attributes["langfuse.trace.metadata.plan"] == "gold"
    assert attributes["langfuse.score.helpfulness"] == 0.2
    assert attributes["langfuse.score.helpfulness.comment"] == "terse"
    assert attributes["langfuse.score.resolved"] == attributes["task.outcome"] == "False"


def test_an_agent_that_repeats_the_usage_of_its_children_is_not_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path, SAMPLES / "langfuse.trace.json")
    trace = store.trace("a0000000000000000000000000000001")
    assert (trace.input_tokens, trace.output_tokens, trace.cached_input_tokens) == (100, 20, 60)
    assert (trace.error_span_count, trace.outcome) == (1, "fail")


def test_json_text_and_json_are_the_same() -> None:
    stringified = {"trace": json.dumps(TRACE["trace"]), "observations": json.dumps(TRACE["observations"])}
    nested: dict[str, Any] = {"trace": TRACE["trace"] | {"observations": TRACE["observations"]}, "observations": []}
    api = TRACE["trace"] | {"observations": TRACE["observations"]}
    wanted = read(TRACE).spans
    for shape in (read(stringified), read(TRACE, indent=1), read([TRACE]), read_lines(TRACE), read(nested), read(api)):
        assert shape.format == "langfuse"
        assert shape.spans == wanted


def test_observations_in_snake_case_are_read_one_by_one(tmp_path: Path) -> None:
    found = read_file(SAMPLES / "langfuse.observations.jsonl", tmp_path)
    child = found.by_id["o-2"]
    assert child["parent_span_id"] == "o-1"
    assert child["attributes"]["inference.llm.model_name"] == "m-2"
    assert child["attributes"]["inference.llm.input_tokens"] == 7
    assert child["attributes"]["output.value"] == "gone"
    assert found.by_id["o-1"]["attributes"]["output.value"] == "gone"


def test_lists_of_traces_give_a_root_for_each_trace(tmp_path: Path) -> None:
    found = read_file(SAMPLES / "langfuse.list.json", tmp_path)
    assert {span["span_id"]: span["parent_span_id"] for span in found.spans} == {"t-1": "", "o-3": ""}
    assert found.by_id["o-3"]["attributes"]["langfuse.trace.name"] == "second"
    assert found.by_id["o-3"]["attributes"]["langfuse.trace.input"] == "c"
    assert found.by_id["t-1"]["attributes"]["input.value"] == "a"


def test_observations_beside_each_other_are_put_under_their_trace() -> None:
    found = read(export(observation("a"), observation("b"), observation("c", "b"), input="hello"))
    assert {span["span_id"]: span["parent_span_id"] for span in found.spans} == {"t": "", "a": "t", "b": "t", "c": "b"}
    assert found.by_id["t"]["attributes"]["input.value"] == "hello"
    assert found.report.repairs == {MADE_ROOTS: 1}


def test_of_one_call_recorded_by_two_instrumentations_the_inner_one_counts() -> None:
    usage = {"input": 10, "output": 1}
    found = read(
        export(
            observation("root"),
            observation("outer", "root", "GENERATION", usageDetails=usage),
            observation("inner", "outer", "GENERATION", usageDetails=usage),
        )
    )
    kinds = {span["span_id"]: span["attributes"].get("inference.observation_kind") for span in found.spans}
    assert kinds == {"root": None, "outer": "CHAIN", "inner": "LLM"}
    assert found.report.repairs == {WRAPPED_CALLS: 1}


@pytest.mark.parametrize(
    "members, kind",
    [
        ({"metadata": {"attributes": {"openinference.span.kind": "TOOL"}}}, "TOOL"),
        ({"metadata": {"attributes": '{"gen_ai.operation.name": "invoke_agent"}'}}, "AGENT"),
        ({"metadata": {"attributes": {"gen_ai.agent.name": "writer"}}}, "AGENT"),
        ({"output": {"type": "tool", "tool_call_id": "c", "content": "x"}}, "TOOL"),
        ({"type": "RETRIEVER"}, "RETRIEVER"),
        ({}, None),
    ],
)
def test_what_a_span_really_is(members: dict[str, Any], kind: str | None) -> None:
    found = read(export(observation("a", **members))).span
    assert found["attributes"].get("inference.observation_kind") == kind


def test_messages_of_langchain_are_readable() -> None:
    asked: dict[str, Any] = {"type": "human", "content": "hi", "additional_kwargs": {}, "id": None, "example": False}
    called = {
        "type": "ai",
        "content": "",
        "tool_calls": [{"name": "find", "args": {"q": 1}, "id": "c", "type": "tool_call"}],
        "response_metadata": {"finish_reason": "tool_calls"},
    }
    found = read(export(observation("a", kind="GENERATION", input=[[asked]], output={"messages": [called]}))).span
    assert json.loads(found["attributes"]["llm.input_messages"]) == [{"role": "user", "content": "hi"}]
    (answer,) = json.loads(found["attributes"]["llm.output_messages"])
    assert answer["role"] == "assistant"
    assert answer["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"q":1}'}


def test_what_is_no_observation_is_told() -> None:
    found = read(export(observation("a"), {"type": "SPAN"}, cast("Any", 7)))
    assert [span["span_id"] for span in found.spans][-1] == "a"
    assert [(where.partition(", ")[2], why) for where, why in found.skipped] == [
        ("observation 3", "an observation that is no object"),
        ("observation 2", "no span id"),
    ]


def texts(value: Any) -> set[str]:
    """Every text of some length in a JSON value, also in JSON inside of texts."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            inner = value
        return {value} if inner == value or not isinstance(inner, dict | list | str) else texts(inner)
    items: list[Any] = list(cast("Any", value).values()) if isinstance(value, dict) else value
    return {text for item in items for text in texts(item)} if isinstance(value, dict | list) else set()


@pytest.mark.parametrize("path", sorted(REAL.glob("*.json")), ids=lambda path: path.stem)
def test_no_text_of_a_real_export_is_lost(path: Path, tmp_path: Path) -> None:
    document = json.loads(path.read_bytes())
    kept = texts(read_file(path, tmp_path).spans)
    for one in [document["trace"], *document["observations"]]:
        for key in ("name", "input", "output", "metadata", "statusMessage", "model", "modelParameters", "promptName"):
            assert {text for text in texts(one.get(key)) if len(text) > 12} <= kept


@pytest.mark.parametrize("path", sorted(REAL.glob("*.json")), ids=lambda path: path.stem)
def test_real_exports_are_read_in_full(path: Path, tmp_path: Path) -> None:
    document = json.loads(path.read_bytes())
    observations = {one["id"]: one for one in document["observations"]}
    found = read_file(path, tmp_path / "index")
    assert found.report.problems == []
    assert set(found.by_id) - {document["trace"]["id"]} == set(observations)
    for span in found.spans:
        one = observations.get(span["span_id"])
        if one is None:
            continue
        assert span["parent_span_id"] in (one["parentObservationId"] or "", document["trace"]["id"])
        assert span["start_time"][:23] == one["startTime"][:23]
    # Usage of the innermost generations only.
    parents = {one["parentObservationId"] for one in observations.values() if one["type"] == "GENERATION"}
    leaves = [one for one in observations.values() if one["type"] == "GENERATION" and one["id"] not in parents]
    trace = open_store(tmp_path, path).trace(document["trace"]["id"])
    assert trace.input_tokens == sum(one["usageDetails"].get("input", 0) for one in leaves)
    assert trace.output_tokens == sum(one["usageDetails"].get("output", 0) for one in leaves)
    assert trace.error_span_count == 0
