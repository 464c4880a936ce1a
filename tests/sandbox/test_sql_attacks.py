"""Statements that try to get out, to change something, or to take everything: each ends in one clear error."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from halo_mcp.errors import Cancelled, SandboxUnavailable, WorkerStopped
from halo_mcp.index.work import Work
from halo_mcp.sandbox import sql as sql_module
from halo_mcp.sandbox.sql import SqlSandbox
from tests.sandbox.conftest import Asking

ONE_SELECT = "only one SELECT over the views spans and traces is run"
NO_FILES = "Files, network and other databases cannot be reached"
MOST_CHARS = 2_000
"""Of any error text."""

REACHING_OUT = (
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('{source}')",
    "SELECT * FROM '{source}'",
    "SELECT * FROM read_parquet('{directory}/x.parquet')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "WITH x AS (COPY (SELECT 1) TO '{directory}/out.csv') SELECT 1",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))",
)

NO_SELECT = (
    "COPY spans TO '{directory}/out.csv'",
    "COPY (SELECT 1) TO '{directory}/out.csv'",
    "EXPORT DATABASE '{directory}/out'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{directory}/out.csv'",
    "EXPLAIN SELECT 1",
    "ATTACH '{directory}/x.duckdb' AS q",
    "ATTACH '{directory}/x.db' AS q (TYPE sqlite)",
    "ATTACH ':memory:' AS q",
    "DETACH s0",
    "USE s0",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET memory_limit = '10GB'",
    "RESET memory_limit",
    "SET VARIABLE x = 1",
    "CREATE MACRO f(a) AS a",
    "CREATE TEMP TABLE q AS SELECT 1",
    "DROP VIEW spans",
    "DELETE FROM superseded",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "CALL pragma_version()",
    "PREPARE p AS SELECT 1",
    "PIVOT spans ON tool_name USING count(*)",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW spans",
    "",
    "-- only a comment",
    "WITH x AS (DELETE FROM superseded RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO superseded VALUES (0, 'a', 0) RETURNING *) SELECT * FROM x",
    "SELECT * FROM force_checkpoint()",
)

REFUSED = (
    "SELECT getenv('PATH')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{directory}/out.csv''')",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM enable_profiling()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT ?",
    "SELEC 1",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "+".join(["1"] * 9_000),
    "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(300)),
    "SELECT cast(repeat('x', 1000000) AS INTEGER)",
    "SELECT error(repeat('x', 1000000))",
    'SELECT "' + "z" * 15_000 + '" FROM spans',
    "SELECT attribute({'trace_id': 't1', 'source_no': 99, 'byte_offset': 0, 'byte_length': 10}, 'a')",
    "SELECT attribute({'trace_id': 't1', 'source_no': 0, 'byte_offset': -5, 'byte_length': 10}, 'a')",
    "SELECT span_json({'trace_id': 't1', 'source_no': 0, 'byte_offset': 1, 'byte_length': 20})",
)

TOO_MUCH = (
    "SELECT repeat('a', 2000000000)",
    "SELECT length(lpad('a', 2000000000, 'b'))",
    "SELECT length(replace(repeat('a', 100000000), 'a', 'bbbbbbbbbbbbbbbbbbbb'))",
    "SELECT length(printf('%2000000000d', 1))",
    "SELECT error(repeat('x', 100000000))",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(10000)",
    "SELECT list(range) FROM range(1000000000)",
    "SELECT count(*) FROM range(100000000000) a, range(100000000) b",
    "SELECT count(a.range * b.range) FROM range(10000000) a, range(10000000) b",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
    "SELECT sum(levenshtein(repeat('a', 3000), repeat('b', 3000 + range::INTEGER % 2))) FROM range(100000)",
)


def written(sql: str, asking: Asking, directory: Path) -> str:
    return sql.replace("{source}", str(asking.store.arguments[0])).replace("{directory}", str(directory))


@pytest.mark.parametrize("sql", REACHING_OUT)
def test_nothing_outside_the_index_can_be_reached(asking: Asking, tmp_path: Path, sql: str) -> None:
    error = asking.error(written(sql, asking, tmp_path))
    assert NO_FILES in error or "does not exist" in error
    assert len(error) < MOST_CHARS
    assert not list(tmp_path.iterdir())
    asking.still_works()


@pytest.mark.parametrize("sql", NO_SELECT)
def test_whatever_is_no_single_select_is_refused(asking: Asking, tmp_path: Path, sql: str) -> None:
    error = asking.error(written(sql, asking, tmp_path))
    assert ONE_SELECT in error
    assert not list(tmp_path.iterdir())
    asking.still_works()


@pytest.mark.parametrize("sql", REFUSED)
def test_what_duckdb_cannot_do_is_said_briefly(asking: Asking, tmp_path: Path, sql: str) -> None:
    error = asking.error(written(sql, asking, tmp_path))
    assert error.startswith("This SQL gives no result: ")
    assert "\n" not in error
    assert len(error) < MOST_CHARS
    asking.still_works()


@pytest.mark.parametrize("sql", TOO_MUCH)
def test_what_takes_too_much_is_stopped_and_the_next_query_works(asking: Asking, sql: str) -> None:
    before = resident()
    error = asking.error(sql)
    assert "took longer than 1 s" in error or "MB" in error
    assert error.endswith("Ask for less: aggregate, select fewer or shorter columns, add conditions.")
    asking.still_works()
    assert resident() - before < 64 << 20


def test_a_large_result_is_bounded_before_it_reaches_the_server(asking: Asking) -> None:
    before = resident()
    result = asking.run("SELECT repeat('é', 50000) AS a, range AS b FROM range(1000)", 1_000)
    assert result.more
    assert sum(len(str(row[0].text)) for row in result.rows) < 500_000
    assert resident() - before < 64 << 20


def test_views_cannot_be_replaced_from_inside_a_query(asking: Asking) -> None:
    assert asking.rows("WITH spans AS (SELECT 7 AS x) SELECT * FROM spans") == [(7,)]
    asking.still_works()


def test_a_caller_that_leaves_stops_its_query(asking: Asking) -> None:
    asking.still_works()
    pid = asking.sandbox.worker.pid
    work = Work()
    threading.Timer(0.2, work.stop).start()
    with pytest.raises(Cancelled):
        asking.run("SELECT count(a.range * b.range) FROM range(10000000) a, range(10000000) b", work=work)
    assert asking.sandbox.worker.pid is None
    asking.still_works()
    assert asking.sandbox.worker.pid != pid


def test_a_worker_killed_from_outside_is_reported_and_replaced(asking: Asking) -> None:
    asking.still_works()
    pid = asking.sandbox.worker.pid
    assert pid is not None
    threading.Timer(0.2, os.kill, [pid, signal.SIGKILL]).start()
    with pytest.raises(WorkerStopped, match="its worker process ended"):
        asking.run("SELECT count(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    asking.still_works()


def test_two_threads_ask_the_same_worker_at_once(asking: Asking) -> None:
    found: list[int] = []

    def ask() -> None:
        found.extend(asking.rows("SELECT count(*) FROM spans")[0][0] for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [5] * 40


def test_a_query_that_is_killed_does_not_spoil_one_that_waits(asking: Asking) -> None:
    errors: list[str] = []
    slow = "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))"
    asking.still_works()
    thread = threading.Thread(target=lambda: errors.append(asking.error(slow)))
    thread.start()
    asking.still_works()
    thread.join(20)
    assert "took longer than 1 s" in errors[0]
    asking.still_works()


@pytest.mark.skipif(sys.platform != "linux", reason="confined on Linux only")
def test_all_threads_of_the_worker_are_confined(asking: Asking) -> None:
    asking.still_works()
    if not asking.sandbox.worker.ready["confined"]["seccomp"]:
        pytest.skip("no seccomp here")
    pid = asking.sandbox.worker.pid
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    assert all("Seccomp:\t2" in status and "NoNewPrivs:\t1" in status for status in statuses)


@pytest.mark.parametrize(
    "script, reason",
    [
        ("import no_such_package", "its process ended at once (exit code 1)"),
        ("import os; os.abort()", "its process ended at once (signal SIGABRT)"),
    ],
)
def test_a_worker_that_cannot_start_is_reported_in_one_sentence(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(script)
    monkeypatch.setattr(sql_module, "_SCRIPT", broken)
    with pytest.raises(SandboxUnavailable) as caught:
        SqlSandbox().run(asking.store.sql_state(), "SELECT 1", 1, Work())
    assert str(caught.value) == f"query_sql is not available here: {reason}. All other tools work."
    asking.still_works()


def resident() -> int:
    """Resident memory of this process in bytes; 0 where it is not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0
