"""What npm's packages say of the configuration: Claude Code itself and the MCPB packer.

Networked: only with ``HALO_MCP_NODE=1``; Codex (400 MB) only where it is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from halo_mcp.cli import run
from tests.builders import span, write_lines
from tests.clients.record import CONFIG, MANIFEST, PLUGIN
from tests.node_packages import MCPB, claude_code, here, installed

_PATIENCE_S: Final = 180

pytestmark = pytest.mark.skipif(
    os.environ.get("HALO_MCP_NODE") != "1", reason="HALO_MCP_NODE is not 1: these need packages from npm"
)


class Node:
    """Programs of npm's packages, run with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, program: Path, *arguments: str | Path) -> str:
        """What it said on both streams; it must succeed."""
        environment = {**os.environ, "HOME": str(self.home), "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
        environment.pop("CLAUDE_CONFIG_DIR", None)
        done = subprocess.run(
            [str(program), *map(str, arguments)],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="session", name="claude")
def _claude() -> Path:
    return here(claude_code)


@pytest.fixture(scope="session", name="mcpb")
def _mcpb() -> Path:
    return here(lambda: installed(MCPB))


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Node:
    home = tmp_path / "home"
    home.mkdir()
    return Node(home)


@pytest.mark.parametrize("place", ["plugin", "."])
def test_claude_code_finds_nothing_wrong_with_plugin_and_marketplace(node: Node, claude: Path, place: str) -> None:
    assert "Validation passed" in node(claude, "plugin", "validate", "--strict", CONFIG / place)


def test_claude_code_installs_the_plugin_with_skill_and_commands(node: Node, claude: Path) -> None:
    node(claude, "plugin", "marketplace", "add", CONFIG)
    node(claude, "plugin", "install", "halo@halo-mcp")
    details = node(claude, "plugin", "details", "halo")
    assert json.loads((CONFIG / PLUGIN).read_bytes())["version"] in details
    assert all(name in details for name in ("halo-loop", "diagnose", "compare"))


def test_claude_code_connects_to_what_install_wrote(node: Node, claude: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = write_lines(node.home / "traces.jsonl", span("s"))
    monkeypatch.setenv("HOME", str(node.home))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    assert run(["install", "claude-code", str(traces)]) == 0
    (listed,) = [line for line in node(claude, "mcp", "list").splitlines() if line.startswith("halo:")]
    assert str(traces) in listed
    assert listed.endswith("Connected")


def test_codex_reads_what_install_wrote_with_its_timeouts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    codex = shutil.which("codex")
    if codex is None:
        pytest.skip("Codex is not on PATH")
    place = node.home / "codex"
    place.mkdir()
    (place / "config.toml").write_text('[mcp_servers.other] # mine\ncommand = "true"\n', encoding="utf-8")
    monkeypatch.setenv("CODEX_HOME", str(place))
    assert run(["install", "codex", str(node.home / "traces.jsonl")]) == 0
    told = node(Path(codex), "mcp", "get", "halo")
    assert {"enabled: true", "startup_timeout_sec: 30", "tool_timeout_sec: 1800"} <= set(
        map(str.strip, told.splitlines())
    )
    assert "other" in node(Path(codex), "mcp", "list")


def test_the_packer_makes_a_bundle_with_the_server_in_it(
    node: Node, mcpb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "validation passes" in node(mcpb, "validate", CONFIG / MANIFEST)
    bundle = tmp_path / "halo.mcpb"
    monkeypatch.setenv("MCPB", str(mcpb))
    built = subprocess.run(
        [CONFIG / "mcpb" / "build", bundle], check=False, capture_output=True, text=True, timeout=_PATIENCE_S
    )
    assert built.returncode == 0, built.stdout + built.stderr
    names = set(ZipFile(bundle).namelist())
    assert {"manifest.json", "pyproject.toml", "uv.lock", "hatch_build.py", "halo_mcp/__main__.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".")) or "__pycache__" in name]
