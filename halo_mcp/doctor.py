"""What is wrong with a source: every finding the index has about it, and its first lines one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from halo_mcp.config import Settings
from halo_mcp.datasets import labels_by_dataset, parse_sources
from halo_mcp.errors import NotTraces
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.formats.canonical import LINE_BYTES_LIMIT, read_line
from halo_mcp.index.local import LocalStore
from halo_mcp.index.store import Coverage, Overview, Source
from halo_mcp.index.work import Work
from halo_mcp.tools.labels import label_lines, labels_json
from halo_mcp.tools.render import counted, moment, number, pairs, share, size

_LINES_EXAMINED: Final = 10


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings as text and as JSON."""

    text: str
    data: dict[str, Any]


def examine(source: str, settings: Settings) -> Examination:
    """Index ``source`` and report. Raises: SourceError, IndexFailure; not NotTraces, which is a finding."""
    ((name, paths),) = parse_sources([source]).items()
    labels = labels_by_dataset(settings.labels, [name])
    outcomes = settings.outcomes([*labels.get("", []), *labels.get(name, [])])
    store = LocalStore(name, paths, settings.index_dir, outcomes=outcomes)
    lines = [f"index directory: {settings.index_dir} ({settings.origins.get('index_dir', 'default')})"]
    data: dict[str, Any] = {"index_dir": str(settings.index_dir), "origins": dict(settings.origins)}
    try:
        store.refresh(Work())
    except NotTraces as error:
        lines += [str(error), "", "first lines:", *_first_lines(Path(error.source))]
        return Examination("\n".join(lines), data | {"error": str(error), "reason": error.reason})
    info, overview = store.info(), store.overview(TraceFilters(), Work())
    store.close()
    lines.append(f"{number(info.total_traces)} traces, {number(info.total_spans)} spans")
    for item in info.sources:
        lines += _source_lines(item)
    lines += ["", "outcomes:", *_outcome_lines(overview), *(f"  {line}" for line in label_lines(info))]
    lines += ["", "fields that spans lack:", *_coverage_lines(overview.coverage, overview.total_spans)]
    if overview.missing_parents:
        lines.append(
            f"  parent in the data: {share(overview.missing_parents, overview.total_spans)} name one that is not there"
        )
    data |= {
        "total_traces": info.total_traces,
        "total_spans": info.total_spans,
        "sources": [
            {"name": item.name, "size_bytes": item.size_bytes, **item.report.model_dump()} for item in info.sources
        ],
        "coverage": {name: getattr(overview.coverage, name) for name in Coverage.__slots__},
        "missing_parents": overview.missing_parents,
        "outcomes": dict(overview.outcomes),
        "outcome_sources": dict(overview.outcome_sources),
        **labels_json(info),
    }
    return Examination("\n".join(lines), data)


def _outcome_lines(overview: Overview) -> Iterator[str]:
    for outcome, count in overview.outcomes.items():
        yield f"  {outcome}: {share(count, overview.total_traces)} of traces"
    for source, count in overview.outcome_sources:
        yield f"  said by {source}: {counted(count, 'trace')}"


def _source_lines(source: Source) -> list[str]:
    report = source.report
    lines = [
        "",
        f"{source.name}: {size(source.size_bytes)}, modified {moment(source.modified_unix_nano)}",
        (
            f"  {number(report.lines_read)} lines read, {number(report.spans_indexed)} spans, "
            f"{number(report.lines_skipped)} lines skipped, {number(report.lines_repaired)} repaired "
            "(glued, badly encoded or oversized lines that held spans)"
        ),
    ]
    if report.pending_bytes:
        lines.append(f"  an incomplete last line of {size(report.pending_bytes)} waits to be completed")
    if report.reasons:
        lines.append(f"  reasons: {pairs(report.reasons)}")
    lines += [f"  line {number(p.line_number)} (byte {p.byte_offset}): {p.reason}" for p in report.problems]
    hidden = sum(report.reasons.values()) - len(report.problems)
    return [*lines, f"  and {number(hidden)} more"] if hidden > 0 else lines


def _coverage_lines(coverage: Coverage, spans: int) -> Iterator[str]:
    yield f"  observation kind: {share(coverage.without_kind, spans)} of spans"
    yield f"  session id: {share(coverage.without_session, spans)} of spans"
    yield f"  start time: {share(coverage.without_start_time, spans)} of spans"
    yield f"  model name: {share(coverage.llm_without_model, coverage.llm_spans)} of LLM spans"
    yield f"  token counts: {share(coverage.llm_without_tokens, coverage.llm_spans)} of LLM spans"


def _first_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line_number in range(1, _LINES_EXAMINED + 1):
            line = file.readline(LINE_BYTES_LIMIT)
            if not line:
                return
            if line.strip():
                yield f"  line {line_number}: {read_line(line).problem or 'a span'}"
