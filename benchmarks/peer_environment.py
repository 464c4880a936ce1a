"""The environment that the peer runs in: made once, kept in the work directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEER = "halo-engine==0.3.5"
_NEEDED = ("pydantic", "openai-agents==0.14.7", "openai==2.32.0")


def peer_python(directory: Path) -> Path:
    """An interpreter that can import the peer. Raises: CalledProcessError or OSError when it cannot be installed."""
    environment = directory / "peer-environment"
    python = environment / "bin" / "python"
    complete = environment / "complete"
    if not complete.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        _run(str(python), "-m", "pip", "install", "--no-deps", PEER)
        _run(str(python), "-m", "pip", "install", *_NEEDED)
        complete.touch()
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
