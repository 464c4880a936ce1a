"""``halo-mcp demo --tour``: the main job, shown through a real MCP client talking to a real server process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from mcp import Client, StdioServerParameters

_TRACE_CHARS = 3_500


async def take_tour(files: Sequence[Path]) -> None:
    """Serve ``files`` as one dataset over stdio, ask the first questions, print the answers and what to paste."""
    arguments = ["-m", "halo_mcp", "serve", *map(str, files)]
    async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
        tools = (await client.list_tools()).tools
        _heading(f"a client connected over stdio sees {len(tools)} tools: {', '.join(tool.name for tool in tools)}")
        _heading("get_dataset_overview()")
        typer.echo(await _text(client, "get_dataset_overview"))
        failing = await client.call_tool(
            "query_traces",
            {"filters": {"outcome": ["fail"], "has_errors": True}, "limit": 1, "response_format": "json"},
        )
        found: Any = failing.structured_content
        trace_id: str = found["traces"][0]["trace_id"]
        _heading(f'view_trace(trace_id="{trace_id}")   the first failing trace; its beginning')
        typer.echo((await _text(client, "view_trace", trace_id=trace_id))[:_TRACE_CHARS] + "\n…")
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
