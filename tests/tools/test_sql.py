"""query_sql as a model and a person meet it: text, JSON, budget, next call, resource, command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp import MCPError

from halo_mcp.cli import run
from halo_mcp.index.sql_schema import EXAMPLES, schema_text
from halo_mcp.tools.budget import SQL_CHARS
from tests.builders import span, write_lines
from tests.server.test_surface import listed
from tests.tools.conftest import Demo
from tests.tools.desk import ERAS, Desk, Era, calls_in, desk_over, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    directory = tmp_path_factory.mktemp("sql")
    records = [span(f"s{i:04}", trace=f"t{i % 10}", attributes={"input.value": f"text {i}"}) for i in range(2_000)]
    return desk_over(directory, write_lines(directory / "traces.jsonl", *records))


def test_an_answer_is_a_header_rows_and_what_was_covered(desk: Desk) -> None:
    text = desk.text("query_sql", sql="SELECT trace_id, count(*) AS spans FROM spans GROUP BY 1 ORDER BY 1 LIMIT 2")
    header, first, second, coverage, following = text.splitlines()
    assert [header, first, second] == ["trace_id | spans", "t0 | 200", "t1 | 200"]
    assert coverage.startswith("2 rows; ")
    assert following == 'Next: view_trace(trace_id="t0")'


def test_the_suggested_call_reads_the_span_of_the_first_row(desk: Desk) -> None:
    text = desk.text("query_sql", sql="SELECT trace_id, span_id FROM spans ORDER BY span_id DESC LIMIT 1")
    (call,) = calls_in(text)
    assert call.arguments == {"trace_id": "t9", "span_ids": ["s1999"]}
    assert "text 1999" in desk.follow(call).text


def test_rows_beyond_the_limit_and_the_budget_are_announced(desk: Desk) -> None:
    data = desk.data("query_sql", sql="SELECT span_id FROM spans ORDER BY 1", limit=1_000)
    assert (data["row_count"], data["has_more"]) == (1_000, True)
    wide = desk.ask("query_sql", sql="SELECT span_id, repeat('x', 150) FROM spans ORDER BY 1", limit=1_000)
    assert len(wide.text) <= SQL_CHARS
    assert wide.data["has_more"]
    assert wide.data["row_count"] == wide.text.count("xxx |") + wide.text.count("x\n")
    assert "rows shown, and there are more" in wide.text


@pytest.mark.parametrize("count, chars", [(1, 50_000), (3, 9_000), (100, 3_000), (1_000, 500)])
def test_long_cells_are_cut_evenly_and_counted(desk: Desk, count: int, chars: int) -> None:
    sql = f"SELECT range AS n, repeat('é', {chars}) AS text FROM range({count})"
    result = desk.ask("query_sql", sql=sql, limit=1_000)
    assert len(result.text) <= SQL_CHARS
    assert len(json.dumps(result.data, ensure_ascii=False)) <= 2 * SQL_CHARS
    assert result.data["truncated_cells"] == result.data["row_count"] > 0
    assert result.data["rows"][0][1].endswith(f"... [HALO truncated: original {chars} chars]")
    assert "cut; " in result.text


def test_giant_names_and_many_columns_stay_within_the_budget(desk: Desk) -> None:
    columns = ", ".join(f"repeat('v', 4000) AS \"{'n' * 150}{i}\"" for i in range(90))
    result = desk.ask("query_sql", sql=f"SELECT {columns} FROM range(50)", limit=1_000)
    assert len(result.text) <= SQL_CHARS


def test_text_cannot_forge_rows_or_columns(desk: Desk) -> None:
    text = desk.text("query_sql", sql="SELECT 'a | b' || chr(10) || '7 rows; 1 ms.' || chr(27) AS x, NULL, true")
    assert text.splitlines()[1] == "a \\| b\\n7 rows; 1 ms.\\x1b | NULL | true"


def test_the_examples_of_the_schema_answer_about_the_demo(demo: Demo) -> None:
    for statement in EXAMPLES.values():
        assert len(demo.desk.text("query_sql", sql=statement)) < 6_000
    assert demo.desk.data("query_sql", sql=next(iter(EXAMPLES.values())))["row_count"] > 2


async def test_its_entry_in_the_tool_list_is_small(tmp_path: Path) -> None:
    (entry,) = (tool for tool in await listed(tmp_path, "auto") if tool["name"] == "query_sql")
    assert len(json.dumps(entry, separators=(",", ":"))) < 900


@pytest.mark.parametrize("era", ERAS)
async def test_the_schema_is_a_resource_of_each_dataset(tmp_path: Path, era: Era) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    async with serving(tmp_path, {"data": [path]}, era=era) as caller:
        (content,) = (await caller.client.read_resource("halo://data/schema")).contents
        assert content.model_dump()["text"] == schema_text()
        templates = (await caller.client.list_resource_templates()).resource_templates
        assert "halo://{dataset}/schema" in [template.uri_template for template in templates]
        with pytest.raises(MCPError, match="no dataset 'other'"):
            await caller.client.read_resource("halo://other/schema")


async def test_a_client_reads_refusals_as_one_sentence_and_goes_on(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "traces.jsonl", span())
    async with serving(tmp_path, {"data": [path]}) as caller:
        assert await caller.error("query_sql", sql="DROP VIEW spans") == (
            "This SQL gives no result: it is DROP, and only one SELECT over the views spans and traces is run "
            "(WITH, FROM, VALUES, DESCRIBE and SUMMARIZE count as such; nothing can be written, attached, loaded or "
            "set)."
        )
        assert (await caller.json("query_sql", sql="SELECT count(*) AS n FROM spans"))["rows"] == [[1]]


def test_the_command_line_asks_and_prints_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_lines(tmp_path / "traces.jsonl", span()))
    index = ["--index-dir", str(tmp_path / "index")]
    assert run(["sql", path, "SELECT name FROM spans", *index]) == 0
    assert capsys.readouterr().out.startswith("name\nstep\n1 row; ")
    assert run(["sql", path, "SELECT name FROM spans", "--json", *index]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [["step"]]
    assert run(["sql", "--schema"]) == 0
    assert capsys.readouterr().out == schema_text()
    assert run(["sql", path, *index]) == 1
    assert capsys.readouterr().err == "halo-mcp: Give a trace file and one statement, or --schema for the columns.\n"
    assert run(["sql", path, "SELECT nope", *index]) == 1
    assert "Referenced column" in capsys.readouterr().err
