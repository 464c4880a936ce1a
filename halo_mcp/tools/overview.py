"""list_datasets and get_dataset_overview: what is there, and what it looks like as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from halo_mcp.datasets import Datasets
from halo_mcp.errors import HaloError, let_go
from halo_mcp.index.failures import FailureModes
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.formats.names import CANONICAL, UNKNOWN
from halo_mcp.index.formats.protocol import SYNTHETIC_TIME
from halo_mcp.index.segments import IngestReport
from halo_mcp.index.store import Overview, Source, StoreInfo, ToolStats
from halo_mcp.index.times import time_text
from halo_mcp.index.work import Work
from halo_mcp.tools.budget import DEFAULT_CHARS, OVERVIEW_CHARS, Page, preview
from halo_mcp.tools.failures import mode_json, pattern, where
from halo_mcp.tools.labels import label_lines, labels_json
from halo_mcp.tools.params import ALL_TRACES, Answer, Call, Filters, call_text
from halo_mcp.tools.render import counted, duration, moment, names, number, pairs, share, size

if TYPE_CHECKING:
    from halo_mcp.index.quality import DataQuality

_ERROR_TEXT_CHARS = 120
_MODES_SHOWN = 5
_TOOLS_SHOWN = 12
_PROBLEMS_SHOWN = 3
_NAME_CHARS = 60
_KEYS_SHOWN = 5
_FILTER_CHARS = 300
_JSON_NAMES = 300
"""Of each kind of name, the most frequent; ``left_out`` counts the rest."""
_JSON_MODES = 20
"""HALO's number of error groups."""
_JSON_SOURCES = 50
"""list_datasets has them all."""


def list_datasets(
    datasets: Datasets,
    work: Work,
    open: Annotated[str, Field(description="[NAME=]PATH under an allowed directory, to load it now")] = "",  # noqa: A002
) -> Answer:
    """List the loaded datasets: sources, sizes, traces, spans, and what could not be read.

    Call it to learn the names that the `dataset` argument of every tool takes, or to `open` another file.
    Indexes what is not indexed yet. Next: get_dataset_overview(dataset=NAME).
    """
    if open:
        datasets.open(open)
    page, data, left_out = Page(DEFAULT_CHARS, reserve=400), list[dict[str, Any]](), list[str]()
    for number_, name in enumerate(datasets.names):
        default = " (default)" if number_ == 0 else ""
        try:
            _, store = datasets.get(name)
            store.refresh(work)
            info = store.info()
        except HaloError as error:
            let_go(error)
            page.add(f"{name}{default}: not usable. {error}")
            data.append({"name": name, "sources": datasets.sources(name), "error": str(error)})
            continue
        page.add(f"{name}{default}: {counted(info.total_traces, 'trace')}, {counted(info.total_spans, 'span')}")
        for shown, source in enumerate(info.sources):
            if not page.add(f"  {_source_line(source)}"):
                left_out.append(f"{number(len(info.sources) - shown)} more sources of {name}")
                break
        for line in label_lines(info):
            page.add(f"  {line}")
        data.append(_info_json(name, info))
    if not data:
        page.add(_no_dataset(datasets.settings.roots))
    more = f"Not listed: {names(left_out)}." if left_out else ""
    return Answer(page.close(more, "Next: get_dataset_overview(dataset=NAME)." if data else ""), {"datasets": data})


def _no_dataset(roots: Sequence[Path]) -> str:
    if not roots:
        return "No dataset is loaded. Start the server with trace files: halo-mcp serve [NAME=]FILE..."
    where = names([str(root) for root in roots])
    return f'No dataset is loaded. Open trace files: list_datasets(open="[NAME=]PATH") with a PATH under {where}.'


def _source_line(source: Source) -> str:
    report = source.report
    parts = [source.name, size(source.size_bytes), f"modified {moment(source.modified_unix_nano)}"]
    if made := format_text(report):
        parts.append(made)
    parts.append(f"{number(report.lines_read)} {report.records_word}, {number(report.spans_indexed)} spans")
    if report.reasons:
        skipped = f"{number(report.lines_skipped)} {report.records_word} skipped: "
        parts.append((skipped if report.lines_skipped else "") + pairs(report.reasons))
    if report.bookkeeping:
        parts.append(f"{number(sum(report.bookkeeping.values()))} of bookkeeping")
    if report.lines_repaired:
        parts.append(f"{number(report.lines_repaired)} repaired")
    if report.repairs:
        parts.append(f"mended: {pairs(report.repairs)}")
    if report.pending_bytes:
        parts.append(f"{size(report.pending_bytes)} of an incomplete last line waiting")
    return " · ".join(parts)


def format_text(report: IngestReport) -> str:
    """What a source is, and what its converted copy takes; "" for plain canonical JSON lines."""
    if report.is_plain:
        return ""
    parts = [report.format, report.compression]
    if report.converted_bytes:
        parts.append(f"converted copy {size(report.converted_bytes)}")
    return ", ".join(part for part in parts if part)


def _info_json(name: str, info: StoreInfo) -> dict[str, Any]:
    return {
        "name": name,
        "total_traces": info.total_traces,
        "total_spans": info.total_spans,
        "sources": [
            {
                "name": source.name,
                "size_bytes": source.size_bytes,
                "modified": time_text(source.modified_unix_nano),
                **source.report.model_dump(),
            }
            for source in info.sources
        ],
        **labels_json(info),
    }


def get_dataset_overview(call: Call, filters: Filters = ALL_TRACES) -> Answer:
    """Summarise a dataset (or the traces that match `filters`) in one page. Call this first.

    Traces, time span, outcomes, runs; spans with errors, split into original failures and their propagation; per tool
    calls, failures and top failure; exception types; the top failure modes with a trace id and span id each; tokens
    per model without double counting; agents; what could not be read; sample trace ids spread over the data.
    Counts are exact and cover all matching traces. Costs milliseconds (seconds when filters hold regex_pattern).
    An error status is a fact about a span: has_errors=false is not success, see outcomes.
    Next: list_failure_modes for quotes, contrast_traces for causes, query_traces and view_trace to read.
    """
    overview = call.store.overview(filters, call.work)
    info = call.store.info()
    page = Page(OVERVIEW_CHARS, reserve=260)
    for line in _overview_lines(call, filters, overview, info):
        if not page.add(line):
            page.add("… (cut here; narrow with filters)")
            break
    return Answer(page.close(_next_steps(call, filters, overview)), _overview_json(overview, info))


def _overview_lines(call: Call, filters: TraceFilters, o: Overview, info: StoreInfo) -> Iterator[str]:
    chosen = "all traces" if not filters.given() else f"traces with {preview(pairs(filters.given()), _FILTER_CHARS)}"
    span = f"{moment(o.start_time_unix_nano)} to {moment(o.end_time_unix_nano)}"
    yield (
        f"dataset {call.dataset}: {chosen} = {counted(o.total_traces, 'trace')}, {counted(o.total_spans, 'span')}, "
        f"{size(o.raw_bytes)}; {span} ({duration(o.start_time_unix_nano, o.end_time_unix_nano)})"
    )
    if not o.total_traces:
        return
    yield from _outcome_lines(o)
    yield from label_lines(info)
    told = o.input_tokens or o.output_tokens or o.coverage.llm_without_tokens < o.coverage.llm_spans
    tokens = _tokens(o.input_tokens, o.output_tokens, o.cached_input_tokens) if told else "none recorded"
    yield f"tokens (LLM spans only): {tokens}"
    if o.models:
        models = (
            f"{_short(m.name)} {counted(m.spans, 'call')} {_tokens(m.input_tokens, m.output_tokens, 0)}"
            for m in o.models
        )
        yield f"models: {names(models, 6)}"
    yield f"agents (spans): {names((f'{_short(a.name)} {number(a.spans)}' for a in o.agents), 12)}"
    if len(o.services) > 1:
        yield f"services (spans): {names((f'{_short(s.name)} {number(s.spans)}' for s in o.services), 6)}"
    yield f"kinds (spans): {names((f'{k.name} {number(k.spans)}' for k in o.kinds), 8)}"
    yield (
        f"errors: {share(o.error_traces, o.total_traces)} of traces have a span with status ERROR; "
        f"{number(o.error_spans)} ERROR spans = {number(o.original_errors)} original failures + "
        f"{number(o.error_spans - o.original_errors)} propagated to ancestors; "
        f"{number(o.tool_error_spans)} on TOOL spans"
    )
    if o.exception_types:
        types = (f"{_short(t.name)} {number(t.spans)}" for t in o.exception_types)
        yield f"exception types (original failures): {names(types, 12)}"
    yield from _tool_lines(o.tools)
    yield from _failure_lines(o.failures)
    yield from _coverage_lines(o, info, call.store.quality(call.work))
    yield f"sample trace ids (spread over time): {names(o.sample_trace_ids, 4)}"


def _tokens(tokens_in: int, tokens_out: int, cached: int) -> str:
    return f"{number(tokens_in)} in, {number(tokens_out)} out" + (f" ({number(cached)} cached)" if cached else "")


def _outcome_lines(o: Overview) -> Iterator[str]:
    known = {name: count for name, count in o.outcomes.items() if count}
    if known.keys() == {"unknown"}:
        yield "outcomes: none recorded"
    else:
        said = names((f"{_short(source)} {number(count)}" for source, count in o.outcome_sources), 4)
        shares = ", ".join(f"{name} {share(count, o.total_traces)}" for name, count in known.items())
        yield f"outcomes: {shares}; said by (traces): {said}"
    runs: dict[str, list[str]] = {}
    for run, outcome, count in o.runs:
        runs.setdefault(run, []).append(f"{outcome} {number(count)}")
    if runs:
        listed = names((f"{_short(run)} ({', '.join(counts)})" for run, counts in runs.items()), 6)
        yield f"runs: {listed}; {number(o.task_count)} distinct tasks"


def _tool_lines(tools: Sequence[ToolStats]) -> Iterator[str]:
    if not tools:
        return
    yield f"tools ({len(tools)}), most failures first: calls / with status ERROR / failed by their output / top failure"
    for tool in tools[:_TOOLS_SHOWN]:
        top = f" / {number(tool.top_error_count)}x {preview(tool.top_error, 110)}" if tool.top_error else ""
        failed = f"{share(tool.failures, tool.calls)} / {share(tool.soft_failures, tool.calls)}"
        yield f"  {_short(tool.name)} {number(tool.calls)} / {failed}{top}"
    if len(tools) > _TOOLS_SHOWN:
        yield f"  +{len(tools) - _TOOLS_SHOWN} more tools"


def _failure_lines(found: FailureModes) -> Iterator[str]:
    if not found.mode_count:
        return
    shown = found.modes[:_MODES_SHOWN]
    yield (
        f"failure modes ({len(shown)} of {number(found.mode_count)}; errors where they begin, soft errors, loops)"
        ": id / spans / traces (of failing, of passing) / what / example"
    )
    for mode in shown:
        outcomes = ""
        if found.failing_traces or found.passing_traces:
            outcomes = f" ({number(mode.failing_traces)}, {number(mode.passing_traces)})"
        what = preview(mode.text or "", _ERROR_TEXT_CHARS) or pattern(mode)
        rule = "" if mode.is_hard else f" · {mode.rule}"
        yield (
            f"  [{mode.id}] {number(mode.spans)} / {number(mode.traces)}{outcomes} / {where(mode)}{rule} · {what} "
            f"/ trace {mode.trace_id} span {mode.span_id}"
        )
    left = found.spans - sum(mode.spans for mode in shown)
    if left:
        yield f"  the rest: {counted(left, 'span')} of {counted(found.mode_count - len(shown), 'further mode')}"


def _short(name: str) -> str:
    return preview(name, _NAME_CHARS)


def _coverage_lines(o: Overview, info: StoreInfo, quality: DataQuality) -> Iterator[str]:
    reports = [source.report for source in info.sources]
    skipped, repaired = sum(r.lines_skipped for r in reports), sum(r.lines_repaired for r in reports)
    reasons: Counter[str] = Counter()
    for report in reports:
        reasons.update(report.reasons)
    read, indexed = sum(r.lines_read for r in reports), sum(r.spans_indexed for r in reports)
    formats = Counter(report.format for report in reports)
    kinds = "" if formats.keys() == {CANONICAL} else f" ({pairs(formats)})"
    word = "lines" if formats.keys() <= {CANONICAL, UNKNOWN} else "records"
    line = f"ingest: {counted(len(reports), 'source')}{kinds}, {number(read)} {word} read, "
    line += f"{number(indexed)} spans indexed, {number(skipped)} {word} skipped"
    yield line + (f" ({pairs(reasons)})" if reasons else "") + (f", {number(repaired)} repaired" if repaired else "")
    if bookkeeping := sum(sum(report.bookkeeping.values()) for report in reports):
        yield f"{counted(bookkeeping, 'record')} of bookkeeping, with nothing of a trace in them"
    repairs: Counter[str] = Counter()
    for report in reports:
        repairs.update(report.repairs)
    if made_up := repairs[SYNTHETIC_TIME]:
        yield (
            f"times of {counted(made_up, 'span')} are made up for want of a clock (source.synthetic_time): "
            "their order holds, their dates and durations say nothing"
        )
    problems = [(source.name, problem) for source in info.sources for problem in source.report.problems]
    for name, problem in problems[:_PROBLEMS_SHOWN]:
        yield f"  {name} {problem.where}: {problem.reason}"
    c = o.coverage
    lacking = {
        "kind": share(c.without_kind, o.total_spans),
        "session": share(c.without_session, o.total_spans),
        "start time": share(c.without_start_time, o.total_spans),
        "agent of their own": share(o.missing_agents, o.total_spans),
        "model (of LLM spans)": share(c.llm_without_model, c.llm_spans),
        "tokens (of LLM spans)": share(c.llm_without_tokens, c.llm_spans),
    }
    named = [f"{name} {count}" for name, count in lacking.items() if count != "0"]
    yield "spans without: " + (", ".join(named) or "nothing missing (kind, session, start, agent, model, tokens)")
    if o.missing_parents:
        yield f"{counted(o.missing_parents, 'span')} with a parent that is not in the data"
    if quality.duplicate_span_ids:
        yield (
            f"{counted(quality.duplicate_span_ids, 'span')} with an id that their trace has already "
            "(stored twice?): each is counted"
        )
    if quality.unknown_attributes:
        keys = names((f"{_short(key)} {number(count)}" for key, count in quality.unknown_attributes), _KEYS_SHOWN)
        yield f"attributes that no rule reads (of {counted(quality.sampled_spans, 'sampled span')}): {keys}"


def _next_steps(call: Call, filters: TraceFilters, o: Overview) -> str:
    if not o.total_traces:
        return "Nothing matches; drop a filter."
    steps: list[str] = []
    given = filters.given() if len(pairs(filters.given())) <= _FILTER_CHARS else {}
    if o.failures.mode_count:
        steps.append(call_text("list_failure_modes", dataset=call.named, filters=given))
    chosen = {"outcome": ["fail"]} if o.outcomes["fail"] else {"has_errors": True} if o.error_traces else {}
    steps.append(call_text("query_traces", dataset=call.named, filters=given | chosen))
    again = " (with the same filters)" if given != filters.given() else ""
    return "Next: " + " or ".join(steps) + again


def _overview_json(o: Overview, info: StoreInfo) -> dict[str, Any]:
    lists = {"services": o.services, "models": o.models, "agents": o.agents, "tools": o.tools, "runs": o.runs}
    return {
        "total_traces": o.total_traces,
        "total_spans": o.total_spans,
        "earliest_start_time": time_text(o.start_time_unix_nano),
        "latest_end_time": time_text(o.end_time_unix_nano),
        "service_names": sorted(s.name for s in o.services[:_JSON_NAMES]),
        "model_names": sorted(m.name for m in o.models[:_JSON_NAMES]),
        "agent_names": sorted(a.name for a in o.agents[:_JSON_NAMES]),
        "agent_ids": list(o.agent_ids),
        "error_trace_count": o.error_traces,
        "missing_parent_count": o.missing_parents,
        "missing_agent_identity_count": o.missing_agents,
        "project_id_mismatch_count": o.other_projects,
        "otel_error_span_count": o.error_spans,
        "original_error_span_count": o.original_errors,
        "tool_error_span_count": o.tool_error_spans,
        "error_taxonomy": [mode_json(mode) for mode in o.failures.modes[:_JSON_MODES]],
        "failure_mode_count": o.failures.mode_count,
        "failing_span_count": o.failures.spans,
        "exception_types": {t.name: t.spans for t in o.exception_types[:_JSON_NAMES]},
        "total_input_tokens": o.input_tokens,
        "total_output_tokens": o.output_tokens,
        "total_cached_input_tokens": o.cached_input_tokens,
        "raw_jsonl_bytes": o.raw_bytes,
        "sample_trace_ids": list(o.sample_trace_ids),
        "outcomes": dict(o.outcomes),
        "outcome_sources": dict(o.outcome_sources[:_JSON_NAMES]),
        **labels_json(info),
        "runs": [
            {"run_id": run, "outcome": outcome, "trace_count": count} for run, outcome, count in o.runs[:_JSON_NAMES]
        ],
        "task_count": o.task_count,
        "observation_kinds": {k.name: k.spans for k in o.kinds},
        "models": [
            {
                "model_name": m.name,
                "span_count": m.spans,
                "input_tokens": m.input_tokens,
                "output_tokens": m.output_tokens,
            }
            for m in o.models[:_JSON_NAMES]
        ],
        "agents": {a.name: a.spans for a in o.agents[:_JSON_NAMES]},
        "tools": [
            {
                "tool_name": tool.name,
                "call_count": tool.calls,
                "failure_count": tool.failures,
                "soft_failure_count": tool.soft_failures,
                "top_error": tool.top_error,
                "top_error_count": tool.top_error_count,
            }
            for tool in o.tools[:_JSON_NAMES]
        ],
        "left_out": {name: len(listed) - _JSON_NAMES for name, listed in lists.items() if len(listed) > _JSON_NAMES},
        "coverage": {name: getattr(o.coverage, name) for name in type(o.coverage).__slots__},
        "ingest": _info_json("", info)["sources"][:_JSON_SOURCES],
    }
