"""The door of a port: how many connections may be open, and how long each may take to begin.

1. A connection has a place from the moment it is accepted, before anything is known of it. Without
   a free place, or one for its address, it is closed at once; those that are open go on.
2. The TLS handshake has a deadline. 3. Then the certificate needs a place too.
4. The head of the first request has a deadline; 5. between requests, and for the head of the next
   one, aiohttp's keep-alive is the deadline. 6. What nobody reads, the kernel gives up.

All of it is paid for once a connection; a request costs nothing more. One for a path without
parameters goes to its handler past aiohttp's router, which costs as much as a payment's rules.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.hdrs import EXPECT
from aiohttp.http_exceptions import LineTooLong

from edge.config import LimitsConfig
from edge.http.context import Context, Plain, refuse
from edge.http.places import Places
from edge.http.problem import HttpCode, HttpRefusal
from edge.log import Log

BACKLOG = 1024
# Accepted in one go; what else waits comes after what the loop has to do meanwhile.
TOGETHER = 64
PAUSE_S = 1.0
SHUTDOWN_S = 5.0
# One line of a kind in the log is enough for this long, however many are turned away.
QUIET_MS = 60_000
_log = Log("http")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one port: numbers of connections, seconds and bytes."""

    connections_max: int
    per_address_max: int
    per_terminal_max: int
    handshake_timeout_s: int
    head_timeout_s: int
    idle_timeout_s: int
    unread_timeout_s: int
    head_line_bytes_max: int
    head_fields_max: int

    @property
    def options(self) -> dict[str, Any]:
        """As aiohttp wants them."""
        return {
            "access_log": None,
            "keepalive_timeout": self.idle_timeout_s,
            "max_line_size": self.head_line_bytes_max,
            "max_field_size": self.head_line_bytes_max,
            "max_headers": self.head_fields_max,
        }


def bounds_of(limits: LimitsConfig, *, terminals: bool) -> Bounds:
    """The bounds of the terminals' port, or of one of the small ones beside it."""
    small = limits.other_connections_max
    return Bounds(
        connections_max=limits.connections_max if terminals else small,
        per_address_max=limits.connections_per_address_max if terminals else -(-small // 2),
        per_terminal_max=limits.connections_per_terminal_max,
        handshake_timeout_s=limits.handshake_timeout_s,
        head_timeout_s=limits.head_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
        unread_timeout_s=limits.request_timeout_s,
        head_line_bytes_max=limits.head_line_bytes_max,
        head_fields_max=limits.head_fields_max,
    )


class Connection(web.RequestHandler):
    """aiohttp's side of one connection, with its places and the deadline of its first head."""

    __slots__ = ("_address", "_deadline", "_door", "_terminal")

    def __init__(self, door: Door, address: str, server: web.Server) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **door.bounds.options)
        self._door = door
        self._request_handler = door.dispatch
        self._address: str | None = address
        self._terminal: str | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        # 3. A place for the certificate.
        certificate = transport.get_extra_info("peercert")
        terminal = None if not certificate else str(certificate.get("serialNumber"))
        if terminal is not None and not self._door.terminals.take(terminal):
            self._door.turned_away("terminal")
            self.force_close()
            if isinstance(transport, asyncio.Transport):
                transport.abort()
            return
        self._terminal = terminal
        super().connection_made(transport)
        # 4. The deadline of the first head.
        timeout_s = self._door.bounds.head_timeout_s
        self._deadline = self._loop.call_later(timeout_s, self._check_begun)

    def _check_begun(self) -> None:
        if self._request_count == 0:
            self._door.turned_away("head")
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
        self.leave()

    def leave(self) -> None:
        """Give the places back; a second time is no harm."""
        address, self._address = self._address, None
        terminal, self._terminal = self._terminal, None
        if address is not None:
            self._door.places.leave(address)
        if terminal is not None:
            self._door.terminals.leave(terminal)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A head that is none, or a fault outside of every handler, in the shape of a refusal."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = refuse(self._door.context, "head", None, self._refusal(status, exc))
        response.force_close()
        return response

    def _refusal(self, status: int, exc: BaseException | None) -> HttpRefusal:
        if isinstance(exc, LineTooLong):
            most = self._door.bounds.head_line_bytes_max
            return HttpRefusal(code=HttpCode.HEAD_TOO_LARGE, limit=most)
        if status < 500:
            return HttpRefusal(code=HttpCode.HEAD_INVALID)
        _log.error("request.failed", cause=exc, route="head")
        return HttpRefusal(code=HttpCode.FAULT)


class Door:
    """One port with its listening sockets and its places."""

    def __init__(
        self,
        context: Context,
        bounds: Bounds,
        *,
        server: web.Server,
        tls: ssl.SSLContext | None,
        direct: Mapping[tuple[str, str], Plain],
    ) -> None:
        """`direct`: handlers by method and path; all else is the server's to find."""
        self.context = context
        self.bounds = bounds
        self.places = Places(most=bounds.connections_max, each=bounds.per_address_max)
        self.terminals = Places(most=bounds.connections_max, each=bounds.per_terminal_max)
        self._server = server
        self._direct = direct
        self._tls = tls
        self._listening: list[socket.socket] = []
        self._greeting: set[asyncio.Task[None]] = set()
        self._quiet_until_ms: dict[str, int] = {}

    def dispatch(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """The handler's work on a request."""
        handler = self._direct.get((request.method, request.raw_path))
        # aiohttp tells a client that asks first to go on, or not.
        if handler is None or not isinstance(request, web.Request) or EXPECT in request.headers:
            return self._server.request_handler(request)
        return handler(request)

    async def open(self, *, host: str, port: int) -> int:
        """Listen, and give the port; 0 is any free one. Raises: OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            listening = socket.create_server((address[0], port), family=family, backlog=BACKLOG)
            listening.setblocking(False)
            self._listening.append(listening)
            # All addresses of a name share the port that the first one got.
            port = listening.getsockname()[1]
            loop.add_reader(listening, self._knocked, listening)
        return port

    async def close(self) -> None:
        """Let nobody in any more; who is in stays in."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        for task in self._greeting:
            task.cancel()
        await asyncio.gather(*self._greeting, return_exceptions=True)

    def _knocked(self, listening: socket.socket) -> None:
        for _ in range(TOGETHER):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            self._admit(accepted, str(address[0]))

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """The system has no file or memory for one more: look again when one may have closed."""
        self.turned_away("system")
        _log.error("connection.failed", code="os-error", detail=str(error))
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._knocked, listening)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        # 1. A place for the connection.
        if not self.places.take(address):
            accepted.close()
            self.turned_away("places")
            return
        connection = Connection(self, address, self._server)
        task = asyncio.get_running_loop().create_task(self._greet(connection, accepted))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: Connection, accepted: socket.socket) -> None:
        """Let aiohttp have the connection once it is one; whoever gets no further leaves."""
        loop, timeouts = asyncio.get_running_loop(), {}
        if self._tls is not None:
            # 2. The deadline of the handshake, and of the farewell.
            timeouts["ssl_handshake_timeout"] = float(self.bounds.handshake_timeout_s)
            timeouts["ssl_shutdown_timeout"] = SHUTDOWN_S
        try:
            # 6. What nobody reads or acknowledges.
            unread_ms = self.bounds.unread_timeout_s * 1000
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
            accepted.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self._tls, **timeouts
            )
        except asyncio.CancelledError:
            connection.leave()
            raise
        except OSError as error:
            connection.leave()
            self.turned_away("handshake")
            _log.debug("handshake.failed", detail=str(error))

    def turned_away(self, cause: str) -> None:
        """Count a connection that was not let in; a line in the log now and then."""
        self.context.metrics.turned_away(cause)
        now_ms = self.context.gateway.clock.monotonic_ms()
        if now_ms >= self._quiet_until_ms.get(cause, 0):
            self._quiet_until_ms[cause] = now_ms + QUIET_MS
            _log.warning("connection.refused", cause=cause, open=self.places.taken)
