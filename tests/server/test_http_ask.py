"""ask over HTTP against the scripted model: who leaves, and what happens to the sockets behind the server."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from mcp import MCPError
from mcp_types import ResourceTemplateReference

from tests.engine.fake_llm import FakeLLM, Hang, answer
from tests.engine.harness import KEY
from tests.server.asking import traces
from tests.server.over_http import HttpServer, serving_http
from tests.server.test_ask import GOOD, LOOK
from tests.test_cli_ask import environment
from tests.tools.desk import ERAS, Era

NOBODY = "0" * 16


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


@asynccontextmanager
async def asked(tmp_path: Path, model: FakeLLM, *arguments: str, **variables: str) -> AsyncGenerator[HttpServer]:
    variables = {**environment(tmp_path, model), **variables}
    async with serving_http(tmp_path, str(traces(tmp_path)), *arguments, variables=variables) as server:
        yield server


async def test_a_question_over_http_is_answered_with_progress_and_no_key(tmp_path: Path, era: Era) -> None:
    received: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        received.append(progress)

    script = [LOOK, answer("Billing is slow.", findings=[GOOD])]
    async with FakeLLM(script) as model, asked(tmp_path, model) as server, server.client(era) as caller:
        arguments: dict[str, Any] = {"question": "What fails?", "response_format": "json"}
        result = await caller.client.call_tool("ask", arguments, progress_callback=note)
    found: dict[str, Any] = result.structured_content or {}
    assert (found["status"], found["citations"]["verified"]) == ("complete", 1)
    assert KEY not in result.model_dump_json()
    assert received
    assert received == sorted(set(received))


async def test_cancelling_over_http_closes_the_socket_to_the_model(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model, asked(tmp_path, model) as server, server.client(era) as caller:
        async with anyio.create_task_group() as group:
            group.start_soon(caller.client.call_tool, "ask", {"question": "What fails?"})
            await model.hanging.wait()
            group.cancel_scope.cancel()
        await model.idle()
        assert model.disconnects == [1]
        assert "3 traces match." in await caller.text("count_traces")


async def test_a_client_that_drops_its_connection_stops_its_question(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model, asked(tmp_path, model) as server, server.raw(era) as staying:
        async with server.raw(era) as leaving, anyio.create_task_group() as group:
            group.start_soon(lambda: leaving.call(1, "ask", question="What fails?"))
            await model.hanging.wait()
            group.cancel_scope.cancel()
        await model.idle()
        assert model.disconnects == [1]
        assert "3 traces match." in (await staying.call(1, "count_traces")).text


async def test_the_end_of_the_server_stops_a_question_and_closes_its_sockets(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model:
        async with (
            asked(tmp_path, model, "--grace-s", "0.1") as server,
            server.raw(era) as client,
            anyio.create_task_group() as group,
        ):

            async def ask() -> None:
                try:
                    await client.call(1, "ask", question="What fails?")
                except httpx2.TransportError:
                    pass  # the server is gone: what else could it be told

            group.start_soon(ask)
            await model.hanging.wait()
            server.process.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
        await model.idle()
        assert (model.disconnects, model.sockets) == ([1], 0)


async def test_a_job_ends_with_the_server(tmp_path: Path, era: Era) -> None:
    async with FakeLLM([LOOK, Hang()]) as model:
        async with asked(tmp_path, model, HALO_MCP_ASK_WAIT_S="0.001") as server, server.client(era) as caller:
            assert (await caller.json("ask", question="What fails?"))["status"] == "running"
            await model.hanging.wait()
            server.process.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
        await model.idle()
        assert model.disconnects == [1]


async def test_a_job_outlives_its_connection_and_another_client_gets_its_result(tmp_path: Path, era: Era) -> None:
    release = anyio.Event()
    final = answer("Billing is slow.", findings=[GOOD])
    final.before = release.wait
    async with (
        FakeLLM([LOOK, final]) as model,
        asked(tmp_path, model, HALO_MCP_ASK_WAIT_S="0.001") as server,
    ):
        async with server.client(era) as caller:
            job = (await caller.json("ask", question="What fails?"))["job_id"]
        async with server.raw(era) as leaving, anyio.create_task_group() as group:
            # Someone who waits for a job and leaves does not stop it.
            group.start_soon(lambda: leaving.call(1, "ask_result", job_id=job, wait_s=600))
            while len(model.requests) < 2:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        release.set()
        async with server.client("legacy" if era == "auto" else "auto") as caller:
            found = await caller.json("ask_result", job_id=job, wait_s=60)
        assert (found["status"], found["run_id"]) == ("complete", job)
        assert model.disconnects == []


async def test_a_job_and_its_record_are_for_the_token_that_began_it(tmp_path: Path, era: Era) -> None:
    mine, other = "a-token-that-is-long-enough", "another-token-that-is-long-enough"
    file = tmp_path / "tokens"
    file.write_text(f"{mine}\n{other}\n")
    file.chmod(0o600)
    variables = {"HALO_MCP_ASK_WAIT_S": "0.001", "HALO_MCP_ASK_MAX_JOBS": "1"}
    async with (
        FakeLLM([LOOK, Hang()]) as model,
        asked(tmp_path, model, "--token-file", str(file), **variables) as server,
        server.client(era, mine) as caller,
        server.client(era, other) as stranger,
    ):
        job = (await caller.json("ask", question="What fails?"))["job_id"]
        await model.hanging.wait()
        assert job in await caller.error("ask", question="And now?")
        assert job not in await stranger.error("ask", question="What fails?")
        for cancel in (False, True):
            said = await stranger.error("ask_result", job_id=job, wait_s=0, cancel=cancel)
            assert said == (await stranger.error("ask_result", job_id=NOBODY, wait_s=0)).replace(NOBODY, job)
        with pytest.raises(MCPError, match="no record of a run"):
            await stranger.client.read_resource(f"halo://runs/{job}")
        for each in (caller, stranger):
            template = ResourceTemplateReference(uri="halo://runs/{run_id}")
            found = await each.client.complete(template, {"name": "run_id", "value": ""})
            assert found.completion.values == []
        assert (await caller.json("ask_result", job_id=job, wait_s=0))["status"] == "running"
        assert "query_traces" in str(await caller.client.read_resource(f"halo://runs/{job}"))
        assert "was stopped" in await caller.error("ask_result", job_id=job, cancel=True)


async def test_variables_of_run_code_are_for_the_token_that_set_them(tmp_path: Path) -> None:
    mine, other = "a-token-that-is-long-enough", "another-token-that-is-long-enough"
    file = tmp_path / "tokens"
    file.write_text(f"{mine}\n{other}\n")
    file.chmod(0o600)
    arguments = [str(traces(tmp_path)), "--token-file", str(file)]
    async with (
        serving_http(tmp_path, *arguments) as server,
        server.client(token=mine) as caller,
        server.client(token=other) as stranger,
    ):
        assert (await caller.text("run_code", code="kept = 41 + 1; print(kept)")).startswith("42")
        assert "NameError" in await stranger.text("run_code", code="print(kept)")
        assert (await caller.text("run_code", code="print(kept)")).startswith("42")


async def test_where_others_can_connect_nothing_that_spends_or_runs_code_is_offered(tmp_path: Path) -> None:
    token = "a-token-that-is-long-enough"
    file = tmp_path / "tokens"
    file.write_text(token)
    file.chmod(0o600)
    spending = {"ask", "ask_result", "synthesize_traces", "run_code"}
    async with FakeLLM([]) as model:
        for arguments, offered in (
            ([], set[str]()),
            (["--enable", "ask", "--enable", "run_code"], {"ask", "ask_result", "run_code"}),
        ):
            variables = environment(tmp_path, model)
            sources = [str(traces(tmp_path)), *arguments, "--token-file", str(file)]
            async with (
                serving_http(tmp_path, *sources, address="0.0.0.0:0", variables=variables) as server,
                server.client(token=token) as caller,
            ):
                listed = {tool.name for tool in (await caller.client.list_tools()).tools}
                assert listed & spending == offered
                assert "query_sql" in listed
                if not arguments:
                    assert "There is no tool 'ask'" in await caller.error("ask", question="What fails?")
        assert model.requests == []


async def test_without_a_model_ask_spends_nothing_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(token := "a-token-that-is-long-enough")
    file.chmod(0o600)
    arguments = [str(traces(tmp_path)), "--token-file", str(file)]
    async with (
        serving_http(tmp_path, *arguments, address="0.0.0.0:0") as server,
        server.client(token=token) as caller,
    ):
        assert "HALO_MCP_MODEL" in await caller.text("ask", question="What fails?")
        assert "There is no tool 'run_code'" in await caller.error("run_code", code="1")
