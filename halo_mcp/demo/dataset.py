"""Writes the sample dataset: two runs of a support harness over the same tasks, before and after a change."""

import json
from datetime import UTC, datetime
from pathlib import Path

from halo_mcp.demo.harness import Recorded, Run
from halo_mcp.demo.plan import Task, make_tasks, plan_run
from halo_mcp.demo.stories import record_trace
from halo_mcp.demo.truth import DemoTruth, RunTruth, count_run

BEFORE = Run("before", "1.4.0", datetime(2026, 3, 2, 9, tzinfo=UTC))
AFTER = Run("after", "1.5.0", datetime(2026, 3, 9, 9, tzinfo=UTC))
START_INTERVAL_US = 4_000_000
"""A trace lasts longer than this, so the spans of neighbouring traces are interleaved in the file."""


def write_demo(directory: Path, *, seed: int = 7) -> DemoTruth:
    """Writes `before.jsonl` and `after.jsonl` and returns what is true about them.

    Canonical JSON lines, one span per line, ordered by end time. The same seed gives the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tasks = make_tasks(seed)
    return DemoTruth(
        before=_write_run(directory / "before.jsonl", BEFORE, tasks, seed),
        after=_write_run(directory / "after.jsonl", AFTER, tasks, seed),
    )


def _write_run(path: Path, run: Run, tasks: list[Task], seed: int) -> RunTruth:
    recorded: list[Recorded] = []
    for number, attempt in enumerate(plan_run(run.id, tasks, seed)):
        recorded += record_trace(run, attempt, number * START_INTERVAL_US, seed)
    recorded.sort(key=lambda item: item.span["end_time"])
    lines = (json.dumps(span, ensure_ascii=False, separators=(",", ":")) for span, _ in recorded)
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return count_run(run.id, recorded)
