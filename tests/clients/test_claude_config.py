"""The files of ``claude_config/``: each starts a server that answers, and says what the code says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import pytest

from halo_mcp import __version__
from halo_mcp.cli import run
from halo_mcp.clients import CLIENTS, Machine
from halo_mcp.server import TOOL_NAMES
from tests.builders import agent, span, write_lines
from tests.clients.configured import Started, command_lines, connected, here, loaded
from tests.clients.record import CONFIG, MANIFEST, MARKETPLACE, PLUGIN, REGISTRY, files

ROOT: Final = CONFIG.parent
TOOLS: Final = {*TOOL_NAMES}


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return write_lines(directory / "traces.jsonl", agent("root"), span("call", "root"))


def test_what_starts_the_server_is_made_from_the_code() -> None:
    for path, text in files():
        assert path.read_text(encoding="utf-8") == text, "python -m tests.clients.record brings it up to date"


def test_every_file_is_known_to_these_tests() -> None:
    """A new file needs a test of its own, here or beside this one."""
    known = {path.relative_to(CONFIG).as_posix() for path, _ in files()}
    texts = {"README.md", "mcpb/build", "plugin/README.md", "plugin/skills/halo-loop/SKILL.md"}
    commands = {f"plugin/commands/{name}.md" for name in ("diagnose", "compare")}
    there = {path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*") if path.is_file()}
    assert there == known | texts | commands


@pytest.mark.parametrize("name", command_lines())
async def test_the_server_starts_from_the_file_and_answers(name: str, tmp_path: Path, traces: Path) -> None:
    async with connected(here(command_lines()[name], traces), tmp_path / "index") as caller:
        assert {tool.name for tool in (await caller.client.list_tools()).tools} == TOOLS
        if name == PLUGIN:  # knows only where it may look
            assert str(traces.parent) in await caller.text("list_datasets")
            await caller.text("list_datasets", open=str(traces))
        assert "1 trace" in await caller.text("get_dataset_overview")


async def test_what_install_writes_starts_a_server_that_answers(
    tmp_path: Path, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(traces.parent)
    written: set[tuple[str, ...]] = set()
    for client in CLIENTS.values():
        assert run(["install", client.name, "mine=traces.jsonl"]) == 0
        entry = loaded(client.places["user"](Machine(tmp_path, tmp_path, environ={})))[client.key]["halo"]
        written.add((entry["command"], *entry["args"]))
    ((program, *arguments),) = written  # all clients run the same
    monkeypatch.chdir("/")
    async with connected(Started(program, arguments, {}), tmp_path / "index") as caller:
        assert "dataset mine" in await caller.text("get_dataset_overview")


def test_the_readme_shows_the_same_block() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(
        r"```json\n(.*?)```", readme.partition("## Connect a client")[2].partition("\n## ")[0], re.DOTALL
    )
    assert json.loads(block) == loaded(CONFIG / "claude_desktop_config.json")
    assert "halo-mcp install" in readme


def test_the_guide_shows_the_same_blocks_and_a_section_for_every_client() -> None:
    guide = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    for client in CLIENTS.values():
        assert f"\n## {client.title}\n" in guide
        assert f"halo-mcp install {client.name}" in guide
    for name in ("codex/config.toml", "vscode/mcp.json"):
        assert (CONFIG / name).read_text(encoding="utf-8") in guide


def test_versions_and_names_agree() -> None:
    (listed,) = loaded(CONFIG / MARKETPLACE)["plugins"]
    plugin, manifest, registry = (loaded(CONFIG / name) for name in (PLUGIN, MANIFEST, REGISTRY))
    assert {listed["version"], plugin["version"], manifest["version"], registry["version"]} == {__version__}
    assert (CONFIG / listed["source"] / ".claude-plugin" / "plugin.json").samefile(CONFIG / PLUGIN)
    assert listed["name"] == plugin["name"] == "halo"
    assert (ROOT / manifest["server"]["entry_point"]).is_file()


def test_the_registry_entry_keeps_the_limits_of_its_schema() -> None:
    """server.schema.json of 2025-12-11: the name's pattern, a description of at most 100 characters."""
    entry = loaded(CONFIG / REGISTRY)
    assert entry["$schema"].endswith("/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"])
    assert 1 <= len(entry["description"]) <= 100
    for package in entry["packages"]:
        assert {"registryType", "identifier", "version", "transport"} <= set(package)
        assert all("value" in given or "valueHint" in given for given in package["packageArguments"])


def test_the_script_that_packs_the_bundle_can_be_run() -> None:
    assert os.access(CONFIG / "mcpb" / "build", os.X_OK)
