"""Programs that others wrote, from npm: pinned, installed once into a directory of the tests, and run from there.

``python -m tests.node_packages`` installs all of them; where that is not possible it says why and exits with 1.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

OLDEST_NODE: Final = 20
"""What npm itself needs. Some programs need a newer one; see ``node``."""
NEWER_NODE: Final = 22
INSTALL_S: Final = 180
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halo-mcp-tests" / "npm"


class NodePackage(NamedTuple):
    """One npm package at one version, and the command of it that is used, if it is not a library."""

    name: str
    version: str
    command: str = ""


class Missing(Exception):
    """The package cannot be had here; the text says why."""


INSPECTOR: Final = NodePackage("@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")
AIMOCK: Final = NodePackage("@copilotkit/aimock", "1.43.0", "llmock")
CONFORMANCE: Final = NodePackage("@modelcontextprotocol/conformance", "0.1.16", "conformance")
CONFORMANCE_NEXT: Final = NodePackage("@modelcontextprotocol/conformance", "0.2.0-alpha.12", "conformance")
"""The first that knows protocol version 2026-07-28."""
TYPESCRIPT_V1: Final = NodePackage("@modelcontextprotocol/sdk", "1.32.2")
TYPESCRIPT_V2: Final = NodePackage("@modelcontextprotocol/client", "2.4.0")
MCPB: Final = NodePackage("@anthropic-ai/mcpb", "2.1.2", "mcpb")
CLAUDE_CODE: Final = NodePackage("@anthropic-ai/claude-code", "2.1.330")
_SYSTEM: Final = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), "win")
_MACHINE: Final = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x64"
NODE: Final = NodePackage(f"node-{_SYSTEM}-{_MACHINE}", "22.23.3", "node")
"""Node itself, where the one that is there is too old."""


def here(package: Callable[[], Path]) -> Path:
    """What was installed; the test is skipped where it cannot be had."""
    try:
        return package()
    except Missing as missing:
        pytest.skip(str(missing))


def installed(package: NodePackage, cache: Path = _CACHE) -> Path:
    """The command of a package, which is installed when it was not. Raises: Missing."""
    return modules(package, cache) / ".bin" / package.command


def modules(package: NodePackage, cache: Path = _CACHE) -> Path:
    """The ``node_modules`` with a package, which is installed when it was not. Raises: Missing."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Missing("Node and npm are not installed")
    if _version_of_node() < OLDEST_NODE:
        raise Missing(f"Node is older than {OLDEST_NODE}")
    home = cache / f"{package.name.replace('/', '+')}@{package.version}"
    if not home.exists():
        _install(npm, package, home)
    return home / "node_modules"


def node(cache: Path = _CACHE) -> Path:
    """A Node that is new enough for every package here. Raises: Missing."""
    found = shutil.which("node")
    return Path(found) if found and _version_of_node() >= NEWER_NODE else installed(NODE, cache)


def claude_code() -> Path:
    """Claude Code itself: its command needs a script of its installation, and when killed leaves it running.

    Raises: Missing.
    """
    (program,) = modules(CLAUDE_CODE).glob("@anthropic-ai/claude-code-*/claude*")
    return program


def _version_of_node() -> int:
    """Its major version; 0 when it does not say."""
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return int(found[1]) if (found := re.match(r"v(\d+)", said)) else 0


def _install(npm: str, package: NodePackage, home: Path) -> None:
    """Under a temporary name and then by rename: what was interrupted is never taken for whole."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-", ignore_cleanup_errors=True) as place:
        new = Path(place) / "package"
        new.mkdir()
        (new / "package.json").write_text(json.dumps({"dependencies": {package.name: package.version}}))
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
        try:
            run = subprocess.run(
                [npm, "install", *quiet], cwd=new, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"npm did not install {package.name} within {INSTALL_S} s") from None
        if run.returncode:
            why = next((line for line in run.stderr.splitlines() if line.strip()), "no reason given")
            raise Missing(f"npm cannot install {package.name}: {why}")
        try:
            new.rename(home)
        except OSError:  # another run of the tests was faster
            if not home.exists():
                raise


def main() -> int:
    try:
        for package in (AIMOCK, INSPECTOR):
            installed(package)
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
