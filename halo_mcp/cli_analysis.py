"""The verbs that ask about many traces at once."""

from __future__ import annotations

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
