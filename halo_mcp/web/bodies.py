"""Answers that are not lost: a request is read to its end before it is answered."""

from __future__ import annotations

from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATIENCE_S: Final = 1.0


class ReadFirst:
    """ASGI: throws away what is left of a request's body before the answer goes out, for at most a second.

    A request can be refused for what its head says while its body is on the way. The connection is then closed, and a
    connection that is closed on unread bytes is reset, which takes the answer away from a client that has not read it
    yet (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Who expects "100 Continue" sends nothing before it was read from.
        left = ("content-length" in headers or "transfer-encoding" in headers) and "expect" not in headers

        async def reading() -> Message:
            nonlocal left
            message = await receive()
            left = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def answering(message: Message) -> None:
            nonlocal left
            with anyio.move_on_after(_PATIENCE_S):
                while left:
                    await reading()
            left = False
            await send(message)

        await self.app(scope, reading, answering)
