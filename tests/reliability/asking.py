"""A few questions whose right answers are known, asked of a server that something was done to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from tests.builders import Record, llm, span
from tests.reliability.process_tree import family
from tests.tools.desk import Caller

COUNT: Final = 40
WORD: Final = "marmalade"
QUESTIONS: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("count_traces", {}),
    ("query_traces", {"limit": 50, "sort_by": "start_time"}),
    ("view_trace", {"trace_id": "t1"}),
    ("search_dataset", {"pattern": WORD}),
    ("query_sql", {"sql": "SELECT name, count(*) AS n FROM spans GROUP BY ALL ORDER BY ALL"}),
    ("list_failure_modes", {}),
)
"""From the index, and from the source; by the server, and by a worker process."""
NOT_TOLD: Final = ("Traceback", "Internal error", "Error executing tool")


def records(count: int = COUNT) -> list[Record]:
    """Traces t0, t1, ... of two spans each, whose payloads hold WORD."""
    made: list[Record] = []
    for number in range(count):
        trace = f"t{number}"
        made.append(span(f"a{number}", trace=trace, start_ms=number, attributes={"input.value": f"{WORD} {number}"}))
        made.append(llm(f"b{number}", f"a{number}", trace=trace, start_ms=number, error="" if number % 3 else "boom"))
    return made


async def answers(caller: Caller) -> list[Any]:
    """What each question is answered; none may be an error."""
    return [await caller.json(tool, **arguments) for tool, arguments in QUESTIONS]


async def met(caller: Caller, right: Sequence[Any]) -> list[str]:
    """Ask everything while a fault may be met: returns the errors. What is no error must be the right answer."""
    errors: list[str] = []
    for (tool, arguments), wanted in zip(QUESTIONS, right, strict=True):
        result = await caller.client.call_tool(tool, {**arguments, "response_format": "json"})
        if result.is_error:
            (block,) = result.content
            text = block.model_dump()["text"]
            assert not any(word in text for word in NOT_TOLD), text
            errors.append(text)
        else:
            assert without_times(result.structured_content) == without_times(wanted), tool
    return errors


def without_times(answer: Any) -> Any:
    """An answer without how long it took."""
    if not isinstance(answer, Mapping):
        return answer
    return {key: value for key, value in cast("Mapping[str, Any]", answer).items() if key != "elapsed_ms"}


def workers(pid: int, script: str) -> list[int]:
    """The worker processes of a server that run this script."""
    found: list[int] = []
    for member in [*family(pid)][1:]:
        try:
            if script.encode() in Path(f"/proc/{member}/cmdline").read_bytes():
                found.append(member)
        except OSError:
            pass  # it has just ended
    return found


def index_of(tmp_path: Path) -> Path:
    """The directory of the only index."""
    (found,) = [path for path in (tmp_path / "index").iterdir() if (path / "manifest.json").exists()]
    return found


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
