"""What leaves the server: with ``--redact`` every result, error and progress message of every method is masked here.

Tools and resources read masked text already (``index/privacy.py``); this is for all that does not come from spans:
names in the index, records of earlier runs, arguments repeated in errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from pydantic import BaseModel

from halo_mcp.index.privacy import Privacy


class Outgoing:
    """Middleware of a server."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        session = cast("Any", _MaskedProgress(ctx.session, self._privacy))
        try:
            result = await call_next(replace(ctx, session=session))
        except MCPError as error:
            masked = self._privacy.of_json(error.error.model_dump(mode="json"))
            raise MCPError(masked["code"], masked["message"], masked.get("data")) from None
        if isinstance(result, BaseModel):
            return self._privacy.of_json(result.model_dump(by_alias=True, mode="json", exclude_none=True))
        return self._privacy.of_json(result) if isinstance(result, Mapping) else result


class _MaskedProgress:
    """A session whose progress messages are masked; all else is the session's own."""

    def __init__(self, session: Any, privacy: Privacy) -> None:
        self._session = session
        self._privacy = privacy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        await self._session.report_progress(progress, total, message and self._privacy.of_text(message))
