"""The soak, and what docs/reliability.md says about it and about faults.

``HALO_SOAK_S=60`` runs the soak for so many seconds; without it, it is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.reliability.answers import EXPECTED, expected
from tests.reliability.faults_table import ELSEWHERE, with_faults
from tests.reliability.moving_source import MovingSource
from tests.reliability.process_tree import available, held_by
from tests.reliability.soak import CLIENTS, Soak, Soaked, table

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
SECONDS = float(os.environ.get("HALO_SOAK_S", "0"))


@pytest.mark.skipif(not (SECONDS and available), reason="HALO_SOAK_S is not set, or there is no /proc")
async def test_many_clients_get_documented_answers_and_leave_nothing_behind(tmp_path: Path) -> None:
    runs: list[Soaked] = []
    for attempt in ("first", "second"):  # memory moves with what runs together; a leak fails both
        directory = tmp_path / attempt
        directory.mkdir()
        runs.append(await Soak(directory, SECONDS, CLIENTS).run())
        if not runs[-1].faults():
            break
    assert runs[-1].faults() == [], "\n".join(map(table, runs))
    assert runs[-1].calls > 0


def test_the_table_of_faults_is_that_of_the_tests() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_faults(document) == document


def test_every_documented_error_of_the_soak_stands_in_the_document() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert [one.when for one in EXPECTED if one.when not in document] == []


def test_the_tests_that_the_table_takes_from_elsewhere_are_there() -> None:
    for one in ELSEWHERE:
        path, _, name = one.test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_an_internal_error_is_no_documented_answer() -> None:
    assert expected("Internal error in count_traces; the server's log has the details. Other calls still work.") is None
    assert expected("There is no file /a/b.jsonl. Check the path given to halo-mcp.") is not None


def test_a_rotated_source_holds_no_id_of_the_one_before(tmp_path: Path) -> None:
    moving = MovingSource(tmp_path / "live.jsonl", [b'{"trace_id":"0123456789abcdef0123456789abcdef"}'])
    before = moving.path.read_bytes().splitlines()
    moving.replace()
    after = moving.path.read_bytes().splitlines()
    moving.truncate_and_go_on()
    assert len(before) == len(after) == 120
    assert not set(before) & set(after)
    assert not set(after) & set(moving.path.read_bytes().splitlines())


@pytest.mark.skipif(not available, reason="there is no /proc")
def test_what_a_process_holds_is_counted() -> None:
    before = held_by(os.getpid())
    with DOCUMENT.open():
        assert held_by(os.getpid()).descriptors == before.descriptors + 1
    assert before.processes >= 1
    assert before.memory_bytes > 1_000_000
