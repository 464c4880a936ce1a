"""Numbers and times at and beyond the ends of 64 bits: unknown, never a reason to lose the dataset."""

from __future__ import annotations

from pathlib import Path

import duckdb
import orjson
import pytest
from pydantic import ValidationError

from halo_mcp.errors import IndexFailure, InvalidTime
from halo_mcp.index.duck import failing_as_index
from halo_mcp.index.filters import TraceFilters, parse_time
from halo_mcp.index.work import Work
from tests.builders import START_NANO, llm, span, store_of, trace_ids

BEYOND = [
    "9999999999",
    "9999999999999",
    "9999999999999999",
    "9223372036854775807",
    "2262-04-11T23:00:00-12:00",
    "1677-09-21T00:12:44+12:00",
    "infinity",
    "-infinity",
    "epoch",
]


@pytest.mark.parametrize("text", BEYOND)
def test_a_time_beyond_64_bits_or_in_words_is_unknown_and_the_rest_is_indexed(tmp_path: Path, text: str) -> None:
    store = store_of(tmp_path, span("s1", start_time=text, end_time=text), span("s2", trace="t2"))
    rows = {row.trace_id: row for row in store.traces(TraceFilters(), "start_time", 9, None, Work()).traces}
    assert (rows["t1"].start_time_unix_nano, rows["t1"].end_time_unix_nano) == (None, None)
    assert rows["t2"].start_time_unix_nano == START_NANO
    assert store.count(TraceFilters(), "day", Work())


def test_a_trace_that_lasts_centuries_can_be_sorted_and_filtered(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        span("s1", start_time="1690-01-01T00:00:00Z", end_time="2250-01-01T00:00:00Z"),
        span("s2", trace="t2", ms=1),
    )
    page = store.traces(TraceFilters(), "-duration_ms", 9, None, Work())
    assert [trace.trace_id for trace in page.traces] == ["t1", "t2"]
    assert trace_ids(store, min_duration_ms=2) == ["t1"]
    assert trace_ids(store, min_duration_ms=1, max_duration_ms=1) == ["t2"]


@pytest.mark.parametrize("tokens", [-1, 10**12 + 1, 2**63 - 1, "9223372036854775807", 10**30])
def test_tokens_that_cannot_be_count_as_not_set(tmp_path: Path, tokens: int | str) -> None:
    store = store_of(
        tmp_path,
        *(llm(f"s{i}", tokens=(tokens, tokens), attributes={"llm.token_count.prompt": 7}) for i in range(3)),
    )
    overview = store.overview(TraceFilters(), Work())
    assert (overview.input_tokens, overview.output_tokens) == (21, 0)
    assert [row.output_tokens for row in store.spans("t1")] == [None] * 3


def test_the_most_tokens_that_count_add_up(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(llm(f"s{i}", tokens=(10**12, 0)) for i in range(3)))
    assert orjson.dumps(store.overview(TraceFilters(), Work()).input_tokens) == b"3000000000000"


@pytest.mark.parametrize(
    "raised", [duckdb.OutOfRangeException, duckdb.ConversionException, duckdb.IOException, duckdb.InternalException]
)
def test_what_duckdb_cannot_do_is_one_short_line_about_the_index(tmp_path: Path, raised: type[duckdb.Error]) -> None:
    with pytest.raises(IndexFailure) as failure, failing_as_index(tmp_path):
        raise raised("x" * 999 + "\nmore")
    assert "x" * 300 in str(failure.value)
    assert "x" * 301 not in str(failure.value)
    assert "more" not in str(failure.value)


def test_a_duckdb_error_without_words_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(IndexFailure, match="OutOfRangeException"), failing_as_index(tmp_path):
        raise duckdb.OutOfRangeException("")


@pytest.mark.parametrize("raised", [duckdb.InterruptException, duckdb.InvalidInputException])
def test_interruptions_and_refused_input_stay_what_they_are(tmp_path: Path, raised: type[duckdb.Error]) -> None:
    with pytest.raises(raised), failing_as_index(tmp_path):
        raise raised("as it is")


@pytest.mark.parametrize("text", ["1" * 5000, "2026-03-02T09:00:00." + "1" * 5000 + "Z", "x" * 65])
def test_a_time_of_thousands_of_characters_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(InvalidTime) as refused:
        parse_time("start_time_gte", text)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "given",
    [
        {"tool_names": ["\ud800"]},
        {"trace_ids": ["t\udfff"]},
        {"project_id": "\ud800"},
        {"start_time_gte": "\ud800"},
        {"regex_pattern": "\ud800"},
        {"attributes": [{"key": "\ud800"}]},
        {"attributes": [{"key": "k", "value": "\ud800"}]},
    ],
)
def test_half_a_surrogate_pair_is_refused_in_every_filter(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="holds half of a surrogate pair, which is no character"):
        TraceFilters.model_validate(given)
