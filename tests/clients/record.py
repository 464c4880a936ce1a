"""The files of ``claude_config/`` that say how the server is started, made from ``halo_mcp/clients.py``.

``python -m tests.clients.record`` writes them; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from halo_mcp import __version__
from halo_mcp.clients import CLIENTS, INSPECTOR, SERVER_NAME, Client, Command, as_json

CONFIG: Final = Path(__file__).parents[2] / "claude_config"
PATH_TO_TRACES: Final = "/path/to/traces.jsonl"
ON_PATH: Final = Command("halo-mcp")
SNIPPETS: Final[dict[str, Client]] = {
    ".mcp.json": CLIENTS["claude-code"],
    "claude_desktop_config.json": CLIENTS["claude-desktop"],
    "cursor/mcp.json": CLIENTS["cursor"],
    "vscode/mcp.json": CLIENTS["vscode"],
    "codex/config.toml": CLIENTS["codex"],
    "inspector/mcp.json": INSPECTOR,
}
PLUGIN: Final = "plugin/.claude-plugin/plugin.json"
MARKETPLACE: Final = ".claude-plugin/marketplace.json"
MANIFEST: Final = "mcpb/manifest.json"
REGISTRY: Final = "server.json"
VERSIONED: Final = (PLUGIN, MARKETPLACE, MANIFEST, REGISTRY)
"""Written by hand, except for the version and how the server is started."""


def files() -> Iterator[tuple[Path, str]]:
    """(path, what stands in it)."""
    for name, client in SNIPPETS.items():
        yield CONFIG / name, client.block(SERVER_NAME, client.entry(ON_PATH, [PATH_TO_TRACES]))
    for name in VERSIONED:
        yield CONFIG / name, as_json(_brought_up_to_date(name, json.loads((CONFIG / name).read_bytes())))


def _brought_up_to_date(name: str, content: dict[str, Any]) -> dict[str, Any]:
    if name == MARKETPLACE:
        content["plugins"][0]["version"] = __version__
        return content
    content["version"] = __version__
    if name == REGISTRY:
        for package in content["packages"]:
            package["version"] = __version__
    if name == PLUGIN:
        entry = CLIENTS["claude-code"].entry(ON_PATH, ["--root", "${CLAUDE_PROJECT_DIR}"])
        content["mcpServers"] = {SERVER_NAME: {key: value for key, value in entry.items() if key != "type"}}
    return content


def main() -> None:
    for path, text in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
