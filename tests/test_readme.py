"""What the README promises is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer.main

from halo_mcp import serve
from halo_mcp.cli import app
from halo_mcp.demo import write_demo
from halo_mcp.server import build_tools
from tests.readme_table import tool_table, with_table
from tests.rules_table import with_rules
from tests.tools.desk import Desk, calls_in

README: Final = Path(__file__).parent.parent / "README.md"
FAILURES: Final = Path(__file__).parent.parent / "docs" / "failures.md"
_BLOCK: Final = re.compile(r"^```(?:\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"(?:^|-- )halo-mcp((?: .*)?)$")


def documented_commands() -> Iterator[list[str]]:
    """The arguments of every ``halo-mcp`` command in a code block, without comments."""
    for block in _BLOCK.finditer(README.read_text(encoding="utf-8")):
        for line in block[1].replace("\\\n", " ").splitlines():
            if found := _COMMAND.search(line.removeprefix("$ ")):
                yield shlex.split(found[1], comments=True)


def test_the_readme_shows_commands() -> None:
    assert {arguments[0] for arguments in documented_commands() if arguments} >= {"serve", "overview", "view"}


@pytest.mark.parametrize("arguments", [pytest.param(a, id=shlex.join(a)) for a in documented_commands()])
def test_a_documented_command_is_one_that_the_command_line_takes(arguments: list[str]) -> None:
    verb, *rest = arguments
    command = typer.main.get_command(app)
    if verb == "serve":
        serve.parser().parse_args(rest)
    elif verb.startswith("-"):
        assert verb in ("--help", "--version")
    else:
        verbs = getattr(command, "commands")  # noqa: B009  # typer's own type does not tell that it is a group
        assert verb in verbs
        verbs[verb].make_context(verb, rest)


def test_the_tool_table_of_the_readme_is_the_generated_one() -> None:
    document = README.read_text(encoding="utf-8")
    assert document == with_table(document), f"paste this between the markers in README.md:\n\n{tool_table()}"


def test_the_table_has_a_row_for_every_tool_and_a_document_without_markers_is_refused() -> None:
    rows = tool_table().splitlines()
    assert len(rows) == 2 + len(build_tools())
    assert all(row.count(" | ") == 2 for row in rows)
    with pytest.raises(ValueError, match="no markers"):
        with_table("# nothing here")


def test_the_table_of_rules_is_the_generated_one() -> None:
    document = FAILURES.read_text(encoding="utf-8")
    assert document == with_rules(document), "python -m tests.rules_table docs/failures.md brings it up to date"


def test_the_answers_in_the_readme_are_what_the_tools_say(tmp_path: Path) -> None:
    write_demo(tmp_path)
    desk = Desk(tmp_path, {run: [tmp_path / f"{run}.jsonl"] for run in ("before", "after")})
    section = README.read_text(encoding="utf-8").partition("## A question and its answer")[2].partition("\n## ")[0]
    said = {line for call in calls_in(section) for line in desk.follow(call).text.splitlines()}
    shown = [line for block in _BLOCK.finditer(section) for line in block[1].splitlines() if line]
    assert len(shown) > 5
    assert [line for line in shown if line not in said] == []
