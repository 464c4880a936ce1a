"""Ids and times mean the same in SQL, which reads whole files, and in Python, which reads filters and payloads."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halo_mcp.errors import InvalidTime
from halo_mcp.index import columns
from halo_mcp.index.filters import parse_time
from halo_mcp.index.ids import normalize_id

Sql = Callable[[str], object]

BASE = 1_772_442_000 * 10**9
"""2026-03-02T09:00:00Z in nanoseconds."""

TIMES: list[tuple[str, int | None]] = [
    ("2026-03-02T09:00:00Z", BASE),
    ("2026-03-02T09:00:00.1Z", BASE + 100_000_000),
    ("2026-03-02T09:00:00.12Z", BASE + 120_000_000),
    ("2026-03-02T09:00:00.123Z", BASE + 123_000_000),
    ("2026-03-02T09:00:00.123456Z", BASE + 123_456_000),
    ("2026-03-02T09:00:00.1234567Z", BASE + 123_456_700),
    ("2026-03-02T09:00:00.123456789Z", BASE + 123_456_789),
    ("2026-03-02T09:00:00.1234567891234Z", BASE + 123_456_789),
    ("2026-03-02T09:00:00.000000001Z", BASE + 1),
    ("2026-03-02T09:00:00", BASE),
    ("2026-03-02T09:00:00.5", BASE + 500_000_000),
    ("2026-03-02 09:00:00", BASE),
    ("2026-03-02 09:00:00.123456", BASE + 123_456_000),
    ("2026-03-02T09:00:00+00:00", BASE),
    ("2026-03-02T10:00:00+01:00", BASE),
    ("2026-03-02T14:30:00.25+05:30", BASE + 250_000_000),
    ("2026-03-02T05:30:00.123456789-03:30", BASE + 123_456_789),
    ("2026-03-02T10:00:00+0100", BASE),
    ("2026-03-02T00:00:00", BASE - 9 * 3600 * 10**9),
    ("2026-03-02", BASE - 9 * 3600 * 10**9),
    ("1772442000", BASE),
    ("1772442000123", BASE + 123_000_000),
    ("1772442000123456", BASE + 123_456_000),
    ("1772442000123456789", BASE + 123_456_789),
    ("1969-12-31T23:59:59.5Z", -500_000_000),
    ("1969-12-31T23:59:59.000000001Z", -999_999_999),
    ("2026-03-02T09:00:00z", BASE),
]
NO_TIMES = [
    "soon",
    "2026-13-02T09:00:00Z",
    "2026-02-30T09:00:00Z",
    "2026-03-02T25:00:00Z",
    "17724",
    "177244200012",
    "17724420001234567890",
    "-1772442000",
    "null",
    "Z",
    "2026",
    "09:00:00",
    "1772442000.5.5",
    "é",
    "9999999999999999999",
]


@pytest.fixture(scope="module")
def sql_time() -> Sql:
    return _evaluator(columns.unix_nano("v"))


@pytest.fixture(scope="module")
def sql_id() -> Sql:
    identifier = next(column.sql for column in columns.OWN_COLUMNS if column.name == "span_id")
    return _evaluator(identifier.replace("span_id", "v"))


def _evaluator(expression: str) -> Sql:
    connection = duckdb.connect(":memory:")

    def evaluate(value: str) -> object:
        row = connection.execute(f"SELECT {expression} FROM (SELECT ?::VARCHAR AS v)", [value]).fetchone()
        assert row is not None
        return row[0]

    return evaluate


@pytest.mark.parametrize("text, nanoseconds", TIMES)
def test_a_time_is_read_to_the_nanosecond(sql_time: Sql, text: str, nanoseconds: int) -> None:
    assert sql_time(text) == nanoseconds
    assert parse_time("start_time_gte", text) == nanoseconds


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_unknown_in_an_index_and_refused_in_a_filter(sql_time: Sql, text: str) -> None:
    assert sql_time(text) is None
    with pytest.raises(InvalidTime):
        parse_time("start_time_gte", text)


def test_epoch_seconds_with_a_fraction_never_go_through_a_float(sql_time: Sql) -> None:
    assert sql_time("1772442000.123456789") == BASE + 123_456_789
    assert sql_time("1772442000.1") == BASE + 100_000_000
    assert parse_time("start_time_gte", "1772442000.123456789") == BASE + 123_456_789
    assert parse_time("start_time_gte", "1772442000.1") == BASE + 100_000_000


def test_an_empty_time_is_unknown(sql_time: Sql) -> None:
    assert sql_time("") is None


def datetimes(first_year: int) -> st.SearchStrategy[datetime]:
    days = st.dates(date(first_year, 1, 1), date(2200, 1, 1))
    return st.builds(datetime.combine, days, st.times(), st.just(UTC))


@st.composite
def written_times(draw: st.DrawFn) -> tuple[str, int]:
    """A time as some exporter writes it, and its nanoseconds, computed with decimals only."""
    moment = draw(datetimes(1971)).replace(microsecond=0)
    digits = draw(st.text("0123456789", max_size=12))
    offset = draw(st.none() | st.integers(-14 * 60, 14 * 60))
    fraction = f".{digits}" if digits else ""
    separator = draw(st.sampled_from("T "))
    days = (moment.date() - date(1970, 1, 1)).days
    seconds = Decimal(days * 86_400 + moment.hour * 3600 + moment.minute * 60 + moment.second)
    seconds += Decimal(f"0.{digits[:9] or 0}")
    if offset is None:
        zone = draw(st.sampled_from(("", "Z")))
    else:
        seconds -= offset * 60
        sign, minutes = "-" if offset < 0 else "+", abs(offset)
        zone = f"{sign}{minutes // 60:02}{draw(st.sampled_from((':', '')))}{minutes % 60:02}"
    return f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}{zone}", int(seconds * 10**9)


@given(written=written_times())
def test_any_time_in_any_zone_and_precision_is_the_same_in_sql_and_in_python(
    sql_time: Sql, written: tuple[str, int]
) -> None:
    text, nanoseconds = written
    assert sql_time(text) == nanoseconds
    assert parse_time("start_time_gte", text) == nanoseconds


@given(moment=datetimes(2002), unit=st.sampled_from((10, 13, 16, 19)))
def test_the_number_of_digits_tells_the_unit(sql_time: Sql, moment: datetime, unit: int) -> None:
    whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    scale = 10 ** (19 - unit)
    text = str(whole // scale)
    assert len(text) == unit
    assert sql_time(text) == parse_time("end_time_lte", text) == whole // scale * scale


@given(text=st.text(max_size=30) | st.text("0123456789-+:.TZ ", max_size=30))
@example("1e18")
@example("2026-03-02T09:00:00+99:99")
@example("2026-03-02T09:00:00.Z")
@example(" 2026-03-02T09:00:00Z ")
@example("٢٠٢٦-03-02T09:00:00Z")
@example("9223372036854775808")
def test_no_text_breaks_either_reader(sql_time: Sql, text: str) -> None:
    sql_time(text)
    try:
        parse_time("start_time_gte", text)
    except InvalidTime:
        pass  # a refusal is an answer


IDS = [
    ("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ("4BF92F3577B34DA6A3CE929D0E0E4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ("00F067AA0BA902B7", "00f067aa0ba902b7"),
    ("00F067AA0BA902B700F067AA", "00f067aa0ba902b700f067aa"),
    ("ABEiM0RVZneImaq7zN3u/w==", "00112233445566778899aabbccddeeff"),
    ("AAECAwQFBgc=", "0001020304050607"),
    ("00f067aa0ba=", "d347f4ebb69ad1b6"),
    ("ABCDEF", "ABCDEF"),
    ("Span-1", "Span-1"),
    ("<redacted>", "<redacted>"),
    ("123E4567-E89B-12D3-A456-426614174000", "123E4567-E89B-12D3-A456-426614174000"),
    ("ABEiM0RVZneImaq7zN3u/w", "ABEiM0RVZneImaq7zN3u/w"),
    ("ABEiM0RVZneImaq7zN3u!w==", "ABEiM0RVZneImaq7zN3u!w=="),
    ("", ""),
    (" AAECAwQFBgc=", " AAECAwQFBgc="),
    ("AAECAwQFBgc=\n", "AAECAwQFBgc=\n"),
    ("4BF92F3577B34DA6A3CE929D0E0E4736\n", "4BF92F3577B34DA6A3CE929D0E0E4736\n"),
    ("ÄBCDEF0123456789", "ÄBCDEF0123456789"),
]


@pytest.mark.parametrize("given_id, normal", IDS)
def test_an_id_is_normalised_only_where_it_is_certain_what_it_is(sql_id: Sql, given_id: str, normal: str) -> None:
    assert normalize_id(given_id) == normal
    assert sql_id(given_id) == normal


@given(
    value=st.text(max_size=40)
    | st.binary(min_size=6, max_size=18).map(lambda raw: base64.b64encode(raw).decode())
    | st.binary(min_size=6, max_size=18).map(lambda raw: raw.hex().upper())
    | st.text("0123456789abcdefABCDEF", min_size=14, max_size=34)
    | st.from_regex(r"[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{11}=", fullmatch=True)
)
def test_any_id_is_normalised_the_same_in_sql_and_in_python_and_only_once(sql_id: Sql, value: str) -> None:
    normal = normalize_id(value)
    assert sql_id(value) == normal
    assert sql_id(normal) == normalize_id(normal) == normal


@pytest.mark.parametrize(
    "value, text",
    [(None, ""), (12345, "12345"), (True, "true"), (1.5, "1.5"), ([1, "a"], '[1,"a"]'), ({"a": 1}, '{"a":1}')],
)
def test_an_id_that_is_no_string_counts_as_its_json_text(value: object, text: str) -> None:
    assert normalize_id(value) == text


def test_a_zone_may_have_minutes(sql_time: Sql) -> None:
    nepal = datetime(2026, 3, 2, 14, 45, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert sql_time(nepal.isoformat()) == parse_time("start_time_gte", nepal.isoformat()) == BASE
