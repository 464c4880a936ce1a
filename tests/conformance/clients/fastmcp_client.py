"""fastmcp's client."""

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    if "url" in asked:
        transport = StreamableHttpTransport(asked["url"])
    else:
        transport = StdioTransport(asked["command"], asked["args"], env=asked["env"])
    async with Client(transport) as client:
        tools = [tool.name for tool in await client.list_tools()]
        progress: list[str] = []
        begun = asyncio.Event()

        async def note(done: float, total: float | None, message: str | None) -> None:
            progress.append(message or "")
            begun.set()

        first = asyncio.create_task(client.call_tool("count_traces", {}, progress_handler=note))
        await begun.wait()
        first.cancel()
        (ended,) = await asyncio.gather(first, return_exceptions=True)
        plain = await client.call_tool("count_traces", {})
        wrong = await client.call_tool("count_traces", {"filter": {}}, raise_on_error=False)
        data = await client.call_tool("count_traces", {"response_format": "json"})
        return {
            "protocol": protocol_of(client),
            "server": server_of(client),
            "tools": tools,
            "progress": progress,
            "cancelled": isinstance(ended, asyncio.CancelledError),
            "text": plain.content[0].text,
            "wrong": wrong.content[0].text if wrong.is_error else None,
            "total": (data.structured_content or {}).get("total"),
        }


def protocol_of(client: Any) -> Any:
    return getattr(client, "protocol_version", None) or getattr(client.session, "protocol_version", None)


def server_of(client: Any) -> Any:
    found = getattr(client, "server_info", None) or client.initialize_result.server_info
    return found.name


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
