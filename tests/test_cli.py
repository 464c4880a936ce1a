"""The command line: verbs, exit codes, what goes where."""
# ruff: noqa: E501  # recorded texts have long lines

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from inline_snapshot import snapshot

from halo_mcp import __version__
from halo_mcp.cli import run
from halo_mcp.config import DEFAULT_DEADLINE_S, load_settings
from halo_mcp.datasets import parse_sources
from halo_mcp.errors import BadArgument
from halo_mcp.terminal import parse_filters
from tests.builders import agent, llm, span, write_lines

ROOT: Final = Path(__file__).parents[1]


class Ran(NamedTuple):
    """One run of the command line."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands in this process, with an index of their own."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Ran:
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        return Ran(code, out.replace(str(self.directory), "TMP"), err.replace(str(self.directory), "TMP"))

    def ok(self, *arguments: str | Path) -> str:
        ran = self(*arguments)
        assert (ran.code, ran.err) == (0, "")
        return ran.out

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, *arguments: str | Path, code: int = 1) -> str:
        ran = self(*arguments)
        assert (ran.code, ran.out) == (code, ""), ran
        assert ran.err.startswith("halo-mcp: ")
        assert ran.err.count("\n") == 1
        return ran.err.removeprefix("halo-mcp: ").removesuffix("\n")


@pytest.fixture
def halo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("HALO_MCP_INDEX_DIR", str(tmp_path / "index"))
    monkeypatch.delenv("HALO_MCP_DEADLINE_S", raising=False)
    monkeypatch.delenv("HALO_MCP_ROOTS", raising=False)
    return CommandLine(tmp_path, capsys)


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    path = write_lines(
        tmp_path / "traces.jsonl",
        agent("root", name="planner", ms=500, attributes={"task.outcome": "fail"}),
        llm("think", "root", tokens=(10, 2), start_ms=1, attributes={"llm.model_name": "m-1"}),
        span(
            "act", "root", kind="TOOL", start_ms=5, error="no such city", attributes={"tool.name": "geo", "user": "ann"}
        ),
        span("only", trace="t2", kind="TOOL", start_ms=60_000, attributes={"tool.name": "sum"}),
    )
    os.utime(path, (1_772_442_000, 1_772_442_000))
    return path


# --- verbs ------------------------------------------------------------------------------------------------------------
def test_every_verb_prints_text_and_json(halo: CommandLine, traces: Path) -> None:
    assert halo.ok("index", traces).startswith("traces (default): 2 traces, 4 spans\n")
    assert halo.json("index", traces)["datasets"][0]["total_spans"] == 4
    assert halo.ok("overview", traces).startswith("dataset traces: all traces = 2 traces, 4 spans")
    assert halo.json("overview", traces)["total_input_tokens"] == 10
    assert halo.ok("query", traces).endswith("2 of 2 matching traces shown.\n")
    assert [trace["trace_id"] for trace in halo.json("query", traces, "--sort-by", "-start_time")["traces"]] == [
        "t2",
        "t1",
    ]
    assert halo.ok("query", traces, "--count") == "2 traces match.\n"
    assert halo.ok("query", traces, "--count", "--group-by", "tool_name") == snapshot("""\
tool_name | traces (share of 2 matching)
geo | 1 (50%)
sum | 1 (50%)
""")
    assert halo.json("query", traces, "--count", "--group-by", "outcome")["groups"] == [
        {"value": "fail", "trace_count": 1},
        {"value": "unknown", "trace_count": 1},
    ]
    assert halo.ok("view", traces, "t1").endswith("All 3 spans shown.\n")
    assert (
        halo.ok("view", traces, "t1", "--detail", "outline")
        .splitlines()[-1]
        .startswith("To read its failures: view_spans(")
    )
    assert [record["span_id"] for record in halo.json("view", traces, "t1", "act", "think")["spans"]] == [
        "think",
        "act",
    ]
    assert "user characters 0-3 of 3:\nann" in halo.ok("view", traces, "t1", "act", "--attribute", "user")
    assert "no such city" in halo.ok("search", traces, "t1", "such (city|town)")
    assert halo.json("search", traces, "t1", "such")["match_count"] == 1
    assert halo.json("search", traces, "t1", "such (city|town)", "--literal")["match_count"] == 0
    assert halo.ok("--version") == f"{__version__}\n"


def test_pages_go_on_with_the_cursor_of_the_last_one(halo: CommandLine, traces: Path) -> None:
    first = halo.json("query", traces, "--limit", "1")
    second = halo.json("query", traces, "--limit", "1", "--cursor", first["next_cursor"])
    assert [page["traces"][0]["trace_id"] for page in (first, second)] == ["t1", "t2"]
    assert second["next_cursor"] is None


def test_the_demo_verb_writes_two_files_that_the_other_verbs_read(halo: CommandLine, tmp_path: Path) -> None:
    files = [
        Path(file)
        for file in json.loads(halo.ok("demo", tmp_path / "demo", "--json").replace("TMP", str(tmp_path)))["files"]
    ]
    assert [file.name for file in files] == ["before.jsonl", "after.jsonl"]
    assert halo.json("query", *files, "--count")["total"] == 240
    assert halo.json("query", f"b={files[0]}", f"a={files[1]}", "--count")["total"] == 120, "the first named is asked"


def test_without_arguments_the_help_is_shown(halo: CommandLine) -> None:
    ran = halo()
    assert ran.code == 2
    assert ran.err == ""
    for verb in ("serve", "index", "overview", "query", "view", "search", "demo", "doctor"):
        assert re.search(rf"│ {verb}\s", ran.out)


def test_usage_errors_are_one_line_with_the_way_to_the_help(halo: CommandLine, traces: Path) -> None:
    errors = [
        halo.fails("fly", code=2),
        halo.fails("overview", code=2),
        halo.fails("overview", traces, "--nope", code=2),
        halo.fails("query", traces, "--limit", "0", code=2),
        halo.fails("query", traces, "--limit", "many", code=2),
        halo.fails("view", traces, code=2),
        halo.fails("view", traces, "t1", "--max-chars", "10", code=2),
    ]
    assert errors == snapshot(
        [
            "No such command 'fly'. Try 'halo-mcp --help'.",
            "Missing argument '[NAME=]SOURCE...'. Try 'halo-mcp overview --help'.",
            "No such option: --nope. Try 'halo-mcp overview --help'.",
            "Invalid value for '--limit': Input should be greater than or equal to 1. Try 'halo-mcp query --help'.",
            "Invalid value for '--limit': Input should be a valid integer, unable to parse string as an integer. Try 'halo-mcp query --help'.",
            "Missing argument 'trace_id'. Try 'halo-mcp view --help'.",
            "Invalid value for '--max-chars': Input should be greater than or equal to 2000. Try 'halo-mcp view --help'.",
        ]
    )


def test_errors_of_the_tools_are_one_line_on_standard_error(halo: CommandLine, traces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    errors = [
        halo.fails("overview", tmp_path / "missing.jsonl"),
        halo.fails("overview", tmp_path / "empty.jsonl"),
        halo.fails("view", traces, "t9"),
        halo.fails("view", traces, "t1", "s9"),
        halo.fails("view", traces, "t1", "--detail", "some"),
        halo.fails("search", traces, "t1", "("),
        halo.fails("query", traces, "--sort-by", "name"),
        halo.fails("query", traces, "--cursor", "abc"),
        halo.fails("query", traces, "--count", "--group-by", "colour"),
        halo.fails("overview", traces, "--deadline-s", "0"),
        halo.fails("doctor", tmp_path / "missing.jsonl"),
    ]
    assert errors == snapshot(
        [
            "There is no file TMP/missing.jsonl. Check the path given to halo-mcp; relative paths start at its working directory.",
            "TMP/empty.jsonl holds no spans that halo-mcp can read: it is empty. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/empty.jsonl` shows what was found.",
            "There is no trace 't9' in dataset 'traces'. Take ids from query_traces or from get_dataset_overview.",
            "Trace 't1' has no span s9. view_trace(trace_id='t1', detail='outline') lists its spans.",
            "detail: Input should be 'auto', 'outline' or 'full'.",
            "The pattern '(' cannot be used: RE2 says 'missing ): ('; correct it, or write \\Q...\\E around a text to find it exactly as written.",
            "sort_by: Input should be 'start_time', '-start_time', '-duration_ms', '-tokens', '-error_span_count', '-span_count' or '-raw_jsonl_bytes'.",
            "This cursor does not belong to this query_traces call: it was made for another dataset, other arguments or an older state of the data. Repeat the call without cursor to start at the first page.",
            "group_by: Input should be 'outcome', 'has_errors', 'service_name', 'agent_name', 'model_name', 'tool_name', 'span_name', 'task_key', 'run_id', 'session_id', 'project_id', 'day' or 'hour'.",
            "deadline_s='0.0' is not a number of seconds above 0 (--deadline-s, HALO_MCP_DEADLINE_S).",
            "There is no file TMP/missing.jsonl. Check the path given to halo-mcp; relative paths start at its working directory.",
        ]
    )


def test_an_index_that_cannot_be_built_is_a_failure(halo: CommandLine, traces: Path, tmp_path: Path) -> None:
    ran = halo("index", f"good={traces}", f"bad={tmp_path / 'missing.jsonl'}")
    assert ran.code == 1
    assert "good (default): 2 traces" in ran.out
    assert "bad: not usable. There is no file" in ran.out


# --- filters ----------------------------------------------------------------------------------------------------------
def test_filters_are_given_as_name_and_value(halo: CommandLine, traces: Path) -> None:
    def total(*where: str) -> int:
        arguments = [part for text in where for part in ("-w", text)]
        return int(halo.json("query", traces, "--count", *arguments)["total"])

    assert total("has_errors=true") == 1
    assert total("outcome=fail,unknown") == 2
    assert total("tool_names=geo", "tool_names=sum") == 2, "a list given twice is one longer list"
    assert total("tool_names=geo", "has_errors=false") == 0
    assert total("regex_pattern=such (city|town), *never") == 0
    assert total("regex_pattern=such (city|town)=?") == 1
    assert total("min_tokens=12") == 1
    assert total("start_time_gte=2026-03-02T09:00:30Z") == 1
    assert total('attributes=[{"key": "user", "value": "ann"}]') == 1


def test_filters_that_cannot_be_used_say_why() -> None:
    problems: list[str] = []
    for given in (
        ["outcome"],
        ["colour=red"],
        ["has_errors=perhaps"],
        ["outcome=maybe"],
        ["attributes=user"],
        ["project_id=a", "project_id=b"],
    ):
        with pytest.raises(BadArgument) as raised:
            parse_filters(given)
        problems.append(str(raised.value))
    assert problems == snapshot(
        [
            "--where 'outcome' is not FILTER=VALUE with one of: has_errors, outcome, trace_ids, session_ids, service_names, agent_names, model_names, tool_names, span_names, observation_kinds, failure_mode, project_id, task_keys, run_ids, start_time_gte, end_time_lte, min_duration_ms, max_duration_ms, min_tokens, max_tokens, min_span_count, max_span_count, attributes, regex_pattern.",
            "--where 'colour=red' is not FILTER=VALUE with one of: has_errors, outcome, trace_ids, session_ids, service_names, agent_names, model_names, tool_names, span_names, observation_kinds, failure_mode, project_id, task_keys, run_ids, start_time_gte, end_time_lte, min_duration_ms, max_duration_ms, min_tokens, max_tokens, min_span_count, max_span_count, attributes, regex_pattern.",
            "--where cannot be used: has_errors: Input should be a valid boolean, unable to interpret input.",
            "--where cannot be used: outcome.0: Input should be 'pass', 'fail' or 'unknown'.",
            '--where \'attributes=user\': give JSON such as attributes=[{"key":"user","op":"eq","value":"u1"}].',
            "--where project_id is given twice; it takes one value.",
        ]
    )


# --- safety -----------------------------------------------------------------------------------------------------------
def test_control_characters_in_traces_do_not_reach_the_terminal(halo: CommandLine, tmp_path: Path) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x00text\tok"
    path = write_lines(
        tmp_path / "hostile.jsonl", span(name=hostile, error=hostile, attributes={"output.value": hostile})
    )
    for arguments in (
        ("overview", path),
        ("query", path),
        ("view", path, "t1"),
        ("view", path, "t1", "s1"),
        ("search", path, "t1", "text"),
        ("view", path, hostile),
    ):
        ran = halo(*arguments)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ran.out + ran.err)
        assert "text" in ran.out + ran.err
    assert halo.json("view", path, "t1")["spans"][0]["name"] == hostile


def run_process(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HALO_MCP_INDEX_DIR": str(tmp_path / "index"), "HALO": f"{sys.executable} -m halo_mcp"}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_a_reader_that_leaves_early_is_no_error_to_report(traces: Path, tmp_path: Path) -> None:
    done = run_process(tmp_path, f"$HALO view {traces} t1 --json | head -c 10; $HALO overview {traces} | true")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_serve_refuses_bad_settings_before_it_speaks(traces: Path, tmp_path: Path) -> None:
    done = run_process(tmp_path, f"$HALO serve {traces} --deadline-s -1 < /dev/null")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "halo-mcp: deadline_s='-1.0' is not a number of seconds above 0 (--deadline-s, HALO_MCP_DEADLINE_S).\n"
    )
    done = run_process(tmp_path, "$HALO serve --nope < /dev/null")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --nope" in done.stderr


# --- doctor -----------------------------------------------------------------------------------------------------------
def times_removed(text: str) -> str:
    return re.sub(r"modified \S+Z", "modified TIME", text)


def test_doctor_on_a_good_file(halo: CommandLine, traces: Path) -> None:
    assert times_removed(halo.ok("doctor", traces)) == snapshot("""\
index directory: TMP/index (environment)
serve --http: 127.0.0.1:8000, this machine only
2 traces, 4 spans

TMP/traces.jsonl: 1.7 KB, modified TIME
  4 lines read, 4 spans, 0 lines skipped, 0 repaired (glued, badly encoded or oversized lines that held spans)

outcomes:
  pass: 0 of traces
  fail: 1 (50%) of traces
  unknown: 1 (50%) of traces
  said by task.outcome: 1 trace

traces that are not whole: none

what spans say, by kind:
  model name on 1 of 1 LLM spans
  input tokens on 1 of 1 LLM spans
  output tokens on 1 of 1 LLM spans
  finish reason on 0 of 1 LLM spans
  answer on 0 of 1 LLM spans
  tool name on 2 of 2 TOOL spans
  arguments on 0 of 2 TOOL spans
  result on 0 of 2 TOOL spans
  agent name on 1 of 1 AGENT spans
  session on 0 of 1 AGENT spans, 0 of 1 LLM spans, 0 of 2 TOOL spans
  start time on 1 of 1 AGENT spans, 1 of 1 LLM spans, 2 of 2 TOOL spans
  end time on 1 of 1 AGENT spans, 1 of 1 LLM spans, 2 of 2 TOOL spans

attributes that no rule reads (of 4 sampled spans):
  user: 1
""")


def test_doctor_on_a_dirty_file(halo: CommandLine, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "dirty.jsonl",
        span("s1"),
        b'{"trace_id": "t1", "span_id": "cut',
        b"not json",
        b'{"event": "login"}',
        b"",
        llm("s2", "gone"),
    )
    with path.open("ab") as file:
        file.write(b'{"trace_id": "t1", "span_id": "s3", "na')
    assert times_removed(halo.ok("doctor", path)) == snapshot("""\
index directory: TMP/index (environment)
serve --http: 127.0.0.1:8000, this machine only
1 traces, 2 spans

TMP/dirty.jsonl: 809 B, modified TIME
  5 lines read, 2 spans, 3 lines skipped, 0 repaired (glued, badly encoded or oversized lines that held spans)
  an incomplete last line of 39 B waits to be completed
  reasons: cut off before the end of the object=1, not JSON: invalid literal, expected 'null'=1, no trace_id=1
  line 2 (byte 334): cut off before the end of the object
  line 3 (byte 369): not JSON: invalid literal, expected 'null'
  line 4 (byte 378): no trace_id

outcomes:
  pass: 0 of traces
  fail: 0 of traces
  unknown: 1 (100%) of traces

traces that are not whole:
  spans with a parent that is not in the data: 1

what spans say, by kind:
  model name on 0 of 1 LLM spans
  input tokens on 0 of 1 LLM spans
  output tokens on 0 of 1 LLM spans
  finish reason on 0 of 1 LLM spans
  answer on 0 of 1 LLM spans
  session on 0 of 1 LLM spans, 0 of 1 SPAN spans
  start time on 1 of 1 LLM spans, 1 of 1 SPAN spans
  end time on 1 of 1 LLM spans, 1 of 1 SPAN spans

attributes that no rule reads (of 2 sampled spans): none
""")
    data = halo.json("doctor", path)
    assert (data["total_spans"], data["sources"][0]["lines_skipped"]) == (2, 3)


def test_doctor_on_a_foreign_file(halo: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "foreign.jsonl"
    path.write_text('{"event": "login"}\n\nplain text\n[1, 2]\n')
    assert halo.ok("doctor", path) == snapshot("""\
index directory: TMP/index (environment)
serve --http: 127.0.0.1:8000, this machine only
TMP/foreign.jsonl holds no spans that halo-mcp can read: its first line is not a span: no trace_id. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/foreign.jsonl` shows what was found.

first lines:
  line 1: no trace_id
  line 3: not JSON: unexpected character, expected a JSON value
  line 4: not a JSON object but an array
""")
    assert halo.json("doctor", path)["reason"] == "its first line is not a span: no trace_id"


# --- settings ---------------------------------------------------------------------------------------------------------
def test_an_argument_wins_over_the_environment_and_that_over_the_default(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"gpt": {"input": 1, "output": 2}}')
    environment = {
        "HALO_MCP_INDEX_DIR": str(tmp_path / "env"),
        "HALO_MCP_DEADLINE_S": "7",
        "HALO_MCP_ROOTS": f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}",
        "HALO_MCP_SOFT_RULES": "refusal, timeout",
        "HALO_MCP_PRICES": str(prices),
        "HALO_MCP_ENABLE": "ask",
        "HALO_MCP_DISABLE": "run_code, query_sql",
        "HALO_MCP_REPO_PATH": "agent",
        "HALO_MCP_LABELS": f"a.csv{os.pathsep}new=b.csv",
        "HALO_MCP_OUTCOME_ATTRIBUTE": "verdict,grade",
        "HALO_MCP_TASK_ATTRIBUTE": "ticket",
        "HALO_MCP_PASS_SCORE": "4",
        "HALO_MCP_REDACT": "1",
        "HALO_MCP_NO_PAYLOADS": "1",
    }
    default = load_settings(environ={})
    assert (default.deadline_s, default.roots, set(default.origins.values())) == (DEFAULT_DEADLINE_S, (), {"default"})
    from_environment = load_settings(environ=environment)
    assert (from_environment.index_dir, from_environment.deadline_s) == (tmp_path / "env", 7.0)
    assert from_environment.roots == (tmp_path / "a", tmp_path / "b")
    assert from_environment.soft_rules == ("refusal", "timeout")
    assert (from_environment.enable, from_environment.disable) == (("ask",), ("run_code", "query_sql"))
    assert from_environment.repo_path == Path("agent")
    assert (from_environment.labels, from_environment.pass_score) == (("a.csv", "new=b.csv"), 4.0)
    assert from_environment.outcome_attribute == ("verdict", "grade")
    assert from_environment.task_attribute == ("ticket",)
    assert (from_environment.redact, from_environment.no_payloads) == (True, True)
    assert set(from_environment.origins.values()) == {"environment"}
    given = load_settings(
        index_dir=tmp_path / "arg",
        deadline_s=3,
        roots=[tmp_path],
        soft_rules="none",
        prices=prices,
        enable=["run_code"],
        disable=["ask", "query_sql"],
        repo_path=tmp_path,
        labels=["c.csv"],
        outcome_attribute=["mine"],
        task_attribute=["case"],
        pass_score=0.5,
        redact=False,
        no_payloads=False,
        environ=environment,
    )
    assert (given.labels, given.outcome_attribute, given.task_attribute) == (("c.csv",), ("mine",), ("case",))
    assert given.soft_rules == ()
    assert (given.redact, given.no_payloads) == (False, False)
    assert (given.enable, given.disable) == (("run_code",), ("ask", "query_sql"))
    assert (given.index_dir, given.deadline_s, given.roots) == (tmp_path / "arg", 3.0, (tmp_path,))
    assert set(given.origins.values()) == {"argument"}
    assert load_settings(environ={"HALO_MCP_DEADLINE_S": " "}).origins["deadline_s"] == "default"


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_a_deadline_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(BadArgument, match=r"is not a number of seconds above 0"):
        load_settings(environ={"HALO_MCP_DEADLINE_S": value})


def test_sources_without_a_name_are_one_dataset_and_named_ones_are_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jsonl").touch()
    assert parse_sources(["x/one.jsonl"]) == {"one": ["x/one.jsonl"]}
    assert parse_sources(["one.jsonl", "two.jsonl"]) == {"traces": ["one.jsonl", "two.jsonl"]}
    assert parse_sources(["n=one", "rest", "n=two"]) == {"rest": ["rest"], "n": ["one", "two"]}
    assert parse_sources(["a=b.jsonl"]) == {"a-b": ["a=b.jsonl"]}, "a file of that name is there"
    assert parse_sources(["traces/*.jsonl", "traces=other"]) == {"traces": ["traces/*.jsonl", "other"]}
    assert parse_sources(["."]).keys() == {tmp_path.name}
    assert parse_sources([]) == {}


# --- errors in one line -----------------------------------------------------------------------------------------------
def test_the_demo_says_when_it_cannot_be_written(halo: CommandLine, traces: Path, tmp_path: Path) -> None:
    assert halo.fails("demo", traces).startswith("The demo cannot be written to TMP/traces.jsonl: File exists.")
    assert "Not a directory" in halo.fails("demo", traces / "below")
    (tmp_path / "taken" / "before.jsonl").mkdir(parents=True)
    assert "Is a directory" in halo.fails("demo", tmp_path / "taken")


def test_options_that_would_be_ignored_are_refused(halo: CommandLine, traces: Path) -> None:
    assert "add --count" in halo.fails("query", traces, "--group-by", "outcome")
    assert halo.fails("view", traces, "t1", "--attribute", "user").startswith("--attribute reads inside a span")
    assert halo.fails("view", traces, "t1", "--offset", "5").startswith("--offset reads inside a span")


def test_a_pipe_as_a_source_is_refused(halo: CommandLine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is a pipe, socket or device" in halo.fails("overview", tmp_path / "pipe")


def test_an_unforeseen_error_is_one_line_and_code_70(
    halo: CommandLine, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no\nluck")

    monkeypatch.delenv("HALO_MCP_DEBUG", raising=False)
    monkeypatch.setattr("halo_mcp.cli.show", fail)
    assert halo.fails("overview", traces, code=70) == (
        "internal error: ZeroDivisionError: no luck (set HALO_MCP_DEBUG=1 for the traceback)"
    )
    monkeypatch.setenv("HALO_MCP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        halo("overview", traces)
