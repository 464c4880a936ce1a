"""Labels joined to the traces of an index: which trace each row is about, and what could not be joined."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, NamedTuple

from halo_mcp.index.columns import NAME_CHARS
from halo_mcp.index.duck import quoted
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.labels import EXAMPLES_KEPT, Label, LabelFile, Verdict
from halo_mcp.index.outcomes import LABELS_TABLE

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


_KINDS: Final = ("task", "session", "run")
"""As the last members of ``Ids`` are ordered; a row may name several of them together."""


class Ids(NamedTuple):
    """What labels may name a trace by."""

    trace_key: int
    trace_id: str
    task_key: str | None
    session_id: str | None
    run_id: str | None


@dataclass(slots=True)
class LabelReport:
    """What became of the rows of one file."""

    path: str
    rows: int
    unusable: Mapping[str, int]
    """Reason -> rows that say nothing, or nothing about anything."""
    examples: tuple[str, ...]
    undecided: int
    """Rows whose score decides nothing, because its scale is not 0 to 1 and there is no threshold."""
    highest: float
    traces: int = 0
    """Traces whose outcome is from this file."""
    unmatched: int = 0
    """Rows that fit no trace."""
    unmatched_examples: list[str] = field(default_factory=list[str])
    several: int = 0
    """Rows that fit several traces of a task or session, and count for all of them."""
    runs: int = 0
    """Rows about a run of several traces, which are no verdict on any of them."""
    repeated: int = 0
    """Rows that say again what another row says about the same trace."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """What labels say about the traces of an index."""

    decided: tuple[tuple[int, Verdict | None, float | None, int], ...] = ()
    """Of each labelled trace: its key, outcome, score, and the number of the file."""
    reports: tuple[LabelReport, ...] = ()
    contradicted: int = 0
    """Traces about which rows contradict each other: their labels decide nothing."""
    contradicted_examples: tuple[str, ...] = ()
    unlabelled: int = 0
    """Traces without any label."""

    def statement(self) -> str:
        """The statement that makes the table of labels, also in another process.

        Lists as text: a million rows of VALUES would take the parser seconds.
        """
        if not self.decided:
            return f"CREATE TABLE {LABELS_TABLE} (trace_key BIGINT, outcome VARCHAR, score DOUBLE, source VARCHAR)"
        columns = {
            "trace_key": ((str(key) for key, _, _, _ in self.decided), "::BIGINT"),
            "outcome": ((verdict or "" for _, verdict, _, _ in self.decided), ""),
            "score": (("" if score is None else repr(score) for _, _, score, _ in self.decided), ""),
            "file": ((str(file) for _, _, _, file in self.decided), "::INTEGER"),
        }
        texts = (
            f"unnest(string_split({quoted(','.join(values))}, ',')){cast} AS {name}"
            for name, (values, cast) in columns.items()
        )
        names = [f"labels {PurePath(report.path).name}" for report in self.reports]
        sources = f"[{', '.join(map(quoted, names))}]::VARCHAR[]"
        return (
            f"CREATE TABLE {LABELS_TABLE} AS SELECT trace_key, nullif(outcome, '') AS outcome, "
            f"nullif(score, '')::DOUBLE AS score, ({sources})[file + 1] AS source FROM (SELECT {', '.join(texts)})"
        )


NO_LABELS: Final = Labelling()


def join_labels(files: Sequence[LabelFile], traces: Iterable[Ids]) -> Labelling:
    """Give each trace what the rows about it say; a row that names the trace goes before rows that name its task."""
    known = _Traces(traces)
    reports = [_report(file) for file in files]
    said: defaultdict[int, list[_Said]] = defaultdict(list)
    for no, file in enumerate(files):
        for label in file.labels:
            found = known.fitting(label)
            _count(reports[no], label, found)
            for trace in found.traces:
                said[trace.trace_key].append(_Said(no, found.exact, label.verdict, label.score))
    decided: list[tuple[int, Verdict | None, float | None, int]] = []
    contradicted: list[str] = []
    for key, rows in said.items():
        rows = [row for row in rows if row.exact] or rows
        verdicts: set[Verdict] = {row.verdict for row in rows if row.verdict is not None}
        if len(verdicts) > 1:
            contradicted.append(known.by_key[key].trace_id)
            continue
        scores = {row.score for row in rows if row.score is not None}
        verdict, score = next(iter(verdicts), None), scores.pop() if len(scores) == 1 else None
        first = next((row.file for row in rows if row.verdict), rows[0].file)
        for row in rows[1:]:
            reports[row.file].repeated += 1
        reports[first].traces += verdict is not None
        decided.append((key, verdict, score, first))
    return Labelling(
        tuple(decided),
        tuple(reports),
        contradicted=len(contradicted),
        contradicted_examples=tuple(contradicted[:EXAMPLES_KEPT]),
        unlabelled=len(known.by_key) - len(said),
    )


class _Said(NamedTuple):
    file: int
    exact: bool
    verdict: Verdict | None
    score: float | None


def _count(report: LabelReport, label: Label, found: _Fitting) -> None:
    report.several += len(found.traces) > 1
    report.runs += found.whole_run
    if not found.traces and not found.whole_run:
        report.unmatched += 1
        if len(report.unmatched_examples) < EXAMPLES_KEPT:
            kind, value = next(iter(label.ids.items()))
            report.unmatched_examples.append(f"{'id' if kind == 'any' else kind} {value[:60]}")


def _report(file: LabelFile) -> LabelReport:
    return LabelReport(file.path, file.rows, file.unusable, file.examples, file.undecided, file.highest)


class _Fitting(NamedTuple):
    traces: Sequence[Ids]
    exact: bool = False
    """The row names the trace itself."""
    whole_run: bool = False


class _Traces:
    """The traces of an index, by everything that a label may call them."""

    def __init__(self, traces: Iterable[Ids]) -> None:
        self.by_key: dict[int, Ids] = {}
        self._by_id: dict[str, Ids] = {}
        self._by: dict[str, defaultdict[str, list[Ids]]] = {kind: defaultdict(list) for kind in _KINDS}
        self._loosely: dict[str, list[Ids]] | None = None
        for trace in traces:
            self.by_key[trace.trace_key] = self._by_id[trace.trace_id] = trace
            for kind, name in zip(_KINDS, trace[2:], strict=True):
                if name is not None:
                    self._by[kind][name.strip()].append(trace)

    def fitting(self, label: Label) -> _Fitting:
        """The traces that a row is about: the one it names, or all that fit its task, session and run together."""
        ids: dict[str, str] = {kind: value[:NAME_CHARS].strip() for kind, value in label.ids.items() if kind != "trace"}
        if given := label.ids.get("trace"):
            return _Fitting(self._named(given), exact=True)
        if given := ids.pop("any", "") if len(ids) == 1 else "":
            return self._anything(given)
        ids.pop("any", None)
        kind = next(kind for kind in _KINDS if kind in ids)
        found = self._by[kind].get(ids[kind], [])
        if not found and kind == "task" and (named := self._named(ids["task"])):
            return _Fitting(named, exact=True)  # a harness that names traces after tasks
        found = [trace for trace in found if all(_fits(trace, kind, name) for kind, name in ids.items())]
        if kind == "run" and len(found) > 1:
            return _Fitting((), whole_run=True)
        return _Fitting(found)

    def _anything(self, name: str) -> _Fitting:
        if named := self._named(name):
            return _Fitting(named, exact=True)
        return _Fitting(self._by["task"].get(name[:NAME_CHARS]) or self._by["session"].get(name[:NAME_CHARS], []))

    def _named(self, trace_id: str) -> Sequence[Ids]:
        trace = self._by_id.get(normalize_id(trace_id))
        if trace is not None:
            return (trace,)
        if self._loosely is None:  # only where some id is not found as it is
            self._loosely = {}
            for trace in self.by_key.values():
                self._loosely.setdefault(_loose(trace.trace_id), []).append(trace)
        found = self._loosely.get(_loose(trace_id), [])
        return found if len(found) == 1 else ()


def _fits(trace: Ids, kind: str, name: str) -> bool:
    """Whether nothing that the trace says contradicts this name."""
    own = trace[2:][_KINDS.index(kind)]
    return own is None or own.strip() == name


def _loose(trace_id: str) -> str:
    """An id without its case, and without the dashes of a UUID: how another tool may have written it down."""
    text = normalize_id(trace_id.strip()).casefold().removeprefix("0x")
    return text.replace("-", "") if _UUID.fullmatch(text) else text
