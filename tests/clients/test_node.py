"""What npm's packages say of the configuration: Claude Code itself and the MCPB packer.

Networked: only with ``HALO_MCP_NODE``, either 1 (they are installed for the run) or a directory that has
``node_modules`` with @anthropic-ai/claude-code and @anthropic-ai/mcpb.
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

_FLAG: Final = os.environ.get("HALO_MCP_NODE", "")
_PACKAGES: Final = ("@anthropic-ai/claude-code", "@anthropic-ai/mcpb")
_PATIENCE_S: Final = 180

pytestmark = [
    pytest.mark.skipif(not _FLAG, reason="HALO_MCP_NODE is not set: these need packages from npm"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no Node here"),
]


class Node:
    """The packages' programs, run with a home of their own."""

    def __init__(self, modules: Path, home: Path) -> None:
        self.programs = modules / ".bin"
        self.home = home

    def __call__(self, program: str, *arguments: str | Path) -> str:
        """What it said on both streams; it must succeed."""
        environment = {**os.environ, "HOME": str(self.home), "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
        environment.pop("CLAUDE_CONFIG_DIR", None)
        done = subprocess.run(
            [str(self.programs / program), *map(str, arguments)],
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


@pytest.fixture(scope="session", name="modules")
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if _FLAG != "1":
        return Path(_FLAG) / "node_modules"
    directory = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory), *_PACKAGES]
    subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S)
    return directory / "node_modules"


@pytest.fixture(name="node")
def _node(modules: Path, tmp_path: Path) -> Node:
    home = tmp_path / "home"
    home.mkdir()
    return Node(modules, home)


@pytest.mark.parametrize("place", ["plugin", "."])
def test_claude_code_finds_nothing_wrong_with_plugin_and_marketplace(node: Node, place: str) -> None:
    assert "Validation passed" in node("claude", "plugin", "validate", "--strict", CONFIG / place)


def test_claude_code_installs_the_plugin_with_skill_and_commands(node: Node) -> None:
    node("claude", "plugin", "marketplace", "add", CONFIG)
    node("claude", "plugin", "install", "halo@halo-mcp")
    details = node("claude", "plugin", "details", "halo")
    assert json.loads((CONFIG / PLUGIN).read_bytes())["version"] in details
    assert all(name in details for name in ("halo-loop", "diagnose", "compare"))


def test_claude_code_connects_to_what_install_wrote(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = write_lines(node.home / "traces.jsonl", span("s"))
    monkeypatch.setenv("HOME", str(node.home))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    assert run(["install", "claude-code", str(traces)]) == 0
    (listed,) = [line for line in node("claude", "mcp", "list").splitlines() if line.startswith("halo:")]
    assert str(traces) in listed
    assert listed.endswith("Connected")


def test_codex_reads_what_install_wrote_with_its_timeouts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (node.programs / "codex").exists():
        pytest.skip("@openai/codex (400 MB) is not among the packages")
    place = node.home / "codex"
    place.mkdir()
    (place / "config.toml").write_text('[mcp_servers.other] # mine\ncommand = "true"\n', encoding="utf-8")
    monkeypatch.setenv("CODEX_HOME", str(place))
    assert run(["install", "codex", str(node.home / "traces.jsonl")]) == 0
    told = node("codex", "mcp", "get", "halo")
    assert {"enabled: true", "startup_timeout_sec: 30", "tool_timeout_sec: 1800"} <= set(
        map(str.strip, told.splitlines())
    )
    assert "other" in node("codex", "mcp", "list")


def test_the_packer_makes_a_bundle_with_the_server_in_it(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "validation passes" in node("mcpb", "validate", CONFIG / MANIFEST)
    bundle = tmp_path / "halo.mcpb"
    monkeypatch.setenv("MCPB", str(node.programs / "mcpb"))
    built = subprocess.run(
        [CONFIG / "mcpb" / "build", bundle], check=False, capture_output=True, text=True, timeout=_PATIENCE_S
    )
    assert built.returncode == 0, built.stdout + built.stderr
    names = set(ZipFile(bundle).namelist())
    assert {"manifest.json", "pyproject.toml", "uv.lock", "hatch_build.py", "halo_mcp/__main__.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".")) or "__pycache__" in name]
