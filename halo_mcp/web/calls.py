"""Requests on their way to the MCP server: read within limits, ended when the client leaves or the server stops.

The protocol version 2026-07-28 says that closing the connection cancels a request, and the SDK does that. Before, a
session went on with a request whose connection was closed; but no one could ever read its answer here (streams cannot
be resumed), so it is cancelled like the client would: by ``notifications/cancelled`` in its session.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import principal_components
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from halo_mcp.config import HttpSettings
from halo_mcp.web.answers import refuse, refuse_for_now
from halo_mcp.web.limits import Limits, TooMuch

MCP_PATH: Final = "/mcp"
_SESSION: Final = "mcp-session-id"
_LISTEN: Final = "subscriptions/listen"


class _BodyTooLarge(Exception):
    pass


class _Disconnected(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Posted:
    """What a body says of itself; a body that is no JSON-RPC message is for the SDK to refuse."""

    body: bytes = b""
    id: Any = None
    method: str = ""

    @property
    def wants_answer(self) -> bool:
        return self.id is not None


class Calls:
    """ASGI: everything for MCP_PATH passes through here; the rest goes on as it is."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self.app = app
        self.settings = settings
        self.limits = Limits(settings)
        self._stopping = False
        self._calls: set[anyio.CancelScope] = set()
        self._streams: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()

    async def stop(self) -> None:
        """Refuse what is new, end streams, give running calls a moment, then cancel them."""
        self._stopping = True
        for scope in [*self._streams]:
            scope.cancel()
        with anyio.move_on_after(self.settings.grace_s):
            while self._calls:
                await self._changed.wait()
        for scope in [*self._calls]:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != MCP_PATH:
            await self.app(scope, receive, send)
            return
        if self._stopping:
            await refuse_for_now(send, 503, "The server is shutting down.", 1)
            return
        posted = _Posted()
        try:
            client = client_of(scope)
            self.limits.request(client)
            if scope["method"] == "POST":
                with self.limits.using(client, "reading"), anyio.fail_after(self.settings.request_timeout_s):
                    posted = _posted(await self._body(scope, receive))
            if scope["method"] == "GET" or posted.method == _LISTEN:
                with self.limits.using(client, "stream"), self._cancellable(self._streams) as ending:
                    await self._pass_on(scope, receive, send, posted, ending)
            elif posted.wants_answer:
                with self.limits.using(client, "call"), self._cancellable(self._calls) as ending:
                    await self._pass_on(scope, receive, send, posted, ending)
            else:  # notifications: a client with all its calls at work must still be able to cancel one
                await self.app(scope, _replay(posted.body, receive), send)
        except TooMuch as error:
            await refuse_for_now(send, 503 if error.by_all else 429, str(error), error.after_s, posted.id)
        except _BodyTooLarge:
            most = self.settings.max_body_bytes
            await refuse(send, 413, f"The request is too large: a body may have {most:,} bytes.")
        except TimeoutError:
            await refuse(send, 408, f"The request did not arrive within {self.settings.request_timeout_s:g} s.")
        except _Disconnected:
            return

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises: _BodyTooLarge, _Disconnected."""
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self.settings.max_body_bytes:
            raise _BodyTooLarge
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Disconnected
            body += message.get("body", b"")
            if len(body) > self.settings.max_body_bytes:
                raise _BodyTooLarge
            if not message.get("more_body", False):
                return bytes(body)

    @contextmanager
    def _cancellable(self, among: set[anyio.CancelScope]) -> Generator[anyio.CancelScope]:
        scope = anyio.CancelScope()
        among.add(scope)
        try:
            yield scope
        finally:
            among.discard(scope)
            self._changed.set()
            self._changed = anyio.Event()

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, posted: _Posted, ending: anyio.CancelScope
    ) -> None:
        started = finished = False

        async def watched(message: Message) -> None:
            nonlocal started, finished
            started = started or message["type"] == "http.response.start"
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        gone = False
        replayed = _replay(posted.body, receive) if scope["method"] == "POST" else receive

        async def heard() -> Message:
            nonlocal gone
            message = await replayed()
            gone = gone or (message["type"] == "http.disconnect" and not finished)
            return message

        try:
            with ending:
                await self.app(scope, heard, watched)
        finally:
            if (gone or not finished) and posted.wants_answer and _SESSION in Headers(scope=scope):
                with anyio.CancelScope(shield=True):
                    await self._cancel_in_session(scope, posted)
        if ending.cancelled_caught and not started:
            await refuse_for_now(send, 503, "The server is shutting down.", 1, posted.id)
        elif ending.cancelled_caught and not finished:
            await send({"type": "http.response.body", "body": b""})

    async def _cancel_in_session(self, scope: Scope, posted: _Posted) -> None:
        """Post ``notifications/cancelled`` where the request was posted."""
        params = {"requestId": posted.id, "reason": "the connection was closed"}
        body = json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode()
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(body)).encode()))

        async def nobody(_: Message) -> None:
            return

        async def no_more() -> Message:
            return {"type": "http.disconnect"}

        await self.app({**scope, "headers": headers}, _replay(body, no_more), nobody)


def client_of(scope: Scope) -> str:
    """Whose limits count: the token's owner, or the address."""
    user = scope.get("user")
    if isinstance(user, AuthenticatedUser):
        return "token " + " ".join(part or "" for part in principal_components(user.access_token))
    address = scope.get("client")
    return f"address {address[0] if address else ''}"


def _posted(body: bytes) -> _Posted:
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return _Posted(body)
    if not isinstance(message, dict):
        return _Posted(body)
    members = cast("dict[str, Any]", message)
    identifier, method = members.get("id"), members.get("method")
    known = isinstance(identifier, str | int) and isinstance(method, str)
    return _Posted(body, identifier if known else None, str(method) if known else "")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, then what else arrives."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
