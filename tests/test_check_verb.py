"""``halo-mcp check``: exit codes, what is printed, JUnit; and what docs/checks.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from halo_mcp.cli import run
from halo_mcp.demo import write_demo
from halo_mcp.index.checks import Check, CheckResult
from halo_mcp.junit import junit_xml
from tests.builders import span, write_lines
from tests.console_blocks import with_outputs

DOCUMENT = Path(__file__).parents[1] / "docs" / "checks.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with indexes of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HALO_MCP_INDEX_DIR", str(tmp_path / "index"))
    return tmp_path


@pytest.fixture
def traces(here: Path) -> Path:
    """Two traces, one of which fails."""
    return write_lines(
        here / "traces.jsonl",
        span("s1", trace="t1", attributes={"task.outcome": "fail"}, error="it broke"),
        span("s2", trace="t2", attributes={"task.outcome": "pass"}),
    )


def check(name: str = "few fail", threshold: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"name": name, "filters": {"outcome": ["fail"]}, "threshold": threshold, **fields}


def write_checks(path: Path, *checks: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"version": 1, "checks": checks}), encoding="utf-8")
    return path


def test_the_exit_code_is_0_when_all_hold_1_when_one_fails_2_when_one_has_no_verdict(
    here: Path, traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = check(threshold=0.5), check("none fails")
    empty = check("nobody", of={"tool_names": ["nosuch"]})
    path = here / "checks.json"

    def code(*checks: dict[str, Any]) -> int:
        return run(["check", str(write_checks(path, *checks)), str(traces)])

    assert [code(good), code(good, bad), code(good, bad, empty), code(empty)] == [0, 1, 2, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["{", '{"version": 1, "checks": []}'])
def test_a_bad_file_is_one_line_on_standard_error_and_code_2(
    here: Path, traces: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "checks.json"
    path.write_text(content, encoding="utf-8")
    assert run(["check", str(path), str(traces)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"halo-mcp: {path} is no file of checks")


@pytest.mark.parametrize(
    "arguments",
    [
        ["checks.json"],
        ["checks.json", "nosuch.jsonl"],
        ["checks.json", "traces.jsonl", "--where", "outcome=fail"],
        ["checks.json", "traces.jsonl", "--max-share", "0"],
    ],
)
def test_wrong_usage_is_code_2(here: Path, traces: Path, arguments: list[str]) -> None:
    write_checks(here / "checks.json", check())
    assert run(["check", *arguments]) == 2


def test_the_text_says_what_was_asked_what_is_and_which_traces_are_against_it(
    here: Path, traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_checks(here / "checks.json", check("none fails"), check("half may", 0.5))
    run(["check", str(path), str(traces)])
    assert capsys.readouterr().out == (
        "dataset traces: 2 checks: 1 pass, 1 fail\n"
        "FAIL  none fails\n"
        "      asked share_of_traces <= 0, is 0.5: 1 of 2 traces\n"
        "      trace t1\n"
        "PASS  half may\n"
        "      asked share_of_traces <= 0.5, is 0.5: 1 of 2 traces\n"
    )


def test_json_has_the_same_facts(here: Path, traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_checks(here / "checks.json", check("none fails"))
    assert run(["check", str(path), str(traces), "--json"]) == 1
    (dataset,) = json.loads(capsys.readouterr().out)["datasets"]
    assert dataset == {
        "dataset": "traces",
        "checks": [
            {
                "name": "none fails",
                "status": "fail",
                "metric": "share_of_traces",
                "op": "<=",
                "threshold": 0.0,
                "value": 0.5,
                "total_traces": 2,
                "trace_count": 1,
                "span_count": 0,
                "examples": [{"trace_id": "t1", "span_id": "", "quote": ""}],
            }
        ],
    }


def test_every_named_dataset_is_checked(here: Path, traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = write_lines(here / "fine.jsonl", span(trace="t3", attributes={"task.outcome": "pass"}))
    path = write_checks(here / "checks.json", check())
    assert run(["check", str(path), f"old={traces}", f"new={fine}", "--junit", "out.xml"]) == 1
    verdicts = re.findall(r"dataset (\w+): 1 check: (.*)", capsys.readouterr().out)
    assert verdicts == [("old", "1 fail"), ("new", "1 pass")]
    suites = ElementTree.parse(here / "out.xml").getroot()
    assert [(suite.get("name"), suite.get("failures")) for suite in suites] == [("old", "1"), ("new", "0")]


def test_junit_tells_failures_and_errors_apart(here: Path, traces: Path) -> None:
    path = write_checks(here / "checks.json", check("a"), check("b", 0.5), check("c", of={"tool_names": ["nosuch"]}))
    assert run(["check", str(path), str(traces), "--junit", "out.xml"]) == 2
    (suite,) = ElementTree.parse(here / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    a, b, c = suite
    (failure,), (error,) = a, c
    assert (a.get("name"), a.get("classname"), failure.tag, len(b), error.tag) == ("a", "traces", "failure", 0, "error")
    assert failure.get("message") == "asked share_of_traces <= 0, is 0.5: 1 of 2 traces"
    assert str(failure.text).endswith("\ntrace t1")
    assert "nothing to check" in (error.get("message") or "")


def test_junit_is_xml_whatever_the_traces_say() -> None:
    nasty = "\x1b[31m<&\"'>]]>\x00\x0b\x85\ufffe\ud800 é 😀"
    result = CheckResult(Check.model_validate(check("n")), "error", None, None, nasty)
    (suite,) = ElementTree.fromstring(junit_xml({nasty: [result]}, {nasty: [f"{nasty}\n{nasty}"]}))
    (error,) = suite[0]
    assert error.text == "\n".join(["\ufffd[31m<&\"'>]]>\ufffd\ufffd\ufffd\ufffd\ufffd é 😀"] * 2)


def test_text_from_traces_cannot_steer_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = write_lines(here / "evil.jsonl", span(trace="t1", error="\x1b]0;owned\x07 broke"))
    path = write_checks(here / "checks.json", check(filters={}, failure_mode={"text": "broke"}))
    assert run(["check", str(path), str(evil)]) == 1
    out = capsys.readouterr().out
    assert "broke" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_junit_file_that_cannot_be_written_is_code_2(here: Path, traces: Path) -> None:
    path = write_checks(here / "checks.json", check(threshold=1))
    assert run(["check", str(path), str(traces), "--junit", "no/such/directory.xml"]) == 2


def test_a_check_is_added_once(here: Path, traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from halo_mcp.index.local import LocalStore

    store = LocalStore("d", [str(traces)], here / "index")
    ((mode,),) = store._current.query("SELECT failure_mode FROM spans WHERE span_id = 's1'")  # pyright: ignore[reportPrivateUsage]
    assert run(["check", "new.json", str(traces), "--add", mode, "--max-share", "0.25"]) == 0
    assert run(["check", "new.json", str(traces)]) == 1
    assert run(["check", "new.json", str(traces), "--add", mode]) == 2
    assert "has a check" in capsys.readouterr().err
    assert run(["check", "other.json", str(traces), "--add", "nosuch"]) == 2
    assert not (here / "other.json").exists()


# --- docs/checks.md ------------------------------------------------------------------------------------------------


def test_the_documented_example_fails_before_the_fix_and_passes_after_it(here: Path) -> None:
    write_demo(here / "halo-demo")
    document = DOCUMENT.read_text(encoding="utf-8")
    rerun, codes = with_outputs(document, here)
    assert rerun == document, "python -m tests.console_blocks docs/checks.md brings it up to date"
    assert codes == [0, 1, 0]
