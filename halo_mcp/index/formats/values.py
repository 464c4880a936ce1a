"""What formats share: ids, times, statuses, kinds, attribute values, and the canonical span made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, cast

import orjson

from halo_mcp.index import semconv
from halo_mcp.index.formats.protocol import CHANGED_IDS, MOVED_MESSAGES, NO_ZONE, NULL_END, Record, Report
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.json_text import json_text
from halo_mcp.index.message_events import moved_to_attributes
from halo_mcp.index.span import Json, as_list, as_mapping
from halo_mcp.index.times import time_text

ROOT: Final = ""
"""The parent id of a root."""
UNSET: Final = "STATUS_CODE_UNSET"
OK: Final = "STATUS_CODE_OK"
ERROR: Final = "STATUS_CODE_ERROR"

_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEX: Final = re.compile(r"[0-9A-Fa-f]{9,32}", re.ASCII)
_DIGITS: Final = re.compile(r"-?\d{1,30}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,30}))? ?([Zz]|UTC|[+-]\d\d:?\d\d)?", re.ASCII
)
_DURATION: Final = re.compile(
    r"P(?:(\d{1,9}(?:\.\d+)?)D)?(?:T(?:(\d{1,9}(?:\.\d+)?)H)?(?:(\d{1,9}(?:\.\d+)?)M)?(?:(\d{1,9}(?:\.\d{1,20})?)S)?)?",
    re.ASCII,
)
_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("OK", "STATUS_CODE_OK", "1"), OK),
    **dict.fromkeys(("ERROR", "STATUS_CODE_ERROR", "2"), ERROR),
}
_SOURCE_IDS: Final = (semconv.SOURCE_TRACE_ID, semconv.SOURCE_SPAN_ID, semconv.SOURCE_PARENT_SPAN_ID)
FAULTS: Final = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading an ill-shaped record raises."""


def per_record(
    values: Iterable[Json], report: Report, spans_of: Callable[[Json], Iterable[Record]]
) -> Iterator[Record]:
    """The spans that ``spans_of`` makes of each value. A value that it cannot take, because something in it is not
    shaped as expected, is reported and gives no span; a reason of its own is the text of a ``ValueError``."""
    for value in values:
        try:
            spans = list(spans_of(value))
        except FAULTS as error:
            report.skip(reason_of(error))
            continue
        yield from spans


def reason_of(fault: Exception) -> str:
    """Why a record was left out, for the report: the text of a ``ValueError``, which is a format's own reason."""
    return str(fault) if type(fault) is ValueError else f"not shaped as expected ({type(fault).__name__})"


def per_part(
    items: Iterable[Json], report: Report, what: str, span_of: Callable[[Any], Record | None]
) -> Iterator[Record]:
    """The spans of the parts of one record. A part that is not shaped as expected is reported with its number as
    ``what`` (a noun), and gives no span; neither does None."""
    for number, item in enumerate(items, 1):
        try:
            made = span_of(item)
        except FAULTS as error:
            reason = f"{what} not shaped as expected ({type(error).__name__})"
            report.skip(str(error) if type(error) is ValueError else reason, whole=False, place=f"{what} {number}")
            continue
        if made is not None:
            yield made


# --- times: nanoseconds since the epoch as integers, never through a float -------------------------------------------
def nanoseconds(value: Json, report: Report | None = None) -> int | None:
    """A time as nanoseconds since the epoch: RFC 3339 text (any precision, any zone), or a number or its digits whose
    size tells the unit (seconds, milliseconds, microseconds or nanoseconds). None when it is no time, or zero.

    A text without a zone is taken as UTC, which ``report`` is told.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return _scaled(Decimal(value))
    if isinstance(value, float):
        return _scaled(Decimal(repr(value))) if value - value == 0 else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _DIGITS.fullmatch(text) or _NUMBER.fullmatch(text):
        return _scaled(Decimal(text))
    return _rfc3339(text, report)


def _scaled(number: Decimal) -> int | None:
    size = abs(number)
    if not size or size >= Decimal(10) ** 20:
        return None
    factor = _SECOND if size < 10**11 else 1_000_000 if size < 10**14 else 1_000 if size < 10**17 else 1
    return int(number * factor)


def _rfc3339(text: str, report: Report | None) -> int | None:
    found = _RFC3339.fullmatch(text)
    if not found:
        return None
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
    except ValueError:
        return None
    seconds = round((moment - _EPOCH).total_seconds())
    if zone and zone[0] in "+-":
        seconds -= (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    elif not zone and report is not None:
        report.repaired(NO_ZONE)
    return seconds * _SECOND + int((fraction or "0")[:9].ljust(9, "0"))


def duration_nanoseconds(value: Json) -> int | None:
    """An ISO 8601 duration (``PT1H2M3.4S``) in nanoseconds; None when it is none."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found or not any(found.groups()):
        return None
    parts = zip(found.groups(), (86_400, 3_600, 60, 1), strict=True)
    return int(sum(Decimal(number) * unit * _SECOND for number, unit in parts if number))


def seconds_as_nanoseconds(value: Json) -> int | None:
    """A number of seconds (also as text) in nanoseconds, to be added to a start; None when it is no number."""
    try:
        number = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        return int(number * _SECOND) if number is not None and abs(number) < 10**12 else None
    except (InvalidOperation, ValueError):
        return None


def microseconds(value: Json) -> int | None:
    """A time in microseconds since the epoch as nanoseconds; None when it is none, or zero."""
    count = whole_number(value)
    return count * 1000 if count else None


def hex_padded(value: Json) -> Json:
    """An id in hex whose leading zeros were left out, with them; anything else as it is."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        return value
    return value.zfill(16 if len(value) <= 16 else 32)


# --- names of OpenTelemetry ------------------------------------------------------------------------------------------
def status_code(value: Json) -> str:
    """STATUS_CODE_OK, STATUS_CODE_ERROR or STATUS_CODE_UNSET, from a number, a name or an enum name."""
    return _status_code(str(value)) if isinstance(value, (str, int)) else UNSET


@lru_cache(64)
def _status_code(text: str) -> str:
    return _STATUSES.get(text.upper(), UNSET)


def span_kind(value: Json) -> str:
    """SPAN_KIND_..., from a number, a name or an enum name; SPAN_KIND_INTERNAL when it is none."""
    return _span_kind(str(value)) if isinstance(value, (str, int)) else "SPAN_KIND_INTERNAL"


@lru_cache(64)
def _span_kind(text: str) -> str:
    name = text.upper().removeprefix("SPAN_KIND_")
    name = _KINDS[int(name)] if len(name) == 1 and name in "012345" else name
    return f"SPAN_KIND_{name}" if name in _KINDS[1:] else "SPAN_KIND_INTERNAL"


def any_value(value: Json) -> Json:
    """What an OTLP AnyValue holds: ``{"intValue": "5"}`` is 5. Bytes stay base64; what is no AnyValue stays."""
    if not isinstance(value, dict):
        return value
    members: dict[str, Json] = value  # pyright: ignore[reportUnknownVariableType]  # JSON
    if len(members) != 1:
        return members or None
    ((kind, held),) = members.items()
    if kind == "intValue":
        whole = isinstance(held, str) and len(held) < 30 and _DIGITS.fullmatch(held)
        return int(held) if whole else held
    if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return held
    if kind == "arrayValue":
        return [any_value(item) for item in _held(held)]
    if kind == "kvlistValue":
        return key_values(_held(held))
    return members


def _held(value: Json) -> list[Json]:
    return as_list(as_mapping(value).get("values")) or as_list(value)


def key_values(items: Json) -> dict[str, Json]:
    """OTLP attributes, a list of ``{"key", "value"}``, as a plain object. An object is returned as it is.

    Raises: AttributeError, KeyError, TypeError, when they are neither.
    """
    if isinstance(items, dict):
        return cast("dict[str, Json]", items)
    try:  # nearly all are whole, and texts: the short way is for them
        return {
            item["key"]: value["stringValue"] if "stringValue" in (value := item["value"]) else any_value(value)
            for item in items or ()
        }
    except (KeyError, TypeError):
        return {item["key"]: any_value(item.get("value")) for item in items}


def attribute_value(value: Json) -> Json:
    """A value as an attribute holds it: a scalar as it is, anything else as its JSON text; None stays None."""
    return value if value is None or isinstance(value, str | int | float) else json_text(value)


def parsed(value: Json) -> Json:
    """What the text of a JSON object, array or text holds; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return orjson.loads(value)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            return value
    return value


def dotted(members: Mapping[str, Json], prefix: str = "", *, keep: Sequence[str] = ()) -> dict[str, Json]:
    """Nested objects, and lists of objects, as one object with dotted keys: ``{"a": {"b": [{"c": 1}]}}`` is
    ``a.b.0.c``. Lists of scalars and the values of the dotted keys in ``keep`` stay; empty objects are nothing.
    Raises: RecursionError."""
    found: dict[str, Json] = {}
    for key, value in members.items():
        inner = value
        if isinstance(value, list) and any(isinstance(item, dict) for item in as_list(value)):
            inner = {str(index): item for index, item in enumerate(as_list(value))}
        if isinstance(inner, dict) and f"{prefix}{key}" not in keep:
            found |= dotted(as_mapping(inner), f"{prefix}{key}.", keep=keep)
        else:
            found[f"{prefix}{key}"] = value
    return found


def observation_kind(attributes: Mapping[str, Json]) -> str:
    """The kind of observation by the first rule of ``semconv.KIND_RULES`` that knows the value of its key; ""."""
    for key, kinds in semconv.KIND_RULES:
        value = attributes.get(key)
        if isinstance(value, str) and (kind := kinds.get(value.lower())):
            return kind
    return ""


def whole_number(value: Json) -> int | None:
    """A count, also one written as text or with a zero fraction; None when it is none, or negative."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return int(number) if 0 <= number < 10**18 and number == int(number) else None


def given(attributes: Mapping[str, Json]) -> dict[str, Json]:
    """The attributes that say something: without None and ""."""
    return {key: value for key, value in attributes.items() if value is not None and value != ""}


# --- the canonical span ----------------------------------------------------------------------------------------------
def span(
    *,
    trace_id: Json,
    span_id: Json,
    parent_span_id: Json = ROOT,
    name: Json = "",
    kind: Json = "",
    start: int | None = None,
    end: int | None = None,
    status: str = UNSET,
    message: Json = "",
    attributes: Mapping[str, Json] | None = None,
    resource: Mapping[str, Json] | None = None,
    scope: Mapping[str, Json] | None = None,
    events: Sequence[Mapping[str, Json]] = (),
    links: Sequence[Json] = (),
    trace_state: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """A canonical span record. Times are nanoseconds since the epoch, the rest is as the source has it.

    Ids are normalised; where that changes one, the original is kept in ``source.trace_id`` and so on, and ``report`` is
    told. An unknown end of a span with a start is the start, which ``report`` is told too.
    Messages that only events tell go on as attributes, without the events.
    Raises: ValueError without a trace id or a span id.
    """
    own = dict(attributes) if attributes else {}
    trace, own_id, parent = ids = (normalize_id(trace_id), normalize_id(span_id), normalize_id(parent_span_id))
    if not trace or not own_id:
        raise ValueError("no span id" if trace else "no trace id")
    same = trace is trace_id and own_id is span_id and parent is parent_span_id
    changed = not same and _keep_originals(own, ids, (trace_id, span_id, parent_span_id))
    if end is None and start is not None:
        end = start
        if report is not None:
            report.repaired(NULL_END)
    if changed and report is not None:
        report.repaired(CHANGED_IDS)
    if events and (moved := moved_to_attributes(own, events)):
        own, events = moved
        if report is not None:
            report.repaired(MOVED_MESSAGES)
    if events:
        own[semconv.EVENTS_ATTRIBUTE] = list(events)
    if links:
        own[semconv.LINKS_ATTRIBUTE] = list(links)
    return {
        "trace_id": trace,
        "span_id": own_id,
        "parent_span_id": parent,
        "trace_state": trace_state,
        "name": name if isinstance(name, str) else "" if name is None else json_text(name),
        "kind": span_kind(kind),
        "start_time": time_text(start),
        "end_time": time_text(end),
        "status": {"code": status, "message": message if isinstance(message, str) else ""},
        "resource": {"attributes": resource or {}},
        "scope": scope or {},
        "attributes": own,
    }


def _keep_originals(attributes: dict[str, Json], ids: Sequence[str], given_ids: Sequence[Json]) -> bool:
    """Whether an id is spelt in another way than the source spells it; then the original is kept."""
    changed = False
    for key, used, original in zip(_SOURCE_IDS, ids, given_ids, strict=True):
        if used and used != original:
            attributes[key] = original
            changed = True
    return changed


def event(name: str, time: int | None = None, attributes: Mapping[str, Json] | None = None) -> dict[str, Json]:
    """An event of ``span``; ``time`` in nanoseconds since the epoch."""
    return {"name": name, "time": time_text(time), "attributes": attributes or {}}


def exception_event(kind: str, message: str, time: int | None = None, stacktrace: str = "") -> dict[str, Json]:
    """The event by which OpenTelemetry records an exception."""
    attributes = {
        semconv.EXCEPTION_TYPE[0]: kind,
        semconv.EXCEPTION_MESSAGE[0]: message,
        semconv.EXCEPTION_STACKTRACE: stacktrace,
    }
    return event(semconv.EXCEPTION_EVENT, time, given(attributes))
