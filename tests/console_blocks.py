"""Documents that show the command line: what each command prints is what it printed when it was run.

A block ``console`` is one ``$ halo-mcp ...`` command with its output. A block ``json`` under a line of a file's name,
such as `` `checks.json`: ``, is that file once the commands before it have run; a file that they did not make is
written. The commands run in one directory, which holds the sample dataset in ``halo-demo``.
``python -m tests.console_blocks FILE`` brings a document up to date.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from halo_mcp.cli import run
from halo_mcp.demo import write_demo

_BLOCK: Final = re.compile(
    r"^```console\n(?P<command>\$ halo-mcp .*\n)(?P<output>(?:.*\n)*?)```$"
    r"|^(?P<name>`(?P<file>[\w.-]+)`.*:\n\n```json\n)(?P<content>(?:.*\n)*?)```$",
    re.MULTILINE,
)


def with_outputs(document: str, directory: Path) -> tuple[str, list[int]]:
    """The document with outputs and files as they are now, and the exit codes; ``directory`` is the working one."""
    codes: list[int] = []

    def renewed(block: re.Match[str]) -> str:
        if block["command"] is None:
            file = directory / block["file"]
            if not file.exists():
                file.write_text(block["content"], encoding="utf-8")
            return f"{block['name']}{file.read_text(encoding='utf-8')}```"
        _, *arguments = shlex.split(block["command"].removeprefix("$ "))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            codes.append(run(arguments))
        return f"```console\n{block['command']}{out.getvalue()}```"

    return _BLOCK.sub(renewed, document), codes


def main() -> None:
    path = Path(sys.argv[1]).absolute()
    with TemporaryDirectory() as place:
        os.environ["HALO_MCP_INDEX_DIR"] = f"{place}/index"
        os.chdir(place)
        write_demo(Path("halo-demo"))
        document, _ = with_outputs(path.read_text(encoding="utf-8"), Path())
        path.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
