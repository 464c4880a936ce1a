"""The analyses over all traces, as MCP tools called in this process, with the protocol: what a client waits for.

Two jobs of ``benchmarks.ours``: one tool as the first call of a fresh process, and all of them in one session. What
is timed are answers as text for a model; whether they are right is seen in the same answers as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.questions import AGAIN, ALTERNATION, LITERAL, RUNS, Clock
from benchmarks.stories import CAUSE

Arguments = dict[str, Any]
Ask = Callable[[str, Arguments], Awaitable[Mapping[str, Any]]]

GROUP_BY: Final = (
    "SELECT observation_kind, tool_name, status_code, count(*) AS n, avg(output_chars) FROM spans GROUP BY ALL"
)
COMPILED: Final = "sandbox"
"""Where in the index directory the server keeps the compiled interpreter of run_code."""
READ_SPANS: Final = 20_000
_READ_CODE: Final = f"len(spans(limit={READ_SPANS}, fields=['name', 'status.code']))"
_JSON: Final[Arguments] = {"response_format": "json"}
_OTHERS: Final[Arguments] = {"filters": {"service_names": ["service-1"]}}
"""Another question, about a fifth of the traces."""

COLD: Final[dict[str, Arguments]] = {
    "list_failure_modes": {},
    "analyze_tool_use": {},
    "contrast_traces": {},
    "search_dataset": {"pattern": LITERAL, "literal": True},
    "run_code": {"code": "1 + 1"},
}
"""Tools that are measured as the first call of a process."""
COMPARED: Final[Arguments] = {"filters_before": {"run_ids": [RUNS[0]]}, "filters_after": {"run_ids": [RUNS[1]]}}
_SESSION: Final[tuple[tuple[str, str, Arguments], ...]] = (
    ("overview", "get_dataset_overview", {}),
    ("list_failure_modes", "list_failure_modes", {}),
    ("analyze_tool_use", "analyze_tool_use", {}),
    ("contrast_traces", "contrast_traces", {}),
    ("compare_datasets", "compare_datasets", COMPARED),
    ("query_sql", "query_sql", {"sql": GROUP_BY}),
    ("search_dataset, literal", "search_dataset", {"pattern": LITERAL, "literal": True}),
    ("search_dataset, alternation", "search_dataset", {"pattern": ALTERNATION}),
    ("list_harness_versions", "list_harness_versions", {}),
    ("analyze_cost", "analyze_cost", {}),
    ("run_code", "run_code", {"code": "1 + 1"}),
    ("run_code, spans", "run_code", {"code": _READ_CODE}),
)
"""What is measured, tool, arguments. Each name is a figure; "NAME, again" is the median of later calls."""


def cold(clock: Clock, traces: str, index: str, tool: str) -> dict[str, int]:
    """``tool`` asked in a process that has asked nothing yet, then the same again, then something else of it."""

    async def calls(ask: Ask) -> dict[str, int]:
        await _timed(clock, f"{tool}, cold", ask, tool, COLD[tool])
        await _timed_again(clock, f"{tool}, warm", ask, tool, COLD[tool])
        if tool != "run_code":
            await _timed(clock, f"{tool}, other filters", ask, tool, COLD[tool] | _OTHERS)
        return facts(tool, await ask(tool, COLD[tool] | _JSON))

    return _with_server(traces, index, calls)


def session(clock: Clock, traces: str, index: str) -> dict[str, int]:
    """All analyses one after another in one process, each twice."""

    async def calls(ask: Ask) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, tool, arguments in _SESSION:
            await _timed(clock, name, ask, tool, arguments)
        for name, tool, arguments in _SESSION:
            await _timed_again(clock, f"{name}, again", ask, tool, arguments)
        for name, tool, arguments in _SESSION:
            found |= facts(name, await ask(tool, arguments | _JSON))
        return found

    return _with_server(traces, index, calls)


def first_start(clock: Clock, index: str) -> dict[str, int]:
    """``run_code`` where its interpreter was never started: it is compiled first."""
    from halo_mcp.index.work import Work
    from halo_mcp.sandbox.code import CodeSessions

    sessions = CodeSessions(Path(index) / COMPILED)
    try:
        done = clock.time("first start", lambda: sessions.run("main", "1 + 1", {}, Work()))
    finally:
        sessions.close()
    return {"sum": int(done.output)}


async def _timed(clock: Clock, name: str, ask: Ask, tool: str, arguments: Arguments) -> None:
    started = time.perf_counter()
    await ask(tool, arguments)
    clock.seconds[name] = time.perf_counter() - started


async def _timed_again(clock: Clock, name: str, ask: Ask, tool: str, arguments: Arguments) -> None:
    """The median of a few calls."""
    times: list[float] = []
    for _ in range(AGAIN):
        await _timed(clock, name, ask, tool, arguments)
        times.append(clock.seconds[name])
    clock.seconds[name] = median(times)


def _with_server(traces: str, index: str, calls: Callable[[Ask], Awaitable[dict[str, int]]]) -> dict[str, int]:
    import anyio
    from mcp import Client

    from halo_mcp.config import load_settings
    from halo_mcp.datasets import Datasets
    from halo_mcp.server import create_server

    server = create_server(Datasets({"bench": [traces]}, load_settings(index_dir=Path(index))))

    async def talk() -> dict[str, int]:
        async with Client(server) as client:

            async def ask(tool: str, arguments: Arguments) -> Mapping[str, Any]:
                result = await client.call_tool(tool, arguments)
                assert not result.is_error, f"{tool} failed: {result.content}"
                return result.structured_content or {}

            return await calls(ask)

    return anyio.run(talk)


def facts(name: str, answer: Mapping[str, Any]) -> dict[str, int]:
    """What the generator knows about an answer."""
    match name:
        case "list_failure_modes":
            return {
                "failing_traces": answer["failing_trace_count"],
                "failures": answer["failing_span_count"],
            }
        case "analyze_tool_use":
            tools: list[Mapping[str, Any]] = answer["tools"]
            names = {"calls": "calls", "failed_calls": "failures", "retries": "retries", "loop_calls": "loop_calls"}
            return {known: sum(tool[field] for tool in tools) for known, field in names.items()}
        case "contrast_traces":
            return {
                "failing_traces": answer["total_traces_a"],
                "passing_traces": answer["total_traces_b"],
                "causes_missed": int(not any(map(_is_the_cause, answer["features"])) and _enough(answer)),
            }
        case "compare_datasets":
            return {"compared_traces": answer["before"]["total_traces"] + answer["after"]["total_traces"]}
        case "query_sql":
            return {"spans": sum(row[3] for row in answer["rows"])}
        case "analyze_cost":
            return {"input_tokens": answer["total_input_tokens"]}
        case "search_dataset" | "search_dataset, literal" | "search_dataset, alternation":
            return {name: answer["matching_span_count"]}
        case "list_harness_versions":
            return {"traces": answer["trace_count"]}
        case "run_code, spans" | "run_code":
            assert not answer["exit_code"], answer["stderr"]
            return {"sum" if name == "run_code" else "spans_read": int(answer["stdout"])}
        case _:
            return {}


def _is_the_cause(feature: Mapping[str, Any]) -> bool:
    return feature["kind"] == "tool_failed" and feature["name"] == CAUSE and feature["standing"] == "holds"


def _enough(answer: Mapping[str, Any]) -> bool:
    """So many traces that the cause must show."""
    return min(answer["total_traces_a"], answer["total_traces_b"]) >= 100
