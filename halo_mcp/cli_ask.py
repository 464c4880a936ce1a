"""``halo-mcp ask``: the server-side agent from a terminal, and going on with a run that was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from halo_mcp.cli_llm import (
    BaseUrl,
    CompactionModel,
    Header,
    MaxOutputTokens,
    Model,
    ReasoningEffort,
    SubagentModel,
    SynthesisModel,
    Temperature,
    headers,
)
from halo_mcp.errors import BadArgument, shown, why_unusable
from halo_mcp.runs import RunFiles
from halo_mcp.terminal import (
    Deadline,
    IndexDir,
    Json,
    Progress,
    Redact,
    Where,
    app,
    opened,
    parse_filters,
    printable,
    reads_traces,
)

if TYPE_CHECKING:
    from halo_mcp.config import Settings
    from halo_mcp.datasets import Datasets
    from halo_mcp.engine.run import Run
    from halo_mcp.engine.settings import LLMSettings
    from halo_mcp.engine.types import Event
    from halo_mcp.repo.tools import Repository

_INCOMPLETE: Final = 2
"""Exit code when there is an answer, but not a complete one."""
_INTERRUPTED: Final = 130


Effort = Literal["quick", "normal", "deep"]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for on the command line, but for who answers."""

    question: str
    where: Sequence[str]
    effort: Effort
    resume: str
    """The run to go on with; "" for a new one."""
    telemetry: bool
    as_json: bool


@app.command()
@reads_traces
def ask(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]SOURCE... QUESTION", help="trace files; the question (or give --prompt)"),
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="the question")] = "",
    effort: Annotated[Effort, typer.Option(help="how much of the limits it may use")] = ("normal"),
    resume: Annotated[str, typer.Option(metavar="RUN_ID", help="go on with an interrupted run")] = "",
    where: Where = [],  # noqa: B006  (never changed)
    model: Model = None,
    subagent_model: SubagentModel = None,
    synthesis_model: SynthesisModel = None,
    compaction_model: CompactionModel = None,
    base_url: BaseUrl = None,
    header: Header = [],  # noqa: B006
    reasoning_effort: ReasoningEffort = None,
    temperature: Temperature = None,
    max_output_tokens: MaxOutputTokens = None,
    repo_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="source code of the traced agent, to look into [env: HALO_MCP_REPO_PATH]"),
    ] = None,
    telemetry: Annotated[
        bool,
        typer.Option(
            "--telemetry", help="also write the run as traces: $HALO_TELEMETRY_PATH, else ./halo-telemetry-RUN_ID.jsonl"
        ),
    ] = False,
    max_turns: Annotated[int | None, typer.Option(help="[env: HALO_MCP_ASK_MAX_TURNS]")] = None,
    max_depth: Annotated[int | None, typer.Option(help="of subagents [env: HALO_MCP_ASK_MAX_DEPTH]")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="subagents [env: HALO_MCP_ASK_MAX_PARALLEL]")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="[env: HALO_MCP_ASK_MAX_SECONDS]")] = None,
    max_usd: Annotated[float | None, typer.Option(help="needs --prices [env: HALO_MCP_ASK_MAX_USD]")] = None,
    refusal_retries: Annotated[int | None, typer.Option(help="[env: HALO_MCP_ASK_REFUSAL_RETRIES]")] = None,
    prices: Annotated[Path | None, typer.Option(help="USD per million tokens [env: HALO_MCP_PRICES]")] = None,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
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
        synthesis_model=synthesis_model,
        summary_model=compaction_model,
        base_url=base_url,
        headers=headers(header),
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
    wanted = _Wanted(question, where, effort, resume, telemetry, as_json)
    with closing(opened(sources, index_dir, deadline_s, prices, repo_path=repo_path)) as datasets:
        if settings.model:
            status = _with_model(datasets, settings, wanted)
        else:
            if telemetry or repo_path:
                typer.echo("Without a model there is no agent: --repo-path and --telemetry have no effect.", err=True)
            status = _without_model(datasets, wanted)
    raise typer.Exit(0 if status in ("complete", "no_model") else _INCOMPLETE)


def _split(words: Sequence[str], prompt: str, resume: str) -> tuple[list[str], str]:
    """(sources, question). Raises: BadArgument."""
    if prompt or resume:
        return [*words], prompt
    if len(words) < 2:
        raise BadArgument('Give trace files and then the question: halo-mcp ask traces.jsonl "What fails, and why?"')
    return [*words[:-1]], words[-1]


def _without_model(datasets: Datasets, wanted: _Wanted) -> str:
    from halo_mcp.tools.calls import answer
    from halo_mcp.tools.evidence_pack import evidence_pack

    if wanted.resume:
        raise BadArgument("A run can only go on with a model: set HALO_MCP_MODEL or give --model.")
    with Progress() as work:
        arguments = {"question": wanted.question, "filters": parse_filters(wanted.where)}
        found = answer(datasets, "", evidence_pack, arguments, work)
    typer.echo(json.dumps(found.data, ensure_ascii=False) if wanted.as_json else printable(found.text))
    return "no_model"


def _with_model(datasets: Datasets, settings: LLMSettings, wanted: _Wanted) -> str:
    import anyio

    from halo_mcp.config import load_ask_settings
    from halo_mcp.tools.ask_text import outcome_text
    from halo_mcp.tools.investigation import Investigator, Question, with_prices

    settings = with_prices(settings, datasets.settings.prices)
    files = RunFiles(datasets.settings.index_dir)
    saved = files.load(wanted.resume) if wanted.resume else None
    repository = _repository(datasets.settings, saved)
    started = list[str]()

    async def work() -> Mapping[str, Any]:
        made = Investigator(datasets, settings, load_ask_settings(), repository)
        try:
            limits = made.limits(wanted.effort)
            if saved is not None:
                asked = Question(saved["question"], saved["dataset"], saved["filters"])
            else:
                asked = Question(wanted.question, "", parse_filters(wanted.where).given())
            run = made.prepare(asked, limits, _tell)
            run_id = wanted.resume or run.run_id
            if wanted.telemetry:
                _telemetry_path(run_id)
            started.append(run_id)
            return await (made.ask(run, asked) if saved is None else made.resume(run, run_id, saved))
        finally:
            await made.aclose()

    try:
        outcome = anyio.run(work)
    except KeyboardInterrupt:
        if started:
            typer.echo(f"Stopped. Go on with: halo-mcp ask SOURCE --resume {started[0]}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        if started and wanted.telemetry:
            _write_telemetry(files, started[0])
    typer.echo(json.dumps(outcome, ensure_ascii=False) if wanted.as_json else outcome_text(outcome))
    return str(outcome["status"])


def _repository(settings: Settings, saved: Mapping[str, Any] | None) -> Repository | None:
    """The source code to look into; a run that goes on has what it had before. Raises: BadArgument."""
    from halo_mcp.tools.repository import repository_at

    if saved is None:
        return repository_at(settings.repo_path)
    moved = settings.repo_path if settings.origins.get("repo_path") == "argument" else None
    before = str(saved.get("repo_path", ""))
    if moved and not before:
        raise BadArgument("This run was begun without a repository and goes on without one: leave --repo-path out.")
    try:
        return repository_at(moved or (Path(before) if before else None))
    except BadArgument as error:
        raise BadArgument(f"This run looks into a repository, and cannot go on without it. {error}") from None


def _telemetry_path(run_id: str) -> Path:
    """Where --telemetry writes. Raises: BadArgument."""
    path = Path(os.environ.get("HALO_TELEMETRY_PATH") or f"halo-telemetry-{run_id}.jsonl").expanduser()
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadArgument(f"--telemetry cannot write to {shown(str(path))!r}: set HALO_TELEMETRY_PATH to a file.")
    return path


def _write_telemetry(files: RunFiles, run_id: str) -> None:
    path = _telemetry_path(run_id)
    try:
        files.copy_transcript(run_id, path)
    except OSError as error:
        typer.echo(f"--telemetry: {shown(str(path))!r} was not written: {why_unusable(error)}.", err=True)
    else:
        typer.echo(f"Telemetry: {printable(str(path))}", err=True)


def _tell(run: Run, event: Event) -> None:
    """One line on standard error for each step."""
    from halo_mcp.tools.investigation import step

    if event.kind == "run_started":
        typer.echo(f"run {run.run_id} · model {printable(str(event.data['model']))}", err=True)
    elif words := step(run, event):
        typer.echo(f"[{run.meter.elapsed_s():4.0f} s] {printable(words)}", err=True)
