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


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TlsServer]:
    """It runs."""
    made = TlsServer(tmp_path)
    await made.start()
    yield made
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
    return HttpsTransport(
        credentials or server.authority.credentials(),
        url=server.url if url is None else url,
        timeout_s=timeout_s,
        answer_bytes_max=answer_bytes_max,
    )


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
    assert (await refused(act(transport(server, credentials=other)))).code is Code.TLS
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
