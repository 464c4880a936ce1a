"""ask and ask_result: a whole investigation behind one call, as MCP tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent
from pydantic import Field

from halo_mcp.engine.ask import checked_question
from halo_mcp.engine.run import Run
from halo_mcp.engine.settings import LLMSettings
from halo_mcp.engine.types import Event
from halo_mcp.errors import HaloError, UnknownRun
from halo_mcp.index.filters import TraceFilters
from halo_mcp.jobs import Job, Spending
from halo_mcp.tools.ask_text import outcome_text
from halo_mcp.tools.calls import answer
from halo_mcp.tools.client import asking_client
from halo_mcp.tools.evidence_pack import evidence_pack
from halo_mcp.tools.investigation import Effort, Question, share_used, step
from halo_mcp.tools.params import ALL_TRACES, Answer, Filters, ResponseFormat, call_text
from halo_mcp.tools.publish import READ_ONLY, SENDING, growing, in_thread, strict, text_result
from halo_mcp.tools.render import counted, printable
from halo_mcp.tools.serving import Serving

HEARTBEAT_S: Final = 5.0
"""The longest silence while someone waits; clients count it."""
MOST_OFTEN_S: Final = 0.25
_MAX_WAIT_S: Final = 600
_log = logging.getLogger(__name__)

_ASK: Final = """Ask about the traces{who}.

{what}"""
_WITH_MODEL: Final = (
    "; this server's own agent ({model}) answers",
    (
        "Returns findings with checked ids, quotes and counts, or a job_id for ask_result. Takes minutes; "
        "sends trace excerpts{code} to it."
    ),
)
_WITHOUT_MODEL: Final = (
    "; no model is set up here, so you answer it",
    "Returns computed evidence (overview, failure modes with quotes, contrast, traces to read) and a plan of calls.",
)
_RESULT: Final = "Wait for a run that ask started: its result, or what it is doing."


Reply = Callable[[Context[Serving]], Awaitable[CallToolResult]]


def ask_tools(settings: LLMSettings, *, code: bool = False) -> list[Tool]:
    """The two tools, described as the settings have it; ``code``: the agent reads source code too."""
    on = settings.why_off() is None
    who, what = _WITH_MODEL if on else _WITHOUT_MODEL
    sent = what.format(code=" and source code" if code else "")
    hints = SENDING if on else READ_ONLY

    async def ask(
        ctx: Context[Serving],
        question: Annotated[str, Field(description="in words")],
        effort: Effort = "normal",
        filters: Filters = ALL_TRACES,
        budget: Annotated[dict[str, float], Field(description="only lowers: max_turns, max_seconds, max_usd")] = {},  # noqa: B006
        dataset: Annotated[str, Field(description="name; empty = the default one")] = "",
        response_format: ResponseFormat = "text",
    ) -> CallToolResult:
        asked = Question(question, dataset, filters.given())
        if on:
            work = partial(_ask, _desk(ctx), asked, effort, budget, response_format)
        else:
            work = partial(_pack, _desk(ctx), asked, filters, response_format)
        return await _answered(work, ctx, "ask")

    async def ask_result(
        ctx: Context[Serving],
        job_id: Annotated[str, Field(description="from ask")],
        wait_s: Annotated[float, Field(ge=0, le=_MAX_WAIT_S)] = 30,
        cancel: Annotated[bool, Field(description="stop it")] = False,
        response_format: ResponseFormat = "text",
    ) -> CallToolResult:
        return await _answered(partial(_result, _desk(ctx), job_id, wait_s, cancel, response_format), ctx, "ask_result")

    description = _ASK.format(who=who.format(model=printable(settings.model)[:40]), what=sent)
    made = [
        Tool.from_function(
            ask, title="Ask", description=description, annotations=hints, meta=_HINT, structured_output=False
        ),
        Tool.from_function(
            ask_result,
            title="Result of ask",
            description=_RESULT,
            annotations=READ_ONLY,
            meta={"anthropic/searchHint": "wait for, fetch or cancel an ask"},
            structured_output=False,
        ),
    ]
    return [strict(tool) for tool in made]


_HINT: Final[dict[str, Any]] = {"anthropic/searchHint": "diagnose investigate root cause"}


def _desk(ctx: Context[Serving]) -> Serving:
    return ctx.request_context.lifespan_context


async def _answered(work: Reply, ctx: Context[Serving], tool: str) -> CallToolResult:
    try:
        return await work(ctx)
    except HaloError as error:
        return text_result(printable(str(error)), is_error=True)
    except Exception:
        _log.exception("tool %s failed", tool)
        return text_result(
            f"Internal error in {tool}; the server's log has the details. Other calls still work.", is_error=True
        )


def _shown(text: str, data: Mapping[str, Any], response_format: ResponseFormat) -> CallToolResult:
    if response_format == "json":
        content = TextContent(text=json.dumps(data, ensure_ascii=False))
        return CallToolResult(content=[content], structured_content=dict(data))
    return text_result(printable(text))


# --- without a model ----------------------------------------------------------------------------------------------
async def _pack(
    desk: Serving, asked: Question, filters: TraceFilters, response_format: ResponseFormat, ctx: Context[Serving]
) -> CallToolResult:
    why = desk.investigator.settings.why_off()
    arguments = {"question": asked.text, "filters": filters, "why": why}
    call = partial(answer, desk.datasets, asked.dataset, evidence_pack, arguments)
    found: Answer = await in_thread(ctx, call)
    return _shown(found.text, found.data, response_format)


# --- with a model -------------------------------------------------------------------------------------------------
async def _ask(
    desk: Serving,
    asked: Question,
    effort: Effort,
    budget: Mapping[str, float],
    response_format: ResponseFormat,
    ctx: Context[Serving],
) -> CallToolResult:
    checked_question(asked.text)
    job = _started(desk, asked, effort, budget)
    try:
        await _follow(ctx, job, desk.jobs.settings.wait_s)
    except BaseException:
        # The caller went away before it was told of a job: nobody could ever ask for the result.
        await job.stop()
        raise
    job.detached = not job.done.is_set()
    return _of(job, response_format)


def _started(desk: Serving, asked: Question, effort: Effort, budget: Mapping[str, float]) -> Job:
    """Raises: BadArgument, Busy."""
    client = asking_client()
    left, made = desk.jobs.left(client), desk.investigator
    limits = made.limits(effort, **budget)
    # Both kinds are held until the job ends, and come out of the same total.
    output = min(limits.max_output_tokens, -(-left.tokens // 2))
    limits = limits.lowered(max_output_tokens=output, max_input_tokens=max(1, left.tokens - output), max_usd=left.usd)

    def told(run: Run, event: Event) -> None:
        if words := step(run, event):
            job.note(words, share_used(run))

    run = made.prepare(asked, limits, told)

    def used() -> Spending:
        totals = run.meter.totals
        return Spending(totals.input_tokens + totals.output_tokens, totals.usd)

    allowed = Spending(limits.max_input_tokens + limits.max_output_tokens, limits.max_usd)
    job = Job(run.run_id, asked.text, allowed, used, client)
    return desk.jobs.start(job, partial(made.ask, run, asked))


async def _result(
    desk: Serving,
    job_id: str,
    wait_s: float,
    cancel: bool,
    response_format: ResponseFormat,
    ctx: Context[Serving],
) -> CallToolResult:
    client = asking_client()
    try:
        job = desk.jobs.get(job_id, client)
    except UnknownRun:
        # Whether there is a record of it is told to those who may read it.
        saved = desk.jobs.may_read(job_id, client) and desk.investigator.files.exists(job_id)
        raise UnknownRun(job_id, saved=saved) from None
    if cancel:
        await job.stop()
    else:
        await _follow(ctx, job, wait_s)
    return _of(job, response_format)


def _of(job: Job, response_format: ResponseFormat) -> CallToolResult:
    """The result of a job, or where it stands. Raises: HaloError, what ended it."""
    if job.done.is_set():
        outcome = job.result()
        return _shown(outcome_text(outcome), outcome, response_format)
    next_call = call_text("ask_result", job_id=job.id)
    data = {
        "status": "running",
        "job_id": job.id,
        "run_id": job.id,
        "step": job.step,
        "budget_used": round(job.share, 3),
        "seconds": round(job.elapsed_s, 1),
        "next": next_call,
    }
    text = (
        f"status running · job {job.id} · {counted(round(job.elapsed_s), 'second')} · {job.share:.0%} of its budget "
        f"used · {job.step}\nThe work goes on. Next: {next_call}, or cancel=true to stop it."
    )
    return _shown(text, data, response_format)


async def _follow(ctx: Context[Serving], job: Job, wait_s: float) -> None:
    """Wait for a job and tell the client what it does: at least every 5 s, at most 4 times a second."""
    sent = 0.0
    with anyio.move_on_after(wait_s):
        while not job.done.is_set():
            sent, told = growing(sent, job.share), job.step
            await ctx.report_progress(sent, 1.0, f"{told} · {job.elapsed_s:.0f} s")
            with anyio.move_on_after(MOST_OFTEN_S):
                await job.done.wait()
            with anyio.move_on_after(HEARTBEAT_S - MOST_OFTEN_S):
                if job.step == told and not job.done.is_set():
                    await job.changed()
