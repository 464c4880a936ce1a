"""Where no code can run: one sentence says why, and nothing weaker takes its place."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from halo_mcp.errors import SandboxUnavailable
from halo_mcp.index.work import Work
from halo_mcp.sandbox import code_worker, process
from halo_mcp.sandbox.code import GUEST, CodeSessions
from tests.builders import span, write_lines
from tests.sandbox.interpreter import compiled_cache, needs_interpreter
from tests.tools.desk import serving


def why_unavailable(sessions: CodeSessions) -> str:
    with pytest.raises(SandboxUnavailable) as caught:
        sessions.run("s", "1", {}, Work())
    assert sessions.pid("s") is None
    return str(caught.value)


def interpreter_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Workers start in a Python whose wasmtime is this module."""
    fake, startup = tmp_path / "fake", tmp_path / "python"
    fake.mkdir()
    (fake / "wasmtime.py").write_text(module)
    run = f"import runpy, sys; sys.path.insert(0, {str(fake)!r}); sys.argv = sys.argv[2:]; "
    run += "runpy.run_path(sys.argv[0], run_name='__main__')"
    startup.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{run}" "$@"\n')
    startup.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(startup))


def test_without_wasmtime_it_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter_with(tmp_path, monkeypatch, "raise ImportError('no module')")
    assert why_unavailable(CodeSessions(tmp_path / "cache")) == (
        "run_code is not available here: wasmtime is not installed; pip install 'halo-mcp[code]' adds it. "
        "All other tools work."
    )


def test_a_wasmtime_that_does_not_load_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter_with(tmp_path, monkeypatch, "raise OSError('wrong ELF class')")
    told = why_unavailable(CodeSessions(tmp_path / "cache"))
    assert told.startswith(
        "run_code is not available here: wasmtime does not load (OSError: wrong ELF class); "
        "pip install 'halo-mcp[code]' may repair it"
    )


async def test_a_client_reads_that_sentence_and_the_other_tools_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter_with(tmp_path, monkeypatch, "raise ImportError('no module')")
    async with serving(tmp_path, {"data": [write_lines(tmp_path / "t.jsonl", span())]}) as caller:
        assert "pip install 'halo-mcp[code]'" in await caller.error("run_code", code="1")
        assert (await caller.json("count_traces"))["total"] == 1


def test_a_missing_interpreter_is_told_with_the_reason_of_the_build(tmp_path: Path) -> None:
    told = why_unavailable(CodeSessions(tmp_path / "cache", guest=tmp_path))
    assert "this installation lacks its interpreter (halo_py.wasm was not built or not packed)" in told
    (tmp_path / "halo_py.json").write_text(json.dumps({"missing": "componentize-py has no build for musl"}))
    told = why_unavailable(CodeSessions(tmp_path / "cache", guest=tmp_path))
    assert "lacks its interpreter (componentize-py has no build for musl); install a wheel that has it." in told


def test_an_interpreter_that_is_not_the_recorded_one_never_runs(tmp_path: Path) -> None:
    (tmp_path / "halo_py.json").write_text(json.dumps({"sha256": "0" * 64}))
    (tmp_path / "halo_py.wasm").write_bytes(b"\0asm of somebody else")
    told = why_unavailable(CodeSessions(tmp_path / "cache", guest=tmp_path))
    assert "halo_py.wasm is not the one that was built; install halo-mcp again." in told


@needs_interpreter
def test_a_cache_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    told = why_unavailable(CodeSessions(tmp_path / "cache"))
    assert "cannot be used" in told
    assert "choose another index directory" in told


@needs_interpreter
def test_the_compiled_interpreter_is_for_its_owner_only(tmp_path: Path) -> None:
    cache = compiled_cache()
    sessions = CodeSessions(cache)
    assert sessions.run("s", "1 + 1", {}, Work()).output == "2\n"
    sessions.close()
    compiled = list(cache.iterdir())
    assert [path.suffix for path in compiled] == [".cwasm"]
    assert stat.S_IMODE(compiled[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@needs_interpreter
def test_a_cache_that_others_may_write_to_is_closed_to_them(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    code_worker.check_private(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_only_the_compiled_interpreters_that_were_used_last_are_kept(tmp_path: Path) -> None:
    for age in range(5):
        path = tmp_path / f"{age}.cwasm"
        path.write_bytes(b"")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    code_worker.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.cwasm", "1.cwasm", "2.cwasm"]


@needs_interpreter
def test_another_interpreter_is_compiled_under_another_name(tmp_path: Path) -> None:
    artefact = (GUEST / "halo_py.wasm").read_bytes()
    paths = {code_worker.compiled_path(text, tmp_path) for text in (artefact, artefact + b"\0")}
    assert len(paths) == 2


@needs_interpreter
@pytest.mark.skipif(sys.platform != "linux", reason="the confinement is Linux's")
def test_every_thread_of_the_worker_is_confined() -> None:
    sessions = CodeSessions(compiled_cache())
    sessions.run("s", "1", {}, Work())
    pid = sessions.pid("s")
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    sessions.close()
    assert len(statuses) >= 4
    assert all("NoNewPrivs:\t1" in status for status in statuses)
    if os.uname().machine == "x86_64":
        assert all("Seccomp:\t2" in status for status in statuses)
