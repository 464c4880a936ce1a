"""Writes the table of attribute keys in docs/outcomes.md from the code: ``python -m tests.outcome_table FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from halo_mcp.index import semconv

START, END = "<!-- keys -->\n", "<!-- end of keys -->\n"


def table() -> str:
    """The default keys, in fallback order."""
    rows = (
        ("a verdict", "any span but a tool's", semconv.OUTCOME),
        ("a verdict", "roots", semconv.ROOT_OUTCOME),
        ("a score", "any span but a tool's", semconv.SCORE),
        ("a score", "roots", semconv.ROOT_SCORE),
        ("the task", "any span", semconv.TASK_KEY),
        ("the run", "any span", semconv.RUN_ID),
    )
    lines = ["| says | read on | attributes, the first with a value counts |", "| --- | --- | --- |"]
    lines += [f"| {what} | {where} | {', '.join(f'`{key}`' for key in keys)} |" for what, where, keys in rows]
    return "\n".join(lines) + "\n"


def words(meaning: str) -> str:
    """The words of one outcome."""
    return ", ".join(f"`{word}`" for word, meant in semconv.OUTCOME_VALUES.items() if meant == meaning)


def with_table(text: str) -> str:
    """A document with the table as it should be."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
