"""The verbs that ask about many traces at once."""

from __future__ import annotations

from typing import Annotated

import typer

from halo_mcp.terminal import Deadline, IndexDir, Json, Sources, Where, app, parse_filters, show


@app.command()
def grep(
    sources: Sources,
    pattern: Annotated[str, typer.Argument(help="RE2 regex; comes last")],
    where: Where = [],  # noqa: B006
    group_by: Annotated[
        str,
        typer.Option(help="count per trace, span_name, tool, kind, failure_mode, agent, model or outcome"),
    ] = "",
    literal: Annotated[bool, typer.Option("--literal", help="find the pattern exactly as written")] = False,
    max_matches: Annotated[int, typer.Option(min=1, max=200)] = 20,
    context_buffer_chars: Annotated[int, typer.Option(min=0, max=2_000)] = 60,
    cursor: Annotated[str, typer.Option(help="from the previous page")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Find a regex in all traces: how many spans and traces match, per group, with snippets."""
    arguments = {
        "pattern": pattern,
        "filters": parse_filters(where),
        "group_by": group_by or None,
        "literal": literal,
        "max_matches": max_matches,
        "context_buffer_chars": context_buffer_chars,
        "cursor": cursor,
    }
    show(sources, index_dir, deadline_s, "search_dataset", arguments, as_json)
