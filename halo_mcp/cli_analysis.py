"""The verbs that ask about many traces at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from halo_mcp.terminal import Deadline, IndexDir, Json, Sources, Where, app, parse_filters, show


@app.command()
def versions(
    sources: Sources,
    where: Where = [],  # noqa: B006
    diff: Annotated[str, typer.Option(metavar="ID,ID", help="two version ids: how they differ")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """List the harness versions behind the traces, or show how two of them differ."""
    arguments = {"filters": parse_filters(where), "diff": diff.split(",") if diff else []}
    show(sources, index_dir, deadline_s, "list_harness_versions", arguments, as_json)


@app.command()
def cost(
    sources: Sources,
    where: Where = [],  # noqa: B006
    group_by: Annotated[str, typer.Option(help="model, agent, turn, tool, run or outcome")] = "model",
    prices: Annotated[
        Path | None, typer.Option(help="JSON file: model -> USD per million tokens [env: HALO_MCP_PRICES]")
    ] = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Say where tokens go, what is sent again, and what is spent after a failure."""
    arguments = {"filters": parse_filters(where), "group_by": group_by}
    show(sources, index_dir, deadline_s, "analyze_cost", arguments, as_json, prices)
