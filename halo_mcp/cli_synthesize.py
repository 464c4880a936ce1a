"""``halo-mcp synthesize``: what many traces have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from halo_mcp.engine.settings import load_llm_settings
from halo_mcp.terminal import Deadline, IndexDir, Json, Sources, Where, app, parse_filters, reads_traces, show


@app.command()
@reads_traces
def synthesize(
    sources: Sources,
    where: Where = [],  # noqa: B006
    trace: Annotated[list[str], typer.Option(metavar="TRACE_ID", help="this trace; may be repeated")] = [],  # noqa: B006
    focus: Annotated[str, typer.Option(help="the question to read them for")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="traces to sample with --where")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="another sample")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="who reads them; none: digests [env: HALO_MCP_MODEL]")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="the model's endpoint [env: OPENAI_BASE_URL]")] = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Find what many traces have in common: a model's findings with checked evidence, or digests without a model."""
    arguments = {
        "trace_ids": trace,
        "filters": parse_filters(where),
        "focus": focus,
        "limit": limit,
        "seed": seed,
    }
    llm = load_llm_settings(model=model, base_url=base_url)
    show(sources, index_dir, deadline_s, "synthesize_traces", arguments, as_json, llm=llm)
