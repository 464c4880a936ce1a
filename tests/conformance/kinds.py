"""Clients that others wrote, and the programs around them in ``clients/``."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests import node_packages as npm
from tests import python_packages as pypi
from tests.node_packages import NodePackage
from tests.python_packages import PythonPackage

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"


class Kind(NamedTuple):
    """A client: its package, the program around it, and the protocol version that it comes to."""

    title: str
    package: NodePackage | PythonPackage
    program: str
    protocol: str
    shows_progress: bool = True

    @property
    def era(self) -> str:
        return "modern" if self.protocol == MODERN else "legacy"


KINDS: Final = {
    "typescript-v1": Kind("TypeScript SDK v1", npm.TYPESCRIPT_V1, "typescript_v1.mjs", LEGACY),
    "typescript-v2": Kind("TypeScript SDK v2", npm.TYPESCRIPT_V2, "typescript_v2.mjs", LEGACY),
    "typescript-v2-modern": Kind("TypeScript SDK v2", npm.TYPESCRIPT_V2, "typescript_v2.mjs", MODERN),
    "fastmcp": Kind("fastmcp client", pypi.FASTMCP, "fastmcp_client.py", MODERN),
    "openai-agents": Kind("OpenAI Agents SDK", pypi.OPENAI_AGENTS, "openai_agents.py", MODERN, shows_progress=False),
    "python-v1": Kind("Python SDK v1", pypi.SDK_V1, "python_v1.py", LEGACY),
}
