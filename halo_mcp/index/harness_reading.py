"""Which configurations the traces show: the first span of every agent and model in every trace, read and decoded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from halo_mcp.index.harness_facts import Configuration, Facts, configuration, facts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from halo_mcp.index.places import Places
    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

SPANS_LIMIT: Final = 120_000
BYTES_LIMIT: Final = 1_000_000_000
"""What one answer may read; beyond it a sample of the traces is read."""
_SEED: Final = 7
_CHUNK: Final = 256
_NO_AGENT: Final = "(no agent)"
UNKNOWN_START: Final = 2**63 - 1
"""Stands for an unknown time: it comes last."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Which versions were seen in which traces: one row per trace, agent and model, ordered by trace."""

    trace_key: NDArray[np.int64]
    version: NDArray[np.int64]
    """Position in ``ids``."""
    spans: NDArray[np.int64]
    config: NDArray[np.int64]
    """Position in ``configs``."""
    ids: tuple[str, ...]
    agents: tuple[str, ...]
    """Of each version."""
    configs: tuple[Configuration, ...]
    traces: int
    """With LLM spans, read or not."""
    spans_read: int

    @property
    def traces_read(self) -> int:
        import numpy as np

        return len(np.unique(self.trace_key))


def read_seen(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> Seen:
    """What the chosen traces show: out of the whole dataset when that can be read whole, so that it is read once."""
    import numpy as np

    whole = snapshot.remembered("harness firsts", lambda: _firsts(snapshot, "true", [], work))
    if whole.within_limits:
        everything = snapshot.remembered("harness", lambda: _read(snapshot, whole, work))
        if selected == "true":
            return everything
        keys = snapshot.arrays(f"SELECT trace_key FROM traces WHERE {selected}", values, work)["trace_key"]
        chosen = np.isin(everything.trace_key, keys)
        return Seen(
            everything.trace_key[chosen],
            everything.version[chosen],
            everything.spans[chosen],
            everything.config[chosen],
            everything.ids,
            everything.agents,
            everything.configs,
            traces=len(np.unique(everything.trace_key[chosen])),
            spans_read=everything.spans_read,
        )
    question = f"harness {selected} {values}"
    return snapshot.remembered(question, lambda: _read(snapshot, _firsts(snapshot, selected, values, work), work))


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

    @property
    def within_limits(self) -> bool:
        return len(self.trace_key) <= SPANS_LIMIT and int(self.places.length.sum()) <= BYTES_LIMIT

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
FROM spans WHERE observation_kind IN ('LLM', 'AGENT')
"""


def _firsts(snapshot: Snapshot, selected: str, values: list[Any], work: Work) -> _Firsts:
    import numpy as np

    from halo_mcp.index.places import Places
    from halo_mcp.index.snapshot import among_spans

    rows = snapshot.arrays(_SPANS.format(spans=among_spans(selected)), values, work)
    names = snapshot.query(_NAMES, (), work)
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


def _read(snapshot: Snapshot, firsts: _Firsts, work: Work) -> Seen:
    import numpy as np

    all_traces = len(np.unique(firsts.trace_key))
    if not firsts.within_limits:
        firsts = _sampled(firsts)
    known = _facts(snapshot, firsts, work)
    of_agent = {
        pair: fact
        for pair, fact, is_agent in zip(
            zip(firsts.trace_key.tolist(), firsts.agent.tolist(), strict=True),
            known,
            firsts.is_agent.tolist(),
            strict=True,
        )
        if is_agent
    }
    calls = ~firsts.is_agent
    versions: dict[tuple[int, str], int] = {}
    configs: dict[tuple[int, int, Facts, Facts], tuple[int, int]] = {}
    texts: list[Configuration] = []
    rows: list[tuple[int, int]] = []
    nothing = Facts()
    for no in np.flatnonzero(calls).tolist():
        key, agent, model = int(firsts.trace_key[no]), int(firsts.agent[no]), int(firsts.model[no])
        facts = (agent, model, known[no], of_agent.get((key, agent), nothing))
        if facts not in configs:
            config = configuration(firsts.models[model], facts[2], facts[3])
            version = versions.setdefault((agent, config.version), len(versions))
            configs[facts] = (version, len(texts))
            texts.append(config)
        rows.append(configs[facts])
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    names = [firsts.agents[agent] or _NO_AGENT for agent, _ in versions]
    return Seen(
        trace_key=firsts.trace_key[calls],
        version=table[:, 0],
        spans=firsts.spans[calls],
        config=table[:, 1],
        ids=tuple(f"{name}@{mark}" for name, (_, mark) in zip(names, versions, strict=True)),
        agents=tuple(names),
        configs=tuple(texts),
        traces=all_traces,
        spans_read=len(firsts.trace_key),
    )


def _sampled(firsts: _Firsts) -> _Firsts:
    """As many traces as the limits allow: one at random out of each of so many equal stretches of time."""
    import numpy as np

    share = min(SPANS_LIMIT / len(firsts.trace_key), BYTES_LIMIT / max(1, int(firsts.places.length.sum())))
    keys, position = np.unique(firsts.trace_key, return_index=True)
    by_time = keys[np.lexsort((keys, firsts.start[position]))]
    edges = np.linspace(0, len(keys), max(1, int(share * len(keys))) + 1).astype(np.int64)
    chosen = np.random.default_rng(_SEED).integers(edges[:-1], edges[1:])
    return firsts.where(np.isin(firsts.trace_key, by_time[chosen]))


def _facts(snapshot: Snapshot, firsts: _Firsts, work: Work) -> list[Facts]:
    """The facts of each span; equal ones are one object."""
    import numpy as np

    from halo_mcp.index.reading import Sources

    sources = Sources(snapshot.manifest.sources)
    known: dict[Facts, Facts] = {}
    order = np.lexsort((firsts.places.offset, firsts.places.source_no))
    places, keys = firsts.places.where(order), firsts.trace_key[order]
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(order), _CHUNK)]

    def read(chunk: slice) -> list[Facts]:
        work.check()
        part = places.where(chunk)
        stands = zip(part.source_no.tolist(), keys[chunk].tolist(), sources.texts(part), strict=True)
        found = (facts_of(sources.record(no, text, snapshot.trace_id(key))) for no, key, text in stands)
        return [known.setdefault(fact, fact) for fact in found]

    result: list[Facts] = [Facts()] * len(order)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="halo-mcp-harness") as pool:
        pending = [pool.submit(read, chunk) for chunk in chunks]
        try:
            for done, (chunk, future) in enumerate(zip(chunks, pending, strict=True)):
                for no, fact in zip(order[chunk].tolist(), future.result(), strict=True):
                    result[no] = fact
                work.report(done, len(chunks), "reading prompts")
        finally:
            for future in pending:
                future.cancel()
    return result
