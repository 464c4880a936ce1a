"""What SQL answers: values of every type, texts of spans, growth, and that the schema tells the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from halo_mcp.errors import SandboxError
from halo_mcp.index.sql_schema import EXAMPLES, INTERNAL, VIEWS, listed_columns, schema_text
from halo_mcp.index.work import Work
from halo_mcp.sandbox.sql import Cut, SqlSandbox
from tests.builders import append_lines, open_store, span, write_lines
from tests.sandbox.conftest import LONG_TEXT, Asking


def test_rows_come_back_in_the_order_of_the_statement_with_their_types(asking: Asking) -> None:
    result = asking.run("SELECT span_id, input_tokens FROM spans WHERE trace_id = 't1' ORDER BY span_id")
    assert result.columns == (("span_id", "VARCHAR"), ("input_tokens", "BIGINT"))
    assert result.rows == (("act", None), ("again", None), ("root", None), ("think", 10))
    assert not result.more


def test_more_rows_than_the_limit_are_announced(asking: Asking) -> None:
    result = asking.run("SELECT span_id FROM spans ORDER BY span_id", 2)
    assert (result.rows, result.more) == ((("act",), ("again",)), True)


@pytest.mark.parametrize(
    "expression, value",
    [
        ("NULL", None),
        ("true", True),
        ("170141183460469231731687303715884105727::HUGEINT", str(2**127 - 1)),
        ("18446744073709551615::UBIGINT", str(2**64 - 1)),
        ("'nan'::DOUBLE", "NaN"),
        ("'-inf'::FLOAT", "-Infinity"),
        ("1.50::DECIMAL(5,2)", 1.5),
        ("12345678901234567.89", "12345678901234567.89"),
        ("to_timestamp(0)", "1970-01-01 00:00:00+00"),
        ("make_timestamp_ns(1000000001)", "1970-01-01 00:00:01.000000001"),
        ("DATE '2026-03-02'", "2026-03-02"),
        ("INTERVAL 3 MONTH", "3 months"),
        ("[1, NULL]", "[1, NULL]"),
        ("{'a': [1, 2]}", "{'a': [1, 2]}"),
        ("'\\x00\\xFF'::BLOB", "\\x00\\xFF"),
        ("chr(27) || chr(10)", "\x1b\n"),
        ("repeat('é', 5000)", Cut("é" * 4_000, 5_000)),
    ],
)
def test_every_value_arrives_as_something_json_can_say(asking: Asking, expression: str, value: object) -> None:
    assert asking.rows(f"SELECT {expression}") == [(value,)]


def test_the_same_column_name_may_come_twice(asking: Asking) -> None:
    result = asking.run("SELECT 1 AS a, 2 AS a")
    assert [name for name, _ in result.columns] == ["a", "a"]
    assert result.rows == ((1, 2),)


def test_an_attribute_is_read_as_text_from_the_source(asking: Asking) -> None:
    sql = "SELECT attribute(s, 'input.value'), attribute(s, 'list'), attribute(s, 'none'), attribute(s, 'absent') "
    assert asking.rows(sql + "FROM spans s WHERE span_id = 'act'") == [('a "city"\n', '[1,{"a":"é"}]', None, None)]
    assert asking.rows("SELECT attribute(spans, 'half') FROM spans WHERE span_id = 'again'") == [("\ufffd!",)]


def test_a_long_attribute_is_cut_with_the_marker(asking: Asking) -> None:
    sql = "SELECT right(attribute(spans, 'input.value'), 50), length(attribute(spans, 'input.value')) FROM spans "
    ((end, length),) = asking.rows(sql + "WHERE span_id = 'think'")
    assert end.endswith(f"... [HALO truncated: original {len(LONG_TEXT)} chars]")
    assert 65_536 < length < 65_600


def test_attributes_work_in_conditions_groups_and_joins(asking: Asking) -> None:
    sql = (
        "SELECT t.outcome, attribute(s, 'tool.name') AS tool, count(*) FROM spans s JOIN traces t USING (trace_id) "
        "WHERE attribute(s, 'tool.name') IS NOT NULL GROUP BY ALL"
    )
    assert asking.rows(sql) == [("unknown", "geo", 2)]


def test_a_whole_span_is_json_for_duckdb(asking: Asking) -> None:
    sql = "SELECT json_extract_string(span_json(spans), '$.status.message') FROM spans WHERE span_id = 'act'"
    assert asking.rows(sql) == [("no such city",)]


def test_an_unknown_column_is_answered_with_all_columns(asking: Asking) -> None:
    error = asking.error("SELECT nope FROM spans")
    assert 'Referenced column "nope" not found' in error
    assert error.endswith(f"Columns: {listed_columns()}.")


def test_an_unknown_table_is_answered_with_the_views(asking: Asking) -> None:
    assert asking.error("SELECT * FROM span").endswith("There are two views: spans and traces.")


@pytest.mark.parametrize("view", VIEWS)
def test_the_schema_documents_every_column_of_a_view_and_no_other(asking: Asking, view: str) -> None:
    present = {row[0]: row[1] for row in asking.rows(f"DESCRIBE {view}")}
    documented = {column.name: column.type for column in VIEWS[view]}
    assert {name: kind for name, kind in present.items() if name not in INTERNAL} == documented
    for column in VIEWS[view]:
        assert f"  {column.name} {column.type}" in schema_text()
        assert column.description in schema_text()


@pytest.mark.parametrize("question", EXAMPLES)
def test_the_examples_of_the_schema_run(asking: Asking, question: str) -> None:
    assert asking.rows(EXAMPLES[question])


def test_the_worker_follows_a_growing_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    store, sandbox = open_store(tmp_path, path), SqlSandbox()
    asking = Asking(store, sandbox)
    assert asking.rows("SELECT count(*) FROM spans") == [(1,)]
    append_lines(path, span("s2"), span("s3", trace="t2", attributes={"input.value": "new"}))
    store.refresh(Work())
    assert asking.rows("SELECT trace_id, span_count FROM traces ORDER BY 1") == [("t1", 2), ("t2", 1)]
    assert asking.rows("SELECT attribute(spans, 'input.value') FROM spans WHERE span_id = 's3'") == [("new",)]
    assert sandbox.worker.starts == 2
    sandbox.close()


def test_a_state_whose_files_are_gone_asks_to_call_again(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    store, sandbox = open_store(tmp_path, path), SqlSandbox()
    old = store.sql_state()
    for name in old.segment_files:
        (old.directory / name).unlink()
    with pytest.raises(SandboxError, match="Call again"):
        sandbox.run(old, "SELECT 1", 1, Work())
