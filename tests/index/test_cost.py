"""Where tokens go, against hand-made traces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.config import load_settings
from halo_mcp.errors import BadArgument
from halo_mcp.index.cost import CostGroup, CostReport, TraceCost
from halo_mcp.index.failure_rules import DEFAULT_RULES
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.prices import ModelPrice, PriceTable, read_prices
from halo_mcp.index.work import Work
from tests.builders import Record, agent, llm, span, store_of, write_lines

PRICES = PriceTable({"m": ModelPrice(2.0, 8.0, 0.5), "m-large": ModelPrice(10.0, 10.0, 10.0)})


def calls(
    tokens: Sequence[tuple[int, int]], *, trace: str = "t1", name: str = "helper", model: str = "m-1", **attributes: Any
) -> list[Record]:
    """LLM calls of one agent, 10 ms apart."""
    return [
        llm(
            f"{name}-{no}",
            trace=trace,
            start_ms=10 * no,
            tokens=pair,
            attributes={"agent.name": name, "llm.model_name": model, **attributes},
        )
        for no, pair in enumerate(tokens)
    ]


def tool(name: str, *, after: int, output: str = "x", trace: str = "t1", **rest: Any) -> Record:
    """A tool call behind so many LLM calls."""
    attributes = {"agent.name": "helper", "tool.name": name, "output.value": output}
    start_ms = 10 * after - 5
    return span(f"{name}-{after}", trace=trace, kind="TOOL", start_ms=start_ms, attributes=attributes, **rest)


def cost(store: LocalStore, prices: PriceTable | None = None, **filters: Any) -> CostReport:
    return store.cost(TraceFilters(**filters), prices, Work())


def usage(report: CostReport, group: CostGroup) -> dict[str, tuple[int, int, int]]:
    return {u.name: (u.calls, u.input_tokens, u.output_tokens) for u in report.groups[group]}


def test_tokens_are_counted_by_model_agent_turn_run_and_outcome(tmp_path: Path) -> None:
    report = cost(
        store_of(
            tmp_path,
            *calls([(100, 10), (200, 20)], **{"run.id": "r1", "task.outcome": "pass"}),
            *calls([(50, 5)], name="boss", model="m-2"),
            *calls([(7, 1)], trace="t2", model="m-2"),
        )
    )
    assert (report.traces, report.calls, report.total.input_tokens, report.total.output_tokens) == (2, 4, 357, 36)
    assert usage(report, "model") == {"m-1": (2, 300, 30), "m-2": (2, 57, 6)}
    assert usage(report, "agent") == {"helper": (3, 307, 31), "boss": (1, 50, 5)}
    assert usage(report, "turn") == {"1": (3, 157, 16), "2": (1, 200, 20)}
    assert usage(report, "run") == {"r1": (3, 350, 35), "(no run)": (1, 7, 1)}
    assert usage(report, "outcome") == {"pass": (3, 350, 35), "unknown": (1, 7, 1)}


def test_agent_spans_that_repeat_usage_are_not_counted_and_those_that_stand_alone_are_named(tmp_path: Path) -> None:
    repeated = {"llm.token_count.prompt": 1_000, "llm.token_count.completion": 1}
    report = cost(
        store_of(
            tmp_path,
            agent("root", name="helper", attributes=repeated),
            *calls([(100, 10)]),
            agent("alone", name="helper", trace="t2", attributes=repeated),
        )
    )
    assert report.total.input_tokens == 100
    assert (report.agent_only_traces, report.agent_only_tokens) == (1, 1_001)


def test_calls_without_tokens_are_told_and_count_in_no_turn(tmp_path: Path) -> None:
    report = cost(store_of(tmp_path, llm("silent", attributes={"agent.name": "helper"}), *calls([(100, 10)])))
    assert (report.calls, report.calls_without_input) == (2, 1)
    assert sum(turn.calls for turn in report.turns) == 1


def test_context_by_turn_has_median_and_ninetieth_percentile(tmp_path: Path) -> None:
    records = [r for i in range(11) for r in calls([(100 + i, 1), (500, 1)], trace=f"t{i}")]
    first, second = cost(store_of(tmp_path, *records)).turns
    assert (first.turn, first.calls, first.median, first.p90) == (1, 11, 105.0, 109.0)
    assert (second.turn, second.calls, second.median, second.p90) == (2, 11, 500.0, 500.0)


def test_what_the_previous_call_had_already_is_sent_again(tmp_path: Path) -> None:
    # 100 + 10 of the second call's 150; of the third, all 90: it is smaller than what came before.
    report = cost(store_of(tmp_path, *calls([(100, 10), (150, 20), (90, 1)]), *calls([(80, 1)], name="other")))
    assert report.resent_tokens == 110 + 90


def test_context_growth_is_the_tools_between_two_calls_by_the_length_of_their_outputs(tmp_path: Path) -> None:
    report = cost(
        store_of(
            tmp_path,
            *calls([(100, 10), (510, 0), (600, 0)]),
            tool("long", after=1, output="x" * 299),
            tool("short", after=1, output="x" * 99),
            tool("last", after=3),
        )
    )
    tools = {t.name: (t.calls, t.followed, t.tokens, t.output_chars) for t in report.tools}
    assert report.growth == 400 + 90
    assert tools == {"long": (1, 1, 300, 299), "short": (1, 1, 100, 99), "last": (1, 0, 0, 1)}


def test_tools_of_another_agent_or_trace_do_not_explain_growth(tmp_path: Path) -> None:
    elsewhere = tool("find", after=1, trace="t2")
    other = tool("find", after=1) | {"attributes": {"agent.name": "other", "tool.name": "find"}}
    other["attributes"]["inference.observation_kind"] = "TOOL"
    report = cost(store_of(tmp_path, *calls([(100, 0), (300, 0)]), elsewhere, other))
    assert [(t.calls, t.followed, t.tokens) for t in report.tools] == [(2, 0, 0)]
    assert report.growth == 200


def test_tokens_after_the_first_and_after_the_last_failure_of_failing_traces(tmp_path: Path) -> None:
    report = cost(
        store_of(
            tmp_path,
            *calls([(100, 0), (200, 0), (400, 0)], **{"task.outcome": "fail"}),
            tool("find", after=1, error="boom"),
            tool("save", after=2, error="bang"),
            *calls([(1_000, 0)], trace="silent", **{"task.outcome": "fail"}),
            *calls([(1, 0), (2, 0)], trace="passes", **{"task.outcome": "pass"}),
            tool("find", after=1, trace="passes", error="boom"),
        )
    )
    failing = report.failing
    assert (failing.by_outcome, failing.traces, failing.tokens) == (True, 2, 1_700)
    assert (failing.with_failure, failing.with_failure_tokens) == (1, 700)
    assert (failing.after_first, failing.after_last) == (600, 400)


def test_without_outcomes_traces_with_a_failure_stand_for_failing_ones(tmp_path: Path) -> None:
    records = [*calls([(100, 0), (200, 0)]), tool("find", after=1, error="boom"), *calls([(5, 0)], trace="t2")]
    failing = cost(store_of(tmp_path, *records)).failing
    assert (failing.by_outcome, failing.traces, failing.tokens, failing.after_last) == (False, 1, 300, 200)


def test_money_comes_from_the_longest_matching_name_and_is_missing_without_a_table(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        *calls([(1_000_000, 500_000)], trace="t1"),
        *calls([(1_000_000, 0)], trace="t2", model="m-large-2"),
        *calls([(9_000_000, 0)], trace="t3", model="other"),
    )
    report = cost(store, PRICES)
    assert {u.name: u.usd for u in report.groups["model"]} == {"m-1": 6.0, "m-large-2": 10.0, "other": 0.0}
    assert (report.total.usd, report.unpriced_models) == (16.0, ("other",))
    assert [trace.trace_id for trace in report.expensive] == ["t2", "t1", "t3"]
    without = cost(store)
    assert (without.total.usd, without.unpriced_models) == (None, ())
    assert without.expensive[0] == TraceCost("t3", 1, 9_000_000, 0, "unknown", None)


@pytest.mark.parametrize(
    "given, cached, usd, beside",
    [
        pytest.param(1_000_000, 400_000, 0.6 * 2 + 0.4 * 0.5, (), id="part of the input"),
        pytest.param(1_000_000, 4_000_000, 2.0 + 4 * 0.5, ("m-1",), id="beside the input"),
    ],
)
def test_cached_tokens_are_priced_as_part_of_input_unless_there_are_more_of_them(
    tmp_path: Path, given: int, cached: int, usd: float, beside: tuple[str, ...]
) -> None:
    told: dict[str, Any] = {"inference.llm.cached_input_tokens": cached}
    report = cost(store_of(tmp_path, *calls([(given, 0)], **told)), PRICES)
    assert report.total.usd == pytest.approx(usd)  # pyright: ignore[reportUnknownMemberType]  # pytest's own gap
    assert (report.cached_told_input, report.beside_models) == (given, beside)


def test_filters_choose_the_traces(tmp_path: Path) -> None:
    store = store_of(tmp_path, *calls([(100, 10)]), *calls([(7, 1)], trace="t2"))
    assert cost(store, trace_ids=["t2"]).total.input_tokens == 7
    nothing = cost(store, trace_ids=["nowhere"])
    assert (nothing.traces, nothing.calls, nothing.turns, nothing.tools, nothing.expensive) == (0, 0, (), (), ())


def test_only_failures_by_the_configured_rules_count_as_failures(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "traces.jsonl",
        *calls([(100, 10), (200, 20)], **{"task.outcome": "fail"}),
        tool("find", after=1, output='{"isError": true, "content": "not found"}'),
    )
    for rules, after_the_failure in ((DEFAULT_RULES, 220), (("refusal",), 0)):
        store = LocalStore("data", [str(file)], tmp_path / "index", soft_rules=rules)
        store.refresh(Work())
        assert cost(store).failing.after_last == after_the_failure


# --- price tables -----------------------------------------------------------------------------------------------------
def test_a_price_file_is_named_by_argument_or_environment(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"m": {"input": 2, "output": 8, "cached_input": 0.5}, "n": {"input": 1, "output": 1}}))
    settings = load_settings(prices=file, environ={})
    assert settings.prices == PriceTable({"m": ModelPrice(2, 8, 0.5), "n": ModelPrice(1, 1, 1)})
    assert load_settings(environ={"HALO_MCP_PRICES": str(file)}).origins["prices"] == "environment"
    assert load_settings(environ={}).prices is None


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"m": 3}',
        '{"m": {"input": 1}}',
        '{"m": {"input": -1, "output": 1}}',
        '{"m": {"input": "1", "output": 1}}',
        '{"m": {"input": 1, "output": 1, "cache": 1}}',
    ],
)
def test_a_price_file_that_cannot_be_used_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(BadArgument, match=r"prices.json cannot be used: .*per million tokens"):
        read_prices(file)


def test_a_price_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"gone.json cannot be used: No such file"):
        read_prices(tmp_path / "gone.json")
