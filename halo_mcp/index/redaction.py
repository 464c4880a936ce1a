r"""Credentials in text, and the masks that stand in their place: ``[redacted: github-token]``.

A table of our own, written from what vendors document about their tokens. detect-secrets was tried: it says which
strings are secrets rather than where they stand, backtracks, and takes 150 ms for 100 KB. These rules run in RE2, in
time linear in the text, and work on plain text and on JSON as it is written, nested too: no match ends or begins inside
an escape, none holds a quotation mark, so JSON stays JSON. Characters that were escaped without need
(``\\u0026sig=``) are read as what they stand for. They are as lenient about lengths as they can be, because a token may
be cut where a text was. What no rule can know (a password in a sentence) stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol, cast

from halo_mcp.index.duck import quoted

_BEFORE: Final = r"(^|[^0-9A-Za-z]|\\[nrtbf]|\\u00[0-9A-Fa-f]{2})"
"""A token begins here; the letter of an escape is no letter of a word."""
_PEM: Final = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
"""A body holds no two hyphens side by side: text full of beginnings without an end is still read once."""
_V: Final = r"""[^\s"'`\\,;&<>(){}\[\]]"""
_VALUE: Final = rf"(?:{_V}{{5,}}[0-9]{_V}*|{_V}{{2,4}}[0-9]{_V}{{3,}}|{_V}?[0-9]{_V}{{5,}})"
"""Of something called a secret: six characters or more, a digit among them, so that prose is left alone."""
_ASSIGNED: Final = r"""\\*["']?\s{0,3}(?:=>|:=|=|:)\s{0,3}\\*["']?(?:(?i:bearer|basic)\s{1,3})?"""
_APART: Final = r"""(?:\s{1,3}\\*["']?|\\*["'],\s{0,3}\\*["'])"""
"""Between an option and its value: in a command, or in a list of arguments."""
_NEXT: Final = r"""\\*["']\s{0,3}:\s{0,3}\\*["']"""
_NEXT_VALUE: Final = rf"""\\*["'],\s{{0,8}}\\*["'](?i:value){_NEXT}"""
"""As headers and variables are listed: {"name": ..., "value": ...}."""
_SECRET_NAMES: Final = (
    r"passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key|"
    r"(?:encryption|signing|account|shared[_-]?access|master|service)[_-]?key|client[_-]?secret|credentials?|"
    r"(?:auth|access|refresh|session|id|api|bot|bearer|csrf|security)[_-]?token|authorization"
)
_ESCAPE: Final = re.compile(rb"(?<!\\)(\\+)u00([2-7][0-9A-Fa-f])")
_NEEDED: Final = (b'"', b"\\", b"\x7f")


@dataclass(frozen=True, slots=True)
class Rule:
    """``expression`` (RE2) has one group before what is masked, which stays, and perhaps one behind it."""

    kind: str
    expression: str
    behind: bool = False

    @property
    def mask(self) -> str:
        return rf"\1[redacted: {self.kind}]" + (r"\2" if self.behind else "")


def _token(kind: str, expression: str) -> Rule:
    return Rule(kind, f"{_BEFORE}(?:{expression})")


RULES: Final = (
    Rule("private-key", rf'()-----BEGIN {_PEM}(?:(?:[^"<>-]|-[^"<>-])*?-----END {_PEM}|(?:[A-Za-z0-9+/=\s]|\\+[nr])*)'),
    _token("aws-access-key-id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"),
    _token("anthropic-api-key", r"sk-ant-[A-Za-z0-9_-]{10,}"),
    _token("openai-api-key", r"sk-(?:proj|svcacct|admin|None|or-v1|lf)-[A-Za-z0-9_-]{10,}|sk-[A-Za-z0-9]{20,}"),
    _token("github-token", r"gh[pousr]_[A-Za-z0-9]{10,}|github_pat_[A-Za-z0-9_]{10,}"),
    _token("gitlab-token", r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_.-]{10,}"),
    _token("slack-token", r"xox[abceoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    Rule("slack-webhook", r"(hooks\.slack\.com\\?/(?:services|workflows|triggers)\\?/)[A-Za-z0-9/_-]{8,}"),
    _token("google-api-key", r"AIza[0-9A-Za-z_-]{20,}"),
    _token("google-oauth", r"ya29\.[0-9A-Za-z_-]{10,}|GOCSPX-[0-9A-Za-z_-]{10,}"),
    _token("stripe-key", r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}|whsec_[0-9A-Za-z+/]{16,}"),
    _token("npm-token", r"npm_[A-Za-z0-9]{20,}"),
    _token("pypi-token", r"pypi-[A-Za-z0-9_-]{20,}"),
    _token("huggingface-token", r"hf_[A-Za-z0-9]{20,}"),
    _token("groq-api-key", r"gsk_[A-Za-z0-9]{20,}"),
    _token("xai-api-key", r"xai-[A-Za-z0-9]{20,}"),
    _token("langsmith-api-key", r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}"),
    _token("tavily-api-key", r"tvly-[A-Za-z0-9-]{16,}"),
    _token("sendgrid-api-key", r"SG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    _token("twilio-key", r"(?:SK|AC)[0-9a-f]{32}"),
    _token("mailgun-key", r"key-[0-9a-f]{32}"),
    _token("digitalocean-token", r"do[opr]_v1_[0-9a-f]{20,}"),
    _token("vault-token", r"hv[sbr]\.[A-Za-z0-9_-]{20,}"),
    _token("databricks-token", r"dapi[0-9a-f]{32}"),
    _token("shopify-token", r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{20,}"),
    _token("linear-api-key", r"lin_(?:api|oauth)_[A-Za-z0-9]{20,}"),
    _token("notion-token", r"(?:ntn|secret)_[A-Za-z0-9]{40,}"),
    _token("telegram-bot-token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}"),
    _token("age-secret-key", r"AGE-SECRET-KEY-1[0-9A-Z]{20,}"),
    Rule("azure-account-key", r"((?i:AccountKey|SharedAccessKey)=)[A-Za-z0-9+/=]{20,}"),
    Rule("azure-signature", r"([?&]sig=)[A-Za-z0-9%+/=]{20,}"),
    _token("jwt", r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,3}"),
    Rule("password-in-url", r"""([A-Za-z][A-Za-z0-9+.-]*:\\?/\\?/[^\s/:@"'<>\\]*:)[^\s/@"'<>\\]+(@)""", behind=True),
    Rule("cookie", r"""((?i:cookie)\\*["']?\s{0,3}[:=]\s{0,3}\\*["']?)[^\s"'\\\[]+=[^"'\\\r\n]{4,}"""),
    Rule("authorization", rf"({_BEFORE}(?i:bearer|basic|negotiate)\s{{1,3}}){_VALUE}"),
    Rule("secret", rf"((?i:{_SECRET_NAMES}){_ASSIGNED}){_VALUE}"),
    Rule("secret", rf"((?i:--[a-z-]{{0,20}}(?:{_SECRET_NAMES}|token)){_APART}){_VALUE}"),
    Rule("secret", rf"(\\*[\"'](?i:name|key){_NEXT}[^\"'\\]{{0,30}}(?i:{_SECRET_NAMES}){_NEXT_VALUE}){_VALUE}"),
    Rule("token", rf"({_BEFORE}(?i:token){_ASSIGNED})[A-Za-z0-9_.~+/=-]{{6,}}[0-9][A-Za-z0-9_.~+/=-]{{6,}}"),
)
"""In this order: of two that match the same text, the first names it."""
_ANY: Final = "|".join(f"(?:{rule.expression})" for rule in RULES)


class _Expression(Protocol):
    def search(self, text: bytes) -> object: ...
    def sub(self, mask: bytes, text: bytes) -> bytes: ...


@cache
def _compiled() -> tuple[_Expression, tuple[tuple[_Expression, bytes], ...]]:
    """Whatever any rule matches; and each rule with its mask."""
    import re2  # pyright: ignore[reportMissingTypeStubs]

    options = cast("Any", re2.Options())
    options.encoding = options.Encoding.LATIN1  # bytes: broken UTF-8 hides nothing
    options.log_errors = False
    options.max_mem = 64 << 20

    def of(expression: str) -> _Expression:
        return cast("_Expression", re2.compile(expression.encode(), options))  # pyright: ignore[reportUnknownMemberType]

    return of(_ANY), tuple((of(rule.expression), rule.mask.encode()) for rule in RULES)


def redact_bytes(text: bytes) -> bytes:
    """The text with masks in place of credentials; valid JSON stays valid. Twice is the same as once."""
    anything, rules = _compiled()
    plain = _ESCAPE.sub(_unescaped, text) if b"\\u00" in text else text
    if not anything.search(plain):
        return text
    for expression, mask in rules:
        plain = expression.sub(mask, plain)
    return plain


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """The character that an escape stands for, where JSON needs none: one written so would hide a credential.

    Each level of JSON within JSON doubles the backslashes; an odd one more belongs to what stands before it.
    """
    character = bytes.fromhex(escape[2].decode())
    if character in _NEEDED:
        return escape[0]
    many = len(escape[1])
    return (escape[1][1:] if many % 2 else b"") + character


def redact(text: str) -> str:
    """``redact_bytes`` of a string."""
    given = text.encode("utf-8", "surrogatepass")
    masked = redact_bytes(given)
    return text if masked is given else masked.decode("utf-8", "surrogatepass")


def redact_json(value: Any) -> Any:
    """The JSON value with every string in it redacted, and what stands under a secret's name; keys, too."""
    return mapped_strings(value, redact)


def mapped_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with every string and key changed; a string under a key as it stands in ``key: value``."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [mapped_strings(item, change) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        changed: dict[Any, Any] = {}
        for key, item in cast("Mapping[Any, Any]", value).items():
            name = change(key) if isinstance(key, str) else key
            while name in changed:  # two that are masked alike
                name = f"{name}'"
            changed[name] = _member(key, item, change)
        return changed
    return value


def _member(key: Any, value: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(value, str):
        return mapped_strings(value, change)
    label = f"{key}: "
    changed = change(label + value)
    return changed[len(label) :] if changed.startswith(label) else change(value)


def redacting_sql(column: str) -> str:
    """SQL for a text column with the same masks. DuckDB's expressions are RE2 too."""
    masked = column
    for rule in RULES:
        masked = f"regexp_replace({masked}, {quoted(rule.expression)}, {quoted(rule.mask)}, 'g')"
    return f"CASE WHEN regexp_matches({column}, {quoted(_ANY)}) THEN {masked} ELSE {column} END"
