"""Counts where tokens go; what the figures mean is told in ``cost``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from halo_mcp.index.cost import CostGroup, CostReport, FailingUsage, ToolGrowth, TraceCost, Turn, Usage
from halo_mcp.index.prices import PriceTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from halo_mcp.index.snapshot import Snapshot
    from halo_mcp.index.work import Work

_FAILURE: Final = "failure_mode IS NOT NULL"
"""Where a failure begins, hard or soft."""
_LAST: Final = 2**63 - 1
_TURNS: Final = 100
"""Turns beyond are counted together under this one."""
_EXPENSIVE: Final = 20


@dataclass(frozen=True, slots=True)
class _Calls:
    """LLM spans as parallel arrays, ordered by trace, agent, start."""

    trace: NDArray[np.int64]
    """Position in the traces."""
    agent: NDArray[np.int64]
    model: NDArray[np.int64]
    start: NDArray[np.int64]
    row: NDArray[np.int64]
    input: NDArray[np.int64]
    """-1 for unknown; likewise the next two."""
    output: NDArray[np.int64]
    cached: NDArray[np.int64]
    turn: NDArray[np.int64]
    """From 1."""
    agents: tuple[str, ...]
    models: tuple[str, ...]


_LLM: Final = f"""
SELECT trace_key, row, hash(coalesce(agent_name, '')) AS agent, hash(coalesce(model_name, '')) AS model,
       coalesce(start_time_unix_nano, {_LAST}) AS start, coalesce(input_tokens, -1) AS input,
       coalesce(output_tokens, -1) AS output, coalesce(cached_input_tokens, -1) AS cached
FROM spans WHERE observation_kind = 'LLM' AND {{spans}}
"""
_TOOLS: Final = f"""
SELECT trace_key, row, hash(coalesce(agent_name, '')) AS agent, hash(coalesce(tool_name, '')) AS tool,
       coalesce(start_time_unix_nano, {_LAST}) AS start, coalesce(output_chars, 0) AS chars
FROM spans WHERE observation_kind = 'TOOL' AND {{spans}}
"""
_TRACES: Final = """
SELECT trace_key, hash(outcome) AS outcome, hash(coalesce(run_id, '')) AS run,
       (coalesce(input_tokens, 0) + coalesce(output_tokens, 0))::DOUBLE AS tokens
FROM traces WHERE {selected} ORDER BY trace_key
"""
_FAILURES: Final = f"""
SELECT trace_key, min(coalesce(end_time_unix_nano, start_time_unix_nano)) AS first,
       max(coalesce(end_time_unix_nano, start_time_unix_nano)) AS last
FROM spans WHERE {_FAILURE} AND coalesce(end_time_unix_nano, start_time_unix_nano) IS NOT NULL AND {{spans}}
GROUP BY trace_key
"""


def read_cost(
    snapshot: Snapshot, selected: str, values: list[Any], prices: PriceTable | None, work: Work
) -> CostReport:
    """Where the tokens of the traces for which ``selected`` holds go. Exact over all of them."""
    import numpy as np

    from halo_mcp.index.snapshot import among_spans

    def arrays(sql: str) -> dict[str, NDArray[Any]]:
        return snapshot.arrays(sql.replace("{spans}", among_spans(selected)), values, work)

    traces = snapshot.arrays(_TRACES.format(selected=selected), values, work)
    keys = traces["trace_key"].astype(np.int64)
    calls = _calls(snapshot, arrays(_LLM), keys, work)
    usd, unpriced, beside = _priced(calls, prices)
    known_in, known_out, cached = (np.maximum(column, 0) for column in (calls.input, calls.output, calls.cached))
    tokens = known_in + known_out
    sums = [column.astype(np.float64) for column in (known_in, known_out, cached)]

    def grouped(number: NDArray[np.int64], names: Sequence[str]) -> tuple[Usage, ...]:
        counts = [np.bincount(number, minlength=len(names))]
        counts += [np.bincount(number, weights=column, minlength=len(names)) for column in sums]
        money = None if usd is None else np.bincount(number, weights=usd, minlength=len(names))
        found = [
            Usage(
                name,
                calls=int(counts[0][no]),
                input_tokens=int(counts[1][no]),
                output_tokens=int(counts[2][no]),
                cached_input_tokens=int(counts[3][no]),
                usd=None if money is None else float(money[no]),
            )
            for no, name in enumerate(names)
            if counts[0][no]
        ]
        return tuple(sorted(found, key=lambda u: (-(u.usd or 0), -(u.input_tokens + u.output_tokens), u.name)))

    resent, growth, tool_growth = _context(snapshot, calls, arrays(_TOOLS), keys, work)
    capped = np.minimum(calls.turn, _TURNS)
    per_trace = np.bincount(calls.trace, weights=tokens, minlength=len(keys))
    agent_only = (per_trace == 0) & (traces["tokens"] > 0)
    (total,) = grouped(np.zeros(len(tokens), np.int64), ["all"]) or (Usage("all", 0, 0, 0, 0, None),)
    runs = _named(snapshot, "run_id", "traces", traces["run"], work)
    outcomes = _named(snapshot, "outcome", "traces", traces["outcome"], work)
    groups: dict[CostGroup, tuple[Usage, ...]] = {
        "model": grouped(calls.model, [name or "(no model)" for name in calls.models]),
        "agent": grouped(calls.agent, [name or "(no agent)" for name in calls.agents]),
        "turn": tuple(sorted(grouped(capped, [str(n) for n in range(_TURNS + 1)]), key=lambda usage: int(usage.name))),
    }
    groups["run"] = grouped(runs[1][calls.trace], [name or "(no run)" for name in runs[0]])
    groups["outcome"] = grouped(outcomes[1][calls.trace], outcomes[0])
    outcome = np.array(outcomes[0] or ("",))[outcomes[1]]
    return CostReport(
        traces=len(keys),
        calls=len(tokens),
        calls_without_input=int(np.count_nonzero(calls.input < 0)),
        agent_only_traces=int(np.count_nonzero(agent_only)),
        agent_only_tokens=int(traces["tokens"][agent_only].sum()),
        total=total,
        groups=groups,
        turns=_turns(calls.input, capped),
        tools=tool_growth,
        growth=growth,
        resent_tokens=resent,
        cached_told_input=int(known_in[calls.cached >= 0].sum()),
        beside_models=beside,
        unpriced_models=unpriced,
        failing=_failing(calls, tokens, outcome, keys, arrays(_FAILURES)),
        expensive=_expensive(snapshot, calls, keys, outcome, (known_in, known_out), usd),
    )


def _calls(snapshot: Snapshot, rows: dict[str, NDArray[Any]], keys: NDArray[np.int64], work: Work) -> _Calls:
    import numpy as np

    agents, agent = _named(snapshot, "agent_name", "spans", rows["agent"], work)
    models, model = _named(snapshot, "model_name", "spans", rows["model"], work)
    trace = np.searchsorted(keys, rows["trace_key"].astype(np.int64))
    order = np.lexsort((rows["row"], rows["start"], trace * len(agents) + agent))
    trace, agent, model = trace[order], agent[order], model[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (trace[1:] != trace[:-1]) | (agent[1:] != agent[:-1])
    position = np.arange(len(order))
    first = np.maximum.accumulate(np.where(new, position, 0)) if len(order) else position
    integers = {name: rows[name][order].astype(np.int64) for name in ("start", "row", "input", "output", "cached")}
    return _Calls(trace, agent, model, turn=position - first + 1, agents=agents, models=models, **integers)


def _named(
    snapshot: Snapshot, column: str, view: str, hashes: NDArray[np.uint64], work: Work
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names behind hashes of a column, and the number of each row's; arrays of text would be slower."""
    import numpy as np

    value = f"coalesce({column}, '')"
    if view == "spans" and snapshot.facets_known:
        view = "facets"  # far fewer rows, with the same names
    sql = f"SELECT hash(name) AS mark, name FROM (SELECT DISTINCT {value} AS name FROM {view}) ORDER BY 1"
    names = snapshot.query(sql, (), work)
    known = np.array([row[0] for row in names], dtype=np.uint64)
    return tuple(row[1] for row in names), np.searchsorted(known, hashes).astype(np.int64)


def _priced(
    calls: _Calls, prices: PriceTable | None
) -> tuple[NDArray[np.float64] | None, tuple[str, ...], tuple[str, ...]]:
    """USD per call (None without a table), models without a price, models that report cached tokens beside input."""
    import numpy as np

    excess = (calls.cached > calls.input) & (calls.input >= 0)
    is_beside = np.bincount(calls.model, weights=excess, minlength=len(calls.models)) > 0
    is_used = np.bincount(calls.model, minlength=len(calls.models)) > 0

    def named(chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(calls.models[no] or "(no model)" for no in np.flatnonzero(chosen & is_used).tolist())

    if prices is None:
        return None, (), named(is_beside)
    table = [prices.of(name) for name in calls.models]
    unpriced = np.array([price is None for price in table], dtype=np.bool_)

    def per_token(member: str) -> NDArray[np.float64]:
        return np.array([getattr(price, member) / 1e6 if price else 0.0 for price in table])[calls.model]

    known_in, known_out, cached = (np.maximum(column, 0) for column in (calls.input, calls.output, calls.cached))
    fresh = np.where(is_beside[calls.model], known_in, known_in - np.minimum(cached, known_in))
    usd = fresh * per_token("input") + cached * per_token("cached_input") + known_out * per_token("output")
    return usd, named(unpriced), named(is_beside)


def _turns(given: NDArray[np.int64], turn: NDArray[np.int64]) -> tuple[Turn, ...]:
    import numpy as np

    given, turn = given[given >= 0], turn[given >= 0]
    order = np.argsort(turn, kind="stable")
    numbers, starts = np.unique(turn[order], return_index=True)
    found: list[Turn] = []
    for number, tokens in zip(numbers.tolist(), np.split(given[order], starts[1:]), strict=bool(len(numbers))):
        median, p90 = np.percentile(tokens, (50, 90)).tolist()
        found.append(Turn(number, len(tokens), median, p90))
    return tuple(found)


def _context(
    snapshot: Snapshot, calls: _Calls, tools: dict[str, NDArray[Any]], keys: NDArray[np.int64], work: Work
) -> tuple[int, int, tuple[ToolGrowth, ...]]:
    """Tokens sent again, growth in all, and growth by tool."""
    import numpy as np

    before, now = calls.input[:-1] + np.maximum(calls.output[:-1], 0), calls.input[1:]
    comparable = (calls.turn[1:] > 1) & (calls.input[:-1] >= 0) & (now >= 0)
    resent = int(np.minimum(before, now)[comparable].sum())
    grown = np.zeros(len(calls.input), np.int64)
    grown[1:] = np.where(comparable, np.maximum(now - before, 0), 0)
    is_comparable = np.zeros(len(grown), np.bool_)
    is_comparable[1:] = comparable
    names, tool = _named(snapshot, "tool_name", "spans", tools["tool"], work)
    following = _following(snapshot, calls, tools, keys, work)
    counted = np.append(is_comparable, False)[following]
    # One character more each, so that tools without outputs share equally.
    chars = tools["chars"].astype(np.float64) + 1
    sharing = np.bincount(following[counted], weights=chars[counted], minlength=len(grown) + 1)
    part = np.append(grown, 0)[following] * chars / np.maximum(sharing[following], 1)
    total = np.bincount(tool, minlength=len(names))
    followed = np.bincount(tool, weights=counted, minlength=len(names))
    tokens = np.bincount(tool, weights=np.where(counted, part, 0.0), minlength=len(names))
    output = np.bincount(tool, weights=tools["chars"].astype(np.float64), minlength=len(names))
    found = [
        ToolGrowth(name or "(no name)", int(total[no]), int(followed[no]), round(float(tokens[no])), int(output[no]))
        for no, name in enumerate(names)
        if total[no]
    ]
    return resent, int(grown.sum()), tuple(sorted(found, key=lambda t: (-t.tokens, -t.calls, t.name)))


def _following(
    snapshot: Snapshot, calls: _Calls, tools: dict[str, NDArray[Any]], keys: NDArray[np.int64], work: Work
) -> NDArray[np.int64]:
    """For each tool call the next LLM call of the same agent in the same trace; ``len(calls)`` for none."""
    import numpy as np

    _, tool_agent = _named(snapshot, "agent_name", "spans", tools["agent"], work)
    count = len(calls.trace)
    trace = np.concatenate([calls.trace, np.searchsorted(keys, tools["trace_key"].astype(np.int64))])
    agent = np.concatenate([calls.agent, tool_agent])
    start = np.concatenate([calls.start, tools["start"].astype(np.int64)])
    row = np.concatenate([calls.row, tools["row"].astype(np.int64)])
    order = np.lexsort((row, start, trace * len(calls.agents) + agent))
    # How many LLM calls stand before a position is the number of the next one, because they are in the same order.
    coming = np.cumsum(order < count)
    result = np.full(len(order), count, np.int64)
    result[order] = coming
    candidate = result[count:]
    same = np.append(calls.trace, -1)[candidate] == trace[count:]
    same &= np.append(calls.agent, -1)[candidate] == agent[count:]
    return np.where(same, candidate, count)


def _failing(
    calls: _Calls,
    tokens: NDArray[np.int64],
    outcome: NDArray[Any],
    keys: NDArray[np.int64],
    failures: dict[str, NDArray[Any]],
) -> FailingUsage:
    import numpy as np

    first, last = (np.full(len(keys), _LAST, np.int64) for _ in range(2))
    at = np.searchsorted(keys, failures["trace_key"].astype(np.int64))
    first[at], last[at] = failures["first"].astype(np.int64), failures["last"].astype(np.int64)
    visible = np.zeros(len(keys), np.bool_)
    visible[at] = True
    by_outcome = bool(np.any(outcome != "unknown"))
    failing = outcome == "fail" if by_outcome else visible
    both = (failing & visible)[calls.trace]
    known = calls.start < _LAST

    def spent(chosen: NDArray[np.bool_]) -> int:
        return int(tokens[chosen].sum())

    return FailingUsage(
        by_outcome=by_outcome,
        traces=int(np.count_nonzero(failing)),
        tokens=spent(failing[calls.trace]),
        with_failure=int(np.count_nonzero(failing & visible)),
        with_failure_tokens=spent(both),
        after_first=spent(both & known & (calls.start >= first[calls.trace])),
        after_last=spent(both & known & (calls.start >= last[calls.trace])),
    )


def _expensive(
    snapshot: Snapshot,
    calls: _Calls,
    keys: NDArray[np.int64],
    outcome: NDArray[Any],
    used: tuple[NDArray[np.int64], NDArray[np.int64]],
    usd: NDArray[np.float64] | None,
) -> tuple[TraceCost, ...]:
    import numpy as np

    def per_trace(column: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(calls.trace, weights=column, minlength=len(keys)).astype(np.float64)

    given, made = (per_trace(column) for column in used)
    money = None if usd is None else per_trace(usd)
    count = np.bincount(calls.trace, minlength=len(keys))
    weight = given + made if money is None else money
    most = np.lexsort((keys, -(given + made), -weight))[:_EXPENSIVE]
    return tuple(
        TraceCost(
            trace_id=snapshot.trace_id(int(keys[no])),
            calls=int(count[no]),
            input_tokens=int(given[no]),
            output_tokens=int(made[no]),
            outcome=str(outcome[no]),
            usd=None if money is None else float(money[no]),
        )
        for no in cast("list[int]", most.tolist())
        if count[no]
    )
