"""The skill and the commands: every call in them is one that the server takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer.main
from pydantic import ValidationError

from halo_mcp import serve
from halo_mcp.cli import app
from halo_mcp.demo import write_demo
from halo_mcp.server import TOOL_NAMES
from halo_mcp.tools.calls import checked
from tests.clients.record import CONFIG
from tests.tools.desk import FUNCTIONS, Desk, NextCall, calls_in

ROOT: Final = CONFIG.parent
SKILL: Final = CONFIG / "plugin" / "skills" / "halo-loop" / "SKILL.md"
TEXTS: Final = [SKILL, *sorted((CONFIG / "plugin" / "commands").glob("*.md"))]
PLACEHOLDER: Final = re.compile(r'"[A-Z_]{3,}"|\.jsonl"|=PATH"|="TRACE_ID"')
ASKING: Final = {"ask": {"question", "dataset", "effort", "filters", "budget"}, "ask_result": {"job_id", "wait_s"}}
"""Tools that are not plain functions over a store: their arguments."""

each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


def calls(path: Path) -> list[NextCall]:
    return calls_in(path.read_text(encoding="utf-8"))


def frontmatter(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return dict(line.split(": ", 1) for line in text.split("---\n")[1].splitlines())


@each_text
def test_every_call_names_a_tool_and_arguments_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    code = re.findall(r"`([a-z_]+)\(", text)
    assert set(code) <= {*TOOL_NAMES}
    assert len([name for name in code if name in FUNCTIONS]) == len(calls(path)), "a call that cannot be read"
    for call in calls(path):
        try:
            arguments = {
                key: value for key, value in call.arguments.items() if key not in ("dataset", "response_format")
            }
            checked(FUNCTIONS[call.tool], arguments)
        except ValidationError as error:
            pytest.fail(f"{call.tool}: {error}")
    for name, known in ASKING.items():
        for given in re.findall(rf"`{name}\((.*?)\)`", text):
            assert set(re.findall(r"(?:^|, )(\w+)=", given)) <= known


@each_text
def test_calls_without_placeholders_are_answered(path: Path, tmp_path: Path) -> None:
    write_demo(tmp_path)
    desk = Desk(tmp_path, {run: [tmp_path / f"{run}.jsonl"] for run in ("before", "after")})
    text = path.read_text(encoding="utf-8")
    tried = 0
    for written in re.findall(r"`([a-z_]+\([^`]*\))`", text):
        if PLACEHOLDER.search(written):
            continue
        for call in calls_in(written):
            tried += 1
            assert desk.follow(call).text
    assert tried >= 3


def test_every_tool_that_the_loop_needs_is_in_the_skill() -> None:
    named = set(re.findall(r"`([a-z_]+)\(", SKILL.read_text(encoding="utf-8")))
    left_out = {*TOOL_NAMES} - named
    assert left_out == {"query_traces", "run_code", "synthesize_traces"}


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    """(file, arguments) of every ``halo-mcp`` command in the skill and the guides to clients and tracing."""
    for path in (SKILL, ROOT / "docs" / "clients.md", ROOT / "docs" / "tracing.md"):
        text = path.read_text(encoding="utf-8")
        lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`(halo-mcp [^`]*)`", text)]:
            words = shlex.split(line, comments=True)
            if words[:1] == ["halo-mcp"]:
                yield path.stem, words[1:]


@pytest.mark.parametrize(
    "arguments", [pytest.param(words, id=f"{name}: {shlex.join(words)}") for name, words in shell_commands()]
)
def test_a_command_of_the_shell_is_one_that_the_command_line_takes(arguments: list[str]) -> None:
    verb, *rest = arguments
    if verb == "serve":
        serve.parser().parse_args(rest)
        return
    verbs = getattr(typer.main.get_command(app), "commands")  # noqa: B009  # typer's own type does not tell of them
    verbs[verb].make_context(verb, rest)


def test_the_skill_is_found_by_its_name_and_is_short() -> None:
    facts = frontmatter(SKILL)
    assert facts["name"] == SKILL.parent.name == "halo-loop"
    assert 50 < len(facts["description"]) <= 1_024
    assert len(SKILL.read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("path", TEXTS[1:], ids=lambda path: path.stem)
def test_a_command_says_what_it_is_for_and_takes_arguments(path: Path) -> None:
    assert set(frontmatter(path)) == {"description", "argument-hint"}
    assert "$ARGUMENTS" in path.read_text(encoding="utf-8")


def test_documents_that_the_skill_names_are_there() -> None:
    for name in re.findall(r"\bdocs/[a-z-]+\.md", SKILL.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file()
