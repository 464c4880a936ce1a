"""From figures to rows with goals, and rows to tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.measure import Measured

HEADINGS = ("row", "halo-mcp", "halo-engine (or as named)", "ratio", "goal", "met")


@dataclass(frozen=True, slots=True)
class Goal:
    """``reached`` decides on our figure and the ratio."""

    text: str
    reached: Callable[[float, float | None], bool | None]


def times(factor: float) -> Goal:
    """Our figure is at most 1 / factor of the other."""
    return Goal(f"≥ {factor:g}x", lambda _, ratio: None if ratio is None else ratio >= factor)


def below(limit: float, text: str) -> Goal:
    return Goal(text, lambda ours, _: ours <= limit)


def at_speed(scanned_bytes: int, limit: float, text: str) -> Goal:
    """So many bytes per second at least."""
    return Goal(text, lambda ours, _: scanned_bytes / ours >= limit)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``of`` names what the other figure is when it is not the peer's."""

    name: str
    ours: float | None
    other: float | None = None
    goal: Goal | None = None
    unit: Literal["s", "MB"] = "s"
    of: str = ""
    scanned_bytes: int = 0
    """When given, our figure is shown with its GB/s."""

    @property
    def ratio(self) -> float | None:
        return self.other / self.ours if self.ours and self.other else None

    @property
    def met(self) -> bool | None:
        return self.goal.reached(self.ours, self.ratio) if self.goal and self.ours is not None else None

    def cells(self) -> tuple[str, ...]:
        speed = f" ({self.scanned_bytes / self.ours / 1e9:.3f} GB/s)" if self.ours and self.scanned_bytes else ""
        met = {True: "yes", False: "NO", None: ""}[self.met]
        return (
            self.name,
            _amount(self.ours, self.unit) + speed,
            _amount(self.other, self.unit) + (f" ({self.of})" if self.of and self.other is not None else ""),
            "" if self.ratio is None else f"{self.ratio:.3g}x" if self.ratio < 100 else f"{self.ratio:,.0f}x",
            self.goal.text if self.goal else "",
            met,
        )


def rows(measured: Measured, *, full_size: bool) -> list[Row]:
    """The table of one dataset. Rows without a figure of ours are left out, goals are for the full size."""
    ours, peer = measured.ours.figures, measured.peer.figures
    small, size = measured.dataset.name == "small", measured.dataset.facts.bytes
    first_answer = (peer["open"] or 0) + (peer["overview"] or 0) or None
    viewed = len(measured.dataset.facts.viewed)
    quick = times(10) if small else times(1)

    def row(name: str, figure: str, goal: Goal | None = None, unit: Literal["s", "MB"] = "s") -> Row:
        return Row(name, ours[figure], peer[figure], goal, unit)

    literal, alternation = (measured.ripgrep_best(name) for name in ("literal", "alternation"))
    table = [
        row("build", "build", times(10) if small else times(4)),
        row("build, whole process", "build: process"),
        row("open", "open", times(10) if small else None),
        row("overview", "overview", quick),
        row("overview, again", "overview, again"),
        Row("open and overview, MCP tool", ours["overview tool"], first_answer, of="store"),
        row("count traces with errors", "count", quick),
        row("count, again", "count, again"),
        row("query, page of 50", "query", quick),
        row("query, again", "query, again"),
        row("count with regex: literal", "literal", times(5)),
        row("count with regex: (?i) alternation", "alternation", times(5)),
        Row("literal, against ripgrep", ours["literal"], literal[0], times(0.5), of=literal[1], scanned_bytes=size),
        Row(
            "alternation, against ripgrep",
            ours["alternation"],
            alternation[0],
            below(size / 1.2e9, "≥ 1.2 GB/s"),
            of=alternation[1],
            scanned_bytes=size,
        ),
        Row(
            "search_dataset: literal, against ripgrep",
            ours["literal, search_dataset"],
            literal[0],
            times(0.5),
            of=literal[1],
            scanned_bytes=size,
        ),
        Row(
            "search_dataset: (?i) alternation, against ripgrep",
            ours["alternation, search_dataset"],
            alternation[0],
            below(size / 1.2e9, "≥ 1.2 GB/s"),
            of=alternation[1],
            scanned_bytes=size,
        ),
        Row("search_dataset: another page", ours["literal, second page"]),
        row(f"view {viewed} traces", "view", times(1)),
        Row(f"view {viewed} traces, payloads only", ours["view, payloads"], peer["view"]),
        Row(f"view {viewed} traces, MCP tool", ours["view tool"], peer["view"], of="store"),
        row(f"search in {viewed} traces", "search", times(1)),
        Row(f"search in {viewed} traces, MCP tool", ours["search tool"], peer["search"], of="store"),
        Row("append 1 %, refresh", ours["append"], ours["build"], times(10), of="own full build"),
        row("peak memory, build", "build: peak", below(400, "≤ 400 MB") if small else None, "MB"),
        row("private memory, build, all processes", "build: peak, all", None, "MB"),
        row("peak memory, queries", "query: peak", None, "MB"),
        row("private memory, queries, all processes", "query: peak, all", None, "MB"),
    ]
    return [row if full_size else replace(row, goal=None) for row in table if row.ours is not None]


def start_rows(start: dict[str, float], first_code: float) -> list[Row]:
    goal = below(0.9, "≤ 0.9 s")
    return [
        Row("process start to `initialize` answer", start["ours"], start["bare"], goal, of="the SDK alone"),
        Row("run_code: first start on a machine (compiles its interpreter)", first_code),
    ]


def _amount(value: float | None, unit: Literal["s", "MB"]) -> str:
    if value is None:
        return ""
    if unit == "MB":
        return f"{value:,.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def markdown_table(table: Sequence[Row]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in table)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def missed_goals(table: Sequence[Row]) -> list[str]:
    """One line per goal that was not reached."""
    lines: list[str] = []
    for row in table:
        if row.goal and row.met is False:
            name, ours, _, ratio, goal, _ = row.cells()
            lines.append(f"{name}: {ratio if goal.endswith('x') else ours} instead of {goal}")
    return lines
