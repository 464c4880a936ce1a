"""What a source that holds no traces is told to be, word for word."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from halo_mcp.errors import HaloError, NotTraces, SourceChanged, SourceNotFound, SourceUnreadable
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.patterns import compile_pattern
from halo_mcp.index.work import Work
from tests.builders import Record, append_lines, line, open_store, span, store_of, write_lines


def refusal(tmp_path: Path, argument: str, error: type[HaloError] = NotTraces) -> str:
    """What opening ``argument`` below tmp_path says, with DIR for tmp_path."""
    store = LocalStore("data", [str(tmp_path / argument)], tmp_path / "index")
    with pytest.raises(error) as refused:
        store.refresh(Work())
    return str(refused.value).replace(str(tmp_path), "DIR")


def refused_content(tmp_path: Path, content: bytes) -> str:
    """The reason given for a file with this content."""
    (tmp_path / "file.jsonl").write_bytes(content)
    message = refusal(tmp_path, "file.jsonl")
    before, after = (
        "DIR/file.jsonl holds no spans that halo-mcp can read: ",
        ". Expected JSON lines with one span object",
    )
    assert message.startswith(before)
    assert after in message
    return message[len(before) : message.index(after)]


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, "missing.jsonl", SourceNotFound) == snapshot(
        "There is no file DIR/missing.jsonl. Check the path given to halo-mcp; relative paths start at "
        "its working directory."
    )


def test_a_directory_without_traces(tmp_path: Path) -> None:
    write_lines(tmp_path / "runs" / "notes.txt", b"hello")
    assert refusal(tmp_path, "runs", SourceNotFound) == snapshot(
        "The directory DIR/runs holds no trace file (.jsonl, .json, .gz, ...). Check the path given to "
        "halo-mcp; relative paths start at its working directory."
    )


def test_a_glob_without_matches(tmp_path: Path) -> None:
    assert refusal(tmp_path, "runs/*.jsonl", SourceNotFound) == snapshot(
        "The pattern DIR/runs/*.jsonl matches no file. Check the path given to halo-mcp; relative paths "
        "start at its working directory."
    )


def test_a_file_without_spans_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert refusal(tmp_path, "empty.jsonl") == snapshot(
        "DIR/empty.jsonl holds no spans that halo-mcp can read: it is empty. Expected JSON lines with "
        "one span object (trace_id, span_id, name, ...) per line, or another known trace format; "
        "`halo-mcp doctor DIR/empty.jsonl` shows what was found."
    )


def test_a_file_of_blank_lines_is_empty(tmp_path: Path) -> None:
    assert refused_content(tmp_path, b"\n \r\n\t\n") == snapshot("it is empty")


def test_a_file_with_nothing_but_a_byte_order_mark_is_empty(tmp_path: Path) -> None:
    assert refused_content(tmp_path, b"\xef\xbb\xbf\n") == snapshot("it is empty")


def test_compressed_files_of_no_known_format(tmp_path: Path) -> None:
    plain = b"2026-03-02 INFO started\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("traces.jsonl", line(span()))
    assert refused_content(tmp_path, gzip.compress(plain)) == snapshot(
        "it is gzip-compressed, and its content is of no known format"
    )
    assert refused_content(tmp_path, archive.getvalue()) == snapshot(
        "it is a zip archive of no known format; unpack it first"
    )
    assert refused_content(tmp_path, bz2.compress(plain)) == snapshot(
        "it is bzip2-compressed, and its content is of no known format"
    )
    assert refused_content(tmp_path, b"\x28\xb5\x2f\xfd\x00\x01\n") == snapshot(
        "it is zstd-compressed, and damaged or empty"
    )


def test_binary_files(tmp_path: Path) -> None:
    assert refused_content(tmp_path, bytes(range(256)) * 20) == snapshot("it is a binary file")
    assert refused_content(tmp_path, b"SQLite format 3\x00" + b"\x00" * 100) == snapshot("it is an SQLite database")
    assert refused_content(tmp_path, b"PAR1\x00\x00") == snapshot("it is a Parquet file")


def test_other_json(tmp_path: Path) -> None:
    items = [{"a": 1}, {"a": 2}]
    empty: Record = {"resourceSpans": [{"scopeSpans": [{"spans": []}]}]}
    assert refused_content(tmp_path, json.dumps(items).encode() + b"\n") == snapshot(
        "it is one JSON array of no known format"
    )
    assert refused_content(tmp_path, json.dumps(items, indent=2).encode()) == snapshot(
        "it is one JSON array of no known format"
    )
    assert refused_content(tmp_path, json.dumps(items[0], indent=2).encode()) == snapshot(
        "it is one JSON object of no known format"
    )
    assert refused_content(tmp_path, json.dumps(empty).encode()) == snapshot("an export request without spans")
    assert refused_content(tmp_path, b'{"traceId":"a","spanId":"b","name":"n"}\n') == snapshot(
        "its first line is not a span: no trace_id"
    )
    assert refused_content(tmp_path, b'{"event":"start"}\n{"event":"end"}\n') == snapshot(
        "its first line is not a span: no trace_id"
    )
    assert refused_content(tmp_path, b'{"trace_id":"a"}\n') == snapshot("its first line is not a span: no span_id")


def test_text_that_is_no_json(tmp_path: Path) -> None:
    assert refused_content(tmp_path, b"2026-03-02 INFO started\n2026-03-02 INFO done\n") == snapshot(
        "its first line is not a JSON object but a number"
    )
    assert refused_content(tmp_path, b"trace_id,span_id,name\na,b,c\n") == snapshot(
        "its first line is not JSON: invalid literal, expected 'true'"
    )
    assert refused_content(tmp_path, b"\xff\xfe{\x00") == snapshot("it is a binary file")


def test_long_files(tmp_path: Path) -> None:
    text = "x" * 2_000_000
    assert refused_content(tmp_path, json.dumps({"a": text}).encode()) == snapshot(
        "its first line is not a span: no trace_id"
    )
    assert refused_content(tmp_path, json.dumps([{"a": text}] * 2, indent=2).encode()) == snapshot(
        "it is one JSON array of no known format"
    )


def test_a_file_with_one_cut_line(tmp_path: Path) -> None:
    assert refused_content(tmp_path, line(span())[:50]) == snapshot("its only line is incomplete")
    assert refused_content(tmp_path, line(span())[:50] + b"\n") == snapshot(
        "its first line is cut off before the end of the object"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = write_lines(tmp_path / "secret.jsonl", span())
    path.chmod(0)
    assert refusal(tmp_path, "secret.jsonl", SourceUnreadable) == snapshot(
        "DIR/secret.jsonl cannot be read: Permission denied. Check its permissions, then call again."
    )


def test_a_directory_named_like_a_trace_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "runs" / "odd.jsonl").mkdir(parents=True)
    write_lines(tmp_path / "runs" / "good.jsonl", span())
    assert open_store(tmp_path, tmp_path / "runs").info().total_spans == 1


@pytest.mark.parametrize(
    "name", ["with space.jsonl", "quote'd.jsonl", "[1].jsonl", "é\u2028.jsonl", "a*b?.jsonl", "-.jsonl"]
)
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / name, span("s1"), b"bad")
    store = open_store(tmp_path, path, name=name)
    append_lines(path, span("s2"))
    store.refresh(Work())
    assert [payload.span_id for payload in store.payloads("t1")] == ["s1", "s2"]
    assert store.info().sources[0].name == str(path)


def test_bad_files_beside_a_good_one_do_not_stop_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "runs" / "good.jsonl", span())
    (tmp_path / "runs" / "empty.jsonl").touch()
    (tmp_path / "runs" / "binary.json").write_bytes(gzip.compress(b"x" * 5_000))
    (tmp_path / "runs" / "settings.json").write_text(json.dumps({"a": 1}, indent=2), encoding="utf-8")
    store = open_store(tmp_path, tmp_path / "runs")
    assert store.info().total_spans == 1
    assert {Path(source.name).name: source.report.spans_indexed for source in store.info().sources} == {
        "binary.json": 0,
        "empty.jsonl": 0,
        "good.jsonl": 1,
        "settings.json": 0,
    }


def _replace(path: Path) -> None:
    new = write_lines(path.with_suffix(".new"), span("s1", trace="t2"), span("s2", trace="t2"), span("s3", trace="t2"))
    new.replace(path)


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


def _rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"t1"', b'"t2"'))


@pytest.mark.parametrize("change", [_replace, _truncate, _rewrite])
def test_a_file_changed_behind_the_index_is_noticed_and_indexed_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = store_of(tmp_path, span("s1"), span("s2"))
    path = tmp_path / "traces.jsonl"

    change(path)

    with pytest.raises(SourceChanged) as noticed:
        store.payloads("t1")
    assert str(noticed.value).replace(str(tmp_path), "DIR") == snapshot(
        "DIR/traces.jsonl was changed or replaced while it was being read. Call again: it is indexed anew."
    )
    if change is not _rewrite:
        with pytest.raises(SourceChanged):
            store.search("t1", compile_pattern("step"), (), context_chars=1, max_matches=1, work=Work())
        with pytest.raises(SourceChanged):
            store.count(TraceFilters(regex_pattern="step"), None, Work())
    write_lines(path, span("s9"))
    store.refresh(Work())
    assert [payload.span_id for payload in store.payloads("t1")] == ["s9"]


def test_a_store_told_to_forget_reads_everything_anew(tmp_path: Path) -> None:
    store = store_of(tmp_path, span("s1"))
    path = tmp_path / "traces.jsonl"
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"s1"', b'"s2"'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store.refresh(Work())
    assert store.spans("t1")[0].span_id == "s1"

    store.forget()
    store.refresh(Work())
    assert store.spans("t1")[0].span_id == "s2"


def test_sources_are_never_written_to(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in" / "traces.jsonl", span("s1"), b"bad", line(span("s2"))[:40])
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    store = open_store(tmp_path, tmp_path / "in")
    store.payloads("t1")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["traces.jsonl"]
