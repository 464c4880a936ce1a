"""``halo-mcp synthesize``: what many traces have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from halo_mcp.cli_llm import (
    BaseUrl,
    Header,
    MaxOutputTokens,
    Model,
    ReasoningEffort,
    SynthesisModel,
    Temperature,
    headers,
)
from halo_mcp.engine.settings import load_llm_settings
from halo_mcp.terminal import Deadline, IndexDir, Json, Redact, Sources, Where, app, parse_filters, reads_traces, show


@app.command()
@reads_traces
def synthesize(
    sources: Sources,
    where: Where = [],  # noqa: B006
    trace: Annotated[list[str], typer.Option(metavar="TRACE_ID", help="this trace; may be repeated")] = [],  # noqa: B006
    focus: Annotated[str, typer.Option(help="the question to read them for")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="traces to sample with --where")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="another sample")] = 0,
    model: Model = None,
    synthesis_model: SynthesisModel = None,
    base_url: BaseUrl = None,
    header: Header = [],  # noqa: B006
    reasoning_effort: ReasoningEffort = None,
    temperature: Temperature = None,
    max_output_tokens: MaxOutputTokens = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
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
    llm = load_llm_settings(
        model=model,
        synthesis_model=synthesis_model,
        base_url=base_url,
        headers=headers(header),
        reasoning_effort=reasoning_effort,
        temperature=temperature,
        max_output_tokens=max_output_tokens,
    )
    show(sources, index_dir, deadline_s, "synthesize_traces", arguments, as_json, llm=llm)
