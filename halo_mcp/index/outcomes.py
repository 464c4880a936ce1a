"""Where the outcome of a trace comes from: attributes of its spans, a score and its threshold, or a file of labels.

``OutcomeKeys`` is what the index derives from attributes; other keys make another index. Thresholds and labels are
applied on reading, in the view ``traces``, so that neither needs a new index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from halo_mcp.index import semconv
from halo_mcp.index.duck import quoted

FULL_SCORE: Final = 1 - 1e-6
"""What passes without a threshold of the user: the whole of a score between 0 and 1, up to rounding.

A part of the reward is no solved task; tau-bench counts successes alike."""
UNIT_SCORES_END: Final = 1 + 1e-6
"""Scores above this are on another scale than 0 to 1: then nobody but the user can say what passes."""
LABELS_TABLE: Final = "labels"


@dataclass(frozen=True, slots=True)
class OutcomeKeys:
    """The attributes that say outcome and task, in fallback order; () for those of ``semconv``."""

    outcome: tuple[str, ...] = ()
    task: tuple[str, ...] = ()

    @property
    def index_key(self) -> str:
        """What tells indexes of one dataset apart; "" for the usual keys."""
        return "" if self == OutcomeKeys() else repr((self.outcome, self.task))

    @property
    def chosen(self) -> tuple[str, ...]:
        return (*self.outcome, *self.task)

    def attributes(self) -> tuple[str, ...]:
        """All span attributes that an index with these keys reads."""
        # DuckDB tells members of a STRUCT apart by letters only, not by their case; the user's spelling counts.
        keys = {key.casefold(): key for key in (*semconv.indexed_attribute_keys(), *self.chosen)}
        return tuple(keys.values())

    @property
    def _verdicts(self) -> tuple[str, ...]:
        return () if self.outcome else (*semconv.OUTCOME, *semconv.ROOT_OUTCOME)

    @property
    def _scores(self) -> tuple[str, ...]:
        return self.outcome or (*semconv.SCORE, *semconv.ROOT_SCORE)

    @property
    def root_only(self) -> tuple[str, ...]:
        """Keys that count on roots only."""
        return () if self.outcome else (*semconv.ROOT_OUTCOME, *semconv.ROOT_SCORE)

    def said(self) -> str:
        """What ``own`` needs of a raw row with the attributes ``a``, for a SELECT list."""
        named = ("verdict", self._verdicts), ("score", self._scores)
        values = (f"{self._first(keys)} AS {name}_said, {self._which(keys)} AS {name}_key" for name, keys in named)
        return ", ".join(values)

    def own(self) -> dict[str, str]:
        """SQL of the columns that say outcomes, over a row with what ``said`` gives and ``observation_kind``."""
        verdict = _word("verdict_said", _WORDS_AND_DIGITS)
        word, number = _word("score_said", semconv.OUTCOME_VALUES), "try_cast(score_said AS DOUBLE)"
        number = f"CASE WHEN isfinite({number}) THEN {number} END"
        which = f"CASE WHEN {verdict} IS NOT NULL THEN verdict_key "
        which += f"WHEN {word} IS NOT NULL OR {number} IS NOT NULL THEN score_key END"
        # Only where some key has a value: most spans say nothing, and that shall cost nothing.
        said = "(verdict_said IS NOT NULL OR score_said IS NOT NULL)" + ("" if self.outcome else _NO_TOOL)
        return {
            "outcome": f"CASE WHEN {said} THEN coalesce({verdict}, {word}) END",
            "score": f"CASE WHEN {said} THEN {number} END",
            "outcome_key": f"CASE WHEN {said} THEN {which} END",
        }

    def task_key(self) -> str:
        """SQL of the task, over a raw row with the attributes ``a``."""
        return f"coalesce({', '.join(map(self._value, self.task or semconv.TASK_KEY))})"

    def _value(self, key: str) -> str:
        on_span = f"nullif(a.{identifier(key)}, '')"
        if key not in self.chosen:
            return on_span
        return f"coalesce({on_span}, nullif(resource.attributes.{identifier(key)}, ''))"

    def _first(self, keys: Sequence[str]) -> str:
        return f"coalesce({', '.join(map(self._value, keys))})" if keys else "NULL::VARCHAR"

    def _which(self, keys: Sequence[str]) -> str:
        """The first of the keys that has a value."""
        branches = " ".join(f"WHEN {self._value(key)} IS NOT NULL THEN {quoted(key)}" for key in keys)
        return f"CASE {branches} END" if keys else "NULL::VARCHAR"

    def of_trace(self, roots_first: str) -> dict[str, str]:
        """SQL of the columns of ``traces`` that depend on the keys; ``roots_first`` orders its spans."""
        keys = ", ".join(map(quoted, self.root_only))
        speaks = f"CASE WHEN NOT has_parent OR outcome_key NOT IN ({keys}) THEN {{}} END" if keys else "{}"

        def first(sql: str) -> str:
            return f"arg_min({speaks.format(sql)}, {roots_first})"

        # One span speaks for the trace: by a word, or by its score.
        said = f"coalesce(outcome, CASE WHEN score IS NOT NULL THEN {_SCORED} END)"
        return {
            "outcome": f"coalesce({first(said)}, 'unknown')",
            "score": first("score"),
            "outcome_source": first("outcome_key"),
        }


USUAL_KEYS: Final = OutcomeKeys()
_WORDS_AND_DIGITS: Final = {**semconv.OUTCOME_VALUES, **semconv.OUTCOME_DIGITS}
_NO_TOOL: Final = " AND observation_kind <> 'TOOL'"
_SCORED: Final = "'scored'"
"""Stands in a segment for an outcome that a threshold decides on reading."""


def identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _word(value: str, meanings: Mapping[str, str]) -> str:
    # No IN: DuckDB makes a join of a long one, over all the columns of the row.
    branches = " ".join(f"WHEN {quoted(word)} THEN {quoted(meant)}" for word, meant in meanings.items())
    return f"CASE lower(trim({value})) {branches} END"


@dataclass(frozen=True, slots=True)
class OutcomeView:
    """How the view ``traces`` makes outcomes out of what the segments hold."""

    pass_score: float | None = FULL_SCORE
    """A score from here on passes, a lower one fails; None: no score decides anything."""
    labelled: bool = False
    """There is a table ``labels`` (trace_key, outcome, score, source); what it says goes before all else."""

    def select(self, segment: int, trace_key: str, alive: str) -> str:
        """The traces of one attached segment."""
        decided = "NULL" if self.pass_score is None else f"if(score >= {self.pass_score!r}, 'pass', 'fail')"
        by_score = f"CASE WHEN outcome = {_SCORED} AND score IS NOT NULL THEN {decided} END"
        said = f"coalesce({by_score}, nullif(outcome, {_SCORED}), 'unknown')"
        traces = (
            f"SELECT * REPLACE ({said} AS outcome, CASE WHEN {said} <> 'unknown' THEN outcome_source END AS "
            f"outcome_source), {trace_key} AS trace_key FROM s{segment}.traces {alive}"
        )
        if not self.labelled:
            return traces
        return (
            "SELECT t.* REPLACE (coalesce(l.outcome, t.outcome) AS outcome, coalesce(l.score, t.score) AS score, "
            "CASE WHEN l.outcome IS NULL THEN t.outcome_source ELSE l.source END AS outcome_source) "
            f"FROM ({traces}) AS t LEFT JOIN {LABELS_TABLE} AS l USING (trace_key)"
        )


DEFAULT_VIEW: Final = OutcomeView()


@dataclass(frozen=True, slots=True)
class OutcomeOptions:
    """What the user says about outcomes."""

    keys: OutcomeKeys = USUAL_KEYS
    labels: tuple[str, ...] = ()
    """Files."""
    pass_score: float | None = None
    """A score from here on passes; None: a full score between 0 and 1 does."""


USUAL: Final = OutcomeOptions()
