"""Who may use the server: everyone on this machine, holders of a token, or of an access token of an OAuth server."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Final

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from halo_mcp.config import HttpSettings
from halo_mcp.errors import BadArgument
from halo_mcp.web.oauth import JwtTokens
from halo_mcp.web.tokens import StaticTokens, new_token, read_tokens

HEALTH_PATH: Final = "/healthz"


@dataclass(frozen=True, slots=True)
class Access:
    """What is asked of a request. Without a verifier: nothing."""

    verifier: TokenVerifier | None = None
    scopes: list[str] = field(default_factory=list[str])
    resource: AnyHttpUrl | None = None
    """The URL clients know the server by, where an OAuth server issues tokens for it."""
    routes: list[Route] = field(default_factory=list[Route])
    """Its public metadata (RFC 9728)."""


def access_of(settings: HttpSettings) -> Access:
    """What the settings ask for: always something where others can connect. Prints a token that it makes.

    Raises: BadArgument.
    """
    if settings.oauth_issuer and settings.token_file:
        raise BadArgument("Give --token-file or --oauth-issuer, not both.")
    if settings.oauth_issuer:
        return _oauth(settings)
    if settings.token_file:
        return Access(StaticTokens(read_tokens(settings.token_file)))
    if settings.local:
        return Access()
    token = new_token()
    sys.stderr.write(
        f"halo-mcp: others can connect, so clients must send this token: Authorization: Bearer {token}\n"
        "halo-mcp: it ends with this process; --token-file FILE gives lasting ones.\n"
    )
    return Access(StaticTokens([token]))


def _oauth(settings: HttpSettings) -> Access:
    audience = settings.oauth_audience or settings.public_url
    if not audience:
        raise BadArgument("--oauth-issuer needs --oauth-audience (or --public-url): for whom must tokens be made?")
    verifier = JwtTokens(settings.oauth_issuer, audience, settings.oauth_jwks_url)
    scopes = [*settings.oauth_scopes]
    if not (url := settings.public_url):
        return Access(verifier, scopes)
    resource, issuer = _url(url), _url(settings.oauth_issuer)
    return Access(verifier, scopes, resource, create_protected_resource_routes(resource, [issuer], scopes or None))


def _url(text: str) -> AnyHttpUrl:
    """As it was written: clients compare an issuer letter by letter (RFC 8414, section 3.3). Raises: BadArgument."""
    try:
        return TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True)).validate_python(text)
    except ValueError:
        raise BadArgument(f"{text!r} is no URL.") from None


class OnlyWithToken:
    """ASGI: all paths but the public ones ask for a token that the verifier accepts (401), with all scopes (403)."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        assert access.verifier
        metadata = build_resource_metadata_url(access.resource) if access.resource else None
        required = RequireAuthMiddleware(AuthContextMiddleware(app), access.scopes, metadata)
        backend = BearerAuthBackend(access.verifier)
        self.guarded = AuthenticationMiddleware(required, backend=backend, on_error=_not_now)
        self.app = app
        self.public = {HEALTH_PATH, *(route.path for route in access.routes)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        free = scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self.public)
        await (self.app if free else self.guarded)(scope, receive, send)


def _not_now(_: HTTPConnection, error: Exception) -> Response:
    return JSONResponse(
        {"error": "temporarily_unavailable", "error_description": str(error)}, 503, headers={"retry-after": "10"}
    )
