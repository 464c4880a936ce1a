"""Clients that others wrote list the tools, see progress, cancel, and call again, over stdio and HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from halo_mcp.server import TOOL_NAMES
from tests import node_packages as npm
from tests import python_packages as pypi
from tests.conformance.kinds import KINDS, Kind
from tests.conformance.packages import flagged
from tests.conformance.slow_server import BUILT, STOPPED, WAITS
from tests.node_packages import NodePackage
from tests.server.asking import traces
from tests.server.over_http import plain_environment, serving_http
from tests.server.test_stdio import ROOT

PATIENCE_S: Final = 300
PROGRAMS: Final = Path(__file__).parent / "clients"


async def seen_by(kind: Kind, tmp_path: Path, **connection: Any) -> dict[str, Any]:
    """What the client says that it saw."""
    asked = {"era": kind.era, "notes": str(tmp_path / "notes"), **connection}
    if isinstance(kind.package, NodePackage):
        package = kind.package
        asked["modules"] = str(await _in_thread(lambda: npm.modules(package)))
        interpreter = await _in_thread(npm.node)
    else:
        library = kind.package
        interpreter = await _in_thread(lambda: pypi.python_with(library))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HALO_MCP_"))}
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process(
            [str(interpreter), str(PROGRAMS / kind.program), json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode().splitlines()[-1])


async def _in_thread(package: Callable[[], Path]) -> Path:
    return await anyio.to_thread.run_sync(npm.here, package)


def assert_all_well(kind: Kind, seen: dict[str, Any], notes: list[str]) -> None:
    assert (seen["server"], seen["protocol"]) == ("halo", kind.protocol)
    if kind.shows_progress:
        assert seen["progress"][0] == "a build that waits"
    assert seen["tools"] == [*TOOL_NAMES]
    assert seen["cancelled"]
    assert seen["text"] == "3 traces match."
    assert seen["wrong"].startswith("Invalid arguments for count_traces:\n- filter: Extra inputs are not permitted")
    assert seen["total"] == 3
    # The work of the cancelled call was stopped, before the next call did its own.
    assert notes[:3] == [WAITS, STOPPED, BUILT]


@flagged
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_client_lists_cancels_and_calls_over_stdio(kind: Kind, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    arguments = ["-m", "tests.conformance.slow_server", str(notes), str(traces(tmp_path))]
    environment = {**plain_environment(tmp_path), "PYTHONPATH": str(ROOT)}
    seen = await seen_by(kind, tmp_path, command=sys.executable, args=arguments, env=environment)
    assert_all_well(kind, seen, notes.read_text(encoding="utf-8").splitlines())


@flagged
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_client_lists_cancels_and_calls_over_http(kind: Kind, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = ["-m", "tests.conformance.slow_server", str(notes)]
    async with serving_http(tmp_path, str(traces(tmp_path)), patience_s=PATIENCE_S, program=program) as server:
        seen = await seen_by(kind, tmp_path, url=server.url)
    assert_all_well(kind, seen, notes.read_text(encoding="utf-8").splitlines())
