"""``halo-mcp code``: Python from a file or from standard input."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from halo_mcp.cli import run
from tests.builders import span, write_lines
from tests.sandbox.interpreter import needs_interpreter, share_compiled


@pytest.fixture(name="options")
def _options(tmp_path: Path) -> list[str]:
    share_compiled(tmp_path / "index")
    traces = write_lines(tmp_path / "traces.jsonl", span("a"), span("b"))
    return [str(traces), "--index-dir", str(tmp_path / "index")]


@needs_interpreter
def test_it_runs_standard_input_or_a_file_and_prints_the_answer(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("print('spans:', len(spans()))"))
    assert run(["code", *options]) == 0
    assert capsys.readouterr().out.startswith("spans: 2\n[")
    file = tmp_path / "code.py"
    file.write_text("1 / 0")
    assert run(["code", options[0], str(file), *options[1:]]) == 1
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["code", options[0], "nowhere.py", *options[1:]]) == 1
    assert capsys.readouterr().err == ("halo-mcp: The code in nowhere.py cannot be read: No such file or directory.\n")
