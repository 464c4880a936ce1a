"""The verbs that ask about many traces at once."""

from __future__ import annotations

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
