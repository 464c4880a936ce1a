"""A server's threads share the arenas of malloc: what one frees, another uses."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = 24
PROGRAM = f"""
import ctypes, sys, threading
from halo_mcp.arenas import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
barrier = threading.Barrier({THREADS})

def work():
    libc.malloc(ctypes.c_size_t(1_000))
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(tmp_path: Path, how: str, **variables: str) -> int:
    """How many arenas a process with many threads has in the end, as glibc tells it."""
    told = tmp_path / "malloc.xml"
    environment = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"} | variables
    subprocess.run([sys.executable, "-c", PROGRAM, how, str(told)], env=environment, check=True, timeout=60)
    return told.read_text().count("<heap nr=")


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_info"),
    reason="there is no glibc here",
)
def test_many_threads_share_as_many_arenas_as_there_are_processors(tmp_path: Path) -> None:
    most = max(2, os.cpu_count() or 1)
    assert arenas(tmp_path, "as ever") > most
    assert arenas(tmp_path, "shared") <= most
    assert arenas(tmp_path, "shared", MALLOC_ARENA_MAX=str(most + 2)) == most + 2  # the user decides
