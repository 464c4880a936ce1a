"""``halo-mcp serve`` whose first build reports progress and waits to be stopped; later ones are real.

``python -m tests.conformance.slow_server NOTES SOURCE...``: what happens is written to the file NOTES, as a client may
swallow standard error.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final

from halo_mcp import serve
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work

WAITS: Final = "a build waits"
STOPPED: Final = "it was stopped"
BUILT: Final = "built"
TOO_LONG_S: Final = 60

_refresh = LocalStore.refresh
_once = threading.Lock()


def _refresh_but_not_at_first(store: LocalStore, work: Work) -> None:
    def note(line: str) -> None:
        with notes.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    if not _once.acquire(blocking=False):
        _refresh(store, work)
        note(BUILT)
        return
    stopped = threading.Event()
    work.on_stop(stopped.set)
    note(WAITS)
    work.report(1, 4, "a build that waits")
    note(STOPPED if stopped.wait(TOO_LONG_S) else "nobody stopped it")
    work.check()


if __name__ == "__main__":
    notes = Path(sys.argv[1])
    setattr(LocalStore, "refresh", _refresh_but_not_at_first)  # noqa: B010  # the types would not allow it
    sys.exit(serve.main(sys.argv[2:]))
