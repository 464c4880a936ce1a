"""Settings of ask: what the environment may say, and that the documentation names all of it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from halo_mcp.config import AskSettings, load_ask_settings
from halo_mcp.engine import settings as engine_settings
from halo_mcp.engine.settings import Limits, LLMSettings
from halo_mcp.errors import BadArgument
from halo_mcp.server import build_tools
from halo_mcp.tools import ask
from halo_mcp.tools.investigation import EFFORTS, Effort

DOCS = Path(__file__).parents[1] / "docs" / "ask.md"


def test_the_environment_is_read() -> None:
    assert load_ask_settings({}) == AskSettings()
    given = {"HALO_MCP_ASK_WAIT_S": "20", "HALO_MCP_ASK_MAX_JOBS": "5", "HALO_MCP_ASK_RUN_CODE": "0"}
    assert load_ask_settings(given) == AskSettings(wait_s=20.0, max_jobs=5, run_code=False)


@pytest.mark.parametrize(
    "environ",
    [
        {"HALO_MCP_ASK_WAIT_S": "soon"},
        {"HALO_MCP_ASK_MAX_JOBS": "0"},
        {"HALO_MCP_ASK_MAX_JOBS": "1.5"},
        {"HALO_MCP_ASK_TOTAL_USD": "inf"},
        {"HALO_MCP_ASK_RUN_CODE": "perhaps"},
    ],
)
def test_a_value_that_cannot_be_used_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(BadArgument, match=next(iter(environ))):
        load_ask_settings(environ)


def test_every_variable_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    names = [f"HALO_MCP_ASK_{item.name.upper()}" for item in fields(AskSettings)]
    for table in ("_TEXTS", "_NUMBERS", "_LIMITS"):
        values = getattr(engine_settings, table).values()
        names += [value if isinstance(value, str) else value[0] for value in values]
    assert [name for name in names if f"`{name}`" not in text] == []


def documented_defaults() -> dict[str, str]:
    """The table of settings: each variable with its default, as it is written."""
    found: dict[str, str] = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and "`HALO_MCP_" in line:
            _, names, defaults, _, _ = line.split("|")
            variables = [name.strip(" `") for name in names.split(",")]
            written = [value.strip() for value in defaults.split(",")]
            found |= zip(variables, written * (len(variables) if len(written) == 1 else 1), strict=True)
    return found


def actual_defaults() -> dict[str, float | None]:
    """Every number of the settings, by its variable; None: there is none."""
    defaults: dict[str, float | None] = {
        f"HALO_MCP_ASK_{item.name.upper()}": getattr(AskSettings(), item.name) for item in fields(AskSettings)
    }
    for table, settings in (("_NUMBERS", LLMSettings()), ("_LIMITS", Limits())):
        defaults |= {key: getattr(settings, name) for name, (key, _) in getattr(engine_settings, table).items()}
    return defaults


def test_the_documented_defaults_are_those_of_the_code() -> None:
    written = documented_defaults()
    for variable, default in actual_defaults().items():
        if default is None:
            assert written[variable] in ("none", "not sent"), variable
        else:
            assert float(written[variable]) == default, variable


def test_the_documented_efforts_and_pace_are_those_of_the_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    quick, normal, deep = (EFFORTS[effort] for effort in get_args(Effort))
    assert (quick["max_depth"], dict(deep)) == (0, {})
    said = f"`quick`: {quick['max_turns']} turns, no subagents, {quick['max_seconds'] / 60:g} minutes"
    assert f"{said}; `normal`: {normal['max_turns']} turns; `deep`: all that the server allows" in text
    assert (1 / ask.MOST_OFTEN_S, ask.HEARTBEAT_S) == (4, 5)
    assert "at most four times a second, at least every five seconds" in text


@pytest.mark.parametrize("settings", [LLMSettings(), LLMSettings(model="m" * 99, api_key="sk-12345")])
def test_the_two_tools_stay_small_and_say_which_mode_is_on(settings: LLMSettings) -> None:
    tools = {tool.name: tool for tool in build_tools(settings)}
    ask, ask_result = tools["ask"], tools["ask_result"]
    for tool, most in ((ask, 1_000), (ask_result, 620)):
        entry = {
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "inputSchema": tool.parameters,
            "annotations": tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
            "_meta": tool.meta,
        }
        assert len(json.dumps(entry, separators=(",", ":"))) <= most
    assert ("no model is set up" in (ask.description or "")) == (not settings.model)
    assert (f"own agent ({'m' * 40})" in (ask.description or "")) == bool(settings.model)
