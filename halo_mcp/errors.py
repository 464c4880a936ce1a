"""Every error halo-mcp raises on purpose.

    HaloError                    one sentence for whoever can act: what was wrong, what to do instead
    ├── BadArgument              the caller's argument cannot be used
    │   ├── InvalidPattern       a regex that RE2 cannot run
    │   ├── InvalidSql           a statement that DuckDB cannot run, or that is not allowed
    │   ├── InvalidTime          a time that is not RFC 3339 or epoch digits
    │   ├── InvalidCursor        a page cursor that belongs to another query or dataset
    │   ├── BadCheckFile         a file of checks that cannot be used
    │   ├── BadClientConfig      a client's configuration that cannot be written without damage
    │   ├── BadLabelFile         a file of labels that cannot be used
    │   ├── BadRepoPath          a path in the repository that tools may not or cannot read
    │   ├── BadRevision          not a commit, tag, branch or range of the repository
    │   ├── UnknownDataset
    │   ├── UnknownTrace
    │   ├── UnknownSpan
    │   ├── PayloadsWithheld     a question that only payloads answer, where they are not served
    │   ├── UnknownRun           no question was asked under this id, or another server works on it
    │   └── UnknownAttribute
    ├── SourceError              a trace file cannot be used
    │   ├── SourceNotFound
    │   ├── SourceUnreadable
    │   ├── SourceTooLarge
    │   ├── NotTraces            the file is there, but holds no spans we can read
    │   └── SourceChanged        the file no longer holds what the index says
    ├── GitFailed                git came to no result
    ├── IndexFailure             the index directory cannot be used (disk full, no permission, damaged)
    ├── SandboxError             SQL or code of a model came to no result
    │   ├── SandboxUnavailable   its worker process cannot be started here
    │   ├── IndexRenewed         the index was replaced while the worker opened it
    │   └── WorkerStopped        its worker process was killed, or ended
    ├── EngineError              the server-side agent came to no result
    │   ├── EngineUnavailable    no model is configured
    │   ├── ModelRejected        the model's endpoint refuses: someone has to change the configuration
    │   ├── ContextOverflow      a request is longer than the model's context
    │   ├── MalformedReply       a reply that ended early or cannot be read
    │   ├── GaveUp               a budget or the patience with a failing endpoint is used up
    │   ├── Busy                 the server works on, or has spent, as much as it may
    │   └── RunStopped           someone stopped the run
    └── Interrupted
        ├── Cancelled            the caller went away
        └── DeadlineExceeded     the time allowed for one call is over

Each error keeps its facts as attributes and builds its own message from them.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal


class HaloError(Exception):
    """Base of the tree; ``str(error)`` is safe to show to a client."""


def let_go(error: BaseException) -> None:
    """Forget which calls the error, and those it came from, went through.

    Futures and event loops make cycles of errors and frames. A state of the index among their variables would stay
    open, with its files, memory and threads, until the garbage collector comes to the oldest generation. An error that
    is none of ours is one to look into, so its lines stay; only the frames' variables go.
    """
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            if isinstance(error, HaloError):
                one.__traceback__ = None  # a cleared frame still has its function, and that its closure
            todo += [other for other in (one.__cause__, one.__context__) if other is not None]


class BadArgument(HaloError):
    """The caller's argument cannot be used."""


class InvalidPattern(BadArgument):
    """A regex that RE2 cannot run."""

    def __init__(self, pattern: str, reason: str) -> None:
        self.pattern = pattern
        self.reason = reason
        shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
        super().__init__(f"The pattern {shown!r} cannot be used: {reason}")


class InvalidSql(BadArgument):
    """A statement that DuckDB cannot run, or that is not allowed."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason = reason
        super().__init__(
            f"This SQL gives no result: {reason}{'' if reason.endswith(tuple('.!?…')) else '.'} {hint}".rstrip()
        )


class InvalidTime(BadArgument):
    """A time that is not RFC 3339 or epoch digits."""

    def __init__(self, argument: str, value: str) -> None:
        self.argument = argument
        self.value = value
        super().__init__(
            f"{argument}={shown(value)!r} is not a time: give RFC 3339 such as '2026-03-02T09:00:00Z', "
            "or epoch seconds, milliseconds, microseconds or nanoseconds as digits."
        )


class InvalidCursor(BadArgument):
    """A page cursor that belongs to another query or dataset."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        super().__init__(
            f"This cursor does not belong to this {tool} call: it was made for another dataset, other arguments "
            "or an older state of the data. Repeat the call without cursor to start at the first page."
        )


class BadCheckFile(BadArgument):
    """A file of checks that cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{shown(path)} is no file of checks that can be used: {reason.rstrip('.')}.")


class BadClientConfig(BadArgument):
    """A client's configuration that cannot be written without damage; ``block`` is what to paste instead."""

    def __init__(self, path: str, reason: str, block: str) -> None:
        self.path = path
        self.reason = reason
        self.block = block
        super().__init__(
            f"{shown(path)} is left as it is: {reason.rstrip('.')}. Add this to it by hand:\n{block.rstrip()}"
        )


class BadLabelFile(BadArgument):
    """A file of labels that cannot be used."""

    def __init__(self, path: str, reason: str, hint: str = "See docs/outcomes.md for what is read.") -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{shown(path)} cannot be used for labels: {reason.rstrip('.')}. {hint}".rstrip())


class BadRepoPath(BadArgument):
    """A path in the repository that tools may not or cannot read."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{shown(path)!r} cannot be read: {reason.rstrip('.')}.")


class BadRevision(BadArgument):
    """Not a commit, tag, branch or range of the repository."""

    def __init__(self, revision: str, reason: str = "") -> None:
        self.revision = revision
        reason = reason or "the repository has no such commit, tag or branch"
        super().__init__(f"{shown(revision)!r} cannot be used: {reason}. git_log lists commits.")


class UnknownDataset(BadArgument):
    """No dataset has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = list(known)
        if known:
            listed = ", ".join(known)
            super().__init__(
                f"There is no dataset {shown(name)!r}. Loaded: {listed}. Leave dataset empty for the first one."
            )
        else:
            super().__init__(
                'No dataset is loaded: open one with list_datasets(open="PATH") where the server was given --root, or '
                "start the server with trace files, halo-mcp serve [NAME=]FILE..."
            )


class UnknownTrace(BadArgument):
    """No trace has this id."""

    def __init__(self, trace_id: str, dataset: str, similar: Sequence[str] = ()) -> None:
        self.trace_id = trace_id
        self.dataset = dataset
        self.similar = list(similar)
        hint = f"Ids that start alike: {', '.join(similar)}. " if similar else ""
        super().__init__(
            f"There is no trace {shown(trace_id)!r} in dataset {dataset!r}. {hint}"
            "Take ids from query_traces or from get_dataset_overview."
        )


class UnknownSpan(BadArgument):
    """None of the asked span ids is in the trace."""

    def __init__(self, trace_id: str, span_ids: Sequence[str]) -> None:
        self.trace_id = trace_id
        self.span_ids = list(span_ids)
        listed = ", ".join(map(shown, span_ids[:5])) + (f" and {len(span_ids) - 5} more" if len(span_ids) > 5 else "")
        super().__init__(
            f"Trace {trace_id!r} has no span {listed}. "
            f"view_trace(trace_id={trace_id!r}, detail='outline') lists its spans."
        )


class UnknownAttribute(BadArgument):
    """The span has no attribute of this name."""

    def __init__(self, span_id: str, attribute: str, known: Sequence[str]) -> None:
        self.span_id = span_id
        self.attribute = attribute
        self.known = list(known)
        close = get_close_matches(attribute, known, n=5, cutoff=0.4) or list(known)[:20]
        super().__init__(
            f"Span {span_id!r} has no attribute {shown(attribute)!r}. It has, among others: {', '.join(close)}."
        )


class UnknownRun(BadArgument):
    """No question was asked under this id, or another server works on it."""

    def __init__(self, run_id: str, *, saved: bool = False) -> None:
        self.run_id = run_id
        self.saved = saved
        super().__init__(
            f"Run {run_id!r} belongs to another server or an earlier one: halo://runs/{run_id} is its record, and "
            f"`halo-mcp ask SOURCE --resume {run_id}` goes on with it."
            if saved
            else f"There is no run {shown(run_id)!r}. Take job_id from the answer of ask."
        )


class PayloadsWithheld(BadArgument):
    """Only the texts of the spans could answer, and the user does not let them be read."""

    def __init__(self) -> None:
        super().__init__(
            "This needs the texts of spans (messages, inputs, outputs, attributes), and they are withheld here "
            "(--no-payloads, HALO_MCP_NO_PAYLOADS). Names, times, tokens, statuses and counts are not: "
            "get_dataset_overview, list_failure_modes, analyze_tool_use, query_traces, view_trace, query_sql over "
            "columns."
        )


class SourceError(HaloError):
    """A trace file cannot be used."""


class SourceNotFound(SourceError):
    """The path, glob or directory leads to no file."""

    def __init__(self, source: str, *, kind: str = "file") -> None:
        self.source = source
        what = {
            "file": f"There is no file {source}.",
            "glob": f"The pattern {source} matches no file.",
            "directory": f"The directory {source} holds no trace file (.jsonl, .json, .gz, ...).",
        }[kind]
        super().__init__(f"{what} Check the path given to halo-mcp; relative paths start at its working directory.")


class SourceUnreadable(SourceError):
    """The operating system refuses to read the file."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"{source} cannot be read: {reason}. Check its permissions, then call again.")


class NotTraces(SourceError):
    """The file is there, but holds no spans we can read."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(
            f"{source} holds no spans that halo-mcp can read: {reason}. Expected JSON lines with one span object "
            f"(trace_id, span_id, name, ...) per line, or another known trace format; `halo-mcp doctor {source}` "
            "shows what was found."
        )


class SourceTooLarge(SourceError):
    """Uncompressed, the file is larger than what is converted."""

    def __init__(self, source: str, gibibytes: int) -> None:
        self.source = source
        super().__init__(
            f"{source} is not read: converted to JSON lines it takes more than {gibibytes} GiB. Split it, or check "
            "whether it is the file you meant; a small file that grows so large may be a decompression bomb."
        )


class SourceChanged(SourceError):
    """The file no longer holds what the index says."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(f"{source} was changed or replaced while it was being read. Call again: it is indexed anew.")


class GitFailed(HaloError):
    """git came to no result."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        self.reason = reason
        super().__init__(f"git {command} failed: {shown(reason).rstrip('.')}.")


class IndexFailure(HaloError):
    """The index directory cannot be used."""

    def __init__(self, directory: str, reason: str) -> None:
        self.directory = directory
        self.reason = reason
        super().__init__(
            f"The index in {directory} cannot be used: {reason}. Free some space or choose another place with "
            "--index-dir or HALO_MCP_INDEX_DIR; the index is a cache, deleting it loses nothing."
        )


WhyStopped = Literal["time", "memory", "reply", "ended"]


class SandboxError(HaloError):
    """SQL or code of a model came to no result."""


class SandboxUnavailable(SandboxError):
    """The worker process of a tool cannot be started here."""

    def __init__(self, tool: str, reason: str) -> None:
        self.tool = tool
        self.reason = reason
        super().__init__(f"{tool} is not available here: {reason.rstrip('.')}. All other tools work.")


class IndexRenewed(SandboxError):
    """Another index took the place of the one that a worker was to open."""

    def __init__(self, tool: str) -> None:
        super().__init__(f"The index was renewed while {tool} opened it. Call again.")


class WorkerStopped(SandboxError):
    """The worker process of a tool was killed, or ended by itself; the next call starts another."""

    def __init__(self, tool: str, why: WhyStopped, detail: str, hint: str = "") -> None:
        self.tool = tool
        self.why: WhyStopped = why
        self.detail = detail
        what = {
            "time": f"{tool} was stopped: it took longer than {detail}.",
            "memory": f"{tool} was stopped: it needed more than {detail} of memory.",
            "reply": f"{tool} was stopped: its worker sent {detail}.",
            "ended": f"{tool} came to no result: its worker process ended ({detail}); the next call starts another.",
        }[why]
        super().__init__(f"{what} {hint}".rstrip())


class EngineError(HaloError):
    """The server-side agent came to no result."""


class EngineUnavailable(EngineError):
    """No model is configured, so nothing is sent and nothing is spent."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The server-side agent is off: {reason.rstrip('.')}.")


class ModelRejected(EngineError):
    """The model's endpoint refuses for a reason that no repetition cures."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason = reason
        super().__init__(f"The model's endpoint refused: {reason.rstrip('.')}. {hint}".rstrip())


class ContextOverflow(EngineError):
    """A request is longer than the model's context; ``window`` in tokens, when the endpoint said it."""

    def __init__(self, reason: str, window: int | None = None) -> None:
        self.window = window
        super().__init__(f"The request is longer than the model's context: {reason}")


class MalformedReply(EngineError):
    """A model's reply that ended early or cannot be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The model's reply cannot be used: {reason}.")


class GaveUp(EngineError):
    """A budget, or the patience with a failing endpoint, is used up; ``stop`` names which."""

    def __init__(self, stop: str, reason: str = "") -> None:
        self.stop = stop
        self.reason = reason
        super().__init__(f"The run was stopped ({stop}){': ' + reason if reason else ''}".rstrip(".") + ".")


class Busy(EngineError):
    """The server works on, or has spent, as much as it may."""


class RunStopped(EngineError):
    """Someone stopped the run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} was stopped. What was paid for is saved: `halo-mcp ask SOURCE --resume {run_id}` goes on."
        )


class Interrupted(HaloError):
    """Work stopped before it was done."""


class Cancelled(Interrupted):
    """The caller went away."""

    def __init__(self) -> None:
        super().__init__("The call was cancelled.")


class DeadlineExceeded(Interrupted):
    """The time allowed for one call is over."""

    def __init__(self, seconds: float, hint: str = "Narrow the filters and call again.") -> None:
        self.seconds = seconds
        super().__init__(f"This took longer than the {seconds:g} s allowed for one call. {hint}")


def why_unusable(error: Exception) -> str:
    """Why the operating system, or Python before it, did not take a path, without a full stop."""
    return ((error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__).rstrip(".")


def shown(path: str) -> str:
    """A path as an error names it: short, on one line."""
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in path)
    return printable if len(printable) <= 300 else printable[:297] + "..."
