"""Who may import whom, read off the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "halo_mcp"
ALLOWED = {
    "errors": set[str](),
    "index": {"errors", "index"},
    "sandbox": {"errors", "index", "sandbox"},
    "engine": {"errors", "engine"},
}
"""What a layer may import of the package; the others are only kept from looking up."""
ABOVE = {"tools": {"server", "transports", "cli", "__main__"}, "server": {"cli", "__main__"}, "transports": {"cli"}}
HEAVY = ("duckdb", "numpy", "re2", "openai", "scipy", "wasmtime")


def imports() -> Iterator[tuple[Path, str]]:
    """(module relative to the package, dotted name) of every import, also those inside functions."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((path.relative_to(PACKAGE), name) for name in names)


def test_imports_go_one_way() -> None:
    for path, name in imports():
        top, layer = name.split("."), path.parts[0].removesuffix(".py")
        if top[0] == "halo_mcp" and len(top) > 1:
            assert top[1] in ALLOWED.get(layer, {top[1]}), f"{path} imports {name}"
            assert top[1] not in ABOVE.get(layer, ()), f"{path} imports {name}"


def test_mcp_is_imported_by_tools_server_and_tour_only() -> None:
    for path, name in imports():
        if name.split(".")[0] == "mcp":
            assert path.parts[0] in ("tools", "server.py", "transports.py", "tour.py"), f"{path} imports {name}"


def test_starting_the_server_imports_nothing_heavy() -> None:
    if not (PACKAGE / "server.py").exists():
        pytest.skip("there is no server yet")
    script = f"import sys, halo_mcp.server; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)
