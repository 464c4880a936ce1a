"""The process in which a model's SQL runs: ``python -I sql_worker.py``, driven by ``sql.py`` through frames.

It opens the index read-only, gives up everything else, and then runs one SELECT at a time in a read-only transaction.
What it cannot limit itself (time, the memory of scalar strings) its host limits by killing it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from halo_mcp.sandbox.confine import confine, system_paths
from halo_mcp.sandbox.frames import Channel, Frame

sys.path.pop(0)

if TYPE_CHECKING:
    import duckdb

    from halo_mcp.sandbox.span_text import SpanTexts

_MAX_FRAME: Final = 64 << 20
_READ_BY_DUCKDB: Final = ("/proc/self/cgroup", "/sys/fs/cgroup")
"""DuckDB aborts in connect() when it may not read these."""
_LOCK: Final = (
    "SET enable_progress_bar = false",
    "SET python_enable_replacements = false",
    "SET python_scan_all_frames = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET temp_directory = ''",
    "SET max_temp_directory_size = '0B'",
    "SET secret_directory = ''",
    "SET home_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_FUNCTIONS: Final = (
    "CREATE MACRO attribute(s, key) AS halo_attribute(s.trace_id, s.source_no, s.byte_offset, s.byte_length, key)",
    "CREATE MACRO span_json(s) AS halo_span_json(s.trace_id, s.source_no, s.byte_offset, s.byte_length)",
)
_INTEGERS: Final = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
_AS_THEY_ARE: Final = {*_INTEGERS, "BOOLEAN", "FLOAT", "DOUBLE"}
_BROKEN: Final = ("FatalException", "InternalException")
"""After these DuckDB answers nothing any more."""
_VIEWS: Final = ("spans", "traces")
_TABLE_FUNCTIONS: Final = ("range", "generate_series", "unnest", "repeat")
_MOST_COLUMNS: Final = 100
_MOST_CHARS: Final = 400_000
"""Of all cells of a reply; further rows are left out."""


def opened(setup: Frame) -> tuple[duckdb.DuckDBPyConnection, SpanTexts]:
    """The index behind its views and functions, cut off from everything else. Raises: duckdb.Error, ImportError."""
    import duckdb

    from halo_mcp.index.privacy import Privacy
    from halo_mcp.sandbox.span_text import SpanTexts

    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": setup["threads"],
        "memory_limit": f"{setup['memory_bytes'] >> 20}MB",
    }
    connection = duckdb.connect(":memory:", config=config)
    for statement in setup["statements"]:
        connection.execute(statement)
    texts = SpanTexts(setup["sources"], Privacy(setup["redact"], setup["payloads"]))
    texts.register(connection)
    for statement in (*_FUNCTIONS, *_LOCK):
        connection.execute(statement)
    return connection, texts


def answer(connection: duckdb.DuckDBPyConnection, texts: SpanTexts, request: Frame) -> Frame:
    """The result of one statement as a frame, or {"error", "kind"} with DuckDB's words."""
    import duckdb

    started = time.perf_counter()
    texts.begin()
    try:
        statements = connection.extract_statements(request["sql"])
        kinds = [str(statement.type).split(".")[-1] for statement in statements]
        if kinds != ["SELECT"]:
            return {"kind": "refused", "error": ", ".join(kinds[:5]) or "empty"}
        if texts.restricted and (other := foreign_source(connection, request["sql"])):
            return {"kind": "refused source", "error": other}
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            reply = result_of(connection.sql(statements[0]), request["limit"], request["cell_chars"])
        finally:
            connection.execute("ROLLBACK")
            texts.close()
    except (duckdb.Error, RuntimeError, ValueError, MemoryError, RecursionError) as error:
        if texts.changed is not None:
            return {"kind": "changed", "error": texts.changed}
        return {"kind": type(error).__name__, "error": str(error)[:2_000]}
    return {**reply, "elapsed_ms": (time.perf_counter() - started) * 1e3}


def foreign_source(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """What a statement reads besides the two views, its own WITH parts and lists of values; None when nothing.

    The views are what masks texts: the tables behind them must not be reached, by whatever name or function.
    """
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    tree = json.loads(row[0]) if row else {"error": True}
    if tree.get("error"):
        return "something that cannot be looked into"
    own, read = set(_VIEWS), list[tuple[str, ...]]()
    todo: list[Any] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += cast("list[Any]", node)
        elif isinstance(node, dict):
            part = cast("dict[str, Any]", node)
            todo += part.values()
            named = cast("dict[str, Any]", part.get("cte_map") or {}).get("map", ())
            own |= {str(entry["key"]).lower() for entry in cast("list[dict[str, Any]]", named)}
            read += _sources_in(part)
    # A place with more than one part is none of the statement's own, whatever its WITH parts are called.
    foreign = (place for place in read if [name.lower() for name in place] not in [[name] for name in own])
    return next((".".join(filter(None, place))[:100] for place in foreign), None)


def _sources_in(part: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What one node of a statement's tree reads: a name with its schema and catalogue, or a function."""
    kind = part.get("type")
    if kind == "BASE_TABLE":
        yield tuple(str(part[key]) for key in ("catalog_name", "schema_name", "table_name") if part.get(key))
    elif kind == "TABLE_FUNCTION":
        name = str(cast("dict[str, Any]", part.get("function") or {}).get("function_name")).lower()
        if name not in _TABLE_FUNCTIONS:
            yield ("", f"{name}()")
    elif kind == "SHOW_REF" and part.get("table_name"):
        yield ("", str(part["table_name"]))


def result_of(relation: duckdb.DuckDBPyRelation, limit: int, cell_chars: int) -> Frame:
    """Columns and at most ``limit`` rows; longer cells are [their beginning, their length]."""
    names, kinds = relation.columns, [str(kind) for kind in relation.types]
    if len(names) > _MOST_COLUMNS:
        return {"kind": "refused columns", "error": f"{len(names)} columns"}
    rows = relation.limit(limit + 1).project(", ".join(_cells(kinds, cell_chars))).fetchall()
    shown: list[list[Any]] = []
    chars = 0
    for row in rows[:limit]:
        cells = [_cell(kind, row[2 * at], row[2 * at + 1], cell_chars) for at, kind in enumerate(kinds)]
        chars += sum(len(str(cell)) for cell in cells)
        if chars > _MOST_CHARS and shown:
            break
        shown.append(cells)
    columns = [[name[:500], kind[:200]] for name, kind in zip(names, kinds, strict=True)]
    return {"columns": columns, "rows": shown, "more": len(rows) > len(shown)}


def _cells(kinds: Sequence[str], cell_chars: int) -> list[str]:
    """Per column two expressions: the value, cut inside DuckDB when it is text, and the length of the whole text.

    What JSON and Python have no word for (times, blobs, lists, structs, ...) becomes DuckDB's text for it.
    """
    expressions: list[str] = []
    for position, kind in enumerate(kinds, 1):
        if kind in _AS_THEY_ARE:
            expressions += [f"#{position}", "0"]
        else:
            text = f"#{position}" if kind == "VARCHAR" else f"CAST(#{position} AS VARCHAR)"
            expressions += [f"left({text}, {cell_chars})", f"length({text})"]
    return expressions


def _cell(kind: str, value: Any, length: int | None, cell_chars: int) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity")
    if kind.startswith("DECIMAL") and len(value) <= 15:
        return float(value)
    return value if length is None or length <= cell_chars else [value, length]


def main() -> None:
    channel = Channel(_MAX_FRAME)
    setup = channel.first()
    readable = (setup["directory"], *(source["path"] for source in setup["sources"]))
    applied = confine((*system_paths(), *_READ_BY_DUCKDB, *readable), setup["address_bytes"])
    try:
        connection, texts = opened(setup)
    except Exception as error:  # whatever it is: the host tells it to whoever asked
        channel.send({"unavailable": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
        os._exit(1)
    channel.listen()
    channel.send({"ready": True, "confined": applied})
    while True:
        reply = answer(connection, texts, channel.receive())
        channel.send(reply)
        if reply.get("kind") in _BROKEN:
            os._exit(1)  # the host starts a sound one


if __name__ == "__main__":
    main()
