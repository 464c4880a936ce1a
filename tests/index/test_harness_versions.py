"""Which harness versions traces ran under, against hand-made traces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halo_mcp.index import harness_reading
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.harness import (
    ANY_VERSION,
    SEVERAL_FIT,
    HarnessVersions,
    mixed_versions,
    read_versions,
    trace_versions,
)
from halo_mcp.index.harness_facts import configuration, facts_of, marks_of, masked
from halo_mcp.index.harness_reading import read_seen
from halo_mcp.index.local import LocalStore
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.work import Work
from tests.builders import Record, agent, append_lines, llm, span, store_of


def call(
    prompt: str = "You help.",
    *,
    trace: str = "t1",
    name: str = "helper",
    model: str = "m-1",
    start_ms: float = 0,
    attributes: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Record:
    """An LLM span of an agent with this system prompt."""
    messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "hello"}]
    return llm(
        f"{name}-{model}-{start_ms}",
        trace=trace,
        start_ms=start_ms,
        attributes={
            "agent.name": name,
            "llm.model_name": model,
            "llm.input_messages": json.dumps(messages),
            **(attributes or {}),
        },
        **rest,
    )


def versions(store: LocalStore, **filters: Any) -> HarnessVersions:
    return store.harness_versions(TraceFilters(**filters), Work())


def snapshot_of(store: LocalStore) -> Snapshot:
    return store._current  # pyright: ignore[reportPrivateUsage]  # the analyses work on a snapshot


def labels(store: LocalStore) -> dict[str, str]:
    snapshot = snapshot_of(store)
    found = trace_versions(read_seen(snapshot, "true", [], Work()))
    pairs = zip(found.trace_key.tolist(), found.label.tolist(), strict=True)
    return {snapshot.trace_id(key): found.labels[label] for key, label in pairs}


def version_of(attributes: Mapping[str, Any], resource: Mapping[str, Any] | None = None, model: str = "m") -> str:
    record = {"attributes": attributes, "resource": {"attributes": resource or {}}}
    return marks_of(facts_of(record)).version(model)


def prompt_of(attributes: Mapping[str, Any]) -> str:
    return configuration(facts_of({"attributes": attributes}), facts_of({})).prompt


# --- one span ---------------------------------------------------------------------------------------------------------
PART = {"type": "text", "content": "You help."}
MESSAGES = [{"role": "system", "content": "You help."}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "attributes",
    [
        {"llm.input_messages": json.dumps(MESSAGES)},
        {"llm.input_messages": MESSAGES},
        {"llm.input_messages": json.dumps({"messages": MESSAGES})},
        {
            "gen_ai.input.messages": json.dumps(
                [{"role": "system", "parts": [{"type": "text", "content": "You help."}]}]
            )
        },
        {"gen_ai.system_instructions": json.dumps([{"type": "text", "content": "You help."}])},
        {"gen_ai.system_instructions": "You help."},
        {"llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "You help."},
        {"gen_ai.prompt.0.role": "developer", "gen_ai.prompt.0.content": "You help."},
        {"ai.prompt.messages": json.dumps(MESSAGES)},
    ],
)
def test_a_system_prompt_is_the_same_version_in_every_convention(attributes: dict[str, Any]) -> None:
    assert prompt_of(attributes) == "You help."
    assert version_of(attributes) == version_of({"llm.input_messages": json.dumps(MESSAGES)})


def test_a_user_message_is_no_part_of_the_harness() -> None:
    assert prompt_of({"llm.input_messages": json.dumps(MESSAGES[1:])}) == ""
    assert prompt_of({"llm.input_messages": "[{broken"}) == ""


TOOL = {"name": "find", "description": "Finds.", "parameters": {"type": "object", "required": ["q"]}}


@pytest.mark.parametrize(
    "attributes",
    [
        {"llm.tools": json.dumps([{"type": "function", "function": TOOL}])},
        {"llm.tools.0.tool.json_schema": json.dumps({"type": "function", "function": TOOL})},
        {"gen_ai.tool.definitions": json.dumps([dict(reversed(TOOL.items()))])},
        {"llm.invocation_parameters": json.dumps({"tools": [{"type": "function", "function": TOOL}]})},
        {
            "llm.request.functions.0.name": "find",
            "llm.request.functions.0.description": "Finds.",
            "llm.request.functions.0.parameters": json.dumps(TOOL["parameters"]),
        },
    ],
)
def test_a_tool_definition_is_the_same_version_wherever_and_however_it_stands(attributes: dict[str, Any]) -> None:
    assert version_of(attributes) == version_of({"llm.tools": json.dumps([TOOL])})
    assert version_of(attributes) != version_of({"llm.tools": json.dumps([TOOL | {"description": "Seeks."}])})


def test_parameters_belong_to_the_version_but_who_asked_what_does_not() -> None:
    def of(**parameters: Any) -> str:
        return version_of({"llm.invocation_parameters": json.dumps(parameters)})

    assert of(temperature=0.2, user="u1", messages=[1], seed=4) == of(temperature=0.2)
    assert of(temperature=0.2) != of(temperature=0.7)
    assert of(temperature=0.2) == version_of({"gen_ai.request.temperature": 0.2})


@pytest.mark.parametrize(
    "first, second",
    [
        ("Today is 2026-03-02.", "Today is 2026-11-30."),
        ("Now: 2026-03-02T09:00:00Z", "Now: 2026-03-02 10:11:12.345+01:00"),
        ("It is Monday, March 2, 2026, 9:05 AM.", "It is Friday, December 11, 2026, 12:45 PM."),
        ("user C-10231", "user C-99887"),
        ("run 0b5f4c1e-1111-2222-3333-444455556666", "run 0b5f4c1e-9999-2222-3333-444455556666"),
        ("key 9f86d081884c7d659a2f", "key 60303ae22b998861bce3"),
        ("a  b\n\n c", "a b\nc"),
    ],
)
def test_values_that_vary_by_nature_make_no_version(first: str, second: str) -> None:
    assert masked(first) == masked(second)


@pytest.mark.parametrize("first, second", [("at most 100 rows", "at most 500 rows"), ("gpt-4.1", "gpt-5.4")])
def test_numbers_that_say_something_make_a_version(first: str, second: str) -> None:
    assert masked(first) != masked(second)


def test_values_of_template_variables_make_no_version() -> None:
    def of(name: str) -> str:
        return version_of(
            {"system_prompt": f"You help {name}.", "llm.prompt_template.variables": json.dumps({"user": name})}
        )

    assert of("Ann Bee") == of("Zoë Lindqvist")


def test_a_release_is_a_version_only_where_nothing_else_is_recorded() -> None:
    assert version_of({}, {"service.version": "1"}) != version_of({}, {"service.version": "2"})
    prompt = {"system_prompt": "You help."}
    assert version_of(prompt, {"service.version": "1"}) == version_of(prompt, {"service.version": "2"})


# --- many traces ------------------------------------------------------------------------------------------------------
def test_each_version_has_its_traces_spans_outcomes_runs_and_times(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        call("old", trace="t1", attributes={"task.outcome": "fail", "run.id": "r1"}),
        call("later calls do not count", trace="t1", start_ms=5),
        call("old", trace="t2", start_ms=10, attributes={"task.outcome": "pass", "run.id": "r1"}),
        call("new", trace="t3", start_ms=20, attributes={"task.outcome": "pass", "run.id": "r2"}),
    )
    old, new = versions(store).versions
    assert (old.traces, old.spans, old.passes, old.fails, old.run_ids, old.trace_id) == (2, 3, 1, 1, ("r1",), "t1")
    assert (new.traces, new.spans, new.passes, new.fails, new.run_ids, new.trace_id) == (1, 1, 1, 0, ("r2",), "t3")
    assert [store.harness_configuration(v.version).prompt for v in (old, new)] == ["old", "new"]
    assert old.first_seen_unix_nano is not None
    assert new.first_seen_unix_nano == old.first_seen_unix_nano + 20_000_000
    assert {old.id.partition("@")[0], new.id.partition("@")[0]} == {"helper"}


def test_prompts_that_differ_in_masked_values_are_one_version_with_several_prompts(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(call(f"Today is 2026-03-0{i}.", trace=f"t{i}") for i in range(1, 4)))
    (only,) = versions(store).versions
    assert (only.traces, only.prompts) == (3, 3)


def test_a_trace_that_does_not_call_an_agent_is_no_other_version(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        *(call("boss", trace=trace, name="boss") for trace in ("t1", "t2")),
        call("worker", trace="t2", name="worker", start_ms=2),
    )
    found = versions(store)
    assert len(found.versions) == 2
    assert not found.mixed
    assert found.labels == ((ANY_VERSION, 2),)


def test_an_agent_with_two_models_in_a_trace_is_one_harness(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        call(trace="t1", model="big"),
        call(trace="t1", model="small", start_ms=2),
        call(trace="t2", model="small"),
    )
    found = versions(store)
    assert [(v.version.model, v.traces) for v in found.versions] == [("small", 2), ("big", 1)]
    assert len({v.alternative for v in found.versions}) == 1
    assert mixed_versions(read_seen(snapshot_of(store), "true", [], Work())).warning == ""


def test_versions_that_meet_in_other_traces_are_not_mixed_among_a_few(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        call(trace="both", model="big"),
        call(trace="both", model="small", start_ms=2),
        call(trace="one", model="big"),
        call(trace="other", model="small"),
    )
    snapshot = snapshot_of(store)
    seen = read_seen(snapshot, "true", [], Work())
    apart = [key for key in seen.trace_key.tolist() if snapshot.trace_id(key) != "both"]
    assert mixed_versions(seen.among(np.array(apart)))
    assert not mixed_versions(seen, np.array(apart))


def test_versions_that_never_meet_are_mixed_and_the_warning_counts_their_traces(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(call("old" if i < 3 else "new", trace=f"t{i}", start_ms=i) for i in range(5)))
    old, new = (v.id for v in versions(store).versions)
    snapshot = snapshot_of(store)
    mixed = mixed_versions(read_seen(snapshot, "true", [], Work()))
    assert mixed.agents == (("helper", ((old, 3), (new, 2))),)
    assert mixed.warning == f"mixes harness versions (traces): {old} 3, {new} 2"
    assert not mixed_versions(read_seen(snapshot, "list_contains(?, trace_id)", [["t0", "t1"]], Work()))
    assert labels(store) == {"t0": old, "t1": old, "t2": old, "t3": new, "t4": new}


def test_traces_get_the_one_harness_that_their_agents_fit(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        call("a1", trace="t1", name="a"),
        call("b1", trace="t1", name="b", start_ms=1),
        call("a2", trace="t2", name="a"),
        call("b2", trace="t2", name="b", start_ms=1),
        call("a1", trace="only a1", name="a"),
        call("b2", trace="only b2", name="b"),
        call("c", trace="neither", name="c"),
    )
    found = labels(store)
    assert found["only a1"] == found["t1"]
    assert found["only b2"] == found["t2"]
    assert found["t1"] != found["t2"]
    assert found["t1"].count("@") == 2
    assert found["neither"] == ANY_VERSION


def test_a_trace_that_fits_several_harnesses_is_called_so(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        *(
            call(prompt, trace=trace, name=prompt[0], start_ms=no)
            for trace, prompts in {"t1": ["a1", "b1"], "t2": ["a1", "b2"], "t3": ["a2", "b1"], "t4": ["a1"]}.items()
            for no, prompt in enumerate(prompts)
        ),
    )
    assert labels(store)["t4"] == SEVERAL_FIT


def test_what_an_llm_span_does_not_say_is_taken_from_its_agents_span(tmp_path: Path) -> None:
    instructions = {"gen_ai.system_instructions": "You help.", "agent.tools": '["find"]'}
    store = store_of(
        tmp_path,
        agent("root", name="helper", attributes=instructions),
        llm("think", "root", start_ms=1, attributes={"llm.model_name": "m"}),
    )
    (only,) = versions(store).versions
    told = store.harness_configuration(only.version)
    assert (told.prompt, told.tools) == ("You help.", {"find": ""})
    assert (only.version.marks.tool_count, only.version.marks.prompt_chars) == (1, len("You help."))


def test_equal_harnesses_have_equal_ids_in_different_datasets(tmp_path: Path) -> None:
    here, there = (store_of(tmp_path / name, call("You help.", trace=name)) for name in ("a", "b"))
    assert versions(here).versions[0].id == versions(there).versions[0].id


def test_filters_choose_the_traces_and_new_traces_are_taken_in(tmp_path: Path) -> None:
    store = store_of(tmp_path, call("old", trace="t1"), call("new", trace="t2"))
    assert [v.traces for v in versions(store, trace_ids=["t1"]).versions] == [1]
    append_lines(tmp_path / "traces.jsonl", call("new", trace="t3"))
    store.refresh(Work())
    assert [v.traces for v in versions(store).versions] == [2, 1]


def test_too_many_spans_are_sampled_over_time_and_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness_reading, "SPANS_LIMIT", 10)
    store = store_of(tmp_path, *(call("a" if i < 50 else "b", trace=f"t{i:03}", start_ms=i) for i in range(100)))
    found = versions(store)
    assert (found.mixed.traces_read, found.mixed.traces, found.mixed.sampled) == (10, 100, True)
    assert [v.traces for v in found.versions] == [5, 5]
    assert "a sample of 10 of 100 traces" in found.mixed.warning
    assert [v.trace_id for v in read_versions(snapshot_of(store), "true", [], Work()).versions] == [
        v.trace_id for v in found.versions
    ]


def test_traces_without_llm_spans_have_no_version(tmp_path: Path) -> None:
    found = versions(store_of(tmp_path, span(kind="TOOL"), agent("s2", name="helper")))
    assert (found.versions, found.mixed.traces, found.labels) == ((), 0, ())
