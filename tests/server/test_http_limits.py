"""What one client may ask for: counted without a socket, then answered over one."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import MCPError

from halo_mcp.config import HttpSettings, http_option, http_options, load_http_settings
from halo_mcp.errors import BadArgument
from halo_mcp.web.limits import Limits, TooMuch
from tests.server.over_http import PATIENCE_S, serving_http
from tests.server.test_http_access import TOKEN, token_file
from tests.server.test_stdio import ROOT, plugged, traces
from tests.tools.desk import ERAS, Caller, Era


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


# --- counting -----------------------------------------------------------------------------------------------------
def admitted(limits: Limits, client: str = "a", most: int = 1_000) -> int:
    """How many requests pass before one is refused."""
    for number in range(most):
        try:
            limits.request(client)
        except TooMuch:
            return number
    return most


def test_a_client_may_send_a_burst_and_then_as_many_as_the_rate_gives_back() -> None:
    clock = Clock()
    limits = Limits(HttpSettings(rate_per_s=10, burst=20), clock)
    assert admitted(limits) == 20
    assert admitted(limits, "b") == 20
    clock.now += 0.5
    assert admitted(limits) == 5
    clock.now += 3_600
    assert admitted(limits) == 20


def test_a_refused_client_that_waits_as_told_is_admitted() -> None:
    clock = Clock()
    limits = Limits(HttpSettings(rate_per_s=0.1, burst=1), clock)
    assert admitted(limits) == 1
    with pytest.raises(TooMuch) as refused:
        limits.request("a")
    assert refused.value.after_s == 10
    clock.now += refused.value.after_s
    assert admitted(limits) == 1


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 20), st.floats(0.1, 50))
def test_over_any_time_no_more_pass_than_burst_and_rate_allow(waits: list[float], burst: int, rate: float) -> None:
    clock = Clock()
    limits, passed = Limits(HttpSettings(rate_per_s=rate, burst=burst), clock), 0
    for wait in waits:
        clock.now += wait
        try:
            limits.request("a")
        except TooMuch:
            continue
        passed += 1
    assert passed <= burst + sum(waits[1:]) * rate + 1e-6


def test_what_runs_at_the_same_time_is_counted_for_each_client_and_for_all() -> None:
    limits = Limits(HttpSettings(max_calls=2, max_server_calls=3, max_streams=1))
    with ExitStack() as running:
        for client in "aab":
            running.enter_context(limits.using(client, "call"))
        with pytest.raises(TooMuch) as refused:
            running.enter_context(limits.using("b", "call"))
        assert refused.value.by_all
        with limits.using("a", "stream"), pytest.raises(TooMuch), limits.using("a", "stream"):
            pass
    with limits.using("a", "call"), limits.using("a", "call"), pytest.raises(TooMuch) as refused:
        running.enter_context(limits.using("a", "call"))
    assert not refused.value.by_all


# --- over a socket ------------------------------------------------------------------------------------------------
def error_of(answer: httpx2.Response) -> str:
    said: dict[str, Any] = answer.json()
    assert said["jsonrpc"] == "2.0"
    return str(said["error"]["message"])


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--max-body-bytes", "2000"]
    async with serving_http(tmp_path, *arguments) as server, server.raw() as client:
        answer = await client.call(1, "count_traces", filters={"trace_ids": ["x" * 3_000]})
        assert (answer.status_code, "2,000 bytes" in error_of(answer)) == (413, True)

        async def parts() -> AsyncGenerator[bytes]:
            for _ in range(100):
                yield b" " * 100

        answer = await client.http.post(server.url, content=parts(), headers=client.request(1, "x")["headers"])
        assert answer.status_code == 413
        assert "2 traces match" in (await client.call(2, "count_traces")).text


async def test_a_body_that_does_not_arrive_is_given_up_while_others_are_answered(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--request-timeout-s", "0.3", "--max-calls", "1"]
    async with serving_http(tmp_path, *arguments) as server, server.client() as caller:
        port = int(server.base.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as slow:
            head = f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 100\r\n\r\n{{"
            await slow.send(head.encode())
            assert (await slow.receive()).startswith(b"HTTP/1.1 408 ")
        async with await anyio.connect_tcp("127.0.0.1", port) as slower:
            await slower.send(b"POST /mcp HTT")
            with pytest.raises(anyio.EndOfStream):
                await slower.receive()
        assert (await caller.json("count_traces"))["total"] == 2


async def test_a_client_that_sends_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--rate-per-s", "0.01", "--burst", "3"]
    async with serving_http(tmp_path, *arguments) as server, server.raw() as client:
        answers = [await client.call(number, "no_such_tool") for number in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 90 <= int(answers[3].headers["retry-after"]) <= 100
        assert "Too many requests" in error_of(answers[3])
        assert (await client.http.get(f"{server.base}/healthz")).status_code == 200


@pytest.mark.parametrize(
    "head, status",
    [
        ("host: evil.example", 421),
        ("origin: http://evil.example", 403),
        ("authorization: Bearer wrong", 401),
        (f"authorization: Bearer {TOKEN}", 429),
        (f"authorization: Bearer {TOKEN}\r\nexpect: 100-continue", 429),
    ],
)
async def test_a_refusal_is_not_lost_with_a_body_that_is_still_on_its_way(
    tmp_path: Path, head: str, status: int
) -> None:
    limits = ["--token-file", token_file(tmp_path), "--rate-per-s", "0.01", "--burst", "1"]
    async with serving_http(tmp_path, str(traces(tmp_path)), *limits) as server, server.raw(token=TOKEN) as client:
        assert (await client.call(1, "no_such_tool")).status_code == 200
        address = server.base.removeprefix("http://")
        host = "" if head.startswith("host:") else f"host: {address}\r\n"
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), PATIENCE_S) as late:
            late.sendall(f"POST /mcp HTTP/1.1\r\n{host}{head}\r\ncontent-length: 300000\r\n\r\n".encode())
            await anyio.sleep(0.2)  # the server has read the head, and could have answered
            for _ in range(0 if "expect:" in head else 3):
                late.sendall(b" " * 100_000)
                await anyio.sleep(0.1)  # a connection that is closed takes no more
            assert late.recv(1_000).startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_client_at_its_limit_of_calls_can_still_cancel_and_read_the_refusal(tmp_path: Path, era: Era) -> None:
    arguments = [str(traces(tmp_path)), "--max-calls", "2"]
    async with (
        serving_http(tmp_path, *arguments, program=plugged("waiting-build")) as server,
        server.client(era) as caller,
    ):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(caller.text, "count_traces")
                await server.said("^building$")
            with pytest.raises(Exception, match="Too many calls at the same time: 2 are allowed"):
                await caller.client.call_tool("no_such_tool", {})
            group.cancel_scope.cancel()
        for _ in range(2):
            await server.said("^stopped$")
        assert "There is no tool" in await _once_there_is_room(caller)


async def _once_there_is_room(caller: Caller) -> str:
    """What is said of a tool that is none. Work that has stopped still has an answer to send, and counts until then."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                return await caller.error("no_such_tool")
            except MCPError as error:
                if "Too many calls" not in str(error):
                    raise


async def test_many_calls_that_never_end_hold_up_no_other_client(tmp_path: Path) -> None:
    """More deaf threads than a pool of 40 has; each belongs to a client of its own (a token each)."""
    tokens = [f"token-number-{number}-of-many" for number in range(4)]
    file = tmp_path / "tokens"
    file.write_text("\n".join(tokens))
    file.chmod(0o600)
    arguments = [str(traces(tmp_path)), "--token-file", str(file), "--grace-s", "0.1"]
    async with (
        serving_http(tmp_path, *arguments, program=plugged("deaf-build")) as server,
        anyio.create_task_group() as group,
    ):
        for token in tokens[:3]:
            for number in range(15):
                group.start_soon(_call_for_ever, server, token, number)
        for _ in range(45):
            await server.said("^building$")
        async with server.raw(token=tokens[3]) as client:
            answer = await client.call(1, "query_sql", sql="x" * 10, dataset="nowhere")
        assert "nowhere" in answer.text
        group.cancel_scope.cancel()


async def _call_for_ever(server: Any, token: str, number: int) -> None:
    async with server.raw(token=token) as client:
        await client.call(number, "count_traces")


# --- settings -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, host, port",
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        (":9", "127.0.0.1", 9),
        ("9", "127.0.0.1", 9),
        ("[::]:0", "::", 0),
        ("example.com:80", "example.com", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    settings = load_http_settings(text, {}, {})
    assert (settings.host, settings.port) == (host, port)


@given(st.text(max_size=30))
def test_no_address_crashes(text: str) -> None:
    try:
        settings = load_http_settings(text, {}, {})
    except BadArgument:
        return
    assert 0 <= settings.port < 65_536


@pytest.mark.parametrize("text", ["traces.jsonl", "a:b", "1.2.3.4:70000", "::1:80x", "1::2:80", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="--http takes HOST:PORT"):
        load_http_settings(text, {}, {})


def test_arguments_win_over_the_environment_and_say_so() -> None:
    environ = {"HALO_MCP_HTTP_MAX_CALLS": "3", "HALO_MCP_HTTP_ALLOWED_HOSTS": "a, b", "HALO_MCP_HTTP_BURST": "7"}
    settings = load_http_settings("127.0.0.1:1", {"max_calls": "5", "allowed_hosts": []}, environ)
    assert (settings.max_calls, settings.allowed_hosts, settings.burst) == (5, ("a", "b"), 7)
    assert (settings.origins["max_calls"], settings.origins["burst"], settings.origins["tls_key"]) == (
        "argument",
        "environment",
        "default",
    )


@pytest.mark.parametrize(
    "address, arguments, local",
    [
        ("127.0.0.1:1", {}, True),
        ("localhost:1", {}, True),
        ("[::1]:1", {}, True),
        ("0.0.0.0:1", {}, False),
        ("my-host:1", {}, False),
        ("127.0.0.1:1", {"public_url": "https://a.example/mcp"}, False),
        ("127.0.0.1:1", {"allowed_hosts": ["a.example"]}, False),
        ("127.0.0.1:1", {"trusted_proxies": ["127.0.0.1"]}, False),
    ],
)
def test_a_server_is_local_only_when_nothing_says_that_others_come(
    address: str, arguments: dict[str, Any], local: bool
) -> None:
    assert load_http_settings(address, arguments, {}).local is local


def settings_table() -> str:
    """The table of docs/http.md."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for item in http_options():
        default = f"{item.default:,}" if isinstance(item.default, int | float) else "none"
        lines.append(f"| `{http_option(item.name)}` | {default} | {item.metadata['help']} |")
    return "\n".join(lines)


def test_the_documentation_has_every_option_with_its_default() -> None:
    assert settings_table() in (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
