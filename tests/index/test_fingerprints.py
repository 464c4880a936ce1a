"""What makes two failures one mode: the same words, whatever ids, numbers, paths and the like stand between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from halo_mcp.index.failure_columns import masked
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import Record, span, store_of


@pytest.fixture(scope="module")
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def masks(db: duckdb.DuckDBPyConnection, *texts: str) -> list[str]:
    rows = db.execute(f"SELECT {masked('text')} FROM (SELECT unnest(?::VARCHAR[]) AS text)", [list(texts)]).fetchall()
    return [text for (text,) in rows]


def modes(tmp_path: Path, *spans: Record) -> list[tuple[str, int]]:
    """(id, spans) of each failure mode."""
    found = store_of(tmp_path, *spans).failure_modes(TraceFilters(), None, Work())
    return [(mode.id, mode.spans) for mode in found.modes]


def failed(text: str, number: int = 0, tool: str = "search", **more: Any) -> Record:
    return span(f"s{number}", trace=f"t{number}", kind="TOOL", error=text, attributes={"tool.name": tool}, **more)


def raised(kind: str, number: int, message: str = "") -> Record:
    event = {"name": "exception", "attributes": {"exception.type": kind, "exception.message": message}}
    return span(f"s{number}", trace=f"t{number}", kind="TOOL", error=" ", events=[event], attributes={"tool.name": "f"})


# --- what varies -----------------------------------------------------------------------------------------------------
numbers = st.one_of(st.integers(0, 10**12).map(str), st.integers(0, 10**9).map(lambda value: f"{value / 1_000:.3f}"))
identifiers = st.one_of(
    st.uuids().map(str),
    st.binary(min_size=4, max_size=16).map(bytes.hex),
    st.binary(min_size=1, max_size=8).map(lambda value: "0x" + value.hex()),
)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
paths = st.lists(names, min_size=2, max_size=5).map(lambda parts: "/" + "/".join(parts) + ".py")
urls = st.tuples(names, names, numbers).map(lambda parts: f"https://{parts[0]}.example/{parts[1]}?page={parts[2]}")
quoted_texts = st.one_of(names.map(lambda text: f"'{text}'"), names.map(lambda text: f'"{text}"'))
times = st.datetimes().map(lambda time: time.strftime("2026-%m-%dT%H:%M:%S.%fZ"))
blanks = st.sampled_from((" ", "  ", "\n", "\t", " \n "))


@st.composite
def errors(draw: st.DrawFn) -> str:
    blank = draw(blanks)
    return (
        f"request {draw(identifiers)} at {draw(times)}:{blank}got {draw(numbers)} from {draw(urls)} "
        f"reading {draw(paths)},{blank}key {draw(quoted_texts)} missing"
    )


EXPECTED = "request # at <time>: got # from <url> reading <path>, key <text> missing"


@settings(max_examples=10, phases=[Phase.generate])
@given(texts=st.lists(errors(), min_size=50, max_size=50))
def test_fifty_errors_that_differ_in_what_varies_have_one_fingerprint(
    db: duckdb.DuckDBPyConnection, texts: list[str]
) -> None:
    assert set(masks(db, *texts)) == {EXPECTED}


def test_fifty_near_identical_errors_are_one_mode(tmp_path: Path) -> None:
    texts = [f"order {no} of /srv/data/{no:x}/o.json: '{chr(97 + no % 26)}' not in {no * 7}" for no in range(50)]
    ((_, count),) = modes(tmp_path, *(failed(text, no) for no, text in enumerate(texts)))
    assert count == 50


@pytest.mark.parametrize(
    "text, expected",
    [
        ("GET https://a.example/x?id=3 failed", "GET <url> failed"),
        ("at 2026-03-02T09:00:00.123Z", "at <time>"),
        ("at 2026-03-02", "at <time>"),
        ("id 0b6f2c1e-7a44-4c0e-9d3e-2f1f3a9b8c7d", "id #"),
        ("commit 3f2a9c1d", "commit #"),
        ("at 0x7f3a", "at #"),
        ("call_9aXb2c", "#"),
        ('no "key" here', "no <text> here"),
        ("no 'key' here", "no <text> here"),
        ("no `key` here", "no <text> here"),
        ("in /srv/app/run.py", "in <path>"),
        (r"in C:\work\app\run.py", "in <path>"),
        ("in ./run.py", "in <path>"),
        ("took 1,234.5 ms", "took # ms"),
        ("a\n\n  b", "a b"),
        ("don't do what it can't", "don't do what it can't"),
        ("the user's order isn't 'open'", "the user's order isn't <text>"),
        ("input/output error", "input/output error"),
        ("decade facade", "decade facade"),
    ],
)
def test_each_kind_of_varying_text_has_its_placeholder(db: duckdb.DuckDBPyConnection, text: str, expected: str) -> None:
    assert masks(db, text) == [expected]


# --- what does not ---------------------------------------------------------------------------------------------------
def test_three_exception_types_with_empty_messages_are_three_modes(tmp_path: Path) -> None:
    kinds = ["KeyError", "AssertionError", "OSError"] * 2
    found = modes(tmp_path, *(raised(kind, number) for number, kind in enumerate(kinds)))
    assert [count for _, count in found] == [2, 2, 2]


def test_http_statuses_stay_apart_and_other_numbers_do_not(tmp_path: Path) -> None:
    texts = ["HTTP 404 for page 1", "HTTP 404 for page 2", "HTTP 500 for page 3", "status code: 503, page 4"]
    assert sorted(count for _, count in modes(tmp_path, *map(failed, texts, range(4)))) == [1, 1, 2]


def test_the_same_words_of_different_tools_are_different_modes(tmp_path: Path) -> None:
    assert len(modes(tmp_path, failed("boom", 1, tool="f"), failed("boom", 2, tool="g"))) == 2


def test_other_words_are_another_mode(tmp_path: Path) -> None:
    assert len(modes(tmp_path, failed("the order is locked", 1), failed("the order is paid", 2))) == 2


def test_a_soft_and_a_hard_failure_with_the_same_words_have_one_id(tmp_path: Path) -> None:
    soft = span("s2", trace="t2", kind="TOOL", attributes={"tool.name": "search", "output.value": "Error: boom"})
    assert len(modes(tmp_path, failed("Error: boom", 1), soft)) == 1


def test_a_mode_has_the_same_id_in_every_dataset(tmp_path: Path) -> None:
    ((one, _),) = modes(tmp_path / "one", failed("order 17 is locked"))
    other = modes(tmp_path / "other", failed("something else", 5), failed("order 4 is locked", 6), failed("x", 7))
    assert one in dict(other)


# --- any text --------------------------------------------------------------------------------------------------------
anything = st.one_of(
    st.text(max_size=300),
    st.text("'\"`/\\0x#<>. \n\t-:T", max_size=600),
    st.text(min_size=1, max_size=20).map(lambda text: text * 500),
)


@settings(max_examples=30, phases=[Phase.generate])
@given(texts=st.lists(anything, min_size=10, max_size=30))
def test_any_text_has_a_short_fingerprint_that_further_masking_leaves_alone(
    db: duckdb.DuckDBPyConnection, texts: list[str]
) -> None:
    once = masks(db, *texts)
    assert all(len(text) <= 200 and "\n" not in text for text in once)
    assert masks(db, *texts) == once


def test_any_text_can_be_what_failed(tmp_path: Path) -> None:
    texts: Sequence[str] = [
        "\x00\x01\x1b[31m",
        "é" * 5_000,
        "错误：订单 17",
        "\u202e\u200b",
        "💥" * 300,
        "'" * 999,
        "\\" * 999,
    ]
    found = modes(tmp_path, *(failed(text, no) for no, text in enumerate(texts)))
    assert sum(count for _, count in found) == len(texts)
