"""Programs that others wrote, from PyPI: pinned, each installed once into a venv of the tests, and run from there."""

from __future__ import annotations

import hashlib
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
    """One package at one version, and what is installed beside it."""

    name: str
    version: str
    beside: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        return f"{self.name}=={self.version}", *self.beside

    @property
    def directory(self) -> str:
        """The name of a venv with exactly this, for this version of Python."""
        kind = "" if not self.beside else "+" + hashlib.sha256(" ".join(self.beside).encode()).hexdigest()[:8]
        return f"{self.name}@{self.version}{kind}-py{sys.version_info.major}{sys.version_info.minor}"


FASTMCP: Final = PythonPackage("fastmcp", "4.1.2")
OPENAI_AGENTS: Final = PythonPackage("openai-agents", "0.24.0")
SDK_V1: Final = PythonPackage("mcp", "1.30.0")
PRODUCERS: Final = PythonPackage(
    "opentelemetry-sdk",
    "1.45.2",
    (
        "httpx==0.28.1",  # opentelemetry-instrumentation-openai-v2 imports it and does not say so
        "openai-agents==0.24.0",
        "openinference-instrumentation-openai==0.1.66",
        "openinference-instrumentation-openai-agents==2.6.0",
        "opentelemetry-exporter-otlp-json-file==0.66b1",
        "opentelemetry-exporter-otlp-proto-common==1.45.2",
        "opentelemetry-instrumentation-openai-v2==2.4b0",
        "opentelemetry-util-genai==0.4b0",  # later ones have moved what the instrumentation imports
    ),
)
"""What writes traces."""


def python_with(package: PythonPackage, cache: Path = _CACHE) -> Path:
    """The interpreter of a venv that has the package, which is made when it was not. Raises: Missing."""
    home = cache / package.directory
    if not home.exists():
        _install(package, home)
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _install(package: PythonPackage, home: Path) -> None:
    """Under a temporary name and then by rename, as only the interpreter is used: scripts would name the old place."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-", ignore_cleanup_errors=True) as place:
        new = Path(place) / "venv"
        if importlib.util.find_spec("uv"):  # several times faster
            _run(package, *_UV, "venv", "--quiet", "--python", sys.executable, str(new))
            _run(package, *_UV, "pip", "install", "--quiet", "--python", str(new), *package.requirements)
        else:
            _run(package, sys.executable, "-m", "venv", str(new))
            quiet = ("--quiet", "--disable-pip-version-check", "--retries=1")
            _run(package, *_UV[:2], "pip", f"--python={new}", "install", *quiet, *package.requirements)
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
