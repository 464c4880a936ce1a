"""Whatever arguments a tool is given, of its schema or near it: a result or a clear error, and the server lives.

``HALO_FUZZ_EXAMPLES=200`` tries more than CI does.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS, CallToolResult

from halo_mcp.config import Settings
from halo_mcp.datasets import Datasets
from halo_mcp.demo import write_demo
from halo_mcp.server import build_tools, create_server
from tests.sandbox.interpreter import share_compiled

EXAMPLES: Final = int(os.environ.get("HALO_FUZZ_EXAMPLES", "12"))
SCHEMAS: Final[dict[str, dict[str, Any]]] = {tool.name: tool.parameters for tool in build_tools()}
WORDS: Final = (
    *("", "before", "after", "nope", "fetch_page", "outcome", "(", ".*", "\x00", "\ud800", "é\u202e", "a" * 5_000),
    *("SELECT * FROM spans", "SELECT 1; DROP TABLE x", "print(1)", "while True", "1e999", "-1", "../../etc/passwd"),
    *('{"role":"user"}', "[1,2]", "2026-03-02T09:00:00Z", "eyJhIjoxfQ", "null"),
)
ANY_JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(WORDS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
SLOW: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
TOLD: Final = ("Internal error", "Traceback", "Error executing tool")


class Asked:
    """A client of a server over the sample data, for tests that are not async."""

    def __init__(self, portal: BlockingPortal, client: Client, trace_id: str) -> None:
        self.trace_id = trace_id
        self._portal = portal
        self._client = client

    def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult | MCPError:
        try:
            return self._portal.call(partial(self._client.call_tool, tool, arguments))
        except MCPError as error:
            return error


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Generator[Asked]:
    directory = tmp_path_factory.mktemp("fuzz")
    write_demo(directory)
    sources = {name: [str(directory / f"{name}.jsonl")] for name in ("before", "after")}
    datasets = Datasets(sources, Settings(index_dir=directory / "index", deadline_s=10))
    share_compiled(directory / "index")
    with start_blocking_portal() as portal:
        connecting: AbstractContextManager[Client] = portal.wrap_async_context_manager(Client(create_server(datasets)))
        with connecting as client:
            listed = portal.call(partial(client.call_tool, "query_traces", {"limit": 1, "response_format": "json"}))
            content: dict[str, Any] = listed.structured_content or {}
            yield Asked(portal, client, content["traces"][0]["trace_id"])
    datasets.close()


def from_schema(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, of the few words of JSON Schema that ours use; ``shared`` are its $defs."""
    if "$ref" in schema:
        return from_schema(shared[schema["$ref"].rpartition("/")[2]], shared)
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return st.one_of([from_schema(one, shared) for one in schema["anyOf"]])
    match schema.get("type"):
        case "string":
            return st.one_of(st.sampled_from(WORDS), st.text(max_size=40))
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(
                from_schema(schema.get("items", {}), shared), min_size=schema.get("minItems", 0), max_size=3
            )
        case "object" if "properties" in schema:
            members = {name: from_schema(one, shared) for name, one in schema["properties"].items()}
            required = schema.get("required", ())
            return st.fixed_dictionaries(
                {name: one for name, one in members.items() if name in required},
                optional={name: one for name, one in members.items() if name not in required},
            )
        case "object":
            return st.dictionaries(
                st.sampled_from(WORDS[:6]), from_schema(schema.get("additionalProperties", {}), shared)
            )
        case _:
            return ANY_JSON


def of_schema(tool: str, trace_id: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments as the tool's schema allows them, with ids and words that lead somewhere among them."""
    schema, shared = SCHEMAS[tool], SCHEMAS["query_traces"]["$defs"]
    required, optional = dict[str, Any](), dict[str, Any]()
    for name, described in schema["properties"].items():
        values = from_schema(described, shared)
        if name in ("filters", "group_a", "group_b") or name.startswith("filters"):
            values = st.one_of(from_schema(shared["TraceFilters"], shared), st.builds(dict[str, Any]), values)
        elif name == "trace_id":
            values = st.one_of(st.just(trace_id), values)
        (required if name in schema.get("required", ()) else optional)[name] = values
    return st.fixed_dictionaries(required, optional=optional)


def near_schema(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON value under any of the tool's arguments, and arguments that it does not have."""
    names = [*SCHEMAS[tool]["properties"], "unknown", ""]
    return st.dictionaries(st.sampled_from(names), ANY_JSON, max_size=4)


def is_answer(result: CallToolResult | MCPError) -> bool:
    """Text of a result or of an error that someone wrote for its reader; or the protocol's own word on arguments."""
    if isinstance(result, MCPError):
        return result.error.code == INVALID_PARAMS
    text = "".join(block.text for block in result.content if block.type == "text")
    blamed = result.is_error and (not text.strip() or any(word in text for word in TOLD))
    return not blamed and len(text) < 400_000


@pytest.mark.parametrize("tool", SCHEMAS)
def test_any_arguments_are_answered(asked: Asked, tool: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=SLOW,
        database=None,
    )
    @given(st.one_of(of_schema(tool, asked.trace_id), near_schema(tool)))
    def ask(arguments: dict[str, Any]) -> None:
        result = asked.call(tool, arguments)
        assert is_answer(result), (arguments, result)

    ask()
    assert isinstance(asked.call("count_traces", {}), CallToolResult)
