"""``halo-mcp check``: findings saved as predicates, asked again; made for CI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from halo_mcp.datasets import Datasets
from halo_mcp.errors import BadArgument, HaloError, SourceChanged, shown, why_unusable
from halo_mcp.terminal import (
    Deadline,
    IndexDir,
    Json,
    Progress,
    Redact,
    Sources,
    Where,
    app,
    opened,
    parse_filters,
    printable,
    reads_traces,
)

if TYPE_CHECKING:
    from halo_mcp.index.checks import CheckResult

_QUOTE_CHARS: Final = 160
_BROKEN: Final = 2
"""Exit code where a check has no verdict: a pipeline must not take that for success, nor for a failed check."""


@app.command()
@reads_traces
def check(
    checks: Annotated[Path, typer.Argument(metavar="CHECKS.json", help="see docs/checks.md")],
    sources: Sources,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="also write the results as JUnit XML")] = None,
    add: Annotated[
        str, typer.Option(metavar="MODE_ID", help="write a check for this failure mode into CHECKS.json instead")
    ] = "",
    max_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="with --add: share of traces that may have it; default 0")
    ] = None,
    where: Where = [],  # noqa: B006
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Ask saved checks of a dataset: exit code 0 when all hold, 1 when some fail, 2 when one cannot be evaluated."""
    try:
        with closing(opened(sources, index_dir, deadline_s)) as datasets:
            if add:
                _add(checks, datasets, add, max_share or 0.0, where)
                return
            if where or max_share is not None:
                raise BadArgument(
                    "--where and --max-share go with --add: a saved check has its own filters and threshold."
                )
            results = _results(checks, datasets)
        told = {name: [_told(result) for result in some] for name, some in results.items()}
        if junit is not None:
            from halo_mcp.junit import junit_xml

            _write(junit, junit_xml(results, told))
    except HaloError as error:
        typer.echo(f"halo-mcp: {printable(str(error))}", err=True)
        raise typer.Exit(_BROKEN) from None
    typer.echo(json.dumps(_data(results), ensure_ascii=False) if as_json else printable(_text(results, told)))
    statuses = {result.status for some in results.values() for result in some}
    raise typer.Exit(_BROKEN if "error" in statuses else 1 if "fail" in statuses else 0)


def _results(checks: Path, datasets: Datasets) -> dict[str, list[CheckResult]]:
    """The results by dataset name, each in the order of the file."""
    from halo_mcp.index.checks import evaluate, load_checks

    wanted = load_checks(checks).checks
    results: dict[str, list[CheckResult]] = {}
    with Progress() as work:
        for name in datasets.names:
            _, store = datasets.get(name)
            store.refresh(work)
            try:
                results[name] = evaluate(store.pinned(), wanted, work, datasets.settings.deadline_s)
            except SourceChanged:
                store.forget()
                store.refresh(work)
                results[name] = evaluate(store.pinned(), wanted, work, datasets.settings.deadline_s)
    return results


def _add(path: Path, datasets: Datasets, mode_id: str, max_share: float, where: Sequence[str]) -> None:
    """Append a check to a file, which is made when it is not there. Raises: BadArgument."""
    from halo_mcp.index.checks import CHECK_FILE_VERSION, CheckFile, check_for, load_checks

    known = load_checks(path).checks if path.exists() else []
    _, store = datasets.get("")
    with Progress() as work:
        store.refresh(work)
        added = check_for(
            store.pinned(), mode_id, max_share, parse_filters(where), work.renewed(datasets.settings.deadline_s)
        )
    if any(check.name == added.name for check in known):
        raise BadArgument(f"{shown(str(path))} has a check {added.name!r} already. Remove or rename it first.")
    _write(path, CheckFile(version=CHECK_FILE_VERSION, checks=[*known, added]).to_json())
    typer.echo(printable(f"Added to {path}: {added.name!r}, share_of_traces <= {max_share:g}. Edit it as you like."))


def _write(path: Path, text: str) -> None:
    """Raises: BadArgument."""
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadArgument(f"{shown(str(path))} cannot be written: {why_unusable(error)}.") from error


def _text(results: Mapping[str, Sequence[CheckResult]], told: Mapping[str, Sequence[str]]) -> str:
    lines: list[str] = []
    for dataset, some in results.items():
        lines.append(f"dataset {dataset}: {_verdict(some)}")
        for result, text in zip(some, told[dataset], strict=True):
            lines.append(f"{result.status.upper():5} {result.check.name}")
            lines += [f"      {line}" for line in text.split("\n")]
    return "\n".join(lines)


def _verdict(results: Sequence[CheckResult]) -> str:
    from halo_mcp.tools.render import counted

    counts = {status: sum(result.status == status for result in results) for status in ("pass", "fail", "error")}
    return f"{counted(len(results), 'check')}: " + ", ".join(
        f"{count} {status}" for status, count in counts.items() if count
    )


def _told(result: CheckResult) -> str:
    """What was asked, what was measured, and examples of what is against it."""
    from halo_mcp.tools.budget import preview
    from halo_mcp.tools.render import counted, number

    check, measured = result.check, result.measured
    asked = f"{check.metric} {check.op} {check.threshold:g}"
    if measured is None or result.value is None:
        return f"asked {asked}: {result.reason}"
    facts = f"{number(measured.traces)} of {counted(measured.population, 'trace')}"
    if check.failure_mode is not None:
        facts += f", {counted(measured.spans, 'span')}"
    lines = [f"asked {asked}, is {result.value:.6g}: {facts}"]
    against = measured.population - measured.traces if result.asks_for_more else measured.traces
    if len(result.offending) < against and result.offending:
        lines.append(f"the first {len(result.offending)} of {number(against)} in time order:")
    for example in result.offending:
        span = f" span {example.span_id}" if example.span_id else ""
        quote = f" · {preview(example.text, _QUOTE_CHARS)}" if example.text else ""
        lines.append(f"trace {example.trace_id}{span}{quote}")
    return "\n".join(lines)


def _data(results: Mapping[str, Sequence[CheckResult]]) -> dict[str, Any]:
    return {
        "datasets": [
            {"dataset": dataset, "checks": [_result_json(result) for result in some]}
            for dataset, some in results.items()
        ]
    }


def _result_json(result: CheckResult) -> dict[str, Any]:
    measured = result.measured
    facts = (
        {}
        if measured is None
        else {
            "total_traces": measured.population,
            "trace_count": measured.traces,
            "span_count": measured.spans,
        }
    )
    return {
        "name": result.check.name,
        "status": result.status,
        "metric": result.check.metric,
        "op": result.check.op,
        "threshold": result.check.threshold,
        "value": result.value,
        **facts,
        **({"reason": result.reason} if result.reason else {}),
        "examples": [
            {"trace_id": example.trace_id, "span_id": example.span_id, "quote": example.text}
            for example in result.offending
        ],
    }
