"""Work that outlives the call that started it: jobs in the server's own task group, with caps."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc

from halo_mcp.config import AskSettings
from halo_mcp.errors import Busy, EngineError, HaloError, RunStopped, UnknownRun

KEPT: Final = 20
"""Finished jobs whose results can still be had."""
OWNERS_KEPT: Final = 1_000
"""Runs of which is known who began them."""
STOP_S: Final = 2.0
"""How long someone who stops a job waits for it to end."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spending:
    """Tokens (input and output) and US dollars: used, allowed, or left."""

    tokens: int
    usd: float | None = None


@dataclass(slots=True)
class Job:
    """One piece of work, as those who wait for it see it. Times are monotonic seconds."""

    id: str
    question: str
    allowed: Spending
    used: Callable[[], Spending]
    """What it has used so far."""
    owner: str = ""
    """The client that may wait for it and stop it; "": every one."""
    detached: bool = False
    """Nobody has to wait for it: its caller was answered with its id."""
    step: str = "starting"
    share: float = 0.0
    """How much of its largest budget is used, 0 to 1."""
    outcome: Mapping[str, Any] | None = None
    error: HaloError | None = None
    started: float = field(default_factory=time.monotonic)
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def note(self, step: str, share: float) -> None:
        """Say what it is doing."""
        self.step, self.share = step, share
        self._changed.set()
        self._changed = anyio.Event()

    async def changed(self) -> None:
        """Until it says something new, or ends."""
        await self._changed.wait()

    async def stop(self) -> None:
        """Stop it and wait, for a moment, until its connections are closed."""
        self.scope.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_S):
            await self.done.wait()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def result(self) -> Mapping[str, Any]:
        """Of a job that is done. Raises: HaloError, what ended it."""
        if self.outcome is not None:
            return self.outcome
        raise self.error or RunStopped(self.id)


class Jobs:
    """The jobs of one server. Used by one event loop."""

    def __init__(self, settings: AskSettings, group: anyio.abc.TaskGroup) -> None:
        self.settings = settings
        self._group = group
        self._jobs: dict[str, Job] = {}
        self._spent = Spending(0, 0.0)
        """By jobs that have ended."""
        self._owners: dict[str, str] = {}

    def left(self, client: str = "") -> Spending:
        """What a new job of a client may use: what running jobs are allowed counts as used. Raises: Busy."""
        running = [job for job in self._jobs.values() if not job.done.is_set()]
        if len(running) >= self.settings.max_jobs:
            own = ", ".join(job.id for job in running if job.owner == client)
            raise Busy(
                f"The server already works on {len(running)} questions{f' ({own})' if own else ''}, as many as "
                "HALO_MCP_ASK_MAX_JOBS allows: "
                + ("wait for one with ask_result, or stop it with cancel=true." if own else "try again later.")
            )
        tokens = self.settings.total_tokens - self._spent.tokens - sum(job.allowed.tokens for job in running)
        total = self.settings.total_usd
        usd = None if total is None else total - (self._spent.usd or 0) - sum(job.allowed.usd or 0 for job in running)
        if tokens <= 0 or (usd is not None and usd <= 0):
            raise Busy(
                "What all questions to this server may use together is used up, or held by running ones "
                "(HALO_MCP_ASK_TOTAL_TOKENS, HALO_MCP_ASK_TOTAL_USD). Every other tool still works."
            )
        return Spending(tokens, usd)

    def start(self, job: Job, work: Callable[[], Awaitable[Mapping[str, Any]]]) -> Job:
        """Begin the work; what it returns becomes the job's outcome."""
        self._jobs[job.id] = job
        self._owners[job.id] = job.owner
        for known in list(self._owners)[:-OWNERS_KEPT]:
            del self._owners[known]
        for old in [job for job in self._jobs.values() if job.done.is_set()][:-KEPT]:
            del self._jobs[old.id]
        self._group.start_soon(self._run, job, work)
        return job

    def get(self, job_id: str, client: str = "") -> Job:
        """The job, for the client that began it. Raises: UnknownRun."""
        job = self._jobs.get(job_id)
        if job is None or job.owner != client:
            raise UnknownRun(job_id)
        return job

    def may_read(self, run_id: str, client: str) -> bool:
        """Whether the record of a run is for this client: one that has to say who it is gets its own only."""
        return not client or self._owners.get(run_id) == client

    async def _run(self, job: Job, work: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        # Nothing but cancellation may leave: it would end the task group, and every other job with it.
        try:
            with job.scope:
                job.outcome = await work()
        except HaloError as error:
            job.error = error
        except Exception:
            _log.exception("run %s failed", job.id)
            job.error = EngineError(f"Run {job.id} failed by an internal error; the server's log has the details.")
        finally:
            used = job.used()
            self._spent = Spending(self._spent.tokens + used.tokens, (self._spent.usd or 0.0) + (used.usd or 0.0))
            job.done.set()
            job.note("done", 1.0)
