"""Asking the tools: directly, and through an in-memory MCP client."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from json import JSONDecoder
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from mcp import Client

from halo_mcp.config import Settings
from halo_mcp.datasets import Datasets
from halo_mcp.index.work import Work
from halo_mcp.server import create_server
from halo_mcp.tools.calls import ToolFunction, about_all_datasets, answer, checked
from halo_mcp.tools.catalog import CATALOG
from halo_mcp.tools.params import Answer
from tests.sandbox.interpreter import share_compiled

Era = Literal["auto", "legacy"]
ERAS: Final[Sequence[Era]] = ("auto", "legacy")

FUNCTIONS: Final[dict[str, ToolFunction]] = {entry.function.__name__: entry.function for entry in CATALOG}


class NextCall(NamedTuple):
    """A call that an answer suggests, as it was written."""

    tool: str
    arguments: dict[str, Any]


_CALL: Final = re.compile(rf"\b({'|'.join(FUNCTIONS)})\(")
_NAME: Final = re.compile(r"(\w+)=")


def calls_in(text: str) -> list[NextCall]:
    """Every literal call in ``text``; those with placeholders or without a trace id are left out."""
    found: list[NextCall] = []
    for match in _CALL.finditer(text):
        position, arguments = match.end(), dict[str, Any]()
        while argument := _NAME.match(text, position):
            try:
                arguments[argument[1]], position = JSONDecoder().raw_decode(text, argument.end())
            except ValueError:
                break
            position += 2 if text.startswith(", ", position) else 0
        if text.startswith(")", position):
            found.append(NextCall(match[1], arguments))
    return found


class Desk:
    """Datasets to ask directly, without a protocol between."""

    def __init__(self, tmp_path: Path, sources: Mapping[str, Sequence[Path | str]], deadline_s: float = 60.0) -> None:
        listed = {name: [str(path) for path in paths] for name, paths in sources.items()}
        self.datasets = Datasets(listed, Settings(index_dir=tmp_path / "index", deadline_s=deadline_s))
        share_compiled(tmp_path / "index")

    def ask(self, tool: str, dataset: str = "", **arguments: Any) -> Answer:
        function = FUNCTIONS[tool]
        if dataset and about_all_datasets(function):  # one that takes the name itself
            arguments["dataset"] = dataset
        return answer(self.datasets, dataset, function, checked(function, arguments), Work())

    def text(self, tool: str, **arguments: Any) -> str:
        return self.ask(tool, **arguments).text

    def data(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return dict(self.ask(tool, **arguments).data)

    def follow(self, call: NextCall) -> Answer:
        return self.ask(call.tool, **call.arguments)


def desk_over(tmp_path: Path, *paths: Path | str) -> Desk:
    """A Desk with one dataset, called "data"."""
    return Desk(tmp_path, {"data": paths})


class Caller:
    """An MCP client that asks one question a line."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def text(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        assert result.structured_content is None
        return _only_text(result.content)

    async def json(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, {**arguments, "response_format": "json"})
        assert not result.is_error, result.content
        return cast("dict[str, Any]", result.structured_content)

    async def error(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.content
        assert result.structured_content is None
        text = _only_text(result.content)
        assert "Error executing tool" not in text
        assert "Traceback" not in text
        assert "Internal error" not in text
        return text


def _only_text(content: Sequence[Any]) -> str:
    (block,) = content
    assert block.type == "text"
    return str(block.text)


@asynccontextmanager
async def serving(
    tmp_path: Path, sources: Mapping[str, Sequence[Path | str]], *, era: Era = "auto", roots: Sequence[Path] = ()
) -> AsyncGenerator[Caller]:
    """A client connected in memory to a server over these datasets."""
    listed = {name: [str(path) for path in paths] for name, paths in sources.items()}
    settings = Settings(index_dir=tmp_path / "index", roots=tuple(root.resolve() for root in roots))
    datasets = Datasets(listed, settings)
    share_compiled(settings.index_dir)
    async with Client(create_server(datasets), mode=era) as client:
        yield Caller(client)
    datasets.close()
