"""halo-mcp's side, one job per process: `python -m benchmarks.ours JOB TRACES INDEX_DIRECTORY [VIEWED, TAIL, TOOL]`."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.analyses import cold, first_start, session
from benchmarks.questions import ALTERNATION, LITERAL, PAGE, SEARCHED, Clock, report


def build(clock: Clock, traces: str, index: str) -> dict[str, int]:
    import_module("duckdb")  # otherwise imported when first needed; the peer's imports are not timed either

    from halo_mcp.index.local import LocalStore
    from halo_mcp.index.work import Work

    store = LocalStore("bench", [traces], Path(index))
    clock.time("build", lambda: store.refresh(Work()))
    info = store.info()
    (source,) = info.sources
    report = source.report
    return {
        "traces": info.total_traces,
        "spans": info.total_spans,
        "repaired": report.lines_repaired,
        "skipped": report.lines_skipped,
    }


def query(clock: Clock, traces: str, index: str, viewed: list[str]) -> dict[str, int]:
    import_module("duckdb")

    from halo_mcp.index.dataset_matches import DatasetMatches
    from halo_mcp.index.filters import TraceFilters
    from halo_mcp.index.local import LocalStore
    from halo_mcp.index.patterns import compile_pattern
    from halo_mcp.index.work import Work

    store = LocalStore("bench", [traces], Path(index))
    everything, errors = TraceFilters(), TraceFilters(has_errors=True)
    pattern = compile_pattern(SEARCHED)

    def count(filters: TraceFilters) -> int:
        return store.count(filters, None, Work())[0].traces

    def search(trace_id: str) -> int:
        return store.search(trace_id, pattern, (), context_chars=100, max_matches=50, work=Work()).total

    def find(text: str) -> DatasetMatches:
        return store.search_dataset(
            everything,
            compile_pattern(text),
            group_by="span_name",
            max_groups=20,
            max_snippets=20,
            context_chars=60,
            after=None,
            work=Work(),
        )

    clock.time("open", lambda: store.refresh(Work()))
    overview = clock.time_twice("overview", lambda: store.overview(everything, Work()))
    error_traces = clock.time_twice("count", lambda: count(errors))
    page = clock.time_twice("query", lambda: store.traces(errors, "start_time", PAGE, None, Work()))
    literal = clock.time("literal", lambda: count(TraceFilters(regex_pattern=LITERAL)))
    alternation = clock.time("alternation", lambda: count(TraceFilters(regex_pattern=ALTERNATION)))
    finds = {
        name: clock.time(f"{name}, search_dataset", lambda text=text: find(text))
        for name, text in (("literal", LITERAL), ("alternation", ALTERNATION))
    }
    clock.time("literal, second page", lambda: find(LITERAL))
    spans = clock.time("view, rows", lambda: [store.spans(trace_id) for trace_id in viewed])
    payloads = clock.time("view, payloads", lambda: [store.payloads(trace_id) for trace_id in viewed])
    clock.seconds["view"] = clock.seconds["view, rows"] + clock.seconds["view, payloads"]
    matches = clock.time("search", lambda: sum(search(trace_id) for trace_id in viewed))
    assert list(map(len, spans)) == list(map(len, payloads))
    return {
        "traces": overview.total_traces,
        "spans": overview.total_spans,
        "error_spans": overview.error_spans,
        "error_traces": error_traces,
        "input_tokens": overview.input_tokens,
        "page_total": page.total,
        "page": len(page.traces),
        "literal": literal,
        "alternation": alternation,
        "searched": matches,
        "literal, search_dataset": finds["literal"].matching_spans,
        "alternation, search_dataset": finds["alternation"].matching_spans,
    }


def tools(clock: Clock, traces: str, index: str, viewed: list[str]) -> dict[str, int]:
    """The same through an MCP client in this process: text made for a model, sent as protocol messages."""
    import_module("duckdb")
    import anyio
    from mcp import Client

    from halo_mcp.config import load_settings
    from halo_mcp.datasets import Datasets
    from halo_mcp.server import create_server

    server = create_server(Datasets({"bench": [traces]}, load_settings(index_dir=Path(index))))

    async def call() -> dict[str, int]:
        failed = 0
        async with Client(server) as client:
            started = time.perf_counter()
            await client.call_tool("get_dataset_overview")
            clock.seconds["overview tool"] = time.perf_counter() - started
            overview = await client.call_tool("get_dataset_overview", {"response_format": "json"})
            facts: dict[str, Any] = overview.structured_content or {}
            for name, arguments in (("view", {}), ("search", {"pattern": SEARCHED})):
                started = time.perf_counter()
                for trace_id in viewed:
                    result = await client.call_tool(f"{name}_trace", {"trace_id": trace_id, **arguments})
                    failed += bool(result.is_error)
                clock.seconds[f"{name} tool"] = time.perf_counter() - started
        return {"traces": facts["total_traces"], "error_traces": facts["error_trace_count"], "errors": failed}

    return anyio.run(call)


def append(clock: Clock, traces: str, index: str, tail: str) -> dict[str, int]:
    """Take in what was appended while the store was open. The file is cut back afterwards, the index is not."""
    from halo_mcp.index.local import LocalStore
    from halo_mcp.index.work import Work

    store = LocalStore("bench", [traces], Path(index))
    store.refresh(Work())
    size = Path(traces).stat().st_size
    try:
        with Path(traces).open("ab") as file:
            file.write(Path(tail).read_bytes())
        clock.time("append", lambda: store.refresh(Work()))
    finally:
        with Path(traces).open("r+b") as file:
            file.truncate(size)
    return {"spans": store.info().total_spans}


def main() -> None:
    job, traces, index, *rest = sys.argv[1:]
    clock = Clock()
    match job:
        case "build":
            answers = build(clock, traces, index)
        case "query":
            answers = query(clock, traces, index, rest[0].split(","))
        case "tools":
            answers = tools(clock, traces, index, rest[0].split(","))
        case "append":
            answers = append(clock, traces, index, rest[0])
        case "first start":
            answers = first_start(clock, index)
        case "cold":
            answers = cold(clock, traces, index, rest[0])
        case "session":
            answers = session(clock, traces, index)
        case _:
            sys.exit(f"unknown job {job}")
    report(clock, answers)


if __name__ == "__main__":
    main()
