"""Running a server: stdio with a shutdown that works."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve until EOF, SIGINT or SIGTERM; running calls are cancelled and the lifespan is left properly.

    After a signal the process ends with 128 + its number: the SDK's reader thread is parked in a read of standard
    input that nothing can interrupt.
    """
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # the SDK has no public accessor yet
    received: list[int] = []
    async with stdio_server() as (read, write):
        # Only now: the SDK takes over standard output only while sys.stdout is still backed by it. What other code
        # prints from here on goes to standard error instead of into the protocol.
        sys.stdout = sys.stderr
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                if sys.platform != "win32":
                    group.start_soon(_end_on_signal, scope, received)
                await low.run(read, write, low.create_initialization_options())
                group.cancel_scope.cancel()
        if received:
            sys.stderr.flush()
            os._exit(128 + received[0])


async def _end_on_signal(scope: anyio.CancelScope, received: list[int]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            received.append(number)
            scope.cancel()
            return
