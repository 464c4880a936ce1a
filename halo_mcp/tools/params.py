"""What several tools take and give: the call, the answer, shared parameters, cursors."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from halo_mcp.engine.settings import LLMSettings
from halo_mcp.errors import BadArgument, InvalidCursor
from halo_mcp.index.filters import TraceFilters
from halo_mcp.index.prices import PriceTable
from halo_mcp.index.store import SpanStore
from halo_mcp.index.work import Work
from halo_mcp.sandbox.workers import Workers

ResponseFormat = Literal["text", "json"]
Filters = Annotated[TraceFilters, Field(description="conditions, all must hold; {} = all traces")]
ALL_TRACES: Final = TraceFilters()
TraceId = Annotated[str, Field(min_length=1, description="full id, as query_traces prints it")]
Cursor = Annotated[str, Field(description="from the previous page; same other arguments")]


@dataclass(frozen=True, slots=True)
class Call:
    """What a tool works on: the store of one dataset, and what the caller lets it spend."""

    dataset: str
    store: SpanStore
    work: Work
    default_dataset: str
    on: Callable[[str], Call]
    """The same caller's call on another dataset, which is brought up to date; its deadline starts after that.

    Raises: UnknownDataset, and what refreshing raises.
    """
    workers: Workers = field(default_factory=Workers)
    """Of the whole server."""
    prices: PriceTable | None = None
    """What tokens cost, where the user has said so."""
    llm: LLMSettings = field(default_factory=LLMSettings)
    """The model that may be asked; off unless the user chose one."""

    @property
    def named(self) -> str:
        """What a next call must give as ``dataset``: "" for the default one."""
        return "" if self.dataset == self.default_dataset else self.dataset


@dataclass(frozen=True, slots=True)
class Answer:
    """The same facts twice: as text for a model or a person, and as JSON with HALO's field names."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cursor: str = ""
    """Where the text goes on, of a tool whose resource is paged too; "" at its end."""


def checked_filters(given: Mapping[str, Any]) -> TraceFilters:
    """Filters that a model wrote. Raises: BadArgument."""
    try:
        return TraceFilters.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadArgument(f"filters.{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def encode_cursor(tool: str, dataset: str, arguments: Mapping[str, Any], state: Any) -> str:
    """A cursor that only the same tool, dataset and arguments accept back."""
    return base64.urlsafe_b64encode(orjson.dumps([_mark(tool, dataset, arguments), state])).decode().rstrip("=")


def decode_cursor(cursor: str, tool: str, dataset: str, arguments: Mapping[str, Any], shape: Any = object) -> Any:
    """The state in ``cursor``, of the type ``shape``; None for "". Raises: InvalidCursor."""
    if not cursor:
        return None
    try:
        mark, state = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidCursor(tool) from None
    if mark != _mark(tool, dataset, arguments):
        raise InvalidCursor(tool)
    try:
        # As JSON, in strict mode: an array may become a tuple, but text no number and an integer no float.
        return TypeAdapter(shape).validate_json(orjson.dumps(state), strict=True)
    except ValidationError:
        raise InvalidCursor(tool) from None


def _mark(tool: str, dataset: str, arguments: Mapping[str, Any]) -> str:
    text = orjson.dumps([tool, dataset, arguments], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:12]


def call_text(tool: str, **arguments: Any) -> str:
    """The literal next call, as a model would write it; empty arguments are left out."""
    shown = (
        f"{name}={orjson.dumps(value).decode()}" for name, value in arguments.items() if value not in ("", None, {}, [])
    )
    return f"{tool}({', '.join(shown)})"
