"""Running a call in a worker thread, without its errors keeping alive what it worked on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

from halo_mcp.errors import let_go
from halo_mcp.index.work import Work

T = TypeVar("T")


async def run_in_thread(call: Callable[[Work], T], work: Work) -> T:
    """What ``call`` returns or raises; when the caller is cancelled, the thread is left to notice that by itself."""
    return await anyio.to_thread.run_sync(_letting_go, call, work, abandon_on_cancel=True)


def _letting_go(call: Callable[[Work], T], work: Work) -> T:
    try:
        return call(work)
    except BaseException as error:
        let_go(error)
        raise
