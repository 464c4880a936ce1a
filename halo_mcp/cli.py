"""The command line: the tools for people. Every verb calls the same functions as the server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from halo_mcp.config import load_settings
from halo_mcp.datasets import Datasets, parse_sources
from halo_mcp.errors import BadArgument, HaloError, shown, why_unusable

app = typer.Typer(
    name="halo-mcp",
    help="Evidence about what AI agents did, from their traces: an MCP server, and its tools on the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Sources = Annotated[
    list[str],
    typer.Argument(metavar="[NAME=]SOURCE...", help="files, globs, directories; NAME= makes several datasets"),
]
IndexDir = Annotated[Path | None, typer.Option(help="where indexes live [env: HALO_MCP_INDEX_DIR]")]
Deadline = Annotated[
    float | None, typer.Option("--deadline-s", help="seconds one question may take [env: HALO_MCP_DEADLINE_S]")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        "-w",
        metavar="FILTER=VALUE",
        help="e.g. outcome=fail, tool_names=search,fetch, regex_pattern=timeout",
    ),
]
MaxChars = Annotated[int, typer.Option(min=2_000, max=150_000, help="size of the answer")]
_PICTURES: Final = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)
_NO_SOURCE: Final = "Give at least one trace file, for example: halo-mcp overview traces.jsonl"


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


def _datasets(sources: Sequence[str], index_dir: Path | None, deadline_s: float | None = None) -> Datasets:
    if not sources:
        raise BadArgument(_NO_SOURCE)
    return Datasets(parse_sources(sources), load_settings(index_dir=index_dir, deadline_s=deadline_s))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Serve traces to an MCP client over standard input and output (serve --help lists the options).",
)
def serve(context: typer.Context) -> int:
    from halo_mcp.serve import main as serve_main

    return serve_main(context.args)


@app.command()
def index(sources: Sources, index_dir: IndexDir = None, as_json: Json = False) -> None:
    """Build or update the indexes, and say what was read."""
    data = _show(sources, index_dir, None, "list_datasets", {}, as_json)
    if any("error" in dataset for dataset in data["datasets"]):
        raise typer.Exit(1)


@app.command()
def overview(
    sources: Sources,
    where: Where = [],  # noqa: B006
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Summarise the traces: outcomes, failures, tools, tokens, errors."""
    _show(sources, index_dir, deadline_s, "get_dataset_overview", {"filters": parse_filters(where)}, as_json)


@app.command()
def query(
    sources: Sources,
    where: Where = [],  # noqa: B006
    sort_by: Annotated[
        str, typer.Option(help="start_time, -start_time, -duration_ms, -tokens, -error_span_count, ...")
    ] = "start_time",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    cursor: Annotated[str, typer.Option(help="from the previous page")] = "",
    count: Annotated[bool, typer.Option("--count", help="only count")] = False,
    group_by: Annotated[str, typer.Option(help="with --count: one count per value, e.g. tool_name")] = "",
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """List (or count) the traces that match."""
    if group_by and not count:
        raise BadArgument("--group-by says what to count by: add --count, or leave --group-by out.")
    filters = parse_filters(where)
    if count:
        _show(
            sources, index_dir, deadline_s, "count_traces", {"filters": filters, "group_by": group_by or None}, as_json
        )
        return
    arguments = {"filters": filters, "sort_by": sort_by, "limit": limit, "cursor": cursor}
    _show(sources, index_dir, deadline_s, "query_traces", arguments, as_json)


@app.command()
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
        _show([source], index_dir, None, "view_spans", arguments, as_json)
        return
    if attribute or offset:
        given = "--attribute" if attribute else "--offset"
        raise BadArgument(f"{given} reads inside a span: name span ids after the trace id, or leave {given} out.")
    arguments = {"trace_id": trace_id, "detail": detail, "cursor": cursor, "max_chars": max_chars}
    _show([source], index_dir, None, "view_trace", arguments, as_json)


@app.command()
def search(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    trace_id: str,
    pattern: Annotated[str, typer.Argument(help="RE2 regex")],
    context_buffer_chars: Annotated[int, typer.Option(min=0, max=2_000)] = 100,
    max_matches: Annotated[int, typer.Option(min=1, max=500)] = 50,
    literal: Annotated[bool, typer.Option("--literal", help="find the pattern exactly as written")] = False,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
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
    _show([source], index_dir, deadline_s, "search_trace", arguments, as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="where the files go")] = Path("halo-demo"),
    tour: Annotated[bool, typer.Option("--tour", help="then serve them and show what a model sees")] = False,
    seed: int = 7,
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

        anyio.run(take_tour, [file.absolute() for file in files])


@app.command()
def doctor(
    source: Annotated[str, typer.Argument(metavar="SOURCE")], index_dir: IndexDir = None, as_json: Json = False
) -> None:
    """Check a file: what was read, what was not and why, line by line; and which settings are in force."""
    from halo_mcp.doctor import examine

    report = examine(source, load_settings(index_dir=index_dir))
    typer.echo(json.dumps(report.data, indent=2) if as_json else printable(report.text))


def parse_filters(given: Sequence[str]) -> Any:
    """TraceFilters from FILTER=VALUE texts; lists are comma separated, attributes are JSON. Raises: BadArgument."""
    from halo_mcp.index.filters import TraceFilters

    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        field = TraceFilters.model_fields.get(name)
        if not equals or field is None:
            known = ", ".join(TraceFilters.model_fields)
            raise BadArgument(f"--where {text!r} is not FILTER=VALUE with one of: {known}.")
        if name == "attributes":
            values[name] = _json_value(text, value)
        elif "list[" in str(field.annotation):
            values.setdefault(name, []).extend(value.split(","))
        elif name in values:
            raise BadArgument(f"--where {name} is given twice; it takes one value.")
        else:
            values[name] = value
    try:
        return TraceFilters.model_validate(values)
    except ValidationError as error:
        raise BadArgument(f"--where cannot be used: {_problems(error)}.") from None


def _json_value(text: str, value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise BadArgument(
            f'--where {text!r}: give JSON such as attributes=[{{"key":"user","op":"eq","value":"u1"}}].'
        ) from None


def _problems(error: ValidationError) -> str:
    """What is wrong with which argument, on one line."""
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False))


def _tool(name: str) -> Callable[..., Any]:
    from halo_mcp.tools import overview, query, search, view

    functions = (
        overview.list_datasets,
        overview.get_dataset_overview,
        query.query_traces,
        query.count_traces,
        view.view_trace,
        view.view_spans,
        search.search_trace,
    )
    return {function.__name__: function for function in functions}[name]


def _show(
    sources: Sequence[str],
    index_dir: Path | None,
    deadline_s: float | None,
    tool: str,
    arguments: dict[str, Any],
    as_json: bool,
) -> Mapping[str, Any]:
    """Call a tool, print its answer and return its data; arguments are checked as the server checks them."""
    from halo_mcp.tools.calls import answer, checked

    datasets = _datasets(sources, index_dir, deadline_s)
    function = _tool(tool)
    try:
        arguments = checked(function, arguments)
    except ValidationError as error:
        raise BadArgument(f"{_problems(error)}.") from None
    with _Progress() as work:
        result = answer(datasets, "", function, arguments, work)
    typer.echo(json.dumps(result.data, ensure_ascii=False) if as_json else printable(result.text))
    return result.data


def printable(text: str) -> str:
    """Text from traces without the control characters that would steer a terminal: shown as their pictures."""
    return text.translate(_PICTURES)


class _Progress:
    """A Work with a progress bar on standard error, shown only to people and only when something takes long."""

    def __init__(self) -> None:
        from halo_mcp.index.work import Work

        self._bar: Any = None
        self._task: Any = None
        self._work = Work(on_progress=self._update if sys.stderr.isatty() else None)

    def __enter__(self) -> Any:
        return self._work

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, done: float, total: float, message: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(message, total=1.0)
            self._bar.start()
        self._bar.update(self._task, completed=done / total if total else 0.0, description=message)
