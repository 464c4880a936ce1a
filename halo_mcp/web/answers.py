"""Refusals in the form that MCP clients read: a JSON-RPC error with an HTTP status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST
from starlette.types import Send


async def refuse(
    send: Send, status: int, message: str, *, request_id: Any = None, headers: Mapping[str, str] | None = None
) -> None:
    """Answer one request with an error. The connection closes."""
    code = INTERNAL_ERROR if status >= 500 else INVALID_REQUEST
    error = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
    body = json.dumps(error).encode()
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **(headers or {}),
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def refuse_for_now(send: Send, status: int, message: str, after_s: int, request_id: Any = None) -> None:
    """Answer 429 or 503: the same request may succeed after so many seconds."""
    await refuse(send, status, message, request_id=request_id, headers={"retry-after": str(after_s)})
