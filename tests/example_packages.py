"""An environment with packages from PyPI that write traces, for the tests that run them.

They run only with ``HALO_MCP_EXAMPLES``, either 1 (the packages are installed for the run) or the directory of a venv
that has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from tests.engine.fake_llm import FakeLLM, Reply

PACKAGES: Final = (
    "httpx",  # opentelemetry-instrumentation-openai-v2 imports it and does not say so
    "openai-agents>=0.24",
    "openinference-instrumentation-openai>=0.1.66",
    "openinference-instrumentation-openai-agents>=2.6",
    "opentelemetry-exporter-otlp-json-file>=0.66b1",
    "opentelemetry-exporter-otlp-proto-common>=1.45",
    "opentelemetry-instrumentation-openai-v2==2.4b0",
    "opentelemetry-sdk>=1.45",
    "opentelemetry-util-genai==0.4b0",  # later ones have moved what the instrumentation imports
)
PATIENCE_S: Final = 300
CALLS: Final = 4
"""Of the model, in every example: two tasks, each with a tool call and an answer."""
_FLAG: Final = os.environ.get("HALO_MCP_EXAMPLES", "")

networked = pytest.mark.skipif(not _FLAG, reason="HALO_MCP_EXAMPLES is not set: these need packages from PyPI")


def python_with_packages(scratch: Path) -> Path:
    """The interpreter of such an environment, which is made below ``scratch`` when none is given."""
    directory = Path(_FLAG) if _FLAG != "1" else scratch / "venv"
    python = directory / "bin" / "python"
    if _FLAG == "1":
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=PATIENCE_S)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True, timeout=PATIENCE_S)
    return python


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
