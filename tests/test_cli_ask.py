"""halo-mcp ask: a question from a terminal, and going on with a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from tests.engine.fake_llm import FakeLLM, Hang, Status, answer
from tests.engine.harness import KEY
from tests.server.asking import QUOTE, traces
from tests.server.test_ask import FORGED, GOOD, LOOK

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


def environment(tmp_path: Path, model: FakeLLM | None) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HALO_MCP_", "OPENAI_"))}
    chosen = {"HALO_MCP_MODEL": "m", "OPENAI_BASE_URL": model.base_url} if model else {}
    return {**inherited, "HALO_MCP_INDEX_DIR": str(tmp_path / "index"), "OPENAI_API_KEY": KEY, **chosen}


async def started(tmp_path: Path, model: FakeLLM | None, *arguments: str) -> Process:
    command = [sys.executable, "-m", "halo_mcp", "ask", str(traces(tmp_path)), *arguments]
    return await anyio.open_process(
        command, cwd=ROOT, env=environment(tmp_path, model), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def ran(tmp_path: Path, model: FakeLLM | None, *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    texts, code = ["", ""], -1
    async with await started(tmp_path, model, *arguments) as process, anyio.create_task_group() as group:

        async def read(number: int, stream: Any) -> None:
            async for part in stream:
                texts[number] += part.decode()

        group.start_soon(read, 0, process.stdout)
        group.start_soon(read, 1, process.stderr)
        with anyio.fail_after(PATIENCE_S):
            code = await process.wait()
    return code, texts[0], texts[1]


async def test_a_question_is_answered_on_the_terminal_with_progress_beside_it(tmp_path: Path) -> None:
    async with FakeLLM([LOOK, answer("Billing is slow.", findings=[GOOD])]) as model:
        code, out, err = await ran(tmp_path, model, "What fails?", "--effort", "quick")
        tools = [tool["function"]["name"] for tool in model.requests[0]["tools"]]
    assert code == 0, err
    assert out.startswith("status complete · run ")
    assert f"exact · trace t1 span s2 “{QUOTE}”" in out
    assert "turn 1/8 · list_failure_modes, view_trace" in err
    assert "call_subagent" not in tools
    assert KEY not in out + err


async def test_a_partial_answer_is_told_by_the_exit_code(tmp_path: Path) -> None:
    async with FakeLLM([LOOK, Status(401)]) as model:
        code, out, _ = await ran(tmp_path, model, "-p", "What fails?", "--json")
    assert (code, json.loads(out)["status"]) == (2, "partial")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_killed_run_goes_on_without_paying_twice_and_its_record_is_whole(tmp_path: Path) -> None:
    async with FakeLLM([LOOK, answer("Disk.", findings=[FORGED]), Hang()]) as model:
        async with await started(tmp_path, model, "What fails?") as process:
            with anyio.fail_after(PATIENCE_S):
                await model.hanging.wait()
                process.send_signal(signal.SIGKILL)
                await process.wait()
        killed_at = model.requests[2]
    (state,) = (tmp_path / "index" / "runs").glob("*.state")
    assert KEY not in state.read_text()
    run_id = state.name.partition(".")[0]
    async with FakeLLM([answer("Billing is slow.", findings=[GOOD])]) as model:
        code, out, err = await ran(tmp_path, model, "--resume", run_id, "--json")
        assert code == 0, err
        assert model.requests == [killed_at]
        again, once_more, _ = await ran(tmp_path, model, "--resume", run_id, "--json")
        assert (again, len(model.requests)) == (0, 1)
    found = json.loads(out)
    assert (found["answer"], found["run_id"], found["usage"]["turns"]) == ("Billing is slow.", run_id, 3)
    assert json.loads(once_more)["answer"] == "Billing is slow."
    spans = [json.loads(text) for text in (state.parent / f"{run_id}.jsonl").read_text().splitlines()]
    assert len({span["span_id"] for span in spans}) == len(spans) == 6
    assert [span["name"] for span in spans if not span["parent_span_id"]] == ["ask"]


@pytest.mark.parametrize(
    "step, said",
    [
        (Status(401, {"message": f"Incorrect API key provided: {KEY}"}), "Incorrect API key provided: [redacted]"),
        (Status(404, {"message": "The model `m` does not exist"}), "The model `m` does not exist"),
        (Status(400, {"message": "m does not support tools"}), "m does not support tools"),
    ],
)
async def test_an_endpoint_that_refuses_is_one_sentence_and_an_exit_code(
    tmp_path: Path, step: Status, said: str
) -> None:
    async with FakeLLM([step]) as model:
        code, out, err = await ran(tmp_path, model, "What fails?")
    assert (code, out) == (1, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("halo-mcp: The model's endpoint refused: ")
    assert said in last
    assert "Traceback" not in err
    assert KEY not in err


async def test_without_a_model_the_evidence_is_printed_and_a_key_alone_sends_nothing(tmp_path: Path) -> None:
    async with FakeLLM([]) as model:
        code, out, err = await ran(tmp_path, None, "What fails?")
        assert model.requests == []
    assert code == 0, err
    assert out.startswith("status no_model")
    assert QUOTE in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "Give trace files and then the question"),
        (["-p", " "], "question is empty"),
        (["What fails?", "--max-turns", "0"], "max_turns=0 is not possible"),
        (["--resume", "0123456789abcdef"], "There is no run '0123456789abcdef'"),
        (["--resume", "../x"], "There is no run '../x'"),
        (["What?", "--header", "secret-without-colon"], "--header takes NAME:VALUE"),
    ],
)
async def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    async with FakeLLM([]) as model:
        code, out, err = await ran(tmp_path, model, *arguments)
        assert model.requests == []
    assert (code, out) == (1, "")
    assert said in err
    assert "secret" not in err
    assert len(err.strip().splitlines()) == 1
