"""Who may import whom, read off the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "halo_mcp"
LAYERS = (
    {"errors", "arenas", "__version__"},
    {"index"},
    {"sandbox", "engine", "repo", "config", "clients", "junit"},
    {"datasets", "jobs", "runs", "transcript"},
    {"tools", "install"},
    {"web", "guide", "outgoing", "prompts", "completion"},
    {"resources"},
    {"server", "transports", "terminal", "cli_llm", "demo", "tour"},
    {"serve", "doctor", "cli_analysis", "cli_check", "cli_verify", "cli_ask", "cli_synthesize", "cli_install"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up. A module or package imports what stands in lower layers, and nothing beside it."""
ONLY = {"engine": {"errors"}, "sandbox": {"errors", "index"}, "repo": {"errors", "index"}}
"""What some may import, whatever else is below them."""
USERS = {"sandbox": {"datasets", "tools"}}
"""Who may import some, whatever else is above them."""
STANDARD_LIBRARY_ONLY = {Path("sandbox/confine.py"), Path("sandbox/frames.py")}
"""Workers import these before their search path is set."""
MCP_MODULES = (
    "tools",
    "web",
    *(f"{name}.py" for name in ("server", "transports", "tour", "resources", "prompts", "outgoing")),
)
HEAVY = ("duckdb", "numpy", "re2", "openai", "scipy", "wasmtime")


def imports() -> Iterator[tuple[Path, str]]:
    """(module relative to the package, dotted name) of every import, also those inside functions."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((path.relative_to(PACKAGE), name) for name in names)


def test_every_module_has_a_layer() -> None:
    modules = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__"} - set[str]().union(*LAYERS) == set()


def test_imports_go_one_way() -> None:
    heights = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    for path, name in imports():
        top, own = name.split("."), path.parts[0].removesuffix(".py")
        if top[0] != "halo_mcp" or len(top) == 1 or top[1] == own:
            continue
        assert heights[top[1]] < heights[own], f"{path} imports {name}"
        assert top[1] in ONLY.get(own, {top[1]}), f"{path} imports {name}"
        assert own in USERS.get(top[1], {own}), f"{path} imports {name}"


def test_what_workers_start_with_needs_the_standard_library_only() -> None:
    for path, name in imports():
        if path in STANDARD_LIBRARY_ONLY:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "__future__"}, f"{path} imports {name}"


def test_mcp_is_imported_by_tools_and_what_makes_up_the_server_only() -> None:
    for path, name in imports():
        if name.split(".")[0] == "mcp":
            assert path.parts[0] in MCP_MODULES, f"{path} imports {name}"


def test_starting_the_server_imports_nothing_heavy() -> None:
    if not (PACKAGE / "server.py").exists():
        pytest.skip("there is no server yet")
    script = f"import sys, halo_mcp.server; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)
