"""``python -m tests.server.record`` writes tools/list, as a client sees it, to tools.json. Read the difference."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import anyio

from tests.server.test_surface import RECORDED, listed


async def _record() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        RECORDED.write_text(json.dumps(await listed(Path(scratch), "auto"), indent=1) + "\n")


if __name__ == "__main__":
    anyio.run(_record)
