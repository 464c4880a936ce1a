"""halo-engine's side, in its own environment: `python -m benchmarks.peer JOB TRACES INDEX_DIRECTORY [VIEWED]`."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.questions import ALTERNATION, LITERAL, PAGE, SEARCHED, Clock, report


def _index(traces: str, index: str) -> Path:
    builder: Any = import_module("engine.traces.trace_index_builder").TraceIndexBuilder
    config: Any = import_module("engine.traces.models.trace_index_config").TraceIndexConfig
    return asyncio.run(builder.ensure_index_exists(Path(traces), config(index_dir=Path(index))))


def build(clock: Clock, traces: str, index: str) -> dict[str, int]:
    import_module("engine.traces.trace_index_builder")
    clock.time("build", lambda: _index(traces, index))
    return {}


def query(clock: Clock, traces: str, index: str, viewed: list[str]) -> dict[str, int]:
    import_module("engine.traces.trace_index_builder")
    store_class: Any = import_module("engine.traces.trace_store").TraceStore
    filters: Any = import_module("engine.traces.models.trace_query_models").TraceFilters

    store = clock.time("open", lambda: store_class.load(Path(traces), _index(traces, index)))

    def count(**asked: object) -> int:
        return store.count_traces(filters(**asked)).total

    overview = clock.time_twice("overview", lambda: store.get_overview(filters()))
    error_traces = clock.time_twice("count", lambda: count(has_errors=True))
    page = clock.time_twice("query", lambda: store.query_traces(filters(has_errors=True), limit=PAGE))
    literal = clock.time("literal", lambda: count(regex_pattern=LITERAL))
    alternation = clock.time("alternation", lambda: count(regex_pattern=ALTERNATION))
    clock.time("view", lambda: [store.view_trace(trace_id) for trace_id in viewed])
    matches = clock.time("search", lambda: sum(store.search_trace(i, SEARCHED).match_count for i in viewed))
    return {
        "traces": overview.total_traces,
        "spans": overview.total_spans,
        "error_spans": overview.otel_error_span_count,
        "error_traces": error_traces,
        "input_tokens": overview.total_input_tokens,
        "page_total": page.total,
        "page": len(page.traces),
        "literal": literal,
        "alternation": alternation,
        "searched": matches,
    }


def main() -> None:
    job, traces, index, *rest = sys.argv[1:]
    clock = Clock()
    answers = build(clock, traces, index) if job == "build" else query(clock, traces, index, rest[0].split(","))
    report(clock, answers)


if __name__ == "__main__":
    main()
