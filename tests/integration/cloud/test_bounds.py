"""The bounds of the cloud's ports, on real sockets: who asks too much costs the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud.client import Api as Command
from cloud.config import LimitsConfig
from cloud.database import Database
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud

PATIENCE_S = 20
LOCAL, OTHER = "127.0.0.1", "127.0.0.2"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: cloud\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def trusting() -> ssl.SSLContext:
    """TLS that checks nothing: the door is tested here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Knocking:
    """Connections to a cloud's port for people."""

    def __init__(self, cloud: LocalCloud, *, port: str = "api_port") -> None:
        self.cloud = cloud
        self._port = cloud.ports[port]
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, source: str = LOCAL, *, tls: bool = True) -> Stream:
        """A connection. Raises: OSError when it is closed before it is there."""
        async with asyncio.timeout(PATIENCE_S):
            stream = await asyncio.open_connection(
                LOCAL, self._port, ssl=trusting() if tls else None, local_addr=(source, 0)
            )
        self._writers.append(stream[1])
        return stream

    async def is_let_in(self, source: str = LOCAL) -> bool:
        """Whether a new connection gets an answer."""
        try:
            reader, writer = await self.connect(source)
            writer.write(ALIVE)
            async with asyncio.timeout(PATIENCE_S):
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    async def close(self) -> None:
        """All of them."""
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def knocking(database: Database, folder: Path, **limits: int) -> AsyncIterator[Knocking]:
    """A cloud with these limits."""
    bounds = LimitsConfig(**limits)
    async with local_cloud(database, folder, limits=bounds) as cloud:
        made = Knocking(cloud)
        try:
            yield made
        finally:
            await made.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the other side has closed; whether it said nothing before."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize(
    "limits", [{"connections_max": 3}, {"connections_peer_max": 3}], ids=["all", "peer"]
)
async def test_connections_above_the_bound_are_closed_and_a_place_comes_free(
    database: Database, tmp_path: Path, limits: dict[str, int]
) -> None:
    async with knocking(database, tmp_path, **limits) as door:
        streams = [await door.connect() for _ in range(3)]
        assert not await door.is_let_in()
        # Another address is let in where the bound is that of each one.
        assert await door.is_let_in(OTHER) is ("connections_peer_max" in limits)
        streams[0][1].transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            while not await door.is_let_in():
                pass


async def test_whoever_does_not_shake_hands_holds_a_place_for_a_while_alone(
    database: Database, tmp_path: Path
) -> None:
    async with knocking(database, tmp_path, connections_max=1, head_timeout_s=1) as door:
        reader, writer = await door.connect(tls=False)
        assert not await door.is_let_in()
        assert await closed(reader)
        for half in (b"", b"no handshake"):
            reader, writer = await door.connect(tls=False)
            writer.write(half)
            await closed(reader)
        async with asyncio.timeout(PATIENCE_S):
            while not await door.is_let_in():
                pass


@pytest.mark.parametrize("half", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: "])
async def test_a_head_that_does_not_come_ends_the_connection(
    database: Database, tmp_path: Path, half: bytes
) -> None:
    async with knocking(database, tmp_path, head_timeout_s=1) as door:
        reader, writer = await door.connect()
        writer.write(half)
        assert await closed(reader)
        assert await door.is_let_in()


@pytest.mark.parametrize("rest", [b"", ALIVE[:20]])
async def test_an_idle_connection_ends_and_half_a_second_head_does_not_prolong_it(
    database: Database, tmp_path: Path, rest: bytes
) -> None:
    async with knocking(database, tmp_path, head_timeout_s=10, idle_timeout_s=1) as door:
        reader, writer = await door.connect()
        writer.write(ALIVE)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.write(rest)
        await closed(reader)


async def test_a_connection_whose_first_head_came_in_time_lives_on(
    database: Database, tmp_path: Path
) -> None:
    async with knocking(database, tmp_path, head_timeout_s=1, peer_burst=100_000) as door:
        loop = asyncio.get_running_loop()
        reader, writer = await door.connect()
        until = loop.time() + 1.5
        while loop.time() < until:
            writer.write(ALIVE)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b'{"status":"alive"}'))


async def called(door: Knocking, token: str | None, *, source: str = LOCAL) -> Any:
    """One call: (status, Retry-After, problem or value)."""
    connector = aiohttp.TCPConnector(ssl=False, local_addr=(source, 0))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"https://{LOCAL}:{door.cloud.ports['api_port']}/v1/issuer/account"
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.get(url) as response,
    ):
        value = await response.json(content_type=None)
        return response.status, response.headers.get("Retry-After"), value


async def test_a_caller_makes_so_many_requests_and_others_are_not_kept_waiting(
    database: Database, tmp_path: Path
) -> None:
    bounds = {"caller_burst": 3, "caller_requests_per_s": 2, "peer_burst": 1_000}
    async with knocking(database, tmp_path, **bounds) as door:
        first, second = [await door.cloud.officer(name) for name in ("first", "second")]
        assert [(await called(door, first))[0] for _ in range(3)] == [200] * 3
        status, retry_after, problem = await called(door, first, source=OTHER)
        assert (status, retry_after, problem["code"]) == (429, "1", "too-many-requests")
        assert problem["status"] == 429
        assert (await called(door, second))[0] == 200
        door.cloud.clock.wall_ms += 1_000
        assert [(await called(door, first))[0] for _ in range(3)] == [200, 200, 429]


async def test_an_address_makes_so_many_requests_whatever_tokens_it_shows(
    database: Database, tmp_path: Path
) -> None:
    async with knocking(database, tmp_path, peer_burst=3, peer_requests_per_s=1) as door:
        officer = await door.cloud.officer("first")
        for token in (None, "cbo_a", "cbo_b"):
            assert (await called(door, token))[0] == 401
        for token in (None, officer):
            status, retry_after, problem = await called(door, token)
            assert (status, retry_after, problem["code"]) == (429, "1", "too-many-requests")
        assert (await called(door, officer, source=OTHER))[0] == 200
        assert (await called(door, None, source=OTHER))[0] == 401


async def test_a_report_that_does_not_come_to_its_end_is_given_up(
    database: Database, tmp_path: Path
) -> None:
    async with knocking(database, tmp_path, report_timeout_s=1) as door:
        gateway = await enrolled(door.cloud)
        pem = tmp_path / "transport.pem"
        pem.write_text(gateway.tls_pem)
        context = trusting()
        context.load_cert_chain(pem)
        port = door.cloud.ports["gateway_port"]
        reader, writer = await asyncio.open_connection(LOCAL, port, ssl=context)
        writer.write(b"POST /v1/sync HTTP/1.1\r\nHost: cloud\r\nContent-Length: 100\r\n\r\nhalf")
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.transport.abort()


async def enrolled(cloud: LocalCloud) -> NewGateway:
    """A gateway."""
    async with cloud.api(await cloud.officer("enroller")) as api:
        body = {"name": "one", "currency": "EUR", "tiers": [1], "level": "software"}
        _, made = await api.post("/v1/issuer/gateways", body)
    gateway = NewGateway("one")
    assert (await gateway.enrol(cloud, made["token"]))[0] == 201
    return gateway


async def test_a_command_that_calls_too_fast_waits_and_goes_on(
    database: Database, tmp_path: Path
) -> None:
    limits = LimitsConfig(caller_requests_per_s=1, caller_burst=1)
    async with local_cloud(database, tmp_path, limits=limits) as cloud:
        (tmp_path / "transport-ca.pem").write_bytes(cloud.authority)
        token = tmp_path / "officer.token"
        token.write_text(await cloud.officer("ada"))
        api = Command(cloud.cloud.config, token)
        await api.get("/v1/issuer/account")
        waiting = asyncio.create_task(api.get("/v1/issuer/account"))
        # The clock stands until the command has been refused.
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
        cloud.clock.wall_ms += 1_000
        async with asyncio.timeout(PATIENCE_S):
            assert "currencies" in await waiting
