"""The formats, in the order in which a file is shown to them: the first that knows it reads it.

A new format is a module beside this one with a ``FORMAT``, and its name here. Modules are imported when first a file
comes that is not canonical JSON lines.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Final

from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.protocol import Format

MODULES: Final = (
    "otlp_protobuf",  # first: texts inside of it may look like anything
    "canonical_json",
    "claude_code",
    "codex",
    "otlp_json",
    "langfuse",
    "patronus",
    "phoenix",
    "otel_sdk",
    "mlflow",
    "jaeger",
    "zipkin",
    "langsmith",
    "openai_agents",
    "inspect_ai",
    "atif",
    "mini_swe_agent",
    "swe_agent",
    "tau_bench",
    "who_and_when",
    "mast",
    "message_lists",  # last: many files hold messages
)


@cache
def formats() -> tuple[Format, ...]:
    """All of them, in order."""
    return tuple(import_module(f"halo_mcp.index.formats.{name}").FORMAT for name in MODULES)


def recognised(head: Head) -> Format | None:
    """The format of a file that begins like this; None when no format knows it."""
    return next((one for one in formats() if one.sniff(head)), None)


def named(name: str) -> Format | None:
    """The format of this name."""
    return next((one for one in formats() if one.name == name), None)
