"""Spans, files and stores with defaults, so that a test shows only what matters to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.local import LocalStore
from halo_mcp.index.segments import IngestReport
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.store import SpanRow
from halo_mcp.index.work import Work

Record = dict[str, Any]

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
START_NANO = 1_772_442_000_000_000_000
"""START as nanoseconds since the epoch."""


def at(offset_ms: float) -> str:
    """The time so many milliseconds after START, as HALO writes it."""
    moment = START + timedelta(milliseconds=offset_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def span(
    span_id: str = "s1",
    parent: str = "",
    *,
    trace: str = "t1",
    kind: str = "",
    error: str = "",
    start_ms: float = 0,
    ms: float = 1,
    attributes: Mapping[str, Any] | None = None,
    service: str = "",
    **fields: Any,
) -> Record:
    """A canonical span. ``kind`` is the observation kind, ``error`` the message of a failed one; ``fields`` replace."""
    record: Record = {
        "trace_id": trace,
        "span_id": span_id,
        "parent_span_id": parent,
        "trace_state": "",
        "name": "step",
        "kind": "SPAN_KIND_INTERNAL",
        "start_time": at(start_ms),
        "end_time": at(start_ms + ms),
        "status": {"code": "STATUS_CODE_ERROR", "message": error}
        if error
        else {"code": "STATUS_CODE_OK", "message": ""},
        "resource": {"attributes": {"service.name": service} if service else {}},
        "scope": {"name": "tests", "version": "1"},
        "attributes": {**({"inference.observation_kind": kind} if kind else {}), **(attributes or {})},
    }
    return record | fields


def llm(span_id: str = "s1", parent: str = "", *, tokens: tuple[Any, Any] | None = None, **rest: Any) -> Record:
    """An LLM span with (input, output) tokens."""
    usage = (
        {} if tokens is None else {"inference.llm.input_tokens": tokens[0], "inference.llm.output_tokens": tokens[1]}
    )
    return span(span_id, parent, kind="LLM", attributes=usage | rest.pop("attributes", {}), **rest)


def agent(span_id: str, parent: str = "", *, name: str = "", **rest: Any) -> Record:
    """An AGENT span that names its agent."""
    return span(span_id, parent, kind="AGENT", attributes={"agent.name": name} | rest.pop("attributes", {}), **rest)


def line(record: Record | bytes) -> bytes:
    """One line, without its newline."""
    return (
        record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    )


def write_lines(path: Path, *records: Record | bytes) -> Path:
    """A file with a line per span (or bytes as they are); returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line(record) + b"\n" for record in records))
    return path


def append_lines(path: Path, *records: Record | bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line(record) + b"\n" for record in records))


def open_store(tmp_path: Path, *sources: Path | str, name: str = "data") -> LocalStore:
    """A refreshed store over these sources, its index in ``tmp_path``."""
    store = LocalStore(name, [str(source) for source in sources], tmp_path / "index")
    store.refresh(Work())
    return store


def store_of(tmp_path: Path, *records: Record | bytes) -> LocalStore:
    """A refreshed store over one file with these lines."""
    return open_store(tmp_path, write_lines(tmp_path / "traces.jsonl", *records))


def by_id(rows: Iterable[SpanRow]) -> dict[str, SpanRow]:
    return {row.span_id: row for row in rows}


def report_of(store: LocalStore) -> IngestReport:
    """The ingest report of the only source."""
    (source,) = store.info().sources
    return source.report


def trace_ids(store: LocalStore, **filters: Any) -> list[str]:
    """The ids of the traces that the filters select, sorted."""
    page = store.traces(TraceFilters(**filters), "start_time", 10_000, None, Work())
    assert not page.more
    return sorted(trace.trace_id for trace in page.traces)


def members(value: Any) -> list[Any]:
    """What a JSON object or array holds; nothing for any other value."""
    if isinstance(value, dict):
        return list(cast("Record", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


class Place(NamedTuple):
    """Where the index says that a span stands."""

    source: str
    offset: int
    length: int

    def read(self) -> bytes:
        with Path(self.source).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def places(store: LocalStore) -> list[tuple[str, Place]]:
    """(span id, place) of every span, in the order of sources and offsets."""
    snapshot: Snapshot = store._current  # pyright: ignore[reportPrivateUsage]  # no method of the store tells offsets
    rows = snapshot.query("SELECT span_id, source_no, byte_offset, byte_length FROM spans ORDER BY 2, 3")
    return [(row[0], Place(snapshot.manifest.sources[int(row[1])].path, row[2], row[3])) for row in rows]


def index_files(store: LocalStore) -> set[str]:
    """The names of the files in the store's index directory, without the lock."""
    return {path.name for path in Path(store.info().index_location).iterdir() if path.name != "lock"}


def segment_files(store: LocalStore) -> dict[str, int]:
    """Segment files and when each was last written."""
    directory = Path(store.info().index_location)
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir() if path.name.startswith("segment-")}
