"""Damaged samples of every format: nothing crashes, what was left out is reported, and nothing is counted twice."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.reading import read

SAMPLES = sorted(Path(__file__).with_name("samples").glob("*.json*"))
GARBAGE = (b"\x00\xff", b"}{", b"nonsense\n", b'"', b"\n\n", b"[", b"{}\n")
OTHERS: list[Any] = [
    *(None, True, 7, -1, 1e300, 10**30, "", "x", "2026-13-45T99:99:99Z", "[1", "{}", [], {}, [None], [[]], {"a": {}})
]


def containers(value: Any) -> list[Any]:
    """The objects and lists in a JSON value, itself included."""
    found: list[Any] = []
    if isinstance(value, dict | list):
        found.append(value)
        inner: list[Any] = list(cast("Any", value).values() if isinstance(value, dict) else cast("Any", value))
        found += [one for item in inner for one in containers(item)]
    return found


def mutate(value: Any, random: Random, *, only_delete: bool) -> None:
    """Delete or retype a random member somewhere in a JSON value, or repeat another one in its place."""
    filled = [one for one in containers(value) if one]
    if not filled:
        return
    chosen: Any = random.choice(filled)
    keys: list[Any] = [*chosen] if isinstance(chosen, dict) else [*range(len(chosen))]
    key = random.choice(keys)
    action = "delete" if only_delete else random.choice(("delete", "repeat", "retype", "retype"))
    if action == "delete":
        del chosen[key]
    elif action == "retype":
        chosen[key] = deepcopy(random.choice(OTHERS))
    else:
        chosen[key] = deepcopy(cast("Any", chosen[random.choice(keys)]))


def mutated(sample: Path, random: Random, *, only_delete: bool = False) -> bytes:
    """The sample with a few members changed."""
    text = sample.read_bytes()
    try:
        values: list[Any] = [json.loads(text)]
    except json.JSONDecodeError:
        values = [json.loads(line) for line in text.splitlines()]
    for _ in range(random.randint(1, 4)):
        mutate(values, random, only_delete=only_delete)
    return b"\n".join(json.dumps(value).encode() for value in values)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
@settings(max_examples=40, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_changed_members_never_crash(sample: Path, random: Random) -> None:
    found = read(mutated(sample, random))
    assert found.report.lines_skipped <= found.report.lines_read
    assert found.spans or found.report.reasons or found.report.bookkeeping or not found.format


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
@settings(max_examples=20, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_missing_members_make_no_span_twice(sample: Path, random: Random) -> None:
    spans = read(mutated(sample, random, only_delete=True)).spans
    assert len({(span["trace_id"], span["span_id"]) for span in spans}) == len(spans)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
@settings(max_examples=30, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_damaged_bytes_never_crash_and_are_told(sample: Path, random: Random) -> None:
    whole = sample.read_bytes()
    at = random.randrange(len(whole))
    text = random.choice((whole[:at], whole[at:], whole[:at] + random.choice(GARBAGE) + whole[at:], whole + whole[:at]))
    found = read(text)
    assert found.spans or found.report.reasons or found.report.bookkeeping or not found.format
