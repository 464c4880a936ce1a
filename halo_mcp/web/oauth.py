"""Access tokens of an OAuth authorization server: JWTs (RFC 9068), checked with the keys that it publishes."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import jwt
from jwt.exceptions import PyJWKClientConnectionError
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthenticationError

from halo_mcp.errors import BadArgument

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Public-key signatures only: with "none" or a shared secret anyone could make tokens."""
FETCH_S: Final = 5.0
KEYS_S: Final = 300.0
"""How long fetched keys are used."""
COOLDOWN_S: Final = 10.0
"""Unknown key ids make the keys be fetched again at most this often."""
LEEWAY_S: Final = 10.0
"""How far clocks may differ, for "not before" and "issued at"."""
_METADATA_BYTES: Final = 1_000_000
_log = logging.getLogger(__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What another place says counts for nothing."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


class NoKeys(AuthenticationError):
    """The keys of the authorization server cannot be had: no token can be judged now."""


class JwtTokens:
    """The SDK's TokenVerifier for tokens of one issuer, made for one audience."""

    def __init__(self, issuer: str, audience: str, jwks_url: str = "") -> None:
        """Raises: BadArgument, for a URL over which keys could be forged."""
        for url in filter(None, (issuer, jwks_url)):
            _check_url(url)
        self.issuer = issuer
        self.audience = audience
        self._jwks_url = jwks_url
        self._keys: jwt.PyJWKClient | None = None
        self._finding = threading.Lock()
        self._threads = anyio.CapacityLimiter(4)

    async def verify_token(self, token: str) -> AccessToken | None:
        """What a valid token grants; None for any other. Raises: NoKeys."""
        try:
            claims = await anyio.to_thread.run_sync(self._claims, token, limiter=self._threads)
        except (PyJWKClientConnectionError, OSError) as error:
            _log.warning("the keys of %s cannot be fetched: %s", self.issuer, error)
            raise NoKeys("The authorization server's keys cannot be fetched now.") from error
        except (jwt.PyJWTError, ValueError) as error:
            _log.info("a token was refused: %s", error)
            return None
        subject = claims.get("sub")
        return AccessToken(
            token="",
            client_id=str(claims.get("client_id") or claims.get("azp") or subject or ""),
            scopes=_scopes(claims),
            expires_at=int(claims["exp"]),
            resource=self.audience,
            subject=None if subject is None else str(subject),
            claims={"iss": claims["iss"]},
        )

    def _claims(self, token: str) -> dict[str, Any]:
        """Raises: jwt.PyJWTError, OSError, ValueError."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:  # before keys are fetched for it
            raise jwt.InvalidAlgorithmError(f"algorithm {header.get('alg')!r}")
        key = self._client().get_signing_key_from_jwt(token)
        return jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self.audience,
            issuer=self.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud"]},
        )

    def _client(self) -> jwt.PyJWKClient:
        with self._finding:
            if self._keys is None:
                url = self._jwks_url or _jwks_of(self.issuer)
                self._keys = jwt.PyJWKClient(url, timeout=FETCH_S, lifespan=KEYS_S, cooldown_duration=COOLDOWN_S)
            return self._keys


def _scopes(claims: dict[str, Any]) -> list[str]:
    """``scope`` (RFC 9068), or ``scp`` as some servers write it."""
    said: Any = claims.get("scope") or claims.get("scp") or ""
    if isinstance(said, str):
        return said.split()
    return [str(scope) for scope in cast("list[Any]", said)] if isinstance(said, list) else []


def _jwks_of(issuer: str) -> str:
    """Where an issuer's metadata (RFC 8414, else OpenID Connect) says its keys are. Raises: OSError, ValueError."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    base = f"{parts.scheme}://{parts.netloc}"
    found: list[str] = []
    for url in (
        f"{base}/.well-known/oauth-authorization-server{path}",
        f"{base}{path}/.well-known/openid-configuration",
    ):
        try:
            with urllib.request.build_opener(_NoRedirects).open(url, timeout=FETCH_S) as response:
                metadata: Any = json.loads(response.read(_METADATA_BYTES))
        except (OSError, ValueError) as error:
            found.append(f"{url}: {error}")
            continue
        if isinstance(metadata, dict):
            said = cast("dict[str, Any]", metadata)
            keys = said.get("jwks_uri")
            if said.get("issuer") == issuer and isinstance(keys, str):
                if _is_safe(keys):
                    return keys
                found.append(f"{url}: its jwks_uri is not https")
                continue
        found.append(f"{url}: no metadata of this issuer")
    raise OSError("; ".join(found))


def _check_url(url: str) -> None:
    """Raises: BadArgument."""
    if not _is_safe(url):
        raise BadArgument(f"{url!r} must be an https URL: what it answers decides whose tokens are accepted.")


def _is_safe(url: str) -> bool:
    """Whether nobody between can change what it answers."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # such as half an IPv6 address
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
