"""Resources say what the tools of the same name say, page by page; what is not there is not found, with a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, PromptReference, ResourceTemplateReference

from halo_mcp.config import Settings
from halo_mcp.datasets import Datasets
from halo_mcp.index.filters import TraceFilters
from halo_mcp.resources import TRACE
from halo_mcp.server import TOOL_NAMES, create_server
from tests.builders import agent, span, write_lines
from tests.tools.desk import ERAS, Caller, Era, serving


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


def small(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "small.jsonl",
        agent("root", name="planner", service="shop"),
        span("act", "root", kind="TOOL", error="no such city", attributes={"tool.name": "geo"}, service="shop"),
        agent("other", name="planner", trace="t2", service="desk"),
        span("odd", trace="../etc/a b?c#d"),
    )


def large(tmp_path: Path) -> Path:
    """A trace whose outline is many pages long."""
    spans = [span(f"span-{n:04}", trace="big", name=f"step {n}", start_ms=n, attributes={"n": n}) for n in range(600)]
    return write_lines(tmp_path / "large.jsonl", *spans)


async def read(caller: Caller, address: str) -> str:
    (content,) = (await caller.client.read_resource(address)).contents
    text: Any = content
    return str(text.text)


async def refusal(caller: Caller, address: str) -> tuple[int, str]:
    with pytest.raises(MCPError) as caught:
        await caller.client.read_resource(address)
    assert "Traceback" not in str(caught.value)
    return caught.value.error.code, caught.value.error.message


async def test_a_client_lists_the_guide_and_the_templates(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [small(tmp_path)]}, era=era) as caller:
        listed = (await caller.client.list_resources()).resources
        templates = (await caller.client.list_resource_templates()).resource_templates
    assert [str(one.uri) for one in listed] == ["halo://guide"]
    assert [one.uri_template for one in templates] == [
        "halo://{dataset}/schema",
        "halo://{dataset}/overview",
        TRACE,
        "halo://runs/{run_id}",
    ]
    assert all(one.description and one.title for one in templates)


async def test_the_guide_knows_every_tool_filter_prompt_and_resource_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, {"data": [small(tmp_path)]}) as caller:
        text = await read(caller, "halo://guide")
        prompts = [prompt.name for prompt in (await caller.client.list_prompts()).prompts]
    tools = [*TOOL_NAMES]
    assert [*re.findall(r"^- `(\w+)`", text, re.MULTILINE)] == [*tools, *TraceFilters.model_fields, *prompts]
    assert set(re.findall(r"\b([a-z]+_[a-z_]+)\(", text)) <= {*tools}
    assert TRACE in text


async def test_an_overview_and_a_small_trace_are_what_their_tools_say(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"first": [large(tmp_path)], "data": [small(tmp_path)]}, era=era) as caller:
        assert await read(caller, "halo://data/overview") == await caller.text("get_dataset_overview", dataset="data")
        assert await read(caller, "halo://data/trace/t1") == await caller.text(
            "view_trace", dataset="data", trace_id="t1"
        )
        assert "spans" in await read(caller, "halo://data/schema")


async def test_a_large_trace_is_read_to_its_end_by_the_addresses_it_gives(tmp_path: Path, era: Era) -> None:
    async with serving(tmp_path, {"data": [large(tmp_path)]}, era=era) as caller:
        seen, address, pages = set[str](), "halo://data/trace/big", 0
        while address and pages < 50:
            text = await read(caller, address)
            seen |= set(re.findall(r"\[(span-\d{4})\]", text))
            following = re.search(r"The next page as a resource: (\S+)$", text)
            address, pages = following[1] if following else "", pages + 1
        assert pages > 1
    assert len(seen) == 600


async def test_an_id_of_any_shape_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path, {"data": [small(tmp_path)]}) as caller:
        assert "[odd]" in await read(caller, "halo://data/trace/..%2Fetc%2Fa%20b%3Fc%23d")


async def test_what_is_not_there_is_not_found_with_a_sentence_on_where_to_look(tmp_path: Path, era: Era) -> None:
    expected = {
        "halo://nope/overview": "There is no dataset 'nope'. Loaded: data. Leave dataset empty for the first one.",
        "halo://nope/schema": "There is no dataset 'nope'. Loaded: data. Leave dataset empty for the first one.",
        "halo://nope/trace/t1": "There is no dataset 'nope'. Loaded: data. Leave dataset empty for the first one.",
        "halo://data/trace/t9": "There is no trace 't9' in dataset 'data'. "
        "Take ids from query_traces or from get_dataset_overview.",
        "halo://data/trace/..%2F..%2Fetc%2Fpasswd": "There is no trace '../../etc/passwd' in dataset 'data'. "
        "Take ids from query_traces or from get_dataset_overview.",
        "halo://runs/..%2F..%2Fx": "There is no resource 'halo://runs/..%2F..%2Fx'. There are halo://guide, "
        f"halo://{{dataset}}/schema, halo://{{dataset}}/overview, {TRACE}, halo://runs/{{run_id}}.",
        "halo://runs/0123456789abcdef": "There is no record of a run '0123456789abcdef'.",
    }
    async with serving(tmp_path, {"data": [small(tmp_path)]}, era=era) as caller:
        for address, text in expected.items():
            assert await refusal(caller, address) == (INVALID_PARAMS, text)
        code, text = await refusal(caller, "halo://data/trace/t1?cursor=forged")
        assert (code, text[:35]) == (INVALID_PARAMS, "This cursor does not belong to this")
        assert "3 traces" in await read(caller, "halo://data/overview")


async def test_a_source_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    async with serving(tmp_path, {"data": [tmp_path / "missing.jsonl"]}) as caller:
        code, text = await refusal(caller, "halo://data/overview")
    assert code == INTERNAL_ERROR
    assert text.startswith("There is no file ")


# --- completion -------------------------------------------------------------------------------------------------------
async def completed(caller: Caller, name: str, typed: str, **known: str) -> list[str]:
    ref = PromptReference(name="diagnose")
    found = await caller.client.complete(ref, {"name": name, "value": typed}, context_arguments=known or None)
    return found.completion.values


async def test_names_and_ids_are_completed_from_what_is_typed(tmp_path: Path, era: Era) -> None:
    sources = {"data": [small(tmp_path)], "drafts": [large(tmp_path)]}
    async with serving(tmp_path, sources, era=era) as caller:
        await caller.text("list_datasets")  # whoever types does not wait for an index to be built
        assert await completed(caller, "dataset", "") == ["data", "drafts"]
        assert await completed(caller, "before", "DR") == ["drafts"]
        assert await completed(caller, "trace_id", "t") == ["t1", "t2"]
        assert await completed(caller, "trace_id", "b", dataset="drafts") == ["big"]
        assert await completed(caller, "tool_name", "") == ["geo"]
        assert await completed(caller, "service_name", "sh") == ["shop"]
        assert await completed(caller, "question", "w") == []
        assert await completed(caller, "trace_id", "t", dataset="nope") == []
        template = ResourceTemplateReference(uri=TRACE)
        found = await caller.client.complete(template, {"name": "trace_id", "value": "t2"})
        assert found.completion.values == ["t2"]


async def test_completion_is_bounded_and_says_that_there_is_more(tmp_path: Path) -> None:
    many = write_lines(tmp_path / "many.jsonl", *(span(trace=f"trace-{n:03}") for n in range(150)))
    async with serving(tmp_path, {"data": [many]}) as caller:
        await caller.text("list_datasets")
        found = await caller.client.complete(PromptReference(name="x"), {"name": "trace_id", "value": "trace-"})
    assert len(found.completion.values) == 100
    assert found.completion.has_more


async def test_runs_are_completed_and_read(tmp_path: Path) -> None:
    datasets = Datasets({"data": [str(small(tmp_path))]}, Settings(index_dir=tmp_path / "index"))
    record = tmp_path / "index" / "runs" / "0123456789abcdef.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"trace_id": "run"}\n')
    async with Client(create_server(datasets)) as client:
        caller = Caller(client)
        assert await completed(caller, "run_id", "01") == ["0123456789abcdef"]
        assert await read(caller, "halo://runs/0123456789abcdef") == '{"trace_id": "run"}\n'
    datasets.close()
