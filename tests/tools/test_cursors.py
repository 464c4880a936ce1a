"""Cursors that were tampered with, progress, and answers that cannot be written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.errors import InvalidCursor
from halo_mcp.tools import publish as publishing
from halo_mcp.tools.params import Answer, decode_cursor, encode_cursor
from tests.builders import START_NANO, span, write_lines
from tests.tools.desk import desk_over, serving

ARGUMENTS: dict[str, Any] = {"filters": {}, "sort_by": "start_time"}
Position = tuple[float | int, str]


@pytest.mark.parametrize(
    "state",
    [{"a": 1, "b": 2}, [1], [1, 2], ["1", "t1"], [True, "t1"], [1, "t1", 2], [[1], "t1"], "ab", 7, None],
)
def test_a_cursor_whose_state_has_another_shape_is_refused(tmp_path: Path, state: Any) -> None:
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", span()))
    with pytest.raises(InvalidCursor):
        desk.ask("query_traces", cursor=encode_cursor("query_traces", "data", ARGUMENTS, state))


@pytest.mark.parametrize("state", [(START_NANO + 1, "t1"), (-0.5, "t1")])
def test_a_position_comes_back_as_it_was(state: Position) -> None:
    cursor = encode_cursor("query_traces", "data", ARGUMENTS, state)
    back = decode_cursor(cursor, "query_traces", "data", ARGUMENTS, Position)
    assert back == state
    assert type(back[0]) is type(state[0])


def test_without_a_shape_any_state_comes_back() -> None:
    assert decode_cursor(encode_cursor("t", "d", {}, ["full", 1, 0]), "t", "d", {}) == ["full", 1, 0]


def test_pages_of_traces_one_nanosecond_apart_lose_none(tmp_path: Path) -> None:
    lines = [span(f"s{i}", trace=f"t{i}", start_time=str(START_NANO + i)) for i in range(5)]
    desk = desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *lines))
    seen, cursor = list[str](), ""
    for _ in lines:
        page = desk.data("query_traces", limit=1, cursor=cursor)
        seen += [trace["trace_id"] for trace in page["traces"]]
        cursor = page["next_cursor"] or ""
    assert (seen, cursor) == (["t0", "t1", "t2", "t3", "t4"], "")


async def test_half_a_surrogate_pair_is_an_argument_error(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "traces.jsonl", span())
    async with serving(tmp_path, {"data": [source]}) as caller:
        for tool, arguments in (
            ("count_traces", {"filters": {"tool_names": ["\ud800"]}}),
            ("query_traces", {"filters": {"project_id": "\ud800"}}),
            ("view_trace", {"trace_id": "\ud800"}),
        ):
            assert f"Invalid arguments for {tool}" in await caller.error(tool, **arguments)


async def test_an_answer_that_json_cannot_hold_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> Answer:
        return Answer("text", {"tokens": 2**70})

    monkeypatch.setattr(publishing, "answer", too_large)
    source = write_lines(tmp_path / "traces.jsonl", span())
    async with serving(tmp_path, {"data": [source]}) as caller:
        result = await caller.client.call_tool("count_traces", {"response_format": "json"})
    assert result.is_error
    assert "Internal error in count_traces; the server's log has the details." in str(result.content)


def test_progress_always_grows_and_never_passes_one() -> None:
    sent, values = -1.0, list[float]()
    for share in [0.0, 0.5, 0.2, 1.0, *[1.0] * 20_000, 7.0]:
        sent = publishing.growing(sent, share)
        values.append(sent)
    assert values[:2] == [0.0, 0.5]
    assert all(before < after for before, after in pairwise(values))
    assert values[-1] <= 1.0
