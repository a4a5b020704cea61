"""A port: connections are accepted within bounds, over TLS, and given to an application.

1. Above the bounds a connection is closed before anything is read of it. 2. Until the head of the
first request is there, time runs. 3. Between two requests the server's own idle timeout holds.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cloud.config import LimitsConfig
from cloud.http.app import Handler
from cloud.log import Log

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

BACKLOG = 1024
# Without descriptors, accepting fails at once: the next try waits for some to come free.
_EXHAUSTED_S = 0.5
_log = Log("door")


class Door:
    """One listening socket and what came in by it."""

    def __init__(
        self, app: web.Application, *, tls: ssl.SSLContext, limits: LimitsConfig, name: str
    ) -> None:
        self._tls = tls
        self._limits = limits
        self._name = name
        self._peers: Counter[str] = Counter()
        self._guests: dict[RequestHandler, _Guest] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        app.middlewares.insert(0, self._middleware())
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=limits.idle_timeout_s, handle_signals=False
        )

    async def open(self, *, host: str, port: int) -> int:
        """Listen; 0 is any free port. Gives its number. Raises: OSError."""
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._start(self._accept(listener))
        found: int = listener.getsockname()[1]
        return found

    async def close(self) -> None:
        """Take nobody in any more; answer what is being worked on, and close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def leave(self, peer: str, handler: RequestHandler) -> None:
        """A connection has ended."""
        self._guests.pop(handler, None)
        self._peers[peer] -= 1
        if self._peers[peer] == 0:
            del self._peers[peer]

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, address = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                _log.error("door.stuck", cause=error, port=self._name)
                await asyncio.sleep(_EXHAUSTED_S)
                continue
            peer = str(address[0])
            if self._is_full(peer):
                _log.warning("connection.refused", port=self._name, peer=peer)
                accepted.close()
                continue
            self._peers[peer] += 1
            self._start(self._admit(accepted, peer))

    def _is_full(self, peer: str) -> bool:
        limits = self._limits
        everybody = self._peers.total() >= limits.connections_max
        return everybody or self._peers[peer] >= limits.connections_peer_max

    async def _admit(self, accepted: socket.socket, peer: str) -> None:
        """Shake hands; a connection that has come so far says itself when it ends."""
        handler = self._handler()
        guest = _Guest(self, handler, peer=peer, head_s=self._limits.head_timeout_s)
        self._guests[handler] = guest
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.head_timeout_s,
            )
        except OSError:
            # Half a handshake, or one that failed: nobody was let in.
            self.leave(peer, handler)

    def _handler(self) -> RequestHandler:
        server = self._runner.server
        if server is None:
            raise OSError("the port is closed")
        return server()

    def _middleware(self) -> Any:
        guests = self._guests

        @web.middleware
        async def heard(request: web.Request, handler: Handler) -> web.StreamResponse:
            """The head of a request is there."""
            guest = guests.get(request.protocol)
            if guest is not None:
                guest.heard()
            return await handler(request)

        return heard


class _Guest(asyncio.Protocol):
    """One connection: what it says goes to aiohttp's handler; its end to the door."""

    def __init__(self, door: Door, handler: RequestHandler, *, peer: str, head_s: int) -> None:
        self._door = door
        self._handler = handler
        self._peer = peer
        self._head_s = head_s
        self._waiting: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """No more waiting: from now on the server's own timeouts hold."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(self._head_s, _abort, transport)
        self._handler.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.heard()
        self._door.leave(self._peer, self._handler)
        self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._handler.data_received(data)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`."""
        self._handler.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._handler.resume_writing()


def _abort(transport: asyncio.BaseTransport) -> None:
    assert isinstance(transport, asyncio.Transport)  # a stream of bytes, as TLS gives it
    transport.abort()
