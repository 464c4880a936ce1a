"""Settings: command-line arguments first, then ``HALO_MCP_*`` environment variables, then defaults.

``Settings.origins`` says which of the three gave each value, so that ``halo-mcp doctor`` can show it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from halo_mcp.errors import BadArgument
from halo_mcp.index.failure_rules import DEFAULT_RULES, RULE_NAMES
from halo_mcp.index.outcomes import OutcomeKeys, OutcomeOptions
from halo_mcp.index.prices import PriceTable, read_prices

Origin = Literal["argument", "environment", "default"]

_KEY_CHARS: Final = 200
DEFAULT_DEADLINE_S: Final = 60.0
"""What one query may take. Indexing has no deadline: it reports progress and can be cancelled."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server was told. Field ``x_y`` has the option ``--x-y`` and the variable ``HALO_MCP_X_Y``."""

    index_dir: Path
    deadline_s: float = DEFAULT_DEADLINE_S
    roots: tuple[Path, ...] = ()
    """Directories under which a client may open further files; none by default."""
    prices: PriceTable | None = None
    """What tokens cost, read from the file named by ``--prices``; without it no answer speaks of money."""
    soft_rules: tuple[str, ...] = DEFAULT_RULES
    """The soft-error rules that count as failures."""
    labels: tuple[str, ...] = ()
    """``[NAME=]FILE``: verdicts that go before what spans say; without NAME for all datasets."""
    outcome_attribute: tuple[str, ...] = ()
    """Attributes that say the outcome, in this order, in place of the usual ones."""
    task_attribute: tuple[str, ...] = ()
    """Likewise the task."""
    pass_score: float | None = None
    """A score from here on passes; None: a full score on a scale from 0 to 1."""
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    def outcomes(self, labels: Sequence[str]) -> OutcomeOptions:
        """How the outcomes of a dataset with these files of labels are found."""
        keys = OutcomeKeys(self.outcome_attribute, self.task_attribute)
        return OutcomeOptions(keys, tuple(labels), self.pass_score)


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How the server runs questions. Field ``x`` has the variable ``HALO_MCP_ASK_X``."""

    wait_s: float = 45.0
    """After so long a call is answered with a job id, and the work goes on: many clients give up at 60 s."""
    max_jobs: int = 2
    """Questions at work at the same time."""
    total_tokens: int = 20_000_000
    """Input and output tokens that all questions to this server may use together."""
    total_usd: float | None = None
    """The same in US dollars; needs prices, see ``--prices``."""
    run_code: bool = False
    """Whether the server's own agent may run (sandboxed) Python."""


def load_ask_settings(environ: Mapping[str, str] | None = None) -> AskSettings:
    """Raises: BadArgument."""
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for item in fields(AskSettings):
        key = f"HALO_MCP_ASK_{item.name.upper()}"
        if text := environ.get(key, "").strip():
            given[item.name] = _flag(key, text) if item.name == "run_code" else _positive(key, text, item.name)
    return AskSettings(**given)


def _flag(key: str, text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false"):
        raise BadArgument(f"{key}={text!r} is neither 1 nor 0.")
    return text.lower() in ("1", "true")


def _positive(key: str, text: str, name: str) -> float:
    try:
        value = int(text) if name in ("max_jobs", "total_tokens") else float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise BadArgument(f"{key}={text!r} is not a number above 0.")
    return value


def load_settings(
    *,
    index_dir: Path | None = None,
    deadline_s: float | None = None,
    roots: Sequence[Path] = (),
    prices: Path | None = None,
    soft_rules: str | None = None,
    labels: Sequence[str] = (),
    outcome_attribute: Sequence[str] = (),
    task_attribute: Sequence[str] = (),
    pass_score: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from arguments (None and () mean "not given") and the environment. Raises: BadArgument."""
    environ = os.environ if environ is None else environ
    origins: dict[str, Origin] = {}

    def choose(name: str, given: str | None) -> str | None:
        if given is not None:
            origins[name] = "argument"
            return given
        value = environ.get(f"HALO_MCP_{name.upper()}", "").strip()
        origins[name] = "environment" if value else "default"
        return value or None

    directory = choose("index_dir", None if index_dir is None else str(index_dir))
    deadline = choose("deadline_s", None if deadline_s is None else str(deadline_s))
    listed = choose("roots", os.pathsep.join(map(str, roots)) or None)
    table = choose("prices", None if prices is None else str(prices))
    rules = choose("soft_rules", soft_rules)
    label_files = choose("labels", os.pathsep.join(labels) or None)
    threshold = choose("pass_score", None if pass_score is None else str(pass_score))

    def chosen(name: str, given: Sequence[str]) -> tuple[str, ...]:
        if given:
            origins[name] = "argument"
        else:
            given = (choose(name, None) or "").split(",")
        return tuple(_attribute(name, key) for key in given if key or origins[name] == "argument")

    return Settings(
        index_dir=Path(directory).expanduser().absolute() if directory else _default_index_dir(),
        deadline_s=_positive_seconds(deadline) if deadline else DEFAULT_DEADLINE_S,
        roots=tuple(Path(root).expanduser().resolve() for root in (listed or "").split(os.pathsep) if root),
        prices=read_prices(Path(table).expanduser()) if table else None,
        soft_rules=_rules(rules) if rules else DEFAULT_RULES,
        labels=tuple(name for name in (label_files or "").split(os.pathsep) if name),
        outcome_attribute=chosen("outcome_attribute", outcome_attribute),
        task_attribute=chosen("task_attribute", task_attribute),
        pass_score=_score(threshold) if threshold else None,
        origins=origins,
    )


def _rules(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    names = () if names == ("none",) else names
    for name in names:
        if name not in RULE_NAMES:
            raise BadArgument(
                f"soft_rules: there is no rule {name!r} (--soft-rules, HALO_MCP_SOFT_RULES). Give none, or some of: "
                f"{', '.join(RULE_NAMES)}."
            )
    return names


def _attribute(name: str, key: str) -> str:
    option = f"--{name.replace('_', '-')}, HALO_MCP_{name.upper()}"
    if not key.strip() or len(key) > _KEY_CHARS or not key.isprintable():
        raise BadArgument(f"{name}={key[:_KEY_CHARS]!r} is no attribute key ({option}). Give one such as task.outcome.")
    return key.strip()


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise BadArgument(f"pass_score={text!r} is not a number (--pass-score, HALO_MCP_PASS_SCORE).")
    return score


def _positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadArgument(
            f"deadline_s={text!r} is not a number of seconds above 0 (--deadline-s, HALO_MCP_DEADLINE_S)."
        )
    return seconds


def _default_index_dir() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("halo-mcp", appauthor=False) / "index"
