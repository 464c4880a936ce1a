"""The verbs that ask about many traces at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from halo_mcp.terminal import Deadline, IndexDir, Json, Sources, Where, app, parse_filters, show


@app.command()
def failures(
    sources: Sources,
    where: Where = [],  # noqa: B006
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    soft_rules: Annotated[str, typer.Option(help="count only these soft-error rules: NAME,...")] = "",
    cursor: Annotated[str, typer.Option(help="from the previous page")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """List what fails, grouped: hard errors, soft errors, loops."""
    arguments = {
        "filters": parse_filters(where),
        "limit": limit,
        "soft_rules": [name for name in soft_rules.split(",") if name],
        "cursor": cursor,
    }
    show(sources, index_dir, deadline_s, "list_failure_modes", arguments, as_json)


@app.command()
def tools(
    sources: Sources,
    where: Where = [],  # noqa: B006
    tool: Annotated[list[str], typer.Option(help="only this tool; may be repeated")] = [],  # noqa: B006
    trace: Annotated[str, typer.Option(metavar="TRACE_ID", help="the calls of one trace, beside another run")] = "",
    against: Annotated[str, typer.Option(metavar="TRACE_ID", help="with --trace: which other run")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Say how tools are used: failures, retries, recovery, loops, waste, time."""
    arguments = {"filters": parse_filters(where), "tool_names": tool, "trace_id": trace, "against": against}
    show(sources, index_dir, deadline_s, "analyze_tool_use", arguments, as_json)


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
