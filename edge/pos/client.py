"""Calls of a terminal to its gateway, over mutual TLS."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from edge.errors import GatewayUnreachable, OrderRefused
from edge.http.octets import decode_hook, encode_text_hook
from edge.pos.terminal import Terminal

TIMEOUT_S = 60
CONNECT_S = 10
T = TypeVar("T")
_encode = msgspec.json.Encoder(enc_hook=encode_text_hook).encode


class _Problem(msgspec.Struct):
    code: str = "unknown"
    detail: str = ""
    limit: int | None = None
    left: int | None = None
    retry_after: int | None = None


class Client:
    """One terminal's calls; a context manager."""

    def __init__(self, terminal: Terminal, *, connections: int = 4) -> None:
        self.terminal = terminal
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=CONNECT_S)
        connector = aiohttp.TCPConnector(ssl=self.terminal.tls(), limit=self._connections)
        self._session = aiohttp.ClientSession(
            self.terminal.url, timeout=timeout, connector=connector
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: Any = None,
        keyed: bool = False,
        query: dict[str, str] | None = None,
    ) -> T:
        """One call; `keyed` gives it an idempotency key of its own.

        Raises: GatewayUnreachable, OrderRefused with the problem's code.
        """
        status, raw = await self.raw(
            method, path, None if body is None else _encode(body), keyed=keyed, query=query
        )
        if status >= 400:
            raise refused(status, raw)
        try:
            return msgspec.json.decode(raw, type=kind, dec_hook=decode_hook)
        except msgspec.MsgspecError as error:
            raise GatewayUnreachable("what answers is no gateway") from error

    async def raw(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        keyed: bool = False,
        query: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of one call. Raises: GatewayUnreachable."""
        if self._session is None:
            raise GatewayUnreachable("the client is not open")
        headers = {} if body is None else {"Content-Type": "application/json"}
        if keyed:
            headers["Idempotency-Key"] = secrets.token_hex(16)
        try:
            async with self._session.request(
                method, path, data=body, headers=headers, params=query
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"{self.terminal.url} does not answer: {str(error) or type(error).__name__}"
            raise GatewayUnreachable(text) from error


def refused(status: int, raw: bytes) -> OrderRefused:
    """The error of a problem, to be raised."""
    try:
        problem = msgspec.json.decode(raw, type=_Problem)
    except msgspec.MsgspecError:
        return OrderRefused(f"status {status}", problem="unknown")
    text = problem.code
    if problem.detail:
        text += f": {problem.detail}"
    if problem.limit is not None:
        text += f" (limit {problem.limit}"
        text += ")" if problem.left is None else f", left {problem.left})"
    return OrderRefused(text, problem=problem.code)
