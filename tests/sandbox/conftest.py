"""A small dataset behind a warm SQL worker with a short deadline, shared by all tests of a module."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from halo_mcp.errors import HaloError
from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from halo_mcp.sandbox.sql import SqlResult, SqlSandbox
from tests.builders import agent, llm, span, store_of

DEADLINE_S = 1.0
LONG_TEXT = "é" * 70_000


@dataclass(frozen=True)
class Asking:
    """A store and the worker that runs SQL over it."""

    store: LocalStore
    sandbox: SqlSandbox

    def run(self, sql: str, limit: int = 100, work: Work | None = None) -> SqlResult:
        return self.sandbox.run(self.store.sql_state(), sql, limit, work or Work())

    def rows(self, sql: str, limit: int = 100) -> list[tuple[Any, ...]]:
        return list(self.run(sql, limit).rows)

    def error(self, sql: str) -> str:
        with pytest.raises(HaloError) as caught:
            self.run(sql)
        return str(caught.value)

    def still_works(self) -> None:
        assert self.rows("SELECT count(*) FROM spans") == [(5,)]
        assert self.rows("SELECT count(*) FROM traces") == [(2,)]


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Generator[Asking]:
    long = {"llm.model_name": "m-1", "input.value": LONG_TEXT}
    again = span("again", "root", kind="TOOL", start_ms=9, attributes={"tool.name": "geo", "half": "\ud83d!"})
    store = store_of(
        tmp_path_factory.mktemp("sql"),
        agent("root", name="planner", ms=500),
        llm("think", "root", tokens=(10, 2), start_ms=1, attributes=long),
        span(
            "act",
            "root",
            kind="TOOL",
            start_ms=5,
            error="no such city",
            attributes={"tool.name": "geo", "input.value": 'a "city"\n', "list": [1, {"a": "é"}], "none": None},
        ),
        json.dumps(again).encode(),
        span("other", trace="t2"),
    )
    sandbox = SqlSandbox(DEADLINE_S)
    yield Asking(store, sandbox)
    sandbox.close()
    store.close()
