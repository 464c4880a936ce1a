"""The verbs that ask about many traces at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halo_mcp.cli import run
from halo_mcp.demo import write_demo


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """before, after, and where indexes go."""
    directory = tmp_path_factory.mktemp("demo")
    write_demo(directory)
    return str(directory / "before.jsonl"), str(directory / "after.jsonl"), str(directory / "index")


def test_compare_exits_with_1_only_when_it_got_worse(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, index = files
    assert run(["compare", before, after, "--index-dir", index]) == 0
    assert capsys.readouterr().out.startswith("verdict: better.")
    assert run(["compare", after, before, "--index-dir", index]) == 1
    assert capsys.readouterr().out.startswith("verdict: worse.")


@pytest.mark.parametrize("fail_on, code", [("never", 0), ("worse", 1), ("no-evidence", 1)])
def test_fail_on_decides_the_exit_code(
    files: tuple[str, str, str], fail_on: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, index = files
    assert run(["compare", after, before, "--index-dir", index, "--json", "--fail-on", fail_on]) == code
    assert json.loads(capsys.readouterr().out)["verdict"] == "worse"
    assert run(["compare", before, after, "--index-dir", index, "--fail-on", fail_on]) == 0


def test_compare_takes_two_sets_of_traces_of_one_source(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before, after, index = files
    both = tmp_path / "both.jsonl"
    both.write_bytes(Path(before).read_bytes() + Path(after).read_bytes())
    sides = ["--where-before", "run_ids=before", "--where-after", "run_ids=after"]
    assert run(["compare", str(both), *sides, "--index-dir", index]) == 0
    assert capsys.readouterr().out.startswith("verdict: better.")
    assert run(["compare", str(both), "--index-dir", index]) == 1
    assert "Both sides are the same traces" in capsys.readouterr().err
    assert run(["compare", before, after, str(both), "--index-dir", index]) == 1
    assert "one source before and one after" in capsys.readouterr().err


def test_contrast_takes_groups_as_filters(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before, _, index = files
    assert run(["contrast", before, "--index-dir", index]) == 0
    assert "58 failing against 62 passing traces" in capsys.readouterr().out
    assert run(["contrast", before, "--index-dir", index, "--a", "tool_names=refund", "-w", "outcome=pass"]) == 0
    assert "19 a against 43 b traces" in capsys.readouterr().out
