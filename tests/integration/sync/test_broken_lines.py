"""Lines that break in the middle, over real TLS: hung, cut off, reset, or answering nonsense."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sync.engine import Engine, Surroundings
from sync.errors import Code, TransportError
from sync.machine import State
from sync.transport import HttpsTransport
from tests.support.sync_pair import Hands, SimulatedCloud, SimulatedJournal, raw
from tests.support.tls_pair import WAIT_S, Authority, gone

ENTRY_BYTES = 30_000
HEADERS_MAX = 64 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
PROBED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Line:
    """A TLS server that asks for certificates; what it does with a request is the test's."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.behaviour: Behaviour = silent
        self.port = 0
        pem = folder / "line.pem"
        pem.write_text(self.authority.pair)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.load_cert_chain(pem)
        self._tls.load_verify_locations(cadata=self.authority.certificate)
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls, limit=HEADERS_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Let go of the port."""
        if self._server is not None:
            await gone(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.behaviour(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            # A client that gave up closes its end.
            pass
        finally:
            writer.transport.abort()

    def transport(self, *, timeout_s: int = WAIT_S) -> HttpsTransport:
        """One that fits."""
        url = f"https://127.0.0.1:{self.port}"
        return HttpsTransport(self.authority.credentials(), url=url, timeout_s=timeout_s)


async def body_of(reader: asyncio.StreamReader, *, share: int = 1) -> bytes:
    """The body of a request, or its first 1/`share`."""
    headers = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length // share)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request and never answers; it goes on when the client has hung up."""
    await body_of(reader)
    await reader.read()


async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins an answer and hangs in its middle."""
    await body_of(reader)
    writer.write(HEAD % 1000 + bytes(500))
    await reader.read()


async def truncates(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Promises more than it sends, and closes as if all were well."""
    await body_of(reader)
    writer.write(HEAD % 1000 + bytes(500))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers something that is no HTTP."""
    await body_of(reader)
    writer.write(b"\x00\xff" * 200 + b"\r\n\r\n")
    await reader.read()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gone when half of the request has come."""
    await body_of(reader, share=2)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """It listens."""
    made = Line(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def code_of(work: Awaitable[object]) -> Code:
    """The code that it fails with."""
    with pytest.raises(TransportError) as caught:
        async with asyncio.timeout(WAIT_S):
            await work
    return caught.value.code


@pytest.mark.parametrize("behaviour", [silent, stalls])
async def test_a_cloud_that_hangs_is_left_in_time(line: Line, behaviour: Behaviour) -> None:
    line.behaviour = behaviour
    assert await code_of(line.transport(timeout_s=1).exchange(b"CBS1")) is Code.TIMEOUT


@pytest.mark.parametrize("behaviour", [truncates, babbles, resets])
async def test_half_an_answer_or_none_is_never_taken_for_one(
    line: Line, behaviour: Behaviour
) -> None:
    line.behaviour = behaviour
    assert await code_of(line.transport().exchange(bytes(3_000_000))) is Code.UNREACHABLE


class Between:
    """An engine over the real transport, and a simulated cloud behind the line."""

    def __init__(self, line: Line, *, entries: int, segment: int) -> None:
        self.journal = SimulatedJournal(segment=segment)
        # What does not compress: the line has to carry all of it.
        chance = random.Random(1)
        self.journal.entries = [chance.randbytes(ENTRY_BYTES) for _ in range(entries)]
        self.cloud = SimulatedCloud(self.journal)
        self.journal.to = raw(self.cloud.hpke)
        self.requests = 0
        self.broken_at = 0
        self.breaks: Behaviour = resets
        line.behaviour = self.serve
        self.events: list[tuple[str, dict[str, object]]] = []
        hands = Hands()
        self.engine = Engine(
            self.journal,
            line.transport(),
            surroundings=Surroundings(clock=hands, jitter=lambda: 0.5, wait=hands.wait),
            tell=lambda name, **data: self.events.append((name, data)),
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand a report on and its answer back, unless the line breaks at this one."""
        while first := await reader.read(1):
            if first == b"H":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(PROBED)
                continue
            self.requests += 1
            if self.requests == self.broken_at:
                await self.breaks(reader, writer)
                return
            answer = await self.cloud.exchange(await body_of(reader))
            writer.write(HEAD % len(answer) + answer)
            await writer.drain()

    async def truncated(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The cloud keeps the segment, and half of its answer gets through."""
        answer = await self.cloud.exchange(await body_of(reader))
        writer.write(HEAD % len(answer) + answer[: len(answer) // 2])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def garbled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The answer is whole HTTP, and no envelope."""
        await body_of(reader)
        writer.write(HEAD % 500 + bytes(500))
        await reader.read()


@pytest.fixture
async def between(line: Line) -> AsyncIterator[Between]:
    """Its task runs: five segments of two entries."""
    made = Between(line, entries=10, segment=2)
    task = asyncio.create_task(made.engine.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("breaks", "code", "kept"),
    [
        (lambda made: resets, "transport-unreachable", 4),
        (lambda made: made.truncated, "transport-unreachable", 6),
        (lambda made: made.garbled, "malformed", 4),
    ],
    ids=["reset in the middle of a segment", "answer cut off", "answer that is no envelope"],
)
async def test_a_line_that_breaks_costs_one_segment_at_most_and_the_rest_follows(
    between: Between, breaks: Callable[[Between], Behaviour], code: str, kept: int
) -> None:
    between.breaks, between.broken_at = breaks(between), 3
    async with asyncio.timeout(WAIT_S):
        assert (await between.engine.now())[0] == "failed"
        # What had been acknowledged stays so; the issuer may be one segment ahead of that.
        assert between.events[-1][0] == "sync.failed"
        assert between.events[-1][1]["code"] == code
        assert (between.journal.acknowledged, len(between.cloud.entries)) == (4, kept)
        assert between.engine.state is State.OFFLINE
        assert (await between.engine.now())[0] == "completed"
    assert between.journal.acknowledged == 10
    assert between.cloud.entries == between.journal.entries
    # Nothing that was acknowledged went over the line a second time.
    starts = [up.acknowledged_size for up in between.cloud.ups]
    assert starts == sorted(starts)
    assert between.requests <= 7
