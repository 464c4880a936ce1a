"""Harness versions: which configurations of which agents the traces ran under.

The version of an agent in a trace is what its first LLM call with each model was given (``harness_facts``). Traces need
not call every agent, so versions belong to agents. Versions of one agent that meet in some trace belong together (an
agent with two models): one *alternative*. Alternatives of one agent never share a trace: traces with different ones ran
under different harnesses, and a set with several of them mixes harnesses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from halo_mcp.index.harness_reading import UNKNOWN_START, Seen, Version, read_configuration, read_seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

_MERGED_SETS: Final = 200
"""Among more different sets of alternatives than this, none are merged: such prompts vary by trace."""
MOST_TOOL_SETS: Final = 500
ANY_VERSION: Final = "any"
"""The label of traces that call no agent of which there are several alternatives."""
SEVERAL_FIT: Final = "several fit"
"""The label of traces whose agents are compatible with more than one harness."""


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One configuration of one agent, and where it was seen."""

    version: Version
    """``version.id`` is ``agent@hash``: the same for equal configurations in any dataset."""
    alternative: str
    """The most used id among the versions of this agent that meet in a trace: its own where it is alone."""
    prompts: int
    """Distinct prompts before masking."""
    traces: int
    spans: int
    """LLM spans of this agent with this model in these traces."""
    passes: int
    fails: int
    run_ids: tuple[str, ...]
    """Sorted; traces without a run id leave none."""
    service_versions: tuple[str, ...]
    first_seen_unix_nano: int | None
    """Start of the earliest trace."""
    last_seen_unix_nano: int | None
    trace_id: str
    """The earliest trace."""

    @property
    def id(self) -> str:
        return self.version.id


@dataclass(frozen=True, slots=True)
class MixedVersions:
    """Agents that have several alternatives among some traces; empty when one harness made them all."""

    agents: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """(agent, ((id of an alternative, traces), ...)): most traces first."""
    traces_read: int
    traces: int
    """Of so many with LLM spans; more than ``traces_read`` when they were sampled."""

    def __bool__(self) -> bool:
        return bool(self.agents)

    @property
    def warning(self) -> str:
        """One line for an answer; "" when nothing is mixed."""
        listed = [f"{', '.join(f'{i} {n:,}' for i, n in some[:3])}{_more(some[3:])}" for _, some in self.agents]
        if not listed:
            return ""
        sampled = f"; a sample of {self.traces_read:,} of {self.traces:,} traces" if self.sampled else ""
        return f"mixes harness versions (traces{sampled}): {'; '.join(listed[:3])}{_more(listed[3:])}"

    @property
    def sampled(self) -> bool:
        return self.traces_read < self.traces


def _more(rest: Sequence[object]) -> str:
    return f" +{len(rest)} more" if rest else ""


@dataclass(frozen=True, slots=True)
class TraceVersions:
    """The harness of every trace that was read: a label per trace."""

    trace_key: NDArray[np.int64]
    """Ascending, each once."""
    labels: tuple[str, ...]
    """The different labels, in the order of ``label``'s numbers."""
    label: NDArray[np.int64]
    """Per trace, the number of its label."""


@dataclass(frozen=True, slots=True)
class HarnessVersions:
    """All agent versions among the chosen traces."""

    versions: tuple[AgentVersion, ...]
    """By agent (the one in most traces first), then most traces first."""
    mixed: MixedVersions
    labels: tuple[tuple[str, int], ...]
    """(label of a harness, traces), most first."""
    spans_read: int


def read_versions(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> HarnessVersions:
    """The agent versions among the traces for which ``selected`` holds. Exact, unless ``mixed.sampled``.

    Raises: SourceChanged, SourceUnreadable, Cancelled, DeadlineExceeded.
    """
    seen = read_seen(snapshot, selected, values, work)
    alternatives = _alternatives(seen)
    versions = _described(snapshot, seen, alternatives, work)
    labels = _labels(seen, alternatives)
    counts = Counter({labels.labels[no]: n for no, n in enumerate(_counts(labels.label, len(labels.labels)))})
    return HarnessVersions(
        versions=versions,
        mixed=_mixed(seen, alternatives),
        labels=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        spans_read=seen.spans_read,
    )


def mixed_versions(seen: Seen, keys: NDArray[np.int64] | None = None) -> MixedVersions:
    """Which agents have several alternatives among the traces (those with these keys): falsy when none has.

    What belongs together is told by all traces of ``seen``: a few need not hold two versions that meet in others.
    For comparisons: ask for each side, and show ``warning`` with the answer. Two sides that differ from each other, but
    neither in itself, are what a comparison is for; they are not mixed.
    """
    return _mixed(seen if keys is None else seen.among(keys), _alternatives(seen))


def trace_versions(seen: Seen) -> TraceVersions:
    """The harness label of every trace that was read.

    A label names the alternatives of those agents of which there are several, joined by " + ". Traces that call only
    some of these agents get the label of the one harness that they fit; ANY_VERSION when they call none of them,
    SEVERAL_FIT when they fit more than one.
    """
    return _labels(seen, _alternatives(seen))


def agent_versions(seen: Seen) -> dict[str, tuple[str, ...]]:
    """Agent -> ids of its alternatives among the traces, most traces first; agents in alphabetical order."""
    alternatives = _alternatives(seen)
    return {
        agent: tuple(seen.versions[no].id for no, _ in some) for agent, some in _by_agent(seen, alternatives).items()
    }


def offered_tools(snapshot: Snapshot, seen: Seen, work: Work) -> dict[str, tuple[str, ...]]:
    """Tool -> the agents that were given its definition, both in alphabetical order; empty where none is recorded.

    One span is read for each different set of definitions, for at most MOST_TOOL_SETS of them.
    Raises: SourceChanged, SourceUnreadable, Cancelled, DeadlineExceeded.
    """
    present = set(cast("list[int]", seen.version.tolist()))
    sets: dict[tuple[str, str], Version] = {}
    for no in sorted(present):
        version = seen.versions[no]
        if version.marks.tools:
            sets.setdefault((version.agent, version.marks.tools), version)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for version in list(sets.values())[:MOST_TOOL_SETS]:
        work.check()
        for tool in read_configuration(snapshot, version).tools:
            found[tool].add(version.agent)
    return {tool: tuple(sorted(found[tool])) for tool in sorted(found)}


# --- what belongs together --------------------------------------------------------------------------------------------
def _counts(numbers: NDArray[np.int64], length: int) -> list[int]:
    import numpy as np

    return np.bincount(numbers, minlength=length).tolist()


def _pairs(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct rows, sorted."""
    import numpy as np

    return np.unique(np.column_stack(columns), axis=0)


def _alternatives(seen: Seen) -> NDArray[np.int64]:
    """For each version the most used one of those it is connected with by common traces (within its agent)."""
    import numpy as np

    parent = list(range(len(seen.versions)))

    def find(version: int) -> int:
        while parent[version] != version:
            parent[version] = parent[parent[version]]
            version = parent[version]
        return version

    numbers = {name: no for no, name in enumerate(dict.fromkeys(v.agent for v in seen.versions))}
    agent = np.array([numbers[v.agent] for v in seen.versions], dtype=np.int64)
    order = np.lexsort((seen.version, agent[seen.version], seen.trace_key))
    key, version = seen.trace_key[order], seen.version[order]
    together = (key[1:] == key[:-1]) & (agent[version[1:]] == agent[version[:-1]])
    for left, right in _pairs(version[:-1][together], version[1:][together]).tolist():
        parent[find(left)] = find(right)
    counts = _counts(seen.version, len(seen.versions))
    best: dict[int, int] = {}
    for no in sorted(range(len(seen.versions)), key=lambda no: (-counts[no], seen.versions[no].id)):
        best.setdefault(find(no), no)
    return np.array([best[find(no)] for no in range(len(seen.versions))], dtype=np.int64)


def _varying(seen: Seen, alternatives: NDArray[np.int64]) -> dict[str, list[tuple[int, int]]]:
    """Of ``_by_agent`` the agents with several alternatives."""
    return {agent: some for agent, some in _by_agent(seen, alternatives).items() if len(some) > 1}


def _by_agent(seen: Seen, alternatives: NDArray[np.int64]) -> dict[str, list[tuple[int, int]]]:
    """The alternatives of each agent among the traces: (version that stands for it, traces), most traces first."""
    pairs = _pairs(seen.trace_key, alternatives[seen.version])
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for no, traces in enumerate(_counts(pairs[:, 1], len(seen.versions))):
        if traces:
            found[seen.versions[no].agent].append((no, traces))
    return {
        agent: sorted(some, key=lambda item: (-item[1], seen.versions[item[0]].id))
        for agent, some in sorted(found.items())
    }


def _mixed(seen: Seen, alternatives: NDArray[np.int64]) -> MixedVersions:
    listed = (
        (agent, tuple((seen.versions[no].id, traces) for no, traces in some))
        for agent, some in _varying(seen, alternatives).items()
    )
    return MixedVersions(tuple(listed), seen.traces_read, seen.traces)


def _labels(seen: Seen, alternatives: NDArray[np.int64]) -> TraceVersions:
    import numpy as np

    keys = np.unique(seen.trace_key)
    varying = {no for some in _varying(seen, alternatives).values() for no, _ in some}
    chosen = alternatives[seen.version]
    members: defaultdict[int, list[int]] = defaultdict(list)
    pairs = _pairs(seen.trace_key, chosen)
    for key, no in pairs[np.isin(pairs[:, 1], list(varying))].tolist():
        members[key].append(no)
    sets = [tuple(members.get(key, ())) for key in cast("list[int]", keys.tolist())]
    names = _merged(Counter(sets), seen)
    labels = tuple(sorted(set(names.values())))
    number = {label: no for no, label in enumerate(labels)}
    return TraceVersions(keys, labels, np.array([number[names[some]] for some in sets], dtype=np.int64))


def _merged(sets: Counter[tuple[int, ...]], seen: Seen) -> dict[tuple[int, ...], str]:
    """A label for each set of alternatives. Sets that share one and contradict each other nowhere are one harness."""

    def label(some: Mapping[str, int]) -> str:
        return " + ".join(sorted(seen.versions[no].id for no in some.values())) or ANY_VERSION

    agents = {some: {seen.versions[no].agent: no for no in some} for some in sets}
    if len(sets) > _MERGED_SETS:
        return {some: label(own) for some, own in agents.items()}
    harnesses: list[dict[str, int]] = []
    ordered = sorted(sets, key=lambda some: (-len(some), -sets[some], some))
    for some in ordered:
        fitting = list(_fitting(agents[some], harnesses))
        if not fitting and some:
            harnesses.append(dict(agents[some]))
        elif len(fitting) == 1:
            fitting[0].update(agents[some])
    result: dict[tuple[int, ...], str] = {}
    for some in ordered:
        fitting = list(_fitting(agents[some], harnesses))
        result[some] = label(fitting[0] if fitting else {}) if len(fitting) <= 1 else SEVERAL_FIT
    return result


def _fitting(own: Mapping[str, int], harnesses: Sequence[dict[str, int]]) -> Iterator[dict[str, int]]:
    for harness in harnesses:
        common = own.keys() & harness.keys()
        if common and all(own[agent] == harness[agent] for agent in common):
            yield harness


# --- describing -------------------------------------------------------------------------------------------------------
def _described(snapshot: Snapshot, seen: Seen, alternatives: NDArray[np.int64], work: Work) -> tuple[AgentVersion, ...]:
    import numpy as np

    facts = snapshot.arrays(
        "SELECT trace_key, coalesce(start_time_unix_nano, ?) AS start, outcome, coalesce(run_id, '') AS run_id "
        "FROM traces ORDER BY trace_key",
        [UNKNOWN_START],
        work,
    )
    at = np.searchsorted(facts["trace_key"], seen.trace_key)
    start, outcome, run = facts["start"][at], facts["outcome"][at], facts["run_id"][at]
    order = np.lexsort((seen.trace_key, start, seen.version))
    edges = np.searchsorted(seen.version[order], np.arange(len(seen.versions) + 1))
    found: list[AgentVersion] = []
    for no in range(len(seen.versions)):
        rows = order[edges[no] : edges[no + 1]]
        if not len(rows):
            continue
        known = start[rows][start[rows] < UNKNOWN_START]
        releases = {seen.releases[no] for no in set(cast("list[int]", seen.release[rows].tolist()))}
        found.append(
            AgentVersion(
                version=seen.versions[no],
                alternative=seen.versions[int(alternatives[no])].id,
                prompts=len(set(cast("list[int]", seen.exact[rows].tolist()))),
                traces=len(rows),
                spans=int(seen.spans[rows].sum()),
                passes=int(np.count_nonzero(outcome[rows] == "pass")),
                fails=int(np.count_nonzero(outcome[rows] == "fail")),
                run_ids=tuple(sorted(set(run[rows].tolist()) - {""})),
                service_versions=tuple(sorted(releases - {""})),
                first_seen_unix_nano=int(known[0]) if len(known) else None,
                last_seen_unix_nano=int(known[-1]) if len(known) else None,
                trace_id=snapshot.trace_id(int(seen.trace_key[rows[0]])),
            )
        )
    most: Counter[str] = Counter()
    for item in found:
        most[item.version.agent] += item.traces
    return tuple(
        sorted(
            found, key=lambda v: (-most[v.version.agent], v.version.agent, -v.traces, v.first_seen_unix_nano or 0, v.id)
        )
    )
