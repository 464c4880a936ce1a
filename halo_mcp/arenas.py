"""Memory of a server with many threads, on Linux with glibc: freed memory must be of use to other threads."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_M_ARENA_MAX: Final = -8
"""From malloc.h of glibc, see mallopt(3)."""


def share_arenas() -> None:
    """Let malloc keep one arena for each processor, instead of eight. Call it before threads start.

    What was freed in one arena stays there: in a server whose state is built anew again and again, by other threads
    each time, the arenas grow one after the other. ``MALLOC_ARENA_MAX`` in the environment is left to decide; without
    glibc nothing happens.
    """
    if not sys.platform.startswith("linux") or "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 1))
