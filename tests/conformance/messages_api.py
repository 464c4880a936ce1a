"""A messages API on a loopback socket that plays a model: it calls the tools that a script says, turn by turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

Json = dict[str, Any]
LAST_WORDS: Final = "That is all."


class ToolUse(NamedTuple):
    """A call that the model makes."""

    name: str
    arguments: Json


Turn = Sequence[ToolUse]


class Seen(NamedTuple):
    """What the model was given back for a call."""

    blocks: list[Json]
    is_error: bool

    @property
    def text(self) -> str:
        """Of its only block."""
        (block,) = self.blocks
        assert block["type"] == "text", block
        return str(block["text"])


@dataclass
class ScriptedModel:
    """The server. After the last turn of the script the model has nothing more to say."""

    script: Sequence[Turn]
    requests: list[Json] = field(default_factory=list[Json])
    """Bodies of the requests that offered tools, in order."""

    def __enter__(self) -> Self:
        model = self

        class Handler(_Handler):
            def answer(self, request: Json) -> list[Json]:
                return model._answer(request)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, request: Json) -> list[Json]:
        """The content blocks of the next turn."""
        if not request.get("tools"):  # a title for the conversation, and the like
            return [_text("ok")]
        self.requests.append(request)
        turn = sum(1 for message in request["messages"] if _blocks(message, "tool_use"))
        if turn >= len(self.script):
            return [_text(LAST_WORDS)]
        return [
            {"type": "tool_use", "id": f"call_{turn}_{number}", "name": use.name, "input": use.arguments}
            for number, use in enumerate(self.script[turn])
        ]

    def seen(self, turn: int = 0) -> list[Seen]:
        """What came back for the calls of a turn, in the order of the calls."""
        results: Mapping[str, Json] = {
            block["tool_use_id"]: block
            for message in self.requests[-1]["messages"]
            for block in _blocks(message, "tool_result")
        }
        found = [results[f"call_{turn}_{number}"] for number in range(len(self.script[turn]))]
        return [Seen(as_blocks(result["content"]), bool(result.get("is_error"))) for result in found]


def _blocks(message: Json, kind: str) -> list[Json]:
    return [block for block in as_blocks(message["content"]) if block["type"] == kind]


def as_blocks(content: Any) -> list[Json]:
    """Content as the API has it, which may be text alone."""
    return [_text(content)] if isinstance(content, str) else list(content)


def _text(words: str) -> Json:
    return {"type": "text", "text": words}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, request: Json) -> list[Json]:
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._json(None)

    def do_GET(self) -> None:
        self._json({"data": [], "has_more": False})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        path = self.path.split("?")[0]
        if path.endswith("/count_tokens"):
            self._json({"input_tokens": 10})
        elif path.endswith("/messages"):
            self._stream(self.answer(json.loads(body)))
        else:
            self._json({})

    def _json(self, content: Json | None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, blocks: Sequence[Json]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        usage = {"input_tokens": 1, "output_tokens": 1}
        # Messages of one id would be taken for parts of one message.
        message: Json = {
            "id": f"msg_{uuid4()}",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "usage": usage,
        }
        self._event("message_start", message={**message, "stop_reason": None, "stop_sequence": None})
        for index, block in enumerate(blocks):
            if block["type"] == "text":
                empty: Json = {**block, "text": ""}
                delta = {"type": "text_delta", "text": block["text"]}
            else:
                words = json.dumps(block["input"])
                empty = {**block, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": words}
            self._event("content_block_start", index=index, content_block=empty)
            self._event("content_block_delta", index=index, delta=delta)
            self._event("content_block_stop", index=index)
        reason = "tool_use" if blocks[0]["type"] == "tool_use" else "end_turn"
        self._event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 1})
        self._event("message_stop")
        self.close_connection = True

    def _event(self, name: str, **data: Any) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode())
