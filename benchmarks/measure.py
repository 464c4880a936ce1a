"""Measures everything about one dataset, the sides by turns, and checks their answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import ripgrep
from benchmarks.analyses import COMPILED, READ_SPANS
from benchmarks.data import Dataset
from benchmarks.processes import OF_PROCESS, run_job
from benchmarks.questions import ALTERNATION, LITERAL, PAGE


@dataclass(slots=True)
class Figures:
    """Every figure of one side, once per repetition."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> float | None:
        """The median; None when it was not measured."""
        return median(self.values[name]) if name in self.values else None


@dataclass(slots=True)
class Side:
    """Where a side runs (None: it does not), and what came of it."""

    module: str
    python: Path | None
    figures: Figures = field(default_factory=Figures)
    wrong: list[str] = field(default_factory=list[str])
    """Answers that differ from what the generator wrote."""


@dataclass(slots=True)
class Measured:
    """All about one dataset."""

    dataset: Dataset
    ours: Side
    peer: Side
    ripgrep: Figures = field(default_factory=Figures)

    def ripgrep_best(self, name: str) -> tuple[float | None, str]:
        """The faster mode's time, and its name."""
        measured = [(time, f"rg {mode}") for mode in ripgrep.MODES if (time := self.ripgrep[f"{name} {mode}"])]
        return min(measured, default=(None, ""))


def measure(
    dataset: Dataset,
    directory: Path,
    repeat: int,
    peer: Path | None,
    first_calls: Sequence[str],
    say: Callable[[str], None],
) -> Measured:
    """``peer`` is the interpreter that has the peer, or None; ``first_calls``: tools to ask in fresh processes.

    Raises: JobFailed.
    """
    ours = Side("benchmarks.ours", Path(sys.executable))
    measured = Measured(dataset, ours, Side("benchmarks.peer", peer))
    _read_once(dataset.path)
    for number in range(1, repeat + 1):
        say(f"{dataset.name} spans, {number} of {repeat}")
        _repetition(measured, directory, first_calls)
    return measured


def index_directory(directory: Path, module: str) -> Path:
    """Where a side keeps its indexes."""
    return directory / f"{module}-index"


def _empty(index: Path) -> None:
    """Remove the indexes, but not the compiled interpreter of run_code, which is made once per machine."""
    index.mkdir(exist_ok=True)
    for entry in index.iterdir():
        if entry.name != COMPILED:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _read_once(path: Path) -> None:
    """Into the operating system's file cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def _repetition(measured: Measured, directory: Path, first_calls: Sequence[str]) -> None:
    dataset = measured.dataset
    traces, viewed = str(dataset.path), ",".join(dataset.facts.viewed)
    index = {side.module: index_directory(directory, side.module) for side in (measured.ours, measured.peer)}
    for used in index.values():
        _empty(used)

    def run(side: Side, job: str, *arguments: str) -> None:
        if side.python is None:
            return
        done = run_job(side.python, side.module, job, traces, str(index[side.module]), *arguments)
        for name, figure in done.figures.items():
            side.figures.add(f"{job}: {name}" if name in OF_PROCESS else name, figure)
        side.wrong += _differences(f"{dataset.name} spans, {job}", done.answers, expected(dataset, job))

    for job, arguments in (("build", ()), ("query", (viewed,))):
        for side in (measured.ours, measured.peer):
            run(side, job, *arguments)
    _search_with_ripgrep(measured)
    run(measured.ours, "tools", viewed)
    run(measured.ours, "session")
    for tool in first_calls:
        run(measured.ours, "cold", tool)
    run(measured.ours, "append", str(dataset.tail))


def expected(dataset: Dataset, job: str) -> dict[str, int]:
    """The answers that the generator knows."""
    facts, counts = dataset.facts, dataset.facts.counts
    if job == "append":
        return {"spans": facts.spans + facts.tail_spans}
    return {
        "traces": facts.traces,
        "spans": facts.spans,
        "error_spans": facts.error_spans,
        "error_traces": facts.error_traces,
        "input_tokens": facts.input_tokens,
        "page_total": facts.error_traces,
        "page": min(PAGE, facts.error_traces),
        "literal": facts.planted_spans,
        "alternation": facts.planted_spans,
        "literal, search_dataset": facts.planted_spans,
        "alternation, search_dataset": facts.planted_spans,
        "searched": facts.searched_matches,
        "search_dataset": facts.planted_spans,
        "search_dataset, literal": facts.planted_spans,
        "search_dataset, alternation": facts.planted_spans,
        "failing_traces": counts.failing_traces,
        "passing_traces": facts.traces - counts.failing_traces,
        "compared_traces": facts.traces,
        "failures": counts.failures,
        "calls": counts.calls,
        "failed_calls": counts.failed_calls,
        "retries": counts.retries,
        "loop_calls": counts.loop_calls,
        "spans_read": min(READ_SPANS, facts.spans),
        "causes_missed": 0,
        "sum": 2,
        "repaired": 0,
        "skipped": 0,
        "errors": 0,
    }


def _differences(where: str, answers: dict[str, int], known: dict[str, int]) -> list[str]:
    return [f"{where}: {name} is {n}, not {known[name]}" for name, n in answers.items() if n != known[name]]


def _search_with_ripgrep(measured: Measured) -> None:
    if ripgrep.version() is None:
        return
    for name, pattern in (("literal", LITERAL), ("alternation", ALTERNATION)):
        seconds, lines = ripgrep.count_lines(measured.dataset.path, pattern)
        for mode, time in seconds.items():
            measured.ripgrep.add(f"{name} {mode}", time)
        if lines != measured.dataset.facts.planted_spans:
            measured.ours.wrong.append(f"{measured.dataset.name} spans: ripgrep finds the {name} in {lines} lines")
