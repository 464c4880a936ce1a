"""Settings: what turns the engine on, what may be lowered, and what repr shows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from halo_mcp.engine.client import Endpoint
from halo_mcp.engine.failures import redact
from halo_mcp.engine.settings import Limits, LLMSettings, load_llm_settings
from halo_mcp.errors import BadArgument, EngineUnavailable


def test_a_key_alone_turns_nothing_on() -> None:
    settings = load_llm_settings({"OPENAI_API_KEY": "sk-inherited-12345"})
    assert "HALO_MCP_MODEL" in (settings.why_off() or "")
    with pytest.raises(EngineUnavailable):
        settings.require()


def test_a_model_needs_a_key_or_a_base_url() -> None:
    assert "OPENAI_API_KEY" in (load_llm_settings({"HALO_MCP_MODEL": "m"}).why_off() or "")
    assert load_llm_settings({"HALO_MCP_MODEL": "m", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).why_off() is None
    assert load_llm_settings({"HALO_MCP_MODEL": "m", "OPENAI_API_KEY": "sk-1"}).why_off() is None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"base_url": "http://[::1"}, "OPENAI_BASE_URL is no address"),
        ({"base_url": "http://host:port/v1"}, "OPENAI_BASE_URL is no address"),
        ({"base_url": "localhost:11434/v1"}, "OPENAI_BASE_URL is no address"),
        ({"base_url": "http:///v1"}, "OPENAI_BASE_URL is no address"),
        ({"api_key": "“sk-quoted-1”"}, "OPENAI_API_KEY, or a header"),
        ({"api_key": "sk-1", "headers": {"X-Key": "a\nb"}}, "OPENAI_API_KEY, or a header"),
        ({"api_key": "sk-1", "sdk_secrets": ["schlüssel"]}, "OPENAI_API_KEY, or a header"),
    ],
)
def test_what_cannot_be_sent_turns_the_engine_off_and_says_why(changes: dict[str, Any], said: str) -> None:
    settings = LLMSettings(model="m", **changes)
    why = settings.why_off() or ""
    assert why.startswith(said)
    assert "sk-quoted" not in why
    assert Endpoint(settings).wire("m")


async def test_a_client_that_cannot_be_made_is_one_sentence_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks9://tok-4711")
    endpoint = Endpoint(LLMSettings(model="m", api_key="tok-4711", base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(EngineUnavailable, match="its client cannot be made") as caught:
        await endpoint.client()
    assert "4711" not in str(caught.value)


def test_arguments_win_over_the_environment() -> None:
    environ = {"HALO_MCP_MODEL": "a", "HALO_MCP_ASK_MAX_TURNS": "7", "HALO_MCP_ASK_MAX_USD": "0.5"}
    settings = load_llm_settings(environ, model="b", max_depth=2, temperature=None)
    assert (settings.model, settings.limits.max_turns, settings.limits.max_depth) == ("b", 7, 2)
    assert (settings.limits.max_usd, settings.temperature) == (0.5, None)


@pytest.mark.parametrize(
    "environ",
    [
        {"HALO_MCP_LLM_API": "grpc"},
        {"HALO_MCP_ASK_MAX_TURNS": "many"},
        {"HALO_MCP_ASK_MAX_TURNS": "0"},
        {"HALO_MCP_CONTEXT_TOKENS": "-1"},
        {"HALO_MCP_TEMPERATURE": "nan"},
    ],
)
def test_a_value_that_cannot_be_used_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(BadArgument):
        load_llm_settings(environ)


ODD_NUMBERS: list[dict[str, float]] = [
    {"max_turns": 1.5},
    {"max_depth": 0.5},
    {"max_parallel": float("inf")},
    {"max_seconds": float("nan")},
]


def test_limits_can_be_lowered_and_never_raised() -> None:
    limits = Limits(max_turns=10).lowered(max_turns=50, sub_turns=3, max_usd=1.0, max_seconds=None)
    assert (limits.max_turns, limits.sub_turns, limits.max_usd, limits.max_seconds) == (10, 3, 1.0, 300.0)
    assert limits.lowered(max_usd=2.0).max_usd == 1.0
    for wrong in ({"max_turns": 0}, {"max_seconds": -1}, {"turns": 3}, {"self": 1}, *ODD_NUMBERS):
        with pytest.raises(BadArgument):
            limits.lowered(**wrong)


@pytest.mark.parametrize(
    "base_url, wire",
    [
        ("", "responses"),
        ("https://eu.api.openai.com/v1", "responses"),
        ("https://x.openai.azure.com/openai/v1/", "responses"),
        ("https://api.openai.com.evil.example/v1", "chat"),
        ("http://127.0.0.1:11434/v1", "chat"),
    ],
)
def test_the_first_wire_depends_on_the_host(base_url: str, wire: str) -> None:
    assert LLMSettings(base_url=base_url).first_wire == wire


def test_repr_shows_no_secret() -> None:
    settings = LLMSettings(model="m", api_key="sk-secret-1", headers={"x": "tenant-2"})
    assert "sk-secret-1" not in repr(settings)
    assert "tenant-2" not in repr(settings)


def test_no_module_of_the_engine_imports_openai_before_the_first_request() -> None:
    script = "import sys, halo_mcp.engine.ask; print('openai' in sys.modules, 'httpx2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_headers_that_the_sdk_reads_by_itself_are_secrets_too() -> None:
    environ = {"HALO_MCP_MODEL": "m", "OPENAI_CUSTOM_HEADERS": "X-Tenant: blue-tenant\nAuthorization: Bearer tok-4711"}
    settings = load_llm_settings(environ, headers={"X-Key": "Token abcd-9"})
    assert redact("no tok-4711 for blue-tenant, nor abcd-9", settings.secrets) == (
        "no [redacted] for [redacted], nor [redacted]"
    )
    assert settings.headers == {"X-Key": "Token abcd-9"}
    assert "tok-4711" not in repr(settings)


@pytest.mark.parametrize(
    "shown",
    [
        'key a"b/c+é=1!',
        r'{"key": "a\"b/c+\u00e9=1!"}',
        r'{"key": "a\"b/c+é=1!"}',
        "?key=a%22b%2Fc%2B%C3%A9%3D1%21",
        "http://me:p%40ss-w0rd@host/v1",
        "password p@ss-w0rd",
        "Authorization: Basic bWU6cEBzcy13MHJk",
    ],
)
def test_a_secret_is_known_in_every_spelling(shown: str) -> None:
    settings = LLMSettings(api_key='a"b/c+é=1!', base_url="http://me:p%40ss-w0rd@host/v1")
    hidden = redact(shown, settings.secrets)
    assert "[redacted]" in hidden
    assert not any(part in hidden for part in ("c+", "c%2B", "ss-w0rd", "bWU6"))


def test_what_an_address_holds_for_its_server_alone_is_secret_and_short_words_are_not() -> None:
    settings = LLMSettings(base_url="https://tok-4711@host/v1?api-key=abcd-9", headers={"X-Debug": "true"})
    assert redact('tok-4711 {"ok": true} abcd-9', settings.secrets) == '[redacted] {"ok": true} [redacted]'


def test_neither_the_sdk_nor_its_http_client_logs_requests_whatever_openai_log_says() -> None:
    """In a process of its own: the first import of the SDK decides."""
    script = (
        "import anyio, logging\n"
        "from halo_mcp.engine.client import Endpoint\n"
        "from halo_mcp.engine.settings import LLMSettings\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "anyio.run(Endpoint(LLMSettings(model='m', base_url='http://127.0.0.1:1/v1')).client)\n"
        "names = ['openai', 'httpx2', 'httpcore2', 'httpcore2.http11', 'openai._base_client']\n"
        "print(*[logging.getLogger(name).isEnabledFor(logging.INFO) for name in names])\n"
    )
    environ = {**os.environ, "OPENAI_LOG": "debug"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.split() == ["False"] * 5
