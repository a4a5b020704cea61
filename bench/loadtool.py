"""A load tool, mutual TLS or plain: raw HTTP/1.1 requests made before, one connection a caller.

It does as little as it can between two requests, since it shares the cores with what it measures.
"""

from __future__ import annotations

import asyncio
import ssl
import time

import msgspec

READ_TIMEOUT_S = 30
_LENGTH = b"content-length:"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a run saw. `seconds` per request; `statuses`: how many answers of each."""

    rate: float
    seconds: list[float]
    statuses: dict[int, int]


def request_of(path: str, body: bytes, *, content_type: str) -> bytes:
    """One request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {content_type}\r\n"
    head += f"Accept: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None) -> Connection:
        """Raises: OSError."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1" if tls else None
        )
        return cls(reader, writer)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body) of the answer."""
        self._writer.write(request)
        async with asyncio.timeout(READ_TIMEOUT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            start = head.index(_LENGTH) + len(_LENGTH)
            body = await self._reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        return int(head[9:12]), body

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def connect(port: int, tls: ssl.SSLContext | None, connections: int) -> list[Connection]:
    """So many connections, one after the other: handshakes are not what is measured."""
    return [await Connection.open(port, tls) for _ in range(connections)]


async def closed_loop(connections: list[Connection], requests: list[bytes]) -> Load:
    """Each connection sends its next request as soon as it has the answer to the last one.

    Connection n of N takes the requests n, n + N, ...: what one customer sends stays in order.
    """
    seconds, statuses = list[float](), dict[int, int]()

    async def caller(number: int, connection: Connection) -> None:
        for request in requests[number :: len(connections)]:
            start = time.perf_counter()
            status, _ = await connection.ask(request)
            seconds.append(time.perf_counter() - start)
            statuses[status] = statuses.get(status, 0) + 1

    start = time.perf_counter()
    await asyncio.gather(*[caller(*pair) for pair in enumerate(connections)])
    return Load(
        rate=len(requests) / (time.perf_counter() - start), seconds=seconds, statuses=statuses
    )


async def open_loop(connections: list[Connection], requests: list[bytes], *, rate: float) -> Load:
    """Requests fall due at a rate; the time of each counts from when it was due.

    They are spread over the connections as in `closed_loop`.
    """
    seconds, statuses = list[float](), dict[int, int]()
    start = time.perf_counter()

    async def caller(first: int, connection: Connection) -> None:
        for number in range(first, len(requests), len(connections)):
            at = start + number / rate
            wait = at - time.perf_counter()
            if wait > 0:
                # The arrival times are what is offered: an open loop waits for the clock alone.
                await asyncio.sleep(wait)
            status, _ = await connection.ask(requests[number])
            seconds.append(time.perf_counter() - at)
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*[caller(*pair) for pair in enumerate(connections)])
    return Load(
        rate=len(requests) / (time.perf_counter() - start), seconds=seconds, statuses=statuses
    )


def accepted(load: Load, *, status: int) -> Load:
    """The load itself. Raises: RuntimeError unless every answer had this status."""
    if set(load.statuses) != {status}:
        raise RuntimeError(f"not all were accepted: {load.statuses}")
    return load
