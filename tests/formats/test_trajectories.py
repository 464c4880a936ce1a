"""Trajectories as lists of steps or of messages: of agents, of benchmarks, and plain ones."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import Record, llm, open_store, trace_ids, write_lines
from tests.formats.reading import Read, read, read_file, read_lines

REAL = Path(__file__).parents[3] / "shared" / "data"
SAMPLES = Path(__file__).with_name("samples")


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_bytes())


def roots(found: Read) -> list[Record]:
    return [span for span in found.spans if not span["parent_span_id"]]


def of_kind(found: Read, kind: str) -> list[Record]:
    return [span for span in found.spans if span["attributes"]["inference.observation_kind"] == kind]


def kinds(found: Read) -> Counter[str]:
    return Counter(span["attributes"]["inference.observation_kind"] for span in found.spans)


def attribute(spans: list[Record], key: str) -> list[Any]:
    return [span["attributes"].get(key) for span in spans]


def said(found: Read) -> set[Any]:
    """Everything that spans hold as a text of their own or as the content of a message."""
    texts: set[Any] = set()
    for span in found.spans:
        for key, value in span["attributes"].items():
            if key in ("llm.input_messages", "llm.output_messages"):
                texts |= {message["content"] for message in json.loads(value)}
            elif isinstance(value, str):
                texts.add(value)
    return texts


def words(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- plain lists -------------------------------------------------------------------------------------------------
USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}


def calls(*ids: str, name: str = "look") -> dict[str, Any]:
    asked = [
        {"id": one, "type": "function", "function": {"name": name, "arguments": words({"for": one})}} for one in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": asked}


def result(call: str, content: Any = "found") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": content}


@pytest.mark.parametrize(
    "content",
    [
        [USER, ANSWER],
        {"messages": [USER, ANSWER]},
        [[USER, ANSWER]],
        [{"messages": [USER, ANSWER]}],
        b"".join(words(one).encode() + b"\n" for one in (USER, ANSWER)),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_conversation_is_known_in_every_shape(content: Any, indent: int | None) -> None:
    found = read(content, indent=indent)
    assert found.format == "message-list"
    assert kinds(found) == {"AGENT": 1, "LLM": 1}
    assert json.loads(of_kind(found, "LLM")[0]["attributes"]["llm.input_messages"]) == [USER]


@pytest.mark.parametrize(
    "content",
    [
        [USER],
        [USER, USER],
        [USER, {"type": "summary"}, ANSWER],
        [{"role": "admin", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"role": "user", "name": "ann"}, {"role": "assistant", "name": "bob"}],
        {"messages": [USER, ANSWER], "trajectory_format": "other-1"},
        {"messages": ["a", "b"]},
        {"messages": [], "other": 1},
        {"role": "assistant", "content": "alone"},
        [{"id": 1}, {"id": 2}],
        b'{"type": "user", "message": {"role": "user", "content": "x"}}\n' * 2,
    ],
)
def test_what_only_looks_like_a_conversation_is_left_alone(content: Any) -> None:
    assert read(content).format == ""


def test_results_are_joined_to_their_calls_by_id_in_any_order() -> None:
    tools = of_kind(read([USER, calls("a", "b"), result("b", "B"), result("a", "A"), ANSWER]), "TOOL")
    assert [(one["attributes"]["input.value"], one["attributes"]["output.value"]) for one in tools] == [
        ('{"for": "a"}', "A"),
        ('{"for": "b"}', "B"),
    ]


def test_ids_that_are_used_again_in_a_later_turn_mean_the_later_call() -> None:
    tools = of_kind(read([USER, calls("0"), result("0", "one"), calls("0"), result("0", "two"), ANSWER]), "TOOL")
    assert attribute(tools, "output.value") == ["one", "two"]


def test_a_call_without_a_result_and_a_result_without_a_call_are_kept() -> None:
    tools = of_kind(read([USER, calls("a"), result("z", "stray"), ANSWER]), "TOOL")
    assert attribute(tools, "output.value") == [None, "stray"]
    assert attribute(tools, "tool.name") == ["look", None]


def test_an_empty_result_is_a_result() -> None:
    (tool,) = of_kind(read([USER, calls("a"), result("a", ""), ANSWER]), "TOOL")
    assert tool["attributes"]["output.value"] == ""


def test_blocks_of_anthropic_are_calls_results_and_errors() -> None:
    found = read((SAMPLES / "message-list.anthropic.jsonl").read_bytes())
    (tool,) = of_kind(found, "TOOL")
    assert tool["status"] == {"code": "STATUS_CODE_ERROR", "message": "no such city"}
    assert tool["attributes"]["input.value"] == '{"city":"Oslo"}'
    assert kinds(found) == {"AGENT": 1, "LLM": 2, "TOOL": 1, "SPAN": 1}


def test_what_stands_around_the_messages_goes_along() -> None:
    record = {"id": "c", "messages": [USER, ANSWER], "reward": 0.5, "resolved": False, "scores": {"style": 2}, "k": [1]}
    (root,) = roots(read(record))
    found = root["attributes"]
    assert (found["reward"], found["score.style"], found["k"]) == (0.5, 2, "[1]")
    assert (found["resolved"], found["task.outcome"]) == (False, "fail")
    assert root["status"]["code"] == "STATUS_CODE_UNSET"


def test_times_of_messages_are_used_and_made_up_ones_are_marked() -> None:
    timed = [USER | {"timestamp": "2026-03-02T09:00:00Z"}, ANSWER | {"timestamp": "2026-03-02T09:00:05Z"}, calls("a")]
    found = read(timed)
    first, second = of_kind(found, "LLM")
    assert first["start_time"] == "2026-03-02T09:00:05.000000000Z"
    assert "source.synthetic_time" not in first["attributes"]
    assert second["attributes"]["source.synthetic_time"] is True
    assert second["start_time"].startswith("2026-03-02T09:00:05.001")
    assert found.report.repairs["synthetic times"] == 2


def test_a_line_that_is_no_message_is_reported_with_its_place() -> None:
    lines = [USER, ANSWER] * 25  # the beginning, by which a file is known, is sound
    found = read_lines(*lines, {"note": 1}, ANSWER)
    assert found.skipped == [
        ("line 51 (byte " + found.skipped[0][0].split("byte ")[1], "neither a message nor a list of messages")
    ]
    assert len(of_kind(found, "LLM")) == 26


MESSAGES = st.lists(
    st.sampled_from(
        [USER, ANSWER, calls("a"), calls("a", "b"), result("a"), result("b"), {"role": "system", "content": "s"}]
    ),
    min_size=1,
    max_size=12,
)


@given(MESSAGES, st.integers(0, 999))
def test_every_answer_call_and_word_is_there_once(messages: list[dict[str, Any]], salt: int) -> None:
    told = [one | {"content": f"{salt}-{no}-"} for no, one in enumerate(messages)]
    told.append({"role": "assistant", "content": "end"})
    found = read({"messages": told})
    assert len(of_kind(found, "LLM")) == sum(one["role"] == "assistant" for one in told)
    assert len(of_kind(found, "TOOL")) >= sum(len(one.get("tool_calls", ())) for one in told)
    assert {one["content"] for one in told} <= said(found)
    assert len(found.by_id) == len(found.spans)


# --- mini-swe-agent ----------------------------------------------------------------------------------------------
def test_commands_of_mini_swe_agent_are_tool_calls_with_what_the_shell_said() -> None:
    found = read(sample("mini-swe-agent.trajectory.json"))
    assert kinds(found) == {"AGENT": 1, "LLM": 3, "TOOL": 2, "SPAN": 1}
    assert attribute(of_kind(found, "TOOL"), "output.value")[0].startswith("<returncode>1")
    (refused,) = of_kind(found, "SPAN")
    assert (refused["name"], refused["status"]["code"]) == ("format_error", "STATUS_CODE_ERROR")
    (root,) = roots(found)
    assert root["attributes"]["task.id"] == "acme__shop-7"
    assert root["status"]["code"] == "STATUS_CODE_UNSET"


def test_the_report_beside_a_trajectory_of_mini_swe_agent_is_its_outcome(tmp_path: Path) -> None:
    (tmp_path / "x.traj.json").write_bytes((SAMPLES / "mini-swe-agent.trajectory.json").read_bytes())
    report = {"acme__shop-7": {"resolved": True, "tests_status": {"FAIL_TO_PASS": {"success": ["t"], "failure": []}}}}
    (tmp_path / "x.report.json").write_text(words(report))
    (root,) = roots(read_file(tmp_path / "x.traj.json", tmp_path / "index"))
    assert (root["attributes"]["resolved"], root["attributes"]["task.outcome"]) == (True, "pass")
    assert root["attributes"]["tests_status.FAIL_TO_PASS.success"] == 1
    beside = read_file(tmp_path / "x.report.json", tmp_path / "other")
    assert (beside.skipped, sum(beside.report.bookkeeping.values())) == ([], 1)
    (tmp_path / "x.report.json").rename(tmp_path / "y.report.json")
    lone = read_file(tmp_path / "y.report.json", tmp_path / "other")
    assert [why.partition(":")[0] for _, why in lone.skipped] == ["a report without a trajectory"]


def test_an_agent_that_was_stopped_failed() -> None:
    stopped = sample("mini-swe-agent.trajectory.json")
    stopped["info"]["exit_status"] = "LimitsExceeded"
    (root,) = roots(read(stopped))
    assert root["status"] == {"code": "STATUS_CODE_ERROR", "message": "LimitsExceeded"}


@pytest.mark.parametrize("path", sorted(REAL.glob("mini-swe-agent/*.traj.json")), ids=lambda path: path.name)
def test_real_trajectories_of_mini_swe_agent_hold_what_a_walk_over_them_counts(path: Path, tmp_path: Path) -> None:
    document = json.loads(path.read_bytes())
    verdict = json.loads(path.with_name(path.name.replace(".traj.", ".report.")).read_bytes())["resolved"]
    answers = [one for one in document["messages"] if one["role"] == "assistant"]
    usages = [one["extra"]["response"]["usage"] for one in answers]
    single = [one for one in answers if len(re.findall(r"```bash\n.*?```", one["content"], re.DOTALL)) == 1]
    found = read_file(path, tmp_path)
    (root,) = roots(found)
    assert root["attributes"]["task.outcome"] == ("pass" if verdict else "fail")
    counts = {"AGENT": 1, "LLM": len(answers), "TOOL": len(single), "SPAN": len(answers) - len(single)}
    assert kinds(found) == +Counter(counts)
    models = of_kind(found, "LLM")
    assert sum(attribute(models, "inference.llm.input_tokens")) == sum(one["prompt_tokens"] for one in usages)
    assert sum(attribute(models, "inference.llm.output_tokens")) == sum(one["completion_tokens"] for one in usages)
    assert {one["content"] for one in document["messages"]} <= said(found)


# --- SWE-agent ---------------------------------------------------------------------------------------------------
def test_steps_of_swe_agent_are_answers_and_commands() -> None:
    found = read(sample("swe-agent.steps.json"))
    assert attribute(of_kind(found, "TOOL"), "tool.name") == ["open", "submit"]
    assert attribute(of_kind(found, "SPAN"), "output.value") == ["Your command was empty."]
    (root,) = roots(found)
    assert root["attributes"]["inference.llm.input_tokens"] == 300
    assert root["attributes"]["input.value"] == "Fix the bug"
    assert "a demonstration" in of_kind(found, "LLM")[0]["attributes"]["llm.input_messages"]


@pytest.mark.parametrize("path", sorted(REAL.glob("swe-agent/*.traj")), ids=lambda path: path.name)
def test_real_trajectories_of_swe_agent_hold_every_step(path: Path, tmp_path: Path) -> None:
    steps = json.loads(path.read_bytes())["trajectory"]
    found = read_file(path, tmp_path)
    assert attribute(of_kind(found, "TOOL"), "input.value") == [step["action"] for step in steps]
    assert attribute(of_kind(found, "TOOL"), "output.value") == [step["observation"] for step in steps]
    assert len(of_kind(found, "LLM")) == len(steps)
    assert roots(found)[0]["attributes"]["task.id"] == path.stem


# --- tau-bench ---------------------------------------------------------------------------------------------------
def test_a_trial_of_tau_bench_passes_with_a_reward_of_one_and_refusals_are_errors_of_the_tool() -> None:
    found = read(sample("tau-bench.results.json"))
    assert attribute(roots(found), "task.outcome") == ["pass", "fail"]
    assert attribute(roots(found), "reward") == [1.0, 0.0]
    assert [span["name"] for span in found.spans if span["status"]["code"] == "STATUS_CODE_ERROR"] == [
        "execute_tool cancel_order"
    ]


@pytest.mark.parametrize("path", sorted(REAL.glob("tau-bench/*.json")), ids=lambda path: path.name)
def test_real_results_of_tau_bench_hold_what_a_walk_over_them_counts(path: Path, tmp_path: Path) -> None:
    trials = json.loads(path.read_bytes())
    messages = [message for trial in trials for message in trial["traj"]]
    found = read_file(path, tmp_path)
    assert found.skipped == []
    assert len(roots(found)) == len(trials)
    assert Counter(attribute(roots(found), "task.outcome")) == Counter(
        "pass" if trial["reward"] == 1 else "fail" for trial in trials
    )
    assert len(of_kind(found, "LLM")) == sum(one["role"] == "assistant" for one in messages)
    asked = [call["function"]["name"] for one in messages for call in one.get("tool_calls") or ()]
    assert Counter(attribute(of_kind(found, "TOOL"), "tool.name")) == Counter(asked)
    failed = sum(one["role"] == "tool" and one["content"].startswith("Error") for one in messages)
    assert sum(span["status"]["code"] == "STATUS_CODE_ERROR" for span in found.spans) == failed


# --- ATIF --------------------------------------------------------------------------------------------------------
def test_steps_of_an_atif_agent_are_answers_calls_and_observations() -> None:
    found = read(sample("atif.trajectory.json"))
    tools = of_kind(found, "TOOL")
    assert attribute(tools, "output.value") == [None, "bee"]
    assert attribute(of_kind(found, "SPAN"), "output.value") == ["the screen", None]
    assert attribute(of_kind(found, "LLM"), "inference.llm.model_name") == ["m-2", "m-3", None]
    assert attribute(of_kind(found, "LLM"), "inference.llm.cached_input_tokens") == [60, None, None]


def test_steps_copied_into_a_continuation_are_context_and_not_counted_again() -> None:
    found = read(sample("atif.trajectory.json"))
    assert sum(one or 0 for one in attribute(found.spans, "inference.llm.input_tokens")) == 100 + 130 + 9
    assert "Before" in of_kind(found, "LLM")[0]["attributes"]["llm.input_messages"]


def test_an_embedded_sub_agent_is_a_trace_that_names_its_caller() -> None:
    found = read(sample("atif.trajectory.json"))
    assert [one["trace_id"] for one in roots(found)] == ["atif-1", "sub-1"]
    assert roots(found)[1]["attributes"]["parent_session_id"] == "atif-1"


@pytest.mark.parametrize("path", sorted(REAL.glob("atif/*.json")), ids=lambda path: path.name)
def test_real_atif_trajectories_hold_what_a_walk_over_them_counts(path: Path, tmp_path: Path) -> None:
    steps = json.loads(path.read_bytes())["steps"]
    own = [one for one in steps if one["source"] == "agent" and not one.get("is_copied_context")]
    found = read_file(path, tmp_path)
    assert len(of_kind(found, "LLM")) == len(own)
    assert len(of_kind(found, "TOOL")) == sum(len(one.get("tool_calls", ())) for one in own)
    tokens = attribute(of_kind(found, "LLM"), "inference.llm.input_tokens")
    assert sum(tokens) == sum(one["metrics"]["prompt_tokens"] for one in own)


# --- several agents ----------------------------------------------------------------------------------------------
def test_every_turn_of_who_and_when_has_its_agent_and_the_terminal_is_a_tool() -> None:
    one, two = (read(sample(f"who-and-when.{name}.json")) for name in ("algorithm", "magentic"))
    assert attribute(of_kind(one, "LLM"), "inference.agent_name") == ["Counting_Expert"] * 2
    agents = attribute(of_kind(two, "LLM"), "inference.agent_name")
    assert agents == ["Orchestrator", "Orchestrator", "WebSurfer", "Orchestrator"]
    assert attribute(of_kind(one, "TOOL") + of_kind(two, "TOOL"), "output.value")[1] == "ok"
    assert attribute(roots(one) + roots(two), "task.outcome") == ["fail", "fail"]
    assert attribute(roots(two), "mistake_agent") == ["WebSurfer"]


def test_records_of_mast_are_decoded_and_keep_their_annotations() -> None:
    found = read((SAMPLES / "mast.records.jsonl").read_bytes())
    first, second = roots(found)
    assert attribute(of_kind(found, "LLM"), "inference.agent_name") == ["CEO", "Programmer"]
    assert first["attributes"]["mast_annotation.1.1"] == 1
    assert attribute([one for one in found.spans if one["parent_span_id"] == second["span_id"]], "output.value") == [
        "one long text"
    ]


# --- all of them -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mini-swe-agent", "swe-agent", "tau-bench", "atif", "inspect"])
def test_the_same_run_twice_under_two_names_is_one_trace(name: str, tmp_path: Path) -> None:
    (path,) = SAMPLES.glob(f"{name}.*")
    (tmp_path / "one").write_bytes(path.read_bytes())
    (tmp_path / "two").write_bytes(path.read_bytes())
    one, two = (read_file(tmp_path / copy, tmp_path / f"{copy}-index") for copy in ("one", "two"))
    assert one.spans == two.spans


def test_a_verdict_that_comes_after_the_trajectory_was_read_is_taken_at_the_next_call(tmp_path: Path) -> None:
    trajectory = tmp_path / "x.traj.json"
    trajectory.write_bytes((SAMPLES / "mini-swe-agent.trajectory.json").read_bytes())
    store = open_store(tmp_path, trajectory)
    assert store.overview(TraceFilters(), Work()).outcomes["unknown"] == 1
    verdict = tmp_path / "x.report.json"
    verdict.write_text(words({"acme__shop-7": {"resolved": True, "tests_status": {}}}))
    later = trajectory.stat().st_mtime_ns + 1_000_000
    os.utime(verdict, ns=(later, later))
    store.refresh(Work())
    assert store.overview(TraceFilters(), Work()).outcomes["pass"] == 1
    assert store.spans(trace_ids(store)[0])
    store.close()


def test_canonical_lines_named_like_a_trajectory_are_read_with_a_newer_verdict_beside_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.traj.json", llm("s1"))
    later = path.stat().st_mtime_ns + 1_000_000
    (tmp_path / "x.report.json").write_text("{}")
    os.utime(tmp_path / "x.report.json", ns=(later, later))
    store = open_store(tmp_path, path)
    assert [one.span_id for one in store.payloads("t1", ["s1"])] == ["s1"]
    store.close()
