"""Programs that others wrote, from npm: pinned, installed once into a directory of the tests, and run from there.

``python -m tests.node_packages`` installs all of them; where that is not possible it says why and exits with 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

OLDEST_NODE: Final = 20
INSTALL_S: Final = 180
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halo-mcp-tests" / "npm"


class NodePackage(NamedTuple):
    """One npm package at one version, and the command of it that is used."""

    name: str
    version: str
    command: str


class Missing(Exception):
    """The package cannot be had here; the text says why."""


INSPECTOR: Final = NodePackage("@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")
AIMOCK: Final = NodePackage("@copilotkit/aimock", "1.43.0", "llmock")


def installed(package: NodePackage, cache: Path = _CACHE) -> Path:
    """The command of a package, which is installed when it was not. Raises: Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node and npm are not installed")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if not (found := re.match(r"v(\d+)", said)) or int(found[1]) < OLDEST_NODE:
        raise Missing(f"Node is older than {OLDEST_NODE}: {said.strip() or 'it does not say its version'}")
    home = cache / f"{package.name.replace('/', '+')}@{package.version}"
    command = home / "node_modules" / ".bin" / package.command
    if not command.exists():
        _install(npm, package, home)
    return command


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
