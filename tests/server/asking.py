"""A server whose agent talks to the scripted loopback model, and a client that asks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client

from halo_mcp.config import AskSettings, Settings
from halo_mcp.datasets import Datasets
from halo_mcp.engine.settings import LLMSettings
from halo_mcp.server import create_server
from halo_mcp.tools.repository import repository_at
from tests.builders import llm, span, write_lines
from tests.engine.fake_llm import FakeLLM, Script
from tests.engine.harness import settings_for
from tests.tools.desk import Caller, Era

QUOTE = "connection to billing timed out"


def traces(tmp_path: Path) -> Path:
    """Two failing traces and one that passes; t1's tool span s2 says QUOTE."""
    return write_lines(
        tmp_path / "traces.jsonl",
        *(
            record
            for trace, outcome in (("t1", "fail"), ("t2", "fail"), ("t3", "pass"))
            for record in (
                span("s1", trace=trace, kind="AGENT", attributes={"agent.outcome": outcome}),
                llm("s3", "s1", trace=trace, tokens=(10, 5)),
                span("s2", "s1", trace=trace, kind="TOOL", error=QUOTE if outcome == "fail" else ""),
            )
        ),
    )


@dataclass
class Asker(Caller):
    """A client that sees progress, and the model behind the server."""

    client: Client
    model: FakeLLM
    index: Path
    progress: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    async def ask(self, question: str = "What fails?", **arguments: Any) -> dict[str, Any]:
        arguments = {"question": question, "response_format": "json", **arguments}
        result = await self.client.call_tool("ask", arguments, progress_callback=self._note)
        assert not result.is_error, result.content
        data: dict[str, Any] = result.structured_content or {}
        return data

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, message or ""))


def error_text(content: Any) -> str:
    (block,) = content
    return str(block.text)


@asynccontextmanager
async def asking(
    tmp_path: Path,
    script: Script,
    *,
    era: Era = "auto",
    llm_settings: LLMSettings | None = None,
    ask: AskSettings | None = None,
    repo_path: Path | None = None,
    **changes: Any,
) -> AsyncGenerator[Asker]:
    """A client connected in memory; ``changes`` are of LLMSettings."""
    datasets = Datasets({"data": [str(traces(tmp_path))]}, Settings(index_dir=tmp_path / "index"))
    async with FakeLLM(script) as model:
        settings = llm_settings or settings_for(model, **changes)
        async with Client(create_server(datasets, settings, ask, repository_at(repo_path)), mode=era) as client:
            yield Asker(client, model, tmp_path / "index")
        await model.idle()
    datasets.close()
