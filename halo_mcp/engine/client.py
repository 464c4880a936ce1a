"""One endpoint: the lazily made SDK client, and what was learned about the server behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import anyio

from halo_mcp.engine.failures import Quirks, redact
from halo_mcp.engine.settings import LLMSettings, Wire
from halo_mcp.engine.streams import ChatStream, ResponsesStream, chat_turn, responses_turn
from halo_mcp.engine.types import Json, Turn, well_formed_json
from halo_mcp.engine.wires import PATHS, Request, body
from halo_mcp.errors import EngineUnavailable, MalformedReply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "not-needed"
"""Sent to local servers that want no key; the SDK refuses to start without one."""
CONNECT_S = 5.0
_CHATTY = ("openai", "httpx2", "httpcore2")
"""Loggers that write whole requests below WARNING: trace text, and headers that hold keys."""


class Endpoint:
    """Sends requests; one per process, shared by all runs. Importing ``openai`` waits for the first request."""

    def __init__(self, settings: LLMSettings) -> None:
        self.settings = settings
        self.secrets = settings.secrets
        """Taken out of everything that leaves the engine."""
        self._client: AsyncOpenAI | None = None
        self._quirks: dict[str, Quirks] = {}

    def quirks(self, model: str) -> Quirks:
        """What was learned about a model at this endpoint."""
        return self._quirks.setdefault(model, Quirks())

    def wire(self, model: str) -> Wire:
        return self.quirks(model).wire or self.settings.first_wire

    async def client(self) -> AsyncOpenAI:
        """The SDK's client. Its own retries are off: they know neither deadlines nor the other agents of a run."""
        if self._client is None:
            self.settings.require()
            try:
                made = await anyio.to_thread.run_sync(self._make)
            except Exception as error:  # a certificate file, a proxy or a header of the environment
                why = redact(f"{type(error).__name__}: {error}", self.secrets)
                raise EngineUnavailable(f"its client cannot be made ({why})") from error
            if self._client is None:
                self._client = made
            else:  # another request was faster; an open client would be left behind
                await made.close()
        return self._client

    def _make(self) -> AsyncOpenAI:
        import httpx2
        from openai import AsyncOpenAI

        for name in _CHATTY:  # after the import, which obeys OPENAI_LOG
            logging.getLogger(name).setLevel(logging.WARNING)
        return AsyncOpenAI(
            base_url=self.settings.endpoint,
            api_key=self.settings.api_key or NO_KEY,
            max_retries=0,
            timeout=httpx2.Timeout(self.settings.idle_s, connect=min(CONNECT_S, self.settings.idle_s)),
            default_headers=dict(self.settings.headers),
        )

    async def ask(self, request: Request, on_text: Callable[[str], None]) -> Turn:
        """One reply of the model. Raises: MalformedReply and whatever the SDK raises; nothing is repeated."""
        wire, quirks = self.wire(request.model), self.quirks(request.model)
        stream = not quirks.no_stream
        sent = self.settings.mask(well_formed_json(body(request, wire, self.settings, quirks, stream=stream)))
        if stream:
            return await self._streamed(wire, sent, on_text)
        reply = await (await self.client()).post(PATHS[wire], body=sent, cast_to=object)
        if not isinstance(reply, dict):
            raise MalformedReply("the reply is no JSON object")
        turn = chat_turn(cast("Json", reply)) if wire == "chat" else responses_turn(cast("Json", reply))
        on_text(turn.text)
        return turn

    async def _streamed(self, wire: Wire, sent: Json, on_text: Callable[[str], None]) -> Turn:
        from openai import AsyncStream

        whole = ChatStream() if wire == "chat" else ResponsesStream()
        client = await self.client()
        events = await client.post(PATHS[wire], body=sent, cast_to=object, stream=True, stream_cls=AsyncStream[object])
        try:
            async for event in events:
                if not isinstance(event, dict):
                    raise MalformedReply("an event of the stream is no JSON object")
                if text := whole.feed(cast("Json", event)):
                    on_text(text)
        finally:
            # Shielded: a cancelled request must still give its socket back.
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await events.response.aclose()
        return whole.finish()

    async def aclose(self) -> None:
        """Close every connection; the endpoint can be used again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
