"""SQL functions that read a span's own text from its source file. Runs inside the SQL worker."""

from __future__ import annotations

import os
import threading
from io import FileIO
from typing import TYPE_CHECKING, Any, Final, cast

from halo_mcp.errors import PayloadsWithheld, SourceError
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.privacy import OPEN, Privacy
from halo_mcp.index.reading import Sources
from halo_mcp.index.segments import SourceState
from halo_mcp.index.span import as_mapping, as_text
from halo_mcp.sandbox.frames import Frame

if TYPE_CHECKING:
    import duckdb

ATTRIBUTE_CHARS: Final = 65_536
"""``attribute`` gives no more of a text; the marker behind it says how long it is."""
SPAN_BYTES: Final = 1 << 20
"""Likewise ``span_json``."""
_LONGEST_SPAN: Final = 256 << 20


class SpanTexts:
    """The functions ``halo_attribute`` and ``halo_span_json`` over the sources of one index.

    A source is opened at its first use in a query and checked to be the file that was indexed.
    """

    def __init__(self, states: list[Frame], privacy: Privacy = OPEN) -> None:
        self._sources = Sources([SourceState.model_validate(state) for state in states])
        self._privacy = privacy
        self._count = len(states)
        self._files: dict[int, FileIO] = {}
        self._opening = threading.Lock()
        self.changed: str | None = None
        """The source that was found changed in the last query."""

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        place = ["VARCHAR", "INTEGER", "BIGINT", "INTEGER"]
        for name, function, parameters in (
            ("halo_attribute", self._attribute, [*place, "VARCHAR"]),
            ("halo_span_json", self._span_json, place),
        ):
            # The type stubs know neither types nor null handling as text, which DuckDB takes.
            create = cast("Any", connection.create_function)  # pyright: ignore[reportUnknownMemberType]
            create(name, function, parameters, "VARCHAR", null_handling="special")

    @property
    def restricted(self) -> bool:
        return self._privacy.restricted

    def close(self) -> None:
        """Close what a query opened."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def begin(self) -> None:
        self.changed = None

    def _attribute(
        self, trace_id: str | None, source_no: int | None, offset: int | None, length: int | None, key: str | None
    ) -> str | None:
        if trace_id is None or source_no is None or offset is None or length is None or key is None:
            return None
        value = as_mapping(self._record(trace_id, self._text(source_no, offset, length)).get("attributes")).get(key)
        return None if value is None else _cut(as_text(value), ATTRIBUTE_CHARS)

    def _span_json(
        self, trace_id: str | None, source_no: int | None, offset: int | None, length: int | None
    ) -> str | None:
        if trace_id is None or source_no is None or offset is None or length is None:
            return None
        text = self._text(source_no, offset, length)
        self._record(trace_id, text)
        return _cut(text.decode(errors="replace"), SPAN_BYTES)

    def _record(self, trace_id: str, text: bytes) -> dict[str, Any]:
        record = parse_record(text)
        found = "" if record is None else normalize_id(record.get("trace_id"))
        if record is None or found not in (trace_id, self._privacy.of_text(trace_id)):
            raise ValueError("attribute() and span_json() take a row of the view spans, and this is none")
        return dict(record)

    def _text(self, source_no: int, offset: int, length: int) -> bytes:
        if not self._privacy.payloads:
            raise ValueError(f"attribute() and span_json() are withheld. {PayloadsWithheld()}")
        if not (0 <= source_no < self._count and offset >= 0 and 0 < length <= _LONGEST_SPAN):
            raise ValueError("attribute() and span_json() take a row of the view spans, and this is none")
        file = self._files.get(source_no) or self._open(source_no)
        return self._privacy.of_bytes(os.pread(file.fileno(), length, offset))

    def _open(self, source_no: int) -> FileIO:
        with self._opening:
            if source_no not in self._files:
                try:
                    self._files[source_no] = self._sources.open(source_no)
                except SourceError:  # replaced: the worker may not read the new file, nor does the index describe it
                    self.changed = self._sources.path(source_no)
                    raise
            return self._files[source_no]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... [HALO truncated: original {len(text)} chars]"
