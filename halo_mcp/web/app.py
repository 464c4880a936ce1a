"""The ASGI application: the SDK's endpoint for both protocol eras behind our own checks."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from halo_mcp import __version__
from halo_mcp.config import HttpSettings
from halo_mcp.web.access import HEALTH_PATH, Access, OnlyWithToken
from halo_mcp.web.bodies import ReadFirst
from halo_mcp.web.calls import MCP_PATH, Calls
from halo_mcp.web.hosts import Names, OnlyForUs


def web_app(server: MCPServer[Any], settings: HttpSettings, access: Access, names: Names) -> tuple[ASGIApp, Calls]:
    """The application and the part of it that ends calls. Outermost first: Host and Origin, token, limits, MCP."""

    @server.custom_route(HEALTH_PATH, methods=["GET"])
    async def health(_: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"status": "ok", "version": __version__})

    endpoint = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=settings.max_body_bytes,
        session_idle_timeout=settings.session_idle_s,
        max_sessions=settings.max_sessions,
        # OnlyForUs has checked already; the SDK's own check knows no names but of this machine.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    endpoint.router.routes.extend(access.routes)
    calls = Calls(endpoint, settings)
    app: ASGIApp = OnlyWithToken(calls, access) if access.verifier else calls
    if settings.allowed_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id", "WWW-Authenticate", "Retry-After"],
        )
    return ReadFirst(OnlyForUs(app, names)), calls
