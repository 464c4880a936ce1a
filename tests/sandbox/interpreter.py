"""The interpreter of run_code for tests: compiled once for all tests of a run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from halo_mcp.sandbox.code import GUEST

ARTEFACT: Final = GUEST / "halo_py.wasm"
IN_CI: Final = os.environ.get("CI") == "true"

needs_interpreter = pytest.mark.skipif(
    not ARTEFACT.exists() and not IN_CI, reason="halo_py.wasm is not built: uv sync, or hatch_build.make_guest()"
)
"""For tests that run code. In CI they run, and fail, when the build did not make the interpreter."""


@cache
def compiled_cache() -> Path:
    """A directory for the compiled interpreter, removed at the end of the run. Compiling takes 5 to 10 s."""
    directory = tempfile.mkdtemp(prefix="halo-mcp-tests-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def share_compiled(index_dir: Path) -> None:
    """Let a server with this index directory find the interpreter already compiled."""
    link = index_dir / "sandbox"
    if not link.exists():
        index_dir.mkdir(parents=True, exist_ok=True)
        link.symlink_to(compiled_cache(), target_is_directory=True)
