"""What is said about how well a dataset was understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from halo_mcp.index.quality import FieldCoverage
from halo_mcp.index.work import Work
from tests.builders import agent, llm, span, store_of


def test_traces_that_are_not_whole_are_counted(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        agent("root"),
        span("s1", "root"),
        span("s1", "root"),
        span("lost", "nowhere", trace="orphans"),
        span("one", trace="two roots"),
        span("two", trace="two roots"),
        span("a", "b", trace="circle"),
        span("b", "a", trace="circle"),
        span("self", "self", trace="self"),
    )
    found = store.quality(Work())
    assert found.duplicate_span_ids == 1
    assert found.orphan_parents == 1
    assert found.circles == 2
    assert found.traces_without_root == 3
    assert found.traces_with_several_roots == 1


def test_coverage_is_told_for_the_kinds_that_should_say_it(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        llm("a", tokens=(1, 0), attributes={"llm.model_name": "m"}),
        llm("b"),
        span("t", kind="TOOL", attributes={"tool.name": "x"}),
    )
    coverage = store.quality(Work()).coverage
    assert FieldCoverage("model name", "LLM", 1, 2) in coverage
    assert FieldCoverage("input tokens", "LLM", 1, 2) in coverage
    assert FieldCoverage("tool name", "TOOL", 1, 1) in coverage
    assert FieldCoverage("session", "TOOL", 0, 1) in coverage
    assert not any(one.field == "model name" and one.observation_kind == "TOOL" for one in coverage)


def test_attributes_that_no_rule_reads_are_counted(tmp_path: Path) -> None:
    understood: dict[str, Any] = {"llm.model_name": "m", "llm.input_messages.0.message.content": "x", "otel.events": []}
    vendor = {"vendor.text": "a", "vendor.items.0.name": "b", "vendor.items.1.name": "c", "vendor.flag": True, "no": ""}
    store = store_of(tmp_path, llm("a", attributes=understood | vendor), llm("b", attributes={"vendor.text": 5}))
    found = store.quality(Work())
    assert dict(found.unknown_attributes) == {"vendor.text": 2, "vendor.items.N.name": 1}
    assert found.sampled_spans == 2
