"""Programs that write traces with packages of others, run beside a scripted model.

They need packages from PyPI, and run only with ``HALO_MCP_EXAMPLES=1``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from tests.engine.fake_llm import FakeLLM, Reply

PATIENCE_S: Final = 300
CALLS: Final = 4
"""Of the model, in every example: two tasks, each with a tool call and an answer."""

networked = pytest.mark.skipif(
    os.environ.get("HALO_MCP_EXAMPLES") != "1", reason="HALO_MCP_EXAMPLES is not 1: these need packages from PyPI"
)


def scripted(request: dict[str, Any]) -> Reply:
    """Calls the tool with the last word of the question, then repeats what the tool said. On either wire."""
    messages: list[dict[str, Any]] = request.get("input") or request["messages"]
    last = messages[-1] if isinstance(messages, list) else {"role": "user", "content": messages}  # pyright: ignore[reportUnnecessaryIsInstance]
    if last.get("role") == "tool" or last.get("type") == "function_call_output":
        said = str(last.get("content") or last.get("output"))
        return Reply(text=f"The tool says: {said}", usage=(40, 8, 10))
    return Reply(calls=[("get_order", {"order_id": str(last["content"]).split()[-1]})], usage=(25, 12, 0))


async def run_beside_model(*command: str, directory: Path, calls: int = CALLS) -> None:
    """Run a program that asks the scripted model so many times, on the loopback."""
    async with FakeLLM(scripted) as model:
        foreign = ("OPENAI_", "OTEL_", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "none"}
        with anyio.fail_after(PATIENCE_S):
            done = await anyio.run_process(command, env=environment, cwd=directory, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert len(model.requests) == calls
