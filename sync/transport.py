"""Carries sealed envelopes to the cloud: HTTPS, TLS 1.3 on both sides with certificates."""

from __future__ import annotations

import contextlib
import io
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from sync.errors import Code, TransportError
from sync.meter import Traffic
from sync.tcp import Watch, moving
from wallet.protocol.sealed import SEALED_BYTES_MAX

PATH = "/v1/sync"
CONTENT_TYPE = "application/cbdc-sync"
CHUNK_BYTES = 1024 * 1024
CONNECT_S_MAX = 20
# However slow the line: by then another way has to be found.
EXCHANGE_S_MAX = 3_600
OK = 200
# Certificates of the transport are not judged by time, on either side: a gateway that was away for
# long, or whose clock is wrong, gets what it lacks by this very exchange. No value is trusted to a
# connection (OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name).
ANY_TIME = ssl.VerifyFlags(0x200000)
# What OpenSSL says of an answer that is no TLS, as of a portal that speaks HTTP.
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """PEM text: the cloud's CA, and the transport's own certificate and key."""

    authority: str
    certificate: str
    key: str


class HttpsTransport:
    """POSTs of one session on one connection, until it is hung up.

    `timeout_s`: how long the line may stand still; one that is only slow is waited for.
    `scratch`: where the key lies in a file for a moment; the system's temporary folder if not said.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        url: str,
        timeout_s: int,
        answer_bytes_max: int = SEALED_BYTES_MAX,
        scratch: Path | None = None,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._timeout_s = timeout_s
        self._connect_s = min(CONNECT_S_MAX, timeout_s)
        self._credentials = credentials
        self._answer_bytes_max = answer_bytes_max
        self._scratch = scratch
        self._tls: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._watch = Watch()
        self._hung_up = Traffic()

    # ---- what it cost ---------------------------------------------------------------------
    def traffic(self) -> Traffic:
        """All bytes on the line so far, by the kernel's count."""
        return self._hung_up.plus(self._watch.traffic())

    async def hang_up(self) -> None:
        """End the session's connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        self._hung_up = self._hung_up.plus(self._watch.close())

    # ---- what goes over it ----------------------------------------------------------------
    async def probe(self) -> None:
        """See whether the cloud itself answers; its certificate says so. Raises: TransportError."""
        async with self._call("HEAD", still_s=self._connect_s):
            pass

    async def exchange(self, sealed: bytes) -> bytes:
        """Send one envelope and give the answer. Raises: TransportError."""
        body = aiohttp.BytesIOPayload(io.BytesIO(sealed), content_type=CONTENT_TYPE)
        async with self._call("POST", still_s=self._timeout_s, data=body) as response:
            if response.status != OK:
                raise TransportError(Code.STATUS, f"status {response.status}")
            return await self._read(response)

    @contextlib.asynccontextmanager
    async def _call(
        self, method: str, *, still_s: int, data: aiohttp.Payload | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        _check_address(self._url)
        context = self._context()
        session = self._session = self._session or self._open(context)
        well = False
        try:
            with _told():
                async with (
                    moving(self._watch, still_s=still_s, most_s=EXCHANGE_S_MAX),
                    session.request(
                        method, self._url, data=data, allow_redirects=False
                    ) as response,
                ):
                    yield response
            well = True
        finally:
            if not well:
                await self.hang_up()

    def _open(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=context, limit=1, socket_factory=lambda info: self._watch.make(*info[:3])
        )
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S_MAX)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_chunked(CHUNK_BYTES):
            size += len(part)
            if size > self._answer_bytes_max:
                raise TransportError(Code.ANSWER_TOO_LARGE, f"more than {self._answer_bytes_max}")
            parts.append(part)
        return b"".join(parts)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = _tls(self._credentials, self._scratch)
        return self._tls


def _check_address(url: str) -> None:
    """Raises: TransportError for an address that is not https."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise TransportError(Code.UNREACHABLE, f"the cloud's address: {error}") from error
    if parts.scheme != "https" or not host:
        raise TransportError(Code.UNREACHABLE, "the cloud's address is not https")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What sockets, TLS and HTTP raise, as this room's error."""
    try:
        yield
    except TimeoutError as error:
        raise TransportError(Code.TIMEOUT, "no answer in time") from error
    except (ssl.SSLError, aiohttp.ClientSSLError) as error:
        raise TransportError(_tls_code(error), str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransportError(Code.UNREACHABLE, str(error) or type(error).__name__) from error


def _tls_code(error: Exception) -> Code:
    """Whether somebody else answered, with another certificate or with what is no TLS."""
    cause: BaseException | None = getattr(error, "os_error", error)
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
    if certificate or isinstance(cause, ssl.SSLCertVerificationError):
        return Code.OTHER_PEER
    return Code.OTHER_PEER if getattr(cause, "reason", "") in _NO_TLS else Code.TLS


def _tls(credentials: Credentials, scratch: Path | None) -> ssl.SSLContext:
    """TLS 1.3 with the certificate. Raises: TransportError for one that does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ANY_TIME
    # Python's ssl reads certificates from files alone: one for a moment, mode 0600.
    handle, path = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(credentials.key + credentials.certificate)
        context.load_verify_locations(cadata=credentials.authority)
        context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise TransportError(Code.CREDENTIALS, f"the transport's certificates: {error}") from error
    finally:
        os.unlink(path)
    return context
