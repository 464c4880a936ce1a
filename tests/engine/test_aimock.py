"""The loop against a server that others wrote: ``@copilotkit/aimock`` from npm.

Only with ``HALO_MCP_AIMOCK=1`` (npm installs it once), or with ``HALO_MCP_AIMOCK=/path/to/llmock``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from halo_mcp.engine.ask import ask
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.run import Run
from halo_mcp.engine.settings import LLMSettings, Wire
from tests.engine.harness import KEY, TOOLS, WIRES
from tests.node_packages import AIMOCK, here, installed

WANTED: Final = os.environ.get("HALO_MCP_AIMOCK", "")

pytestmark = pytest.mark.skipif(not WANTED, reason="HALO_MCP_AIMOCK is not set")


def llmock() -> str:
    """The program; the test is skipped where it cannot be had."""
    return WANTED if WANTED != "1" else str(here(lambda: installed(AIMOCK)))


@pytest.fixture
def base_url(tmp_path: Path) -> Generator[str]:
    """A server that asks for a tool twice at once and then answers."""
    looks = [{"name": "view_trace", "arguments": {"n": number}} for number in (1, 2)]
    final = {"name": "final_answer", "arguments": {"answer": "It times out."}}
    turns = [{"toolCalls": looks}, {"toolCalls": [final]}]
    fixtures = [{"match": {"sequenceIndex": place}, "response": turn} for place, turn in enumerate(turns)]
    (tmp_path / "turns.json").write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    command = [llmock(), "--port", "0", "--strict", "--fixtures", str(tmp_path / "turns.json")]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as server:
        assert server.stdout
        try:
            said = (re.search(rb"listening on (http://\S+)", text) for text in server.stdout)
            found = next((match[1].decode() for match in said if match), None)
            if found is None:
                pytest.fail("aimock did not start")
            yield f"{found}/v1"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


@WIRES
async def test_a_run_against_a_foreign_server_ends_with_its_answer(base_url: str, wire: Wire) -> None:
    endpoint = Endpoint(LLMSettings(model="m", api=wire, base_url=base_url, api_key=KEY))
    outcome = await ask(Run(endpoint, TOOLS), "What goes wrong?")
    await endpoint.aclose()
    assert (outcome.result.status, outcome.result.answer) == ("complete", "It times out.")
    assert (outcome.result.turns, outcome.result.tool_calls, outcome.totals.requests) == (2, 2, 2)
    assert outcome.totals.output_tokens > 0
