"""Which configurations the traces show: the first span of every agent and model in every trace, read and decoded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from halo_mcp.index.harness_facts import Configuration, Facts, Marks, configuration, facts_of, marks_of, may_tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from halo_mcp.index.places import Places
    from halo_mcp.index.reading import Sources
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

SPANS_LIMIT: Final = 120_000
BYTES_LIMIT: Final = 1_000_000_000
"""What one answer may read; beyond it a sample of the traces is read."""
QUICK_TRACES: Final = 10_000
QUICK_SPANS: Final = 10_000
QUICK_BYTES: Final = 100_000_000
"""What an answer about something else may read beside it: about a third of a second."""
SOME_TRACES: Final = 1_000
"""Enough to meet every configuration that is not rare."""
_SEED: Final = 7
_CHUNK: Final = 256
_CHUNKS_AHEAD: Final = 3
_FACTS_KEPT: Final = 1_000
_NO_AGENT: Final = "(no agent)"
_NO_MARKS: Final = Marks()
UNKNOWN_START: Final = 2**63 - 1
"""Stands for an unknown time: it comes last."""


@dataclass(frozen=True, slots=True)
class Version:
    """One configuration of one agent."""

    agent: str
    model: str
    mark: str
    marks: Marks
    trace_key: int
    """The trace in which it was seen first in the dataset (or its sample)."""
    places: Places
    """There: of the LLM span, and of the agent's span if one was read."""

    @property
    def id(self) -> str:
        # An agent's name may hold anything; an id is one line.
        return f"{' '.join(self.agent.split())}@{self.mark}"


def read_configuration(snapshot: Snapshot, version: Version) -> Configuration:
    """What a version is, as recorded in the trace where it was seen first. Raises: SourceChanged, SourceUnreadable."""

    sources, trace_id = snapshot.sources(), snapshot.trace_id(version.trace_key)
    facts: list[Facts] = []
    for no in range(len(version.places)):
        place = version.places.where(slice(no, no + 1))
        (text,) = sources.texts(place)
        facts.append(facts_of(sources.record(int(place.source_no[0]), text, trace_id)))
    return configuration(facts[0], facts[1] if len(facts) > 1 else Facts())


@dataclass(frozen=True, slots=True)
class Seen:
    """Which versions were seen in which traces: one row per trace, agent and model, ordered by trace."""

    trace_key: NDArray[np.int64]
    version: NDArray[np.int64]
    """Position in ``versions``."""
    spans: NDArray[np.int64]
    exact: NDArray[np.int64]
    """Hash of the prompt before masking."""
    release: NDArray[np.int64]
    """Position in ``releases``."""
    versions: tuple[Version, ...]
    releases: tuple[str, ...]
    """Service versions; "" for none."""
    traces: int
    """With LLM spans, read or not."""
    spans_read: int

    @property
    def traces_read(self) -> int:
        import numpy as np

        return len(np.unique(self.trace_key))

    def among(self, keys: NDArray[np.int64]) -> Seen:
        """What the traces with these keys show; all of them count as read."""
        import numpy as np

        chosen = np.isin(self.trace_key, keys)
        return replace(
            self,
            trace_key=self.trace_key[chosen],
            version=self.version[chosen],
            spans=self.spans[chosen],
            exact=self.exact[chosen],
            release=self.release[chosen],
            traces=len(np.unique(self.trace_key[chosen])),
        )


def read_quick(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> Seen | None:
    """What the chosen traces show, where reading it takes no time worth mentioning; None where it would."""
    if _count(snapshot, selected, values, work) > QUICK_TRACES:
        return None
    firsts = _firsts(snapshot, selected, values, work)
    return _read(snapshot, firsts, work) if firsts.within(QUICK_SPANS, QUICK_BYTES) else None


def read_some(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> Seen:
    """What about SOME_TRACES of the chosen traces show (all where there are fewer); the same ones every time."""
    every = math.ceil(_count(snapshot, selected, values, work) / SOME_TRACES)
    some = f"({selected}) AND hash(trace_id) % {every} = 0" if every > 1 else selected
    firsts = _firsts(snapshot, some, values, work)
    return _read(snapshot, firsts, work, QUICK_SPANS, QUICK_BYTES)


def _count(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> int:
    ((count,),) = snapshot.query(f"SELECT count(*) FROM traces WHERE {selected}", values, work)
    return count


def read_seen(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> Seen:
    """What the chosen traces show: out of the whole dataset when that can be read whole, so that it is read once."""
    whole = snapshot.remembered("harness firsts", lambda: _firsts(snapshot, "true", [], work), large=True)
    if whole.within(SPANS_LIMIT, BYTES_LIMIT):
        everything = snapshot.remembered("harness", lambda: _read(snapshot, whole, work), large=True)
        if selected == "true":
            return everything
        from halo_mcp.index.selection import keys_of

        return everything.among(keys_of(snapshot, (selected, values), work))
    question = f"harness {selected} {values}"
    return snapshot.remembered(
        question, lambda: _read(snapshot, _firsts(snapshot, selected, values, work), work), large=True
    )


@dataclass(frozen=True, slots=True)
class _Firsts:
    """The first span of each (trace, agent, model, is AGENT span): parallel arrays, ordered by these."""

    trace_key: NDArray[np.int64]
    agent: NDArray[np.int64]
    model: NDArray[np.int64]
    is_agent: NDArray[np.bool_]
    """An AGENT span: it only completes what the LLM spans say, and its model does not count."""
    spans: NDArray[np.int64]
    start: NDArray[np.int64]
    places: Places
    agents: tuple[str, ...]
    models: tuple[str, ...]

    def within(self, spans: int, size: int) -> bool:
        """Whether there are at most so many LLM spans, and so many bytes to read in all."""
        import numpy as np

        return bool(np.count_nonzero(~self.is_agent) <= spans and self.places.length.sum() <= size)

    def where(self, rows: NDArray[np.bool_]) -> _Firsts:
        return _Firsts(
            self.trace_key[rows],
            self.agent[rows],
            self.model[rows],
            self.is_agent[rows],
            self.spans[rows],
            self.start[rows],
            self.places.where(rows),
            self.agents,
            self.models,
        )


_SPANS: Final = f"""
SELECT trace_key, row, source_no, byte_offset, byte_length, observation_kind = 'AGENT' AS is_agent,
       hash(coalesce(agent_name, service_name, '')) AS agent,
       hash(CASE WHEN observation_kind = 'LLM' THEN coalesce(model_name, '') ELSE '' END) AS model,
       coalesce(start_time_unix_nano, {UNKNOWN_START}) AS start
FROM spans WHERE observation_kind IN ('LLM', 'AGENT') AND {{spans}}
"""
_NAMES: Final = """
SELECT DISTINCT hash(coalesce(agent_name, service_name, '')), coalesce(agent_name, service_name, ''),
       hash(coalesce(model_name, '')), coalesce(model_name, '')
FROM spans WHERE observation_kind IN ('LLM', 'AGENT') AND {spans}
"""


def _firsts(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> _Firsts:
    import numpy as np

    from halo_mcp.index.places import Places
    from halo_mcp.index.snapshot import among_spans

    rows = snapshot.arrays(_SPANS.format(spans=among_spans(selected)), values, work)
    names = snapshot.query(_NAMES.format(spans=among_spans(selected)), values, work)
    agents, agent = _numbered(rows["agent"], {row[0]: row[1] for row in names})
    models, model = _numbered(rows["model"], {row[2]: row[3] for row in names})
    is_agent = rows["is_agent"].astype(np.bool_)
    keys = rows["trace_key"].astype(np.int64)
    order = np.lexsort((rows["row"], rows["start"], is_agent, model, agent, keys))
    groups = [column[order] for column in (keys, agent, model, is_agent)]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any([column[1:] != column[:-1] for column in groups], axis=0)
    first = order[new]
    spans = np.diff(np.append(np.flatnonzero(new), len(order)))
    places = Places(
        rows["source_no"][first].astype(np.int32),
        rows["byte_offset"][first].astype(np.int64),
        rows["byte_length"][first].astype(np.int64),
    )
    start = rows["start"][first].astype(np.int64)
    found = _Firsts(keys[first], agent[first], model[first], is_agent[first], spans, start, places, agents, models)
    # An agent without LLM calls of its own has no version, so its span need not be read.
    pair = found.trace_key * len(agents) + found.agent if len(agents) else found.trace_key
    return found.where(~found.is_agent | np.isin(pair, pair[~found.is_agent]))


def _numbered(hashes: NDArray[np.uint64], names: Mapping[int, str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names in alphabetical order, and the number of each row's."""
    import numpy as np

    found, inverse = np.unique(hashes, return_inverse=True)
    texts = [names.get(value, "") for value in found.tolist()]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return tuple(texts[no] for no in order), rank[inverse.reshape(-1)] if len(order) else inverse.astype(np.int64)


def _read(
    snapshot: Snapshot, firsts: _Firsts, work: Work, spans_limit: int | None = None, bytes_limit: int | None = None
) -> Seen:
    """Of all traces within the limits (the general ones by default), else of a sample."""
    import numpy as np

    all_traces = len(np.unique(firsts.trace_key))
    limits = spans_limit or SPANS_LIMIT, bytes_limit or BYTES_LIMIT
    if not firsts.within(*limits):
        firsts = _sampled(firsts, *limits)
    marks, exact = _marks(snapshot, firsts, work)
    agent_row = {
        (int(firsts.trace_key[no]), int(firsts.agent[no])): no for no in np.flatnonzero(firsts.is_agent).tolist()
    }
    versions: dict[tuple[int, int, str], int] = {}
    known: dict[tuple[int, int, Marks, Marks], tuple[int, int]] = {}
    listed: list[Version] = []
    releases: dict[str, int] = {}
    calls = np.flatnonzero(~firsts.is_agent)
    table = np.zeros((len(firsts.trace_key), 2), np.int64)
    by_time = np.lexsort((calls, firsts.start[calls]))
    for no in cast("list[int]", calls[by_time].tolist()):
        key, agent, model = int(firsts.trace_key[no]), int(firsts.agent[no]), int(firsts.model[no])
        beside = agent_row.get((key, agent))
        call: Marks = marks[no]
        facts = (agent, model, call, _NO_MARKS if beside is None else marks[beside])
        if facts not in known:
            both = call.completed(facts[3])
            mark = both.version(firsts.models[model])
            number = versions.setdefault((agent, model, mark), len(listed))
            if number == len(listed):
                places = firsts.places.where(np.array([no] if beside is None else [no, beside]))
                name = firsts.agents[agent] or _NO_AGENT
                listed.append(Version(name, firsts.models[model], mark, both, key, places))
            known[facts] = (number, releases.setdefault(both.service_version, len(releases)))
        table[no] = known[facts]
        if beside is not None and not call.prompt:
            exact[no] = exact[beside]
    return Seen(
        trace_key=firsts.trace_key[calls],
        version=table[calls, 0],
        spans=firsts.spans[calls],
        exact=exact[calls],
        release=table[calls, 1],
        versions=tuple(listed),
        releases=tuple(releases),
        traces=all_traces,
        spans_read=len(firsts.trace_key),
    )


def _sampled(firsts: _Firsts, spans: int, size: int) -> _Firsts:
    """As many traces as the limits allow: one at random out of each of so many equal stretches of time."""
    import numpy as np

    share = min(spans / np.count_nonzero(~firsts.is_agent), size / max(1, int(firsts.places.length.sum())))
    keys, position = np.unique(firsts.trace_key, return_index=True)
    by_time = keys[np.lexsort((keys, firsts.start[position]))]
    edges = np.linspace(0, len(keys), max(1, int(share * len(keys))) + 1).astype(np.int64)
    chosen = np.random.default_rng(_SEED).integers(edges[:-1], edges[1:])
    return firsts.where(np.isin(firsts.trace_key, by_time[chosen]))


def _marks(snapshot: Snapshot, firsts: _Firsts, work: Work) -> tuple[list[Marks], NDArray[np.int64]]:
    """The marks of each span (equal ones are one object), and a hash of its prompt before masking."""
    import numpy as np

    sources = snapshot.sources()
    known: dict[Marks, Marks] = {}
    recent: dict[Facts, Marks] = {}
    order = np.lexsort((firsts.places.offset, firsts.places.source_no))
    places, keys, is_agent = firsts.places.where(order), firsts.trace_key[order], firsts.is_agent[order]
    result: list[Marks] = [_NO_MARKS] * len(order)
    exact = np.zeros(len(order), np.int64)
    for start, texts in _texts(sources, places, work):
        part = slice(start, start + len(texts))
        rows = zip(order[part].tolist(), places.source_no[part].tolist(), keys[part].tolist(), texts, strict=True)
        for (row, source_no, key, text), agent in zip(rows, is_agent[part].tolist(), strict=True):
            if agent and not may_tell(text):
                continue
            facts = facts_of(sources.record(source_no, text, snapshot.trace_id(key)))
            marks = recent.get(facts)
            if marks is None:
                marks = marks_of(facts)
                marks = known.setdefault(marks, marks)
                if len(recent) >= _FACTS_KEPT:  # some prompts never repeat
                    recent.clear()
                recent[facts] = marks
            result[row], exact[row] = marks, hash(facts.prompt)
        work.report(start, len(order), "reading prompts")
    return result, exact


def _texts(sources: Sources, places: Places, work: Work) -> Iterator[tuple[int, list[bytes]]]:
    """Position and bytes of one chunk of places after the other; the next ones are read while one is decoded."""

    def read(start: int) -> list[bytes]:
        return list(sources.texts(places.where(slice(start, start + _CHUNK))))

    starts = range(0, len(places), _CHUNK)
    with ThreadPoolExecutor(1, thread_name_prefix="halo-mcp-harness") as pool:
        ahead = deque(pool.submit(read, start) for start in starts[:_CHUNKS_AHEAD])
        try:
            for no, start in enumerate(starts):
                work.check()
                texts = ahead.popleft().result()
                if no + _CHUNKS_AHEAD < len(starts):
                    ahead.append(pool.submit(read, starts[no + _CHUNKS_AHEAD]))
                yield start, texts
        finally:
            for future in ahead:
                future.cancel()
