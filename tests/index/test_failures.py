"""What failed, as text and as a quote; and that dirty lines tell it as clean ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.index.evidence import QUOTE_CHARS, quote_failure
from halo_mcp.index.failure_rules import STATUS_RULE
from halo_mcp.index.failures import FailureEvidence
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.work import Work
from tests.builders import Record, line, span, store_of

TRACEBACK = "starting\nTraceback (most recent call last):\n  File \"run.py\", line 1\n    main()\nKeyError: 'id'\n"


def failures(tmp_path: Path, *lines: Record | bytes) -> list[FailureEvidence]:
    store = store_of(tmp_path, *lines)
    found = store.failure_modes(TraceFilters(), None, Work())
    return store.failure_evidence(found.modes, Work())


def tool(output: Any, **more: Any) -> Record:
    text = output if isinstance(output, str) else json.dumps(output)
    return span(kind="TOOL", attributes={"tool.name": "run", "output.value": text}, **more)


@pytest.mark.parametrize(
    "output, rule, text, quote",
    [
        (TRACEBACK, "traceback", "KeyError: 'id'", "KeyError: 'id'"),
        (
            "Exit code: 2\nmake: Entering directory\nmake: *** [all] Error 2",
            "exit_code",
            "exit code 2: make: *** [all] Error 2",
            None,
        ),
        (
            {"exit_code": 127, "stderr": "sh: pytst: not found"},
            "exit_code",
            "exit code 127: sh: pytst: not found",
            None,
        ),
        ("\n\n  Error: boom\nsecond line", "error_prefix", "Error: boom\nsecond line", "Error: boom"),
        (
            {"error": {"message": "no such order\nask again"}},
            "error_field",
            "no such order\nask again",
            "no such order",
        ),
    ],
)
def test_the_text_of_a_failure_is_the_line_that_tells_it_and_its_quote_stands_in_the_span(
    tmp_path: Path, output: Any, rule: str, text: str, quote: str | None
) -> None:
    (found,) = failures(tmp_path, tool(output))
    assert (found.mode.rule, found.mode.text) == (rule, text)
    assert found.quote is not None
    assert quote is None or found.quote.text == quote
    whole = output if isinstance(output, str) else json.dumps(output)
    assert found.quote.text in whole
    assert "\n" not in found.quote.text


def test_a_hard_error_is_told_by_its_exception_before_its_status(tmp_path: Path) -> None:
    event = {"name": "exception", "attributes": {"exception.type": "KeyError", "exception.message": "'id'\nin orders"}}
    (found,) = failures(tmp_path, span(kind="TOOL", error="failed", events=[event]))
    assert (found.mode.rule, found.mode.text) == (STATUS_RULE, "KeyError: 'id'\nin orders")
    assert found.quote is not None
    assert found.quote.text == "'id'"


def test_a_quote_is_short_and_there_is_none_for_words_that_do_not_stand_in_the_span() -> None:
    record = tool("Error: " + "x" * 1_000)
    quote = quote_failure(record, "error_prefix", "Error: " + "x" * 400)
    assert quote is not None
    assert len(quote.text) == QUOTE_CHARS
    assert quote_failure(span("s"), STATUS_RULE, "not there") is None


OUTPUTS = (
    "Error: boom",
    {"isError": True, "content": [{"type": "text", "text": "no order"}]},
    {"exit_code": 2, "stderr": "no rule"},
    TRACEBACK,
    "ok",
    "x" * 2_000 + "\nTraceback (most recent call last):\n  f()\nValueError: x",
)


def test_a_line_that_the_fast_reader_refuses_tells_its_failure_as_a_clean_one_does(tmp_path: Path) -> None:
    spans = [tool(output, trace=f"t{no}") for no, output in enumerate(OUTPUTS)]
    dirty = [
        line(record).replace(b'"OK"', b"NaN").replace(b'"name":"step"', b'"name":"step","x":NaN') for record in spans
    ]
    clean_found, dirty_found = (
        {(item.mode.id, item.mode.rule, item.mode.text, item.mode.spans) for item in failures(tmp_path / name, *lines)}
        for name, lines in (("clean", spans), ("dirty", dirty))
    )
    assert clean_found == dirty_found
    assert len(clean_found) == 5


def test_a_status_message_that_is_the_output_is_told_once(tmp_path: Path) -> None:
    words = "Error: gift card balance is not enough"
    attributes = {"tool.name": "pay", "output.value": words}
    store = store_of(tmp_path, span("t", kind="TOOL", error=words, attributes=attributes))
    (mode,) = store.failure_modes(TraceFilters(), None, Work()).modes
    assert mode.text == words
