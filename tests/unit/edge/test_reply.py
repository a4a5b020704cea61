"""Answers keep HTTP's rules whoever writes their head: length, date, and what ends a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web

from edge.http.reply import Reply

BODY = b'{"id":1}'
WAIT_S = 10
HIGH_WATER = 64 * 1024
QUIET_TURNS = 2_000


def plain() -> web.Response:
    return Reply(body=BODY, status=201, content_type="application/json")


@contextlib.asynccontextmanager
async def connected(
    make: Callable[[], web.Response] = plain,
    seen: Callable[[asyncio.Transport | None], None] = lambda transport: None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server that answers each request with a reply."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        seen(request.transport)
        return make()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    try:
        yield reader, writer
    finally:
        writer.close()
        await runner.cleanup()


async def head_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """(status line, fields) of the next answer."""
    async with asyncio.timeout(WAIT_S):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.split(": ", 1) for line in lines[1:] if line)
    return lines[0], {name.lower(): value for name, value in fields}


def request(version: str = "1.1", method: str = "POST", *fields: str) -> bytes:
    head = [f"{method} / HTTP/{version}", "Host: g", "Content-Length: 2", *fields, "", "{}"]
    return "\r\n".join(head).encode()


async def test_answers_follow_one_another_on_one_connection() -> None:
    async with connected() as (reader, writer):
        writer.write(request() * 3)
        for _ in range(3):
            status, fields = await head_of(reader)
            assert status == "HTTP/1.1 201 Created"
            assert fields["content-type"] == "application/json"
            assert fields["content-length"] == str(len(BODY))
            assert parsedate_to_datetime(fields["date"]).tzinfo is not None
            assert "connection" not in fields
            assert await reader.readexactly(len(BODY)) == BODY


@pytest.mark.parametrize(
    ("version", "fields", "said", "ends"),
    [
        ("1.1", ["Connection: close"], "close", True),
        ("1.0", [], None, True),
        ("1.0", ["Connection: keep-alive"], "keep-alive", False),
    ],
)
async def test_a_client_that_does_not_stay_is_told_so(
    version: str, fields: list[str], said: str | None, ends: bool
) -> None:
    async with connected() as (reader, writer):
        writer.write(request(version, "POST", *fields))
        _, found = await head_of(reader)
        assert found.get("connection") == said
        assert await reader.readexactly(len(BODY)) == BODY
        if ends:
            async with asyncio.timeout(WAIT_S):
                assert await reader.read() == b""


async def test_a_head_alone_has_no_body() -> None:
    async with connected() as (reader, writer):
        writer.write(request(method="HEAD") + request())
        _, fields = await head_of(reader)
        assert fields["content-length"] == str(len(BODY))
        status, _ = await head_of(reader)
        assert status == "HTTP/1.1 201 Created"


async def test_what_a_handler_adds_to_the_head_is_said() -> None:
    def make() -> web.Response:
        reply = plain()
        reply.headers["Retry-After"] = "5"
        return reply

    async with connected(make) as (reader, writer):
        writer.write(request() * 2)
        for _ in range(2):
            _, fields = await head_of(reader)
            assert (fields["retry-after"], fields["content-length"]) == ("5", str(len(BODY)))
            assert await reader.readexactly(len(BODY)) == BODY


async def test_a_reply_that_ends_the_connection_ends_it() -> None:
    def make() -> web.Response:
        reply = Reply(body=BODY)
        reply.force_close()
        return reply

    async with connected(make) as (reader, writer):
        writer.write(request())
        _, fields = await head_of(reader)
        assert fields["connection"] == "close"
        async with asyncio.timeout(WAIT_S):
            assert await reader.read() == BODY


async def test_answers_wait_for_a_client_that_asks_and_does_not_read() -> None:
    large, count = b"x" * 100_000, 400
    transports: list[asyncio.Transport | None] = []
    async with connected(lambda: Reply(body=large), seen=transports.append) as (reader, writer):
        writer.write(request() * count)
        quiet = 0
        while quiet < QUIET_TURNS:
            made = len(transports)
            await asyncio.sleep(0)
            quiet = 0 if len(transports) != made else quiet + 1
        # The buffers of both sides are full: no more is made, and little is kept.
        assert 0 < len(transports) < count
        assert transports[-1] is not None
        assert transports[-1].get_write_buffer_size() <= HIGH_WATER + 2 * len(large)
        async with asyncio.timeout(WAIT_S):
            for _ in range(count):
                await head_of(reader)
                await reader.readexactly(len(large))
    assert len(transports) == count
