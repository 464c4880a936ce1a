"""The tool table of the README, made from the tools that the server publishes.

``python -m tests.readme_table`` prints it.
"""

from __future__ import annotations

import sys
from typing import Final

from halo_mcp.server import build_tools
from tests.marked import with_part

BEGIN: Final = "<!-- tools:begin -->"
END: Final = "<!-- tools:end -->"
_EVERYWHERE: Final = ("dataset", "response_format")


def tool_table() -> str:
    """A markdown table: name, first sentence of the description, arguments (those that must be given in bold)."""
    lines = ["| tool | what it answers | arguments (besides `dataset` and `response_format`) |", "| --- | --- | --- |"]
    for tool in build_tools():
        required = tool.parameters.get("required", [])
        names = [name for name in tool.parameters["properties"] if name not in _EVERYWHERE]
        shown = [f"**`{name}`**" if name in required else f"`{name}`" for name in names]
        lines.append(f"| `{tool.name}` | {_first_sentence(tool.description or '')} | {', '.join(shown)} |")
    return "\n".join(lines)


def with_table(document: str) -> str:
    """The document with the table between its markers. Raises: ValueError, when it has none."""
    return with_part(document, BEGIN, tool_table(), END)


def _first_sentence(description: str) -> str:
    first = description.split("\n\n", maxsplit=1)[0].replace("\n", " ")
    sentence = first.split(". ", maxsplit=1)[0].rstrip(".") + "."
    return sentence.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(tool_table() + "\n")
