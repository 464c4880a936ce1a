"""The source code of the traced agent, as the server-side agent reads it; opened only where someone named it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from halo_mcp.engine.types import Tool
from halo_mcp.errors import BadArgument, BadRepoPath, shown
from halo_mcp.tools.render import printable

if TYPE_CHECKING:
    from halo_mcp.repo.tools import Repository, RepositoryTool


def repository_at(path: Path | None) -> Repository | None:
    """The repository in a directory; None without one. Raises: BadArgument."""
    if path is None:
        return None
    from halo_mcp.repo.tools import open_repository

    try:
        return open_repository(path)
    except BadRepoPath as error:
        raise BadArgument(
            f"The repository {shown(error.path)!r} cannot be used: {error.reason.rstrip('.')}. Give the directory of "
            "the traced agent's source code as --repo-path or HALO_MCP_REPO_PATH."
        ) from None


def repository_tools(repository: Repository) -> list[Tool]:
    """Its tools for an agent; each call runs in a thread, which ends by itself when nobody waits for it any more."""
    return [_tool(tool) for tool in repository.tools]


def _tool(tool: RepositoryTool[Any]) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        return printable(await anyio.to_thread.run_sync(partial(tool.call, arguments), abandon_on_cancel=True))

    return Tool(tool.name, tool.description, tool.schema, call)


def repository_section(repository: Repository) -> str:
    """What an agent is told about it."""
    text = f"The repository {repository.root.path.name!r} with the source code of the traced agent can be read."
    return f"{text} Without its history: {repository.git_off}" if repository.git_off else text
