"""OTLP requests in protobuf, made from the same objects as those in JSON."""

from __future__ import annotations

import base64
from importlib import import_module
from typing import Any, cast

from backports import zstd


def as_protobuf(request: dict[str, Any]) -> bytes:
    """An ``ExportTraceServiceRequest`` from its JSON form."""
    message: Any = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    parse: Any = import_module("google.protobuf.json_format").ParseDict
    return parse(_with_base64_ids(request), message.ExportTraceServiceRequest()).SerializeToString()


def stream(*messages: bytes, compressed: bool = False) -> bytes:
    """As the Collector's file exporter writes them."""
    packed = [zstd.compress(one) if compressed else one for one in messages]
    return b"".join(len(one).to_bytes(4) + one for one in packed)


def _with_base64_ids(value: Any) -> Any:
    # OTLP differs from what protobuf's JSON says of bytes in ids only.
    if isinstance(value, list):
        return [_with_base64_ids(one) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, Any]", value)
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode()
        if key in ("traceId", "spanId", "parentSpanId") and one
        else _with_base64_ids(one)
        for key, one in members.items()
    }
