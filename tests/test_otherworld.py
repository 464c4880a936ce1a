"""The second dataset is what its truth says, and the overview reads it in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders import open_store
from tests.otherworld import PLAN, Injection, WorldTruth, write_world
from tests.tools.desk import desk_over
from tests.tools.test_ground_truth import NUMBERS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WorldTruth]:
    path = tmp_path_factory.mktemp("world") / "world.jsonl"
    return path, write_world(path)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    assert write_world(one) == write_world(same)
    write_world(other, seed=12)
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_every_planned_failure_is_in_as_many_traces_as_planned(world: tuple[Path, WorldTruth]) -> None:
    _, truth = world
    planned = {mode: (injection.traces, injection.failing) for mode, injection in PLAN.items() if mode}
    assert {key: (len(mode.trace_ids), mode.failed_traces) for key, mode in truth.modes.items()} == planned
    assert truth.traces == sum(injection.traces for injection in PLAN.values())


def test_a_plan_of_one_failure_gives_only_that_one(tmp_path: Path) -> None:
    truth = write_world(tmp_path / "small", plan={"write_denied": Injection(3, 1), "": Injection(2)})
    assert (truth.traces, truth.outcomes, list(truth.modes)) == (5, {"pass": 4, "fail": 1}, ["write_denied"])
    assert (truth.error_spans, truth.original_error_spans, truth.error_traces) == (4, 3, 3)


def test_no_attribute_of_halo_or_openinference_helps_to_read_it(world: tuple[Path, WorldTruth]) -> None:
    path, _ = world
    keys = {key.split(".")[0] for line in path.read_bytes().splitlines() for key in json.loads(line)["attributes"]}
    assert keys == {"gen_ai", "error", "task"}


def test_some_failures_propagate_over_three_levels(world: tuple[Path, WorldTruth]) -> None:
    _, truth = world
    assert truth.modes[truth.root_cause].propagated_spans == 2 * truth.modes[truth.root_cause].failed_traces
    assert truth.exception_events > truth.original_error_spans, "an exception is told again where it escapes through"


def test_the_overview_counts_what_the_generator_wrote(world: tuple[Path, WorldTruth], tmp_path: Path) -> None:
    path, truth = world
    said = desk_over(tmp_path, path).data("get_dataset_overview")
    assert {name: said[name] for name in NUMBERS} == {
        "total_traces": truth.traces,
        "total_spans": truth.spans,
        "error_trace_count": truth.error_traces,
        "otel_error_span_count": truth.error_spans,
        "original_error_span_count": truth.original_error_spans,
        "total_input_tokens": truth.input_tokens,
        "total_output_tokens": truth.output_tokens,
        "outcomes": dict(truth.outcomes),
        "exception_types": dict(truth.exception_types),
    }
    assert {model["model_name"]: model["span_count"] for model in said["models"]} == dict(truth.models)
    assert {tool["tool_name"]: (tool["call_count"], tool["failure_count"]) for tool in said["tools"]} == {
        name: (tool.calls, tool.failures) for name, tool in truth.tools.items()
    }
    assert said["observation_kinds"].keys() == {"LLM", "TOOL", "AGENT"}


@pytest.mark.parametrize("key", [mode for mode in PLAN if mode])
def test_every_injected_failure_is_one_failure_mode_with_its_exact_count(
    world: tuple[Path, WorldTruth], rows: list[tuple[str, str, str | None]], key: str
) -> None:
    _, truth = world
    mode = truth.modes[key]
    begins = {(quote.trace_id, quote.span_id) for quote in mode.quotes}
    (found,) = {mode_id for trace_id, span_id, mode_id in rows if (trace_id, span_id) in begins}
    assert found
    assert {(trace_id, span_id) for trace_id, span_id, mode_id in rows if mode_id == found} == begins


def test_nothing_else_is_a_failure(world: tuple[Path, WorldTruth], rows: list[tuple[str, str, str | None]]) -> None:
    _, truth = world
    begins = {(quote.trace_id, quote.span_id) for mode in truth.modes.values() for quote in mode.quotes}
    assert [row for row in rows if row[2] and row[:2] not in begins] == []


def test_documents_that_quote_errors_are_no_failures(
    world: tuple[Path, WorldTruth], rows: list[tuple[str, str, str | None]]
) -> None:
    _, truth = world
    alarms = {(quote.trace_id, quote.span_id) for quotes in truth.false_alarms.values() for quote in quotes}
    assert len(alarms) > 50
    assert [row for row in rows if row[2] and row[:2] in alarms] == []


@pytest.fixture(scope="module")
def rows(world: tuple[Path, WorldTruth], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str | None]]:
    """(trace id, span id, failure mode) of every span."""
    store = open_store(tmp_path_factory.mktemp("rows"), world[0])
    snapshot = store._current  # pyright: ignore[reportPrivateUsage]  # no method of the store tells every span's mode
    return snapshot.query("SELECT trace_id, span_id, failure_mode FROM spans")  # pyright: ignore[reportReturnType]
