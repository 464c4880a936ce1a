"""What instrumentations of others emit through the OpenTelemetry SDK is read in full, on every path."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Final

import pytest
from backports import zstd

from tests.example_runs import CALLS, networked, run_beside_model
from tests.formats.reading import read_file
from tests.tools.desk import Desk, desk_over

PROGRAM: Final = Path(__file__).with_name("producers.py")
CACHED: Final = {"openinference": 20, "openai-agents": 20, "gen-ai": 0}
"""Tokens; the last one does not record them."""


def assert_complete(desk: Desk, *, cached: int) -> None:
    """Model, agent, tool, tokens, the error and the messages, as the tools tell them."""
    overview = desk.data("get_dataset_overview")
    assert (overview["total_traces"], overview["error_trace_count"]) == (2, 1)
    assert (overview["model_names"], overview["agent_names"]) == (["m"], ["orders"])
    assert (overview["total_input_tokens"], overview["total_output_tokens"]) == (2 * (25 + 40), 2 * (12 + 8))
    rows = desk.data(
        "query_sql",
        sql="SELECT observation_kind AS kind, count(*) AS n, sum(cached_input_tokens) AS cached FROM spans "
        "WHERE observation_kind IN ('LLM', 'TOOL') GROUP BY 1 ORDER BY 1",
    )["rows"]
    assert [(row[0], row[1]) for row in rows] == [("LLM", CALLS), ("TOOL", 2)]
    assert (rows[0][2] or 0) == cached
    (mode,) = desk.data("list_failure_modes")["failure_modes"]
    assert mode["trace_count"] == 1
    assert "no order B-2" in json.dumps(mode)
    assert "get_order" in desk.text("analyze_tool_use")
    (failed,) = desk.data("query_traces", filters={"has_errors": True})["traces"]
    shown = desk.text("view_trace", trace_id=failed["trace_id"], detail="full")
    for words in ("You answer questions about orders.", "Where is order B-2", "get_order", "The tool says: "):
        assert words in shown


@networked
@pytest.mark.parametrize("producer", CACHED)
async def test_what_a_real_instrumentation_emits_is_read_in_full(producer: str, python: Path, tmp_path: Path) -> None:
    await run_beside_model(str(python), str(PROGRAM), producer, str(tmp_path), directory=tmp_path)
    lines, protobuf = tmp_path / "traces.jsonl", tmp_path / "traces.pb"
    packed, frames = tmp_path / "traces.jsonl.gz", tmp_path / "traces.pb.zst"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    frames.write_bytes(zstd.compress(protobuf.read_bytes()))
    by_id = read_file(lines, tmp_path / "first").by_id
    for path, name in (
        (lines, "otlp-json"),
        (packed, "otlp-json"),
        (protobuf, "otlp-protobuf"),
        (frames, "otlp-protobuf"),
    ):
        found = read_file(path, tmp_path / f"index of {path.name}")
        assert (found.format, found.skipped, found.by_id) == (name, [], by_id)
        assert_complete(desk_over(tmp_path / f"desk of {path.name}", path), cached=CACHED[producer])
