"""What of the traces may be read at all, and what of it is masked. Kept where bytes and columns are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.errors import PayloadsWithheld
from halo_mcp.index.redaction import redact, redact_bytes, redact_json, redacting_sql
from halo_mcp.index.span import Span
from halo_mcp.index.times import time_text

if TYPE_CHECKING:
    from halo_mcp.index.store import SpanRow

TEXT_COLUMNS: Final = ("status_message", "exception_message", "failure_text")
"""The columns of the index that hold text of a payload; all others hold names, ids, times and numbers."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """The two switches of the user."""

    redact: bool = False
    """Credentials are masked."""
    payloads: bool = True
    """Messages, inputs, outputs, attributes and events are read; if not, nothing but the columns of the index is."""

    @property
    def restricted(self) -> bool:
        return self.redact or not self.payloads

    def require_payloads(self) -> None:
        """Raises: PayloadsWithheld."""
        if not self.payloads:
            raise PayloadsWithheld

    def of_bytes(self, text: bytes) -> bytes:
        return redact_bytes(text) if self.redact else text

    def of_text(self, text: str) -> str:
        return redact(text) if self.redact else text

    def of_json(self, value: Any) -> Any:
        return redact_json(value) if self.redact else value

    def own_columns(self, table: str) -> str:
        """``table.*`` of a table like own, for a SELECT: with text columns masked, or without what they hold."""
        if not self.restricted:
            return f"{table}.*"
        shown = (
            f"{redacting_sql(f'{table}.{column}') if self.payloads else 'NULL::VARCHAR'} AS {column}"
            for column in TEXT_COLUMNS
        )
        return f"{table}.* REPLACE ({', '.join(shown)})"


OPEN: Final = Privacy()


def bare_span(row: SpanRow) -> Span:
    """A span of which only its columns are told."""
    nothing: Mapping[str, Any] = {}
    return Span(
        trace_id=row.trace_id,
        span_id=row.span_id,
        parent_span_id=row.parent_span_id or "",
        name=row.name,
        kind=f"SPAN_KIND_{row.kind}" if row.kind else "",
        start_time=time_text(row.start_time_unix_nano),
        end_time=time_text(row.end_time_unix_nano),
        status_code=f"STATUS_CODE_{row.status_code}",
        status_message="",
        resource=nothing,
        scope=nothing,
        attributes=nothing,
        events=(),
        links=(),
        extra=nothing,
        raw_bytes=row.raw_bytes,
    )
