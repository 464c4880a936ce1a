"""Traces with nested child spans, as Patronus exports them."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.index.formats.protocol import NULL_END
from tests.builders import open_store
from tests.formats.reading import read, read_file, read_lines

SAMPLES = Path(__file__).with_name("samples")

TRACE = json.loads((SAMPLES / "patronus.trail.json").read_bytes())
MAIN, AGENT, MODEL, OTHER = (f"b{number:015}" for number in (1, 2, 3, 4))


def test_nested_spans_keep_their_parents_and_end_after_their_duration() -> None:
    found = read(TRACE).by_id
    assert {name: one["parent_span_id"] for name, one in found.items()} == {
        MAIN: "",
        AGENT: MAIN,
        MODEL: AGENT,
        OTHER: AGENT,
    }
    assert (found[AGENT]["start_time"], found[AGENT]["end_time"]) == (
        "2026-03-02T09:00:01.000000000Z",
        "2026-03-02T09:01:03.500000000Z",
    )


def test_numbers_written_as_text_are_numbers() -> None:
    attributes = read(TRACE).by_id[MODEL]["attributes"]
    assert (attributes["llm.token_count.prompt"], attributes["llm.token_count.completion"]) == (30, 5)


def test_an_agent_is_named_by_its_class_or_by_its_manager() -> None:
    found = read(TRACE).by_id
    assert found[AGENT]["attributes"]["agent.name"] == "CodeAgent"
    assert found[OTHER]["attributes"]["agent.name"] == "search_agent"
    assert "agent.name" not in found[MAIN]["attributes"]


def test_an_error_below_an_agent_that_is_ok_counts_and_its_exception_is_kept(tmp_path: Path) -> None:
    found = read(TRACE).by_id
    assert found[AGENT]["status"]["code"] == "STATUS_CODE_OK"
    assert found[OTHER]["status"] == {"code": "STATUS_CODE_ERROR", "message": "AgentError: no"}
    assert found[OTHER]["attributes"]["otel.events"][0]["attributes"]["exception.type"] == "AgentError"
    trace = open_store(tmp_path, SAMPLES / "patronus.trail.json").trace("b0000000000000000000000000000001")
    assert (trace.error_span_count, trace.input_tokens, trace.output_tokens) == (1, 30, 5)


def test_logs_with_reference_answers_are_left_out_and_counted() -> None:
    found = read(TRACE)
    assert "SECRET-42" not in json.dumps(found.spans)
    assert found.report.repairs == {"logs of the evaluation around an agent left out": 1}


def test_a_trace_a_line_and_a_parent_that_only_the_nesting_tells() -> None:
    text = json.dumps(TRACE).replace(f'"parent_span_id": "{AGENT}", ', "")
    assert read_lines(json.loads(text)).by_id[MODEL]["parent_span_id"] == AGENT


def test_an_unknown_duration_is_counted() -> None:
    text = json.dumps(TRACE).replace('"duration": "PT2S", ', "")
    assert read(json.loads(text)).report.repairs[NULL_END] == 1


def test_a_span_that_is_none_is_told(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(TRACE))
    broken["spans"][0]["child_spans"].append(7)
    (tmp_path / "a").write_text(json.dumps(broken))
    found = read_file(tmp_path / "a", tmp_path / "index")
    assert len(found.spans) == 4
    assert [why for _, why in found.skipped] == ["a span that is no object"]
