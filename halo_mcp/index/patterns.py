r"""Regular expressions over raw JSON lines that never miss what the decoded text holds.

A span matches when P, the pattern as given, matches its raw JSON line or any of its decoded string values.

A search runs over gigabytes of raw bytes, but people copy patterns from decoded text. ``He said "no"`` is stored as
``He said \"no\"``, and as ``He said \\\"no\\\"`` when a JSON document is kept inside a JSON string. So P is compiled
twice: as it stands, to confirm a match in decoded text, and *widened*, to find candidates in raw bytes. Wherever P
matches in a value that was decoded any number of times, the widened pattern matches in the raw line. It may match more.

The guarantee rests on this:

- Writers leave ASCII letters and digits, the space and ``!#$%()*,-.:;?@[]^_{|}~`` as they are. Any other character may
  be written as itself, as ``\uXXXX`` with either case of hex digits, or as one of JSON's short escapes. A backslash is
  written ``\\``; we know of no writer that spells it ``\u005c``.
- ``(?i)`` folds ASCII letters to ASCII letters in decoded text. RE2 also takes U+017F for ``s`` and U+212A for ``k``;
  following it would mean decoding every line that matches a word with one of these letters, only to confirm it.
  Non-ASCII letters fold as RE2 folds them.
- Lines are valid UTF-8. A class such as ``.`` does not match a byte that is not (JSON readers refuse such lines).
- Numbers match as the line spells them: ``1e2`` is not found as ``100``.
- Halves of a surrogate pair standing alone, which only lenient JSON readers let through, count as U+FFFD.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias, cast

import orjson
import re2  # pyright: ignore[reportMissingTypeStubs]

from halo_mcp.errors import InvalidPattern

MAX_PATTERN_CHARS: Final = 2_000
MAX_DECODINGS: Final = 3
"""A string value is decoded at most this often: the span, a JSON document in it, a JSON document in that."""

_MAX_MEM: Final = 64 << 20
# RE2's budget for one pattern. It bounds the compiled program (2,000 characters of widened classes need more than the
# default 8 MiB allows) and the cache of DFA states, of which a typical pattern uses a few KiB.

_MAX_WIDENED_COUNT: Final = 10
# The DFA of x{0,50} with an x that has several spellings has so many states that a scan falls from hundreds of MB/s to
# a few. Above this count we give up counting: x{0,}.

_UNESCAPED: Final = frozenset("!#$%()*,-.:;?@[]^_{|}~ 0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SHORT_ESCAPES: Final = {'"': '"', "\\": "\\\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_INSIDE_ESCAPES: Final = frozenset('\\"/bfnrtu0123456789abcdefABCDEF')
_ANY_CODE: Final = r"u[0-9a-fA-F]{4}(?:\\+u[0-9a-fA-F]{4})?"

_TOKEN: Final = re.compile(
    r"""
      \\Q (?P<quoted>.*?) (?:\\E|\Z)
    | (?P<class> \[ \^? \]? (?: \[:\^?\w+:\] | \\. | [^\]\\] )*+ \] | \\[pP] (?:\{[^}]*\}|.) | \\[dDsSwW] | \. )
    | (?P<anchor> [\^$] | \\[bBAz] )
    | (?P<repeat> [*+?]\?? | \{ (?P<low>\d+) (?P<comma>,?) (?P<high>\d*) \}\?? )
    | (?P<open> \( (?: \?P?<[^>]*> | \?(?P<flags>[a-zA-Z-]*)(?P<end>[:)]) )? )
    | (?P<close> \) )
    | (?P<or> \| )
    | (?P<anybyte> \\C )
    | \\x\{(?P<hex>[^}]*)\} | \\x(?P<twohex>..) | \\(?P<octal>[0-7]{1,3}) | \\(?P<escaped>.)
    | (?P<literal>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CONTROL_ESCAPES: Final = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_RE2_ERROR: Final = cast("type[Exception]", re2.error)  # pyright: ignore[reportUnknownMemberType]

Text: TypeAlias = str | bytes | bytearray | memoryview


class Match(Protocol):
    """Where a pattern matched: characters for ``str``, bytes for everything else."""

    def start(self, group: int = 0) -> int: ...
    def end(self, group: int = 0) -> int: ...
    def span(self, group: int = 0) -> tuple[int, int]: ...


class Regex(Protocol):
    """A compiled RE2 pattern. It may be used by several threads at once and lets go of the GIL while it searches."""

    def search(self, text: Text, pos: int | None = None, endpos: int | None = None) -> Match | None: ...
    def finditer(self, text: Text, pos: int | None = None, endpos: int | None = None) -> Iterator[Match]: ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern in its two forms. Neither form captures groups: a match has only its own span."""

    source: str
    """The pattern as given."""
    expression: str
    """The same in RE2 syntax, also when it was given as a text to find."""
    text: Regex
    """Confirms a match in decoded text (``str``) or in one raw line."""
    raw: Regex
    """Finds candidates in raw bytes, which may hold many lines: no match contains a newline."""
    raw_is_exact: bool
    """True when ``raw`` had no need to be widened, so that what it matches needs no decoding to be confirmed."""
    plain: bytes
    """The only text that ``raw`` matches; empty when there are several, or when its spelling in JSON may vary."""


def compile_pattern(pattern: str, *, literal: bool = False) -> Pattern:
    """Compile ``pattern`` (RE2 syntax, or the very text to look for when ``literal``) for decoded text and raw lines.

    At most 2,000 characters. Raises InvalidPattern for an empty or longer pattern and for one that RE2 cannot run.
    """
    expression = _checked(pattern, literal=literal)
    text, raw, exact = _rewritten(pattern, expression)
    try:
        plain = _only_text(expression) if exact else ""
        return Pattern(pattern, expression, _compiled(text), _compiled(raw, within_lines=True), exact, plain.encode())
    except _RE2_ERROR as error:
        raise InvalidPattern(pattern, _reason(error)) from None
    finally:
        # The module keeps its last 128 patterns alive, each with up to _MAX_MEM of cached states.
        re2.purge()


def widen(pattern: str) -> str:
    """The pattern that matches in a raw JSON line wherever ``pattern`` (RE2 syntax) matches in a decoded value of it.

    A pattern without anchors and of characters that JSON never escapes comes back as it is. At most 2,000 characters.
    Raises InvalidPattern as ``compile_pattern`` does.
    """
    return _rewritten(pattern, _checked(pattern, literal=False))[1]


def decoded_values(obj: object) -> Iterator[tuple[str, str]]:
    """Path and text of each string, number and boolean in a parsed JSON value, in document order.

    Numbers and booleans come as JSON text; nulls and keys do not come. A string that holds a JSON object or array comes
    first as a whole, then value by value, its paths joined by ``>``: ``attributes.output.value>error.message``,
    ``messages[0].content``. Values are decoded at most MAX_DECODINGS times. Never raises, however deep the nesting.
    """
    for path, value in _leaves(obj):
        yield path, value if isinstance(value, str) else json.dumps(value)


def pattern_matches_span(pattern: Pattern, raw_line: bytes, obj: object) -> bool:
    """Whether ``pattern`` matches the raw line of a span or any decoded string value of ``obj``, the parsed line."""
    line = raw_line.rstrip(b"\r\n")
    if pattern.raw.search(line) is None:
        return False
    if pattern.raw_is_exact or pattern.text.search(line) is not None:
        return True
    return any(isinstance(value, str) and pattern.text.search(value) is not None for _, value in _leaves(obj))


def _leaves(obj: object) -> Iterator[tuple[str, str | int | float]]:
    todo: list[tuple[str, object, int]] = [("", obj, 1)]
    while todo:
        path, value, decodings = todo.pop()
        if isinstance(value, str):
            text = value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
            yield path, text
            if decodings < MAX_DECODINGS and text.startswith(("{", "[")):
                try:
                    todo.append((f"{path}>", orjson.loads(text), decodings + 1))
                except orjson.JSONDecodeError:
                    pass  # it only looks like JSON
        elif isinstance(value, int | float):
            yield path, value
        elif isinstance(value, dict):
            members = cast("dict[str, object]", value)
            prefix = path if not path or path.endswith(">") else f"{path}."
            todo.extend((f"{prefix}{key}", member, decodings) for key, member in reversed(members.items()))
        elif isinstance(value, list):
            items = cast("list[object]", value)
            todo.extend((f"{path}[{i}]", items[i], decodings) for i in range(len(items) - 1, -1, -1))


# --- compiling --------------------------------------------------------------------------------------------------------


def _compiled(pattern: str, *, within_lines: bool = False) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEM
    options.never_capture = True
    options.never_nl = within_lines
    return re2.compile(pattern, options)  # pyright: ignore[reportUnknownMemberType]


def _checked(pattern: str, *, literal: bool) -> str:
    if not pattern:
        raise InvalidPattern(pattern, "It is empty and would match every span; leave it out instead.")
    if len(pattern) > MAX_PATTERN_CHARS:
        reason = f"It has {len(pattern):,} characters, at most {MAX_PATTERN_CHARS:,} are allowed; search for a part."
        raise InvalidPattern(pattern, reason)
    if _LONE_SURROGATE.search(pattern):
        raise InvalidPattern(pattern, "It holds half of a surrogate pair, which is no character; search for the rest.")
    expression = "".join(map(_spelled, pattern)) if literal else pattern
    try:
        _compiled(expression)
    except _RE2_ERROR as error:
        raise InvalidPattern(pattern, _reason(error)) from None
    return expression


def _reason(error: Exception) -> str:
    message = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
    kind, _, detail = message.partition(": ")
    match kind:
        case "invalid perl operator" if detail in ("(?=", "(?!", "(?<=", "(?<!"):
            return (
                f"RE2 has no look-ahead or look-behind, here {detail}; match the surrounding text itself, "
                "or run two searches and compare what they find."
            )
        case "invalid perl operator" if detail == "(?>":
            return "RE2 has no atomic groups; write (?:...), which never backtracks in RE2."
        case "invalid perl operator" if detail == "(?(":
            return "RE2 has no conditionals; run one search for each case."
        case "invalid perl operator" if detail == "(?P":
            return "RE2 has no back-references such as (?P=name); write out the repeated text."
        case "invalid escape sequence" if detail[1:2] in "123456789kg":
            return (
                f"RE2 has no back-references, here {detail}; write out the repeated text, "
                r"or write \\ if the backslash is part of the text to find."
            )
        case "invalid escape sequence" if detail == r"\u":
            return r"RE2 has no \u escape; write \x{00E9} or the character itself."
        case "invalid escape sequence" if detail == r"\Z":
            return r"RE2 has no \Z; write \z for the end of the text."
        case "bad repetition operator" if detail.endswith("+") and detail != "+":
            return f"RE2 has no possessive quantifiers, here {detail}; leave out the last +, RE2 never backtracks."
        case "invalid repetition size":
            return (
                f"RE2 repeats at most 1000 times, nested counts multiplied, here {detail}; use a smaller count, * or +."
            )
        case "pattern too large - compile failed":
            return "It is too large for RE2; use smaller repetition counts or split it into several searches."
        case _:
            return f"RE2 says {message!r}; correct it, or write \\Q...\\E around a text to find it exactly as written."


# --- widening ---------------------------------------------------------------------------------------------------------


def _rewritten(pattern: str, expression: str) -> tuple[str, str, bool]:
    """``expression`` for decoded text, for raw lines, and whether the latter was left as it was."""
    text: list[str] = []
    raw: list[str] = []
    widened: list[bool] = []  # for each piece of raw
    groups: list[tuple[int, bool]] = []  # for each open group: its first piece, (?i) outside of it
    fold = False
    atom = 0  # first piece of what a quantifier would repeat
    for token in _TOKEN.finditer(expression):
        source = token[0]
        if token["class"] or token["anchor"]:
            atom = len(raw)
            if token["class"]:
                plain, wide = _class(source, fold)
            else:
                # A quantifier needs something to repeat.
                plain, wide = source, "(?:)" if expression[token.end() : token.end() + 1] in tuple("*+?{") else ""
            text.append(plain)
            raw.append(wide)
            widened.append(wide != source)
        elif token["repeat"]:
            text.append(source)
            wide, relaxed = source, False
            if any(widened[atom:]):
                low, high = _bounds(token)
                relaxed = max(low, high or 0) > _MAX_WIDENED_COUNT
                if relaxed:
                    low, high = min(low, _MAX_WIDENED_COUNT), None
                    wide = f"{{{low},}}"
                if high is None and atom == len(raw) - 1 and _closed(text[atom], fold):
                    raw[atom], widened[atom] = text[atom], False
            raw.append(wide)
            widened.append(relaxed)
        elif token["open"]:
            if token["end"] != ")":
                atom = len(raw)
                groups.append((atom, fold))
            on, _, off = (token["flags"] or "").partition("-")
            fold = (fold or "i" in on) and "i" not in off
            text.append(source)
            raw.append(source)
            widened.append(False)
        elif token["close"] or token["or"]:
            if token["close"]:
                atom, fold = groups.pop()
            text.append(source)
            raw.append(source)
            widened.append(False)
        elif token["anybyte"]:
            raise InvalidPattern(pattern, r"\C (any byte) is not supported; write . for any character.")
        else:
            for char in _characters(token):
                atom = len(raw)
                spelled = _spelled(char)
                wide = _literal(char, fold)
                text.append(f"(?-i:[{char.lower()}{char.upper()}])" if fold and char in "kKsS" else spelled)
                raw.append(wide)
                widened.append(wide != spelled)
    return "".join(text), "".join(raw), not any(widened)


def _only_text(expression: str) -> str:
    """The text that is all that ``expression`` matches; "" when it says more than that."""
    tokens = list(_TOKEN.finditer(expression))
    operators = ("class", "anchor", "repeat", "open", "close", "or", "anybyte")
    if any(token[operator] for token in tokens for operator in operators):
        return ""
    return "".join(map(_characters, tokens))


def _characters(token: re.Match[str]) -> str:
    if token["quoted"] is not None:
        return token["quoted"]
    if code := token["hex"] or token["twohex"]:
        return chr(int(code, 16))
    if token["octal"]:
        return chr(int(token["octal"], 8))
    if token["escaped"]:
        return _CONTROL_ESCAPES.get(token["escaped"], token["escaped"])
    return token["literal"]


def _bounds(token: re.Match[str]) -> tuple[int, int | None]:
    if token["low"]:
        low = int(token["low"])
        return low, int(token["high"]) if token["high"] else None if token["comma"] else low
    return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token["repeat"][0]]


def _spelled(char: str) -> str:
    # One way to write each literal, so that no two neighbours can be read as an octal escape or a count.
    if char < " " or char == "\x7f" or "\ud800" <= char <= "\udfff":
        return _hex(char)
    return f"\\{char}" if char in "\\.+*?()|[]{}^$" else char


def _literal(char: str, fold: bool) -> str:
    if char in _UNESCAPED:
        return _spelled(char)
    if char <= "\x7f":
        return _either(_spelled(char), char)
    if fold or char == "\ufffd":
        return _either(_spelled(char), "", any_code=True)
    units = char.encode("utf-16-be", "surrogatepass").hex()
    codes = "".join(r"\\+" + _code(units[i : i + 4]) for i in range(0, len(units), 4))
    return f"(?:{_spelled(char)}|{codes})"


def _class(source: str, fold: bool) -> tuple[str, str]:
    members, beyond_ascii = _members(source, fold)
    if fold:
        unfolded, unfolded_beyond_ascii = _members(source, False)
        if beyond_ascii and not unfolded_beyond_ascii and unfolded <= _UNESCAPED:
            return f"(?-i:[{''.join(map(_hex, sorted(members)))}])", source
    if not beyond_ascii and members <= _UNESCAPED:
        return source, source
    return source, _either(source, "".join(sorted(members - _UNESCAPED)), any_code=beyond_ascii)


def _closed(source: str, fold: bool) -> bool:
    """Whether a class matches every character that escapes are made of: repeated, it needs no other spelling."""
    token = _TOKEN.fullmatch(source)
    return token is not None and token["class"] is not None and _members(source, fold)[0] >= _INSIDE_ESCAPES


@lru_cache(maxsize=1024)
def _members(source: str, fold: bool) -> tuple[frozenset[str], bool]:
    """The ASCII characters that a class matches, and whether it may match others. RE2 itself is asked."""
    flags = "is" if fold else "s"
    found = cast("Iterator[Match]", _compiled(f"(?{flags}:{source})").finditer("".join(map(chr, range(128)))))
    try:
        highest = cast("tuple[bytes, bytes]", _compiled(f"^(?{flags}:{source})").possiblematchrange(8))[1]
    except _RE2_ERROR:
        highest = b"\xff"
    return frozenset(chr(match.start()) for match in found), highest >= b"\x80"


def _either(source: str, chars: str, *, any_code: bool = False) -> str:
    """``source``, or one of the ASCII ``chars`` (with ``any_code``: or any character) in an escaped spelling."""
    short = "".join(_SHORT_ESCAPES[char] for char in chars if char in _SHORT_ESCAPES)
    tails = [f"[{short}]"] if short else []
    tails += [_ANY_CODE] if any_code else [_code(f"{ord(char):04x}") for char in chars]
    return rf"(?:{source}|\\+(?:{'|'.join(tails)}))"


def _code(digits: str) -> str:
    return "u" + "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _hex(char: str) -> str:
    return f"\\x{{{ord(char):x}}}"
