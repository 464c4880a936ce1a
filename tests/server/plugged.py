"""``halo-mcp serve`` with something built in that a test needs: ``python -m tests.server.plugged PLUG SOURCE...``."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from halo_mcp import serve
from halo_mcp.index.local import LocalStore
from halo_mcp.index.store import StoreInfo
from halo_mcp.index.work import Work

_info = LocalStore.info
_refresh = LocalStore.refresh


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _build_that_waits_for_its_end(store: LocalStore, work: Work) -> None:
    stopped = threading.Event()
    work.on_stop(stopped.set)
    work.report(1, 10, "building")
    _say("building")
    stopped.wait(60)
    _say("stopped")
    work.check()


def _build_that_hears_nothing(store: LocalStore, work: Work) -> None:
    _say("building")
    threading.Event().wait(60)


def _question_that_hears_nothing(store: LocalStore) -> StoreInfo:
    _say("asking")
    threading.Event().wait(60)
    return _info(store)


def _noisy_build(store: LocalStore, work: Work) -> None:
    sys.stdout.write("a library prints\n")
    os.write(1, b"native code prints\n")
    subprocess.run(["echo", "a child process prints"], check=True)
    _refresh(store, work)


def _build_while_the_clock_goes_back(store: LocalStore, work: Work) -> None:
    """Every look at the wall clock is an hour before the last one."""
    hours = itertools.count()
    now = time.time
    time.time = lambda: now() - 3_600 * next(hours)
    time.time_ns = lambda: int(time.time() * 1e9)
    LocalStore.refresh = _refresh
    _refresh(store, work)


PLUGS: Final[dict[str, tuple[str, Callable[..., Any]]]] = {
    "waiting-build": ("refresh", _build_that_waits_for_its_end),
    "deaf-build": ("refresh", _build_that_hears_nothing),
    "deaf-question": ("info", _question_that_hears_nothing),
    "noise": ("refresh", _noisy_build),
    "clock-back": ("refresh", _build_while_the_clock_goes_back),
}
"""The method of the store that is replaced, and by what."""

if __name__ == "__main__":
    setattr(LocalStore, *PLUGS[sys.argv[1]])
    sys.exit(serve.main(sys.argv[2:]))
