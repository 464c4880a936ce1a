"""Clients that others wrote, from PyPI: pinned, each installed once into a venv of the tests, and run from there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from tests.node_packages import Missing

INSTALL_S: Final = 300
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halo-mcp-tests" / "pypi"
_UV: Final = (sys.executable, "-m", "uv")


class PythonPackage(NamedTuple):
    """One package at one version."""

    name: str
    version: str


FASTMCP: Final = PythonPackage("fastmcp", "4.1.2")
OPENAI_AGENTS: Final = PythonPackage("openai-agents", "0.24.0")
SDK_V1: Final = PythonPackage("mcp", "1.30.0")


def python_with(package: PythonPackage, cache: Path = _CACHE) -> Path:
    """The interpreter of a venv that has the package, which is made when it was not. Raises: Missing."""
    tag = f"py{sys.version_info.major}{sys.version_info.minor}"
    home = cache / f"{package.name}@{package.version}-{tag}"
    if not home.exists():
        _install(package, home)
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _install(package: PythonPackage, home: Path) -> None:
    """Under a temporary name and then by rename, as only the interpreter is used: scripts would name the old place."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-", ignore_cleanup_errors=True) as place:
        new = Path(place) / "venv"
        wanted = f"{package.name}=={package.version}"
        if importlib.util.find_spec("uv"):  # several times faster
            _run(package, *_UV, "venv", "--quiet", "--python", sys.executable, str(new))
            _run(package, *_UV, "pip", "install", "--quiet", "--python", str(new), wanted)
        else:
            _run(package, sys.executable, "-m", "venv", str(new))
            quiet = ("--quiet", "--disable-pip-version-check", "--retries=1")
            _run(package, *_UV[:2], "pip", f"--python={new}", "install", *quiet, wanted)
        try:
            new.rename(home)
        except OSError:  # another run of the tests was faster
            if not home.exists():
                raise


def _run(package: PythonPackage, *command: str) -> None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"{package.name} was not installed within {INSTALL_S} s") from None
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        why = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason given")
        raise Missing(f"{package.name} {package.version} cannot be installed: {why.strip()}")
