"""What only a whole trace knows about its spans: parents, inherited agents, original errors. Pure numpy.

Rows are numbered 0..n-1; ``n`` stands for "no row", so that every chain ends there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]


def parent_rows(row_count: int, child: Rows, parent: Rows) -> Rows:
    """The parent row of each row, from (child, parent) pairs; ``row_count`` where there is none.

    Of several candidates (duplicate span ids) the first row wins. A span that is its own ancestor loses the link that
    closes the circle, so every chain ends.
    """
    import numpy as np

    parents = np.full(row_count, row_count, dtype=np.int64)
    order = np.argsort(-parent, kind="stable")
    parents[child[order]] = parent[order]
    parents[parents == np.arange(row_count)] = row_count
    return _without_circles(parents)


def nearest(parents: Rows, wanted: Flags) -> Rows:
    """For each row the nearest row at or above it that is wanted; ``len(parents)`` where there is none.

    Pointer jumping: each round doubles the distance looked up, so depth d costs log2(d) rounds.
    """
    import numpy as np

    n = len(parents)
    jump = np.append(np.where(wanted, np.arange(n), parents), n)
    for _ in range(max(1, n.bit_length() + 1)):
        further = jump[jump]
        if np.array_equal(further, jump):
            break
        jump = further
    return jump[:n]


def original_errors(parents: Rows, error: Flags) -> Flags:
    """Which error rows have no error row below them: failures themselves, not their propagation to ancestors."""
    import numpy as np

    n = len(parents)
    above = np.append(nearest(parents, error), n)[parents]  # nearest error strictly above each row
    propagated = np.zeros(n + 1, dtype=np.bool_)
    propagated[above[error]] = True
    return error & ~propagated[:n]


def wrappers(parents: Rows, call: Flags, other: Flags) -> Flags:
    """Which model calls (rows with ``call``) are around another one: one call recorded by two instrumentations.

    What ``other`` (an agent, a tool) stands between makes calls of its own, which repeat nothing.
    """
    import numpy as np

    n = len(parents)
    above = np.append(nearest(parents, call | other), n)[parents]
    around = np.zeros(n + 1, dtype=np.bool_)
    around[above[call]] = True
    return call & around[:n]


def loops(groups: Rows, calls: Rows, least: int) -> Flags:
    """Which calls are among ``least`` or more equal ones in a row; ``calls`` in time order within each group."""
    import numpy as np

    if not len(calls):
        return np.zeros(0, dtype=np.bool_)
    breaks = (groups[1:] != groups[:-1]) | (calls[1:] != calls[:-1])
    run = np.concatenate([[0], np.cumsum(breaks)])
    return np.bincount(run)[run] >= least


def _without_circles(parents: Rows) -> Rows:
    import numpy as np

    n = len(parents)
    nothing = np.zeros(n, dtype=np.bool_)
    stuck = np.flatnonzero(nearest(parents, nothing) != n)
    if not len(stuck):
        return parents
    parents = parents.copy()
    state = np.zeros(n + 1, dtype=np.int8)  # 0 unseen, 1 on the current walk, 2 known to end
    state[n] = 2
    for start in stuck:
        walk = [int(start)]
        while state[walk[-1]] == 0:
            state[walk[-1]] = 1
            walk.append(int(parents[walk[-1]]))
        if state[walk[-1]] == 1:
            circle = walk[walk.index(walk[-1]) : -1]
            parents[min(circle)] = n  # the first row of the circle becomes a root
        state[walk[:-1]] = 2
    return parents
