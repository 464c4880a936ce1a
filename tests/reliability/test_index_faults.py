"""Index directories that are deleted, damaged or full, under a server process that is asked meanwhile."""

from __future__ import annotations

import gzip
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.builders import append_lines, line, span, write_lines
from tests.reliability.asking import COUNT, answers, index_of, is_root, met, records
from tests.reliability.faults import fault
from tests.server.over_http import serving_http

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
SMALL_BYTES = 64 * 1024
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def _garble(path: Path) -> None:
    """Other bytes, in the file that is there."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xaa" * size)


def _empty(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _remove(path: Path) -> None:
    path.unlink()


def packed(path: Path) -> Path:
    """The traces in a form that is converted."""
    path.write_bytes(gzip.compress(b"".join(line(record) + b"\n" for record in records())))
    return path


DAMAGES = (_garble, _empty, _cut, _remove)


@fault("index directory deleted", client="the same answer as ever; the index is built anew when it is needed")
async def test_a_deleted_index_directory_changes_no_answer(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        right = await answers(caller)
        shutil.rmtree(tmp_path / "index")
        assert await met(caller, right) == []
        append_lines(path, span("more", trace="more"))
        assert (await caller.json("count_traces"))["total"] == COUNT + 1
        assert (await caller.json("query_sql", sql="SELECT count(*) FROM traces"))["rows"] == [[COUNT + 1]]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["segment-*", "manifest.json", "lock"])
@fault(
    "a file of the index (segment, manifest, lock) overwritten, emptied, cut or deleted",
    client="the same answer as ever, or one error that says the index cannot be used",
)
async def test_a_damaged_file_of_the_index_heals(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        right = await answers(caller)
        (damaged,) = index_of(tmp_path).glob(kind)
        damage(damaged)
        errors = await met(caller, right)
        assert all(error.startswith("The index in ") for error in errors)
        assert len(errors) <= 1
        assert await met(caller, right) == []
        append_lines(path, span("more", trace="more"))
        assert (await caller.json("count_traces"))["total"] == COUNT + 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["copy-*.jsonl", "copy-*.json"])
@fault(
    "the converted copy of a source, or its state, overwritten, emptied, cut or deleted",
    client="the same answer as ever: the source is converted anew",
)
async def test_a_damaged_copy_is_made_anew(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    path = packed(tmp_path / "traces.jsonl.gz")
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        right = await answers(caller)
        (damaged,) = index_of(tmp_path).glob(kind)
        damage(damaged)
        assert await met(caller, right) == []
        assert await met(caller, right) == []


@fault(
    "something else than a file in the place of the lock",
    client="error: the index cannot be used, and why; until it is removed",
)
async def test_a_directory_in_the_place_of_the_lock_is_an_error_until_it_is_removed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        assert (await caller.json("count_traces"))["total"] == COUNT
        lock = index_of(tmp_path) / "lock"
        lock.unlink(missing_ok=True)
        lock.mkdir()
        append_lines(path, span("more", trace="more"))
        assert (await caller.error("count_traces")).startswith("The index in ")
        lock.rmdir()
        assert (await caller.json("count_traces"))["total"] == COUNT + 1


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if not is_root() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@fault(
    "disk of the index directory full",
    client="error: the index cannot be used, for want of space",
    then="the same answer, once there is space",
)
async def test_a_full_disk_is_an_error_until_there_is_space(tmp_path: Path, small_disk: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", *records())
    variables = {"HALO_MCP_INDEX_DIR": str(small_disk / "index")}
    async with serving_http(tmp_path, str(path), variables=variables) as server, server.client() as caller:
        (small_disk / "filler").write_bytes(bytes(4 * 1024 * 1024 - SMALL_BYTES))
        for _ in range(2):
            error = await caller.error("count_traces")
            assert error.startswith(f"The index in {small_disk}")
        (small_disk / "filler").unlink()
        assert (await caller.json("count_traces"))["total"] == COUNT
        right = await answers(caller)

        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - SMALL_BYTES))
        assert await met(caller, right) == []  # what is indexed needs no space
        append_lines(path, span("more", trace="more"))
        assert (await caller.error("count_traces")).startswith(f"The index in {small_disk}")
        (small_disk / "filler").unlink()
        assert (await caller.json("count_traces"))["total"] == COUNT + 1


@pytest.mark.parametrize("kind", ["plain", "converted"])
@fault(
    "files of the index may not grow (quota)",
    client="error: the index cannot be used, and why",
    then="the same answer, once they may",
)
async def test_a_quota_is_an_error_until_it_is_lifted(tmp_path: Path, kind: str) -> None:
    plain = write_lines(tmp_path / "traces.jsonl", *records())
    path = plain if kind == "plain" else packed(tmp_path / "traces.jsonl.gz")
    async with serving_http(tmp_path, str(path)) as server, server.client() as caller:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        for _ in range(2):
            assert (await caller.error("count_traces")).startswith("The index in ")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        assert (await caller.json("count_traces"))["total"] == COUNT
        assert await met(caller, await answers(caller)) == []
