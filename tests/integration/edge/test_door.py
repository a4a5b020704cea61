"""Connections are bounded in number and in time: those beyond are closed, the others go on."""

import asyncio
import contextlib
import json
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge.config import LimitsConfig
from edge.pos.terminal import Terminal
from tests.integration.edge.conftest import Template
from tests.support.branch import Daemon
from tests.support.branch_local import Branch, copied

WAIT_S = 20
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n"


class Wire:
    """A connection as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls, port: int, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
    ) -> "Wire":
        """Connect from an address of this machine. Raises: OSError when it is closed at once."""
        name = None if tls is None else "localhost"
        async with asyncio.timeout(WAIT_S):
            return cls(
                *await asyncio.open_connection(
                    "127.0.0.1", port, ssl=tls, server_hostname=name, local_addr=(address, 0)
                )
            )

    async def status(self, request: bytes = HEALTH) -> int:
        """The status of an answer. Raises: OSError, IncompleteReadError when it is closed."""
        self.writer.write(request)
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def problem(self, request: bytes) -> tuple[int, Any]:
        """Status and body of an answer after which the connection ends."""
        status = await self.status(request)
        async with asyncio.timeout(WAIT_S):
            return status, json.loads(await self.reader.read())

    async def closed(self) -> bool:
        """Wait until the other side has closed it."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(OSError):
                while await self.reader.read(4096):
                    pass
        await self.close()
        return True

    async def close(self) -> None:
        """End it."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


Gateway = Callable[..., contextlib.AbstractAsyncContextManager[Branch]]


@pytest.fixture
def gateway(template: Template, tmp_path: Path) -> Gateway:
    """Starts a gateway with other bounds."""

    def start(**limits: int) -> contextlib.AbstractAsyncContextManager[Branch]:
        made = LimitsConfig(**limits)
        return copied(template.folder, tmp_path / "gateway", template.issuer, limits=made)

    return start


@contextlib.asynccontextmanager
async def closing(*wires: Wire) -> AsyncIterator[None]:
    """Close what a test opened."""
    try:
        yield
    finally:
        for wire in wires:
            await wire.close()


async def turned_away(open_one: Awaitable[Wire]) -> bool:
    """Whether a new connection comes to nothing."""
    try:
        wire = await open_one
    except OSError:
        return True
    try:
        await wire.status()
    except (OSError, asyncio.IncompleteReadError):
        return True
    finally:
        await wire.close()
    return False


async def let_in(open_one: Callable[[], Awaitable[Wire]]) -> None:
    """Wait until a new connection is served."""
    async with asyncio.timeout(WAIT_S):
        while await turned_away(open_one()):
            await asyncio.sleep(0.02)


def tls_of(terminal: Terminal) -> ssl.SSLContext:
    """The terminal's side of TLS."""
    return terminal.tls()


async def test_connections_above_the_bound_are_closed_and_the_open_ones_go_on(
    gateway: Gateway,
) -> None:
    async with gateway(connections_max=2) as branch:
        tls, port = tls_of(await branch.terminal()), branch.ports["port"]
        first, second = await Wire.open(port, tls), await Wire.open(port, tls)
        async with closing(first):
            assert (await first.status(), await second.status()) == (200, 200)
            assert await turned_away(Wire.open(port, tls))
            assert (await first.status(), await second.status()) == (200, 200)
            await second.close()
            await let_in(lambda: Wire.open(port, tls))
        text = branch.daemon.context.metrics.text().decode()
        assert 'cbdc_connections_refused_total{cause="places"}' in text


async def test_one_address_cannot_take_every_place(gateway: Gateway) -> None:
    async with gateway(connections_per_address_max=1) as branch:
        tls, port = tls_of(await branch.terminal()), branch.ports["port"]
        wire = await Wire.open(port, tls)
        async with closing(wire):
            assert await wire.status() == 200
            assert await turned_away(Wire.open(port, tls))
            await let_in(lambda: Wire.open(port, tls, address="127.0.0.2"))


async def test_one_terminal_cannot_take_every_place(gateway: Gateway) -> None:
    async with gateway(connections_per_terminal_max=1) as branch:
        tls, port = tls_of(await branch.terminal()), branch.ports["port"]
        other = tls_of(await branch.terminal("other"))
        wire = await Wire.open(port, tls)
        assert await wire.status() == 200
        assert await turned_away(Wire.open(port, tls))
        await let_in(lambda: Wire.open(port, other))
        await wire.close()
        await let_in(lambda: Wire.open(port, tls))


@pytest.mark.parametrize("port", ["pairing_port", "metrics_port", "technician_port"])
async def test_the_ports_beside_have_bounds_of_their_own(gateway: Gateway, port: str) -> None:
    async with gateway(other_connections_max=2) as branch:
        first = await Wire.open(branch.ports[port])
        async with closing(first):
            assert await turned_away(Wire.open(branch.ports[port]))


async def test_who_never_shakes_hands_is_closed_and_its_place_is_free_again(
    gateway: Gateway,
) -> None:
    async with gateway(handshake_timeout_s=1, connections_max=1) as branch:
        tls, port = tls_of(await branch.terminal()), branch.ports["port"]
        silent = await Wire.open(port)
        assert await turned_away(Wire.open(port, tls))
        assert await silent.closed()
        await let_in(lambda: Wire.open(port, tls))


async def test_a_gateway_that_stops_does_not_wait_for_handshakes(gateway: Gateway) -> None:
    async with gateway() as branch:
        silent = await Wire.open(branch.ports["port"])
        tls = tls_of(await branch.terminal())
        await let_in(lambda: Wire.open(branch.ports["port"], tls))
    assert await silent.closed()


async def test_who_speaks_no_tls_leaves_no_place_taken(gateway: Gateway) -> None:
    async with gateway(connections_max=1) as branch:
        tls, port = tls_of(await branch.terminal()), branch.ports["port"]
        for _ in range(3):
            await let_in(lambda: Wire.open(port, tls))
            wire = await Wire.open(port)
            wire.writer.write(HEALTH)
            assert await wire.closed()


@pytest.mark.parametrize("port", ["port", "metrics_port"])
async def test_a_head_that_comes_byte_by_byte_is_given_up(gateway: Gateway, port: str) -> None:
    async with gateway(head_timeout_s=1) as branch:
        tls = tls_of(await branch.terminal()) if port == "port" else None
        wire = await Wire.open(branch.ports[port], tls)
        rest = iter(HEALTH[:-1])
        async with asyncio.timeout(WAIT_S):
            while not wire.reader.at_eof():
                wire.writer.write(bytes([next(rest)]))
                with contextlib.suppress(TimeoutError, OSError):
                    await asyncio.wait_for(wire.reader.read(1), 0.1)
        await wire.close()


async def test_a_connection_that_asks_nothing_more_is_closed(gateway: Gateway) -> None:
    async with gateway(idle_timeout_s=1) as branch:
        wire = await Wire.open(branch.ports["port"], tls_of(await branch.terminal()))
        assert await wire.status() == 200
        assert await wire.closed()


async def test_a_connection_that_asks_in_time_outlives_the_deadline_of_its_first_head(
    gateway: Gateway,
) -> None:
    async with gateway(head_timeout_s=1) as branch:
        wire = await Wire.open(branch.ports["port"], tls_of(await branch.terminal()))
        async with closing(wire):
            loop = asyncio.get_running_loop()
            end = loop.time() + 1.5
            while loop.time() < end:
                assert await wire.status() == 200
                await asyncio.sleep(0.1)


async def test_an_answer_that_nobody_reads_does_not_hold_its_place(gateway: Gateway) -> None:
    async with gateway(request_timeout_s=1, other_connections_max=2) as branch:
        port, loop = branch.ports["metrics_port"], asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", port))
            ask = b"GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n" * 2_000
            asking = asyncio.create_task(loop.sock_sendall(deaf, ask))
            await let_in(lambda: Wire.open(port))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


HEADS = [
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000 + b"\r\n\r\n", 431, "head-too-large", 8_192),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", 431, "head-too-large", 8_192),
    (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 100 + b"\r\n", 400, "head-invalid", None),
    (b"nothing of this kind\r\n\r\n", 400, "head-invalid", None),
]


@pytest.mark.parametrize(("request_", "status", "code", "limit"), HEADS)
async def test_a_head_that_is_none_or_too_large_is_a_problem_too(
    branch: Branch, request_: bytes, status: int, code: str, limit: int | None
) -> None:
    wire = await Wire.open(branch.ports["port"], tls_of(await branch.terminal()))
    got, problem = await wire.problem(request_)
    assert (got, problem["code"], problem.get("limit")) == (status, code, limit)
    await wire.close()


async def test_the_daemon_as_a_process_has_the_same_bounds(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "gateway")
    bounds = ("connections_max=2", "handshake_timeout_s=1", "head_timeout_s=1", "idle_timeout_s=1")
    daemon.settings = [f"limits.{bound}" for bound in bounds]
    await daemon.start()
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = daemon.ports["port"]
    silent, slow = await Wire.open(port), await Wire.open(port, tls)
    assert await turned_away(Wire.open(port, tls))
    slow.writer.write(HEALTH[:9])
    assert await silent.closed() and await slow.closed()
    idle = await Wire.open(port, tls)
    assert await idle.status() == 200
    assert await idle.closed()
    await let_in(lambda: Wire.open(port, tls))
    assert await daemon.stop() == 0
    assert "trace" not in daemon.log.read_text()


async def test_a_daemon_that_may_open_no_more_files_goes_on_when_it_may(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "gateway")
    await daemon.start()
    assert daemon.process is not None
    pid, port = daemon.process.pid, daemon.ports["metrics_port"]
    open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files, before[1]))
    waiting = await Wire.open(port)
    async with asyncio.timeout(WAIT_S):
        while "connection.failed" not in daemon.log.read_text():
            await asyncio.sleep(0.05)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    async with closing(waiting):
        assert await waiting.status() == 200
    assert await daemon.stop() == 0
