"""The command line: the tools for people. Every verb calls the same functions as the server."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from halo_mcp import cli_analysis as cli_analysis  # adds its verbs to ``app``
from halo_mcp import cli_ask as cli_ask
from halo_mcp import cli_check as cli_check
from halo_mcp import cli_install as cli_install
from halo_mcp import cli_synthesize as cli_synthesize
from halo_mcp import cli_verify as cli_verify
from halo_mcp.config import load_settings
from halo_mcp.errors import BadArgument, HaloError, shown, why_unusable
from halo_mcp.terminal import (
    AsWritten,
    Cursor,
    Deadline,
    IndexDir,
    Json,
    MaxChars,
    Redact,
    Sources,
    Where,
    app,
    note_redaction,
    opened,
    outcome_options,
    parse_filters,
    printable,
    reads_traces,
    show,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from halo_mcp import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Named in the help of the whole command; the callback of --version has done its work before this."""
    note_redaction(False)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. HaloErrors become one line on standard error and code 1."""
    try:
        result: Any = app(
            args=list(arguments) if arguments is not None else None, prog_name="halo-mcp", standalone_mode=False
        )
    except HaloError as error:
        typer.echo(f"halo-mcp: {printable(str(error))}", err=True)
        return 1
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        if not (message := getattr(error, "format_message", None)):
            return _internal_error(error)
        # A usage error of click: missing or unknown verbs, arguments and options.
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "halo-mcp"
        if message():  # no arguments at all: click has shown the help instead
            typer.echo(f"halo-mcp: {message().rstrip('.')}. Try '{path} --help'.", err=True)
        return int(getattr(error, "exit_code", 2))
    return result if isinstance(result, int) else 0


def _internal_error(error: Exception) -> int:
    """One line for what nobody foresaw; the exit code is EX_SOFTWARE of sysexits. Raises the error when debugging."""
    if os.environ.get("HALO_MCP_DEBUG"):
        raise error
    what = " ".join(f"{type(error).__name__}: {error}".split())
    hint = "(set HALO_MCP_DEBUG=1 for the traceback)"
    typer.echo(f"halo-mcp: internal error: {printable(what)} {hint}", err=True)
    return 70


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Serve traces to MCP clients, over stdio or HTTP (serve --help lists the options).",
)
def serve(context: typer.Context) -> int:
    from halo_mcp.serve import main as serve_main

    return serve_main(context.args)


@app.command()
@reads_traces
def index(
    sources: Sources,
    drop: Annotated[bool, typer.Option("--drop", help="remove the indexes and converted copies instead")] = False,
    index_dir: IndexDir = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Build or update the indexes, and say what was read."""
    if drop:
        _drop(sources, index_dir, as_json)
        return
    data = show(sources, index_dir, None, "list_datasets", {}, as_json)
    if any("error" in dataset for dataset in data["datasets"]):
        raise typer.Exit(1)


def _drop(sources: Sequence[str], index_dir: Path | None, as_json: bool) -> None:
    from contextlib import closing

    from halo_mcp.index.work import Work
    from halo_mcp.tools.render import size

    with closing(opened(sources, index_dir)) as datasets:
        freed = {name: datasets.drop(name, Work()) for name in datasets.names}
    if as_json:
        typer.echo(json.dumps({"datasets": [{"name": name, "freed_bytes": count} for name, count in freed.items()]}))
        return
    for name, count in freed.items():
        typer.echo(f"{printable(name)}: removed its index and converted copies, {size(count)}; the sources are kept")


@app.command()
@reads_traces
def overview(
    sources: Sources,
    where: Where = [],  # noqa: B006
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Summarise the traces: outcomes, failures, tools, tokens, errors."""
    show(sources, index_dir, deadline_s, "get_dataset_overview", {"filters": parse_filters(where)}, as_json)


@app.command()
@reads_traces
def query(
    sources: Sources,
    where: Where = [],  # noqa: B006
    sort_by: Annotated[
        str, typer.Option(help="start_time, -start_time, -duration_ms, -tokens, -error_span_count, ...")
    ] = "start_time",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    cursor: Cursor = "",
    count: Annotated[bool, typer.Option("--count", help="only count")] = False,
    group_by: Annotated[str, typer.Option(help="with --count: one count per value, e.g. tool_name")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """List (or count) the traces that match."""
    if group_by and not count:
        raise BadArgument("--group-by says what to count by: add --count, or leave --group-by out.")
    filters = parse_filters(where)
    if count:
        show(
            sources, index_dir, deadline_s, "count_traces", {"filters": filters, "group_by": group_by or None}, as_json
        )
        return
    arguments = {"filters": filters, "sort_by": sort_by, "limit": limit, "cursor": cursor}
    show(sources, index_dir, deadline_s, "query_traces", arguments, as_json)


@app.command()
@reads_traces
def view(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    trace_id: str,
    span_ids: Annotated[list[str] | None, typer.Argument(help="only these spans, with longer texts")] = None,
    detail: Annotated[str, typer.Option(help="auto, outline or full")] = "auto",
    attribute: Annotated[str, typer.Option(help="with span ids: only this attribute")] = "",
    offset: Annotated[int, typer.Option(min=0)] = 0,
    cursor: str = "",
    max_chars: MaxChars = 20_000,
    index_dir: IndexDir = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Read a trace, or some of its spans."""
    if span_ids:
        arguments = {
            "trace_id": trace_id,
            "span_ids": span_ids,
            "attribute": attribute,
            "offset": offset,
            "max_chars": max_chars,
        }
        show([source], index_dir, None, "view_spans", arguments, as_json)
        return
    if attribute or offset:
        given = "--attribute" if attribute else "--offset"
        raise BadArgument(f"{given} reads inside a span: name span ids after the trace id, or leave {given} out.")
    arguments = {"trace_id": trace_id, "detail": detail, "cursor": cursor, "max_chars": max_chars}
    show([source], index_dir, None, "view_trace", arguments, as_json)


@app.command()
@reads_traces
def search(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    trace_id: str,
    pattern: Annotated[str, typer.Argument(help="RE2 regex")],
    context_buffer_chars: Annotated[int, typer.Option(min=0, max=2_000)] = 100,
    max_matches: Annotated[int, typer.Option(min=1, max=500)] = 50,
    literal: AsWritten = False,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Find a regex inside one trace (for many traces: query -w regex_pattern=...)."""
    arguments = {
        "trace_id": trace_id,
        "pattern": pattern,
        "context_buffer_chars": context_buffer_chars,
        "max_matches": max_matches,
        "literal": literal,
    }
    show([source], index_dir, deadline_s, "search_trace", arguments, as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="where the files go")] = Path("halo-demo"),
    tour: Annotated[bool, typer.Option("--tour", help="then serve them and show what a model sees")] = False,
    seed: int = 7,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Write a sample dataset with known failures: before.jsonl and after.jsonl."""
    from halo_mcp.demo import write_demo

    try:
        directory.mkdir(parents=True, exist_ok=True)
        truth = write_demo(directory, seed=seed)
    except (OSError, ValueError) as error:
        place = shown(str(directory))
        raise BadArgument(
            f"The demo cannot be written to {place}: {why_unusable(error)}. Name another directory."
        ) from error
    files = [directory / "before.jsonl", directory / "after.jsonl"]
    if as_json:
        typer.echo(json.dumps({"files": [str(file) for file in files]}))
    else:
        traces = truth.before.traces + truth.after.traces
        typer.echo(f"Wrote {files[0]} and {files[1]}: {traces} traces of a support agent, before and after a fix.")
    if tour:
        import anyio

        from halo_mcp.tour import take_tour

        before, after = (file.absolute() for file in files)
        anyio.run(take_tour, before, after)


@app.command()
@reads_traces
def doctor(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    index_dir: IndexDir = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Check a file: what was read, what was not and why, line by line; and which settings are in force."""
    from halo_mcp.doctor import examine

    report = examine(source, load_settings(index_dir=index_dir, redact=redact or None, **outcome_options()))
    typer.echo(json.dumps(report.data, indent=2) if as_json else printable(report.text))
