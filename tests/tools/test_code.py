"""run_code: what code can call, what it is told, and what becomes of its variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.tools.catalog import CATALOG
from tests.builders import append_lines, llm, span, write_lines
from tests.sandbox.interpreter import needs_interpreter
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, desk_over, serving

pytestmark = needs_interpreter


def printed(desk: Desk, code: str, **arguments: Any) -> str:
    data = desk.data("run_code", code=code, **arguments)
    assert data["stderr"] == ""
    return data["stdout"]


def raised(desk: Desk, code: str, **arguments: Any) -> str:
    data = desk.data("run_code", code=code, **arguments)
    assert data["exit_code"] == 1
    return data["stderr"].strip().splitlines()[-1]


def test_it_prints_what_was_printed_and_the_value_of_a_last_expression(demo: Demo) -> None:
    answer = demo.desk.ask("run_code", code="print('a')\nprint('b')\n[1, 'c']")
    assert answer.text.startswith("a\nb\n[1, 'c']\n[")
    assert answer.data["stdout"] == "a\nb\n[1, 'c']\n"
    assert (answer.data["exit_code"], answer.data["stderr"], answer.data["timed_out"]) == (0, "", False)


def test_code_without_output_is_told_to_print(demo: Demo) -> None:
    assert demo.desk.text("run_code", code="x = 1").startswith("(Nothing was printed: print() what you need")


def test_an_error_shows_its_last_frames_with_the_lines_of_the_code(demo: Demo) -> None:
    text = demo.desk.text("run_code", code="def f(d):\n    return d['missing']\n\nf({})")
    assert "    return d['missing']\n" in text
    assert "KeyError: 'missing'" in text
    assert "guest_app" not in text


def test_variables_stay_in_their_session(demo: Demo) -> None:
    printed(demo.desk, "x = 41", session="s")
    assert printed(demo.desk, "x + 1", session="s") == "42\n"
    assert raised(demo.desk, "x", session="other") == "NameError: name 'x' is not defined"


def test_batches_of_spans_are_all_spans_once_in_the_order_of_the_file(demo: Demo) -> None:
    code = (
        "ids, o = [], 0\nwhile b := spans(o, 300, fields=['trace_id', 'span_id']):\n"
        "    o += len(b)\n    ids += [s['trace_id'] + s['span_id'] for s in b]\n"
        "print(len(ids), len(set(ids)), ids[0], ids[-1])"
    )
    lines = Path(demo.desk.datasets.sources("before")[0]).read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    ids = [record["trace_id"] + record["span_id"] for record in records]
    info = demo.desk.data("get_dataset_overview")
    assert printed(demo.desk, code) == f"{info['total_spans']} {info['total_spans']} {ids[0]} {ids[-1]}\n"


def test_spans_take_filters_fields_and_paths(tmp_path: Path) -> None:
    desk = desk_over(
        tmp_path,
        write_lines(
            tmp_path / "t.jsonl",
            llm("a", trace="t1", tokens=(3, 4), service="web", attributes={"deep": {"k": [1]}}),
            span("b", trace="t2", error="boom"),
        ),
    )
    fields = ["span_id", "status.message", "inference.llm.input_tokens", "deep", "service.name", "nothing"]
    assert printed(desk, f"spans(fields={fields})") == (
        "[{'span_id': 'a', 'status.message': '', 'inference.llm.input_tokens': 3, 'deep': {'k': [1]}, "
        "'service.name': 'web', 'nothing': None}, "
        "{'span_id': 'b', 'status.message': 'boom', 'inference.llm.input_tokens': None, 'deep': None, "
        "'service.name': None, 'nothing': None}]\n"
    )
    assert printed(desk, "[s['name'] for s in spans(filters={'has_errors': True})]") == "['step']\n"
    assert printed(desk, "spans(2), spans(filters={'trace_ids': ['zzz']})") == "([], [])\n"
    assert printed(desk, "sorted(spans()[0]) == sorted(spans(limit=1)[0])") == "True\n"


def test_large_numbers_odd_text_and_normalised_ids_arrive_whole(tmp_path: Path) -> None:
    record = span("AB12", trace="AB" * 16, attributes={"big": 2**60 + 1, "text": 'line\u2028 \\ud83d\n"x"'})
    desk = desk_over(tmp_path, write_lines(tmp_path / "t.jsonl", record))
    code = "s = spans()[0]; print(s['attributes']['big'] == 2**60 + 1, repr(s['attributes']['text']), s['trace_id'])"
    assert printed(desk, code) == f"True {record['attributes']['text']!r} {'ab' * 16}\n"


def test_every_other_tool_is_a_function_that_returns_its_data(demo: Demo) -> None:
    names = [entry.function.__name__ for entry in CATALOG if entry.function.__name__ != "run_code"]
    assert printed(demo.desk, f"all(callable(globals()[n]) for n in {names})") == "True\n"
    assert raised(demo.desk, "run_code('1')") == "NameError: name 'run_code' is not defined"
    counted = demo.desk.data("count_traces", filters={"outcome": ["fail"]})
    assert printed(demo.desk, "count_traces(filters={'outcome': ['fail']})") == f"{counted}\n"
    assert printed(demo.desk, "list_datasets()['datasets'][0]['name']") == "'before'\n"


def test_the_argument_dataset_is_the_default_of_the_functions_and_each_takes_another(demo: Demo) -> None:
    both = demo.desk.data("get_dataset_overview", dataset="both")["total_traces"]
    after = demo.desk.data("get_dataset_overview", dataset="after")["total_traces"]
    code = "count_traces()['total'], count_traces(dataset='after')['total'], len(spans(dataset='after', limit=3))"
    assert printed(demo.desk, code, dataset="both") == f"({both}, {after}, 3)\n"


@pytest.mark.parametrize(
    "code, says",
    [
        ("query_traces(limit='x')", "HaloError: limit: Input should be a valid integer"),
        ("query_traces(filter={})", "HaloError: filter: Extra inputs are not permitted. It takes: filters, sort_by"),
        ("count_traces({}, {}, {}, {})", "HaloError: too many arguments; it takes: filters, group_by."),
        ("count_traces({}, filters={})", "HaloError: too many arguments; it takes: filters, group_by."),
        ("view_trace('nope')", "HaloError: There is no trace 'nope' in dataset 'before'."),
        ("count_traces(dataset='nope')", "HaloError: There is no dataset 'nope'."),
        ("count_traces(dataset=7)", "HaloError: dataset must be the name of a dataset"),
        ("spans(-1)", "HaloError: offset: Input should be greater than or equal to 0"),
        ("spans(limit=10**6)", "HaloError: limit: Input should be less than or equal to 20000"),
        ("count_traces(filters={'regex_pattern': '('})", "HaloError: The pattern '(' cannot be used"),
        ("spans(filters={'nope': 1})", "HaloError: filters.nope: Extra inputs are not permitted"),
    ],
)
def test_what_a_function_cannot_do_is_an_exception_that_says_why(demo: Demo, code: str, says: str) -> None:
    assert raised(demo.desk, code).startswith(says)


def test_spans_that_were_added_since_are_there_in_the_next_call(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", span("a"))
    desk = desk_over(tmp_path, path)
    assert printed(desk, "len(spans())") == "1\n"
    append_lines(path, span("b", trace="t2"))
    assert printed(desk, "len(spans())") == "2\n"


def test_a_file_that_was_replaced_is_an_exception_and_indexed_anew_by_the_next_call(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", span("a", name="old"))
    desk = desk_over(tmp_path, path)
    assert printed(desk, "spans()[0]['name']") == "'old'\n"
    write_lines(path, span("a", name="new"), span("b", name="new"))
    assert printed(desk, "sorted({s['name'] for s in spans()})") == "['new']\n"


async def test_a_client_gets_the_same_and_errors_of_the_code_are_no_errors_of_the_call(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", span("a"))
    async with serving(tmp_path, {"data": [path], "other": [path]}) as caller:
        assert (await caller.text("run_code", code="len(spans())", dataset="other")).startswith("1\n[")
        assert "ZeroDivisionError" in await caller.text("run_code", code="1/0")
        assert "There is no dataset 'nope'" in await caller.error("run_code", code="1", dataset="nope")
        assert "code" in await caller.error("run_code", code="")
