"""Who is answered over HTTP: names, origins, tokens, and access tokens of an authorization server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import anyio
import httpx2
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.config import load_http_settings
from halo_mcp.errors import BadArgument
from halo_mcp.web.hosts import names_of
from halo_mcp.web.oauth import JwtTokens, NoKeys
from tests.server.authority import AUDIENCE, Authority, authority
from tests.server.over_http import HttpServer, serving_http, started
from tests.server.test_stdio import traces
from tests.tools.desk import ERAS, Era

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


def token_file(tmp_path: Path, *lines: str, mode: int = 0o600) -> str:
    path = tmp_path / "tokens"
    path.write_text("\n".join(lines or (TOKEN,)))
    path.chmod(mode)
    return str(path)


async def status(server: HttpServer, path: str = "/healthz", **headers: str) -> int:
    async with httpx2.AsyncClient() as http:
        return (await http.get(server.base + path, headers=headers)).status_code


# --- names --------------------------------------------------------------------------------------------------------
async def test_only_its_own_names_and_origins_are_answered_on_every_path(tmp_path: Path) -> None:
    async with serving_http(tmp_path, str(traces(tmp_path))) as server:
        port = server.base.rpartition(":")[2]
        for path in ("/healthz", "/mcp", "/nothing"):
            assert await status(server, path, host="evil.example") == 421
            assert await status(server, path, host=f"127.0.0.1.evil.example:{port}") == 421
            assert await status(server, path, host=f"localhost:{int(port) - 1}") == 421
            assert await status(server, path, origin="https://evil.example") == 403
            assert await status(server, path, origin="null") == 403
        assert await status(server, host=f"LOCALHOST:{port}") == 200
        assert await status(server, host=f"[::1]:{port}", origin=f"http://127.0.0.1:{port}") == 200
        async with httpx2.AsyncClient() as http:
            refused = await http.post(server.url, json={}, headers={"host": "evil.example"})
        assert refused.json()["error"]["message"].startswith("This server does not go by the name")


@pytest.mark.parametrize(
    "address, arguments, host, answered",
    [
        ("127.0.0.1:8000", {}, "127.0.0.1:8000", True),
        ("127.0.0.1:8000", {}, "127.0.0.1", False),
        ("127.0.0.1:80", {}, "localhost", True),
        ("127.0.0.1:8000", {}, "localhost.:8000", True),
        ("127.0.0.1:8000", {}, "localhost:8000@evil.example", False),
        ("127.0.0.1:8000", {}, "user@localhost:8000", False),
        ("127.0.0.1:8000", {}, "localhost:8000/x", False),
        ("127.0.0.1:8000", {}, "localhost:99999", False),
        ("127.0.0.1:8000", {}, "", False),
        ("[::1]:8000", {}, "[0:0:0:0:0:0:0:1]:8000", True),
        ("127.0.0.1:8000", {"allowed_hosts": ["traces.example.com"]}, "traces.example.com:1234", True),
        ("127.0.0.1:8000", {"allowed_hosts": ["traces.example.com:1"]}, "traces.example.com:1234", False),
        ("127.0.0.1:8000", {"public_url": "https://t.example/mcp"}, "t.example", True),
        ("127.0.0.1:8000", {"public_url": "https://t.example/mcp"}, "t.example:443", True),
        ("127.0.0.1:8000", {"public_url": "https://t.example/mcp"}, "u.example", False),
        ("0.0.0.0:8000", {}, "10.1.2.3:8000", True),
        ("0.0.0.0:8000", {}, "[fe80::1]:8000", True),
        ("0.0.0.0:8000", {}, "my-machine:8000", False),
        ("10.1.2.3:8000", {}, "10.1.2.4:8000", False),
    ],
)
def test_a_host_header_is_answered_when_it_names_the_server(
    address: str, arguments: dict[str, Any], host: str, answered: bool
) -> None:
    settings = load_http_settings(address, arguments, {})
    assert names_of(settings, settings.port).answers_host(host) is answered


@given(st.text() | st.from_regex(r"[a-z0-9.:@/\[\]-]{0,20}", fullmatch=True))
def test_no_header_crashes_the_check_and_no_name_of_others_passes_it(text: str) -> None:
    names = names_of(load_http_settings("127.0.0.1:8000", {}, {}), 8000)
    assert not names.answers_origin(f"https://{text}")
    if names.answers_host(text):
        assert text.lower().rpartition(":")[0].removesuffix(".") in ("127.0.0.1", "localhost") or text.startswith("[")


async def test_a_page_of_an_allowed_origin_may_call_and_is_told_so(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--allowed-origin", "https://app.example"]
    async with serving_http(tmp_path, *arguments) as server, httpx2.AsyncClient() as http:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        answer = await http.options(server.url, headers=asked)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert (await http.options(server.url, headers={**asked, "origin": "https://b.example"})).status_code == 403


# --- tokens -------------------------------------------------------------------------------------------------------
async def test_a_token_opens_the_server_and_nothing_else_does(tmp_path: Path, era: Era) -> None:
    arguments = [str(traces(tmp_path)), "--token-file", token_file(tmp_path, "# ours", TOKEN, "", TOKEN + "2")]
    async with serving_http(tmp_path, *arguments) as server:
        for token in (TOKEN, TOKEN + "2"):
            async with server.client(era, token) as caller:
                assert (await caller.json("count_traces"))["total"] == 2
        async with server.raw() as anyone:
            wrong = ("", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer x", "Bearer \xe9", TOKEN)
            for header in wrong:
                call = anyone.request(1, "count_traces")
                call["headers"] = {**call["headers"], "authorization": header.encode("latin-1")}
                answer = await anyone.http.post(server.url, **call)
                assert (answer.status_code, "Bearer" in answer.headers["www-authenticate"]) == (401, True), header
        assert await status(server, "/nothing") == 401
        assert await status(server) == 200
        assert TOKEN not in "".join(server.lines)


async def test_a_session_belongs_to_the_token_that_began_it(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--token-file", token_file(tmp_path, TOKEN, TOKEN + "2")]
    async with (
        serving_http(tmp_path, *arguments) as server,
        server.raw("legacy", TOKEN) as one,
        server.raw("legacy", TOKEN + "2") as other,
    ):
        other.session = one.session
        assert (await other.call(1, "count_traces")).status_code == 404
        assert (await one.call(1, "count_traces")).status_code == 200


async def test_where_others_can_connect_a_token_is_made_and_printed_once(tmp_path: Path) -> None:
    async with serving_http(tmp_path, str(traces(tmp_path)), address="0.0.0.0:0") as server:
        (token,) = [line.rpartition("Bearer ")[2] for line in server.lines if "Bearer " in line]
        assert len(token) >= 43
        assert await status(server, "/mcp") == 401
        async with server.client(token=token) as caller:
            assert (await caller.json("count_traces"))["total"] == 2
    assert sum(token in line for line in server.lines) == 1


async def test_a_token_file_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    arguments = [str(traces(tmp_path)), "--token-file", token_file(tmp_path, mode=0o644)]
    async with serving_http(tmp_path, *arguments) as server:
        assert any("chmod 600" in line for line in server.lines)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--token-file", "FILE:short"], "Line 1 of"),
        (["--token-file", f"FILE:{TOKEN}\nwith a blank in it, and long"], "Line 2 of"),
        (["--token-file", "FILE:# nothing"], "There is no token in"),
        (["--token-file", "/nowhere/at/all"], "cannot be read"),
        (["--oauth-issuer", "https://login.example"], "--oauth-audience"),
        (["--oauth-issuer", "http://login.example", "--oauth-audience", "a"], "must be an https URL"),
        (["--oauth-issuer", "https://login.example", "--token-file", "FILE:x"], "not both"),
        (["--tls-cert", "FILE:x"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "FILE:x", "--tls-key", "FILE:x"], "The certificate"),
        (["--allowed-origin", "app.example"], "is no origin"),
        (["--allowed-host", "http://x"], "takes NAME or NAME:PORT"),
        (["--max-calls", "0"], "--max-calls, HALO_MCP_HTTP_MAX_CALLS"),
        (["--disable", "ak"], "There is no tool 'ak'"),
    ],
)
async def test_settings_that_cannot_be_meant_are_one_clear_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    given: list[str] = []
    for argument in arguments:
        if argument.startswith("FILE:"):
            argument = token_file(tmp_path, argument.removeprefix("FILE:"))
        given.append(argument)
    async with started(tmp_path, str(traces(tmp_path)), "--http", "127.0.0.1:0", *given) as server:
        assert await server.ended() == 1
    (line,) = server.lines
    assert sentence in line
    assert "with a blank" not in line


# --- access tokens ------------------------------------------------------------------------------------------------
def tokens_of(issuer: Authority, **changes: str) -> JwtTokens:
    return JwtTokens(issuer.issuer, changes.get("audience", AUDIENCE), changes.get("jwks_url", ""))


@pytest.mark.parametrize("key", ["rsa", "ec"])
async def test_a_token_of_the_issuer_says_who_and_what_it_allows(key: str) -> None:
    async with authority() as issuer:
        found = await tokens_of(issuer).verify_token(issuer.token(key))
    assert found
    assert (found.client_id, found.subject, found.scopes) == ("c1", "someone", ["traces:read", "other"])


async def test_tokens_that_are_not_ours_are_refused() -> None:
    other = Authority()  # same key ids, other keys
    async with authority() as issuer:
        tokens = tokens_of(issuer)
        other.issuer = issuer.issuer
        bad = {
            "expired": issuer.token(exp=1_000_000),
            "without an end": issuer.token(exp=None),
            "not valid yet": issuer.token(nbf=9_999_999_999),
            "for another audience": issuer.token(aud="https://other.example/mcp"),
            "for nobody": issuer.token(aud=None),
            "of another issuer": issuer.token(iss="https://other.example"),
            "of no issuer": issuer.token(iss=None),
            "signed by another": other.token(),
            "with a key of another kind": issuer.token("ec", kid="rsa"),
            "unsigned": issuer.unsigned(),
            "HS256 with the public key": issuer.signed_with_the_public_key_as_a_secret(),
            "with an unknown key": issuer.token(kid="nobody's"),
            "no JWT": "abc",
            "empty": "",
            "cut": issuer.token()[:-10],
            "tampered": ".".join((issuer.token().split(".")[0], issuer.token(sub="root").split(".")[1], "AAAA")),
        }
        accepted = [name for name, token in bad.items() if await tokens.verify_token(token)]
        assert accepted == []
        assert await tokens.verify_token(issuer.token(aud=["x", AUDIENCE]))


async def test_keys_are_fetched_once_and_unknown_key_ids_do_not_hammer_the_issuer() -> None:
    async with authority() as issuer:
        tokens = tokens_of(issuer)
        for _ in range(5):
            assert await tokens.verify_token(issuer.token())
            assert not await tokens.verify_token(issuer.token(kid="unknown"))
        assert issuer.fetches.count("/keys") == 1
        issuer.down = True
        assert await tokens.verify_token(issuer.token())


async def test_without_keys_no_token_is_judged_and_the_next_try_fetches_again() -> None:
    async with authority() as issuer:
        tokens = tokens_of(issuer)
        issuer.down = True
        with pytest.raises(NoKeys):
            await tokens.verify_token(issuer.token())
        issuer.down = False
        assert await tokens.verify_token(issuer.token())


@pytest.mark.parametrize("place", ["http://login.example/keys", "file:///etc/passwd", "https://[", "keys"])
async def test_metadata_that_names_keys_anyone_could_forge_lets_nobody_in(place: str) -> None:
    async with authority() as issuer:
        issuer.keys_url = place
        with pytest.raises(NoKeys):
            await tokens_of(issuer).verify_token(issuer.token())
        assert "/keys" not in issuer.fetches


def test_keys_come_over_https_or_from_this_machine_only() -> None:
    for url in ("http://login.example", "file:///etc/passwd", "https://", "ftp://x", "https://["):
        with pytest.raises(BadArgument):
            JwtTokens("https://login.example", AUDIENCE, url)


@given(st.text() | st.binary().map(lambda data: jwt.encode({"x": data.hex()}, "s" * 32, "HS256")))
async def test_no_text_is_a_token_and_none_makes_keys_be_fetched(text: str) -> None:
    tokens = JwtTokens("http://127.0.0.1:9", AUDIENCE)
    assert await tokens.verify_token(text) is None


async def test_access_tokens_open_the_server_and_its_metadata_says_who_issues_them(tmp_path: Path, era: Era) -> None:
    async with authority() as issuer:
        arguments = [
            *(str(traces(tmp_path)), "--oauth-issuer", issuer.issuer, "--public-url", AUDIENCE),
            *("--oauth-scope", "traces:read", "--trusted-proxy", "10.9.9.9", "--allowed-host", "127.0.0.1"),
        ]
        async with serving_http(tmp_path, *arguments) as server:
            async with server.client(era, issuer.token("ec")) as caller:
                assert (await caller.json("count_traces"))["total"] == 2
            metadata = "/.well-known/oauth-protected-resource/mcp"
            async with httpx2.AsyncClient() as http:
                said = (await http.get(server.base + metadata)).json()
                assert (said["resource"], said["scopes_supported"]) == (AUDIENCE, ["traces:read"])
                assert said["authorization_servers"] == [issuer.issuer]
                refused = await http.post(server.url, json={})
                assert refused.status_code == 401
                assert f"https://traces.example.com{metadata}" in refused.headers["www-authenticate"]
                for token, expected in ((issuer.token(scope="other"), 403), (issuer.token(exp=1), 401)):
                    answer = await http.post(server.url, json={}, headers={"authorization": f"Bearer {token}"})
                    assert answer.status_code == expected
                expected_error = "insufficient_scope"
            async with server.raw(token=issuer.token(scope=None, scp=["x"])) as client:
                assert (await client.call(1, "count_traces")).json()["error"] == expected_error


# --- TLS ----------------------------------------------------------------------------------------------------------
async def test_https_is_served_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    made = [*command, *names, "-keyout", str(key), "-out", str(certificate)]
    await anyio.run_process(made)
    arguments = [str(traces(tmp_path)), "--tls-cert", str(certificate), "--tls-key", str(key)]
    async with (
        serving_http(tmp_path, *arguments) as server,
        httpx2.AsyncClient(verify=ssl.create_default_context(cafile=str(certificate))) as http,
    ):
        assert server.url.startswith("https://")
        assert (await http.get(f"{server.base}/healthz")).status_code == 200
