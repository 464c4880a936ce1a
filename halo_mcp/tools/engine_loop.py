"""The engine's work inside a tool: its own event loop in the worker thread of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import anyio

from halo_mcp.errors import Cancelled
from halo_mcp.index.work import Work

_Result = TypeVar("_Result")
_HEARTBEAT_S: Final = 5.0
"""Clients give up on a call that they hear nothing of."""


class Told:
    """The newest progress, repeated until there is a newer one."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._latest = (0.0, "")

    def __call__(self, share: float, what: str) -> None:
        self._latest = (share, what)
        self.repeat()

    def repeat(self) -> None:
        share, what = self._latest
        self._work.report(share, 1.0, what)


def run_engine(work: Work, main: Callable[[Told], Awaitable[_Result]]) -> _Result:
    """What ``main`` returns. When ``work`` is stopped, ``main`` is cancelled, which closes its connections.

    A loop of its own: tools run in threads, and the server's loop stays free for other calls; connections live no
    longer than the call. Raises: Cancelled, and what ``main`` raises.
    """
    told = Told(work)

    async def beat() -> None:
        while True:
            await anyio.sleep(_HEARTBEAT_S)
            told.repeat()

    async def stoppable() -> _Result:
        loop = asyncio.get_running_loop()
        results: list[_Result] = []
        errors: list[Exception] = []
        async with anyio.create_task_group() as group:

            def stop() -> None:
                # From any thread, and also long after this loop was closed.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(group.cancel_scope.cancel)

            work.on_stop(stop)
            group.start_soon(beat)
            try:
                results.append(await main(told))
            except Exception as error:  # out of the group it would come wrapped
                errors.append(error)
            finally:
                group.cancel_scope.cancel()
        if errors:
            raise errors[0]
        if not results:
            raise Cancelled
        return results[0]

    return anyio.run(stoppable)
