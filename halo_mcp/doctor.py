"""What is wrong with a source: every finding the index has about it, and its first lines one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from halo_mcp.config import DEFAULT_ADDRESS, HttpSettings, Settings, http_options, load_http_settings
from halo_mcp.datasets import labels_by_dataset, parse_sources
from halo_mcp.errors import NotTraces
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.formats.canonical import LINE_BYTES_LIMIT, read_line
from halo_mcp.index.formats.streams import Stream
from halo_mcp.index.local import LocalStore
from halo_mcp.index.quality import DataQuality
from halo_mcp.index.store import Overview, Source
from halo_mcp.index.work import Work
from halo_mcp.tools.labels import label_lines, labels_json
from halo_mcp.tools.overview import format_text
from halo_mcp.tools.render import counted, moment, number, pairs, share, size

_LINES_EXAMINED: Final = 10


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings as text and as JSON."""

    text: str
    data: dict[str, Any]


def examine(source: str, settings: Settings) -> Examination:
    """Index ``source`` and report, masked as the user wants it.

    Raises: SourceError, IndexFailure; not NotTraces, which is a finding.
    """
    found, privacy = _examined(source, settings), settings.privacy
    return Examination(privacy.of_text(found.text), privacy.of_json(found.data))


def _examined(source: str, settings: Settings) -> Examination:
    ((name, paths),) = parse_sources([source]).items()
    labels = labels_by_dataset(settings.labels, [name])
    outcomes = settings.outcomes([*labels.get("", []), *labels.get(name, [])])
    store = LocalStore(name, paths, settings.index_dir, privacy=settings.privacy, outcomes=outcomes)
    http = load_http_settings(os.environ.get("HALO_MCP_HTTP", "").strip() or DEFAULT_ADDRESS)
    lines = [f"index directory: {settings.index_dir} ({settings.origins.get('index_dir', 'default')})"]
    lines += [_http_line(http)]
    data: dict[str, Any] = {"index_dir": str(settings.index_dir), "origins": dict(settings.origins)}
    data["http"] = {item.name: _plain(getattr(http, item.name)) for item in http_options()}
    data["http"] |= {"host": http.host, "port": http.port, "origins": dict(http.origins)}
    try:
        store.refresh(Work())
    except NotTraces as error:
        lines += [str(error), "", "first lines:", *_first_lines(Path(error.source))]
        return Examination("\n".join(lines), data | {"error": str(error), "reason": error.reason})
    info, quality = store.info(), store.quality(Work())
    overview = store.overview(TraceFilters(), Work())
    store.close()
    lines.append(f"{number(info.total_traces)} traces, {number(info.total_spans)} spans")
    for item in info.sources:
        lines += _source_lines(item)
    lines += ["", "outcomes:", *_outcome_lines(overview), *(f"  {line}" for line in label_lines(info))]
    lines += ["", *_structure_lines(quality), "", "what spans say, by kind:", *_field_lines(quality)]
    lines += ["", *_unknown_lines(quality)]
    data |= {
        "total_traces": info.total_traces,
        "total_spans": info.total_spans,
        "sources": [
            {"name": item.name, "size_bytes": item.size_bytes, **item.report.model_dump()} for item in info.sources
        ],
        "quality": asdict(quality),
        "outcomes": dict(overview.outcomes),
        "outcome_sources": dict(overview.outcome_sources),
        **labels_json(info),
    }
    return Examination("\n".join(lines), data)


def _http_line(http: HttpSettings) -> str:
    """What serve --http would do, and what the environment changed."""
    host = f"[{http.host}]" if ":" in http.host else http.host
    who = "this machine only" if http.local else "for others: with a token, tools that spend or run code off"
    changed = [f"{name}={_plain(getattr(http, name))}" for name, origin in http.origins.items() if origin != "default"]
    return f"serve --http: {host}:{http.port}, {who}" + (f"; environment: {', '.join(changed)}" if changed else "")


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


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
            f"  {number(report.lines_read)} {report.records_word} read, {number(report.spans_indexed)} spans, "
            f"{number(report.lines_skipped)} {report.records_word} skipped, {number(report.lines_repaired)} repaired "
            "(glued, badly encoded or oversized lines that held spans)"
        ),
    ]
    if made := format_text(report):
        lines.insert(2, f"  format: {made}")
    if report.repairs:
        lines.append(f"  mended: {pairs(report.repairs)}")
    if report.bookkeeping:
        total = counted(sum(report.bookkeeping.values()), "record")
        lines.append(f"  no loss: {total} with nothing of a trace in them: {pairs(report.bookkeeping)}")
    if report.pending_bytes:
        lines.append(f"  an incomplete last line of {size(report.pending_bytes)} waits to be completed")
    if report.reasons:
        lines.append(f"  reasons: {pairs(report.reasons)}")
    lines += [f"  {problem.where}: {problem.reason}" for problem in report.problems]
    hidden = sum(report.reasons.values()) - len(report.problems)
    return [*lines, f"  and {number(hidden)} more"] if hidden > 0 else lines


def _structure_lines(quality: DataQuality) -> Iterator[str]:
    found = {
        "spans that repeat a span id of their trace": quality.duplicate_span_ids,
        "spans with a parent that is not in the data": quality.orphan_parents,
        "spans that are their own ancestors": quality.circles,
        "traces without a root": quality.traces_without_root,
        "traces with several roots": quality.traces_with_several_roots,
    }
    named = [f"  {what}: {number(count)}" for what, count in found.items() if count]
    yield "traces that are not whole:" + ("" if named else " none")
    yield from named


def _field_lines(quality: DataQuality) -> Iterator[str]:
    by_field: dict[str, list[str]] = {}
    for one in quality.coverage:
        said = f"{number(one.present)} of {number(one.spans)} {one.observation_kind} spans"
        by_field.setdefault(one.field, []).append(said)
    yield from (f"  {field} on {', '.join(said)}" for field, said in by_field.items())


def _unknown_lines(quality: DataQuality) -> Iterator[str]:
    if not quality.sampled_spans:
        return
    sampled = counted(quality.sampled_spans, "sampled span")
    yield f"attributes that no rule reads (of {sampled}):" + ("" if quality.unknown_attributes else " none")
    for key, count in quality.unknown_attributes:
        yield f"  {key}: {number(count)}"


def _first_lines(path: Path) -> Iterator[str]:
    with Stream(path) as stream, stream.buffered() as file:
        for line_number in range(1, _LINES_EXAMINED + 1):
            line = file.readline(LINE_BYTES_LIMIT)
            if not line:
                return
            if line.strip():
                yield f"  line {line_number}: {read_line(line).problem or 'a span'}"
