"""``halo-mcp verify``: exit codes, what it takes, and what docs/evidence.md shows."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.cli import run
from halo_mcp.demo import write_demo
from tests.builders import span, write_lines
from tests.console_blocks import with_outputs

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence.md"
SAID = "the order was refunded twice"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with indexes of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HALO_MCP_INDEX_DIR", str(tmp_path / "index"))
    return tmp_path


@pytest.fixture
def traces(here: Path) -> str:
    return str(write_lines(here / "traces.jsonl", span("s1", trace="t1", attributes={"output.value": SAID})))


def written(here: Path, value: Any) -> str:
    path = here / "claims.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def cites(quote: str) -> list[dict[str, Any]]:
    return [{"claim": "twice", "evidence": [{"trace_id": "t1", "span_id": "s1", "quote": quote}]}]


@pytest.mark.parametrize(
    "content, code",
    [
        (cites(SAID), 0),
        (cites("the order was never refunded"), 1),
        ({"claims": cites(SAID)}, 0),
        ({"findings": cites(SAID), "answer": "fine", "usage": {"turns": 7}}, 0),
        ({"answer": "as in 0123456789abcdef"}, 1),
        ([{"check": {"expected": 1}}], 0),
        ([{"check": {"expected": 2}}], 1),
        (cites("twice"), 2),
        ([{"check": {"expected": 2, "filters": {"regex_pattern": "("}}}], 2),
        ([*cites("twice"), *cites("the order was never refunded")], 1),
    ],
)
def test_the_exit_code_is_0_when_all_exists_1_when_not_2_when_unknown(
    here: Path, traces: str, content: Any, code: int
) -> None:
    assert run(["verify", written(here, content), traces]) == code


def test_it_reads_standard_input_and_prints_json(
    here: Path, traces: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = io.TextIOWrapper(io.BytesIO(json.dumps(cites(SAID)).encode()))
    monkeypatch.setattr(sys, "stdin", given)
    assert run(["verify", "-", traces, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["citations"]["verified"] == 1


def test_what_it_printed_can_be_verified_again(here: Path, traces: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", written(here, cites(SAID)), traces, "--json"]) == 0
    assert run(["verify", written(here, capsys.readouterr().out), traces]) == 0


@pytest.mark.parametrize("content", ["", "{", "7", "{}", '{"claims": 7}', "[7]", "[" * 100_000, '"\\ud800"'])
def test_a_file_without_claims_is_one_line_on_standard_error(
    here: Path, traces: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", written(here, content), traces]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("halo-mcp: ")) == ("", 1, True)


def test_a_missing_file_is_named(here: Path, traces: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "nosuch.json", traces]) == 2
    assert "nosuch.json cannot be read" in capsys.readouterr().err


def test_the_documented_example_prints_what_it_shows(here: Path) -> None:
    write_demo(here / "halo-demo")
    document = DOCUMENT.read_text(encoding="utf-8")
    rerun, codes = with_outputs(document, here)
    assert rerun == document, "python -m tests.console_blocks docs/evidence.md brings it up to date"
    assert codes == [1]
