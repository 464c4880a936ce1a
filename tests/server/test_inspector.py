"""The MCP Inspector's command line, a client that others wrote, asks over standard input and output.

Only with ``HALO_MCP_NODE=1``: npm installs it once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest

from halo_mcp.engine.settings import Wire
from tests.engine.fake_llm import FakeLLM, answer
from tests.engine.harness import KEY, WIRES
from tests.node_packages import INSPECTOR, here, installed
from tests.server.asking import QUOTE, traces
from tests.server.test_ask import GOOD, LOOK
from tests.server.test_stdio import HALO, ROOT

PATIENCE_S: Final = 60
TOOL_FAILED: Final = 5
"""Its exit code when a tool returned an error."""

pytestmark = pytest.mark.skipif(os.environ.get("HALO_MCP_NODE") != "1", reason="HALO_MCP_NODE is not 1")


class Inspected(NamedTuple):
    """What one run of the Inspector gave."""

    code: int
    result: dict[str, Any]
    everything: str


async def inspect(tmp_path: Path, model: FakeLLM | None, *arguments: str, wire: Wire = "chat") -> Inspected:
    """One method of a server of its own; the test is skipped where the Inspector cannot be had."""
    inspector = await anyio.to_thread.run_sync(here, lambda: installed(INSPECTOR))
    variables = {"HALO_MCP_INDEX_DIR": str(tmp_path / "index"), "OPENAI_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    if model:
        variables |= {"HALO_MCP_MODEL": "m", "OPENAI_BASE_URL": model.base_url, "HALO_MCP_LLM_API": wire}
    # Its default is a file in the home directory, which it would make.
    environment = {**os.environ, "MCP_CATALOG_PATH": str(tmp_path / "catalog.json")}
    command = [str(inspector), "--cli", sys.executable, *HALO, str(traces(tmp_path))]
    chosen = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
    with anyio.fail_after(PATIENCE_S):
        run = await anyio.run_process(
            [*command, *chosen, *arguments, "--format", "json"],
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    out, err = run.stdout.decode(), run.stderr.decode()
    result: dict[str, Any] = json.loads(out).get("result", {}) if out.strip() else {}
    return Inspected(run.returncode, result, out + err)


def called(tool: str, **arguments: Any) -> list[str]:
    return ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]


async def test_the_inspector_finds_no_fault_in_the_schemas_with_a_model_set_up(tmp_path: Path) -> None:
    async with FakeLLM([]) as model:
        seen = await inspect(tmp_path, model, "--method", "tools/list", "--strict")
    assert seen.code == 0, seen.everything
    described = {tool["name"]: tool["description"] for tool in seen.result["tools"]}
    assert "own agent (m)" in described["ask"]


@WIRES
async def test_the_inspector_asks_and_reads_checked_findings(tmp_path: Path, wire: Wire) -> None:
    async with FakeLLM([LOOK, answer("Billing is slow.", findings=[GOOD])]) as model:
        arguments = called("ask", question="What fails?", response_format="json")
        seen = await inspect(tmp_path, model, *arguments, wire=wire)
        assert len(model.requests) == 2
    assert seen.code == 0, seen.everything
    found = seen.result["structuredContent"]
    assert (found["status"], found["answer"], found["citations"]["verified"]) == ("complete", "Billing is slow.", 1)
    assert KEY not in seen.everything


async def test_the_inspector_is_told_that_a_job_belongs_to_another_server(tmp_path: Path) -> None:
    async with FakeLLM([LOOK, answer("Billing is slow.", findings=[GOOD])]) as model:
        asked = await inspect(tmp_path, model, *called("ask", question="What fails?", response_format="json"))
        run_id = asked.result["structuredContent"]["run_id"]
        seen = await inspect(tmp_path, model, *called("ask_result", job_id=run_id))
        record = await inspect(tmp_path, model, "--method", "resources/read", "--uri", f"halo://runs/{run_id}")
    assert seen.code == TOOL_FAILED
    assert "belongs to another server" in seen.result["content"][0]["text"]
    assert '"name": "ask"' in record.result["contents"][0]["text"]


async def test_the_inspector_gets_the_evidence_and_a_plan_without_a_model(tmp_path: Path) -> None:
    seen = await inspect(tmp_path, None, *called("ask", question="What fails?"))
    assert seen.code == 0, seen.everything
    (block,) = seen.result["content"]
    assert block["text"].startswith("status no_model")
    assert QUOTE in block["text"]


async def test_the_inspector_is_told_in_one_sentence_what_is_wrong(tmp_path: Path) -> None:
    async with FakeLLM([]) as model:
        seen = await inspect(tmp_path, model, *called("ask", question=" "))
    assert seen.code == TOOL_FAILED
    assert seen.result["content"][0]["text"] == ("The question is empty: say what you want to know about the traces.")
