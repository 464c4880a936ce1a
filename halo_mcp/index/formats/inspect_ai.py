"""Logs of Inspect AI: ``.eval`` archives and JSON documents. Each sample in each epoch is a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.formats.chat import Result, Talk
from halo_mcp.index.formats.head import Head
from halo_mcp.index.formats.inspect_events import Contents, Events, chat_message, failure_of, text_of
from halo_mcp.index.formats.protocol import Format, Record, Report
from halo_mcp.index.formats.trace_file import TraceFile
from halo_mcp.index.formats.trajectory import Step, Trajectory, digest, members, per_part, usage, verdict
from halo_mcp.index.formats.values import (
    attribute_value,
    exception_event,
    given,
    nanoseconds,
    per_record,
    seconds_as_nanoseconds,
)
from halo_mcp.index.span import Json, as_list, as_mapping, as_text

_NAME: Final = "inspect"
_HEADER: Final = "header.json"
_START: Final = "_journal/start.json"
_SAMPLES: Final = "samples/"
_CORRECT: Final = {"C": True, "I": False, True: True, False: False}
"""Inspect's words for a verdict; other scores are numbers whose meaning only their scorer knows."""
_EVAL_KEYS: Final = ("model", "run_id", "created", "task_id", "task_args", "solver_args", "tags", "metadata")
_SAMPLE_KEYS: Final = (
    "id", "epoch", "input", "messages", "output", "scores", "score", "events", "transcript", "attachments", "uuid",
    "message_pool", "events_data", "error", "limit", "started_at", "completed_at", "timelines",
)  # fmt: skip


def _sniff(head: Head) -> bool:
    if head.shape == "zip":
        return _HEADER in head.names or _START in head.names
    return any(_is_log(value) for value in head.objects)


def _is_log(value: Mapping[str, Json]) -> bool:
    run = as_mapping(value.get("eval"))
    return "task" in run and "model" in run and ("status" in value or "plan" in value or "samples" in value)


def _convert(file: TraceFile, report: Report) -> Iterator[Record]:
    if file.head.shape == "zip":
        yield from _of_archive(file, report)
        return
    for value in file.values():
        log = as_mapping(value)
        if not _is_log(log):
            report.skip("not an Inspect log: it has no eval")
            continue
        samples = as_list(log.get("samples"))
        if not samples:
            _say_empty(log, report)
        parts = ((f"sample {number + 1}", sample) for number, sample in enumerate(samples))
        yield from per_part(parts, report, lambda sample, log=log: _spans(log, as_mapping(sample), report))


def _of_archive(file: TraceFile, report: Report) -> Iterator[Record]:
    with file.archive() as archive:
        names = dict.fromkeys(archive.namelist())  # a sample that was written again stands there twice
        # A run that did not end has no header, only how it began.
        found = (as_mapping(file.member(archive, name)) for name in (_HEADER, _START) if name in names)
        log = next((one for one in found if one.get("eval")), as_mapping(None))
        samples = [name for name in names if name.startswith(_SAMPLES) and name.endswith(".json")]
        if not samples:
            _say_empty(log, report)
        for name in samples:
            sample = file.member(archive, name)
            if sample is not None:  # else it has been reported
                yield from per_record([sample], report, lambda one: _spans(log, as_mapping(one), report))
        report.place = ""


def _say_empty(log: Mapping[str, Json], report: Report) -> None:
    status = log.get("status")
    report.skip(f"a log without samples, {status}" if status in _STATUSES else "a log without samples")


_STATUSES: Final = ("started", "success", "cancelled", "error")


def _spans(log: Mapping[str, Json], sample: Mapping[str, Json], report: Report) -> Iterator[Record]:
    if "id" not in sample and "messages" not in sample and "events" not in sample:
        raise ValueError("not a sample: it has no id, messages or events")
    run = as_mapping(log.get("eval"))
    sample_id, epoch = as_text(sample.get("id")), as_text(sample.get("epoch")) or "1"
    run_id = as_text(run.get("eval_id")) or "-".join(
        filter(None, (as_text(run.get("run_id")), as_text(run.get("task_id")), as_text(run.get("created"))))
    )
    contents = Contents(sample)
    events = as_list(sample.get("events")) or as_list(as_mapping(sample.get("transcript")).get("events"))
    times = [
        time
        for told in (sample.get("started_at"), *(as_mapping(event).get("timestamp") for event in events))
        if (time := nanoseconds(told, report)) is not None
    ]
    trajectory = Trajectory(
        f"{run_id or digest(sample)}:{sample_id}:{epoch}",
        mark=as_text(sample.get("uuid")) or digest(sample),
        report=report,
        begin=min(times, default=None),
    )
    took = Events(trajectory, contents, report)
    took.take(events, trajectory.root)
    took.finish()
    if not took.model_calls and not took.tool_calls:
        messages = [chat_message(contents, as_mapping(item)) for item in as_list(sample.get("messages"))]
        if messages:
            _Talk(trajectory, as_text(run.get("model"))).take(messages)
    _describe(trajectory.root, run, run_id, sample, contents)
    if not took.model_calls:
        _add_usage(trajectory.root, sample)
    _end(trajectory.root, sample, took, report)
    version = as_text(as_mapping(run.get("packages")).get("inspect_ai"))
    yield from trajectory.spans(
        resource=given({semconv.SERVICE_NAME: as_text(run.get("task"))}),
        scope=given({"name": "inspect_ai", "version": version}),
    )


def _describe(root: Step, run: Mapping[str, Json], run_id: str, sample: Mapping[str, Json], contents: Contents) -> None:
    task, sample_id = as_text(run.get("task")), as_text(sample.get("id"))
    agent = as_text(run.get("solver")) or task
    given_input = contents.expanded(sample.get("input"))
    asked = [as_mapping(item) for item in as_list(given_input)]
    root.name = f"invoke_agent {agent}".strip()
    root.attributes |= given(
        {
            semconv.AGENT_NAME[0]: agent,
            semconv.TASK_KEY[0]: f"{task}:{sample_id}",
            semconv.RUN_ID[0]: run_id,
            semconv.INPUT_VALUE[0]: text_of(asked[-1].get("content")) if asked else attribute_value(given_input),
            semconv.OUTPUT_VALUE[0]: _answer(contents, as_mapping(sample.get("output"))),
            "sample.id": sample_id,
            "sample.epoch": sample.get("epoch"),
        }
    )
    root.attributes |= members({key: run.get(key) for key in _EVAL_KEYS}, prefix="eval.")
    rest = {key: contents.expanded(value) for key, value in sample.items() if key not in _SAMPLE_KEYS}
    root.attributes |= members(rest, prefix="sample.")
    root.attributes |= _scores(contents, sample)


def _answer(contents: Contents, output: Mapping[str, Json]) -> Json:
    choice = as_mapping(next(iter(as_list(output.get("choices"))), None))
    return text_of(contents.expanded(as_mapping(choice.get("message")).get("content"))) or contents.expanded(
        output.get("completion")
    )


def _scores(contents: Contents, sample: Mapping[str, Json]) -> dict[str, Json]:
    """Each score under its scorer's name; the outcome where scorers say correct or incorrect, and agree."""
    scores = dict(as_mapping(sample.get("scores")))
    if not scores and as_mapping(sample.get("score")):
        scores = {"score": sample["score"]}
    found: dict[str, Json] = {}
    verdicts: set[bool] = set()
    for name, given_score in scores.items():
        score = as_mapping(given_score) or {"value": given_score}
        key = "score" if name == "score" else f"score.{name}"
        found |= given({key: attribute_value(score.get("value"))})
        found |= members(as_mapping(contents.expanded(score)), without=("value", "history"), prefix=f"{key}.")
        value = score.get("value")
        if isinstance(value, str | bool) and value in _CORRECT:
            verdicts.add(_CORRECT[value])
    return found | (verdict(verdicts.pop()) if len(verdicts) == 1 else {})


def _add_usage(root: Step, sample: Mapping[str, Json]) -> None:
    """Without model events only the sums are known."""
    counts = [as_mapping(one) for one in as_mapping(sample.get("model_usage")).values()]
    for count in [{key: _sum(counts, key) for key in ("input_tokens", "output_tokens")}] if counts else []:
        root.attributes |= usage(count)


def _sum(counts: list[Mapping[str, Json]], key: str) -> int:
    return sum(value for one in counts if type(value := one.get(key)) is int)


def _end(root: Step, sample: Mapping[str, Json], took: Events, report: Report) -> None:
    """Status and end of the sample. An error of its own is one, and so is a limit that stopped it."""
    limit, error = as_mapping(sample.get("limit")), as_mapping(sample.get("error"))
    if limit or took.limit:
        kind = as_text(limit.get("type")) or took.limit
        root.attributes[semconv.STOP_REASON[0]] = f"{kind} limit"
        root.attributes |= given({"sample.limit": limit.get("limit")})
        root.fail(f"stopped by its {kind} limit")
    if error:
        message, stack = as_text(error.get("message")), as_text(error.get("traceback"))
        root.fail(message)
        kind = message.partition("(")[0] if message.partition("(")[0].isidentifier() else "error"
        root.events.append(exception_event(kind, message, None, stack))
    end = nanoseconds(sample.get("completed_at"), report)
    seconds = seconds_as_nanoseconds(sample.get("total_time"))
    if end is None and seconds is not None and not root.synthetic:
        end = root.start + seconds
    root.end = max(filter(None, (root.end, end)), default=None)


@dataclass(slots=True)
class _Talk(Talk):
    """Samples of logs without events."""

    def results(self, message: Mapping[str, Json]) -> list[Result]:
        failed, _ = failure_of(as_mapping(message.get("error")))
        return [
            Result(one.output, one.id, as_text(message.get("function")) or one.name, failed)
            for one in Talk.results(self, message)
        ]


FORMAT: Final = Format(
    name=_NAME,
    title="Inspect AI",
    description="`.eval` archives and JSON logs, also of runs that were cancelled; a trace per sample and epoch",
    sniff=_sniff,
    convert=_convert,
)
