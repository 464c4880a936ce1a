"""Every tool once: its function, its title, and what a client's tool search and display go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from halo_mcp.engine.settings import LLMSettings
from halo_mcp.tools.calls import ToolFunction
from halo_mcp.tools.code import run_code
from halo_mcp.tools.compare import compare_datasets
from halo_mcp.tools.contrast import contrast_traces
from halo_mcp.tools.cost import analyze_cost
from halo_mcp.tools.evidence import verify_evidence
from halo_mcp.tools.failures import list_failure_modes
from halo_mcp.tools.harness import list_harness_versions
from halo_mcp.tools.overview import get_dataset_overview, list_datasets
from halo_mcp.tools.query import count_traces, query_traces
from halo_mcp.tools.search import search_trace
from halo_mcp.tools.search_dataset import search_dataset
from halo_mcp.tools.sql import query_sql
from halo_mcp.tools.synthesize import described, synthesize_traces
from halo_mcp.tools.tool_use import analyze_tool_use
from halo_mcp.tools.view_spans import view_spans
from halo_mcp.tools.view_trace import view_trace


@dataclass(frozen=True, slots=True)
class Published:
    """A tool function and how clients are told of it."""

    function: ToolFunction
    title: str
    hint: str = ""
    """Words for Claude Code's tool search."""
    always_load: bool = False
    large: bool = False
    """Its answer may be asked for beyond what clients keep inline by default."""
    described: Callable[[LLMSettings], str] | None = None
    """Its description where that depends on the model, to which it then sends text; else its docstring."""


CATALOG: Final = (
    Published(get_dataset_overview, "Dataset overview", always_load=True),
    Published(list_failure_modes, "Failure modes", "what fails how often errors root cause grouped"),
    Published(analyze_tool_use, "Tool use", "tool calls failures retries loops recovery sequence divergence"),
    Published(query_traces, "List traces", "find traces by outcome error tool model agent time regex"),
    Published(count_traces, "Count traces", "count traces by group, test hypothesis, rates"),
    Published(view_trace, "Read a trace", "read trace spans tree messages tool calls", large=True),
    Published(view_spans, "Read spans", "read long span attributes prompts outputs", large=True),
    Published(search_trace, "Search a trace", "regex grep inside one trace"),
    Published(contrast_traces, "Contrast groups", "why traces fail, cause"),
    Published(compare_datasets, "Compare runs", "regression, A/B, before after"),
    Published(query_sql, "Query with SQL", "SQL select group by join aggregate"),
    Published(run_code, "Run Python", "python code script"),
    Published(search_dataset, "Search all traces", "grep regex across traces counts by group tool snippets"),
    Published(analyze_cost, "Token cost", "tokens cost by model agent turn tool, context growth, waste"),
    Published(list_harness_versions, "Harness versions", "prompt versions, system prompt diff, tools model parameters"),
    Published(synthesize_traces, "Synthesis", "summarize traces", described=described),
    Published(verify_evidence, "Verify evidence", "check citations quotes counts"),
    Published(list_datasets, "List datasets", "loaded trace files, open file, ingest problems"),
)
"""In the order in which clients list them."""


def by_name(name: str) -> ToolFunction:
    """The function of a tool. Raises: KeyError."""
    return {entry.function.__name__: entry.function for entry in CATALOG}[name]
