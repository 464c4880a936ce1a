"""How a configuration file starts the server, and a client that starts it like that."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
from mcp import Client, StdioServerParameters

from halo_mcp.clients import SERVER_NAME
from tests.clients.record import CONFIG, PATH_TO_TRACES, PLUGIN, REGISTRY, SNIPPETS
from tests.tools.desk import Caller

_PATIENCE_S: Final = 60
_FILES: Final = "${user_config.traces}"
_PROJECT: Final = "${CLAUDE_PROJECT_DIR}"


class Started(NamedTuple):
    """What a client runs."""

    program: str
    arguments: list[str]
    environment: dict[str, str]


def loaded(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


def command_lines() -> dict[str, list[str]]:
    """Of every file that starts a server, the whole command line as it stands there."""
    entries = {name: loaded(CONFIG / name)[client.key][SERVER_NAME] for name, client in SNIPPETS.items()}
    entries[PLUGIN] = loaded(CONFIG / PLUGIN)["mcpServers"][SERVER_NAME]
    entries["mcpb/manifest.json"] = loaded(CONFIG / "mcpb/manifest.json")["server"]["mcp_config"]
    lines = {name: [entry["command"], *entry["args"]] for name, entry in entries.items()}
    (package,) = loaded(CONFIG / REGISTRY)["packages"]
    given = [argument.get("value", PATH_TO_TRACES) for argument in package["packageArguments"]]
    return {**lines, REGISTRY: [package["runtimeHint"], package["identifier"], *given]}


def here(line: Sequence[str], traces: Path) -> Started:
    """The same line with the checkout as the program and real traces; what comes after the program stays."""
    program = line.index("halo-mcp")
    values = {PATH_TO_TRACES: str(traces), _FILES: str(traces), _PROJECT: str(traces.parent)}
    return Started(sys.executable, ["-m", "halo_mcp", *(values.get(word, word) for word in line[program + 1 :])], {})


@asynccontextmanager
async def connected(started: Started, index_dir: Path) -> AsyncGenerator[Caller]:
    """A client whose server was started like that, in a directory and with an environment of no help to it."""
    environment: Mapping[str, str] = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "SYSTEMROOT") if name in os.environ},
        "HALO_MCP_INDEX_DIR": str(index_dir),
        **started.environment,
    }
    parameters = StdioServerParameters(
        command=started.program, args=started.arguments, env=dict(environment), cwd=str(index_dir.parent)
    )
    with anyio.fail_after(_PATIENCE_S):
        async with Client(parameters) as client:
            yield Caller(client)
