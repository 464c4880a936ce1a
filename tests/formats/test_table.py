"""The formats as a whole: their table, and what every one of them must bear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mcp.index.formats.head import read_head
from halo_mcp.index.formats.protocol import Format, Report
from halo_mcp.index.formats.table import MODULES, formats, recognised
from halo_mcp.index.formats.trace_file import TraceFile
from tests.formats.reading import as_bytes, read
from tests.formats_table import with_formats

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def test_the_documentation_has_the_table_of_formats() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_formats(document) == document, "python -m tests.formats_table docs/formats.md"


def test_names_are_unlike_each_other() -> None:
    assert len({one.name for one in formats()}) == len(formats()) == len(set(MODULES))


def test_no_format_knows_another() -> None:
    directory = DOCUMENT.parents[1] / "halo_mcp" / "index" / "formats"
    for module in MODULES:
        text = (directory / f"{module}.py").read_text(encoding="utf-8")
        assert not [other for other in MODULES if f"formats.{other} " in text or f"import {other}" in text]


@pytest.mark.parametrize("one", formats(), ids=lambda one: one.name)
@settings(max_examples=20, deadline=None)
@given(content=JSON | st.binary(max_size=40), indent=st.sampled_from([None, 1]))
def test_a_format_decides_about_any_content_without_an_error(
    one: Format, content: Any, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(as_bytes(content, indent))
    assert one.sniff(read_head(path)) in (True, False)


@pytest.mark.parametrize(
    "content, shape",
    [
        (b"", "other"),
        (b'{"a": 1}', "lines"),
        (b'{"a": 1}\n{"a": 2}\n', "lines"),
        (b'cut\n{"a": 2}\n', "lines"),
        (b'{"a": 1}{"a": 2}\n', "lines"),
        (b'[{"a": 1}]', "array"),
        (b'[\n {"a": 1}\n]\n', "array"),
        (b'[{"a": 1}]\n[{"a": 2}]\n', "lines"),
        (b'\xef\xbb\xbf{\n "a": 1\n}', "document"),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', "lines"),
        (b'[{"a": 1}, {"b": "' + b"x" * 2_000_000 + b'"}]', "array"),
        (b'{\n"a": 1, "b": "' + b"x" * 2_000_000 + b'"}', "document"),
        (b"plain text", "other"),
    ],
)  # fmt: skip
def test_the_shape_of_a_file(tmp_path: Path, content: bytes, shape: str) -> None:
    (tmp_path / "file").write_bytes(content)
    head = read_head(tmp_path / "file")
    assert head.shape == shape
    if shape != "other" and len(content) < 100:
        assert next(iter(head.first)) == "a"


def test_arrays_in_an_array_are_items_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b" [[1, 2], [3]]")
    with TraceFile(tmp_path / "file", read_head(tmp_path / "file"), Report()) as file:
        assert list(file.values()) == [[1, 2], [3]]


def test_what_is_of_no_format_is_read_as_it_is() -> None:
    assert read({"a": 1}).format == ""


def test_sniffing_nothing_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert recognised(read_head(tmp_path / "empty")) is None
