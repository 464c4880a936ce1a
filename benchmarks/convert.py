"""Conversion of the generated spans from other formats: speed per core, and memory.

python -m benchmarks.convert SOURCE INDEX_DIR     converts one file, and prints what it took
"""

from __future__ import annotations

import gzip
import importlib
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, TypeAlias

import orjson

from benchmarks.data import Dataset
from benchmarks.processes import JobFailed, run_job
from benchmarks.report import Row, at_speed, below

Shape: TypeAlias = Literal["OTLP JSON lines", "OTLP JSON lines, gzip", "OTLP protobuf"]
SHAPES: Final[tuple[Shape, ...]] = ("OTLP JSON lines", "OTLP JSON lines, gzip", "OTLP protobuf")
_SUFFIXES: Final[dict[Shape, str]] = {
    "OTLP JSON lines": ".otlp.jsonl",
    "OTLP JSON lines, gzip": ".otlp.jsonl.gz",
    "OTLP protobuf": ".otlp.pb",
}
_BYTES: Final = 256 * 1024 * 1024
"""So much of a generated file is converted."""
_SPANS_PER_REQUEST: Final = 32
_MIN_SPEED: Final = 60e6


@dataclass(frozen=True, slots=True)
class Source:
    """The spans of a generated file, in another format."""

    shape: Shape
    path: Path
    uncompressed_bytes: int
    spans: int


# --- making the files ---
def sources(dataset: Dataset) -> list[Source]:
    """One of each shape, beside the generated file. They are written anew each time."""
    paths = {shape: dataset.path.with_suffix(suffix) for shape, suffix in _SUFFIXES.items()}
    spans = bytes_json = bytes_protobuf = 0
    with (
        paths["OTLP JSON lines"].open("wb") as lines,
        gzip.open(paths["OTLP JSON lines, gzip"], "wb", compresslevel=3) as packed,
        paths["OTLP protobuf"].open("wb") as protobuf,
    ):
        for request, count in _requests(dataset.path):
            line, message = orjson.dumps(request) + b"\n", _message(request)
            lines.write(line)
            packed.write(line)
            protobuf.write(len(message).to_bytes(4) + message)
            spans, bytes_json, bytes_protobuf = spans + count, bytes_json + len(line), bytes_protobuf + len(message)
    sizes = {shape: bytes_protobuf if shape == "OTLP protobuf" else bytes_json for shape in SHAPES}
    return [Source(shape, paths[shape], sizes[shape], spans) for shape in SHAPES]


def _requests(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    with path.open("rb") as file:
        while file.tell() < _BYTES and (lines := list(islice(iter(file.readline, b""), _SPANS_PER_REQUEST))):
            records = [orjson.loads(line) for line in lines]
            resource_attributes = _attributes(records[0]["resource"]["attributes"])
            scope_spans = {"scope": records[0]["scope"], "spans": [_span(record) for record in records]}
            batch = {"resource": {"attributes": resource_attributes}, "scopeSpans": [scope_spans]}
            yield {"resourceSpans": [batch]}, len(records)


def _span(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "traceId": record["trace_id"],
        "spanId": record["span_id"],
        "parentSpanId": record["parent_span_id"],
        "name": record["name"],
        "kind": 1,
        "startTimeUnixNano": _nanoseconds(record["start_time"]),
        "endTimeUnixNano": _nanoseconds(record["end_time"]),
        "attributes": _attributes(record["attributes"]),
        "status": {"code": 2, "message": record["status"]["message"]} if record["status"]["message"] else {"code": 1},
    }


def _nanoseconds(time: str) -> str:
    nanoseconds: Any = importlib.import_module("halo_mcp.index.formats.values").nanoseconds
    return str(nanoseconds(time))


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in values.items()]


def _any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def _message(request: dict[str, Any]) -> bytes:
    trace: Any = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    message = trace.ExportTraceServiceRequest()
    for batch in request["resourceSpans"]:
        to = message.resource_spans.add()
        _set(to.resource.attributes, batch["resource"]["attributes"])
        for group in batch["scopeSpans"]:
            spans = to.scope_spans.add()
            spans.scope.name, spans.scope.version = group["scope"]["name"], group["scope"]["version"]
            for item in group["spans"]:
                span = spans.spans.add(
                    trace_id=bytes.fromhex(item["traceId"]),
                    span_id=bytes.fromhex(item["spanId"]),
                    parent_span_id=bytes.fromhex(item["parentSpanId"]),
                    name=item["name"],
                    kind=item["kind"],
                    start_time_unix_nano=int(item["startTimeUnixNano"]),
                    end_time_unix_nano=int(item["endTimeUnixNano"]),
                    status=item["status"],
                )
                _set(span.attributes, item["attributes"])
    return message.SerializeToString()


def _set(attributes: Any, items: list[dict[str, Any]]) -> None:
    for item in items:
        ((kind, value),) = item["value"].items()
        name = {"boolValue": "bool_value", "intValue": "int_value", "doubleValue": "double_value"}.get(kind)
        value = int(value) if kind == "intValue" else value
        attributes.add(key=item["key"], value={name or "string_value": value})


# --- measuring ---
def conversion_rows(dataset: Dataset, repeat: int, *, full_size: bool) -> tuple[list[Row], list[str]]:
    """The rows of one generated file, and what was converted wrongly. Raises: JobFailed."""
    table: list[Row] = []
    wrong: list[str] = []
    index = dataset.path.with_suffix(".converted")
    for source in sources(dataset):
        size, seconds, peak = source.uncompressed_bytes, list[float](), 0.0
        for _ in range(repeat):
            shutil.rmtree(index, ignore_errors=True)
            job = run_job(Path(sys.executable), "benchmarks.convert", str(source.path), str(index))
            seconds.append(job.figures["convert"])
            peak = max(peak, job.figures["peak"])
            if job.answers != {"spans": source.spans, "skipped": 0}:
                wrong.append(f"{source.shape}: {job.answers} instead of {source.spans} spans")
        goal = at_speed(size, _MIN_SPEED, "≥ 60 MB/s") if full_size and source.shape != "OTLP protobuf" else None
        name = f"convert {source.shape}, {size / 1e6:,.0f} MB (CPU)"
        table.append(Row(name, median(seconds), goal=goal, scanned_bytes=size))
        memory = below(300, "≤ 300 MB") if full_size else None
        table.append(Row(f"convert {source.shape}: peak memory", peak, goal=memory, unit="MB"))
        source.path.unlink()
    shutil.rmtree(index, ignore_errors=True)
    return table, wrong


def _main(source: str, index: str) -> None:
    # Imported here: the parent process measures nothing.
    from halo_mcp.index.conversion import convert
    from halo_mcp.index.segments import IndexDirectory
    from halo_mcp.index.sources import list_sources
    from halo_mcp.index.work import Work

    directory, work = IndexDirectory(Path(index), source, "data"), Work()
    (listed,) = list_sources([source])
    with directory.writing(work):
        before = _cpu_seconds()
        state = convert(directory, listed, work)
        spent = _cpu_seconds() - before
    if state is None:
        raise JobFailed(f"{source} is read as it is")
    print(
        json.dumps(
            {
                "seconds": {"convert": spent},
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "answers": {"spans": state.copy_lines, "skipped": state.ingest_report.lines_skipped},
            }
        )
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    _main(*sys.argv[1:])
