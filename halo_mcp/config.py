"""Settings: command-line arguments first, then ``HALO_MCP_*`` environment variables, then defaults.

``Settings.origins`` says which of the three gave each value, so that ``halo-mcp doctor`` can show it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

from halo_mcp.errors import BadArgument
from halo_mcp.index.failure_rules import DEFAULT_RULES, RULE_NAMES
from halo_mcp.index.outcomes import OutcomeKeys, OutcomeOptions
from halo_mcp.index.prices import PriceTable, read_prices
from halo_mcp.index.privacy import Privacy

Origin = Literal["argument", "environment", "default"]

_KEY_CHARS: Final = 200
DEFAULT_DEADLINE_S: Final = 60.0
"""What one query may take. Indexing has no deadline: it reports progress and can be cancelled."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server was told. Field ``x_y`` has the option ``--x-y`` and the variable ``HALO_MCP_X_Y``."""

    index_dir: Path
    deadline_s: float = DEFAULT_DEADLINE_S
    roots: tuple[Path, ...] = ()
    """Directories under which a client may open further files; none by default."""
    prices: PriceTable | None = None
    """What tokens cost, read from the file named by ``--prices``; without it no answer speaks of money."""
    soft_rules: tuple[str, ...] = DEFAULT_RULES
    """The soft-error rules that count as failures."""
    redact: bool = False
    """Credentials are masked in everything that leaves."""
    no_payloads: bool = False
    """Nothing but names, ids, times, numbers and statuses leaves."""
    enable: tuple[str, ...] = ()
    """Tools that are on although they are off by default where others can connect."""
    disable: tuple[str, ...] = ()
    """Tools that are off: not listed, and not callable."""
    repo_path: Path | None = None
    """The source code of the traced agent, for the server's own agent to read; nothing is opened here."""
    labels: tuple[str, ...] = ()
    """``[NAME=]FILE``: verdicts that go before what spans say; without NAME for all datasets."""
    outcome_attribute: tuple[str, ...] = ()
    """Attributes that say the outcome, in this order, in place of the usual ones."""
    task_attribute: tuple[str, ...] = ()
    """Likewise the task."""
    pass_score: float | None = None
    """A score from here on passes; None: a full score on a scale from 0 to 1."""
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    @property
    def privacy(self) -> Privacy:
        return Privacy(self.redact, not self.no_payloads)

    def outcomes(self, labels: Sequence[str]) -> OutcomeOptions:
        """How the outcomes of a dataset with these files of labels are found."""
        keys = OutcomeKeys(self.outcome_attribute, self.task_attribute)
        return OutcomeOptions(keys, tuple(labels), self.pass_score)


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How the server runs questions. Field ``x`` has the variable ``HALO_MCP_ASK_X``."""

    wait_s: float = 45.0
    """After so long a call is answered with a job id, and the work goes on: many clients give up at 60 s."""
    max_jobs: int = 2
    """Questions at work at the same time."""
    total_tokens: int = 20_000_000
    """Input and output tokens that all questions to this server may use together."""
    total_usd: float | None = None
    """The same in US dollars; needs prices, see ``--prices``."""
    run_code: bool = True
    """Whether the server's own agent may run (sandboxed) Python, where clients may."""


def load_ask_settings(environ: Mapping[str, str] | None = None) -> AskSettings:
    """Raises: BadArgument."""
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for item in fields(AskSettings):
        key = f"HALO_MCP_ASK_{item.name.upper()}"
        if text := environ.get(key, "").strip():
            given[item.name] = _flag(key, text) if item.name == "run_code" else _positive(key, text, item.name)
    return AskSettings(**given)


def _flag(key: str, text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false"):
        raise BadArgument(f"{key}={text!r} is neither 1 nor 0.")
    return text.lower() in ("1", "true")


def _positive(key: str, text: str, name: str) -> float:
    try:
        value = int(text) if name in ("max_jobs", "total_tokens") else float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise BadArgument(f"{key}={text!r} is not a number above 0.")
    return value


def load_settings(
    *,
    index_dir: Path | None = None,
    deadline_s: float | None = None,
    roots: Sequence[Path] = (),
    prices: Path | None = None,
    soft_rules: str | None = None,
    redact: bool | None = None,
    no_payloads: bool | None = None,
    enable: Sequence[str] = (),
    disable: Sequence[str] = (),
    repo_path: Path | None = None,
    labels: Sequence[str] = (),
    outcome_attribute: Sequence[str] = (),
    task_attribute: Sequence[str] = (),
    pass_score: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from arguments (None and () mean "not given") and the environment. Raises: BadArgument."""
    environ = os.environ if environ is None else environ
    origins: dict[str, Origin] = {}

    def choose(name: str, given: str | None) -> str | None:
        if given is not None:
            origins[name] = "argument"
            return given
        value = environ.get(f"HALO_MCP_{name.upper()}", "").strip()
        origins[name] = "environment" if value else "default"
        return value or None

    directory = choose("index_dir", None if index_dir is None else str(index_dir))
    deadline = choose("deadline_s", None if deadline_s is None else str(deadline_s))
    listed = choose("roots", os.pathsep.join(map(str, roots)) or None)
    table = choose("prices", None if prices is None else str(prices))
    rules = choose("soft_rules", soft_rules)
    masked = choose("redact", None if redact is None else str(redact))
    withheld = choose("no_payloads", None if no_payloads is None else str(no_payloads))
    switched_on = choose("enable", ",".join(enable) or None)
    switched_off = choose("disable", ",".join(disable) or None)
    repository = choose("repo_path", None if repo_path is None else str(repo_path))
    label_files = choose("labels", os.pathsep.join(labels) or None)
    threshold = choose("pass_score", None if pass_score is None else str(pass_score))

    def chosen(name: str, given: Sequence[str]) -> tuple[str, ...]:
        if given:
            origins[name] = "argument"
        else:
            given = (choose(name, None) or "").split(",")
        return tuple(_attribute(name, key) for key in given if key or origins[name] == "argument")

    return Settings(
        index_dir=Path(directory).expanduser().absolute() if directory else _default_index_dir(),
        deadline_s=_positive_seconds(deadline) if deadline else DEFAULT_DEADLINE_S,
        roots=tuple(Path(root).expanduser().resolve() for root in (listed or "").split(os.pathsep) if root),
        prices=read_prices(Path(table).expanduser()) if table else None,
        soft_rules=_rules(rules) if rules else DEFAULT_RULES,
        redact=_flag("HALO_MCP_REDACT", masked) if masked else False,
        no_payloads=_flag("HALO_MCP_NO_PAYLOADS", withheld) if withheld else False,
        enable=_names(switched_on),
        disable=_names(switched_off),
        repo_path=Path(repository) if repository else None,
        labels=tuple(name for name in (label_files or "").split(os.pathsep) if name),
        outcome_attribute=chosen("outcome_attribute", outcome_attribute),
        task_attribute=chosen("task_attribute", task_attribute),
        pass_score=_score(threshold) if threshold else None,
        origins=origins,
    )


def _rules(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    names = () if names == ("none",) else names
    for name in names:
        if name not in RULE_NAMES:
            raise BadArgument(
                f"soft_rules: there is no rule {name!r} (--soft-rules, HALO_MCP_SOFT_RULES). Give none, or some of: "
                f"{', '.join(RULE_NAMES)}."
            )
    return names


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _attribute(name: str, key: str) -> str:
    option = f"--{name.replace('_', '-')}, HALO_MCP_{name.upper()}"
    if not key.strip() or len(key) > _KEY_CHARS or not key.isprintable():
        raise BadArgument(f"{name}={key[:_KEY_CHARS]!r} is no attribute key ({option}). Give one such as task.outcome.")
    return key.strip()


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise BadArgument(f"pass_score={text!r} is not a number (--pass-score, HALO_MCP_PASS_SCORE).")
    return score


def _positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadArgument(
            f"deadline_s={text!r} is not a number of seconds above 0 (--deadline-s, HALO_MCP_DEADLINE_S)."
        )
    return seconds


def _default_index_dir() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("halo-mcp", appauthor=False) / "index"


# --- serve --http -------------------------------------------------------------------------------------------------
DEFAULT_ADDRESS: Final = "127.0.0.1:8000"
_Kind = Literal["text", "path", "list", "count", "number"]


def _about(kind: _Kind, help_text: str) -> dict[str, Any]:
    return {"kind": kind, "help": help_text}


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How ``serve --http`` listens. Field ``x_y`` has the option ``--x-y`` and the variable ``HALO_MCP_HTTP_X_Y``.

    The option of a list is in the singular, and may be repeated.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    """0: one that is free."""
    token_file: Path | None = field(
        default=None, metadata=_about("path", "file with the bearer tokens that are accepted, one a line")
    )
    oauth_issuer: str = field(
        default="", metadata=_about("text", "accept tokens signed by this OAuth authorization server (its issuer URL)")
    )
    oauth_audience: str = field(
        default="", metadata=_about("text", "the audience such tokens must name; default: --public-url")
    )
    oauth_scopes: tuple[str, ...] = field(default=(), metadata=_about("list", "scopes such tokens must have"))
    oauth_jwks_url: str = field(
        default="", metadata=_about("text", "where the keys are; default: as the issuer's metadata says")
    )
    public_url: str = field(
        default="", metadata=_about("text", "the URL that clients use, when it is another: https://HOST/mcp")
    )
    allowed_hosts: tuple[str, ...] = field(
        default=(), metadata=_about("list", "further Host headers to answer: NAME or NAME:PORT")
    )
    allowed_origins: tuple[str, ...] = field(
        default=(), metadata=_about("list", "web pages that may call: SCHEME://HOST[:PORT]")
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(), metadata=_about("list", "addresses whose X-Forwarded-For and -Proto are believed")
    )
    tls_cert: Path | None = field(default=None, metadata=_about("path", "certificate chain (PEM), to serve https"))
    tls_key: Path | None = field(default=None, metadata=_about("path", "its private key (PEM)"))
    max_body_bytes: int = field(default=1_048_576, metadata=_about("count", "longest request body; answer 413"))
    request_timeout_s: float = field(
        default=30.0, metadata=_about("number", "seconds a request may take to arrive; answer 408")
    )
    rate_per_s: float = field(
        default=200.0, metadata=_about("number", "requests a client may send per second, on average; answer 429")
    )
    burst: int = field(default=500, metadata=_about("count", "requests a client may send at once; answer 429"))
    max_calls: int = field(default=32, metadata=_about("count", "calls of one client at the same time; answer 429"))
    max_streams: int = field(default=32, metadata=_about("count", "open event streams of one client; answer 429"))
    max_server_calls: int = field(
        default=128, metadata=_about("count", "calls of all clients at the same time; answer 503")
    )
    max_sessions: int = field(
        default=1_000, metadata=_about("count", "open sessions (protocol versions before 2026-07-28); answer 503")
    )
    max_connections: int = field(default=1_000, metadata=_about("count", "open connections; answer 503"))
    session_idle_s: float = field(
        default=1_800.0, metadata=_about("number", "seconds after which an idle session ends; then answer 404")
    )
    grace_s: float = field(
        default=3.0, metadata=_about("number", "seconds that running calls have to end after SIGTERM or SIGINT")
    )
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    @property
    def local(self) -> bool:
        """Whether only this machine is meant to connect; else a token is needed, and some tools are off."""
        return self.loopback and not (self.public_url or self.allowed_hosts or self.trusted_proxies)

    @property
    def loopback(self) -> bool:
        """Whether the address is one of this machine for itself."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # a name: whoever can reach what it stands for
            return False


def http_option(name: str) -> str:
    """The option of a field of HttpSettings; of a list it takes one value, and may be repeated."""
    kinds = {item.name: item.metadata["kind"] for item in http_options()}
    if kinds[name] == "list":
        name = re.sub("ie$", "y", name.removesuffix("s"))
    return f"--{name.replace('_', '-')}"


def http_options() -> list[Any]:
    """The fields of HttpSettings that have an option and a variable, in order."""
    return [item for item in fields(HttpSettings) if item.metadata]


def load_http_settings(
    address: str, given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> HttpSettings:
    """Settings from ``--http``, the other arguments (None and [] mean "not given") and the environment.

    Lists are separated by commas in the environment. Raises: BadArgument.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for item in http_options():
        found = (given or {}).get(item.name)
        key = f"HALO_MCP_HTTP_{item.name.upper()}"
        if found not in (None, []):
            origins[item.name] = "argument"
        elif found := environ.get(key, "").strip():
            origins[item.name] = "environment"
        else:
            origins[item.name] = "default"
            continue
        values[item.name] = _http_value(item.name, item.metadata["kind"], found)
    host, port = _address(address)
    return HttpSettings(host=host, port=port, origins=origins, **values)


def _http_value(name: str, kind: _Kind, found: Any) -> Any:
    if kind == "list":
        texts = [found] if isinstance(found, str) else found
        return tuple(part for text in texts for part in re.split(r"[,\s]+", text) if part)
    if kind == "path":
        return Path(found).expanduser()
    if kind == "text":
        return str(found)
    try:
        value = int(found) if kind == "count" else float(found)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise BadArgument(
            f"{name}={found!r} is not a number above 0 ({http_option(name)}, HALO_MCP_HTTP_{name.upper()})."
        )
    return value


def _address(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, [IPV6]:PORT, :PORT or PORT. Raises: BadArgument."""
    host, colon, port = text.rpartition(":")
    if text.isascii() and text.isdigit():
        host, colon, port = "", ":", text
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    whole = bool(colon) and port.isascii() and port.isdigit() and int(port) < 65_536
    if not whole or bracketed != _is_ipv6(host):
        raise BadArgument(
            f"--http takes HOST:PORT, not {text!r}: for example {DEFAULT_ADDRESS}, or 0.0.0.0:8000 for all interfaces. "
            "Name trace files before --http."
        )
    return host or "127.0.0.1", int(port)


def _is_ipv6(host: str) -> bool:
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False
