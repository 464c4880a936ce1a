"""A scripted OpenAI-compatible server on a loopback socket: both wires, faults at an exact place of the stream.

It sees what a real server sees: request bodies and headers, how many requests run at once, and clients that hang up.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.buffered import BufferedByteReceiveStream

Json = dict[str, Any]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Reply:
    """One scripted turn, sent on whichever wire is asked for."""

    text: str = ""
    refusal: str = ""
    finish: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    """(name, arguments); arguments as a string are sent as they are."""
    ids: Sequence[str | None] = ()
    """Call ids; made up when there are none."""
    usage: tuple[int, int, int] | None = (100, 20, 0)
    """(input, output, cached) tokens; None: the server reports none."""
    cost: float | None = None
    chunk: int = 8
    """Characters per delta."""
    cut_after: int | None = None
    """Close the socket after this many events."""
    end_after: int | None = None
    """End the body cleanly after this many events (negative: counted from the end)."""
    error_after: tuple[int, Json] | None = None
    """(N, error object) inside the stream."""
    garbage_after: int | None = None
    same_index: bool = False
    """Every parallel call has index 0."""
    object_arguments: bool = False
    """Chat: arguments arrive as an object, not as text."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the message that only this server knows (chat), or of a reasoning item (responses)."""
    before: Callable[[], Any] | None = None
    """Awaited before the first byte is sent."""


@dataclass
class Status:
    """An HTTP error."""

    code: int
    error: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    before: Callable[[], Any] | None = None
    """Awaited before the first byte is sent."""


@dataclass
class Hang:
    """No more bytes until the client hangs up."""

    after_headers: bool = True


@dataclass
class Raw:
    """A body that is sent as it is, and ended cleanly."""

    body: bytes


Step = Reply | Status | Hang | Raw
Script = Sequence[Step] | Callable[[Json], Step]


class FakeLLM:
    """The server. ``script``: steps in the order of the requests, or a function from a request to its step."""

    def __init__(self, script: Script) -> None:
        if callable(script):
            self._next: Callable[[Json], Step] = script
        else:
            steps = iter(script)
            self._next = lambda request: next(steps, Status(400, {"message": "the script is over"}))
        self.requests: list[Json] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.disconnects: list[int] = []
        self.active = self.max_active = self.sockets = 0
        self.hanging = anyio.Event()
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self._listener = listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._group.start_soon(listener.serve, self._connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        # Without the test's own error: the group would wrap it.
        await self._group.__aexit__(None, None, None)
        await self._listener.aclose()

    async def idle(self) -> None:
        """Until no request is being answered: a client that hung up is noticed a moment later."""
        with anyio.fail_after(10):
            while self.active:
                await anyio.lowlevel.checkpoint()

    async def _connection(self, socket: anyio.abc.SocketStream) -> None:
        self.sockets += 1
        reader = BufferedByteReceiveStream(socket)
        try:
            async with socket:
                while await self._exchange(socket, reader):
                    pass
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            self.sockets -= 1

    async def _exchange(self, socket: anyio.abc.SocketStream, reader: BufferedByteReceiveStream) -> bool:
        head = (await reader.receive_until(b"\r\n\r\n", 65_536)).decode()
        first, *lines = head.split("\r\n")
        headers = {key.lower(): value.strip() for key, value in (line.split(":", 1) for line in lines)}
        request: Json = json.loads(await reader.receive_exactly(int(headers.get("content-length", "0"))) or b"null")
        index = len(self.requests)
        self.requests.append(request)
        self.paths.append(first.split(" ")[1])
        self.headers.append(headers)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            return await self._answer(socket, request, index)
        finally:
            self.active -= 1

    async def _answer(self, socket: anyio.abc.SocketStream, request: Json, index: int) -> bool:
        """True when the connection is kept."""
        step, chat = self._next(request), self.paths[index].endswith("/chat/completions")
        if isinstance(step, Hang):
            if step.after_headers:
                await socket.send(HEAD)
            self.hanging.set()
            try:
                await socket.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.disconnects.append(index)
            return False
        if isinstance(step, Raw):
            await socket.send(HEAD)
            await self._chunk(socket, step.body)
            await socket.send(b"0\r\n\r\n")
            return True
        if step.before:
            await step.before()
        if isinstance(step, Status):
            error = step.error or {"message": f"status {step.code}", "code": None}
            return await self._plain(socket, step.code, {"error": error}, step.headers)
        if not request.get("stream"):
            repeated = {name: request[name] for name in ("instructions", "tools") if name in request}
            final = self._chat_final(step) if chat else self._responses_final(step) | repeated
            return await self._plain(socket, 200, final, {})
        await socket.send(HEAD)
        events = [*(self._chat(step, request) if chat else self._responses(step))]
        for number, event in enumerate(events):
            if number == step.cut_after:
                return False
            if step.end_after is not None and number == step.end_after % len(events):
                break
            if step.error_after and number == step.error_after[0]:
                await self._chunk(socket, _sse({"error": step.error_after[1]}))
            if number == step.garbage_after:
                await self._chunk(socket, b'data: {"id": "x", "choi\n\n')
            await self._chunk(socket, event)
        await socket.send(b"0\r\n\r\n")
        return True

    async def _plain(self, socket: anyio.abc.SocketStream, code: int, reply: Json, headers: Mapping[str, str]) -> bool:
        data = json.dumps(reply).encode()
        lines = [f"HTTP/1.1 {code} X", "content-type: application/json", f"content-length: {len(data)}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        await socket.send("\r\n".join([*lines, "", ""]).encode() + data)
        return True

    async def _chunk(self, socket: anyio.abc.SocketStream, data: bytes) -> None:
        await socket.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _calls(self, reply: Reply) -> list[tuple[str | None, str, Any]]:
        ids = reply.ids or [f"call_{next(self._ids)}" for _ in reply.calls]
        return [
            (
                call_id,
                name,
                arguments if isinstance(arguments, str) or reply.object_arguments else json.dumps(arguments),
            )
            for call_id, (name, arguments) in zip(ids, reply.calls, strict=True)
        ]

    def _usage(self, reply: Reply, sent: str, received: str) -> Json | None:
        if reply.usage is None:
            return None
        given, made, cached = reply.usage
        counts: Json = {f"{sent}_tokens": given, f"{received}_tokens": made, "total_tokens": given + made}
        counts[f"{sent}_tokens_details"] = {"cached_tokens": cached}
        return counts if reply.cost is None else {**counts, "cost": reply.cost}

    def _chat(self, reply: Reply, request: Json) -> Iterator[bytes]:
        base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}

        def event(delta: Json, finish: str | None = None) -> bytes:
            return _sse({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        yield event({"role": "assistant", **reply.extra})
        for key, value in (("content", reply.text), ("refusal", reply.refusal)):
            for part in _split(value, reply.chunk):
                yield event({key: part})
        for index, (call_id, name, arguments) in enumerate(self._calls(reply)):
            slot = 0 if reply.same_index else index
            function = {"name": name, "arguments": arguments if reply.object_arguments else ""}
            yield event({"tool_calls": [{"index": slot, "id": call_id, "type": "function", "function": function}]})
            if not reply.object_arguments:
                for part in _split(arguments, reply.chunk):
                    yield event({"tool_calls": [{"index": slot, "function": {"arguments": part}}]})
        yield event({}, reply.finish or ("tool_calls" if reply.calls else "stop"))
        options: Json = request.get("stream_options", {})
        if options.get("include_usage") and reply.usage:
            yield _sse({**base, "choices": [], "usage": self._usage(reply, "prompt", "completion")})
        yield b"data: [DONE]\n\n"

    def _chat_final(self, reply: Reply) -> Json:
        message: Json = {"role": "assistant", "content": reply.text or None, **reply.extra}
        if reply.refusal:
            message["refusal"] = reply.refusal
        if reply.calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in self._calls(reply)
            ]
        finish = reply.finish or ("tool_calls" if reply.calls else "stop")
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": self._usage(reply, "prompt", "completion"),
        }

    def _responses(self, reply: Reply) -> Iterator[bytes]:
        numbers, whole = itertools.count(), self._responses_final(reply)

        def event(kind: str, **facts: Any) -> bytes:
            data = {"type": kind, "sequence_number": next(numbers), **facts}
            return f"event: {kind}\n".encode() + _sse(data)

        yield event("response.created", response={**whole, "output": [], "status": "in_progress"})
        for index, item in enumerate(whole["output"]):
            yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
            kind, value = "", ""
            if item["type"] == "function_call":
                kind, value = "function_call_arguments", item["arguments"]
            elif item["type"] == "message":
                kind, value = ("output_text", reply.text) if reply.text else ("refusal", reply.refusal)
            for part in _split(value, reply.chunk):
                yield event(
                    f"response.{kind}.delta", item_id=item["id"], output_index=index, content_index=0, delta=part
                )
            yield event("response.output_item.done", output_index=index, item=item)
        yield event(f"response.{whole['status']}", response=whole)

    def _responses_final(self, reply: Reply) -> Json:
        output: list[Json] = []
        if reply.extra:
            output.append({"type": "reasoning", "id": "rs_1", "summary": [], **reply.extra})
        content: list[Json] = []
        if reply.text:
            content.append({"type": "output_text", "text": reply.text, "annotations": []})
        if reply.refusal:
            content.append({"type": "refusal", "refusal": reply.refusal})
        if content:
            output.append(
                {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
            )
        output += [
            {
                "type": "function_call",
                "id": f"fc_{number}",
                "call_id": call_id,
                "name": name,
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                "status": "completed",
            }
            for number, (call_id, name, arguments) in enumerate(self._calls(reply))
        ]
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "status": "incomplete" if reply.finish in reasons else "completed",
            "incomplete_details": {"reason": reasons[reply.finish]} if reply.finish in reasons else None,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": self._usage(reply, "input", "output"),
        }


def _split(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _sse(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


class Meeting:
    """Lets nobody pass before so many have come; to be used as ``before``."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._all = anyio.Event()

    async def __call__(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._all.set()
        with anyio.fail_after(10):
            await self._all.wait()


def answer(text: str = "done", **arguments: Any) -> Reply:
    """A turn that ends an agent."""
    return Reply(calls=[("final_answer", {"answer": text, **arguments})])


def conversation(request: Json) -> list[Json]:
    """The messages of a request on either wire, oldest first, without the system prompt."""
    messages: list[Json] = request["input"] if "input" in request else request["messages"][1:]
    return messages


def tool_results(request: Json) -> dict[str, str]:
    """What the model is shown of each tool call, by call id; an id that occurs twice fails the test."""
    shown: dict[str, str] = {}
    for message in conversation(request):
        if message.get("role") == "tool" or message.get("type") == "function_call_output":
            call_id = str(message.get("tool_call_id") or message.get("call_id"))
            assert call_id not in shown, f"two results for {call_id}"
            shown[call_id] = str(message.get("content") or message.get("output"))
    return shown


def asked_calls(request: Json) -> list[str]:
    """The ids of all tool calls in a request's history."""
    found: list[str] = []
    for message in conversation(request):
        calls: list[Json] = message.get("tool_calls", [])
        found += [str(call["id"]) for call in calls]
        if message.get("type") == "function_call":
            found.append(str(message["call_id"]))
    return found
