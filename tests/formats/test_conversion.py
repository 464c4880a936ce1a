"""Converted copies: compressed, growing, cut off, replaced, mixed, made by two processes, removed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.cli import run
from halo_mcp.errors import Cancelled, IndexFailure, NotTraces, SourceChanged, SourceTooLarge
from halo_mcp.index import conversion
from halo_mcp.index.conversion import convert
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.segments import IndexDirectory
from halo_mcp.index.sources import list_sources
from halo_mcp.index.work import Work
from halo_mcp.sandbox.sql import SqlSandbox
from tests.builders import line, open_store, report_of, span, trace_ids, write_lines
from tests.formats.reading import converted, read_file
from tests.formats.test_otlp_json import otlp_span, request

ROOT = Path(__file__).parents[2]


def otlp(number: int) -> bytes:
    """A line with one span, of a trace of its own."""
    return json.dumps(request(otlp_span(f"{number:016x}", trace=f"{number:032x}"))).encode() + b"\n"


def copies(store: LocalStore) -> dict[str, tuple[int, int]]:
    """Inode and size of each converted copy in a store's index, by name."""
    found = Path(store.info().index_location).glob("copy-*.jsonl")
    return {path.name: (path.stat().st_ino, path.stat().st_size) for path in found}


def zstd(data: bytes) -> bytes:
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd").compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


# --- compressed -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PACKERS)
def test_compressed_canonical_lines_are_read_like_plain_ones(tmp_path: Path, name: str) -> None:
    plain = line(span("s1")) + b"\nbad\n" + line(span("s2", trace="t2")) + b"\n"
    source = tmp_path / "anything.jsonl"
    source.write_bytes(PACKERS[name](plain))
    store = open_store(tmp_path, source)
    report = report_of(store)
    assert trace_ids(store) == ["t1", "t2"]
    assert [payload.span_id for payload in store.payloads("t2")] == ["s2"]
    assert (report.format, report.compression, report.converted_bytes) == ("canonical", name, len(plain))
    assert (report.lines_read, report.spans_indexed, report.lines_skipped) == (3, 2, 1)
    assert [(problem.line_number, problem.byte_offset) for problem in report.problems] == [(2, plain.index(b"bad"))]
    assert store.info().sources[0].name == str(source)


@pytest.mark.parametrize("name", PACKERS)
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, name: str) -> None:
    source = tmp_path / "packed"
    source.write_bytes(PACKERS[name](otlp(1)) + PACKERS[name](otlp(2)))
    assert [one["span_id"] for one in read_file(source, tmp_path / "index").spans] == [f"{1:016x}", f"{2:016x}"]


@pytest.mark.parametrize("name", PACKERS)
def test_a_cut_compressed_file_keeps_what_was_readable_and_says_so(tmp_path: Path, name: str) -> None:
    packed = PACKERS[name](b"".join(otlp(number) for number in range(3)))
    rest = PACKERS[name](os.urandom(3_000_000).hex().encode())
    source = tmp_path / "cut"
    source.write_bytes(packed + rest[: len(rest) // 2])
    report = read_file(source, tmp_path / "index").report
    assert f"the {name} data is damaged or cut off: it ends too early" in report.reasons
    assert len(read_file(source, tmp_path / "index").spans) == 3


def test_bytes_behind_a_gzip_member_are_reported(tmp_path: Path) -> None:
    source = tmp_path / "tail"
    source.write_bytes(gzip.compress(otlp(1)) + b"rubbish behind it")
    found = read_file(source, tmp_path / "index")
    assert len(found.spans) == 1
    assert [reason.split(":")[0] for _, reason in found.skipped] == ["the gzip data is damaged or cut off"]


def test_a_bomb_is_stopped_with_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "COPY_BYTES_LIMIT", 3_000_000)
    source = tmp_path / "bomb.gz"
    source.write_bytes(gzip.compress(line(span()) + b"\n" + b" " * 20_000_000))
    with pytest.raises(SourceTooLarge, match=r"bomb\.gz is not read: converted to JSON lines it takes more than"):
        open_store(tmp_path, source)
    assert list((tmp_path / "index").rglob("copy-*")) == []


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "FREE_BYTES", 1 << 62)
    source = tmp_path / "large.gz"
    source.write_bytes(gzip.compress(line(span()) + b"\n" + b" " * 20_000_000))
    with pytest.raises(IndexFailure, match=r"no room for the converted copy of .*large\.gz"):
        open_store(tmp_path, source)
    assert list((tmp_path / "index").rglob("copy-*")) == []


# --- growing ----------------------------------------------------------------------------------------------------------
def test_of_a_file_that_grew_only_the_new_lines_are_converted(tmp_path: Path) -> None:
    source = tmp_path / "live.jsonl"
    source.write_bytes(otlp(1) + otlp(2)[:40])
    store = open_store(tmp_path, source)
    assert report_of(store).pending_bytes == 40
    ((name, (inode, size)),) = copies(store).items()

    source.write_bytes(otlp(1) + otlp(2) + b"bad\n")
    store.refresh(Work())

    assert len(trace_ids(store)) == 2
    ((later_name, (later_inode, later_size)),) = copies(store).items()
    assert (later_name, later_inode) == (name, inode)
    assert later_size > size
    report = report_of(store)
    assert (report.lines_read, report.spans_indexed, report.lines_skipped, report.pending_bytes) == (3, 2, 1, 0)
    assert report.problems[0].line_number == 3
    assert [payload.span_id for payload in store.payloads(f"{2:032x}")] == [f"{2:016x}"]


def test_a_gzip_file_that_got_another_member_is_gone_on_with(tmp_path: Path) -> None:
    source = tmp_path / "live.gz"
    source.write_bytes(gzip.compress(otlp(1)))
    store = open_store(tmp_path, source)
    (name,) = copies(store)
    with source.open("ab") as file:
        file.write(gzip.compress(otlp(2)))
    store.refresh(Work())
    assert len(trace_ids(store)) == 2
    assert list(copies(store)) == [name]


def test_a_document_that_changed_is_converted_anew(tmp_path: Path) -> None:
    source = tmp_path / "export.json"
    source.write_text(json.dumps(request(otlp_span()), indent=1))
    store = open_store(tmp_path, source)
    before = copies(store)
    source.write_text(json.dumps(request(otlp_span(), otlp_span("b" * 16)), indent=1))
    store.refresh(Work())
    assert store.info().total_spans == 2
    assert not before.keys() & copies(store).keys()
    assert len(copies(store)) == 1


def test_a_replaced_file_is_converted_anew(tmp_path: Path) -> None:
    source = tmp_path / "live.jsonl"
    source.write_bytes(otlp(1) + otlp(2))
    store = open_store(tmp_path, source)
    source.write_bytes(otlp(3))
    store.refresh(Work())
    assert trace_ids(store) == [f"{3:032x}"]


def test_a_file_that_turns_out_to_be_of_another_format_is_read_as_that(tmp_path: Path) -> None:
    source = tmp_path / "live.jsonl"
    source.write_bytes(b"")
    other = write_lines(tmp_path / "other.jsonl", span())
    store = open_store(tmp_path, source, other)
    source.write_bytes(otlp(1))
    store.refresh(Work())
    assert trace_ids(store) == [f"{1:032x}", "t1"]


def test_a_rebuild_does_not_convert_again(tmp_path: Path) -> None:
    source, other = tmp_path / "a.jsonl", write_lines(tmp_path / "b.jsonl", span("s1"))
    source.write_bytes(otlp(1))
    store = open_store(tmp_path, source, other)
    before = copies(store)
    write_lines(other, span("s2", trace="t9"))
    os.utime(other, ns=(1, 1))
    store.refresh(Work())
    assert trace_ids(store) == [f"{1:032x}", "t9"]
    assert copies(store) == before


# --- interrupted ------------------------------------------------------------------------------------------------------
def test_a_conversion_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_CHECK_BYTES", 1)
    source = tmp_path / "long.jsonl"
    source.write_bytes(b"".join(otlp(number) for number in range(100)))
    directory = IndexDirectory(tmp_path / "index", str(source), "data")
    (listed,) = list_sources([str(source)])
    reports: list[float] = []

    def stop_at_twenty(done: float, total: float, message: str) -> None:
        reports.append(done / total)
        if len(reports) == 20:
            work.stop()

    work = Work(on_progress=stop_at_twenty)
    with pytest.raises(Cancelled), directory.writing(work):
        convert(directory, listed, work)
    state_file = conversion.state_file(directory, str(source))
    state = json.loads(state_file.read_bytes())
    assert (state["copy_lines"], state["complete"]) == (20, False)

    copy = directory.path / state["file"]
    inode = copy.stat().st_ino
    with copy.open("ab") as file:
        file.write(b"what a killed process wrote behind its last state")
    found = read_file(source, tmp_path / "index")
    assert [one["span_id"] for one in found.spans] == [f"{number:016x}" for number in range(100)]
    assert (copy.stat().st_ino, found.report.lines_read) == (inode, 100)


KILLED = """
import os, sys
from pathlib import Path
from halo_mcp.index import conversion
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work

conversion._CHECKPOINT_BYTES, conversion._CHECK_BYTES = 10_000, 1
seen = 0
def report(done, total, message):
    global seen
    seen += message.startswith("converting")
    if seen == 60:
        os.kill(os.getpid(), 9)
LocalStore("data", [sys.argv[1]], Path(sys.argv[2])).refresh(Work(on_progress=report))
"""


def test_a_killed_conversion_leaves_nothing_twice(tmp_path: Path) -> None:
    source = tmp_path / "long.jsonl"
    source.write_bytes(b"".join(otlp(number) for number in range(100)))
    done = subprocess.run([sys.executable, "-c", KILLED, source, tmp_path / "index"], cwd=ROOT, check=False)
    assert done.returncode == -9
    store = open_store(tmp_path, source)
    assert trace_ids(store) == [f"{number:032x}" for number in range(100)]
    assert (store.info().total_spans, report_of(store).spans_indexed, report_of(store).lines_read) == (100, 100, 100)


BOTH = """
import sys
from pathlib import Path
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work

store = LocalStore("data", [sys.argv[1]], Path(sys.argv[2]))
store.refresh(Work())
print(store.info().total_spans)
"""


def test_two_processes_convert_one_file_once(tmp_path: Path) -> None:
    source = tmp_path / "long.jsonl"
    source.write_bytes(b"".join(otlp(number) for number in range(300)))
    command = [sys.executable, "-c", BOTH, str(source), str(tmp_path / "index")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["300", "300"]
    assert len(copies(open_store(tmp_path, source))) == 1


# --- together ---------------------------------------------------------------------------------------------------------
def test_a_directory_may_mix_formats_and_lists_what_it_does_not_know(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_lines(runs / "plain.jsonl", span("s1"))
    (runs / "packed.jsonl.gz").write_bytes(gzip.compress(line(span("s2", trace="t2")) + b"\n"))
    (runs / "otlp.json").write_text(json.dumps(request(otlp_span()), indent=2))
    (runs / "array.json").write_text(json.dumps([span("s3", trace="t3")]))
    (runs / "notes.json").write_text("[1, 2]")
    (runs / "database.json").write_bytes(b"SQLite format 3\x00" + b"\x00" * 100)
    (runs / "source.tar.gz").write_bytes(gzip.compress(b"x" * 257 + b"ustar" + b"\x00" * 300))
    store = open_store(tmp_path, runs)
    assert store.info().total_spans == 4
    reports = {Path(source.name).name: source.report for source in store.info().sources}
    assert {name: (report.format, report.spans_indexed) for name, report in reports.items()} == {
        "plain.jsonl": ("canonical", 1),
        "packed.jsonl.gz": ("canonical", 1),
        "otlp.json": ("otlp-json", 1),
        "array.json": ("canonical-json", 1),
        "notes.json": ("unknown", 0),
        "database.json": ("unknown", 0),
        "source.tar.gz": ("unknown", 0),
    }
    assert reports["database.json"].reasons == {"it is an SQLite database": 1}
    assert reports["source.tar.gz"].reasons == {"it is a tar archive; unpack it first (gzip-compressed)": 1}
    assert all(reports[name].reasons for name in ("notes.json", "database.json", "source.tar.gz"))


def test_canonical_lines_are_not_copied(tmp_path: Path) -> None:
    store = open_store(tmp_path, write_lines(tmp_path / "a.jsonl", b"cut", span()))
    assert copies(store) == {}


def test_a_missing_copy_is_made_again(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text(json.dumps(request(otlp_span())))
    store = open_store(tmp_path, source)
    for name in copies(store):
        (Path(store.info().index_location) / name).unlink()
    assert open_store(tmp_path, source).info().total_spans == 1


def test_progress_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_CHECK_BYTES", 1)
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in "ab":
        (runs / f"{name}.jsonl").write_bytes(b"".join(otlp(number) for number in range(50)))
    shares: list[float] = []
    told: list[str] = []

    def note(done: float, total: float, message: str) -> None:
        shares.append(done / total)
        told.append(message)

    LocalStore("data", [str(runs)], tmp_path / "index").refresh(Work(on_progress=note))
    assert shares == sorted(shares)
    assert {"converting a.jsonl", "converting b.jsonl"} <= set(told)


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b", b"\x1f\x8b" + b"\x00" * 40, b"\x28\xb5\x2f\xfd" + b"\xff" * 40, b"PK\x03\x04abc"]
)
def test_rubbish_behind_a_magic_number_is_told_to_be_that(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "rubbish.jsonl"
    source.write_bytes(content)
    with pytest.raises(NotTraces, match=r"compressed|zip archive"):
        open_store(tmp_path, source)


def test_what_cannot_be_written_as_strict_json_is_still_kept(tmp_path: Path) -> None:
    huge: Any = {"intValue": 10**30}
    text = json.dumps(request(otlp_span(attributes=[{"key": "n", "value": huge}]))).replace("chat m", "half \\ud800")
    source = tmp_path / "odd.json"
    source.write_text(text)
    store = open_store(tmp_path, source)
    assert store.info().total_spans == 1
    state, _ = converted(source, tmp_path / "other")
    assert state is not None
    assert state.copy_lines == 1


# --- asked ------------------------------------------------------------------------------------------------------------
def test_spans_of_a_copy_are_searched_and_read_in_sql_like_any_other(tmp_path: Path) -> None:
    source = tmp_path / "a.json.gz"
    attributes = [{"key": "input.value", "value": {"stringValue": "needle in a haystack"}}]
    source.write_bytes(gzip.compress(json.dumps(request(otlp_span(attributes=attributes)), indent=1).encode()))
    store = open_store(tmp_path, source)
    assert [count.traces for count in store.count(TraceFilters(regex_pattern="needle in"), None, Work())] == [1]
    with closing(SqlSandbox()) as sandbox:
        sql = "SELECT attribute(s, 'input.value') FROM spans s"
        assert sandbox.run(store.sql_state(), sql, 10, Work()).rows == (("needle in a haystack",),)


def test_a_copy_that_went_away_reads_as_a_source_that_changed(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text(json.dumps(request(otlp_span(trace="t"))))
    store = open_store(tmp_path, source)
    for name in copies(store):
        (Path(store.info().index_location) / name).unlink()
    with pytest.raises(SourceChanged, match=r"a\.json was changed"):
        store.payloads("t")


# --- removed ----------------------------------------------------------------------------------------------------------
def test_dropping_an_index_leaves_the_source_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, index = tmp_path / "a.json", tmp_path / "index"
    source.write_text(json.dumps(request(otlp_span())))
    arguments = ["index", str(source), "--index-dir", str(index)]
    assert run(arguments) == 0
    assert "otlp-json, converted copy" in capsys.readouterr().out
    assert [path.name for path in index.rglob("copy-*.jsonl")]

    assert run([*arguments, "--drop"]) == 0
    assert "removed its index and converted copies" in capsys.readouterr().out
    assert {path.name for path in index.rglob("*") if path.is_file()} <= {"lock"}
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["total_spans"] == 1


def test_an_index_inside_the_directory_of_its_sources_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "a.json").write_bytes(otlp(1))
    for _ in range(2):
        store = LocalStore("data", [str(tmp_path / "traces")], tmp_path / "traces" / "index")
        store.refresh(Work())
        assert [Path(source.name).name for source in store.info().sources] == ["a.json"]
        store.close()


def test_canonical_lines_behind_others_are_told_and_spoil_nothing(tmp_path: Path) -> None:
    path = tmp_path / "traces"
    path.write_bytes(otlp(1))
    store = open_store(tmp_path, path)
    with path.open("ab") as file:
        file.write(line(span("s1")) + b"\n")
    store.refresh(Work())
    report = report_of(store)
    assert (report.format, report.spans_indexed, report.lines_skipped) == ("otlp-json", 1, 1)
    assert all(store.payloads(trace) for trace in trace_ids(store))
    store.close()
