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

from tests.engine.fake_llm import FakeLLM, Hang, Reply, Status, answer, tool_results
from tests.engine.harness import KEY
from tests.server.asking import QUOTE, traces
from tests.server.test_ask import FORGED, GOOD, LOOK
from tests.synthesis.test_synthesize import reader

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


def environment(tmp_path: Path, model: FakeLLM | None) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HALO_MCP_", "OPENAI_"))}
    chosen = {"HALO_MCP_MODEL": "m", "OPENAI_BASE_URL": model.base_url} if model else {}
    return {**inherited, "HALO_MCP_INDEX_DIR": str(tmp_path / "index"), "OPENAI_API_KEY": KEY, **chosen}


async def started(tmp_path: Path, model: FakeLLM | None, *arguments: str, verb: str = "ask", **env: str) -> Process:
    command = [sys.executable, "-m", "halo_mcp", verb, str(traces(tmp_path)), *arguments]
    environ = {**environment(tmp_path, model), "PYTHONPATH": str(ROOT), **env}
    return await anyio.open_process(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def ran(
    tmp_path: Path, model: FakeLLM | None, *arguments: str, verb: str = "ask", **env: str
) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    texts, code = ["", ""], -1
    async with (
        await started(tmp_path, model, *arguments, verb=verb, **env) as process,
        anyio.create_task_group() as group,
    ):

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
        (["What?", "--repo-path", "nowhere"], "The repository 'nowhere' cannot be used"),
        (["What?", "--repo-path", "traces.jsonl"], "it is not a directory"),
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


# --- options of the model -----------------------------------------------------------------------------------------
FLAGS = [
    *("--temperature", "0.25", "--max-output-tokens", "777", "--reasoning-effort", "low"),
    *("-H", "X-Team: harness", "--header", "X-Other:1"),
]


def flags_in(model: FakeLLM, number: int) -> tuple[Any, ...]:
    request, headers = model.requests[number], model.headers[number]
    sent = tuple(request.get(name) for name in ("temperature", "max_completion_tokens", "reasoning_effort"))
    return *sent, headers.get("x-team"), headers.get("x-other")


async def test_the_options_of_the_model_reach_every_request_of_ask(tmp_path: Path) -> None:
    asked = ["-p", "What fails?", "-m", "big", "--subagent-model", "small", *FLAGS]
    script = [Reply(calls=[("call_subagent", {"objective": "Look."})]), answer(), answer()]
    async with FakeLLM(script) as model:
        code, _, err = await ran(tmp_path, model, *asked)
        assert code == 0, err
        assert [request["model"] for request in model.requests] == ["big", "small", "big"]
        assert {flags_in(model, number) for number in range(3)} == {(0.25, 777, "low", "harness", "1")}


async def test_synthesize_takes_the_same_options_and_a_model_of_its_own(tmp_path: Path) -> None:
    options = ["-w", "outcome=fail", "-m", "big", *FLAGS]
    async with FakeLLM(reader) as model:
        code, out, err = await ran(tmp_path, model, *options, "--synthesis-model", "wide", verb="synthesize")
        assert code == 0, err
        assert [request["model"] for request in model.requests] == ["wide", "wide"]
        assert {flags_in(model, number) for number in range(2)} == {(0.25, 777, "low", "harness", "1")}
        assert "model wide" in out
    async with FakeLLM(reader) as model:
        code, _, err = await ran(tmp_path, model, *options, verb="synthesize", HALO_MCP_SUBAGENT_MODEL="small")
        assert code == 0, err
        assert [request["model"] for request in model.requests] == ["small", "big"]


# --- source code --------------------------------------------------------------------------------------------------
GREP = Reply(calls=[("grep_files", {"regex_pattern": QUOTE})])


def source_code(tmp_path: Path) -> Path:
    directory = tmp_path / "agent"
    directory.mkdir()
    (directory / "billing.py").write_text(f'# charges\nraise TimeoutError("{QUOTE}")\n')
    return directory


def citing(line: int) -> dict[str, Any]:
    return {**GOOD, "code": [{"path": "billing.py", "line": line, "quote": QUOTE}]}


async def test_the_repository_can_be_named_by_the_environment(tmp_path: Path) -> None:
    source_code(tmp_path)
    async with FakeLLM([GREP, answer("Billing.", findings=[citing(2)])]) as model:
        code, out, err = await ran(tmp_path, model, "Why?", HALO_MCP_REPO_PATH="agent")
        assert code == 0, err
        assert "billing.py" in "".join(tool_results(model.requests[1]).values())
    assert f"code exact · billing.py:2 “{QUOTE}”" in out


async def test_a_bad_repository_stops_the_server_at_its_start(tmp_path: Path) -> None:
    code, out, err = await ran(tmp_path, None, "--repo-path", "nowhere", verb="serve")
    assert (code, out) == (1, "")
    assert err.startswith("halo-mcp: The repository 'nowhere' cannot be used: ")
    assert len(err.splitlines()) == 1


async def interrupted(tmp_path: Path, *options: str) -> str:
    """The id of a run that was killed after its first turn."""
    async with FakeLLM([GREP, Hang()]) as model, await started(tmp_path, model, "Why?", *options) as process:
        with anyio.fail_after(PATIENCE_S):
            await model.hanging.wait()
            process.send_signal(signal.SIGKILL)
            await process.wait()
    (state,) = (tmp_path / "index" / "runs").glob("*.state")
    return state.name.partition(".")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_run_that_goes_on_looks_into_the_same_repository_or_says_that_it_is_gone(tmp_path: Path) -> None:
    directory = source_code(tmp_path)
    run_id = await interrupted(tmp_path, "--repo-path", "agent")
    directory.rename(tmp_path / "moved")
    async with FakeLLM([]) as model:
        code, _, err = await ran(tmp_path, model, "--resume", run_id)
        assert model.requests == []
    assert code == 1
    assert "This run looks into a repository, and cannot go on without it. The repository '" in err
    assert len(err.splitlines()) == 1
    for options in (["--repo-path", "moved"], []):  # the new place is remembered
        async with FakeLLM([answer("Billing.", findings=[citing(2)])]) as model:
            code, out, err = await ran(tmp_path, model, "--resume", run_id, "--json", *options)
            assert code == 0, err
        (row,) = json.loads(out)["findings"][0]["code"]
        assert (row["verdict"], row["seen"]) == ("exact", True)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_run_without_a_repository_goes_on_without_one(tmp_path: Path) -> None:
    source_code(tmp_path)
    run_id = await interrupted(tmp_path)
    async with FakeLLM([answer("Billing.", findings=[GOOD])]) as model:
        code, _, err = await ran(tmp_path, model, "--resume", run_id, "--repo-path", "agent")
        assert (code, model.requests) == (1, [])
        assert "begun without a repository" in err
        code, _, err = await ran(tmp_path, model, "--resume", run_id, HALO_MCP_REPO_PATH="agent")
        assert code == 0, err
        assert "grep_files" not in [tool["function"]["name"] for tool in model.requests[0]["tools"]]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_run_that_someone_works_on_is_not_paid_for_a_second_time(tmp_path: Path) -> None:
    run_id = await interrupted(tmp_path)
    async with FakeLLM([Hang()]) as model, await started(tmp_path, model, "--resume", run_id) as process:
        with anyio.fail_after(PATIENCE_S):
            await model.hanging.wait()
            code, out, err = await ran(tmp_path, model, "--resume", run_id)
            assert (code, out, len(model.requests)) == (1, "", 1)
            assert f"Run {run_id} is being worked on" in err.splitlines()[-1]
            process.send_signal(signal.SIGKILL)
            await process.wait()
    async with FakeLLM([answer("Billing.", findings=[GOOD])]) as model:
        code, _, err = await ran(tmp_path, model, "--resume", run_id)
    assert code == 0, err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_run_whose_traces_have_changed_goes_on_and_says_so(tmp_path: Path) -> None:
    run_id = await interrupted(tmp_path)
    state = tmp_path / "index" / "runs" / f"{run_id}.state"
    for changed in (False, True):
        if changed:  # as if the file had been shorter then
            saved = json.loads(state.read_text())
            saved["sources"][0][1] -= 100
            state.write_text(json.dumps(saved))
        async with FakeLLM([Status(401)]) as model:
            _, out, _ = await ran(tmp_path, model, "--resume", run_id, "--json")
        assert any(text.startswith("The traces have changed") for text in json.loads(out)["warnings"]) is changed


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"question": "", "dataset": "", "filters": {}, "state": {"version": 2}}']
)
async def test_a_damaged_state_is_one_sentence(tmp_path: Path, state: str) -> None:
    runs = tmp_path / "index" / "runs"
    runs.mkdir(parents=True)
    (runs / f"{'0' * 16}.state").write_text(state)
    async with FakeLLM([]) as model:
        code, out, err = await ran(tmp_path, model, "--resume", "0" * 16)
        assert (code, out, model.requests) == (1, "", [])
    assert err.splitlines()[-1].endswith("ask again.")
    assert "Traceback" not in err


# --- the record ---------------------------------------------------------------------------------------------------
async def test_telemetry_is_the_record_of_the_run_where_halo_users_look_for_it(tmp_path: Path) -> None:
    async with FakeLLM([LOOK, answer("Billing is slow.", findings=[GOOD])] * 2) as model:
        code, out, err = await ran(tmp_path, model, "What fails?", "--telemetry", "--json")
        assert code == 0, err
        run_id = json.loads(out)["run_id"]
        record = (tmp_path / "index" / "runs" / f"{run_id}.jsonl").read_text()
        assert (tmp_path / f"halo-telemetry-{run_id}.jsonl").read_text() == record
        assert f"Telemetry: halo-telemetry-{run_id}.jsonl" in err
        again = ["--resume", run_id, "--telemetry"]
        assert (await ran(tmp_path, model, *again))[0] == 0
        assert (tmp_path / f"halo-telemetry-{run_id}.jsonl").read_text() == record

        shared = tmp_path / "own.jsonl"
        shared.write_text(record)
        place = {"HALO_TELEMETRY_PATH": str(shared)}
        code, _, err = await ran(tmp_path, model, "What fails?", "--telemetry", **place)
        assert code == 0, err
    assert shared.read_text().startswith(record)
    spans = [json.loads(line) for line in shared.read_text().splitlines()]
    assert len({span["trace_id"] for span in spans}) == 2
    assert [span["name"] for span in spans if not span["parent_span_id"]] == ["ask", "ask"]


async def test_telemetry_that_cannot_be_written_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    async with FakeLLM([]) as model:
        place = {"HALO_TELEMETRY_PATH": str(tmp_path / "no" / "such.jsonl")}
        code, _, err = await ran(tmp_path, model, "What fails?", "--telemetry", **place)
        assert model.requests == []
    assert code == 1
    assert "--telemetry cannot write to" in err
