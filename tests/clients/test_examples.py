"""The examples write traces that halo-mcp reads in full: model, messages, tool calls, tokens, errors, outcomes.

Those that need packages from PyPI run only with ``HALO_MCP_EXAMPLES=1``. The model is scripted, on the loopback.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.example_runs import CALLS, networked, run_beside_model
from tests.tools.desk import Desk, desk_over

EXAMPLES: Final = Path(__file__).parents[2] / "examples"


async def traces_of(example: str, python: Path, tmp_path: Path) -> Path:
    """The file that the example wrote."""
    traces = tmp_path / "traces.jsonl"
    calls = 0 if example == "by_hand.py" else CALLS
    await run_beside_model(str(python), str(EXAMPLES / example), str(traces), directory=tmp_path, calls=calls)
    return traces


def assert_complete(desk: Desk, *, model: str, tokens: tuple[int, int], cause: str) -> None:
    """Everything that a diagnosis needs is there, as the tools tell it."""
    overview = desk.data("get_dataset_overview")
    assert (overview["total_traces"], overview["error_trace_count"]) == (2, 1)
    assert overview["model_names"] == [model]
    assert overview["agent_names"] == ["orders"]
    assert (overview["total_input_tokens"], overview["total_output_tokens"]) == tokens
    assert desk.data("count_traces", group_by="outcome")["total"] == 2
    for outcome in ("pass", "fail"):
        assert desk.data("count_traces", filters={"outcome": [outcome]})["total"] == 1
    assert desk.data("count_traces", filters={"task_keys": ["shipped-order"], "run_ids": ["example"]})["total"] == 1
    (mode,) = desk.data("list_failure_modes")["failure_modes"]
    assert mode["trace_count"] == 1
    tools = desk.text("analyze_tool_use")
    assert "get_order" in tools
    assert cause in json.dumps(mode)
    (failed,) = desk.data("query_traces", filters={"has_errors": True})["traces"]
    read = desk.text("view_trace", trace_id=failed["trace_id"], detail="full")
    for words in ("You answer questions about orders.", "Where is order B-2", "get_order", cause, "The tool says:"):
        assert words in read


def calls_of_the_model(desk: Desk) -> list[dict[str, Any]]:
    return desk.data("query_sql", sql="SELECT model_name FROM spans WHERE observation_kind = 'LLM'")["rows"]


async def test_traces_written_by_hand_are_complete(tmp_path: Path) -> None:
    desk = desk_over(tmp_path, await traces_of("by_hand.py", Path(sys.executable), tmp_path))
    assert_complete(desk, model="scripted-1", tokens=(130, 40), cause="no order B-2")
    assert len(calls_of_the_model(desk)) == CALLS


def test_the_example_by_hand_needs_the_standard_library_only() -> None:
    import ast

    tree = ast.parse((EXAMPLES / "by_hand.py").read_bytes())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "__future__"}


@networked
@pytest.mark.parametrize("example", ["openai_agents_sdk.py", "opentelemetry_file.py"])
async def test_traces_of_real_packages_are_complete(example: str, python: Path, tmp_path: Path) -> None:
    desk = desk_over(tmp_path, await traces_of(example, python, tmp_path))
    assert_complete(desk, model="m", tokens=(130, 40), cause="no order B-2")
    assert len(calls_of_the_model(desk)) == CALLS


@networked
async def test_the_default_path_of_the_agents_sdk_is_the_one_that_is_traced(python: Path, tmp_path: Path) -> None:
    """Its spans are called ``response``, and export neither model nor messages by themselves."""
    traces = await traces_of("openai_agents_sdk.py", python, tmp_path)
    spans = [json.loads(line) for line in traces.read_text(encoding="utf-8").splitlines()]
    calls = [span["attributes"] for span in spans if span["attributes"]["openinference.span.kind"] == "LLM"]
    assert {call["llm.response.id"] for call in calls} == {"resp_1"}
    assert {call["llm.model_name"] for call in calls} == {"m"}
    assert [tool["name"] for tool in json.loads(calls[0]["llm.tools"])] == ["get_order"]
    first, second = (json.loads(call["llm.input_messages"]) for call in calls[:2])
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "tool"]
