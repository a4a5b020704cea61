"""Carries sealed envelopes to the cloud: HTTPS, TLS 1.3 on both sides with certificates."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from sync.errors import Code, TransportError
from wallet.protocol.sealed import SEALED_BYTES_MAX

PATH = "/v1/sync"
CONTENT_TYPE = "application/cbdc-sync"
CHUNK_BYTES = 1024 * 1024
CONNECT_S_MAX = 10
OK, HTTPS_PORT = 200, 443


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """PEM text: the cloud's CA, and the transport's own certificate and key."""

    authority: str
    certificate: str
    key: str


class HttpsTransport:
    """One POST an exchange, each on a connection of its own.

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
        self._connect_s = min(CONNECT_S_MAX, timeout_s)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=self._connect_s)
        self._credentials = credentials
        self._answer_bytes_max = answer_bytes_max
        self._scratch = scratch
        self._tls: ssl.SSLContext | None = None

    async def probe(self) -> None:
        """Connect and shake hands, nothing more. Raises: TransportError."""
        host, port = _address(self._url)
        context = self._context()
        with _told():
            async with asyncio.timeout(self._connect_s):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()

    async def exchange(self, sealed: bytes) -> bytes:
        """Send one envelope and give the answer. Raises: TransportError."""
        _address(self._url)
        context = self._context()
        body = aiohttp.BytesIOPayload(io.BytesIO(sealed), content_type=CONTENT_TYPE)
        with _told():
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(self._url, data=body, ssl=context, allow_redirects=False) as response,
            ):
                if response.status != OK:
                    raise TransportError(Code.STATUS, f"status {response.status}")
                return await self._read(response)

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


def _address(url: str) -> tuple[str, int]:
    """Host and port of an https address. Raises: TransportError for any other."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TransportError(Code.UNREACHABLE, f"the cloud's address: {error}") from error
    if parts.scheme != "https" or not host:
        raise TransportError(Code.UNREACHABLE, "the cloud's address is not https")
    return host, port or HTTPS_PORT


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What sockets, TLS and HTTP raise, as this room's error."""
    try:
        yield
    except TimeoutError as error:
        raise TransportError(Code.TIMEOUT, "no answer in time") from error
    except (ssl.SSLError, aiohttp.ClientSSLError) as error:
        raise TransportError(Code.TLS, str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransportError(Code.UNREACHABLE, str(error) or type(error).__name__) from error


def _tls(credentials: Credentials, scratch: Path | None) -> ssl.SSLContext:
    """TLS 1.3 with the certificate. Raises: TransportError for one that does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
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
