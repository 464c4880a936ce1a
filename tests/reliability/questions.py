"""Calls of every tool that reads, with arguments that vary: what many clients might ask at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from halo_mcp.server import ASK, ASK_RESULT, build_tools

Arguments = dict[str, Any]
NOT_ASKED: Final = (ASK, ASK_RESULT)
"""They are for a model, and none is configured."""
MOVING: Final = "live"
STILL: Final = ("before", "after", "packed")
SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    tool.name: tool.parameters for tool in build_tools() if tool.name not in NOT_ASKED
}
_PATTERNS: Final = ("timed? ?out", "refund", r"A-\d{5}", "limit must be", "(?i)unauthorized", "nowhere to be found")
_STATEMENTS: Final = (
    "SELECT kind, count(*) FROM spans GROUP BY ALL ORDER BY 2 DESC",
    "SELECT outcome, avg(span_count), max(raw_bytes) FROM traces GROUP BY 1",
    "SELECT trace_id, name, status_message FROM spans WHERE status_code = 'ERROR' LIMIT 20",
    "SELECT tool_name, count(*) FROM spans WHERE tool_name <> '' GROUP BY 1",
    "SELECT nothing FROM spans",
)
PROCESSES: Final[Sequence[tuple[str, Arguments]]] = (
    *(("query_sql", {"sql": "SELECT count(*) FROM spans", "dataset": name}) for name in (MOVING, *STILL)),
    *(("run_code", {"code": "print(1)", "session": name}) for name in ("a", "b")),
)
"""Calls after which every process that the others would start is there."""
_PROGRAMS: Final = (
    "print(sum(range(1000)))",
    "print(count_traces()['total'])",
    "x = [t['trace_id'] for t in query_traces(limit=5)['traces']]\nprint(x)",
    "print(sql('SELECT count(*) AS n FROM spans')[0]['n'])",
    "raise ValueError('of the code itself')",
)


class Curious:
    """One client's questions. It remembers ids that it was shown, and asks about them later."""

    def __init__(self, seed: int, *, code: bool) -> None:
        """``code``: whether it may ask for run_code."""
        self._random = random.Random(seed)
        self.tools = [name for name in SCHEMAS if code or name != "run_code"]
        self._traces: dict[str, list[str]] = {name: [] for name in (MOVING, *STILL)}
        self._spans: dict[str, list[str]] = {}
        self._cursors: dict[tuple[str, str], str] = {}

    def next(self) -> tuple[str, Arguments]:
        """A tool and its arguments."""
        pick, dataset = self._random.choice, self._dataset()
        if not self._traces[dataset]:
            return "query_traces", {"dataset": dataset, "limit": 10, "response_format": "json"}
        tool = pick(self.tools)
        return tool, self.about(tool, dataset)

    def about(self, tool: str, dataset: str) -> Arguments:
        """Arguments for a tool, once traces of the dataset are known."""
        pick = self._random.choice
        made = _MAKERS.get(tool, _filtered)(self, dataset)
        properties = SCHEMAS[tool]["properties"]
        if "dataset" in properties and "dataset" not in made:
            made["dataset"] = dataset
        made["response_format"] = pick(("text", "json"))
        for name in ("group_by", "sort_by", "detail"):
            if choices := properties.get(name, {}).get("enum"):
                made[name] = pick(choices)
        if "cursor" in properties and (tool, dataset) in self._cursors and self._random.random() < 0.3:
            made["cursor"] = self._cursors.pop((tool, dataset))
        return made

    def heard(self, tool: str, arguments: Arguments, answer: Mapping[str, Any]) -> None:
        """Remember what a JSON answer shows."""
        dataset = str(arguments.get("dataset", ""))
        if tool == "query_traces":
            shown = [str(trace["trace_id"]) for trace in answer["traces"]]
            self._traces[dataset] = (shown + self._traces[dataset])[:30]
        if tool == "view_trace":
            self._spans[str(arguments["trace_id"])] = [
                str(span["span_id"]) for span in answer.get("spans", [])[:30] if "span_id" in span
            ]
            if len(self._spans) > 30:
                del self._spans[next(iter(self._spans))]
        for name in ("next_cursor", "cursor"):
            if isinstance(answer.get(name), str):
                self._cursors[tool, dataset] = str(answer[name])

    def _dataset(self) -> str:
        return MOVING if self._random.random() < 0.6 else self._random.choice(STILL)

    def filters(self) -> Arguments:
        given: Sequence[Arguments] = (
            {},
            {},
            {"has_errors": True},
            {"outcome": ["fail"]},
            {"tool_names": ["fetch_page", "refund"]},
            {"regex_pattern": self._random.choice(_PATTERNS)},
            {"min_span_count": self._random.randint(1, 30)},
            {"start_time_gte": "2026-03-02T09:03:00Z"},
            {"attributes": [{"key": "service.version", "value": "1.4.0"}]},
        )
        return self._random.choice(given)

    def trace(self, dataset: str) -> str:
        return self._random.choice(self._traces[dataset])

    def some(self, *values: Any) -> Any:
        return self._random.choice(values)

    def of_trace(self, dataset: str) -> tuple[str, list[str]]:
        """A trace and some of its spans, where some are known."""
        for trace_id in self._traces[dataset]:
            if spans := self._spans.get(trace_id):
                return trace_id, self._random.sample(spans, min(len(spans), 3))
        return self.trace(dataset), ["0123456789abcdef"]

    def pattern(self) -> str:
        return self._random.choice(_PATTERNS)


def _filtered(self: Curious, dataset: str) -> Arguments:
    return {"filters": self.filters()}


def _view_spans(self: Curious, dataset: str) -> Arguments:
    trace_id, spans = self.of_trace(dataset)
    return {"trace_id": trace_id, "span_ids": spans, "around": self.some(0, 1, 3)}


def _verify(self: Curious, dataset: str) -> Arguments:
    trace_id, spans = self.of_trace(dataset)
    return {"answer": f'In trace {trace_id} the span {spans[0]} says "timed out after 15015 ms".'}


_MAKERS: Final[Mapping[str, Callable[[Curious, str], Arguments]]] = {
    "list_datasets": lambda self, dataset: {},
    "analyze_tool_use": lambda self, dataset: self.some(
        {"filters": self.filters()}, {"trace_id": self.trace(dataset)}, {"tool_names": ["fetch_page"]}
    ),
    "query_traces": lambda self, dataset: {"filters": self.filters(), "limit": self.some(3, 10, 50)},
    "view_trace": lambda self, dataset: {
        "trace_id": self.trace(dataset),
        "max_chars": self.some(2_000, 20_000, 150_000),
    },
    "view_spans": _view_spans,
    "search_trace": lambda self, dataset: {"trace_id": self.trace(dataset), "pattern": self.pattern()},
    "search_dataset": lambda self, dataset: {"pattern": self.pattern(), "filters": self.filters()},
    "contrast_traces": lambda self, dataset: self.some({}, {"group_a": {"has_errors": True}}),
    "compare_datasets": lambda self, dataset: {"dataset": "before", "after": self.some("after", MOVING)},
    "list_harness_versions": lambda self, dataset: {"filters": self.filters()},
    "query_sql": lambda self, dataset: {"sql": self.some(*_STATEMENTS), "limit": self.some(5, 100)},
    "run_code": lambda self, dataset: {"code": self.some(*_PROGRAMS), "session": self.some("a", "b")},
    "synthesize_traces": lambda self, dataset: {"trace_ids": [self.trace(dataset) for _ in range(3)]},
    "verify_evidence": _verify,
}
