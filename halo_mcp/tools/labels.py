"""What files of labels say about a dataset, and what in them could not be used, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, Final

from halo_mcp.index.labelling import LabelReport
from halo_mcp.index.store import StoreInfo
from halo_mcp.tools.budget import preview
from halo_mcp.tools.render import counted, names, number

_NAME_CHARS: Final = 60
_EXAMPLE_CHARS: Final = 100


def label_lines(info: StoreInfo) -> Iterator[str]:
    """A line for each file of labels and one for what is about all of them; nothing without any."""
    labelling = info.labelling
    for report in labelling.reports:
        yield f"labels {preview(PurePath(report.path).name, _NAME_CHARS)}: {'; '.join(_facts(report))}"
    if labelling.reports:
        parts = [f"{counted(labelling.unlabelled, 'trace')} without a label"]
        if labelling.contradicted:
            shown = names(preview(one, _NAME_CHARS) for one in labelling.contradicted_examples)
            parts.append(f"{counted(labelling.contradicted, 'trace')} with labels that contradict each other ({shown})")
        yield f"labels in all: {'; '.join(parts)}"
    if info.undecided_score is not None:
        yield f"scores on spans go up to {info.undecided_score:g} and decide nothing: say what passes, --pass-score X"


def _facts(report: LabelReport) -> Iterator[str]:
    yield f"{counted(report.rows, 'row')}, outcome of {counted(report.traces, 'trace')}"
    if report.unmatched:
        examples = names(preview(one, _NAME_CHARS) for one in report.unmatched_examples)
        yield f"{number(report.unmatched)} fit no trace ({examples})"
    if report.several:
        yield f"{number(report.several)} fit several traces and count for all of them"
    if report.runs:
        yield f"{number(report.runs)} name a run of several traces only and are not used"
    if report.repeated:
        yield f"{number(report.repeated)} repeated"
    if report.undecided:
        yield (
            f"{number(report.undecided)} scores decide nothing (they go up to {report.highest:g}): say what passes, "
            "--pass-score X"
        )
    if report.unusable:
        examples = names(preview(one, _EXAMPLE_CHARS) for one in report.examples)
        yield f"{number(sum(report.unusable.values()))} not usable ({examples})"


def labels_json(info: StoreInfo) -> dict[str, Any]:
    """The same as JSON; {} where no labels were given and all scores decide."""
    labelling = info.labelling
    data: dict[str, Any] = {}
    if labelling.reports:
        data["labels"] = {
            "files": [asdict(report) for report in labelling.reports],
            "contradicted_trace_count": labelling.contradicted,
            "unlabelled_trace_count": labelling.unlabelled,
        }
    if info.undecided_score is not None:
        data["undecided_highest_score"] = info.undecided_score
    return data
