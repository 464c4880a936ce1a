"""One question to the server-side agent, from its tools to the result that callers see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio.to_thread

from halo_mcp.config import AskSettings
from halo_mcp.datasets import Datasets
from halo_mcp.engine.ask import ask, checked_question, resume
from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.run import Hooks, Run, RunResult
from halo_mcp.engine.settings import Limits, LLMSettings
from halo_mcp.engine.settings import ModelPrice as EnginePrice
from halo_mcp.engine.types import Event, each_text, well_formed
from halo_mcp.index.prices import PriceTable
from halo_mcp.index.store import SpanStore
from halo_mcp.runs import RunFiles
from halo_mcp.tools.agent_map import reading_tools
from halo_mcp.tools.agent_tools import in_worker, read_tools, scope_text, verifier
from halo_mcp.tools.repository import repository_section, repository_tools
from halo_mcp.transcript import Transcript

if TYPE_CHECKING:
    from halo_mcp.repo.tools import Repository

Effort = Literal["quick", "normal", "deep"]
EFFORTS: Final[Mapping[Effort, Mapping[str, float]]] = {
    "quick": {"max_turns": 8, "max_depth": 0, "max_seconds": 120, "max_input_tokens": 400_000},
    "normal": {"max_turns": 16, "sub_turns": 8, "max_parallel": 3, "max_input_tokens": 1_200_000},
    "deep": {},
}
"""Limits that an effort lowers; "deep" may use all that the server allows."""
_CHANGED: Final = "The traces have changed since this run was saved: what it had read before may no longer stand there."
_CHECKED: Final = ("evidence", "code", "counterexample", "check", "supported")


@dataclass(frozen=True, slots=True)
class Question:
    """What someone wants to know, and of which traces."""

    text: str
    dataset: str = ""
    filters: Mapping[str, Any] | None = None
    """As the tools take them; None or {}: all traces."""


class Investigator:
    """Asks questions of loaded datasets with one endpoint. One per server or command."""

    def __init__(
        self,
        datasets: Datasets,
        settings: LLMSettings,
        ask_settings: AskSettings | None = None,
        repository: Repository | None = None,
    ) -> None:
        """``repository``: the source code of the traced agent."""
        self.datasets = datasets
        self.settings = settings = replace(settings, mask=datasets.settings.privacy.of_json)
        self.ask_settings = ask_settings or AskSettings()
        self.repository = repository
        self.endpoint = Endpoint(settings)
        self.files = RunFiles(datasets.settings.index_dir)

    def limits(self, effort: Effort = "normal", /, **budget: float) -> Limits:
        """The server's limits, lowered. Raises: BadArgument."""
        return self.settings.limits.lowered(**EFFORTS[effort]).lowered(**budget)

    def prepare(self, question: Question, limits: Limits, on_event: Callable[[Run, Event], None]) -> Run:
        """A run that is ready to be asked; nothing is sent yet. Raises: UnknownDataset, EngineUnavailable."""
        name, store = self.datasets.get(question.dataset)
        hooks = Hooks(verify=verifier(self.datasets, name, self.repository))
        tools = read_tools(self.datasets, name, run_code=self.ask_settings.run_code)
        tools += repository_tools(self.repository) if self.repository else []
        run = Run(self.endpoint, tools, hooks=hooks, limits=limits, sections=self._sections(name))
        run.root_tools = reading_tools(self.datasets, name, lambda: run)
        place = str(self.repository.root.path) if self.repository else ""
        saved = {
            "question": question.text,
            "dataset": name,
            "filters": dict(question.filters or {}),
            "repo_path": place,
        }

        async def checkpoint(state: Mapping[str, Any]) -> None:
            def write() -> None:
                kept = {**saved, "sources": _sources(store), "state": state}
                self.files.save(run.run_id, each_text(kept, run.clean))

            try:
                await anyio.to_thread.run_sync(write)
            except OSError as error:
                run.warn(None, f"The run cannot be saved, so it could not be resumed: {error.strerror or error}.")

        hooks.checkpoint = checkpoint
        hooks.on_event = lambda event: on_event(run, event)
        return run

    async def ask(self, run: Run, question: Question) -> dict[str, Any]:
        """The result of the question. Raises: HaloError, when nothing was paid for yet."""
        text = checked_question(question.text)
        await self._up_to_date(question.dataset)
        with self.files.working_on(run.run_id):
            self._record(run)
            return outcome_json(await ask(run, text + (scope_text(question.filters) if question.filters else "")))

    async def resume(self, run: Run, run_id: str, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with what `RunFiles.load` gave. Raises: HaloError."""
        store = await self._up_to_date(str(saved["dataset"]))
        with self.files.working_on(run_id):
            run.run_id = run_id
            self._record(run)
            changed = "sources" in saved and saved["sources"] != _sources(store)
            result = await resume(run, saved["state"], [_CHANGED] if changed else [])
            return outcome_json(result)

    async def aclose(self) -> None:
        await self.endpoint.aclose()

    def _record(self, run: Run) -> None:
        transcript = Transcript(run, self.files.transcript(run.run_id))
        told = run.hooks.on_event
        run.hooks.on_reply = transcript.reply

        def both(event: Event) -> None:
            transcript.event(event)
            if told:
                told(event)

        run.hooks.on_event = both

    async def _up_to_date(self, dataset: str) -> SpanStore:
        """Before the first paid turn: a source that cannot be read is said at no cost."""
        _, store = self.datasets.get(dataset)
        await in_worker(store.refresh)
        return store

    def _sections(self, dataset: str) -> list[str]:
        sections = [repository_section(self.repository)] if self.repository else []
        if others := [name for name in self.datasets.names if name != dataset]:
            also = f"Also loaded: {', '.join(others)} (tools take dataset=NAME)."
            sections.append(f"Your tools read the dataset {dataset!r}. {also}")
        return sections


def with_prices(settings: LLMSettings, table: PriceTable | None) -> LLMSettings:
    """The settings with the user's prices for the models they name."""
    found: dict[str, EnginePrice] = {}
    for model in (settings.model, settings.subagent_model, settings.summary_model, settings.synthesis_model):
        if table and model and (price := table.of(model)):
            found[model] = EnginePrice(price.input, price.output, price.cached_input)
    return replace(settings, prices={**settings.prices, **found})


def _sources(store: SpanStore) -> list[list[str | int]]:
    """What tells whether the traces are still those that a run has read."""
    return [[source.name, source.size_bytes] for source in store.info().sources]


def step(run: Run, event: Event) -> str:
    """What a run is doing, in a few words; "" when the event says nothing new."""
    data = event.data
    who = f"subagent {event.agent_id.partition('.')[2]}: " if event.parent_id else ""
    match event.kind:
        case "agent_started":
            return f"{who}started"
        case "turn":
            calls = ", ".join(data["calls"]) or "text"
            return f"{who}turn {data['turn']}/{data['of']} · {calls}"
        case "tool_call":
            return f"{who}{data['tool']}({_short(str(data['arguments']))})"
        case "waiting":
            return f"{data['reason']}, waiting {data['seconds']:g} s"
        case "retry":
            return f"request failed ({data['failure']} in a row), trying again: {_short(str(data['reason']))}"
        case "compacted":
            return f"{who}shortening the conversation"
        case "rejected":
            return f"{who}evidence sent back: {len(data['problems'])} problems"
        case "agent_finished":
            return f"{who}{data['status']}"
        case _:
            return ""


def _short(text: str) -> str:
    line = well_formed(" ".join(text.split()))
    return line if len(line) <= 80 else line[:79] + "…"


def share_used(run: Run) -> float:
    """How much of its largest budget a run has used, 0 to 1."""
    root = run.agents.get("root")
    turns = root.turns / root.max_turns if root else 0.0
    return min(1.0, max(turns, *run.meter.fractions().values()))


def outcome_json(result: RunResult) -> dict[str, Any]:
    """The result as callers see it."""
    said, totals = result.result, result.totals
    report = said.report
    citations = dict(report.get("citations", {"total": 0, "verified": 0, "moved": 0, "failed": 0}))
    citations["unknown_ids"] = report.get("unknown_ids", [])
    return {
        "status": said.status,
        "stop_reason": said.stop_reason,
        "answer": said.answer,
        "findings": _findings(result),
        "limitations": said.limitations,
        "citations": citations,
        "problems": list(said.problems),
        "usage": {
            "turns": totals.turns,
            "tool_calls": result.tool_calls,
            "subagents": result.subagents,
            "llm_requests": totals.requests,
            "input_tokens": totals.input_tokens,
            "cached_input_tokens": totals.cached_input_tokens,
            "output_tokens": totals.output_tokens,
            "cost_usd": totals.usd,
            "seconds": result.seconds,
        },
        "model": result.model,
        "api": result.api,
        "run_id": result.run_id,
        "warnings": list(result.warnings),
    }


def _findings(result: RunResult) -> list[dict[str, Any]]:
    """Each finding with the verdicts on its evidence, where they were checked."""
    verdicts: list[dict[str, Any]] = result.result.report.get("claims", [])
    found: list[dict[str, Any]] = []
    for number, finding in enumerate(result.result.findings):
        shown = {"claim": finding.claim, "severity": finding.severity}
        if number < len(verdicts):
            shown |= {key: verdicts[number][key] for key in _CHECKED}
        else:
            shown |= finding.model_dump(exclude={"claim", "severity"})
        found.append(shown)
    return found
