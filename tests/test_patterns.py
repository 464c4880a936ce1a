from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from functools import partial

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from halo_mcp.errors import InvalidPattern
from halo_mcp.index.patterns import compile_pattern, decoded_values, pattern_matches_span, widen

NASTY = '""\\\\\n\n\t\r\x01\x7f/<>&\'=+`{}[]$^. -_é€😀ſKÄnutkKs0129abz'
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

TOKENS = r"""
. \d \D \s \S \w \W \pN \pL \PL \p{Greek} \p{^Greek} [a-z0-9] [^a-z] [^\"] [^\\] [\"'] [\\/] [é] [^é] [<>&] []a] [^]a]
[[:alpha:]] [[:^alpha:]] [[:punct:]] [[:cntrl:]] [\x00-\x1f] [\pL\d] [^\pL] [k] [s-z] [\n] [^\n] [{-}] [[] [a\]\-]
\x41 \x{1F600} \x{e9} \x22 \x5c \012 \042 \134 \t \n \r \f \v \a \" \\ \/ \. \{ \< \Q\"\E \Q\nu\E \Qk{2}\E \Qé\\E
( ) ^ $ { } k s K ſ é É \A \z \b \B
"""
ATOMS = TOKENS.split()
QUANTIFIERS = ["", "", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{0,12}", "{12}", "{1,3}?"]
GROUPS = [
    "({})",
    "(?:{})",
    "(?i:{})",
    "(?s:{})",
    "(?i)(?:{})",
    "(?-i:{})",
    "(?P<n>{})",
    "(?<n>{})",
    "(?ms-i:{})",
    "(?i-s:{})",
]


def quoted_by(spell: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: f'"{"".join(map(spell, text))}"'


def code(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def as_go_does(char: str) -> str:
    return code(char) if char in "<>&\u2028\u2029" else json.dumps(char, ensure_ascii=False)[1:-1]


def as_dotnet_does(char: str) -> str:
    escaped = char in "\"&'+<>`\x7f" or char > "\x7f"
    return code(char).upper().replace("\\U", "\\u") if escaped else json.dumps(char)[1:-1]


def as_php_does(char: str) -> str:
    return "\\/" if char == "/" else json.dumps(char)[1:-1]


def as_anyone_may(seed: int, text: str) -> str:
    chance = random.Random(seed)

    def spell(char: str) -> str:
        if char in string.ascii_letters + string.digits + "!#$%()*,-.:;?@[]^_{|}~ ":
            return char
        if char == "\\":
            return "\\\\"
        spellings = [code(char), "".join(chance.choice((c, c.upper())) if c != "u" else c for c in code(char))]
        if char in SHORT:
            spellings.append(SHORT[char])
        if char >= " " and char != '"':
            spellings.append(char)
        return chance.choice(spellings)

    return quoted_by(spell)(text)


ENCODERS: list[Callable[[str], str]] = [
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: orjson.dumps(text).decode(),
    quoted_by(as_go_does),
    quoted_by(as_dotnet_does),
    quoted_by(as_php_does),
    *(partial(as_anyone_may, seed) for seed in range(5)),
]

texts = st.text(st.sampled_from(NASTY), max_size=12)
encodings = st.lists(st.sampled_from(ENCODERS), min_size=1, max_size=3)


def grouped(group: str, body: str, quantifier: str) -> str:
    return group.format(body) + quantifier


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=2).map("|".join),
        st.builds(grouped, st.sampled_from(GROUPS), inner, st.sampled_from(QUANTIFIERS)),
    )


atoms = st.one_of(
    st.sampled_from(ATOMS), st.sampled_from(NASTY).map(lambda char: "\\" + char if char in '\\.+[]{}^$"/<' else char)
)
patterns = st.recursive(st.builds(str.__add__, atoms, st.sampled_from(QUANTIFIERS)), grown, max_leaves=6)


CLASSES = r". \W \S \s \w [^a] [^\x00-\x20] [\x00-\x2f\\] [^\x20-~] \PL \pL [k-u]"
STANDING = {name: compile_pattern(f"(?s)^{name}$").text for name in CLASSES.split()}


@st.composite
def patterns_of_a_text(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and a pattern made of what could stand for each of its characters."""
    text = draw(st.text(st.sampled_from(NASTY), min_size=1, max_size=8))
    parts = [draw(st.sampled_from(["", "(?i)", "(?s)", "(?is)", "^", r"\b"]))]
    for char in text:
        standing = [name for name, regex in STANDING.items() if regex.search(char)]
        spelled = [f"\\x{{{ord(char):x}}}", f"\\Q{char}\\E" if char != "\\" else r"\\", f"[{spelled_in_class(char)}]"]
        parts.append(draw(st.sampled_from(standing + spelled + spelled)))
        parts.append(draw(st.sampled_from(["", "", "", "+", "*", "{1,20}", "{0,2}", "$?", r"\b*", "^*"])))
    return text, "".join(parts)


def spelled_in_class(char: str) -> str:
    return "\\" + char if char in "\\]^-[" else char


def line_holding(text: str, encoders: list[Callable[[str], str]]) -> bytes:
    """A span whose output is ``text``, encoded once per encoder, in a JSON document within a document and so on."""
    for encode in encoders[:-1]:
        text = f'{{"k":[{encode(text)},1]}}'
    return f'{{"name":"x","attributes":{{"output.value":{encoders[-1](text)}}}}}'.encode()


def assert_raw_misses_nothing(pattern: str, text: str, encoders: list[Callable[[str], str]]) -> None:
    try:
        compiled = compile_pattern(pattern)
    except InvalidPattern:
        return
    line = line_holding(text, encoders)
    span = orjson.loads(line)
    assert text in [value for _, value in decoded_values(span)]
    if compiled.text.search(text):
        assert compiled.raw.search(line)
        assert pattern_matches_span(compiled, line, span)
    if compiled.text.search(line):
        assert compiled.raw.search(line)
        assert pattern_matches_span(compiled, line, span)
    lines = memoryview(bytearray(b"\n".join([line, line, b"", line])))
    for match in compiled.raw.finditer(lines):
        assert b"\n" not in bytes(lines[match.start() : match.end()])


@settings(max_examples=300, deadline=None)
@given(patterns, texts, encodings)
@example('said "no"\\né', 'He said "no"\né', [json.dumps, json.dumps, json.dumps])
@example("a{^2}", "a{2}", [json.dumps])
@example(r"a{\Q2\E}", "a{2}", [json.dumps])
@example(r"\01^2", "\x012", [json.dumps])
@example("(?i)mask", "mas\u212a", [json.dumps])
@example("(?i)x[k]", "x\u212a", [json.dumps])
@example("(?i)x(?:é)", "xÉ", [json.dumps])
@example("x[^a]+y", "xêy", [json.dumps])
def test_a_pattern_that_matches_decoded_text_matches_the_raw_line(
    pattern: str, text: str, encoders: list[Callable[[str], str]]
) -> None:
    assert_raw_misses_nothing(pattern, text, encoders)


@settings(max_examples=300, deadline=None)
@given(patterns_of_a_text(), texts, texts, encodings)
def test_a_pattern_built_from_the_text_it_should_match_matches_the_raw_line(
    text_and_pattern: tuple[str, str], before: str, after: str, encoders: list[Callable[[str], str]]
) -> None:
    text, pattern = text_and_pattern
    assert_raw_misses_nothing(pattern, before + text + after, encoders)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(NASTY), min_size=1, max_size=8), texts, texts, encodings)
def test_literal_text_is_found_however_it_was_encoded(
    literal: str, before: str, after: str, encoders: list[Callable[[str], str]]
) -> None:
    line = line_holding(before + literal + after, encoders)
    pattern = compile_pattern(literal, literal=True)
    found = pattern.text.search(before + literal + after)
    assert found
    assert (before + literal + after)[found.start() : found.end()] == literal
    assert pattern_matches_span(pattern, line, orjson.loads(line))


@pytest.mark.parametrize(
    "pattern",
    [
        "timeout",
        "Error 429: rate_limit",
        "(?i)(zqxjk|qqqzz|xxyyzz)",
        "(?i)[a-z]+ task",
        "[0-9a-f]{32}",
        r"\d{3}",
        r"(\w+)@(\w+)",
        "tool.*failed",
        r"tool\S+ failed",
    ],
)
def test_what_json_never_escapes_is_searched_as_it_is(pattern: str) -> None:
    assert widen(pattern) == pattern
    assert compile_pattern(pattern).raw_is_exact


@pytest.mark.parametrize(
    "pattern, widened",
    [
        ('say "no"', r'say (?:"|\\+(?:["]|u0022))no(?:"|\\+(?:["]|u0022))'),
        ("a/b", r"a(?:/|\\+(?:[/]|u002[fF]))b"),
        (r"a\\b", r"a(?:\\|\\+(?:[\\]|u005[cC]))b"),
        (r"a\nb", r"a(?:\x{a}|\\+(?:[n]|u000[aA]))b"),
        ("a<b", r"a(?:<|\\+(?:u003[cC]))b"),
        ("é😀", r"(?:é|\\+u00[eE]9)(?:😀|\\+u[dD]83[dD]\\+u[dD][eE]00)"),
        (r"a\sb", r"a(?:\s|\\+(?:[tnfr]|u0009|u000[aA]|u000[cC]|u000[dD]))b"),
        ("a.b", r'a(?:.|\\+(?:[btnfr"/\\]|u[0-9a-fA-F]{4}(?:\\+u[0-9a-fA-F]{4})?))b'),
        ("a.{0,50}b", "a.{0,}b"),
        (r"^\bab$", "ab"),
        (r"^*\b+", "(?:)*(?:)+"),
        ("^{2}a", "(?:){2}a"),
        (r"\Qa.b{2}\E+", r"a\.b\{2\}+"),
    ],
)
def test_what_json_may_escape_is_searched_in_every_spelling(pattern: str, widened: str) -> None:
    assert widen(pattern) == widened


def test_dropping_an_anchor_makes_a_raw_match_a_mere_candidate() -> None:
    pattern = compile_pattern("^done$")
    assert not pattern.raw_is_exact
    assert pattern_matches_span(pattern, b'{"a":"done"}\n', {"a": "done"})
    assert not pattern_matches_span(pattern, b'{"a":"not done"}\n', {"a": "not done"})


def test_a_pattern_copied_from_the_raw_line_matches_too() -> None:
    line = rb'{"input":"{\"tool\": \"read\"}"}'
    assert pattern_matches_span(compile_pattern(r"\"tool\": \"read\"", literal=True), line, orjson.loads(line))


def test_keys_are_found_in_the_raw_line_only() -> None:
    line = b'{"tool.name":"read"}'
    assert pattern_matches_span(compile_pattern(r"tool\.name"), line, orjson.loads(line))
    assert not pattern_matches_span(compile_pattern(r"^tool\.name$"), line, orjson.loads(line))


def test_a_number_matches_as_the_line_spells_it() -> None:
    line = b'{"cost":1e2}'
    assert pattern_matches_span(compile_pattern("1e2"), line, orjson.loads(line))
    assert not pattern_matches_span(compile_pattern("100"), line, orjson.loads(line))


def test_offsets_in_decoded_text_are_characters() -> None:
    found = compile_pattern("no").text.search("😀é no")
    assert found
    assert found.span() == (3, 5)


def test_offsets_in_raw_bytes_are_bytes_of_the_buffer() -> None:
    block = bytearray(b'{"a":"x"}\n{"a":"say \\"no\\""}\n')
    found = compile_pattern('say "no"').raw.search(memoryview(block), 9, len(block))
    assert found
    assert found.span() == (16, 26)


def test_matches_in_raw_bytes_stay_within_a_line() -> None:
    block = b"one two\nthree four\n"
    for pattern in ["two.*three", r"two\s+three", "(?s)two.three", "two[^a]three", r"two\nthree", r"two\Wthree"]:
        assert compile_pattern(pattern).raw.search(block) is None


def test_nested_quantifiers_need_no_backtracking() -> None:
    pattern = compile_pattern("(a+)+$")
    assert pattern.text.search("a" * 100_000 + "b") is None
    assert pattern.raw.search(b"b" * 100_000) is None


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("", "It is empty and would match every span; leave it out instead."),
        ("a" * 2001, "It has 2,001 characters, at most 2,000 are allowed; search for a part."),
        ("a\ud800", "It holds half of a surrogate pair, which is no character; search for the rest."),
        ("(", "RE2 says 'missing ): ('; correct it, or write \\Q...\\E around a text to find it exactly as written."),
        (
            "a**",
            (
                "RE2 says 'bad repetition operator: **'; correct it, "
                "or write \\Q...\\E around a text to find it exactly as written."
            ),
        ),
        (
            "(?=a)b",
            (
                "RE2 has no look-ahead or look-behind, here (?=; match the surrounding text itself, "
                "or run two searches and compare what they find."
            ),
        ),
        (
            "(?<!a)b",
            (
                "RE2 has no look-ahead or look-behind, here (?<!; match the surrounding text itself, "
                "or run two searches and compare what they find."
            ),
        ),
        (
            r"(a)\1",
            (
                r"RE2 has no back-references, here \1; write out the repeated text, "
                "or write \\\\ if the backslash is part of the text to find."
            ),
        ),
        ("(?P<n>a)(?P=n)", "RE2 has no back-references such as (?P=name); write out the repeated text."),
        ("(?>a)", "RE2 has no atomic groups; write (?:...), which never backtracks in RE2."),
        ("(a)(?(1)b)", "RE2 has no conditionals; run one search for each case."),
        ("a++", "RE2 has no possessive quantifiers, here ++; leave out the last +, RE2 never backtracks."),
        (r"\u00e9", r"RE2 has no \u escape; write \x{00E9} or the character itself."),
        (r"a\Z", r"RE2 has no \Z; write \z for the end of the text."),
        (r"\C", r"\C (any byte) is not supported; write . for any character."),
        (
            "a{1001}",
            "RE2 repeats at most 1000 times, nested counts multiplied, here {1001}; use a smaller count, * or +.",
        ),
        (r"\pL{999}" * 9, "It is too large for RE2; use smaller repetition counts or split it into several searches."),
    ],
)
def test_a_refused_pattern_says_what_to_write_instead(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidPattern) as refused:
        compile_pattern(pattern)
    assert refused.value.reason == reason
    with pytest.raises(InvalidPattern):
        widen(pattern)


def test_a_refused_pattern_leaves_stderr_alone(capfd: pytest.CaptureFixture[str]) -> None:
    for pattern in ["(", r"\pL{999}" * 9]:
        with pytest.raises(InvalidPattern):
            compile_pattern(pattern)
    assert capfd.readouterr().err == ""


def test_every_value_comes_with_its_path_and_documents_within_strings_are_opened() -> None:
    inner = {"error": {"message": "late"}, "codes": [1, 2.5], "ok": True, "none": None}
    span = {
        "name": "x",
        "attributes": {"output.value": json.dumps(inner), "messages": [{"content": "hi"}]},
        "l": "[[7]]",
    }
    assert list(decoded_values(span)) == [
        ("name", "x"),
        ("attributes.output.value", json.dumps(inner)),
        ("attributes.output.value>error.message", "late"),
        ("attributes.output.value>codes[0]", "1"),
        ("attributes.output.value>codes[1]", "2.5"),
        ("attributes.output.value>ok", "true"),
        ("attributes.messages[0].content", "hi"),
        ("l", "[[7]]"),
        ("l>[0][0]", "7"),
    ]


def test_values_are_decoded_three_times_and_no_more() -> None:
    document = "deep"
    for key in "dcba":
        document = json.dumps({key: document})
    assert [path for path, _ in decoded_values(orjson.loads(document))] == ["a", "a>b", "a>b>c"]


def test_text_that_only_looks_like_json_stays_one_value() -> None:
    assert list(decoded_values({"a": "{not json", "b": "[1,"})) == [("a", "{not json"), ("b", "[1,")]


def test_deep_nesting_is_walked_without_recursion() -> None:
    deep: object = "end"
    for _ in range(5_000):
        deep = [deep]
    assert [value for _, value in decoded_values(deep)] == ["end"]
    assert len(list(decoded_values({"a": "[" * 5_000 + "]" * 5_000}))) == 1


def test_half_a_surrogate_pair_is_searched_as_the_replacement_character() -> None:
    line = rb'{"a":"x\ud800y"}'
    span = json.loads(line)
    assert list(decoded_values(span)) == [("a", "x\ufffdy")]
    for pattern in ["x\ufffdy", "x.y"]:
        assert pattern_matches_span(compile_pattern(pattern), line, span)
