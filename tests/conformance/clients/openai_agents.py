"""The OpenAI Agents SDK: its MCP server objects, as an agent is given them. They pass on no progress."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from agents.mcp import MCPServerStdio, MCPServerStreamableHttp

STARTED_S = 60


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    if "url" in asked:
        server = MCPServerStreamableHttp({"url": asked["url"]}, name="halo", client_session_timeout_seconds=60)
    else:
        parameters = {name: asked[name] for name in ("command", "args", "env")}
        server = MCPServerStdio(parameters, name="halo", client_session_timeout_seconds=60)
    async with server:
        tools = [tool.name for tool in await server.list_tools()]
        first = asyncio.create_task(server.call_tool("count_traces", {}))
        await asyncio.to_thread(wait_for, Path(asked["notes"]))
        first.cancel()
        (ended,) = await asyncio.gather(first, return_exceptions=True)
        plain = await server.call_tool("count_traces", {})
        wrong = await server.call_tool("count_traces", {"filter": {}})
        data = await server.call_tool("count_traces", {"response_format": "json"})
        return {
            "protocol": server.session.protocol_version,
            "server": server.session.server_info.name,
            "tools": tools,
            "progress": None,
            "cancelled": isinstance(ended, asyncio.CancelledError),
            "text": plain.content[0].text,
            "wrong": wrong.content[0].text if wrong.is_error else None,
            "total": (data.structured_content or {}).get("total"),
        }


def wait_for(notes: Path) -> None:
    """Until the server is at work: without progress the client cannot tell."""
    until = time.monotonic() + STARTED_S
    while not notes.exists() and time.monotonic() < until:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
