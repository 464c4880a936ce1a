"""Prompts name tools, arguments and filters that exist, in calls that work as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import MCPError
from mcp_types import INVALID_PARAMS

from halo_mcp.server import TOOL_NAMES
from tests.builders import span, write_lines
from tests.tools.desk import ERAS, Caller, Era, calls_in, serving

GEO: Final = {"tool.name": "geo"}
PROMPTS: Final[dict[str, dict[str, str]]] = {
    "diagnose": {"dataset": "before", "question": 'Why "late"?', "tool_name": "geo", "service_name": "shop"},
    "explain_trace": {"dataset": "after", "trace_id": "after-1"},
    "compare_runs": {"before": "before", "after": "after"},
}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


def sources(tmp_path: Path) -> dict[str, list[Path]]:
    def run(name: str, outcomes: tuple[str, ...]) -> Path:
        return write_lines(
            tmp_path / f"{name}.jsonl",
            *(
                span(
                    trace=f"{name}-{n}",
                    kind="TOOL",
                    service="shop",
                    attributes={"tool.name": "geo", "agent.outcome": o},
                )
                for n, o in enumerate(outcomes)
            ),
        )

    return {"before": [run("before", ("fail", "pass"))], "after": [run("after", ("pass", "pass"))]}


async def text_of(caller: Caller, name: str, arguments: dict[str, str]) -> str:
    (message,) = (await caller.client.get_prompt(name, arguments)).messages
    content: Any = message.content
    assert message.role == "user"
    return str(content.text)


async def test_a_client_lists_the_prompts_with_their_arguments(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, sources(tmp_path), era=era) as caller:
        listed = (await caller.client.list_prompts()).prompts
    assert {one.name: [(a.name, a.required) for a in one.arguments or []] for one in listed} == {
        "diagnose": [("dataset", False), ("question", False), ("tool_name", False), ("service_name", False)],
        "explain_trace": [("trace_id", True), ("dataset", False)],
        "compare_runs": [("before", True), ("after", True)],
    }
    assert all(one.title and one.description and all(a.description for a in one.arguments or []) for one in listed)


@pytest.mark.parametrize("name", PROMPTS)
async def test_every_call_in_a_prompt_works_as_it_stands(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, sources(tmp_path)) as caller:
        text = await text_of(caller, name, PROMPTS[name])
        calls = calls_in(text)
        assert len(calls) >= 2
        for call in calls:
            assert await caller.text(call.tool, **call.arguments)
    assert set(re.findall(r"\b[a-z]+_[a-z_]+\b", text)) <= {*TOOL_NAMES, *_known_words()}
    assert len(text) < 2_500


def _known_words() -> set[str]:
    return {"trace_id", "span_id", "tool_names", "service_names"}


async def test_what_is_asked_stands_in_the_prompt_and_empty_arguments_do_not(tmp_path: Path) -> None:
    async with serving(tmp_path, sources(tmp_path)) as caller:
        assert (await text_of(caller, "diagnose", {"question": "Why late?"})).startswith("Why late?\n")
        plain = await text_of(caller, "diagnose", {})
    assert "dataset=" not in plain
    assert "tool_names" not in plain


async def test_a_prompt_that_does_not_exist_or_lacks_an_argument_is_refused_with_what_there_is(
    tmp_path: Path, era: Era
) -> None:
    expected = {
        ("nope", ()): "There is no prompt 'nope'. Prompts: diagnose, explain_trace, compare_runs.",
        ("explain_trace", ()): "Prompt explain_trace needs trace_id. Its arguments: trace_id, dataset.",
        ("compare_runs", (("before", " "),)): "Prompt compare_runs needs before, after. Its arguments: before, after.",
        ("diagnose", (("datset", "x"),)): "Prompt diagnose takes no datset. "
        "Its arguments: dataset, question, tool_name, service_name.",
    }
    async with serving(tmp_path, sources(tmp_path), era=era) as caller:
        for (name, arguments), text in expected.items():
            with pytest.raises(MCPError) as caught:
                await caller.client.get_prompt(name, dict(arguments))
            assert (caught.value.error.code, caught.value.error.message.replace("prompt nope", "prompt 'nope'")) == (
                INVALID_PARAMS,
                text,
            )
