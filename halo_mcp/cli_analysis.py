"""The verbs that ask about many traces at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from halo_mcp.errors import BadArgument, why_unusable
from halo_mcp.terminal import (
    AsWritten,
    Cursor,
    Deadline,
    IndexDir,
    Json,
    Redact,
    Sources,
    Where,
    app,
    parse_filters,
    reads_traces,
    show,
)

FailOn = Literal["worse", "no-evidence", "never"]


def _group(flag: str, meaning: str) -> object:
    return typer.Option(flag, metavar="FILTER=VALUE", help=meaning)


@app.command()
@reads_traces
def failures(
    sources: Sources,
    where: Where = [],  # noqa: B006
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    soft_rules: Annotated[str, typer.Option(help="count only these soft-error rules: NAME,...")] = "",
    cursor: Cursor = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
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
@reads_traces
def tools(
    sources: Sources,
    where: Where = [],  # noqa: B006
    tool: Annotated[list[str], typer.Option(help="only this tool; may be repeated")] = [],  # noqa: B006
    trace: Annotated[str, typer.Option(metavar="TRACE_ID", help="the calls of one trace, beside another run")] = "",
    against: Annotated[str, typer.Option(metavar="TRACE_ID", help="with --trace: which other run")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Say how tools are used: failures, retries, recovery, loops, waste, time."""
    arguments = {"filters": parse_filters(where), "tool_names": tool, "trace_id": trace, "against": against}
    show(sources, index_dir, deadline_s, "analyze_tool_use", arguments, as_json)


@app.command()
@reads_traces
def grep(
    sources: Sources,
    pattern: Annotated[str, typer.Argument(help="RE2 regex; comes last")],
    where: Where = [],  # noqa: B006
    group_by: Annotated[
        str,
        typer.Option(help="count per trace, span_name, tool, kind, failure_mode, agent, model or outcome"),
    ] = "",
    literal: AsWritten = False,
    max_matches: Annotated[int, typer.Option(min=1, max=200)] = 20,
    context_buffer_chars: Annotated[int, typer.Option(min=0, max=2_000)] = 60,
    cursor: Cursor = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
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


@app.command()
@reads_traces
def contrast(
    sources: Sources,
    group_a: Annotated[list[str], _group("--a", "the one group; default outcome=fail")] = [],  # noqa: B006
    group_b: Annotated[list[str], _group("--b", "the other group; default all others, or outcome=pass")] = [],  # noqa: B006
    where: Where = [],  # noqa: B006
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Say what separates failing from passing traces, or any two groups."""
    arguments = {
        "group_a": parse_filters(group_a),
        "group_b": parse_filters(group_b),
        "filters": parse_filters(where),
    }
    show(sources, index_dir, deadline_s, "contrast_traces", arguments, as_json)


@app.command()
@reads_traces
def compare(
    sources: Annotated[list[str], typer.Argument(metavar="BEFORE [AFTER]", help="one source each, or one for both")],
    where_before: Annotated[list[str], _group("--where-before", "which traces are before")] = [],  # noqa: B006
    where_after: Annotated[list[str], _group("--where-after", "which traces are after")] = [],  # noqa: B006
    fail_on: Annotated[
        FailOn, typer.Option(help="exit code 1 for: worse; anything not shown to be better (no-evidence); never")
    ] = "worse",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Say whether the traces after a change are better or worse than those before; exits with 1 when worse."""
    if len(sources) > 2:
        raise BadArgument("compare takes one source before and one after; a directory or glob counts as one.")
    arguments = {
        "after": "after" if len(sources) == 2 else "",
        "filters_before": parse_filters(where_before),
        "filters_after": parse_filters(where_after),
    }
    named = [f"{side}={source}" for side, source in zip(("before", "after"), sources, strict=False)]
    verdict = show(named, index_dir, deadline_s, "compare_datasets", arguments, as_json)["verdict"]
    if (verdict == "worse" and fail_on != "never") or (verdict != "better" and fail_on == "no-evidence"):
        raise typer.Exit(1)


@app.command()
@reads_traces
def versions(
    sources: Sources,
    where: Where = [],  # noqa: B006
    diff: Annotated[str, typer.Option(metavar="ID,ID", help="two version ids: how they differ")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """List the harness versions behind the traces, or show how two of them differ."""
    arguments = {"filters": parse_filters(where), "diff": diff.split(",") if diff else []}
    show(sources, index_dir, deadline_s, "list_harness_versions", arguments, as_json)


@app.command()
@reads_traces
def cost(
    sources: Sources,
    where: Where = [],  # noqa: B006
    group_by: Annotated[str, typer.Option(help="model, agent, turn, tool, run or outcome")] = "model",
    prices: Annotated[
        Path | None, typer.Option(help="JSON file: model -> USD per million tokens [env: HALO_MCP_PRICES]")
    ] = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Say where tokens go, what is sent again, and what is spent after a failure."""
    arguments = {"filters": parse_filters(where), "group_by": group_by}
    show(sources, index_dir, deadline_s, "analyze_cost", arguments, as_json, prices)


@app.command()
@reads_traces
def sql(
    source: Annotated[str, typer.Argument(metavar="SOURCE")] = "",
    statement: Annotated[str, typer.Argument(metavar="'SELECT ...'", help="one statement, DuckDB dialect")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    schema: Annotated[bool, typer.Option("--schema", help="print views, columns, functions, examples")] = False,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
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
@reads_traces
def code(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Python to run; - reads standard input")] = "-",
    index_dir: IndexDir = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Run sandboxed Python over the traces: spans(), sql() and every tool are functions there."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"The code in {file} cannot be read: {why_unusable(error)}.") from error
    if show([source], index_dir, None, "run_code", {"code": text}, as_json)["exit_code"]:
        raise typer.Exit(1)
