"""Claude Code sessions: what one trace holds, and that nothing in it counts twice."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Record
from tests.formats.reading import Read, read_file, read_lines

DATA = Path(__file__).parents[3] / "shared" / "data" / "claude-code"
SESSION = "11111111-2222-4333-8444-555555555555"


def line(kind: str, at: float, message: Any = None, **members: Any) -> Record:
    """A line ``at`` seconds after noon; its uuid is ``kind`` with the time unless given."""
    seconds, rest = divmod(round(at * 1000), 1000)
    return {
        "type": kind,
        "uuid": f"{kind}-{at}",
        "parentUuid": None,
        "isSidechain": False,
        "sessionId": SESSION,
        "timestamp": f"2026-05-04T12:00:{seconds:02d}.{rest:03d}Z",
        **({"message": message} if message is not None else {}),
        **members,
    }


def user(at: float, content: Any, **members: Any) -> Record:
    return line("user", at, {"role": "user", "content": content}, **members)


def result(at: float, call: str, content: Any, *, is_error: bool = False, **members: Any) -> Record:
    block = {"type": "tool_result", "tool_use_id": call, "content": content, "is_error": is_error}
    return user(at, [block], **members)


def assistant(at: float, message_id: str, *content: Record, usage: Any = None, **members: Any) -> Record:
    message = {"id": message_id, "role": "assistant", "model": "claude-m", "content": list(content)}
    return line("assistant", at, message | {"usage": usage or {}}, **members)


def text(words: str) -> Record:
    return {"type": "text", "text": words}


def call(call_id: str, name: str, **given: Any) -> Record:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def tokens(read: Read) -> list[tuple[Any, Any, Any]]:
    return [
        tuple(span["attributes"].get(f"inference.llm.{key}_tokens") for key in ("input", "output", "cached_input"))
        for span in read.spans
        if kind_of(span) == "LLM"
    ]  # type: ignore[return-value]


def seconds(span: Record) -> tuple[float, float]:
    """Start and end, after noon."""
    return float(span["start_time"][17:-1]), float(span["end_time"][17:-1])


def kind_of(span: Record) -> str:
    return span["attributes"]["inference.observation_kind"]


def kinds(read: Read) -> list[str]:
    return sorted(kind_of(span) for span in read.spans)


def said(span: Record, direction: str = "output") -> list[Record]:
    return json.loads(span["attributes"][f"llm.{direction}_messages"])


def test_a_session_is_one_trace_of_an_agent_its_answers_and_its_tool_calls() -> None:
    read = read_lines(
        user(1, "List the files"),
        assistant(2, "m1", text("I look."), call("t1", "Bash", command="ls")),
        result(3, "t1", [text("a.txt"), text("b.txt")]),
        assistant(4, "m2", text("Two files.")),
    )
    assert read.format == "claude-code"
    root, tool, answer = (read.by_id[key] for key in (SESSION, "t1", "m2"))
    assert {span["trace_id"] for span in read.spans} == {SESSION}
    assert kinds(read) == ["AGENT", "LLM", "LLM", "TOOL"]
    assert (root["parent_span_id"], root["attributes"]["inference.agent_name"]) == ("", "claude-code")
    assert (root["attributes"]["input.value"], root["attributes"]["output.value"]) == ("List the files", "Two files.")
    assert (root["start_time"], root["end_time"]) == (
        "2026-05-04T12:00:01.000000000Z",
        "2026-05-04T12:00:04.000000000Z",
    )
    assert (tool["parent_span_id"], tool["name"]) == (SESSION, "Bash")
    assert tool["attributes"]["input.value"] == '{"command":"ls"}'
    assert tool["attributes"]["output.value"] == "a.txt\nb.txt"
    assert (tool["start_time"], tool["end_time"]) == (
        "2026-05-04T12:00:02.000000000Z",
        "2026-05-04T12:00:03.000000000Z",
    )
    assert answer["start_time"] == "2026-05-04T12:00:03.000000000Z"
    assert said(read.by_id["m1"], "input") == [{"role": "user", "content": "List the files"}]


def test_usage_counts_once_a_message_and_is_that_of_its_last_line() -> None:
    first, last = (
        {"input_tokens": 3, "output_tokens": count, "cache_read_input_tokens": 9000, "cache_creation_input_tokens": 7}
        for count in (1, 250)
    )
    read = read_lines(
        user(1, "Go"),
        assistant(2, "m1", {"type": "thinking", "thinking": "Hm.", "signature": "xyz"}, usage=first),
        assistant(3, "m1", text("One."), usage=first),
        assistant(4, "m1", call("t1", "Bash", command="ls"), usage=last),
        result(5, "t1", "ok"),
        assistant(6, "m1", call("t2", "Bash", command="pwd"), usage=last),
    )
    assert tokens(read) == [(3, 250, 9000)]
    assert [block["type"] for block in said(read.by_id["m1"])[0]["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert kinds(read) == ["AGENT", "LLM", "TOOL", "TOOL"]


def test_glued_lines_are_both_read_and_a_cut_line_is_told() -> None:
    glued = b"".join(json.dumps(one).encode() for one in (user(1, "Go"), assistant(2, "m1", text("Done."))))
    read = read_lines(glued, b'{"type": "user", "sessionId": "cut', assistant(3, "m2", text("More.")))
    assert {"m1", "m2", SESSION} == set(read.by_id)
    assert read.report.repairs["records recovered from damaged lines"] == 2
    assert [where for where, _ in read.skipped] == [read.skipped[0][0]]


def test_a_session_stored_twice_with_overlapping_lines_counts_once() -> None:
    lines = [
        user(1, "Go"),
        assistant(2, "m1", text("a"), call("t1", "Bash"), usage={"input_tokens": 5, "output_tokens": 7}),
        result(3, "t1", "ok"),
        assistant(4, "m2", text("b"), usage={"input_tokens": 6, "output_tokens": 8}),
    ]
    once, twice = read_lines(*lines), read_lines(*lines[:3], *lines[1:])
    assert twice.by_id == once.by_id
    assert twice.report.repairs["records stored more than once"] == 2


def test_a_failed_tool_result_is_an_error_of_the_tool() -> None:
    read = read_lines(assistant(1, "m1", call("t1", "Bash")), result(2, "t1", "no such file", is_error=True))
    assert read.by_id["t1"]["status"]["code"] == "STATUS_CODE_ERROR"
    assert read.by_id["m1"]["status"]["code"] == read.by_id[SESSION]["status"]["code"] == "STATUS_CODE_UNSET"


def test_a_call_without_a_result_and_a_result_without_a_call_are_kept() -> None:
    read = read_lines(user(1, [{"type": "tool_result", "tool_use_id": "lost", "content": "late words"}]),
                      assistant(2, "m1", call("t1", "Bash")))  # fmt: skip
    assert read.by_id["t1"]["attributes"]["tool.result.missing"] is True
    assert "late words" in read.by_id["m1"]["attributes"]["llm.input_messages"]


def test_api_errors_are_failed_calls_without_usage_or_model() -> None:
    error = {"status": 529, "error": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}}
    read = read_lines(
        user(1, "Go"),
        line("system", 2, subtype="api_error", level="error", error=error, retryAttempt=1, maxRetries=10),
        assistant(
            3, "x", text("API Error: 529"), isApiErrorMessage=True, error="overloaded", usage={"input_tokens": 0}
        ),
        assistant(4, "m1", text("Fine."), usage={"input_tokens": 1, "output_tokens": 1}),
    )
    failed = [span for span in read.spans if span["status"]["code"] == "STATUS_CODE_ERROR"]
    assert [(kind_of(span), span["status"]["message"]) for span in failed] == [
        ("LLM", "Overloaded"),
        ("LLM", "API Error: 529"),
    ]
    assert failed[0]["attributes"]["retryAttempt"] == 1
    assert not any("inference.llm.model_name" in span["attributes"] for span in failed)
    assert tokens(read) == [(None, None, None), (None, None, None), (1, 1, None)]
    assert said(read.by_id["m1"], "input")[0]["content"] == "Go"


def test_a_synthetic_message_is_no_call_of_a_model() -> None:
    synthetic = assistant(2, "s", text("No response requested."), usage={"input_tokens": 0})
    synthetic["message"]["model"] = "<synthetic>"
    read = read_lines(user(1, "Go"), synthetic)
    assert kinds(read) == ["AGENT", "SPAN", "SPAN"]
    assert read.by_id["assistant-2"]["attributes"]["output.value"] == "No response requested."


def test_a_compaction_is_a_span_and_the_session_goes_on_behind_it() -> None:
    read = read_lines(
        user(1, "Go"),
        assistant(2, "m1", text("a")),
        line("system", 3, subtype="compact_boundary", content="Compacted", compactMetadata={"preTokens": 9}),
        user(4, "Summary of all before", isCompactSummary=True, logicalParentUuid="assistant-2"),
        assistant(5, "m2", text("b")),
    )
    boundary = read.by_id["system-3"]
    assert (boundary["name"], kind_of(boundary)) == ("compact_boundary", "SPAN")
    assert boundary["attributes"]["compactMetadata"] == '{"preTokens":9}'
    assert said(read.by_id["m2"], "input")[0]["content"] == "Summary of all before"
    assert {span["trace_id"] for span in read.spans} == {SESSION}


def test_bookkeeping_is_counted_and_does_not_crowd_out_what_was_not_understood() -> None:
    noise: list[Any] = [{"type": "file-history-snapshot", "messageId": "x", "snapshot": {}}] * 30
    read = read_lines(*noise, user(1, "Go"), {"type": "brand-new", "sessionId": SESSION}, 42)
    assert read.report.lines_skipped == sum(read.report.reasons.values()) == 2
    assert read.report.bookkeeping == {"file-history-snapshot": 30}
    assert [why for _, why in read.skipped] == ["a line of an unknown type", "not a JSON object"]


# --- sub-agents ------------------------------------------------------------------------------------------------------
def parent_lines() -> list[Record]:
    return [
        user(1, "Go"),
        assistant(2, "m1", call("task1", "Task", prompt="Look for it", subagent_type="Explore")),
        result(9, "task1", "It is there", toolUseResult={"agentId": "abc", "totalTokens": 55}),
    ]


def sub_lines(**members: Any) -> list[Record]:
    return [
        user(3, "Look for it", **members),
        assistant(4, "s1", call("t9", "Grep"), usage={"input_tokens": 11, "output_tokens": 2}, **members),
        result(5, "t9", "found", **members),
        assistant(6, "s2", text("It is there"), usage={"input_tokens": 12, "output_tokens": 3}, **members),
    ]


def test_a_side_chain_is_an_agent_under_the_call_that_started_it() -> None:
    chain = sub_lines(isSidechain=True)
    for earlier, later in itertools.pairwise(chain):
        later["parentUuid"] = earlier["uuid"]
    parent = parent_lines()
    read = read_lines(*parent[:2], *chain, parent[2])
    agent = read.by_id["agent-user-3"]
    assert (kind_of(agent), agent["parent_span_id"]) == ("AGENT", "task1")
    assert agent["attributes"]["output.value"] == "It is there"
    assert {key: read.by_id[key]["parent_span_id"] for key in ("s1", "t9", "s2", "task1")} == {
        "s1": "agent-user-3",
        "t9": "agent-user-3",
        "s2": "agent-user-3",
        "task1": SESSION,
    }
    assert read.by_id[SESSION]["attributes"]["input.value"] == "Go"


def test_progress_lines_of_a_sub_agent_are_its_steps() -> None:
    progress = [
        line("progress", 3 + number / 10, parentToolUseID="task1", data={"type": "agent_progress", "agentId": "abc",
             "message": {key: one[key] for key in ("type", "message", "uuid", "timestamp")}})
        for number, one in enumerate(sub_lines())
    ]  # fmt: skip
    hook = line("progress", 4, data={"type": "hook_progress"})
    parent = parent_lines()
    read = read_lines(*parent[:2], *progress, hook, parent[2])
    assert read.by_id["agent-abc"]["parent_span_id"] == "task1"
    assert kinds(read) == ["AGENT", "AGENT", "LLM", "LLM", "LLM", "TOOL", "TOOL"]
    assert sorted(tokens(read), key=str) == [(11, 2, None), (12, 3, None), (None, None, None)]


@pytest.mark.parametrize("own_session", [False, True], ids=["named as the parent's session", "named as its own"])
def test_a_sub_agents_file_joins_the_trace_of_its_session(tmp_path: Path, own_session: bool) -> None:
    folder = tmp_path / SESSION / "subagents"
    folder.mkdir(parents=True)
    session = "agent-abc" if own_session else SESSION
    main, sub = tmp_path / f"{SESSION}.jsonl", folder / "agent-abc.jsonl"
    write(main, parent_lines())
    write(sub, sub_lines(isSidechain=True, agentId="abc", sessionId=session))
    sub.with_suffix(".meta.json").write_text('{"agentType": "Explore", "spawnDepth": 1}')
    assert read_file(sub.with_suffix(".meta.json"), tmp_path / "index3").format == "claude-code"
    whole, part = read_file(main, tmp_path / "index1"), read_file(sub, tmp_path / "index2")
    assert {span["trace_id"] for span in part.spans} == {SESSION}
    agent = part.by_id["agent-abc"]
    assert (agent["parent_span_id"], agent["attributes"]["inference.agent_name"]) == ("task1", "Explore")
    assert agent["parent_span_id"] in whole.by_id
    assert SESSION not in part.by_id
    assert not whole.by_id.keys() & part.by_id.keys()


def test_steps_that_stand_in_a_file_of_their_own_are_not_read_from_progress_lines_too(tmp_path: Path) -> None:
    folder = tmp_path / SESSION / "subagents"
    folder.mkdir(parents=True)
    write(folder / "agent-abc.jsonl", sub_lines(isSidechain=True, agentId="abc"))
    step = line(
        "progress", 4, parentToolUseID="task1", data={"type": "agent_progress", "agentId": "abc", "message": {}}
    )
    main = tmp_path / f"{SESSION}.jsonl"
    write(main, [*parent_lines(), step])
    read = read_file(main, tmp_path / "index")
    assert kinds(read) == ["AGENT", "LLM", "TOOL"]
    assert read.report.bookkeeping["a progress line of a sub-agent that has a file of its own"] == 1


def write(path: Path, lines: list[Record]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


# --- real files ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.jsonl")), ids=lambda path: path.stem)
def test_of_a_real_file_every_message_and_call_is_there_once(path: Path, tmp_path: Path) -> None:
    usage, calls, records = dict[str, tuple[int, int]](), set[str](), 0
    for raw in path.read_text().splitlines():
        records += bool(raw.strip())
        one: Any = json.loads(raw)
        if not hasattr(one, "get") or one.get("type") != "assistant" or one["message"].get("model") == "<synthetic>":
            continue
        message = one["message"]
        spent = message.get("usage", {})
        if message.get("id"):
            usage[one["sessionId"] + message["id"] + one.get("agentId", "")] = (
                spent.get("input_tokens", 0),
                spent.get("output_tokens", 0),
            )
        calls |= {
            one["sessionId"] + block["id"]
            for block in message["content"]
            if block["type"] == "tool_use" and "id" in block
        }
    read = read_file(path, tmp_path / "index")
    assert read.format == "claude-code"
    assert read.report.lines_read == records
    counted = [(i or 0, o or 0) for i, o, _ in tokens(read)]
    assert (sum(i for i, _ in counted), sum(o for _, o in counted)) == (
        sum(i for i, _ in usage.values()),
        sum(o for _, o in usage.values()),
    )
    tools = [span for span in read.spans if kind_of(span) == "TOOL"]
    ids = [span["trace_id"] + span["attributes"].get("source.span_id", span["span_id"]) for span in tools]
    assert sorted(one for one in ids if one in calls) == sorted(calls)
    keys = [(span["trace_id"], span["span_id"]) for span in read.spans]
    assert len(keys) == len(set(keys))
