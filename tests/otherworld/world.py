"""Writes the dataset and returns what is true about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random

from tests.otherworld.plan import PLAN, Injection, attempts
from tests.otherworld.stories import record
from tests.otherworld.truth import WorldTruth, count_world


def write_world(path: Path, *, seed: int = 11, plan: Mapping[str, Injection] = PLAN) -> WorldTruth:
    """Canonical JSON lines, ordered by end time, so that children come first and traces interleave.

    The same seed and plan give the same bytes.
    """
    planned = attempts(plan, Random(seed))
    recorded = [span for attempt in planned for span in record(attempt, seed)]
    recorded.sort(key=lambda item: int(item.span["end_time"]))
    lines = (json.dumps(item.span, ensure_ascii=False, separators=(",", ":")) for item in recorded)
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return count_world(recorded)
