"""What the verbs that ask a model share: its options, spelled the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from halo_mcp.errors import BadArgument

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="who is asked; none: nothing is sent [env: HALO_MCP_MODEL]")
]
SubagentModel = Annotated[str | None, typer.Option(help="[env: HALO_MCP_SUBAGENT_MODEL]")]
SynthesisModel = Annotated[str | None, typer.Option(help="reads many traces at once [env: HALO_MCP_SYNTHESIS_MODEL]")]
CompactionModel = Annotated[str | None, typer.Option(help="shortens conversations [env: HALO_MCP_SUMMARY_MODEL]")]
BaseUrl = Annotated[str | None, typer.Option(help="the model's endpoint [env: OPENAI_BASE_URL]")]
Header = Annotated[list[str], typer.Option("--header", "-H", metavar="NAME:VALUE", help="sent along; may be repeated")]
ReasoningEffort = Annotated[str | None, typer.Option(help="[env: HALO_MCP_REASONING_EFFORT]")]
Temperature = Annotated[float | None, typer.Option(help="[env: HALO_MCP_TEMPERATURE]")]
MaxOutputTokens = Annotated[int | None, typer.Option(help="per reply [env: HALO_MCP_MAX_OUTPUT_TOKENS]")]


def headers(given: Sequence[str]) -> dict[str, str] | None:
    """The headers by name; None when none was given. Raises: BadArgument."""
    found: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise BadArgument("--header takes NAME:VALUE.")  # without the text: it may be a secret
        found[name.strip()] = value.strip()
    return found or None
