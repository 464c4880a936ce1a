"""``halo-mcp ask``: the server-side agent from a terminal, and going on with a run that was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from halo_mcp.errors import BadArgument
from halo_mcp.terminal import (
    Deadline,
    IndexDir,
    Json,
    Progress,
    Where,
    app,
    opened,
    parse_filters,
    printable,
    reads_traces,
)

if TYPE_CHECKING:
    from halo_mcp.datasets import Datasets
    from halo_mcp.engine.run import Run
    from halo_mcp.engine.settings import LLMSettings
    from halo_mcp.engine.types import Event

_INCOMPLETE: Final = 2
"""Exit code when there is an answer, but not a complete one."""
_INTERRUPTED: Final = 130


@app.command()
@reads_traces
def ask(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]SOURCE... QUESTION", help="trace files; the question (or give --prompt)"),
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="the question")] = "",
    effort: Annotated[Literal["quick", "normal", "deep"], typer.Option(help="how much of the limits it may use")] = (
        "normal"
    ),
    resume: Annotated[str, typer.Option(metavar="RUN_ID", help="go on with an interrupted run")] = "",
    where: Where = [],  # noqa: B006  (never changed)
    model: Annotated[str | None, typer.Option("--model", "-m", help="[env: HALO_MCP_MODEL]")] = None,
    subagent_model: Annotated[str | None, typer.Option(help="[env: HALO_MCP_SUBAGENT_MODEL]")] = None,
    compaction_model: Annotated[
        str | None, typer.Option(help="shortens conversations [env: HALO_MCP_SUMMARY_MODEL]")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="[env: OPENAI_BASE_URL]")] = None,
    header: Annotated[list[str], typer.Option("--header", "-H", metavar="NAME:VALUE", help="sent along")] = [],  # noqa: B006
    reasoning_effort: Annotated[str | None, typer.Option(help="[env: HALO_MCP_REASONING_EFFORT]")] = None,
    temperature: Annotated[float | None, typer.Option(help="[env: HALO_MCP_TEMPERATURE]")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="per reply [env: HALO_MCP_MAX_OUTPUT_TOKENS]")] = None,
    max_turns: Annotated[int | None, typer.Option(help="[env: HALO_MCP_ASK_MAX_TURNS]")] = None,
    max_depth: Annotated[int | None, typer.Option(help="of subagents [env: HALO_MCP_ASK_MAX_DEPTH]")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="subagents [env: HALO_MCP_ASK_MAX_PARALLEL]")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="[env: HALO_MCP_ASK_MAX_SECONDS]")] = None,
    max_usd: Annotated[float | None, typer.Option(help="needs --prices [env: HALO_MCP_ASK_MAX_USD]")] = None,
    refusal_retries: Annotated[int | None, typer.Option(help="[env: HALO_MCP_ASK_REFUSAL_RETRIES]")] = None,
    prices: Annotated[Path | None, typer.Option(help="USD per million tokens [env: HALO_MCP_PRICES]")] = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    as_json: Json = False,
) -> None:
    """Let an agent with a model of yours answer a question, its evidence checked; without a model, print the evidence.

    Exit code 0: answered; 2: only a partial answer. Runs are saved after every turn: --resume goes on.
    """
    from halo_mcp.engine.settings import load_llm_settings

    sources, question = _split(words, prompt, resume)
    settings = load_llm_settings(
        model=model,
        subagent_model=subagent_model,
        summary_model=compaction_model,
        base_url=base_url,
        headers=_headers(header) or None,
        reasoning_effort=reasoning_effort,
        temperature=temperature,
        max_output_tokens=max_output_tokens,
        max_turns=max_turns,
        max_depth=max_depth,
        max_parallel=max_parallel,
        max_seconds=max_seconds,
        max_usd=max_usd,
        refusals=refusal_retries,
    )
    with closing(opened(sources, index_dir, deadline_s, prices)) as datasets:
        if settings.model:
            status = _with_model(datasets, settings, question, where, effort, resume, as_json)
        else:
            status = _without_model(datasets, question, where, resume, as_json)
    raise typer.Exit(0 if status in ("complete", "no_model") else _INCOMPLETE)


def _split(words: Sequence[str], prompt: str, resume: str) -> tuple[list[str], str]:
    """(sources, question). Raises: BadArgument."""
    if prompt or resume:
        return [*words], prompt
    if len(words) < 2:
        raise BadArgument('Give trace files and then the question: halo-mcp ask traces.jsonl "What fails, and why?"')
    return [*words[:-1]], words[-1]


def _headers(given: Sequence[str]) -> dict[str, str]:
    """Raises: BadArgument."""
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise BadArgument("--header takes NAME:VALUE.")  # without the text: it may be a secret
        headers[name.strip()] = value.strip()
    return headers


def _without_model(datasets: Datasets, question: str, where: Sequence[str], resume: str, as_json: bool) -> str:
    from halo_mcp.tools.calls import answer
    from halo_mcp.tools.evidence_pack import evidence_pack

    if resume:
        raise BadArgument("A run can only go on with a model: set HALO_MCP_MODEL or give --model.")
    with Progress() as work:
        arguments = {"question": question, "filters": parse_filters(where)}
        found = answer(datasets, "", evidence_pack, arguments, work)
    typer.echo(json.dumps(found.data, ensure_ascii=False) if as_json else printable(found.text))
    return "no_model"


def _with_model(
    datasets: Datasets,
    settings: LLMSettings,
    question: str,
    where: Sequence[str],
    effort: Literal["quick", "normal", "deep"],
    resume: str,
    as_json: bool,
) -> str:
    import anyio

    from halo_mcp.config import load_ask_settings
    from halo_mcp.tools.ask_text import outcome_text
    from halo_mcp.tools.investigation import Investigator, Question, with_prices

    settings = with_prices(settings, datasets.settings.prices)
    started = list[str]()

    async def work() -> Mapping[str, Any]:
        made = Investigator(datasets, settings, load_ask_settings())
        try:
            limits = made.limits(effort)
            if resume:
                saved = made.files.load(resume)
                asked = Question(saved["question"], saved["dataset"], saved["filters"])
                started.append(resume)
                return await made.resume(made.prepare(asked, limits, _tell), saved)
            asked = Question(question, "", parse_filters(where).given())
            run = made.prepare(asked, limits, _tell)
            started.append(run.run_id)
            return await made.ask(run, asked)
        finally:
            await made.aclose()

    try:
        outcome = anyio.run(work)
    except KeyboardInterrupt:
        if started:
            typer.echo(f"Stopped. Go on with: halo-mcp ask SOURCE --resume {started[0]}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(outcome, ensure_ascii=False) if as_json else outcome_text(outcome))
    return str(outcome["status"])


def _tell(run: Run, event: Event) -> None:
    """One line on standard error for each step."""
    from halo_mcp.tools.investigation import step

    if event.kind == "run_started":
        typer.echo(f"run {run.run_id} · model {printable(str(event.data['model']))}", err=True)
    elif words := step(run, event):
        typer.echo(f"[{run.meter.elapsed_s():4.0f} s] {printable(words)}", err=True)
