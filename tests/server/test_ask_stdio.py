"""ask over a real server process, with the scripted model on a loopback socket."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from tests.engine.fake_llm import FakeLLM, Hang, answer
from tests.engine.harness import KEY
from tests.server.asking import traces
from tests.server.test_ask import GOOD, LOOK
from tests.server.test_stdio import HALO, ROOT
from tests.test_cli_ask import environment
from tests.tools.desk import ERAS, Caller, Era

PATIENCE_S = 60


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


@asynccontextmanager
async def process(tmp_path: Path, model: FakeLLM, era: Era, **variables: str) -> AsyncGenerator[Caller]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[*HALO, str(traces(tmp_path))],
        env={**environment(tmp_path, model), **variables},
        cwd=str(ROOT),
    )
    with anyio.fail_after(PATIENCE_S):
        async with Client(parameters, mode=era) as client:
            yield Caller(client)


async def test_a_question_over_stdio_is_answered_with_progress_and_no_key(tmp_path: Path, era: Era) -> None:
    received: list[tuple[float, str]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        received.append((progress, message or ""))

    async with FakeLLM([LOOK, answer("Billing is slow.", findings=[GOOD])]) as model:
        async with process(tmp_path, model, era) as caller:
            tools = {tool.name: tool for tool in (await caller.client.list_tools()).tools}
            arguments: dict[str, Any] = {"question": "What fails?", "response_format": "json"}
            result = await caller.client.call_tool("ask", arguments, progress_callback=note)
        keys = [headers["authorization"] for headers in model.headers]
    assert "own agent (m)" in (tools["ask"].description or "")
    found: dict[str, Any] = result.structured_content or {}
    assert (found["status"], found["citations"]["verified"]) == ("complete", 1)
    assert KEY not in result.model_dump_json()
    assert keys == [f"Bearer {KEY}"] * 2
    values = [value for value, _ in received]
    assert values
    assert values == sorted(set(values))


async def test_a_long_question_over_stdio_becomes_a_job_that_ends_with_the_server(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model:
        async with process(tmp_path, model, era, HALO_MCP_ASK_WAIT_S="0.001") as caller:
            running = await caller.json("ask", question="What fails?")
            assert running["status"] == "running"
            await model.hanging.wait()
        await model.idle()
        assert model.disconnects == [1]


async def test_cancelling_over_stdio_closes_the_socket_to_the_model(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model, process(tmp_path, model, era) as caller:
        async with anyio.create_task_group() as group:
            group.start_soon(caller.client.call_tool, "ask", {"question": "What fails?"})
            await model.hanging.wait()
            group.cancel_scope.cancel()
        await model.idle()
        assert model.disconnects == [1]
        assert "3 traces match." in await caller.text("count_traces")
