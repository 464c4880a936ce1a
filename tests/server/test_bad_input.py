"""Whatever is wrong, a caller reads one sentence that says what to do next, and the next call works."""
# ruff: noqa: E501  # recorded texts have long lines

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
from inline_snapshot import snapshot

from halo_mcp.index.local import LocalStore
from halo_mcp.index.work import Work
from halo_mcp.server import TOOL_NAMES
from tests.builders import append_lines, span, write_lines
from tests.tools.desk import ERAS, Era, serving

BINARY: Final = bytes(range(256)) * 8


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


def good(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "good.jsonl",
        span(error="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", attributes={"input.value": "x"}),
    )


async def errors_of(
    tmp_path: Path, sources: dict[str, Any], *calls: tuple[str, dict[str, Any]], era: Era = "auto"
) -> list[str]:
    """What each call is answered; after each, a good call still works."""
    errors: list[str] = []
    async with serving(tmp_path, {"good": [good(tmp_path)], **sources}, era=era) as caller:
        for tool, arguments in calls:
            errors.append((await caller.error(tool, **arguments)).replace(str(tmp_path), "TMP"))
            assert (await caller.json("count_traces"))["total"] == 1
    return errors


async def test_a_source_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \r\n")
    (tmp_path / "binary.jsonl").write_bytes(BINARY)
    (tmp_path / "text.jsonl").write_text("Dear diary,\ntoday nothing failed.\n")
    (tmp_path / "foreign.jsonl").write_text('{"event": "login", "user": 1}\n' * 3)
    (tmp_path / "folder").mkdir()
    names = (
        "missing.jsonl",
        "folder",
        "no*.jsonl",
        "empty.jsonl",
        "blank.jsonl",
        "binary.jsonl",
        "text.jsonl",
        "foreign.jsonl",
    )
    sources = {f"d{i}": [tmp_path / name] for i, name in enumerate(names)}
    calls = [("get_dataset_overview", {"dataset": dataset}) for dataset in sources]
    assert await errors_of(tmp_path, sources, *calls) == snapshot(
        [
            "There is no file TMP/missing.jsonl. Check the path given to halo-mcp; relative paths start at its working directory.",
            "The directory TMP/folder holds no trace file (.jsonl, .json, .gz, ...). Check the path given to halo-mcp; relative paths start at its working directory.",
            "The pattern TMP/no*.jsonl matches no file. Check the path given to halo-mcp; relative paths start at its working directory.",
            "TMP/empty.jsonl holds no spans that halo-mcp can read: it is empty. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/empty.jsonl` shows what was found.",
            "TMP/blank.jsonl holds no spans that halo-mcp can read: it is empty. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/blank.jsonl` shows what was found.",
            "TMP/binary.jsonl holds no spans that halo-mcp can read: it is a binary file. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/binary.jsonl` shows what was found.",
            "TMP/text.jsonl holds no spans that halo-mcp can read: its first line is not JSON: unexpected character, expected a JSON value. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/text.jsonl` shows what was found.",
            "TMP/foreign.jsonl holds no spans that halo-mcp can read: its first line is not a span: no trace_id. Expected JSON lines with one span object (trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor TMP/foreign.jsonl` shows what was found.",
        ]
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_without_read_permission_is_explained(tmp_path: Path) -> None:
    closed = write_lines(tmp_path / "closed.jsonl", span())
    closed.chmod(0)
    (error,) = await errors_of(tmp_path, {"closed": [closed]}, ("get_dataset_overview", {"dataset": "closed"}))
    assert error == "TMP/closed.jsonl cannot be read: Permission denied. Check its permissions, then call again."


async def test_ids_and_names_that_do_not_exist_are_answered_with_where_to_find_them(tmp_path: Path, era: Era) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_dataset_overview", {"dataset": "nope"}),
        ("view_trace", {"trace_id": "t2"}),
        ("view_trace", {"trace_id": "t1-and-more"}),
        ("view_spans", {"trace_id": "t2", "span_ids": ["s1"]}),
        ("view_spans", {"trace_id": "t1", "span_ids": ["s8", "s9"]}),
        ("view_spans", {"trace_id": "t1", "span_ids": ["s1"], "attribute": "input.valeu"}),
        ("search_trace", {"trace_id": "t1", "pattern": "x", "span_ids": ["s9"]}),
        ("no_such_tool", {}),
    ]
    assert await errors_of(tmp_path, {}, *calls, era=era) == snapshot(
        [
            "There is no dataset 'nope'. Loaded: good. Leave dataset empty for the first one.",
            "There is no trace 't2' in dataset 'good'. Take ids from query_traces or from get_dataset_overview.",
            "There is no trace 't1-and-more' in dataset 'good'. Take ids from query_traces or from get_dataset_overview.",
            "There is no trace 't2' in dataset 'good'. Take ids from query_traces or from get_dataset_overview.",
            "Trace 't1' has no span s8, s9. view_trace(trace_id='t1', detail='outline') lists its spans.",
            "Span 's1' has no attribute 'input.valeu'. It has, among others: input.value, name.",
            "Trace 't1' has no span s9. view_trace(trace_id='t1', detail='outline') lists its spans.",
            f"There is no tool 'no_such_tool'. Tools: {', '.join(TOOL_NAMES)}.",
        ]
    )


async def test_arguments_of_the_wrong_name_or_type_are_refused_with_those_that_are_accepted(
    tmp_path: Path, era: Era
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("count_traces", {"filter": {"has_errors": True}}),
        ("count_traces", {"filters": {"has_error": True}}),
        ("count_traces", {"filters": {"has_errors": "perhaps"}}),
        ("count_traces", {"filters": {"outcome": ["maybe"]}}),
        ("count_traces", {"filters": {"attributes": [{"key": "k", "operator": "eq"}]}}),
        ("count_traces", {"filters": "has_errors"}),
        ("count_traces", {"group_by": "colour"}),
        ("query_traces", {"limit": 501}),
        ("query_traces", {"sort_by": "name"}),
        ("view_trace", {}),
        ("view_trace", {"trace_id": 7}),
        ("view_trace", {"trace_id": "t1", "max_chars": 10}),
        ("view_trace", {"trace_id": "t1", "response_format": "xml"}),
        ("view_spans", {"trace_id": "t1", "span_ids": []}),
        ("view_spans", {"trace_id": "t1", "span_ids": ["s"] * 201}),
        ("view_spans", {"trace_id": "t1", "span_ids": "s1"}),
    ]
    assert await errors_of(tmp_path, {}, *calls, era=era) == snapshot(
        [
            """\
Invalid arguments for count_traces:
- filter: Extra inputs are not permitted
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- filters.has_error: Extra inputs are not permitted. Filters: has_errors, outcome, trace_ids, session_ids, service_names, agent_names, model_names, tool_names, span_names, observation_kinds, failure_mode, project_id, task_keys, run_ids, start_time_gte, end_time_lte, min_duration_ms, max_duration_ms, min_tokens, max_tokens, min_span_count, max_span_count, attributes, regex_pattern
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- filters.has_errors: Input should be a valid boolean, unable to interpret input
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- filters.outcome.0: Input should be 'pass', 'fail' or 'unknown'
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- filters.attributes.0.operator: Extra inputs are not permitted
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- filters: Input should be a valid dictionary or instance of TraceFilters
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for count_traces:
- group_by: Input should be 'outcome', 'has_errors', 'service_name', 'agent_name', 'model_name', 'tool_name', 'span_name', 'task_key', 'run_id', 'session_id', 'project_id', 'day' or 'hour'
Accepted arguments: filters, group_by, dataset, response_format.\
""",
            """\
Invalid arguments for query_traces:
- limit: Input should be less than or equal to 500
Accepted arguments: filters, sort_by, limit, cursor, dataset, response_format.\
""",
            """\
Invalid arguments for query_traces:
- sort_by: Input should be 'start_time', '-start_time', '-duration_ms', '-tokens', '-error_span_count', '-span_count' or '-raw_jsonl_bytes'
Accepted arguments: filters, sort_by, limit, cursor, dataset, response_format.\
""",
            """\
Invalid arguments for view_trace:
- trace_id: Field required
Accepted arguments: trace_id, detail, cursor, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_trace:
- trace_id: Input should be a valid string
Accepted arguments: trace_id, detail, cursor, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_trace:
- max_chars: Input should be greater than or equal to 2000
Accepted arguments: trace_id, detail, cursor, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_trace:
- response_format: Input should be 'text' or 'json'
Accepted arguments: trace_id, detail, cursor, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_spans:
- span_ids: List should have at least 1 item after validation, not 0
Accepted arguments: trace_id, span_ids, attribute, offset, around, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_spans:
- span_ids: List should have at most 200 items after validation, not 201
Accepted arguments: trace_id, span_ids, attribute, offset, around, max_chars, dataset, response_format.\
""",
            """\
Invalid arguments for view_spans:
- span_ids: Input should be a valid list
Accepted arguments: trace_id, span_ids, attribute, offset, around, max_chars, dataset, response_format.\
""",
        ]
    )


async def test_times_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    values = ["yesterday", "2026-13-01", "12", "-5", "1e9", "2026-03-02T25:00:00Z", "٣"]
    calls = [("query_traces", {"filters": {"start_time_gte": value}}) for value in values]
    assert await errors_of(tmp_path, {}, *calls) == [
        f"start_time_gte={value!r} is not a time: give RFC 3339 such as '2026-03-02T09:00:00Z', "
        "or epoch seconds, milliseconds, microseconds or nanoseconds as digits."
        for value in values
    ]


async def test_patterns_that_re2_cannot_run_are_refused_with_a_way_round(tmp_path: Path) -> None:
    patterns = ["(", "(?=a)b", "(?<!a)b", r"(a)\1", "(?>a)", "a{2000}", "[z-a]", "\\"]
    calls = [("search_trace", {"trace_id": "t1", "pattern": pattern}) for pattern in patterns]
    errors = await errors_of(tmp_path, {}, *calls)
    assert errors == snapshot(
        [
            "The pattern '(' cannot be used: RE2 says 'missing ): ('; correct it, or write \\Q...\\E around a text to find it exactly as written.",
            "The pattern '(?=a)b' cannot be used: RE2 has no look-ahead or look-behind, here (?=; match the surrounding text itself, or run two searches and compare what they find.",
            "The pattern '(?<!a)b' cannot be used: RE2 has no look-ahead or look-behind, here (?<!; match the surrounding text itself, or run two searches and compare what they find.",
            "The pattern '(a)\\\\1' cannot be used: RE2 has no back-references, here \\1; write out the repeated text, or write \\\\ if the backslash is part of the text to find.",
            "The pattern '(?>a)' cannot be used: RE2 has no atomic groups; write (?:...), which never backtracks in RE2.",
            "The pattern 'a{2000}' cannot be used: RE2 repeats at most 1000 times, nested counts multiplied, here {2000}; use a smaller count, * or +.",
            "The pattern '[z-a]' cannot be used: RE2 says 'invalid character class range: z-a'; correct it, or write \\Q...\\E around a text to find it exactly as written.",
            "The pattern '\\\\' cannot be used: RE2 says 'trailing \\\\'; correct it, or write \\Q...\\E around a text to find it exactly as written.",
        ]
    )
    filtered = [("count_traces", {"filters": {"regex_pattern": pattern}}) for pattern in patterns]
    assert await errors_of(tmp_path, {}, *filtered) == errors


async def test_a_pattern_that_explodes_elsewhere_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, {"good": [good(tmp_path)]}) as caller:
        assert (await caller.json("search_trace", trace_id="t1", pattern="(a+)+$"))["trace_id"] == "t1"
        assert (await caller.json("count_traces", filters={"regex_pattern": "(a+)+$"}))["total"] in (0, 1)
        assert (await caller.json("count_traces", filters={"regex_pattern": "(a|aa)+!"}))["total"] == 1


async def test_a_cursor_of_another_call_is_refused(tmp_path: Path, era: Era) -> None:
    def many(name: str) -> Path:
        return write_lines(
            tmp_path / name, *(span(f"s{i}", trace=f"t{i}", attributes={"k": "v" * 900}) for i in range(5))
        )

    sources = {"a": [many("a.jsonl")], "b": [many("b.jsonl")]}
    async with serving(tmp_path, sources, era=era) as caller:
        cursor = (await caller.json("query_traces", limit=2))["next_cursor"]
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("query_traces", {"dataset": "b"}),
            ("query_traces", {"sort_by": "-tokens"}),
            ("query_traces", {"filters": {"has_errors": False}}),
            ("view_trace", {"trace_id": "t1"}),
        ]
        for tool, arguments in wrong:
            assert await caller.error(tool, cursor=cursor, **arguments) == (
                f"This cursor does not belong to this {tool} call: it was made for another dataset, other arguments or "
                "an older state of the data. Repeat the call without cursor to start at the first page."
            )
        for garbage in (
            "x",
            "garbage",
            "!!!",
            "W10",
            "bnVsbA",
            "WyJhIiwgMV0",
            cursor[:-3],
            cursor + "AAAA",
            "é",
            "0" * 5_000,
        ):
            assert "does not belong to this query_traces call" in await caller.error("query_traces", cursor=garbage)
        page = await caller.json("query_traces", limit=3, cursor=cursor)
        assert [trace["trace_id"] for trace in page["traces"]] == ["t2", "t3", "t4"]


async def test_a_file_outside_the_allowed_directories_is_not_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    write_lines(inside / "new.jsonl", span())
    write_lines(outside / "secret.jsonl", span())
    (inside / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (inside / "text.jsonl").write_text("no spans\n")
    async with serving(tmp_path, {"good": [good(tmp_path)]}, roots=[inside]) as caller:
        errors = [
            (await caller.error("list_datasets", open=str(path))).replace(str(tmp_path), "TMP")
            for path in (
                outside / "secret.jsonl",
                inside / ".." / "out" / "secret.jsonl",
                inside / "link.jsonl",
                inside / "nope.jsonl",
                "/etc/passwd",
                f"good={inside / 'new.jsonl'}",
            )
        ]
        assert errors == snapshot(
            [
                "TMP/out/secret.jsonl may not be opened: allowed directories are TMP/in. Start the server with --root DIR (or HALO_MCP_ROOTS), or name the file on its command line.",
                "TMP/in/../out/secret.jsonl may not be opened: allowed directories are TMP/in. Start the server with --root DIR (or HALO_MCP_ROOTS), or name the file on its command line.",
                "TMP/in/link.jsonl may not be opened: allowed directories are TMP/in. Start the server with --root DIR (or HALO_MCP_ROOTS), or name the file on its command line.",
                "There is no file or directory TMP/in/nope.jsonl to open. Check the path; give it in full.",
                "/etc/passwd may not be opened: allowed directories are TMP/in. Start the server with --root DIR (or HALO_MCP_ROOTS), or name the file on its command line.",
                "Dataset 'good' is already loaded from TMP/good.jsonl; open with another NAME=.",
            ]
        )
        opened = await caller.json("list_datasets", open=str(inside / "new.jsonl"))
        assert [dataset["name"] for dataset in opened["datasets"]] == ["good", "new"]
        assert (await caller.json("count_traces", dataset="new"))["total"] == 1
        again = await caller.json("list_datasets", open=str(inside / "new.jsonl"))
        assert [dataset["name"] for dataset in again["datasets"]] == ["good", "new"]
        assert "not usable" in await caller.text("list_datasets", open=str(inside / "text.jsonl"))


async def test_a_server_without_datasets_says_how_to_give_it_some(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {}, era=era) as caller:
        assert await caller.text("list_datasets") == (
            "No dataset is loaded. Start the server with trace files: halo-mcp serve [NAME=]FILE..."
        )
        assert "start the server with trace files" in await caller.error("get_dataset_overview")


async def test_a_file_that_appears_grows_shrinks_and_goes_is_followed(tmp_path: Path, era: Era) -> None:
    path = tmp_path / "live.jsonl"
    async with serving(tmp_path, {"live": [path]}, era=era) as caller:
        assert "There is no file" in await caller.error("count_traces")
        write_lines(path, span(trace="t1"))
        assert (await caller.json("count_traces"))["total"] == 1
        append_lines(path, span(trace="t2"), span(trace="t3"))
        assert (await caller.json("count_traces"))["total"] == 3
        write_lines(path, span(trace="t9"))
        assert (await caller.json("count_traces"))["total"] == 1
        assert "There is no trace 't1'" in await caller.error("view_trace", trace_id="t1")
        path.unlink()
        assert "There is no file" in await caller.error("view_trace", trace_id="t9")
        write_lines(path, span(trace="t9"))
        assert "trace t9" in await caller.text("view_trace", trace_id="t9")


async def test_a_file_replaced_during_a_call_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "live.jsonl", span(attributes={"output.value": "the old text"}))
    refresh, todo = LocalStore.refresh, ["replace"]

    def replacing(store: LocalStore, work: Work) -> None:
        """The file changes just after it was found to be up to date."""
        refresh(store, work)
        if todo:
            todo.pop()
            other = write_lines(tmp_path / "other.jsonl", span("s7", attributes={"output.value": "the new text"}))
            other.replace(path)

    async with serving(tmp_path, {"live": [path]}) as caller:
        await caller.text("get_dataset_overview")
        monkeypatch.setattr(LocalStore, "refresh", replacing)
        text = await caller.text("view_trace", trace_id="t1")
        assert "the new text" in text or "the old text" in text
        assert not todo
        assert "the new text" in await caller.text("view_trace", trace_id="t1")
