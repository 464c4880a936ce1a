"""What the conformance tests need from npm and PyPI, and the flag that they run behind.

``python -m tests.conformance.packages`` installs all of it at once into the cache of the tests (about 1.1 GB, most of
it Claude Code and Node); where that is not possible it says why and exits with 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests import node_packages as npm
from tests import python_packages as pypi

FLAG: Final = "HALO_MCP_CONFORMANCE"
flagged = pytest.mark.skipif(
    os.environ.get(FLAG) != "1", reason=f"{FLAG} is not 1: these need packages from npm and PyPI"
)

NODE_PACKAGES: Final = (
    npm.CONFORMANCE,
    npm.CONFORMANCE_NEXT,
    npm.INSPECTOR,
    npm.TYPESCRIPT_V1,
    npm.TYPESCRIPT_V2,
    npm.CLAUDE_CODE,
)
PYTHON_PACKAGES: Final = (pypi.FASTMCP, pypi.OPENAI_AGENTS, pypi.SDK_V1)


def _all() -> Iterator[Callable[[], Path]]:
    yield npm.node
    yield from (partial(npm.modules, package) for package in NODE_PACKAGES)
    yield from (partial(pypi.python_with, package) for package in PYTHON_PACKAGES)


def main() -> int:
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(install) for install in _all()]
    reasons = [str(error) for future in running if (error := future.exception())]
    for reason in reasons:
        sys.stderr.write(f"{reason}\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
