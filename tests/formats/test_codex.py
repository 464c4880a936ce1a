"""Codex rollouts: turns, answers and calls, their usage once, and what failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Record
from tests.formats.reading import Read, read_file, read_lines

DATA = Path(__file__).parents[3] / "shared" / "data" / "codex"
THREAD = "019b0000-0000-7000-8000-000000000001"


def line(at: float, kind: str, **payload: Any) -> Record:
    seconds, rest = divmod(round(at * 1000), 1000)
    return {"timestamp": f"2026-05-04T12:00:{seconds:02d}.{rest:03d}Z", "type": kind, "payload": payload}


def meta(at: float = 0, thread: str = THREAD, **members: Any) -> Record:
    return line(at, "session_meta", id=thread, cwd="/repo", cli_version="1.2", model_provider="openai", **members)


def turn(at: float, turn_id: str = "turn-a", **members: Any) -> Record:
    return line(at, "turn_context", turn_id=turn_id, model="gpt-x", **members)


def item(at: float, kind: str, **members: Any) -> Record:
    return line(at, "response_item", type=kind, **members)


def event(at: float, kind: str, **members: Any) -> Record:
    return line(at, "event_msg", type=kind, **members)


def message(at: float, role: str, words: str) -> Record:
    kind = "output_text" if role == "assistant" else "input_text"
    return item(at, "message", role=role, content=[{"type": kind, "text": words}])


def call(at: float, call_id: str, name: str = "shell", arguments: str = '{"command":["ls"]}') -> Record:
    return item(at, "function_call", call_id=call_id, name=name, arguments=arguments)


def output(at: float, call_id: str, value: Any) -> Record:
    return item(at, "function_call_output", call_id=call_id, output=value)


def usage(at: float, last: tuple[int, int, int], total: tuple[int, int, int]) -> Record:
    keys = ("input_tokens", "cached_input_tokens", "output_tokens")
    info = {
        f"{name}_token_usage": dict(zip(keys, counts, strict=True))
        for name, counts in (("last", last), ("total", total))
    }
    return event(at, "token_count", info=info)


def of_kind(read: Read, kind: str) -> list[Record]:
    return [span for span in read.spans if span["attributes"]["inference.observation_kind"] == kind]


def tokens(read: Read) -> list[tuple[Any, Any, Any]]:
    keys = ("input", "cached_input", "output")
    return [
        (found[keys[0]], found[keys[1]], found[keys[2]])
        for span in of_kind(read, "LLM")
        if (found := {key: span["attributes"].get(f"inference.llm.{key}_tokens") for key in keys})
    ]


SESSION = [
    meta(),
    turn(1),
    event(1, "task_started", turn_id="turn-a"),
    message(1, "user", "List the files"),
    event(1, "user_message", message="List the files"),
    item(2, "reasoning", summary=[{"type": "summary_text", "text": "I look."}]),
    call(3, "c1"),
    usage(3.5, (100, 60, 10), (100, 60, 10)),
    output(4, "c1", "a.txt"),
    message(5, "assistant", "One file."),
    event(5, "agent_message", message="One file."),
    usage(5.5, (120, 90, 5), (220, 150, 15)),
    usage(5.6, (120, 90, 5), (220, 150, 15)),
    event(6, "task_complete", turn_id="turn-a", last_agent_message="One file."),
]


def test_a_session_is_an_agent_with_turns_with_answers_and_calls() -> None:
    read = read_lines(*SESSION)
    assert read.format == "codex"
    root, chain, tool = read.by_id[THREAD], read.by_id["turn-a"], read.by_id["c1"]
    assert sorted(span["attributes"]["inference.observation_kind"] for span in read.spans) == [
        "AGENT",
        "CHAIN",
        "LLM",
        "LLM",
        "TOOL",
    ]
    assert {span["trace_id"] for span in read.spans} == {THREAD}
    assert (root["parent_span_id"], chain["parent_span_id"]) == ("", THREAD)
    assert {span["parent_span_id"] for span in read.spans} == {"", THREAD, "turn-a"}
    assert (chain["attributes"]["input.value"], chain["attributes"]["output.value"]) == ("List the files", "One file.")
    assert (tool["name"], tool["attributes"]["output.value"]) == ("shell", "a.txt")
    assert (tool["start_time"][17:22], tool["end_time"][17:22]) == ("03.00", "04.00")
    first, second = of_kind(read, "LLM")
    assert first["attributes"]["inference.llm.model_name"] == "gpt-x"
    assert "List the files" in first["attributes"]["llm.input_messages"]
    assert "I look." in first["attributes"]["llm.output_messages"]
    assert second["start_time"][17:22] == "04.00"


def test_usage_is_that_of_each_answer_and_a_count_told_again_is_no_answer() -> None:
    read = read_lines(*SESSION)
    assert tokens(read) == [(100, 60, 10), (120, 90, 5)]
    assert read.report.repairs["records stored more than once"] == 1


def test_usage_of_an_answer_that_was_not_written_down_is_kept() -> None:
    read = read_lines(meta(), turn(1), usage(2, (7, 0, 1), (7, 0, 1)))
    assert tokens(read) == [(7, 0, 1)]


def test_without_token_counts_an_answer_ends_where_the_model_is_given_something() -> None:
    read = read_lines(meta(), turn(1), message(1, "user", "Go"), call(2, "c1"), call(2, "c2"), output(3, "c1", "x"),
                      output(3, "c2", "y"), message(4, "assistant", "Done"))  # fmt: skip
    assert len(of_kind(read, "LLM")) == 2
    assert len(of_kind(read, "TOOL")) == 2


@pytest.mark.parametrize(
    "lines, code",
    [
        ([event(3, "exec_command_end", call_id="c1", exit_code=2, aggregated_output="no")], "STATUS_CODE_ERROR"),
        ([event(3, "exec_command_end", call_id="c1", exit_code=0)], "STATUS_CODE_UNSET"),
        ([output(3, "c1", '{"output":"no","metadata":{"exit_code":2}}')], "STATUS_CODE_ERROR"),
        ([output(3, "c1", "no"), event(4, "exec_command_end", call_id="c1", exit_code=2)], "STATUS_CODE_ERROR"),
        ([event(3, "mcp_tool_call_end", call_id="c1", result={"Err": "gone"})], "STATUS_CODE_ERROR"),
        ([event(3, "mcp_tool_call_end", call_id="c1", result={"Ok": {"isError": True}})], "STATUS_CODE_ERROR"),
        ([event(3, "mcp_tool_call_end", call_id="c1", result={"Ok": {"isError": False}})], "STATUS_CODE_UNSET"),
        ([event(3, "patch_apply_end", call_id="c1", success=False, stderr="conflict")], "STATUS_CODE_ERROR"),
    ],
)
def test_how_a_call_ended_is_its_status_and_it_stays_one_call(lines: list[Record], code: str) -> None:
    read = read_lines(meta(), turn(1), call(2, "c1"), *lines)
    (tool,) = of_kind(read, "TOOL")
    assert tool["status"]["code"] == code
    assert read.by_id["turn-a"]["status"]["code"] == "STATUS_CODE_UNSET"


def test_a_call_told_by_an_event_alone_is_a_call() -> None:
    invocation = {"server": "files", "tool": "read", "arguments": {"path": "a"}}
    read = read_lines(meta(), turn(1), event(2, "mcp_tool_call_end", call_id="c9", invocation=invocation,
                      result={"Ok": {"content": [{"type": "text", "text": "hello"}]}}))  # fmt: skip
    (tool,) = of_kind(read, "TOOL")
    assert (tool["name"], tool["attributes"]["mcp.server"]) == ("read", "files")
    assert tool["attributes"]["input.value"] == '{"path":"a"}'
    assert "hello" in tool["attributes"]["output.value"]


@pytest.mark.parametrize(
    "value, told",
    [("text", "text"), ({"type": "input_text", "text": "part"}, "part"),
     ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"), ({"ok": 1}, '{"ok":1}'),
     ("", "")],
)  # fmt: skip
def test_outputs_of_any_shape_are_read(value: Any, told: str) -> None:
    read = read_lines(meta(), turn(1), call(2, "c1"), output(3, "c1", value))
    assert read.by_id["c1"]["attributes"]["output.value"] == told


def test_aborted_turns_and_errors_fail_the_turn() -> None:
    read = read_lines(meta(), turn(1, "a"), event(2, "turn_aborted", turn_id="a", reason="interrupted"),
                      turn(3, "b"), event(4, "error", message="stream disconnected"), turn(5, "c"))  # fmt: skip
    told = {key: (read.by_id[key]["status"]["code"][12:], read.by_id[key]["status"]["message"]) for key in "abc"}
    assert told == {
        "a": ("ERROR", "turn aborted: interrupted"),
        "b": ("ERROR", "stream disconnected"),
        "c": ("UNSET", ""),
    }


def test_calls_without_an_output_and_outputs_without_a_call_are_kept() -> None:
    read = read_lines(meta(), turn(1), output(2, "lost", "late words"), call(3, "c1"))
    assert read.by_id["c1"]["attributes"]["tool.result.missing"] is True
    assert "late words" in of_kind(read, "LLM")[0]["attributes"]["llm.input_messages"]


def test_a_call_of_the_older_kind_without_ids_is_joined_by_name() -> None:
    read = read_lines(meta(), turn(1), item(2, "tool_call", function={"name": "run"}, arguments={"command": "ls"}),
                      item(3, "tool_result", name="run", result={"stdout": "x", "exitCode": 1}))  # fmt: skip
    (tool,) = of_kind(read, "TOOL")
    assert (tool["name"], tool["status"]["code"]) == ("run", "STATUS_CODE_ERROR")
    assert json.loads(tool["attributes"]["output.value"]) == {"stdout": "x", "exitCode": 1}


def test_a_compaction_keeps_what_the_history_was_replaced_by() -> None:
    read = read_lines(
        meta(), turn(1), line(2, "compacted", message="In short: x", replacement_history=[{"role": "user"}])
    )
    (compacted,) = of_kind(read, "SPAN")
    assert compacted["attributes"]["output.value"] == "In short: x"
    assert compacted["attributes"]["codex.replacement_history"] == '[{"role":"user"}]'


def test_sessions_stacked_in_one_file_are_traces_and_a_fork_is_one() -> None:
    stacked = read_lines(*SESSION, meta(7, "other"), turn(8), message(9, "assistant", "Hi"))
    assert {span["trace_id"] for span in stacked.spans} == {THREAD, "other"}
    fork = read_lines(meta(0, "fork", forked_from_id=THREAD), *SESSION)
    assert {span["trace_id"] for span in fork.spans} == {"fork"}
    assert len(fork.spans) == len(read_lines(*SESSION).spans)


def test_lines_that_are_not_understood_are_told_with_their_place() -> None:
    read = read_lines(meta(), turn(1), line(2, "brand_new", x=1), 42, {"type": "response_item", "payload": "no"})
    assert [why for _, why in read.skipped] == [
        "a line of an unknown type",
        "not a JSON object",
        "a line without a payload",
    ]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.jsonl")), ids=lambda path: path.stem)
def test_of_a_real_file_usage_and_calls_are_there_once(path: Path, tmp_path: Path) -> None:
    lines: list[Any] = [json.loads(raw) for raw in path.read_text().splitlines()]
    spent, calls, before = [0, 0, 0], 0, None
    for one in lines:
        payload = one["payload"]
        kind = payload.get("type") or ""
        if one["type"] == "response_item":
            calls += kind.endswith("_call")
        if one["type"] == "event_msg" and kind == "token_count" and payload["info"]:
            total, last = payload["info"]["total_token_usage"], payload["info"]["last_token_usage"]
            if total != before:
                keys = ("input_tokens", "cached_input_tokens", "output_tokens")
                spent = [sum(pair) for pair in zip(spent, (last[key] for key in keys), strict=True)]
            before = total
    read = read_file(path, tmp_path / "index")
    assert read.format == "codex"
    assert read.report.lines_read == len(lines)
    assert [sum(one[place] or 0 for one in tokens(read)) for place in range(3)] == spent
    assert len(of_kind(read, "TOOL")) >= calls
    keys = [(span["trace_id"], span["span_id"]) for span in read.spans]
    assert len(keys) == len(set(keys))
