"""The verbs that ask about many traces at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from halo_mcp.errors import BadArgument, why_unusable
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
def sql(
    source: Annotated[str, typer.Argument(metavar="SOURCE")] = "",
    statement: Annotated[str, typer.Argument(metavar="'SELECT ...'", help="one statement, DuckDB dialect")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    schema: Annotated[bool, typer.Option("--schema", help="print views, columns, functions, examples")] = False,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Ask with SQL: one read-only SELECT over the views spans and traces."""
    if schema:
        from halo_mcp.index.sql_schema import schema_text

        typer.echo(schema_text(), nl=False)
        return
    if not source or not statement:
        raise BadArgument("Give a trace file and one statement, or --schema for the columns.")
    show([source], index_dir, deadline_s, "query_sql", {"sql": statement, "limit": limit}, as_json)


@app.command()
def code(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Python to run; - reads standard input")] = "-",
    index_dir: IndexDir = None,
    as_json: Json = False,
) -> None:
    """Run sandboxed Python over the traces: spans(), sql() and every tool are functions there."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"The code in {file} cannot be read: {why_unusable(error)}.") from error
    if show([source], index_dir, None, "run_code", {"code": text}, as_json)["exit_code"]:
        raise typer.Exit(1)
