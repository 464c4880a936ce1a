"""The first page stays dense and complete, whatever is in the data."""

from __future__ import annotations

import json
from pathlib import Path

from halo_mcp.tools.budget import DEFAULT_CHARS, MAX_CHARS, OVERVIEW_CHARS
from tests.builders import span, write_lines
from tests.tools.desk import desk_over


def test_very_long_names_do_not_push_the_facts_off_the_page(tmp_path: Path) -> None:
    long = "n" * 5_000
    attributes = {"tool.name": long, "agent.name": long, "llm.model_name": long, "run.id": long}
    record = span(name=long, kind="TOOL", error=long, service=long, attributes=attributes)
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", record))
    text = desk.text("get_dataset_overview")
    assert len(text) <= OVERVIEW_CHARS
    for fact in (
        "agents (spans)",
        "errors: 1 (100%)",
        "tools (1)",
        "failure modes (1 of 1",
        "ingest: 1 source",
    ):
        assert fact in text


def test_long_filters_are_not_repeated_at_the_cost_of_the_answer(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", span(error="boom")))
    text = desk.text("get_dataset_overview", filters={"trace_ids": ["t1", *(f"trace-{i:060}" for i in range(200))]})
    assert len(text) <= OVERVIEW_CHARS
    assert "1 trace, 1 span" in text
    assert "boom" in text


def test_sources_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    for i in range(300):
        write_lines(tmp_path / "many" / f"file-number-{i}.jsonl", span(trace=f"t{i}"))
    text = desk_over(tmp_path, tmp_path / "many").text("list_datasets")
    listed = text.count("file-number")
    assert len(text) <= DEFAULT_CHARS
    assert 0 < listed < 300
    assert f"{300 - listed} more sources" in text


def test_the_json_of_an_overview_stays_within_the_largest_answer(tmp_path: Path) -> None:
    records = [
        span(
            f"s{i}",
            trace=f"t{i}",
            kind="TOOL",
            service=f"service {i}",
            attributes={"tool.name": f"tool {i}", "agent.name": f"agent {i}", "llm.model_name": f"model {i}"},
        )
        for i in range(4_000)
    ]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))
    assert len(json.dumps(desk.data("get_dataset_overview"))) <= MAX_CHARS


def test_what_the_numbers_rest_on_is_told(tmp_path: Path) -> None:
    (tmp_path / "talk.json").write_text(json.dumps([{"role": "user", "content": "Go"}] * 2 + [_ANSWER]))
    write_lines(tmp_path / "session.jsonl", {"type": "summary", "leafUuid": "x", "summary": "s"}, _SAID)
    write_lines(tmp_path / "twice.jsonl", span("s1"), span("s1"))
    text = desk_over(tmp_path, tmp_path).text("get_dataset_overview")
    assert "tokens (LLM spans only): none recorded" in text
    assert "0 records skipped" in text
    assert "1 record of bookkeeping" in text
    assert "times of 2 spans are made up" in text
    assert "1 span with an id that their trace has already" in text


_ANSWER = {"role": "assistant", "content": "Done"}
_SAID = {
    "type": "user",
    "uuid": "u1",
    "sessionId": "session",
    "timestamp": "2026-03-02T09:00:00Z",
    "message": {"role": "user", "content": "Go"},
}
