"""The Python SDK, version 1: knows the handshake only, and leaves it to the program to say that it cancels."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        if "url" in asked:
            read, write, _ = await stack.enter_async_context(streamablehttp_client(asked["url"]))
        else:
            parameters = StdioServerParameters(command=asked["command"], args=asked["args"], env=asked["env"])
            read, write = await stack.enter_async_context(stdio_client(parameters))
        session = await stack.enter_async_context(ClientSession(read, write))
        hello = await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        progress: list[str] = []
        begun = asyncio.Event()

        async def note(done: float, total: float | None, message: str | None) -> None:
            progress.append(message or "")
            begun.set()

        number = session._request_id
        first = asyncio.create_task(session.call_tool("count_traces", {}, progress_callback=note))
        await begun.wait()
        gone = CancelledNotification(
            method="notifications/cancelled", params=CancelledNotificationParams(requestId=number)
        )
        await session.send_notification(ClientNotification(gone))
        first.cancel()
        (ended,) = await asyncio.gather(first, return_exceptions=True)
        plain = await session.call_tool("count_traces", {})
        wrong = await session.call_tool("count_traces", {"filter": {}})
        data = await session.call_tool("count_traces", {"response_format": "json"})
        return {
            "protocol": hello.protocolVersion,
            "server": hello.serverInfo.name,
            "tools": tools,
            "progress": progress,
            "cancelled": isinstance(ended, asyncio.CancelledError),
            "text": plain.content[0].text,
            "wrong": wrong.content[0].text if wrong.isError else None,
            "total": (data.structuredContent or {}).get("total"),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
