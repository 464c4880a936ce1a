"""What tokens cost, as a user's table says. No price is built in: prices change, and a wrong one reads as a fact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from halo_mcp.errors import BadArgument, shown, why_unusable

_MEMBERS: Final = ("input", "output", "cached_input")
_SHAPE: Final = '{"gpt-4.1": {"input": 2.0, "output": 8.0, "cached_input": 0.5}}, in USD per million tokens'


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """USD per million tokens."""

    input: float
    output: float
    cached_input: float
    """The price of input where the table has none of its own."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model name or by the beginning of one."""

    prices: Mapping[str, ModelPrice]

    def of(self, model: str) -> ModelPrice | None:
        """The price under the longest name that ``model`` starts with; None when there is none."""
        known = [name for name in self.prices if model.startswith(name)]
        return self.prices[max(known, key=len)] if known else None


def read_prices(path: Path) -> PriceTable:
    """The table in a JSON file: model name or prefix -> input, output, cached_input (optional). Raises: BadArgument."""
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, why_unusable(error)) from error
    if not isinstance(table, dict) or not table:
        raise _unusable(path, "it is not a JSON object with a member per model")
    return PriceTable({name: _price(path, name, value) for name, value in cast("dict[str, Any]", table).items()})


def _price(path: Path, name: str, value: Any) -> ModelPrice:
    members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    usable = all(
        key in _MEMBERS and isinstance(price, int | float) and not isinstance(price, bool) and 0 <= price < float("inf")
        for key, price in members.items()
    )
    if not usable or not {"input", "output"} <= members.keys():
        raise _unusable(path, f"the entry {name[:80]!r} needs input and output (and may have cached_input) as numbers")
    return ModelPrice(members["input"], members["output"], members.get("cached_input", members["input"]))


def _unusable(path: Path, reason: str) -> BadArgument:
    return BadArgument(
        f"The prices in {shown(str(path))} cannot be used: {reason}. Give JSON such as {_SHAPE} "
        "(--prices, HALO_MCP_PRICES)."
    )
