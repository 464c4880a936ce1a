"""Ids, times, statuses and attribute values as all formats read them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given as with_examples
from hypothesis import strategies as st

from halo_mcp.index.formats.protocol import CHANGED_IDS, NO_ZONE, Report
from halo_mcp.index.formats.values import (
    any_value,
    duration_nanoseconds,
    key_values,
    nanoseconds,
    per_record,
    seconds_as_nanoseconds,
    span,
    span_kind,
)
from halo_mcp.index.times import time_text

NANOS = st.integers(10**18, 10**19 - 1)
"""Times of 19 digits: 2001 to 2286."""
VALUES = st.recursive(
    st.none() | st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def as_any_value(value: Any) -> dict[str, Any]:
    """A value as the OTLP encoders write it."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [as_any_value(item) for item in value]}}  # pyright: ignore[reportUnknownVariableType]
    return {"kvlistValue": {"values": [{"key": k, "value": as_any_value(v)} for k, v in value.items()]}}


@with_examples(st.dictionaries(st.text(), VALUES, max_size=4))
def test_attributes_come_back_as_they_went_in(attributes: dict[str, Any]) -> None:
    assert key_values([{"key": key, "value": as_any_value(value)} for key, value in attributes.items()]) == attributes
    assert key_values(attributes) == attributes


@with_examples(VALUES)
def test_any_value_never_raises(value: Any) -> None:
    any_value(value)
    any_value({"arrayValue": value})
    any_value({"intValue": value})


@with_examples(NANOS)
def test_a_time_survives_every_way_of_writing_it(nanos: int) -> None:
    text = time_text(nanos)
    assert (len(text), text[-1]) == (30, "Z")
    for written in (nanos, str(nanos), text, text.replace("T", " "), text.replace("Z", "+00:00")):
        assert nanoseconds(written) == nanos


@with_examples(NANOS, st.integers(-14 * 60, 14 * 60))
def test_a_zone_is_taken_off(nanos: int, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    second = datetime.fromtimestamp(nanos // 10**9, UTC)
    assert nanoseconds(second.astimezone(zone).isoformat()) == nanos // 10**9 * 10**9


@with_examples(st.integers(1_000_000_000, 9_999_999_999), st.sampled_from([0, 3, 6, 9]))
def test_the_number_of_digits_tells_the_unit(seconds: int, power: int) -> None:
    assert nanoseconds(seconds * 10**power) == nanoseconds(str(seconds * 10**power)) == seconds * 10**9


@with_examples(st.text() | st.floats() | st.integers() | st.none() | st.booleans())
def test_what_is_no_time_is_none_and_never_raises(value: Any) -> None:
    found = nanoseconds(value)
    assert found is None or isinstance(found, int)
    time_text(found)


def test_seconds_with_a_fraction_are_exact() -> None:
    assert nanoseconds(1772442000.123456) == 1_772_442_000_123_456_000
    assert nanoseconds("1772442000.123456789") == 1_772_442_000_123_456_789


def test_a_missing_zone_means_utc_and_is_told() -> None:
    report = Report()
    assert nanoseconds("2026-03-02T09:00:00.5", report) == nanoseconds("2026-03-02T09:00:00.500Z")
    assert report.repairs == {NO_ZONE: 1}


@pytest.mark.parametrize(
    "text, seconds",
    [("PT1H2M3.4S", 3723.4), ("PT0.000001S", 0.000001), ("P1DT1S", 86401), ("PT", None), ("1s", None), (3, None)],
)
def test_durations(text: Any, seconds: float | None) -> None:
    assert duration_nanoseconds(text) == (None if seconds is None else seconds_as_nanoseconds(seconds))


@with_examples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
def test_ids_equal_in_hex_and_base64_are_equal(trace: bytes, own: bytes) -> None:
    report = Report()
    spelled = [
        span(trace_id=trace.hex(), span_id=own.hex(), report=report),
        span(trace_id=trace.hex().upper(), span_id=own.hex().upper(), report=report),
        span(trace_id=base64.b64encode(trace).decode(), span_id=base64.b64encode(own).decode(), report=report),
    ]
    assert {(one["trace_id"], one["span_id"]) for one in spelled} == {(trace.hex(), own.hex())}
    assert spelled[2]["attributes"]["source.trace_id"] == base64.b64encode(trace).decode()
    assert "source.trace_id" not in spelled[0]["attributes"]
    assert report.repairs[CHANGED_IDS] >= 1


@pytest.mark.parametrize(
    "given, kind",
    [
        (3, "CLIENT"),
        ("3", "CLIENT"),
        ("SPAN_KIND_SERVER", "SERVER"),
        ("client", "CLIENT"),
        (0, "INTERNAL"),
        (9, "INTERNAL"),
        (None, "INTERNAL"),
        ([], "INTERNAL"),
    ],
)
def test_span_kinds(given: Any, kind: str) -> None:
    assert span_kind(given) == f"SPAN_KIND_{kind}"


def test_a_record_that_is_not_as_expected_is_told_and_the_next_is_read() -> None:
    report = Report()

    def spans_of(value: Any) -> list[dict[str, Any]]:
        if value == "odd":
            raise ValueError("an odd one")
        return [span(trace_id=value["t"], span_id="s")]

    found = list(per_record([{"t": "a"}, 7, "odd", {"t": "b"}, {"t": ""}], report, spans_of))
    assert [one["trace_id"] for one in found] == ["a", "b"]
    assert report.reasons == {"not shaped as expected (TypeError)": 1, "an odd one": 1, "no trace id": 1}
