"""The build backend: hatchling, which also packs the Python interpreter that run_code runs, as WebAssembly.

``halo_py.wasm`` (any platform) is made from ``halo_mcp/sandbox/guest`` by componentize-py, in place, so that editable
installs have it too. ``halo_py.json`` beside it records its hash, which cannot be pinned (builds differ byte by byte),
and from what it was made, so that it is made again only when that changes.

componentize-py has no build for some platforms (musl, for one). There the package is built without the interpreter:
the record then says why, and run_code passes that on. Hence a backend and not a hook of hatchling's: a requirement's
marker cannot tell musl, and one that cannot be met fails the build. The functions are those of PEP 517 and PEP 660.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

GUEST: Final = Path(__file__).parent / "halo_mcp" / "sandbox" / "guest"
SOURCES: Final = ("guest_app.py", "halo.wit")
COMPONENTIZE_PY: Final = "componentize-py==0.25.1"
_PLATFORMS: Final = {
    "Linux": ("x86_64", "aarch64"),
    "Darwin": ("x86_64", "arm64"),
    "Windows": ("AMD64",),
}
"""What componentize-py has wheels for; on Linux with glibc 2.28 or later only."""
COMMAND: Final = "import sys, componentize_py; sys.exit(componentize_py.script())"
_BUILD_S: Final = 900
_REASON_CHARS: Final = 300

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return [*_hatchling().get_requires_for_build_wheel(config_settings), *guest_requirements()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return [*_hatchling().get_requires_for_build_editable(config_settings), *guest_requirements()]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return _hatchling().get_requires_for_build_sdist(config_settings)


def build_wheel(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    make_guest()
    return _hatchling().build_wheel(directory, config_settings, metadata_directory)


def build_editable(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    make_guest()
    return _hatchling().build_editable(directory, config_settings, metadata_directory)


def build_sdist(directory: str, config_settings: Settings = None) -> str:
    return _hatchling().build_sdist(directory, config_settings)


def _hatchling() -> Any:
    # Only builds have it: tests import this module without.
    from hatchling import build

    return build


def guest_requirements() -> list[str]:
    """What making the interpreter needs; nothing where that cannot be had."""
    return [COMPONENTIZE_PY] if has_wheel() else []


def has_wheel() -> bool:
    """Whether componentize-py has a wheel for this platform."""
    if platform.machine() not in _PLATFORMS.get(platform.system(), ()):
        return False
    if platform.system() != "Linux":
        return True
    library, version = platform.libc_ver()
    return library == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 28)


def make_guest(guest: Path = GUEST) -> None:
    """Make ``halo_py.wasm`` and its record, unless they are there and made from the same sources.

    Never fails for want of componentize-py: the record then says why there is no interpreter.
    """
    artefact, record = guest / "halo_py.wasm", guest / "halo_py.json"
    sources = _sources_hash(guest)
    if _is_current(artefact, record, sources):
        return
    made: dict[str, str] = {"made_from": sources, "componentize_py": COMPONENTIZE_PY}
    try:
        _componentize(guest, artefact)
        made["sha256"] = hashlib.sha256(artefact.read_bytes()).hexdigest()
    except (OSError, subprocess.SubprocessError) as error:
        artefact.unlink(missing_ok=True)
        made["missing"] = _why(error)
        sys.stderr.write(f"halo-mcp: run_code will not be available: {made['missing']}\n")
    _replace(record, (json.dumps(made, indent=1) + "\n").encode())


def _sources_hash(guest: Path) -> str:
    digest = hashlib.sha256(COMPONENTIZE_PY.encode())
    for name in SOURCES:
        digest.update(b"\0" + (guest / name).read_bytes())
    return digest.hexdigest()


def _is_current(artefact: Path, record: Path, sources: str) -> bool:
    try:
        made = json.loads(record.read_text())
        return made["made_from"] == sources and hashlib.sha256(artefact.read_bytes()).hexdigest() == made["sha256"]
    except (OSError, ValueError, KeyError):
        return False


def _componentize(guest: Path, artefact: Path) -> None:
    """Raises: OSError, subprocess.SubprocessError."""
    if not has_wheel():
        raise OSError(f"componentize-py has no build for this platform ({platform.platform(terse=True)})")
    with tempfile.TemporaryDirectory() as scratch:
        for name in SOURCES:
            (Path(scratch) / name).write_bytes((guest / name).read_bytes())
        made = Path(scratch) / artefact.name
        arguments = ["-d", "halo.wit", "-w", "sandbox", "componentize", "guest_app", "-o", str(made)]
        subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=scratch,
            timeout=_BUILD_S,
            check=True,
            capture_output=True,
            text=True,
        )
        _replace(artefact, made.read_bytes())


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that no reader sees half of it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _why(error: Exception) -> str:
    """One line, without a full stop."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or "").strip().splitlines()
        return f"componentize-py failed: {said[-1] if said else f'exit code {error.returncode}'}"[:_REASON_CHARS]
    return str(error)[:_REASON_CHARS]
