"""The transport over real ports: certificates on both sides, TLS 1.3, and everything bounded."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from sync.errors import Code, TransportError
from sync.transport import Credentials, HttpsTransport
from tests.support.tls_pair import Authority, TlsServer, gone

SEALED = b"CBS1" + bytes(3_000_000)


_made: list[HttpsTransport] = []


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TlsServer]:
    """It runs."""
    made = TlsServer(tmp_path)
    await made.start()
    yield made
    while _made:
        await _made.pop().hang_up()
    await made.stop()


def transport(
    server: TlsServer,
    *,
    credentials: Credentials | None = None,
    url: str | None = None,
    timeout_s: int = 20,
    answer_bytes_max: int = 10_000_000,
) -> HttpsTransport:
    """One that fits the server, or is changed."""
    made = HttpsTransport(
        credentials or server.authority.credentials(),
        url=server.url if url is None else url,
        timeout_s=timeout_s,
        answer_bytes_max=answer_bytes_max,
    )
    _made.append(made)
    return made


async def refused(work: Awaitable[object]) -> TransportError:
    """What it raises."""
    with pytest.raises(TransportError) as caught:
        await work
    return caught.value


def exchange(made: HttpsTransport) -> Awaitable[object]:
    """As the engine does when it is exchanging."""
    return made.exchange(SEALED)


def probe(made: HttpsTransport) -> Awaitable[object]:
    """As the engine does when it is probing."""
    return made.probe()


both = pytest.mark.parametrize("act", [exchange, probe])
Act = Callable[[HttpsTransport], Awaitable[object]]


async def test_an_envelope_goes_there_and_the_answer_comes_back(server: TlsServer) -> None:
    server.body = bytes(2_500_000)
    made = transport(server, url=server.url + "/")
    await made.probe()
    assert server.received == []
    assert await made.exchange(SEALED) == server.body
    assert (server.received, server.peers) == ([SEALED], ["gateway"])


async def test_an_answer_above_the_bound_is_not_read_to_its_end(server: TlsServer) -> None:
    server.body = bytes(50_000)
    made = transport(server, answer_bytes_max=49_999)
    assert (await refused(made.exchange(SEALED))).code is Code.ANSWER_TOO_LARGE
    assert await transport(server, answer_bytes_max=50_000).exchange(SEALED) == server.body


@pytest.mark.parametrize("status", [204, 307, 403, 500])
async def test_any_status_but_success_is_a_failure_and_no_redirect_is_followed(
    server: TlsServer, status: int
) -> None:
    server.status = status
    error = await refused(transport(server).exchange(SEALED))
    assert (error.code, error.detail) == (Code.STATUS, f"status {status}")
    assert len(server.received) == 1


@both
async def test_nobody_there_is_unreachable(server: TlsServer, act: Act) -> None:
    await server.stop()
    assert (await refused(act(transport(server)))).code is Code.UNREACHABLE


@both
async def test_a_server_by_another_authority_gets_nothing(server: TlsServer, act: Act) -> None:
    other = msgspec.structs.replace(
        server.authority.credentials(), authority=Authority("other").certificate
    )
    assert (await refused(act(transport(server, credentials=other)))).code is Code.OTHER_PEER
    assert server.received == []


@both
async def test_a_server_without_tls_1_3_gets_nothing(tmp_path: Path, act: Act) -> None:
    old = TlsServer(tmp_path, newest=ssl.TLSVersion.TLSv1_2)
    await old.start()
    # One of the two sides says so first: an alert, or a connection that is closed.
    assert (await refused(act(transport(old)))).code in (Code.TLS, Code.UNREACHABLE)
    assert old.received == []
    await old.stop()


async def test_a_client_by_another_authority_is_not_heard(server: TlsServer) -> None:
    stranger = msgspec.structs.replace(
        Authority("other").credentials(), authority=server.authority.certificate
    )
    error = await refused(transport(server, credentials=stranger).exchange(SEALED))
    assert error.code in (Code.TLS, Code.UNREACHABLE)
    assert server.received == []


@both
async def test_a_server_that_says_nothing_is_left_in_time(tmp_path: Path, act: Act) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    fits = TlsServer(tmp_path)
    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    made = transport(fits, url=f"https://127.0.0.1:{port}", timeout_s=1)
    assert (await refused(act(made))).code is Code.TIMEOUT
    await gone(listening)


@both
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://", "nowhere", "https://[::1", "https://a:99999"]
)
async def test_only_https_addresses_are_used(tmp_path: Path, url: str, act: Act) -> None:
    error = await refused(act(transport(TlsServer(tmp_path), url=url)))
    assert error.code is Code.UNREACHABLE


@both
@pytest.mark.parametrize("field", ["authority", "certificate", "key"])
async def test_credentials_that_do_not_fit_are_said_and_leave_no_file(
    server: TlsServer, act: Act, field: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    wrong = msgspec.structs.replace(server.authority.credentials(), **{field: "nothing"})
    made = HttpsTransport(wrong, url=server.url, timeout_s=20, scratch=scratch)
    assert (await refused(act(made))).code is Code.CREDENTIALS
    assert list(scratch.iterdir()) == []


async def test_a_portal_that_speaks_no_tls_is_somebody_else(tmp_path: Path) -> None:
    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://log.in/\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(portal, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    made = transport(TlsServer(tmp_path), url=f"https://127.0.0.1:{port}")
    assert (await refused(made.probe())).code is Code.OTHER_PEER
    await gone(listening)


async def test_a_session_has_one_connection_and_every_byte_of_it_is_counted(
    server: TlsServer,
) -> None:
    made = transport(server)
    await made.probe()
    probed = made.traffic()
    # A handshake with certificates on both sides, and two small heads.
    assert 1_500 < probed.sent < 6_000 and 1_000 < probed.received < 6_000
    server.body = bytes(500_000)
    await made.exchange(SEALED)
    used = made.traffic().since(probed)
    assert len(SEALED) < used.sent < len(SEALED) * 1.1
    assert len(server.body) < used.received < len(server.body) * 1.2
    assert server.connections == 1
    await made.hang_up()
    total = made.traffic()
    assert total.total >= probed.total + used.total
    # What was counted stays, and the next session comes on top.
    await made.probe()
    assert made.traffic().sent > total.sent
    assert server.connections == 2


async def test_a_call_that_fails_is_counted_too(server: TlsServer) -> None:
    server.status = 500
    made = transport(server)
    await refused(made.exchange(SEALED))
    assert made.traffic().sent > len(SEALED)


async def test_certificates_of_the_transport_are_not_judged_by_time(tmp_path: Path) -> None:
    old = TlsServer(tmp_path, age_days=800)
    await old.start()
    made = transport(old)
    assert await made.exchange(b"CBS1") == old.body
    await made.hang_up()
    await old.stop()


async def test_a_slow_line_is_waited_for_as_long_as_it_moves(tmp_path: Path) -> None:
    server = TlsServer(tmp_path)
    server.trickle = (30, 0.1)
    await server.start()
    made = transport(server, timeout_s=2)
    assert await made.exchange(b"CBS1") == bytes(30)
    await made.hang_up()
    await server.stop()
