"""Logs of Inspect AI: archives and documents, old and new, whole and cancelled."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.index.formats.sniff import why_not_traces
from tests.formats.reading import Read, read, read_file

REAL = Path(__file__).parents[3] / "shared" / "data" / "inspect"
SAMPLE = Path(__file__).with_name("samples") / "inspect.log.json"


def log(*samples: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "version": 2,
        "status": "success",
        "eval": {"eval_id": "e1", "task": "files", "model": "p/m-1"},
        "samples": list(samples),
    } | members


def sample(*events: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": 7, "epoch": 1, "uuid": "root", "input": "Go", "messages": [], "events": list(events)} | members


def event(kind: str, second: int, **members: Any) -> dict[str, Any]:
    return {"event": kind, "uuid": f"{kind}-{second}", "timestamp": f"2026-03-02T09:00:{second:02}+00:00"} | members


def model_event(second: int, **members: Any) -> dict[str, Any]:
    answer = {"message": {"role": "assistant", "content": "ok"}, "stop_reason": "stop"}
    usage = {"input_tokens": 5, "output_tokens": 2}
    output = {"model": "m-1", "choices": [answer], "usage": usage}
    return event("model", second, model="p/m-1", input=[{"role": "user", "content": "Go"}], output=output) | members


def archive(members: dict[str, Any], compression: int = zipfile.ZIP_DEFLATED, module: Any = zipfile) -> bytes:
    buffer = io.BytesIO()
    with module.ZipFile(buffer, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return buffer.getvalue()


def root(found: Read) -> dict[str, Any]:
    (one,) = (span for span in found.spans if not span["parent_span_id"])
    return one


def test_a_sample_becomes_a_trace_with_its_agent_model_and_tool() -> None:
    found = read(SAMPLE.read_bytes())
    kinds = Counter(span["attributes"]["inference.observation_kind"] for span in found.spans)
    assert found.format == "inspect"
    assert kinds == {"AGENT": 2, "CHAIN": 1, "LLM": 2, "TOOL": 1, "SPAN": 1}
    assert {span["trace_id"] for span in found.spans} == {"evalId1:s-1:2"}
    assert {span["span_id"]: span["parent_span_id"] for span in found.spans} == {
        "sampleUuid1": "",
        "sp-solvers": "sampleUuid1",
        "sp-agent": "sp-solvers",
        "u1.000000model": "sp-agent",
        "sp-tool": "sp-agent",
        "u1.700000sandbox": "sp-tool",
        "u2.100000model": "sp-agent",
    }


def test_attachments_and_pooled_messages_stand_where_they_were_used() -> None:
    spans = read(SAMPLE.read_bytes()).by_id
    said = json.loads(spans["u2.100000model"]["attributes"]["llm.input_messages"])
    assert [message["role"] for message in said] == ["system", "user", "assistant", "tool"]
    assert said[3]["content"] == spans["sp-tool"]["attributes"]["output.value"] == "a.txt\n"
    assert "Runs a command in a shell." in spans["u1.000000model"]["attributes"]["llm.tools"]
    assert "attachment://" not in json.dumps(list(spans.values()))


def test_a_tool_call_is_counted_once_with_the_time_of_its_event_and_what_happened_inside() -> None:
    tool = read(SAMPLE.read_bytes()).by_id["sp-tool"]
    assert (tool["start_time"][17:21], tool["end_time"][17:21]) == ("01.6", "02.0")
    assert tool["attributes"]["tool.name"] == "bash"
    assert tool["attributes"]["input.value"] == '{"cmd":"ls"}'


def test_cached_tokens_stand_apart_and_the_sums_of_the_sample_are_not_tokens_again() -> None:
    spans = read(SAMPLE.read_bytes()).by_id
    first = spans["u1.000000model"]["attributes"]
    assert (first["inference.llm.input_tokens"], first["inference.llm.cached_input_tokens"]) == (50, 30)
    assert "inference.llm.input_tokens" not in spans["sampleUuid1"]["attributes"]


def test_an_archive_and_a_document_give_the_same_spans() -> None:
    document = json.loads(SAMPLE.read_bytes())
    (one,) = document.pop("samples")
    packed = archive({"_journal/start.json": document, "samples/s-1_epoch_2.json": one, "header.json": document})
    found = read(packed)
    assert found.format == "inspect"
    assert found.spans == read(SAMPLE.read_bytes()).spans


def test_members_compressed_with_zstd_are_read() -> None:
    module = import_module("backports.zstd.zipfile")
    packed = archive({"header.json": log(), "samples/7_epoch_1.json": sample(model_event(1))}, 93, module)
    assert len(read(packed).spans) == 2


def test_a_run_that_did_not_end_is_read_from_its_journal() -> None:
    begun = {"version": 2, "eval": {"eval_id": "e2", "task": "files", "model": "m"}, "plan": {}}
    found = read(archive({"_journal/start.json": begun, "samples/7_epoch_1.json": sample(model_event(1))}))
    assert root(found)["trace_id"] == "e2:7:1"


@pytest.mark.parametrize("content", [log(status="cancelled"), archive({"header.json": log(status="cancelled")})])
def test_a_cancelled_log_without_samples_is_reported(content: Any) -> None:
    found = read(content)
    assert found.spans == []
    assert [why for _, why in found.skipped] == ["a log without samples, cancelled"]


def test_a_sample_that_cannot_be_read_is_named_and_the_others_are_kept() -> None:
    good = sample(model_event(1))
    packed = read(archive({"header.json": log(), "samples/a.json": b"{cut", "samples/b.json": good}))
    assert len(packed.spans) == 2
    assert packed.skipped[0][0] == "samples/a.json"
    plain = read(log(good, {"epoch": 1}))
    assert len(plain.spans) == 2
    ((where, why),) = plain.skipped
    assert where.endswith("sample 2")
    assert why == "not a sample: it has no id, messages or events"


def test_a_damaged_archive_is_called_so(tmp_path: Path) -> None:
    packed = archive({"header.json": log(), "samples/7_epoch_1.json": sample(model_event(1))})
    (tmp_path / "cut.eval").write_bytes(packed[:-60])
    assert read_file(tmp_path / "cut.eval", tmp_path / "index").spans == []
    assert why_not_traces(tmp_path / "cut.eval") == "it is a zip archive, and damaged, cut off or empty"


@pytest.mark.parametrize(
    "value, outcome",
    [("C", "pass"), ("I", "fail"), (True, "pass"), ("P", None), ("N", None), (1.0, None), (0, None), ([1], None)],
)
def test_only_a_clear_verdict_is_an_outcome(value: Any, outcome: str | None) -> None:
    attributes = root(read(log(sample(scores={"match": {"value": value}}, store={"a": 1}))))["attributes"]
    assert attributes.get("task.outcome") == outcome
    assert attributes["score.match"] == (value if not isinstance(value, list) else "[1]")


def test_scorers_that_disagree_give_no_outcome() -> None:
    scores = {"one": {"value": "C"}, "two": {"value": "I"}}
    assert "task.outcome" not in root(read(log(sample(scores=scores))))["attributes"]


def test_a_score_never_makes_an_error() -> None:
    assert root(read(log(sample(scores={"match": {"value": "I"}}))))["status"]["code"] == "STATUS_CODE_UNSET"


def test_the_error_of_a_sample_is_one_with_its_traceback() -> None:
    error = {"message": "TimeoutError('slow')", "traceback": "Traceback ..."}
    one = root(read(log(sample(model_event(1), error=error))))
    assert one["status"] == {"code": "STATUS_CODE_ERROR", "message": "TimeoutError('slow')"}
    (raised,) = one["attributes"]["otel.events"]
    assert raised["attributes"]["exception.type"] == "TimeoutError"
    assert raised["attributes"]["exception.stacktrace"] == "Traceback ..."


def test_a_limit_that_stopped_a_sample_is_an_error_and_a_reason() -> None:
    one = root(read(log(sample(model_event(1), limit={"type": "token", "limit": 500}))))
    assert one["status"]["code"] == "STATUS_CODE_ERROR"
    assert one["attributes"]["agent.stop_reason"] == "token limit"


def test_errors_of_models_and_tools_are_theirs() -> None:
    failed = event("tool", 2, function="bash", arguments={}, result="", error={"type": "timeout", "message": "slow"})
    spans = read(log(sample(model_event(1, error="429", output={}), failed))).by_id
    assert spans["model-1"]["status"] == {"code": "STATUS_CODE_ERROR", "message": "429"}
    assert spans["tool-2"]["status"] == {"code": "STATUS_CODE_ERROR", "message": "slow"}
    assert spans["root"]["status"]["code"] == "STATUS_CODE_UNSET"


def test_old_steps_and_events_inside_events_make_the_tree() -> None:
    inner = model_event(3)
    call = event("tool", 2, function="delegate", arguments={}, result="r", events=[inner])
    begin = event("step", 1, action="begin", type="solver", name="generate")
    end = event("step", 5, action="end", type="solver", name="generate")
    spans = read(log(sample(begin, call, end, model_event(6)))).by_id
    parents = {name: one["parent_span_id"] for name, one in spans.items()}
    assert parents == {"root": "", "step-1": "root", "tool-2": "step-1", "model-3": "tool-2", "model-6": "root"}
    assert spans["step-1"]["end_time"][17:19] == "05"


def test_events_without_a_rule_of_their_own_go_along() -> None:
    one = root(read(log(sample(model_event(1), event("novelty", 2, data="something new")))))
    assert one["attributes"]["otel.events"][0]["attributes"] == {"data": "something new"}


def test_an_event_that_cannot_be_read_costs_only_itself() -> None:
    found = read(log(sample(model_event(1), model_event(2, input_refs=[["a", {}]]), {"uuid": "x"}, model_event(3))))
    assert {"model-1", "model-3"} < found.by_id.keys()
    assert [where[-7:] for where, _ in found.skipped] == ["event 2", "event 3"]


def test_without_events_the_messages_tell_and_their_times_are_marked() -> None:
    failure = {"type": "x", "message": "no"}
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": "ls", "arguments": {"p": 1}}]},
        {
            "role": "tool",
            "content": "no",
            "tool_call_id": "c",
            "function": "ls",
            "error": failure,
        },
    ]
    usage = {"p/m-1": {"input_tokens": 9, "output_tokens": 3}}
    found = read(log(sample(messages=messages, model_usage=usage)))
    _, model, tool = found.spans
    assert model["attributes"]["inference.llm.model_name"] == "p/m-1"
    assert tool["attributes"]["tool.name"] == "ls"
    assert tool["status"] == {"code": "STATUS_CODE_ERROR", "message": "no"}
    assert all(span["attributes"]["source.synthetic_time"] for span in found.spans)
    assert root(found)["attributes"]["inference.llm.input_tokens"] == 9


# --- real logs, counted by a walk of our own ---------------------------------------------------------------------
def real_samples(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        return json.loads(path.read_bytes())["samples"]
    with zipfile.ZipFile(path) as packed:
        return [json.loads(packed.read(name)) for name in packed.namelist() if name.startswith("samples/")]


def events_of(samples: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for one in samples:
        yield from (found for found in one.get("events", ()) if found["event"] == kind)


@pytest.mark.parametrize("path", sorted(REAL.glob("*.*")), ids=lambda path: path.name)
def test_real_logs_hold_what_a_walk_over_them_counts(path: Path, tmp_path: Path) -> None:
    samples, found = real_samples(path), read_file(path, tmp_path)
    kinds = Counter(span["attributes"]["inference.observation_kind"] for span in found.spans)
    without_events = [message for one in samples if not one.get("events") for message in one["messages"]]
    models, tools = list(events_of(samples, "model")), list(events_of(samples, "tool"))
    assert found.skipped == []
    assert len({span["trace_id"] for span in found.spans}) == len(samples)
    assert kinds["LLM"] == len(models) + sum(message["role"] == "assistant" for message in without_events)
    assert kinds["TOOL"] == len(tools) + sum(message["role"] == "tool" for message in without_events)
    tokens = sum(span["attributes"].get("inference.llm.input_tokens", 0) for span in found.spans)
    usages = [one["output"]["usage"] for one in models if one["output"].get("usage")]
    assert tokens == sum(usage["input_tokens"] for usage in usages)
    assert "attachment://" not in json.dumps(found.spans)
    assert len(found.by_id) == len(found.spans)
