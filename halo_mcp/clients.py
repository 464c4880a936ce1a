"""What each MCP client wants to be told: where its configuration is, and how it spells a server.

The one truth behind ``halo-mcp install``, the files in ``claude_config/`` and the README's block. Reads nothing, and
writes nothing: see ``install.py``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, Literal, NamedTuple

Scope = Literal["user", "project"]
Format = Literal["json", "toml"]
Entry = dict[str, Any]
"""How one server is started, in a client's own words."""

SERVER_NAME: Final = "halo"
LONGEST_CALL_S: Final = 1_800
"""What clients with a setting for it are told to wait for one call: ``ask`` takes minutes."""
SLOWEST_START_S: Final = 30
"""For clients with a shorter one: the first start after an installation compiles the package."""


class Command(NamedTuple):
    """A program with its first arguments."""

    program: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """What the places of configuration files depend on."""

    home: Path
    project: Path
    """The directory that a project's configuration stands in."""
    platform: str = sys.platform
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def variable(self, name: str, otherwise: Path) -> Path:
        """The directory that an environment variable names."""
        value = self.environ.get(name, "").strip()
        return Path(value).expanduser() if value else otherwise

    @property
    def application_data(self) -> Path:
        """Where desktop programs keep their settings."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        if self.platform == "win32":
            return self.variable("APPDATA", self.home / "AppData" / "Roaming")
        return self.variable("XDG_CONFIG_HOME", self.home / ".config")


@dataclass(frozen=True, slots=True)
class Client:
    """A program that speaks MCP."""

    name: str
    title: str
    key: str
    """The member of its configuration that holds the servers by name."""
    places: Mapping[Scope, Callable[[Machine], Path]]
    """Its configuration files; the first scope is the default."""
    format: Format = "json"
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members of an entry before the command."""
    last: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """And after the arguments."""
    afterwards: str = ""
    """What the user has to do then."""

    def entry(self, command: Command, serve: Sequence[str]) -> Entry:
        """The server as this client spells it; ``serve``: arguments of the verb."""
        arguments = [*command.arguments, "serve", *serve]
        return {**self.first, "command": command.program, "args": arguments, **self.last}

    def block(self, name: str, entry: Mapping[str, Any]) -> str:
        """A whole configuration with only this server, as text to paste; ends with a newline."""
        content = {self.key: {name: dict(entry)}}
        if self.format == "json":
            return as_json(content)
        import tomlkit

        return tomlkit.dumps(content)


def as_json(content: Any, indent: int | str = 2) -> str:
    """As clients write it themselves; lists of words stay on one line each word, as ``json`` does it."""
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


CLIENTS: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client(
            name="claude-code",
            title="Claude Code",
            key="mcpServers",
            places={
                "user": lambda machine: machine.variable("CLAUDE_CONFIG_DIR", machine.home) / ".claude.json",
                "project": lambda machine: machine.project / ".mcp.json",
            },
            first={"type": "stdio"},
            last={"timeout": LONGEST_CALL_S * 1_000},
            afterwards="Start a new session of Claude Code; /mcp shows the server.",
        ),
        Client(
            name="claude-desktop",
            title="Claude Desktop",
            key="mcpServers",
            places={"user": lambda machine: machine.application_data / "Claude" / "claude_desktop_config.json"},
            afterwards="Quit Claude Desktop and start it again.",
        ),
        Client(
            name="cursor",
            title="Cursor",
            key="mcpServers",
            places={
                "user": lambda machine: machine.home / ".cursor" / "mcp.json",
                "project": lambda machine: machine.project / ".cursor" / "mcp.json",
            },
            afterwards="Switch the server on in Cursor's settings, under MCP.",
        ),
        Client(
            name="vscode",
            title="VS Code",
            key="servers",
            places={
                "user": lambda machine: machine.application_data / "Code" / "User" / "mcp.json",
                "project": lambda machine: machine.project / ".vscode" / "mcp.json",
            },
            first={"type": "stdio"},
            afterwards="Run 'MCP: List Servers' in VS Code and start the server.",
        ),
        Client(
            name="codex",
            title="Codex",
            key="mcp_servers",
            places={
                "user": lambda machine: machine.variable("CODEX_HOME", machine.home / ".codex") / "config.toml",
                "project": lambda machine: machine.project / ".codex" / "config.toml",
            },
            format="toml",
            last={"startup_timeout_sec": SLOWEST_START_S, "tool_timeout_sec": LONGEST_CALL_S},
            afterwards="Start a new session of Codex; /mcp shows the server.",
        ),
    )
}
"""By the name that ``halo-mcp install`` takes."""

INSPECTOR: Final = Client(name="inspector", title="MCP Inspector", key="mcpServers", places={}, first={"type": "stdio"})
"""Has no configuration file of its own: it is given one."""


def is_ours(entry: object) -> bool:
    """Whether an entry starts this program, however it was written."""
    words: list[Any] = []
    if isinstance(entry, Mapping):
        words = [entry.get("command"), *_items(entry.get("args"))]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    names = {PurePath(word.replace("\\", "/")).name.removesuffix(".exe") for word in words if isinstance(word, str)}
    return bool(names & {"halo-mcp", "halo_mcp"}) and "serve" in names


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
