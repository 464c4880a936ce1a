"""Host and Origin headers: a web page that has its own name resolve to this server must not be answered.

A page can send requests here in two ways: to another origin (its Origin header tells), or to its own name after that
was made to point at this machine (DNS rebinding; its Host header tells). A rebound name is a name: an address as Host
is never one.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from halo_mcp.config import HttpSettings
from halo_mcp.errors import BadArgument
from halo_mcp.web.answers import refuse

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_USUAL_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Names:
    """What this server is called. Ports are None where any will do."""

    hosts: frozenset[tuple[str, int | None]]
    origins: frozenset[tuple[str, str, int]]
    any_address: bool = False
    """Whether every IP address is a name of it: it listens on all."""
    usual_port: int = 80

    def answers_host(self, header: str) -> bool:
        """Whether a Host header (or the authority of an Origin) names this server."""
        parsed = _host_port(header)
        if parsed is None:
            return False
        host, port = parsed
        port = self.usual_port if port is None else port
        return (
            (host, port) in self.hosts
            or (host, None) in self.hosts
            or (self.any_address and _address(host) is not None)
        )

    def answers_origin(self, header: str) -> bool:
        """Whether a page of this origin may call."""
        try:
            return _origin(header) in self.origins
        except ValueError:  # "null", and whatever else is no origin
            return False


def names_of(settings: HttpSettings, port: int) -> Names:
    """The names of a server that listens on ``port``. Raises: BadArgument."""
    scheme = "https" if settings.tls_cert else "http"
    bound = _LOOPBACK if settings.loopback else (settings.host.lower(),)
    hosts: set[tuple[str, int | None]] = {(_normal(host), port) for host in bound}
    origins = {(scheme, _normal(host), port) for host in bound}
    for text in settings.allowed_hosts:
        parsed = _host_port(text)
        if parsed is None:
            raise BadArgument(f"--allowed-host takes NAME or NAME:PORT, not {text!r}.")
        hosts.add(parsed)
    for text in (*settings.allowed_origins, *([settings.public_url] if settings.public_url else [])):
        try:
            origins.add(_origin(text))
        except ValueError:
            raise BadArgument(f"{text!r} is no origin: give SCHEME://HOST or SCHEME://HOST:PORT.") from None
    if settings.public_url:
        _, host, public_port = _origin(settings.public_url)
        # A proxy may pass on the Host header with the port, without it, or with its own.
        hosts |= {(host, public_port), (host, port), (host, _USUAL_PORTS[scheme])}
    address = _address(settings.host)
    return Names(
        frozenset(hosts),
        frozenset(origins),
        any_address=address is not None and address.is_unspecified,
        usual_port=_USUAL_PORTS[scheme],
    )


def _origin(text: str) -> tuple[str, str, int]:
    """(scheme, host, port). Raises: ValueError."""
    parts = urlsplit(text.strip())
    if parts.scheme not in _USUAL_PORTS or not parts.hostname or parts.username is not None:
        raise ValueError(text)
    return parts.scheme, _normal(parts.hostname), parts.port or _USUAL_PORTS[parts.scheme]


def _host_port(text: str) -> tuple[str, int | None] | None:
    """What a Host header says; None when it is none."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.netloc != text or parts.username is not None:
            return None
        return _normal(parts.hostname), parts.port
    except ValueError:
        return None


def _normal(host: str) -> str:
    """One spelling of a name or address."""
    address = _address(host)
    return str(address) if address else host.lower().removesuffix(".")


def _address(host: str):
    try:
        return ip_address(host)
    except ValueError:
        return None


class OnlyForUs:
    """Answers 421 to requests for another host and 403 to pages of another origin; the rest goes on."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            hosts, origins = headers.getlist("host"), headers.getlist("origin")
            if len(hosts) != 1 or not self.names.answers_host(hosts[0]):
                await refuse(send, 421, "This server does not go by the name in the Host header (--allowed-host).")
                return
            if not all(self.names.answers_origin(origin) for origin in origins):
                await refuse(send, 403, "Pages of this Origin may not call this server (--allowed-origin).")
                return
        await self.app(scope, receive, send)
