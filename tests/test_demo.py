"""The sample dataset is what its truth says. Everything is counted again here, from the written lines."""

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.demo import DemoTruth, RunTruth, truth_markdown, write_demo
from halo_mcp.demo.__main__ import BEGIN, END, replace_truth

Span = dict[str, Any]

TOP_LEVEL_KEYS = [
    *("trace_id", "span_id", "parent_span_id", "trace_state", "name", "kind", "start_time", "end_time"),
    *("status", "resource", "scope", "attributes"),
]
ATTRIBUTES_ALWAYS_PRESENT = {
    *("inference.export.schema_version", "inference.project_id", "inference.observation_kind"),
    *("inference.llm.provider", "inference.llm.model_name", "inference.llm.input_tokens"),
    *("inference.llm.output_tokens", "inference.llm.cost.total", "inference.user_id", "inference.session_id"),
    *("inference.agent_name", "openinference.span.kind"),
}
HARD_ERRORS = {
    "limit_rejected": ("search_orders", r"limit must be <= 100, got \d+"),
    "auth_expired": ("lookup_customer", r"401 Unauthorized: token expired at 2026-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "fetch_timeout": ("fetch_page", r"timed out after \d+ ms"),
    "wrapped_error": ("fetch_page", r"Error running tool \(non-fatal\)"),
}
TEXT_ON_SOME_LINE = {
    "limit_rejected": "limit must be <= 100, got ",
    "auth_expired": "401 Unauthorized: token expired at ",
    "fetch_timeout": "timed out after ",
    "wrapped_error": "Error running tool (non-fatal)",
    "refund_soft_error": '"isError',
    "context_truncated": '"gen_ai.response.finish_reasons":["length"]',
    "refusal": "I'm sorry, but I can't help with that request.",
}
"""As the raw line has it, inner quotes left out where they are escaped."""

RUN_IDS = ("before", "after")


class Lines:
    """One file, read back with nothing but json."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_text(encoding="utf-8").splitlines()
        self.spans: list[Span] = [json.loads(line) for line in self.raw]
        self.by_id: dict[str, Span] = {span["span_id"]: span for span in self.spans}
        self.outcome: dict[str, str] = {
            span["trace_id"]: span["attributes"]["task.outcome"] for span in self.spans if span["parent_span_id"] == ""
        }

    def kind(self, kind: str) -> list[Span]:
        return [span for span in self.spans if span["attributes"]["openinference.span.kind"] == kind]

    def tool(self, name: str) -> list[Span]:
        return [span for span in self.kind("TOOL") if span["attributes"]["tool.name"] == name]

    def errors(self) -> list[Span]:
        return [span for span in self.spans if span["status"]["code"] == "STATUS_CODE_ERROR"]

    def ancestors(self, span: Span) -> list[Span]:
        found: list[Span] = []
        while span["parent_span_id"]:
            span = self.by_id[span["parent_span_id"]]
            found.append(span)
        return found

    def count_outcome(self, trace_ids: set[str], outcome: str) -> int:
        return len([trace_id for trace_id in trace_ids if self.outcome[trace_id] == outcome])

    def loops(self) -> list[list[Span]]:
        """Six or more tool calls in a row with the same tool and arguments, within one agent."""
        per_agent: defaultdict[str, list[Span]] = defaultdict(list)
        for span in sorted(self.kind("TOOL"), key=lambda span: span["start_time"]):
            per_agent[span["parent_span_id"]].append(span)
        found: list[list[Span]] = []
        for calls in per_agent.values():
            row: list[Span] = []
            for call in [*calls, None]:
                same = row and call is not None and _call(call) == _call(row[0])
                if not same:
                    if len(row) >= 6:
                        found.append(row)
                    row = []
                if call is not None:
                    row.append(call)
        return found

    def origins(self, key: str) -> list[Span]:
        """The spans at which a failure mode begins, told by what stands in them."""
        if key in HARD_ERRORS:
            tool, message = HARD_ERRORS[key]
            return [
                span
                for span in self.tool(tool)
                if span["status"]["code"] == "STATUS_CODE_ERROR" and re.fullmatch(message, span["status"]["message"])
            ]
        if key == "search_loop":
            return [span for loop in self.loops() for span in loop]
        if key == "refund_soft_error":
            return [
                s for s in self.tool("refund") if json.loads(s["attributes"]["output.value"]).get("isError") is True
            ]
        if key == "context_truncated":
            return [s for s in self.kind("LLM") if s["attributes"]["gen_ai.response.finish_reasons"] == ["length"]]
        assert key == "refusal"
        return [s for s in self.kind("LLM") if TEXT_ON_SOME_LINE["refusal"] in s["attributes"]["llm.output_messages"]]


def _call(span: Span) -> tuple[str, str]:
    return span["attributes"]["tool.name"], span["attributes"]["input.value"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoTruth, dict[str, Lines], Path]:
    directory = tmp_path_factory.mktemp("demo")
    truth = write_demo(directory)
    return truth, {run_id: Lines(directory / f"{run_id}.jsonl") for run_id in RUN_IDS}, directory


@pytest.fixture(params=RUN_IDS)
def run(request: pytest.FixtureRequest, demo: tuple[DemoTruth, dict[str, Lines], Path]) -> tuple[RunTruth, Lines]:
    truth, lines, _ = demo
    return (truth.before if request.param == "before" else truth.after), lines[request.param]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(
    demo: tuple[DemoTruth, dict[str, Lines], Path], tmp_path: Path
) -> None:
    truth, _, directory = demo
    assert write_demo(tmp_path / "again") == truth
    write_demo(tmp_path / "other", seed=8)
    for name in ("before.jsonl", "after.jsonl"):
        first = (directory / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert (tmp_path / "other" / name).read_bytes() != first
        assert len(first) < 4_100_000


def test_every_line_is_a_canonical_span(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    nine_digits = re.compile(r"2026-03-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
    for span in lines.spans:
        attributes = span["attributes"]
        kind = attributes["openinference.span.kind"]
        assert list(span) == TOP_LEVEL_KEYS
        assert re.fullmatch(r"[0-9a-f]{32}", span["trace_id"])
        assert re.fullmatch(r"[0-9a-f]{24}", span["span_id"])
        assert span["kind"] == ("SPAN_KIND_CLIENT" if kind == "LLM" else "SPAN_KIND_INTERNAL")
        assert nine_digits.fullmatch(span["start_time"])
        assert nine_digits.fullmatch(span["end_time"])
        assert span["start_time"] < span["end_time"]
        assert set(span["status"]) == {"code", "message"}
        assert span["resource"]["attributes"]["service.name"] == "support-harness"
        assert set(span["scope"]) == {"name", "version"}
        assert attributes.keys() >= ATTRIBUTES_ALWAYS_PRESENT
        assert attributes["inference.observation_kind"] == kind
        assert attributes["inference.export.schema_version"] == 1
        assert (attributes["inference.agent_name"] != "") == (kind in {"AGENT", "CHAIN"})
    assert {span["attributes"]["run.id"] for span in lines.spans if not span["parent_span_id"]} == {truth.run_id}


def test_ids_are_unique_and_children_come_before_parents_and_lie_within_them(run: tuple[RunTruth, Lines]) -> None:
    _, lines = run
    assert len(lines.by_id) == len(lines.spans)
    position = {span["span_id"]: number for number, span in enumerate(lines.spans)}
    for span in lines.spans:
        if span["parent_span_id"]:
            parent = lines.by_id[span["parent_span_id"]]
            assert parent["trace_id"] == span["trace_id"]
            assert position[span["span_id"]] < position[parent["span_id"]]
            assert parent["start_time"] < span["start_time"]
            assert span["end_time"] < parent["end_time"]


def test_spans_of_concurrent_traces_are_interleaved(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    changes = [a["trace_id"] != b["trace_id"] for a, b in pairwise(lines.spans)]
    assert sum(changes) > truth.spans / 2


def test_a_page_that_was_only_read_quotes_error_messages(run: tuple[RunTruth, Lines]) -> None:
    _, lines = run
    readers = [s for s in lines.tool("fetch_page") if "Error: card declined" in s["attributes"]["output.value"]]
    assert readers
    assert {span["status"]["code"] for span in readers} == {"STATUS_CODE_OK"}


def test_both_runs_attempt_the_same_tasks_and_share_no_ids(demo: tuple[DemoTruth, dict[str, Lines], Path]) -> None:
    _, lines, _ = demo
    attempts = {
        run_id: Counter((s["attributes"]["task.id"], s["attributes"]["trial"]) for s in lines[run_id].kind("AGENT")
                        if not s["parent_span_id"])
        for run_id in RUN_IDS
    }  # fmt: skip
    assert attempts["before"] == attempts["after"]
    assert set(attempts["before"].values()) == {1}
    assert not lines["before"].by_id.keys() & lines["after"].by_id.keys()
    assert not lines["before"].outcome.keys() & lines["after"].outcome.keys()


def test_a_trace_has_ten_to_twenty_five_spans_and_one_root(run: tuple[RunTruth, Lines]) -> None:
    _, lines = run
    sizes = Counter(span["trace_id"] for span in lines.spans)
    assert min(sizes.values()) >= 10
    assert max(sizes.values()) <= 25
    roots = Counter(span["trace_id"] for span in lines.spans if not span["parent_span_id"])
    assert roots == dict.fromkeys(sizes, 1)


def test_totals_equal_a_recount(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    assert truth.traces == len({span["trace_id"] for span in lines.spans})
    assert truth.spans == len(lines.raw)
    assert truth.llm_spans == len(lines.kind("LLM"))
    assert truth.pass_traces == list(lines.outcome.values()).count("pass")
    assert truth.fail_traces == list(lines.outcome.values()).count("fail")
    assert truth.pass_traces + truth.fail_traces == truth.traces


def test_tokens_are_those_of_llm_spans_and_roots_repeat_them(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    for field, total in (("prompt", truth.input_tokens), ("completion", truth.output_tokens)):
        key = f"llm.token_count.{field}"
        assert sum(span["attributes"][key] for span in lines.kind("LLM")) == total
        assert sum(span["attributes"].get(key, 0) for span in lines.spans) == 2 * total
    for root in (span for span in lines.spans if not span["parent_span_id"]):
        own = [s for s in lines.kind("LLM") if s["trace_id"] == root["trace_id"]]
        assert root["attributes"]["inference.llm.input_tokens"] == sum(
            s["attributes"]["inference.llm.input_tokens"] for s in own
        )


def test_the_conversation_of_an_agent_grows_with_every_turn(run: tuple[RunTruth, Lines]) -> None:
    _, lines = run
    turns: defaultdict[str, list[Span]] = defaultdict(list)
    for span in lines.kind("LLM"):
        turns[span["parent_span_id"]].append(span)
    for spans in turns.values():
        histories = [json.loads(span["attributes"]["llm.input_messages"]) for span in spans]
        tokens = [span["attributes"]["inference.llm.input_tokens"] for span in spans]
        for shorter, longer in pairwise(histories):
            assert longer[: len(shorter)] == shorter
        assert tokens == sorted(set(tokens))


def test_errors_are_counted_once_at_their_leaf(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    errors = lines.errors()
    above_an_error = {ancestor["span_id"] for span in errors for ancestor in lines.ancestors(span)}
    leaf_most = [span for span in errors if span["span_id"] not in above_an_error]
    assert truth.error_spans == len(errors)
    assert truth.original_error_spans == len(leaf_most)
    assert truth.propagated_error_spans == len(errors) - len(leaf_most)
    assert truth.error_traces == len({span["trace_id"] for span in errors})
    hard = [mode for mode in truth.failure_modes.values() if mode.status == "ERROR"]
    assert sum(mode.spans for mode in hard) == len(leaf_most)
    assert sum(mode.propagated_spans for mode in hard) == truth.propagated_error_spans


def test_tool_calls_and_failures_equal_a_recount(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    assert {name: (tool.calls, tool.failures) for name, tool in truth.tools.items()} == {
        name: (len(lines.tool(name)), len([s for s in lines.tool(name) if s["status"]["code"] == "STATUS_CODE_ERROR"]))
        for name in {span["attributes"]["tool.name"] for span in lines.kind("TOOL")}
    }


def test_exception_events_equal_a_recount(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    types = Counter(kind for line in lines.raw for kind in re.findall(r'"exception\.type":"(\w+)"', line))
    assert truth.exception_types == types


def test_failure_modes_equal_a_recount_from_what_stands_in_the_spans(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    explained: set[str] = set()
    for key, mode in truth.failure_modes.items():
        origins = lines.origins(key)
        trace_ids = {span["trace_id"] for span in origins}
        explained |= trace_ids
        assert mode.spans == len(origins)
        assert mode.traces == len(mode.trace_ids) == len(trace_ids)
        assert set(mode.trace_ids) == trace_ids
        assert mode.failed_traces == lines.count_outcome(trace_ids, "fail")
        assert {span["name"] for span in origins} <= {mode.span_name}
        assert {span["attributes"].get("tool.name", "") for span in origins} <= {mode.tool_name}
        assert {span["status"]["code"] for span in origins} <= {f"STATUS_CODE_{mode.status}"}
        if mode.status == "ERROR":
            messages = {(span["trace_id"], span["status"]["message"]) for span in origins}
            repeats = [s for s in lines.kind("AGENT") if (s["trace_id"], s["status"]["message"]) in messages]
            assert mode.propagated_spans == len(repeats)
        else:
            assert mode.propagated_spans == 0
    failing = {trace_id for trace_id, outcome in lines.outcome.items() if outcome == "fail"}
    assert truth.silent_fail_traces == len(failing - explained)


def test_a_text_search_over_raw_lines_finds_exactly_the_traces_of_a_failure_mode(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    for key, text in TEXT_ON_SOME_LINE.items():
        needle = text if key == "context_truncated" else json.dumps(text, ensure_ascii=False)[1:-1]
        hits = {span["trace_id"] for span, line in zip(lines.spans, lines.raw, strict=True) if needle in line}
        assert hits == set(truth.failure_modes[key].trace_ids), key


def test_loops_are_six_or_more_identical_calls_of_which_none_is_an_error(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    loops = lines.loops()
    assert len(loops) == truth.failure_modes["search_loop"].traces
    for loop in loops:
        assert {span["status"]["code"] for span in loop} == {"STATUS_CODE_OK"}
        assert lines.outcome[loop[0]["trace_id"]] == "fail"


def test_every_quote_stands_verbatim_in_the_named_span(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    for mode in truth.failure_modes.values():
        if mode.quote is None:
            assert mode.spans == 0
            continue
        span = lines.by_id[mode.quote.span_id]
        in_status = mode.quote.where == "status.message"
        text = span["status"]["message"] if in_status else span["attributes"][mode.quote.where]
        assert span["trace_id"] == mode.quote.trace_id == mode.trace_ids[0]
        assert mode.quote.text
        assert mode.quote.text in text


def test_the_decoy_is_as_common_among_passing_as_among_failing_traces(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    users = {span["trace_id"] for span in lines.tool(truth.decoy.tool_name)}
    assert truth.decoy.pass_traces == lines.count_outcome(users, "pass")
    assert truth.decoy.fail_traces == lines.count_outcome(users, "fail")
    pass_rate, fail_rate = truth.decoy.pass_traces / truth.pass_traces, truth.decoy.fail_traces / truth.fail_traces
    assert abs(pass_rate - fail_rate) < 0.02


def test_one_trace_is_too_large_for_any_view(run: tuple[RunTruth, Lines]) -> None:
    truth, lines = run
    sizes: Counter[str] = Counter()
    for span in lines.kind("TOOL"):
        sizes[span["trace_id"]] += len(span["attributes"]["output.value"])
    ((largest, chars),) = sizes.most_common(1)
    assert truth.largest_trace_id == largest
    assert chars > 200_000


def test_the_change_fixes_one_failure_mode_and_leaves_the_others(
    demo: tuple[DemoTruth, dict[str, Lines], Path],
) -> None:
    truth, _, _ = demo
    before, after = truth.before, truth.after
    assert after.pass_traces >= before.pass_traces + 20
    for key, mode in before.failure_modes.items():
        if key == "limit_rejected":
            assert mode.failed_traces > mode.traces / 2
            assert after.failure_modes[key].spans == 0
        else:
            assert abs(after.failure_modes[key].traces - mode.traces) <= 1


def test_failures_with_a_retry_recover_in_some_traces_and_not_in_others(run: tuple[RunTruth, Lines]) -> None:
    truth, _ = run
    for key in ("auth_expired", "fetch_timeout", "wrapped_error", "refund_soft_error", "context_truncated"):
        mode = truth.failure_modes[key]
        assert 0 < mode.failed_traces < mode.traces, key


def test_the_documented_truth_is_the_generated_one(demo: tuple[DemoTruth, dict[str, Lines], Path]) -> None:
    truth, _, _ = demo
    document = (Path(__file__).parent.parent / "docs" / "demo.md").read_text(encoding="utf-8")
    assert document == replace_truth(document, truth_markdown(truth)), (
        "docs/demo.md is out of date; run: python -m halo_mcp.demo docs/demo.md"
    )


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        replace_truth("# Nothing here", "| table |")
    assert replace_truth(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"
