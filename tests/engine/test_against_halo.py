"""What this engine does where HALO's own fails; the figures are those of the table in docs/engine.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from halo_mcp.engine.settings import Wire
from tests.engine.against_halo import ROWS, Row, line
from tests.engine.harness import WIRES

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "engine.md"


@WIRES
@pytest.mark.parametrize("row", ROWS, ids=[row.measure.__name__ for row in ROWS])
async def test_the_documented_figure_is_what_is_measured(row: Row, wire: Wire) -> None:
    measured = await row.measure(wire)
    found = [text for text in DOCUMENT.read_text(encoding="utf-8").splitlines() if text.startswith(line(row, "")[:-2])]
    assert found == [line(row, measured)], "python -m tests.engine.against_halo docs/engine.md brings it up to date"
