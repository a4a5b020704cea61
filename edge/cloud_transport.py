"""Carries sealed envelopes to the cloud: HTTPS with the gateway's transport certificate."""

from __future__ import annotations

import os
import ssl
import tempfile

import aiohttp

from edge.errors import CloudRefused, CloudUnreachable
from edge.identity import Identity
from wallet.protocol.sealed import SEALED_BYTES_MAX

PATH = "/v1/sync"
CONTENT_TYPE = "application/octet-stream"
CHUNK_BYTES = 1024 * 1024


class CloudTransport:
    """One POST an exchange, each on a connection of its own."""

    def __init__(self, identity: Identity, *, url: str | None, timeout_s: int) -> None:
        self._url = (url or identity.cloud_url).rstrip("/") + PATH
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(10, timeout_s))
        self._identity = identity
        self._tls: ssl.SSLContext | None = None

    async def exchange(self, sealed: bytes) -> bytes:
        """Send one envelope and give the answer. Raises: CloudUnreachable, CloudRefused."""
        if self._tls is None:
            self._tls = _tls(self._identity)
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(
                    self._url,
                    data=aiohttp.BytesPayload(sealed, content_type=CONTENT_TYPE),
                    ssl=self._tls,
                ) as response,
            ):
                content = await _read(response)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CloudUnreachable(str(error) or type(error).__name__) from error
        if status != 200:
            raise CloudRefused(f"status {status}")
        return content


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(CHUNK_BYTES):
        size += len(part)
        if size > SEALED_BYTES_MAX:
            raise CloudRefused("an answer that is too large")
        parts.append(part)
    return b"".join(parts)


def _tls(identity: Identity) -> ssl.SSLContext:
    """TLS 1.3 with the transport's certificate. Raises: CloudRefused for one that does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Python's ssl reads certificates from files alone: one for a moment, mode 0600.
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(identity.transport_key + identity.transport_certificate)
        context.load_verify_locations(cadata=identity.cloud_ca)
        context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise CloudRefused(f"the transport's certificates: {error}") from error
    finally:
        os.unlink(path)
    return context
