"""query_sql: one SELECT over the index, for what no other tool counts."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from halo_mcp.sandbox.sql import MAX_ROWS, Cut, SqlResult, SqlSandbox
from halo_mcp.tools.budget import MARKER_CHARS, SQL_CELL_CHARS, SQL_CHARS, Page, fair_shares, name
from halo_mcp.tools.params import Answer, Call, call_text
from halo_mcp.tools.render import counted

_SEPARATOR: Final = " | "
_CLOSING_CHARS: Final = 700
_ESCAPES: Final = {0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x7C: "\\|"} | {
    code: f"\\x{code:02x}" for code in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0))
}
"""Inside a row of text: what would end it, split it, or steer a terminal."""


def query_sql(
    call: Call,
    sql: Annotated[str, Field(max_length=20_000, description="DuckDB dialect")],
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 100,
) -> Answer:
    """Run one SELECT over the views `spans` and `traces`, for what no other tool counts.

    `DESCRIBE spans` lists columns (meaning: halo://{dataset}/schema); attribute(spans, 'input.value') reads text.
    """
    sandbox = call.workers.get("sql", call.dataset, SqlSandbox)
    result = sandbox.run(call.store.sql_state(), sql, limit, call.work)
    cap = _cap(result)
    page = Page(SQL_CHARS, reserve=_CLOSING_CHARS)
    page.add_cut(_SEPARATOR.join(_escaped(name(column)) for column, _ in result.columns))
    shown: list[list[Any]] = []
    for row in result.rows:
        cells = [_shortened(cell, cap) for cell in row]
        if not page.add(_SEPARATOR.join(map(_text, cells))):
            if shown:
                break
            page.add_cut(_SEPARATOR.join(map(_text, cells)))
        shown.append(cells)
    cut = sum(isinstance(cell, Cut) for cells in shown for cell in cells)
    data = {
        "columns": [{"name": name(column), "type": kind} for column, kind in result.columns],
        "rows": [[_marked(cell) if isinstance(cell, Cut) else cell for cell in cells] for cells in shown],
        "row_count": len(shown),
        "has_more": result.more or len(shown) < len(result.rows),
        "truncated_cells": cut,
        "elapsed_ms": round(result.elapsed_ms, 1),
    }
    return Answer(page.close(_coverage(data, cut), _next(call, result, shown)), data)


def _cap(result: SqlResult) -> int:
    """How many characters of a cell are shown: all cells fit evenly, but none is cut below ``SQL_CELL_CHARS``."""
    lengths = [cell.chars if isinstance(cell, Cut) else len(str(cell)) for row in result.rows for cell in row]
    room = SQL_CHARS - _CLOSING_CHARS - len(lengths) * len(_SEPARATOR)
    cap = max(SQL_CELL_CHARS, fair_shares(lengths, max(1, room)))
    return cap if cap >= max(lengths, default=0) else max(SQL_CELL_CHARS, cap - MARKER_CHARS)


def _shortened(cell: Any, cap: int) -> Any:
    if isinstance(cell, Cut):
        return Cut(cell.text[:cap], cell.chars)
    return Cut(cell[:cap], len(cell)) if isinstance(cell, str) and len(cell) > cap else cell


def _marked(cell: Cut) -> str:
    return f"{cell.text}... [HALO truncated: original {cell.chars} chars]"


def _text(cell: Any) -> str:
    if isinstance(cell, Cut):
        return _escaped(_marked(cell))
    if cell is None or isinstance(cell, bool):
        return {None: "NULL", True: "true", False: "false"}[cell]
    return _escaped(str(cell))


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _coverage(data: dict[str, Any], cut: int) -> str:
    line = f"{counted(data['row_count'], 'row')}"
    line += " shown, and there are more (aggregate, or add ORDER BY, LIMIT and OFFSET)" if data["has_more"] else ""
    line += f"; {counted(cut, 'cell')} cut" if cut else ""
    return f"{line}; {data['elapsed_ms']:.0f} ms."


def _next(call: Call, result: SqlResult, shown: list[list[Any]]) -> str:
    """The call that reads the first row's span or trace, when the row names it."""
    names = [column for column, _ in result.columns]
    if not shown or "trace_id" not in names or not isinstance(trace_id := shown[0][names.index("trace_id")], str):
        return ""
    span_id = shown[0][names.index("span_id")] if "span_id" in names else None
    if isinstance(span_id, str):
        return "Next: " + call_text("view_spans", dataset=call.named, trace_id=trace_id, span_ids=[span_id])
    return "Next: " + call_text("view_trace", dataset=call.named, trace_id=trace_id)
