"""Running a server, over stdio or HTTP, with a shutdown that works."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server

from halo_mcp.config import HttpSettings
from halo_mcp.errors import BadArgument, shown, why_unusable

if TYPE_CHECKING:
    import uvicorn

    from halo_mcp.web.calls import Calls

_SPARE_THREADS: Final = 64
"""Beyond one for each call at work: for abandoned work that has yet to notice, and for what questions run inside."""
_LAST_CONNECTIONS_S: Final = 5


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve until EOF, SIGINT or SIGTERM; running calls are cancelled and the lifespan is left properly.

    After a signal the process ends with 128 + its number: the SDK's reader thread is parked in a read of standard
    input that nothing can interrupt.
    """
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # the SDK has no public accessor yet
    received: list[int] = []
    async with stdio_server() as (read, write):
        # Only now: the SDK takes over standard output only while sys.stdout is still backed by it. What other code
        # prints from here on goes to standard error instead of into the protocol.
        sys.stdout = sys.stderr
        try:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    if sys.platform != "win32":
                        group.start_soon(_end_on_signal, scope, received)
                    await low.run(read, write, low.create_initialization_options())
                    group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():  # by the SDK, whose writer failed; it would wait for its reader
            sys.stderr.write("halo-mcp: standard output was closed\n")
            sys.stderr.flush()
            os._exit(1)
        if received:
            sys.stderr.flush()
            os._exit(128 + received[0])


async def _end_on_signal(scope: anyio.CancelScope, received: list[int]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            received.append(number)
            scope.cancel()
            return


async def serve_http(server: MCPServer[Any], settings: HttpSettings) -> int:
    """Serve until SIGINT or SIGTERM; returns how many threads still work on what nobody waits for.

    The first signal ends the server in order: no new connections, a moment for running calls, then they are cancelled,
    and the lifespan is left properly. The second ends the process at once. Raises: BadArgument, when it cannot start.
    """
    import uvicorn

    from halo_mcp.web.access import access_of
    from halo_mcp.web.app import web_app
    from halo_mcp.web.hosts import names_of

    _check_certificate(settings)
    with listening(settings) as listener:
        port = int(listener.getsockname()[1])
        names = names_of(settings, port)
        app, calls = web_app(server, settings, access_of(settings), names)
        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens = settings.max_server_calls + _SPARE_THREADS
        config = uvicorn.Config(
            app,
            http=_impatient(settings.request_timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=int(settings.grace_s) + _LAST_CONNECTIONS_S,
        )
        runner = _runner(config)
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_on_signal, runner, calls)
            sys.stderr.write(f"halo-mcp: serving {_url(settings, port)}\n")
            sys.stderr.flush()
            await runner.serve(sockets=[listener])
            group.cancel_scope.cancel()
        return threads.borrowed_tokens


def _runner(config: uvicorn.Config) -> uvicorn.Server:
    import uvicorn

    class Runner(uvicorn.Server):
        """uvicorn, which leaves the signals to us: it would raise them again at its end."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    return Runner(config)


def _impatient(timeout_s: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, which would wait for ever for the head of a connection's first request."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(timeout_s, self._close_if_silent)

        def _close_if_silent(self) -> None:
            begun = getattr(self, "cycle", None) is not None  # its type says always; it is None until the first request
            if not begun and not self.transport.is_closing():
                self.transport.close()

    return Impatient


async def _stop_on_signal(runner: uvicorn.Server, calls: Calls) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            async for number in signals:
                if runner.should_exit:
                    sys.stderr.flush()
                    os._exit(128 + number)
                runner.should_exit = True
                group.start_soon(calls.stop)


def _check_certificate(settings: HttpSettings) -> None:
    """Raises: BadArgument."""
    if not (settings.tls_cert or settings.tls_key):
        return
    if not (settings.tls_cert and settings.tls_key):
        raise BadArgument("TLS needs both --tls-cert and --tls-key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else why_unusable(error)
        raise BadArgument(f"The certificate {shown(str(settings.tls_cert))} cannot be used: {reason}.") from error


@contextmanager
def listening(settings: HttpSettings) -> Generator[socket.socket]:
    """A listening socket, whose connections send every write at once. Raises: BadArgument."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address, family=family, backlog=2048)
        # Accepted sockets inherit it. asyncio sets it only where a socket names its protocol, which this one does not;
        # without it the second write of an answer waits until the client has acknowledged the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        unknown_name = isinstance(error, socket.gaierror)  # its number is none of the system's
        reason = os.strerror(error.errno) if error.errno and not unknown_name else error.strerror or error
        raise BadArgument(f"The server cannot listen on {where}: {reason}.") from error
    with listener:
        listener.setblocking(False)
        yield listener


def _url(settings: HttpSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    public = f" as {settings.public_url}" if settings.public_url else ""
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{port}/mcp{public}"
