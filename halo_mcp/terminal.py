"""What the verbs of the command line share: options, filters as text, calling a tool and printing its answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict, TypeVar, cast, get_type_hints

import typer
from pydantic import ValidationError

from halo_mcp.config import load_settings
from halo_mcp.datasets import Datasets, parse_sources
from halo_mcp.engine.settings import LLMSettings
from halo_mcp.errors import BadArgument
from halo_mcp.tools.render import printable as printable

_Result = TypeVar("_Result")

app = typer.Typer(
    name="halo-mcp",
    help="Evidence about what AI agents did, from their traces: an MCP server, and its tools on the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_REDACT: Final = [False]


def note_redaction(given: bool) -> bool:
    """Remember whether the running verb was given --redact."""
    _REDACT[:] = [given]
    return given


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
Cursor = Annotated[str, typer.Option(help="from the previous page")]
AsWritten = Annotated[bool, typer.Option("--literal", help="find the pattern exactly as written")]
Redact = Annotated[
    bool, typer.Option("--redact", help="mask credentials [env: HALO_MCP_REDACT]", callback=note_redaction)
]
"""A verb only has to have it: ``opened`` knows what was given."""
MaxChars = Annotated[int, typer.Option(min=2_000, max=150_000, help="size of the answer")]
_NO_SOURCE: Final = "Give at least one trace file, for example: halo-mcp overview traces.jsonl"


class _OutcomeGiven(TypedDict, total=False):
    labels: Sequence[str]
    outcome_attribute: Sequence[str]
    task_attribute: Sequence[str]
    pass_score: float | None


_OUTCOMES: Final[ContextVar[_OutcomeGiven]] = ContextVar("outcome options")
_OUTCOME_OPTIONS: Final[dict[str, tuple[Any, Any]]] = {
    "labels": (
        Annotated[
            list[str],
            typer.Option(
                "--labels",
                metavar="[NAME=]FILE",
                help="CSV or JSON lines with verdicts by trace or task id; may be repeated [env: HALO_MCP_LABELS]",
            ),
        ],
        [],
    ),
    **{
        f"{what}_attribute": (
            Annotated[
                list[str],
                typer.Option(
                    f"--{what}-attribute",
                    metavar="KEY",
                    help=f"attribute that says the {what} [env: HALO_MCP_{what.upper()}_ATTRIBUTE]",
                ),
            ],
            [],
        )
        for what in ("outcome", "task")
    },
    "pass_score": (
        Annotated[
            float | None,
            typer.Option("--pass-score", metavar="X", help="a score from X on passes [env: HALO_MCP_PASS_SCORE]"),
        ],
        None,
    ),
}


def reads_traces(verb: Callable[..., _Result]) -> Callable[..., _Result]:
    """``verb`` with the options about outcomes, which it does not see: they are left for ``outcome_options``."""

    @wraps(verb)
    def with_options(**given: Any) -> _Result:
        _OUTCOMES.set(cast("_OutcomeGiven", {name: given.pop(name) for name in _OUTCOME_OPTIONS}))
        return verb(**given)

    hints = get_type_hints(verb, include_extras=True)
    known = signature(verb)
    own = [one.replace(annotation=hints[name]) for name, one in known.parameters.items()]
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OUTCOME_OPTIONS.items()
    ]
    with_options.__annotations__ = hints | {one.name: one.annotation for one in added}
    setattr(with_options, "__signature__", known.replace(parameters=[*own, *added]))  # noqa: B010  # pyright knows none
    return with_options


def outcome_options() -> _OutcomeGiven:
    """What the running verb was told about outcomes, as arguments of ``load_settings``."""
    return _OUTCOMES.get({})


def opened(
    sources: Sequence[str],
    index_dir: Path | None,
    deadline_s: float | None = None,
    prices: Path | None = None,
    llm: LLMSettings | None = None,
    repo_path: Path | None = None,
) -> Datasets:
    if not sources:
        raise BadArgument(_NO_SOURCE)
    settings = load_settings(
        index_dir=index_dir,
        deadline_s=deadline_s,
        prices=prices,
        repo_path=repo_path,
        redact=_REDACT[-1] or None,
        **outcome_options(),
    )
    return Datasets(parse_sources(sources), settings, llm)


def parse_filters(given: Sequence[str]) -> Any:
    """TraceFilters from FILTER=VALUE texts; lists are comma separated, attributes are JSON. Raises: BadArgument."""
    from halo_mcp.index.filters import TraceFilters
    from halo_mcp.tools.calls import problems

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
        raise BadArgument(f"--where cannot be used: {problems(error)}.") from None


def _json_value(text: str, value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise BadArgument(
            f'--where {text!r}: give JSON such as attributes=[{{"key":"user","op":"eq","value":"u1"}}].'
        ) from None


def show(
    sources: Sequence[str],
    index_dir: Path | None,
    deadline_s: float | None,
    tool: str,
    arguments: dict[str, Any],
    as_json: bool,
    prices: Path | None = None,
    llm: LLMSettings | None = None,
) -> Mapping[str, Any]:
    """Call a tool, print its answer and return its data; arguments are checked as the server checks them."""
    from halo_mcp.tools.calls import answer, checked, problems
    from halo_mcp.tools.catalog import by_name

    function = by_name(tool)
    try:
        arguments = checked(function, arguments)
    except ValidationError as error:
        raise BadArgument(f"{problems(error)}.") from None
    with closing(opened(sources, index_dir, deadline_s, prices, llm)) as datasets, Progress() as work:
        result = answer(datasets, "", function, arguments, work)
    typer.echo(json.dumps(result.data, ensure_ascii=False) if as_json else printable(result.text))
    return result.data


class Progress:
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
