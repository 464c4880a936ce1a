"""States of an index that were superseded: they must not stay open until the garbage collector finds them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from halo_mcp.errors import SourceChanged
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.work import Work
from halo_mcp.tools.threads import run_in_thread
from tests.builders import append_lines, span, write_lines
from tests.reliability.asking import QUESTIONS, WORD, records
from tests.sandbox.interpreter import ARTEFACT
from tests.tools.desk import ERAS, Era, serving

CODE: Final = "count_traces()\nspans()\ntry:\n    view_trace('nowhere')\nexcept Exception as error:\n    print(error)"
REFUSED: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("view_trace", {"trace_id": "nowhere"}),
    ("view_spans", {"trace_id": "t1", "span_ids": ["nowhere"]}),
    ("search_trace", {"trace_id": "t1", "pattern": "("}),
    ("query_traces", {"cursor": "nowhere"}),
    ("query_sql", {"sql": "SELECT nothing FROM spans"}),
)
MORE: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("contrast_traces", {}),
    ("count_traces", {"filters": {"regex_pattern": WORD}}),
    *((("run_code", {"code": CODE}),) if ARTEFACT.exists() else ()),
)


@pytest.fixture
def uncollected() -> Generator[None]:
    """Without the garbage collector: what is alive is held, or lies in a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def opened_states() -> list[Snapshot]:
    return [one for one in gc.get_objects() if isinstance(one, Snapshot)]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("era", ERAS)
async def test_an_answered_call_leaves_the_newest_state_open_and_no_other(tmp_path: Path, era: Era) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    others = len(opened_states())
    left, asked = list[str](), "nothing"
    async with serving(tmp_path, {"data": [path]}, era=era) as caller:
        for tool, arguments in (*QUESTIONS, *MORE, *REFUSED, ("count_traces", {})):
            append_lines(path, span("more", trace=f"before {tool}"))
            result = await caller.client.call_tool(tool, dict(arguments))
            assert result.is_error == ((tool, arguments) in REFUSED), result.content
            if len(opened_states()) > others + 1:
                left.append(asked)
                others = len(opened_states()) - 1
            asked = tool
    assert left == []


@pytest.mark.usefixtures("uncollected")
async def test_an_error_keeps_nothing_of_what_its_call_worked_on() -> None:
    worked_on: list[weakref.ref[Work]] = []

    def call(work: Work) -> None:
        state = Work()
        worked_on.append(weakref.ref(state))

        def ask() -> None:
            raise SourceChanged(f"{state}")

        try:
            ask()
        except SourceChanged:
            ask()  # once more, as a call on a file that changes twice

    with pytest.raises(SourceChanged) as error:
        await run_in_thread(call, Work())
    assert isinstance(error.value.__context__, SourceChanged)
    assert [one() for one in worked_on] == [None]
