"""run_code: Python over a dataset, in a sandbox. What the code can call, and how a run is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from halo_mcp.datasets import Datasets
from halo_mcp.errors import BadArgument, IndexFailure, IndexRenewed, SandboxError, SourceChanged
from halo_mcp.index.filters import Text
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.span import Json, as_mapping
from halo_mcp.index.work import Work
from halo_mcp.sandbox.code import CodeResult, CodeSessions, HostFunction, Rows
from halo_mcp.tools.calls import about_all_datasets, call_on, checked, own_parameters, problems
from halo_mcp.tools.client import asking_client
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters
from halo_mcp.tools.render import counted, number

_CODE_CHARS: Final = 200_000
_NAME_CHARS: Final = 64
_BATCH: Final = 5_000
_LARGEST_BATCH: Final = 20_000
_ID_KEYS: Final = ("trace_id", "span_id", "parent_span_id")

SpanFunction = Callable[..., Any]
"""As a tool function, but it returns a JSON value or Rows."""


def run_code(
    datasets: Datasets,
    work: Work,
    code: Annotated[Text, Field(description="Python")],
    dataset: Annotated[str, Field(description="functions' default")] = "",
    session: Annotated[Text, Field(description="new name: fresh start")] = "main",
) -> Answer:
    """Run sandboxed Python for what no tool counts. Functions: all other tools (JSON), sql(query) -> dicts, spans:

    o=0
    while b := spans(o, fields=["name", ATTRIBUTE], filters={}): o+=len(b)
    Variables persist; print() results. No numpy, pandas, files, network.
    """
    datasets.settings.privacy.require_payloads()
    _check_length("code", code, _CODE_CHARS)
    _check_length("session", session, _NAME_CHARS)
    sessions = datasets.workers.get("code", "", lambda: CodeSessions(datasets.settings.index_dir / "sandbox"))
    desk = _Desk(datasets, dataset, work)
    # Variables are the client's own: others that use the usual name of a session have others.
    own = f"{asking_client()} {session}"
    try:
        result = sessions.run(own, code, desk.functions(), work)
    finally:
        desk.close()
    return Answer(_text(result, session), _data(result, session))


def _check_length(argument: str, text: str, limit: int) -> None:
    # Here and not in the schema, which every client reads: nobody reaches these limits by accident.
    if not 0 < len(text) <= limit:
        raise BadArgument(f"{argument} has {number(len(text))} characters; give 1 to {number(limit)}.")


def _text(result: CodeResult, session: str) -> str:
    """What was printed, what went wrong, and a line on the run."""
    parts = [result.output.rstrip("\n")] if result.output.strip() else []
    if result.error:
        parts.append(result.error.rstrip("\n"))
    elif not parts:
        parts.append("(Nothing was printed: print() what you need, or end with an expression.)")
    return "\n".join([*parts, f"[{' '.join(_notes(result, session))}]"])


def _notes(result: CodeResult, session: str) -> Iterator[str]:
    yield f"{number(result.duration_ms)} ms, {counted(result.host_calls, 'function call')}."
    if result.dropped_chars:
        shown = number(len(result.output))
        yield f"Output cut: {shown} characters shown, {number(result.dropped_chars)} more were printed; print less."
    if result.forgotten:
        yield f"The earlier variables of session {session!r} were gone; this ran in a new interpreter."
    if result.stopped:
        yield f"All variables of session {session!r} are gone: define again what you need."


def _data(result: CodeResult, session: str) -> dict[str, Any]:
    return {
        "exit_code": 0 if result.error is None else 1,
        "stdout": result.output,
        "stderr": result.error or "",
        "timed_out": result.stopped == "time",
        "stopped": result.stopped,
        "dropped_chars": result.dropped_chars,
        "session": session,
        "variables_kept": result.stopped is None,
        "earlier_variables_lost": result.forgotten,
        "host_calls": result.host_calls,
        "duration_ms": round(result.duration_ms, 1),
    }


# --- what the code can call ------------------------------------------------------------------------------------------
class _Desk:
    """The functions of one run. Each dataset is asked in one state of it, so that batches fit together."""

    def __init__(self, datasets: Datasets, dataset: str, work: Work) -> None:
        """Brings the dataset up to date, in the caller's time rather than in the code's. Raises: HaloError."""
        self._datasets = datasets
        self._pinned: dict[str, Call] = {}
        self._default, store = datasets.get(dataset)
        store.refresh(work)

    def close(self) -> None:
        """Let go of the states: they hold this object, and with it each other."""
        self._pinned.clear()

    def functions(self) -> dict[str, HostFunction]:
        """By name: every tool but run_code, ``spans``, and ``sql`` where there is query_sql."""
        from halo_mcp.tools.catalog import CATALOG

        tools = {entry.function.__name__: entry.function for entry in CATALOG if entry.function is not run_code}
        functions: dict[str, HostFunction] = {
            name: partial(self._about_all if about_all_datasets(tool) else self._about_one, tool)
            for name, tool in tools.items()
        }
        functions["spans"] = partial(self._about_one, spans)
        if "query_sql" in tools:
            functions["sql"] = partial(self._about_one, sql)
        return functions

    def _about_all(
        self, function: SpanFunction, positional: Sequence[Any], named: Mapping[str, Any], work: Work
    ) -> Any:
        return _value(function(self._datasets, work, **_arguments(function, positional, named)))

    def _about_one(
        self, function: SpanFunction, positional: Sequence[Any], named: Mapping[str, Any], work: Work
    ) -> Any:
        named = dict(named)
        call = self._call(named.pop("dataset", ""), work)
        arguments = _arguments(function, positional, named)
        with self._noticing_changes(call):
            value = _value(function(call, **arguments))
        return Rows(self._noticing(call, value.values)) if isinstance(value, Rows) else value

    def _noticing(self, call: Call, values: Iterable[Any]) -> Iterator[Any]:
        """These values, which are made only when they are asked for."""
        with self._noticing_changes(call):
            yield from values

    @contextmanager
    def _noticing_changes(self, call: Call) -> Generator[None]:
        """When the files turn out to be others than were indexed, the next call finds them indexed anew."""
        try:
            yield
        except (SourceChanged, IndexFailure, IndexRenewed) as error:
            self._datasets.get(call.dataset)[1].mend(call.store, error, call.work)
            self._pinned.clear()
            raise

    def _call(self, dataset: Any, work: Work) -> Call:
        if not isinstance(dataset, str):
            raise BadArgument("dataset must be the name of a dataset, as list_datasets() has it.")
        name, store = self._datasets.get(dataset or self._default)
        if name not in self._pinned:
            store.refresh(work)
            other = partial(self._call, work=work)
            self._pinned[name] = call_on(self._datasets, name, store.pinned(), work, other)
        return self._pinned[name]


def _arguments(function: SpanFunction, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as the tool takes them. Raises: BadArgument."""
    names = [parameter.name for parameter in own_parameters(function)]
    given = dict(zip(names, positional, strict=False))
    if len(positional) > len(names) or given.keys() & named.keys():
        raise BadArgument(f"too many arguments; it takes: {', '.join(names) or 'none'}.")
    try:
        return checked(function, given | dict(named))
    except ValidationError as error:
        raise BadArgument(f"{problems(error)}. It takes: {', '.join(names) or 'no arguments'}.") from None


def _value(result: Any) -> Any:
    return dict(result.data) if isinstance(result, Answer) else result


def spans(
    call: Call,
    offset: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=_LARGEST_BATCH)] = _BATCH,
    fields: Annotated[list[Text] | None, Field(max_length=200)] = None,
    filters: Filters = ALL_TRACES,
) -> Rows:
    """Spans of the matching traces, in the order of the sources, each as its JSON object.

    With ``fields`` only these members: top-level keys ("status"), attribute keys, resource attribute keys, or a path to
    a member of a top-level one ("status.code"); None where a span lacks one.
    """
    records = call.store.records(filters, offset, limit, call.work)
    return Rows(_picked(record, fields) for record in records)


def sql(
    call: Call,
    query: Annotated[Text, Field(min_length=1, max_length=20_000)],
    limit: Annotated[int | None, Field(ge=1)] = None,
) -> Rows:
    """The rows of one SELECT, as query_sql runs it, each with its columns by name.

    Raises: SandboxError when there are more rows than can be had and no ``limit`` asks for a part of them.
    """
    from halo_mcp.sandbox.sql import MAX_ROWS, SqlSandbox

    sandbox = call.workers.get("sql", call.dataset, SqlSandbox)
    result = sandbox.run(call.store.sql_state(), query, min(limit or MAX_ROWS, MAX_ROWS), call.work)
    if result.more and (limit is None or limit > MAX_ROWS):
        raise SandboxError(f"There are more than {MAX_ROWS} rows: aggregate, or page with ORDER BY, LIMIT and OFFSET.")
    columns = [name for name, _ in result.columns]
    return Rows(dict(zip(columns, map(_plain, row), strict=True)) for row in result.rows)


def _plain(cell: Any) -> Any:
    from halo_mcp.sandbox.sql import Cut

    return f"{cell.text}... [HALO truncated: original {cell.chars} chars]" if isinstance(cell, Cut) else cell


def _picked(record: Mapping[str, Json], fields: Sequence[str] | None) -> dict[str, Json]:
    ids = {key: normalize_id(record[key]) for key in _ID_KEYS if record.get(key)}
    record = {**record, **ids}
    return record if fields is None else {field: _member(record, field) for field in fields}


def _member(record: Mapping[str, Json], field: str) -> Json:
    resource = as_mapping(as_mapping(record.get("resource")).get("attributes"))
    for holder in (record, as_mapping(record.get("attributes")), resource):
        if field in holder:
            return holder[field]
    top, _, rest = field.partition(".")
    return as_mapping(record.get(top)).get(rest)
