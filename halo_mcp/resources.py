"""Resources: the guide, and of each dataset its columns, its overview and its traces; records of runs of ask.

Reading one does what the tool of the same name does, in a thread with the same deadline. What is not there is answered
as not found, with a sentence on where to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources import ResourceSecurity
from mcp_types import INVALID_PARAMS

from halo_mcp.datasets import Datasets
from halo_mcp.errors import HaloError, InvalidCursor, UnknownDataset, UnknownRun, UnknownTrace, shown
from halo_mcp.guide import guide
from halo_mcp.runs import RunFiles
from halo_mcp.tools.calls import ToolFunction, answer
from halo_mcp.tools.client import asking_client
from halo_mcp.tools.overview import get_dataset_overview
from halo_mcp.tools.params import Answer
from halo_mcp.tools.publish import in_thread
from halo_mcp.tools.render import printable
from halo_mcp.tools.serving import Serving
from halo_mcp.tools.view_trace import view_trace

TRACE: Final = "halo://{dataset}/trace/{trace_id}{?cursor}"
_ANY_ID: Final = ResourceSecurity(exempt_params={"trace_id", "cursor"})
"""Ids are looked up in an index and never become part of a path: whatever they look like is fine."""
_TEXT: Final = "text/plain"


def add_resources(server: MCPServer[Serving], datasets: Datasets, instructions: str) -> None:
    """Give ``server`` all resources."""

    @server.resource("halo://guide", name="guide", title="How to use these tools", mime_type="text/markdown")
    async def _guide() -> str:  # pyright: ignore[reportUnusedFunction]
        """Tools, filters, prompts and resources, and ways of working with them."""
        tools = [(tool.name, tool.description or "") for tool in await server.list_tools()]
        prompts = [(prompt.name, prompt.description or "") for prompt in await server.list_prompts()]
        templates = [(one.uri_template, one.description or "") for one in await server.list_resource_templates()]
        return guide(instructions, tools, prompts, templates)

    @server.resource("halo://{dataset}/schema", name="schema", title="Columns for query_sql", mime_type=_TEXT)
    async def _schema(dataset: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """The views spans and traces of a dataset: columns, units, functions, example statements for query_sql."""
        if dataset not in datasets.names:
            raise ResourceNotFoundError(str(UnknownDataset(dataset, datasets.names)))
        from halo_mcp.index.sql_schema import schema_text

        return schema_text()

    @server.resource("halo://{dataset}/overview", name="overview", title="Overview of a dataset", mime_type=_TEXT)
    async def _overview(dataset: str, ctx: Context[Serving]) -> str:  # pyright: ignore[reportUnusedFunction]
        """What get_dataset_overview says of all traces of a dataset."""
        found = await _asked(ctx, datasets, dataset, get_dataset_overview, {})
        return printable(found.text)

    @server.resource(TRACE, name="trace", title="A trace", mime_type=_TEXT, security=_ANY_ID)
    async def _trace(dataset: str, trace_id: str, ctx: Context[Serving], cursor: str = "") -> str:  # pyright: ignore[reportUnusedFunction]
        """A trace as view_trace shows it: in full if it fits, else as an outline; further pages with `cursor`."""
        found = await _asked(ctx, datasets, dataset, view_trace, {"trace_id": trace_id, "cursor": cursor})
        if not found.cursor:
            return printable(found.text)
        address = f"halo://{quote(dataset, safe='')}/trace/{quote(trace_id, safe='')}?cursor={quote(found.cursor)}"
        return f"{printable(found.text)}\nThe next page as a resource: {address}"

    @server.resource(
        "halo://runs/{run_id}", name="run", title="Record of a run of ask", mime_type="application/x-ndjson"
    )
    async def _run_record(run_id: str, ctx: Context[Serving]) -> str:  # pyright: ignore[reportUnusedFunction]
        """What the server's own agent did: spans in canonical form, one JSON object a line."""
        try:
            datasets.settings.privacy.require_payloads()  # it may be of a time when they were served
            if not ctx.request_context.lifespan_context.jobs.may_read(run_id, asking_client()):
                raise UnknownRun(run_id)
            path = RunFiles(datasets.settings.index_dir).transcript(run_id)
            return await anyio.to_thread.run_sync(partial(path.read_text, encoding="utf-8"))
        except (UnknownRun, OSError):
            raise ResourceNotFoundError(f"There is no record of a run {shown(run_id)!r}.") from None
        except HaloError as error:
            raise ResourceError(str(error)) from None


async def _asked(
    ctx: Context[Serving], datasets: Datasets, dataset: str, function: ToolFunction, arguments: Mapping[str, Any]
) -> Answer:
    """The answer of a tool. Raises: ResourceNotFoundError, ResourceError, MCPError."""
    try:
        if dataset not in datasets.names:
            raise UnknownDataset(dataset, datasets.names)
        return await in_thread(ctx, partial(answer, datasets, dataset, function, arguments))
    except (UnknownDataset, UnknownTrace) as error:
        raise ResourceNotFoundError(printable(str(error))) from None
    except InvalidCursor as error:
        raise MCPError(INVALID_PARAMS, printable(str(error))) from None
    except HaloError as error:
        raise ResourceError(printable(str(error))) from None
