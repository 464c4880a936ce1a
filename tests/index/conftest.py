"""The sample dataset, indexed once: each file alone, and both together."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from halo_mcp.demo import DemoTruth, RunTruth, write_demo
from halo_mcp.index.local import LocalStore
from tests.builders import Record, open_store

Traces = dict[str, list[Record]]


@dataclass(frozen=True)
class Demo:
    """One file of the dataset, or both: a store over it, and the spans as nothing but a JSON parser sees them."""

    store: LocalStore
    runs: tuple[RunTruth, ...]
    lines: tuple[bytes, ...]
    traces: Traces


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Demo]:
    directory = tmp_path_factory.mktemp("demo")
    truth = write_demo(directory)
    return {
        "before": _demo(directory, (truth.before,)),
        "after": _demo(directory, (truth.after,)),
        "both": _demo(directory, _runs(truth)),
    }


def _runs(truth: DemoTruth) -> tuple[RunTruth, ...]:
    return (truth.before, truth.after)


def _demo(directory: Path, runs: tuple[RunTruth, ...]) -> Demo:
    paths = [directory / f"{run.run_id}.jsonl" for run in runs]
    lines = [line for path in paths for line in path.read_bytes().splitlines()]
    traces: defaultdict[str, list[Record]] = defaultdict(list)
    for line in lines:
        record: Record = json.loads(line)
        traces[record["trace_id"]].append(record)
    return Demo(open_store(directory, *paths, name="demo"), runs, tuple(lines), dict(traces))


@pytest.fixture(params=["before", "after", "both"])
def demo(request: pytest.FixtureRequest, demos: dict[str, Demo]) -> Demo:
    return demos[request.param]


@pytest.fixture
def before(demos: dict[str, Demo]) -> Demo:
    return demos["before"]
