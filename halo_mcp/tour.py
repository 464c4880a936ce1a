"""``halo-mcp demo --tour``: the main job, shown through a real MCP client talking to a real server process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import typer
from mcp import Client, StdioServerParameters

from halo_mcp.tools.params import call_text

_QUESTIONS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("get_dataset_overview", {}),
    ("list_failure_modes", {"limit": 3}),
    ("contrast_traces", {}),
    ("compare_datasets", {"after": "after"}),
)


async def take_tour(before: Path, after: Path) -> None:
    """Serve the two runs over stdio, ask the first questions, print the answers and what to paste."""
    arguments = ["-m", "halo_mcp", "serve", f"before={before}", f"after={after}"]
    async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
        tools = (await client.list_tools()).tools
        _heading(f"a client connected over stdio sees {len(tools)} tools: {', '.join(tool.name for tool in tools)}")
        for tool, given in _QUESTIONS:
            _heading(call_text(tool, **given))
            typer.echo(await _text(client, tool, **given))
    _heading("to give this to Claude")
    typer.echo("Claude Code:\n  " + " ".join(["claude mcp add halo --", sys.executable, *arguments]))
    typer.echo("Claude Desktop, Cursor and others (mcpServers in their JSON configuration):")
    typer.echo(json.dumps({"mcpServers": {"halo": {"command": sys.executable, "args": arguments}}}, indent=2))
    typer.echo('\nThen ask: "Use halo: what systematically goes wrong in these traces, and did the after run help?"')


async def _text(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    return "\n".join(block.text for block in result.content if block.type == "text")


def _heading(text: str) -> None:
    typer.echo(f"\n=== {text}")
