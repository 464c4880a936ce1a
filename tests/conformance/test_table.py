"""What the documentation says was tested is what the tests test."""

from __future__ import annotations

from tests.conformance.table import DOCUMENT, with_table


def test_the_table_of_tested_programs_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == with_table(document)
