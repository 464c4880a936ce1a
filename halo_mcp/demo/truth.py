"""What is true about the sample dataset, counted from the spans as written."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from halo_mcp.demo.harness import Recorded, Span
from halo_mcp.demo.plan import FAILURE_MODES, FailureMode

QUOTE_CHARS = 160


@dataclass(frozen=True)
class Quote:
    """Text that stands verbatim in one span."""

    trace_id: str
    span_id: str
    where: str
    """`status.message` or an attribute key."""
    text: str


@dataclass(frozen=True)
class FailureModeTruth:
    """One failure mode in one run."""

    key: str
    status: str
    """ERROR (a hard error) or OK (a soft error) on the spans where it begins."""
    span_name: str
    tool_name: str
    spans: int
    """Spans where it begins. For `search_loop`: all repeated calls."""
    propagated_spans: int
    """Ancestors with ERROR status that repeat it."""
    trace_ids: tuple[str, ...]
    """In the order of the file."""
    failed_traces: int
    """So many of them have the outcome fail."""
    quote: Quote | None
    """The first occurrence; None where the mode does not occur."""

    @property
    def traces(self) -> int:
        return len(self.trace_ids)


@dataclass(frozen=True)
class ToolTruth:
    """Tool spans of one tool, and those with ERROR status."""

    calls: int
    failures: int


@dataclass(frozen=True)
class DecoyTruth:
    """Traces that use `calculator`: as common among passing as among failing traces, so it explains nothing."""

    tool_name: str
    pass_traces: int
    fail_traces: int


@dataclass(frozen=True)
class RunTruth:
    """One file of the dataset."""

    run_id: str
    traces: int
    spans: int
    llm_spans: int
    pass_traces: int
    fail_traces: int
    silent_fail_traces: int
    """Failing traces without any failure mode: nothing in the trace says that the answer is wrong."""
    error_traces: int
    """Traces with a span of ERROR status."""
    error_spans: int
    original_error_spans: int
    """ERROR spans without an ERROR span below them."""
    propagated_error_spans: int
    exception_types: Mapping[str, int]
    """Exception events by `exception.type`."""
    input_tokens: int
    """Summed over LLM spans only; root spans repeat the sum of their trace."""
    output_tokens: int
    tools: Mapping[str, ToolTruth]
    failure_modes: Mapping[str, FailureModeTruth]
    decoy: DecoyTruth
    largest_trace_id: str
    """The trace with the most characters of tool output, too large for any one view."""


@dataclass(frozen=True)
class DemoTruth:
    """Both runs: `before.jsonl` and `after.jsonl`."""

    before: RunTruth
    after: RunTruth


DECOY_TOOL = "calculator"


def count_run(run_id: str, recorded: Sequence[Recorded]) -> RunTruth:
    """The truth about one run, from its spans in file order."""
    spans = [span for span, _ in recorded]
    by_kind: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_kind[span["attributes"]["inference.observation_kind"]].append(span)
    outcomes = {span["trace_id"]: span["attributes"]["task.outcome"] for span in spans if not span["parent_span_id"]}
    calls = Counter(span["attributes"]["tool.name"] for span in by_kind["TOOL"])
    failures = Counter(span["attributes"]["tool.name"] for span in by_kind["TOOL"] if _is_error(span))
    decoy_traces = {s["trace_id"] for s in by_kind["TOOL"] if s["attributes"]["tool.name"] == DECOY_TOOL}
    errors = [span for span in spans if _is_error(span)]
    repeating = {span["parent_span_id"] for span in errors}
    original = [span for span in errors if span["span_id"] not in repeating]
    output_chars: Counter[str] = Counter()
    for span in by_kind["TOOL"]:
        output_chars[span["trace_id"]] += len(span["attributes"]["output.value"])
    modes = {key: _count_mode(mode, recorded, outcomes) for key, mode in sorted(FAILURE_MODES.items())}
    explained = {trace_id for mode in modes.values() for trace_id in mode.trace_ids}
    return RunTruth(
        run_id=run_id,
        traces=len(outcomes),
        spans=len(spans),
        llm_spans=len(by_kind["LLM"]),
        pass_traces=_count_outcome(outcomes, outcomes, "pass"),
        fail_traces=_count_outcome(outcomes, outcomes, "fail"),
        silent_fail_traces=_count_outcome(outcomes, outcomes.keys() - explained, "fail"),
        error_traces=len({span["trace_id"] for span in errors}),
        error_spans=len(errors),
        original_error_spans=len(original),
        propagated_error_spans=len(errors) - len(original),
        exception_types=dict(sorted(Counter(_exception_types(spans)).items())),
        input_tokens=sum(span["attributes"]["inference.llm.input_tokens"] for span in by_kind["LLM"]),
        output_tokens=sum(span["attributes"]["inference.llm.output_tokens"] for span in by_kind["LLM"]),
        tools={tool: ToolTruth(calls[tool], failures[tool]) for tool in sorted(calls)},
        failure_modes=modes,
        decoy=DecoyTruth(
            DECOY_TOOL,
            pass_traces=_count_outcome(outcomes, decoy_traces, "pass"),
            fail_traces=_count_outcome(outcomes, decoy_traces, "fail"),
        ),
        largest_trace_id=max(output_chars, key=lambda trace_id: output_chars[trace_id]),
    )


def _count_mode(mode: FailureMode, recorded: Sequence[Recorded], outcomes: Mapping[str, str]) -> FailureModeTruth:
    origins = [span for span, key in recorded if key == mode.key]
    trace_ids = tuple(dict.fromkeys(span["trace_id"] for span in origins))
    errors = {span["span_id"]: span for span, _ in recorded if _is_error(span)}
    ancestors: set[str] = set()
    for origin in origins:
        parent_id = origin["parent_span_id"]
        while mode.status == "ERROR" and parent_id in errors:
            ancestors.add(parent_id)
            parent_id = errors[parent_id]["parent_span_id"]
    return FailureModeTruth(
        key=mode.key,
        status=mode.status,
        span_name=mode.span_name,
        tool_name=mode.tool_name,
        spans=len(origins),
        propagated_spans=len(ancestors),
        trace_ids=trace_ids,
        failed_traces=_count_outcome(outcomes, trace_ids, "fail"),
        quote=_quote(mode, origins[0]) if origins else None,
    )


def _quote(mode: FailureMode, span: Span) -> Quote:
    """The end of the last line of the evidence."""
    text: str = span["status"]["message"] if mode.where == "status.message" else span["attributes"][mode.where]
    return Quote(span["trace_id"], span["span_id"], mode.where, text.splitlines()[-1][-QUOTE_CHARS:])


def _is_error(span: Span) -> bool:
    return span["status"]["code"] == "STATUS_CODE_ERROR"


def _exception_types(spans: Iterable[Span]) -> list[str]:
    return [
        event["attributes"]["exception.type"] for span in spans for event in span["attributes"].get("otel.events", [])
    ]


def _count_outcome(outcomes: Mapping[str, str], trace_ids: Iterable[str], outcome: str) -> int:
    return sum(outcomes[trace_id] == outcome for trace_id in trace_ids)


def truth_markdown(truth: DemoTruth) -> str:
    """The truth as markdown tables: totals, tools, failure modes."""
    runs = (truth.before, truth.after)
    totals = [
        ("traces", *(f"{run.traces}" for run in runs)),
        ("passed / failed", *(f"{run.pass_traces} / {run.fail_traces}" for run in runs)),
        ("failed without a failure mode", *(f"{run.silent_fail_traces}" for run in runs)),
        ("spans (LLM spans)", *(f"{run.spans} ({run.llm_spans})" for run in runs)),
        ("traces with an ERROR span", *(f"{run.error_traces}" for run in runs)),
        (
            "ERROR spans = original + propagated",
            *(f"{run.error_spans} = {run.original_error_spans} + {run.propagated_error_spans}" for run in runs),
        ),
        (
            "exception events",
            *(", ".join(f"{key} {count}" for key, count in run.exception_types.items()) for run in runs),
        ),
        ("input / output tokens of LLM spans", *(f"{run.input_tokens} / {run.output_tokens}" for run in runs)),
        (
            f"decoy `{DECOY_TOOL}`: passing, failing traces",
            *(f"{run.decoy.pass_traces}, {run.decoy.fail_traces}" for run in runs),
        ),
        ("largest trace", *(f"`{run.largest_trace_id}`" for run in runs)),
    ]
    tools = [
        (f"`{name}`", *(f"{run.tools[name].calls} / {run.tools[name].failures}" for run in runs))
        for name in truth.before.tools
    ]
    modes = [_mode_row(run, mode) for mode in FAILURE_MODES for run in runs]
    return "\n\n".join(
        (
            _table(("total", "before", "after"), totals),
            _table(("tool: calls / calls with status ERROR", "before", "after"), tools),
            _table(
                ("failure mode", "run", "kind", "span", "spans", "propagated", "traces", "of them failed", "quote"),
                modes,
            ),
        )
    )


def _mode_row(run: RunTruth, key: str) -> tuple[str, ...]:
    mode = run.failure_modes[key]
    return (
        f"`{key}`",
        run.run_id,
        "hard" if mode.status == "ERROR" else "soft",
        f"`{mode.span_name}`",
        f"{mode.spans}",
        f"{mode.propagated_spans}",
        f"{mode.traces}",
        f"{mode.failed_traces}",
        f"`{mode.quote.text}`" if mode.quote else "",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
