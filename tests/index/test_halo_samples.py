"""HALO's own sample files, where they stand beside the repository."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import Record, open_store, places, report_of

SAMPLES = sorted((Path(__file__).parents[3] / "shared" / "data" / "halo").glob("*.jsonl"))


def _is_llm(record: Record) -> bool:
    return record["attributes"].get("inference.observation_kind") == "LLM"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_indexed_without_a_single_problem(tmp_path: Path, path: Path) -> None:
    lines = path.read_bytes().splitlines()
    records: list[Record] = [json.loads(line) for line in lines]
    store = open_store(tmp_path, path)

    report, overview = report_of(store), store.overview(TraceFilters(), Work())
    assert (report.lines_read, report.spans_indexed, report.problems) == (len(lines), len(lines), [])
    assert [place.read() for _, place in places(store)] == lines
    assert overview.total_traces == len({record["trace_id"] for record in records})
    kinds = Counter(record["attributes"].get("inference.observation_kind", "SPAN") for record in records)
    assert {kind.name: kind.spans for kind in overview.kinds} == kinds
    assert overview.input_tokens == sum(
        record["attributes"].get("inference.llm.input_tokens") or 0 for record in records if _is_llm(record)
    )
    for trace_id in {record["trace_id"] for record in records}:
        assert len(store.payloads(trace_id)) == store.trace(trace_id).span_count


def test_two_samples_are_one_dataset(tmp_path: Path) -> None:
    tiny = [path for path in SAMPLES if path.stem.startswith("tiny")]
    if len(tiny) < 2:
        pytest.skip("HALO's samples are not here")
    store = open_store(tmp_path, *tiny)
    lines = [json.loads(line) for path in tiny for line in path.read_bytes().splitlines()]
    assert store.info().total_spans == len(lines)
    assert store.info().total_traces == len({record["trace_id"] for record in lines})
