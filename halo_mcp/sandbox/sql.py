"""One read-only SQL statement over the views ``spans`` and ``traces``, run in a worker process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from halo_mcp.errors import IndexFailure, IndexRenewed, InvalidSql, SandboxUnavailable, SourceChanged, WorkerStopped
from halo_mcp.index.views import SqlState
from halo_mcp.index.work import Work
from halo_mcp.sandbox.frames import Frame
from halo_mcp.sandbox.process import WorkerProcess

DEADLINE_S: Final = 10.0
MAX_ROWS: Final = 1_000
MEMORY_BYTES: Final = 384 << 20
"""What DuckDB may use for a query; it fails cleanly at this limit."""
RESIDENT_BYTES: Final = 640 << 20
"""The worker is killed above this: DuckDB does not count what single strings take."""
ADDRESS_BYTES: Final = 3 << 30
CELL_CHARS: Final = 4_000
_OUR_FUNCTION: Final = "exception occurred while executing the UDF: ValueError: "
_CANNOT_READ: Final = ("IOException:", "SerializationException:", "FatalException:")
"""DuckDB's errors when a file is not what it wrote."""
_SCRIPT: Final = Path(__file__).with_name("sql_worker.py")
_NARROW: Final = "Ask for less: aggregate, select fewer or shorter columns, add conditions."
_ALLOWED: Final = (
    "only one SELECT over the views spans and traces is run (WITH, FROM, VALUES, DESCRIBE and SUMMARIZE count as such; "
    "nothing can be written, attached, loaded or set)"
)
_KINDS: Final = {"MULTI": "PIVOT", "LOAD": "INSTALL or LOAD"}
"""What DuckDB calls otherwise."""
_NO_FILES: Final = "Files, network and other databases cannot be reached: ask the views spans and traces."


@dataclass(frozen=True, slots=True)
class Cut:
    """The beginning of a longer text."""

    text: str
    chars: int
    """Of the whole."""


@dataclass(frozen=True, slots=True)
class SqlResult:
    """Rows in the order of the statement. Cells are None, bool, int, float, str or Cut; all else is DuckDB's text."""

    columns: tuple[tuple[str, str], ...]
    """Name and DuckDB type."""
    rows: tuple[tuple[Any, ...], ...]
    more: bool
    """There are rows behind the last one."""
    elapsed_ms: float
    """Inside the worker."""


class SqlSandbox:
    """Runs SQL over one dataset. The worker stays warm between calls and follows the state of the index."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self.worker = WorkerProcess(
            "query_sql", _SCRIPT, [], memory_bytes=RESIDENT_BYTES, max_reply_bytes=8 << 20, start_s=30.0
        )
        self._lock = threading.Lock()
        self._prepared: tuple[SqlState, Frame] | None = None

    def run(self, state: SqlState, sql: str, limit: int, work: Work) -> SqlResult:
        """At most ``limit`` rows of one statement.

        Raises: InvalidSql; SandboxError when the worker cannot start, or was killed over its time or memory;
        IndexRenewed, IndexFailure when it cannot open the index; SourceChanged; Cancelled; DeadlineExceeded.
        """
        request: Frame = {"sql": sql, "limit": min(limit, MAX_ROWS), "cell_chars": CELL_CHARS}
        try:
            reply = self.worker.request(request, self._deadline_s, work, setup=self._setup(state))
        except SandboxUnavailable as error:
            if not all(os.path.exists(path) for path in _segments(state)):
                raise IndexRenewed("query_sql") from error
            if error.reason.startswith(_CANNOT_READ):
                raise IndexFailure(str(state.directory), error.reason) from error
            raise
        except WorkerStopped as stopped:
            raise WorkerStopped(stopped.tool, stopped.why, stopped.detail, _NARROW) from stopped
        if "kind" in reply:
            raise _refusal(str(reply["kind"]), str(reply["error"]))
        return SqlResult(
            columns=tuple((str(name), str(kind)) for name, kind in reply["columns"]),
            rows=tuple(tuple(map(_cell, row)) for row in reply["rows"]),
            more=bool(reply["more"]),
            elapsed_ms=float(reply["elapsed_ms"]),
        )

    def close(self) -> None:
        self.worker.close()

    def _setup(self, state: SqlState) -> Frame:
        with self._lock:
            if self._prepared is None or self._prepared[0] is not state:
                self._prepared = (state, _setup_of(state))
            return self._prepared[1]


def _cell(cell: Any) -> Any:
    return Cut(str(cast("Any", cell[0])), int(cast("Any", cell[1]))) if isinstance(cell, list) else cell


def _setup_of(state: SqlState) -> Frame:
    return {
        "directory": str(state.directory),
        "statements": list(state.statements),
        "redact": state.privacy.redact,
        "payloads": state.privacy.payloads,
        "sources": [source.model_dump(exclude={"report"}) | {"report": {}} for source in state.sources],
        "threads": min(4, os.cpu_count() or 1),
        "memory_bytes": MEMORY_BYTES,
        "address_bytes": ADDRESS_BYTES,
    }


def _segments(state: SqlState) -> Sequence[Path]:
    return [state.directory / name for name in state.segment_files]


def _refusal(kind: str, message: str) -> InvalidSql | SourceChanged:
    """What the worker's refusal means to whoever wrote the statement."""
    if kind == "changed":
        return SourceChanged(message)
    if kind == "refused":
        return InvalidSql(f"it is {_KINDS.get(message, message)}, and {_ALLOWED}")
    if kind == "refused source":
        return InvalidSql(f"it reads {message}, and here only the views spans and traces may be read")
    if kind == "refused columns":
        return InvalidSql(f"it gives {message}, and at most 100 are", "Name the columns you need.")
    reason = _first_words(message)
    if kind == "PermissionException" or "disabled by configuration" in message:
        return InvalidSql(reason, _NO_FILES)
    if kind in ("OutOfMemoryException", "MemoryError"):
        return InvalidSql(f"it needs more memory than the {MEMORY_BYTES >> 20} MB allowed", _NARROW)
    if kind == "TransactionException":
        return InvalidSql(f"it would write, and {_ALLOWED}")
    return InvalidSql(reason, _hint(message))


def _first_words(message: str) -> str:
    """DuckDB's message without its copy of the statement, on one line, at most 300 characters."""
    words = " ".join(message.split("\n\nLINE ")[0].rpartition(_OUR_FUNCTION)[2].split()) or "DuckDB gives no reason"
    words = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
    return words if len(words) <= 300 else words[:299] + "…"


def _hint(message: str) -> str:
    from halo_mcp.index.sql_schema import listed_columns

    if "eferenced column" in message or "does not have a column" in message:
        return f"Columns: {listed_columns()}."
    if "Table with name" in message or "Table Function with name" in message:
        return "There are two views: spans and traces."
    return ""
