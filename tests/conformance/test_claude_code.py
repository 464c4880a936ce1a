"""The real Claude Code, with a scripted model behind it: what that model would see of our server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from halo_mcp.server import INSTRUCTIONS, build_tools
from halo_mcp.tools.budget import DEFAULT_CHARS, MAX_CHARS
from tests import node_packages as npm
from tests.builders import span, write_lines
from tests.conformance.every_tool import EXAMPLES
from tests.conformance.meeting_server import CALLS
from tests.conformance.messages_api import LAST_WORDS, ScriptedModel, ToolUse, Turn, as_blocks
from tests.conformance.packages import flagged
from tests.sandbox.interpreter import share_compiled
from tests.server.asking import traces
from tests.server.over_http import serving_http
from tests.server.test_stdio import HALO, ROOT

PATIENCE_S: Final = 300
PREFIX: Final = "mcp__halo__"
ALWAYS_LOADED: Final = {PREFIX + "get_dataset_overview"}
TIMED: Final = ("query_sql", "run_code", "ask", "ask_result")
"""Their answers have milliseconds or an id in them, which differ from call to call."""

pytestmark = flagged


def halo(tool: str, **arguments: Any) -> ToolUse:
    return ToolUse(PREFIX + tool, arguments)


def over_stdio(tmp_path: Path, source: Path, program: Sequence[str] = HALO) -> dict[str, Any]:
    """The server's entry in a configuration."""
    variables = {"HALO_MCP_INDEX_DIR": str(tmp_path / "index"), "PYTHONPATH": str(ROOT)}
    return {"command": sys.executable, "args": [*program, str(source)], "env": variables}


async def asked(tmp_path: Path, entry: Mapping[str, Any], script: Sequence[Turn]) -> ScriptedModel:
    """Claude Code in print mode, until the model has said its last words."""
    program = await anyio.to_thread.run_sync(npm.here, npm.claude_code)
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    configuration = tmp_path / "mcp.json"
    configuration.write_text(json.dumps({"mcpServers": {"halo": entry}}), encoding="utf-8")
    with ScriptedModel(script) as model:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        options = ["--mcp-config", str(configuration), "--strict-mcp-config", "--allowedTools", "mcp__halo"]
        with anyio.fail_after(PATIENCE_S):
            done = await anyio.run_process(
                [str(program), "-p", "Look at the traces.", *options],
                env=environment,
                cwd=project,
                stdin=subprocess.DEVNULL,
                check=False,
            )
    assert (done.returncode, done.stdout.decode().strip()) == (0, LAST_WORDS), done.stderr.decode()
    return model


def spilled(tmp_path: Path) -> list[Path]:
    """Results that Claude Code saved to a file instead of showing them."""
    return [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "tool-results" in path.parts]


def offered(request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Our tools whose descriptions and schemas the model has."""
    return {tool["name"]: tool for tool in request["tools"] if tool["name"].startswith(PREFIX)}


def everything_said(request: Mapping[str, Any]) -> str:
    """All texts of a request, as one."""
    contents: list[Any] = [request["system"], *(message["content"] for message in request["messages"])]
    return "\n".join(str(block["text"]) for content in contents for block in as_blocks(content) if "text" in block)


async def test_the_model_sees_every_tools_text_over_stdio(tmp_path: Path) -> None:
    share_compiled(tmp_path / "index")
    turn = [halo(tool, **example.arguments) for tool, example in EXAMPLES.items()]
    model = await asked(tmp_path, over_stdio(tmp_path, traces(tmp_path)), [turn])
    for (tool, example), seen in zip(EXAMPLES.items(), model.seen(), strict=True):
        assert example.says in seen.text, tool
        assert seen.is_error == example.fails
    assert spilled(tmp_path) == []


async def test_the_model_sees_over_http_what_any_client_gets_to_the_character(tmp_path: Path) -> None:
    compared = {tool: example for tool, example in EXAMPLES.items() if tool not in TIMED}
    turn = [halo(tool, **example.arguments) for tool, example in compared.items()]
    async with serving_http(tmp_path, str(traces(tmp_path)), patience_s=PATIENCE_S) as server:
        model = await asked(tmp_path, {"type": "http", "url": server.url}, [turn])
        async with server.client() as caller:
            got = [await caller.text(tool, **example.arguments) for tool, example in compared.items()]
    assert [seen.text for seen in model.seen()] == got


async def test_full_answers_are_shown_to_the_model_and_not_saved_to_files(tmp_path: Path) -> None:
    words = [f"{number}: the quick brown fox jumps over the lazy dog. " * 80 for number in range(120)]
    path = write_lines(
        tmp_path / "traces.jsonl",
        *(span(f"s{i}", "s0" if i else "", attributes={"output.value": text}) for i, text in enumerate(words)),
        *(span(trace=f"{number:032x}") for number in range(300)),
    )
    calls: list[tuple[str, dict[str, Any], int]] = [
        ("view_trace", {"trace_id": "t1", "detail": "full"}, DEFAULT_CHARS // 2),
        ("view_spans", {"trace_id": "t1", "span_ids": [f"s{i}" for i in range(100)]}, DEFAULT_CHARS // 2),
        ("search_trace", {"trace_id": "t1", "pattern": "lazy dog", "max_matches": 100}, DEFAULT_CHARS // 2),
        ("query_traces", {"limit": 500}, DEFAULT_CHARS // 2),
        ("view_trace", {"trace_id": "t1", "detail": "full", "max_chars": MAX_CHARS}, MAX_CHARS * 2 // 3),
        ("view_trace", {"trace_id": "t1", "detail": "full", "response_format": "json"}, DEFAULT_CHARS // 2),
    ]
    async with serving_http(tmp_path, str(path), patience_s=PATIENCE_S) as server:
        entry = {"type": "http", "url": server.url}
        model = await asked(tmp_path, entry, [[halo(tool, **arguments) for tool, arguments, _ in calls]])
        async with server.client() as caller:
            results = [await caller.client.call_tool(tool, arguments) for tool, arguments, _ in calls]
    for seen, result, (tool, _, least) in zip(model.seen(), results, calls, strict=True):
        (block,) = result.content
        assert block.type == "text"
        assert len(block.text) > least, tool
        assert seen.text == block.text, tool
    assert spilled(tmp_path) == []


async def test_calls_of_one_turn_are_at_work_at_the_same_time(tmp_path: Path) -> None:
    program = ["-m", "tests.conformance.meeting_server"]
    entry = over_stdio(tmp_path, traces(tmp_path), program)
    model = await asked(tmp_path, entry, [[halo("list_datasets")] * CALLS])
    assert ["3 traces, 9 spans" in seen.text for seen in model.seen()] == [True] * CALLS


async def test_the_model_has_the_instructions_and_the_overview_and_finds_the_rest(tmp_path: Path) -> None:
    search = [ToolUse("ToolSearch", {"query": "select:mcp__halo__view_trace"})]
    words = [ToolUse("ToolSearch", {"query": "+halo failure", "max_results": 3})]
    model = await asked(
        tmp_path, over_stdio(tmp_path, traces(tmp_path)), [[halo("get_dataset_overview")], search, words]
    )
    first, last = model.requests[0], model.requests[-1]
    assert INSTRUCTIONS.strip() in everything_said(first)
    described = {PREFIX + tool.name: tool for tool in build_tools()}
    assert offered(first).keys() == ALWAYS_LOADED
    for name, tool in described.items():
        assert name in everything_said(first) or name in ALWAYS_LOADED
        if name in (loaded := offered(last)):
            assert loaded[name]["description"] == tool.description
            assert loaded[name]["input_schema"]["properties"].keys() == tool.parameters["properties"].keys()
    assert offered(last).keys() >= {PREFIX + "view_trace", PREFIX + "list_failure_modes", *ALWAYS_LOADED}


async def test_the_model_reads_in_full_what_was_wrong_with_its_call(tmp_path: Path) -> None:
    turn = [halo("get_dataset_overview", filter={}), halo("view_trace", trace_id="t9")]
    model = await asked(tmp_path, over_stdio(tmp_path, traces(tmp_path)), [turn])
    misspelt, unknown = model.seen()
    assert misspelt.is_error
    assert "- filter: Extra inputs are not permitted\nAccepted arguments: filters" in misspelt.text
    assert unknown.is_error
    assert "t9" in unknown.text
