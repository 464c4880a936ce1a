"""Tiers of a quote, over texts alone."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from halo_mcp.index.quotes import MIN_CHARS, Quote, Texts, Tier, alphanumerics, normalised

SAID = (
    'Error: the "limit" must be <= 100, got 150.\n\tRetry with limit=100 – naïve clients don’t; see https://x.y/a_b?c=1'
)


def tier(quote: str, *texts: str) -> Tier | None:
    found = Texts([(f"t{number}", text) for number, text in enumerate(texts)]).find(Quote(quote))
    return found.tier if found else None


@pytest.mark.parametrize(
    "quote",
    [
        'the "limit" must be <= 100, got 150.\n\tRetry',
        "naïve clients don’t",
    ],
)
def test_a_substring_is_exact(quote: str) -> None:
    assert tier(quote, SAID) == "exact"


@pytest.mark.parametrize(
    "quote",
    [
        "got 150. Retry   with limit=100",
        "ERROR: THE “LIMIT” MUST BE <= 100",
        "limit=100 - naïve clients don't",
        "limit=100 — nai\u0308ve",
        r"the \"limit\" must be <= 100, got 150.\n\tRetry with",
        r"na\u00efve clients",
        'the "limit" must be … see https://x.y',
        'the "limit" must be [...] see https://x.y/a_b',
        "…must be <= 100, got 150...",
        '"must be <= 100, got 150"',
        "`must be <= 100, got 150`",
        'the "limit" must be <= 100... [HALO truncated: original 9999 chars]',
        "must\u00a0be\u200b <= 100, got 150",
    ],
)
def test_spacing_case_typography_escapes_and_ellipses_are_normalised(quote: str) -> None:
    assert tier(quote, SAID) == "normalised"


@pytest.mark.parametrize(
    "quote",
    [
        "the limit must be 100, got 150",
        "**Error**: the *limit* must be",
        "got 150; retry with limit: 100",
        "the limit must be ... see https x.y",
    ],
)
def test_what_agrees_in_letters_and_digits_only_is_loose(quote: str) -> None:
    assert tier(quote, SAID) == "loose"


@pytest.mark.parametrize(
    "quote",
    [
        'the "limit" must be <= 100, got 151.',
        "the limit may be 100, got 150",
        "got: 150, Re",  # loose, but of too few letters
        'see https://x.y … the "limit" must be',  # the wrong way round
        "the … limit … must … be … got",  # scraps of which any sentence can be made
        "Retry with limit=100 and a longer timeout",
    ],
)
def test_other_words_are_found_nowhere(quote: str) -> None:
    assert tier(quote, SAID) is None


def test_text_escaped_twice_is_read_through_its_escapes() -> None:
    inner = json.dumps({"error": 'no such "city" in\nthe list', "city": "Zürich 😀"})
    assert tier('no such "city" in the list', json.dumps(inner)) == "normalised"
    assert tier("city: Zürich 😀; error: no", json.dumps(json.dumps({"city": "Zürich 😀", "error": "no"}))) == "loose"
    assert tier('"city": "Zürich 😀"', json.dumps(inner)) == "normalised"


def test_the_better_tier_wins_and_then_the_first_text() -> None:
    texts = Texts([("loose", "no-such-city-here"), ("exact", "no such city here"), ("again", "no such city here")])
    found = texts.find(Quote("no such city here"))
    assert found is not None
    assert (found.tier, found.path) == ("exact", "exact")


def test_escapes_are_not_letters() -> None:
    assert Quote("\\n" * 20).alphanumeric_count == 0
    assert Quote("\\u0020" * 20).alphanumeric_count == 0


def test_long_texts_are_normalised_in_pieces_that_do_not_show() -> None:
    words = " ".join(f"Word{number}  “x”\n" for number in range(150_000))
    assert len(words) > 2 << 20
    checks: list[int] = []
    whole = normalised(words, lambda: checks.append(1))
    assert whole == " ".join(f'word{number} "x"' for number in range(150_000))
    assert len(checks) >= 3
    blob = "aB" * (2 << 20)
    assert normalised(blob) == blob.lower()


def test_the_nearest_passage_is_told_for_a_quote_that_is_not_there() -> None:
    texts = Texts([("a", "something else entirely"), ("b", SAID)])
    assert texts.nearest(Quote('the "limit" must be <= 200, got 150.')).startswith(
        'the "limit" must be <= 100, got 150.'
    )
    assert texts.nearest(Quote("a limit that must be <= 100, got 150.")).endswith("must be <= 100, got 150.")
    assert texts.nearest(Quote("nothing of this kind was ever said by anyone")) == ""


# --- properties -----------------------------------------------------------------------------------------------------
PROSE = st.lists(
    st.one_of(
        st.text(string.ascii_letters, min_size=1, max_size=9),
        st.text(min_size=1, max_size=6).filter(lambda text: not re.search("[\ud800-\udfff]", text)),
        st.sampled_from(
            ["“quoted”", "—", "\\n", '\\"', "3.14", "naïve", "ﬁne", "…", "`x`", "C:\\temp", "{}", "日本語"]
        ),
    ),
    min_size=4,
    max_size=40,
).map(" ".join)


@given(PROSE, st.data())
def test_a_piece_cut_from_a_text_is_exact(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    quote = text[start : data.draw(st.integers(start + 1, len(text)))]
    assert tier(quote, text) == "exact"


@given(PROSE, st.sampled_from(["upper", "spaces", "json", "quotes"]))
def test_a_respelled_text_is_still_found(text: str, how: str) -> None:
    quote = {
        "upper": text.swapcase() if text.isascii() else text,
        "spaces": text.replace(" ", " \n "),
        "json": json.dumps(text)[1:-1] if "\\" not in text else text,
        "quotes": text.replace('"', "”").replace("'", "’"),
    }[how]
    assume(Quote(quote).alphanumeric_count >= MIN_CHARS)
    assert tier(quote, text) is not None


@given(PROSE, st.data())
def test_a_text_with_one_other_word_is_not_found(text: str, data: st.DataObject) -> None:
    words = text.split(" ")
    words[data.draw(st.integers(0, len(words) - 1))] = "Xqzvorged"
    quote = " ".join(words)
    assume("xqzvorged" not in alphanumerics(normalised(text)))
    assume(not re.search(r"\.{3}|…", quote))  # the other word may then be a segment by itself, and is still needed
    assert tier(quote, text) is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_is_too_odd_to_look_in(quote: str, text: str) -> None:
    Texts([("t", text)]).find(Quote(quote))
    Texts([("t", text)]).nearest(Quote(quote))
