"""What both sides are asked, and how they time it. Standard library only: it runs in the peer's environment too."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

LITERAL = "allowance exceeded for tenant 4711"
"""In 20 spans of 20 traces."""
ALTERNATION = "(?i)connection reset by peer|certificate has expired|no space left on device"
"""In the same 20 spans, in varying case."""
SEARCHED = "timed out"
"""In the error spans: about 3 % of all."""
RUNS = ("run-1", "run-2")
"""The first and the second half of the traces: the same tasks, attempted twice."""
VIEWED_TRACES = 200
PAGE = 50
AGAIN = 3
"""How often a call is repeated for its second figure (the median)."""

T = TypeVar("T")


class Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = call()
        self.seconds[name] = time.perf_counter() - started
        return result

    def time_twice(self, name: str, call: Callable[[], T]) -> T:
        """The first call, and as "NAME, again" the median of the next few."""
        result = self.time(name, call)
        again: list[float] = []
        for _ in range(AGAIN):
            self.time(name + ", again", call)
            again.append(self.seconds[name + ", again"])
        self.seconds[name + ", again"] = median(again)
        return result


def report(clock: Clock, answers: dict[str, int]) -> None:
    """Hand figures, answers and peak memory to the process that asked."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": clock.seconds, "answers": answers, "peak_bytes": peak}))
