"""Newer lists from the gateways next door, which may have a line when this one has none.

What a neighbour says is worth nothing by itself: each list carries the issuer's signature, and one
that is not newer, or not the issuer's, is refused as from anybody. Both sides show the certificate
of their transport, so that the lists, which name people, stay among the issuer's gateways.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
import msgspec

from edge.config import NeighboursConfig
from edge.errors import NeighbourFailed
from edge.gateway import Opened
from edge.heard import Heard
from edge.http.neighbours import PATH, ListsAnswer, ListsBody, held_sequences
from edge.http.octets import decode_hook, encode_bytes_hook
from edge.identity import Identity
from edge.intake import Intake, take_objects
from edge.log import Log
from wallet.clock import Clock
from wallet.protocol.codec import decode, encode
from wallet.protocol.issued import decode_list
from wallet.protocol.refusals import ProtocolError

CBOR = "application/cbor"
READ_BYTES_MAX = 96 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
CONNECT_S = 5
# An answer holds as many lists as fit; the next one goes on from there.
ANSWERS_MAX = 8
_log = Log("neighbours")


class Neighbours:
    """Asks each neighbour now and then; what it tells goes the way of the cloud's objects."""

    def __init__(
        self,
        opened: Opened,
        config: NeighboursConfig,
        *,
        clock: Clock,
        answer_bytes_max: int = READ_BYTES_MAX,
    ) -> None:
        self._journal = opened.journal
        self._database = opened.database
        self._identity = opened.identity
        self._config = config
        self._clock = clock
        self._answer_bytes_max = answer_bytes_max
        self.heard = [Heard(url=url) for url in config.urls]

    async def run(self) -> None:
        """Ask them all, again and again, until it is cancelled."""
        while True:
            await self.ask_all()
            await asyncio.sleep(self._config.interval_s)

    async def ask_all(self) -> int:
        """Ask each neighbour once; gives how many lists were news. Raises: StoreError."""
        return sum([await self._ask(heard) for heard in self.heard])

    async def _ask(self, heard: Heard) -> int:
        heard.asked_ms = self._clock.now_ms()
        taken = 0
        try:
            for _ in range(ANSWERS_MAX):
                lists = await self._lists(heard.url)
                intake = await self._take(lists)
                taken += intake.taken
                if intake.refused:
                    codes = ", ".join(dict.fromkeys(intake.refused))
                    raise NeighbourFailed(f"its lists were refused: {codes}")
                if not intake.taken:
                    break
            heard.heard_ms, failed = self._clock.now_ms(), None
        except NeighbourFailed as error:
            failed = error
        heard.lists += taken
        self._note(heard, failed)
        return taken

    async def _take(self, lists: Iterable[bytes]) -> Intake:
        """What is a list, and newer than what is held; a neighbour may bring nothing else."""
        fresh = []
        for raw in lists:
            try:
                listed = decode_list(raw)
            except ProtocolError as error:
                raise NeighbourFailed(f"it sent what is no list: {error.code}") from error
            held = self._journal.state.lists.get(listed.list_id)
            if held is None or held.sequence < listed.sequence:
                fresh.append(raw)
        return await take_objects(self._journal, self._database, fresh)

    def _note(self, heard: Heard, failed: NeighbourFailed | None) -> None:
        """Tell what changed, and not each time that a neighbour is still silent."""
        failure = None if failed is None else failed.detail
        if failure is not None and failure != heard.failure:
            _log.warning("neighbour.failed", url=heard.url, detail=failure)
        if failure is None and heard.failure is not None:
            _log.info("neighbour.heard", url=heard.url)
        heard.failure = failure

    async def _lists(self, url: str) -> list[bytes]:
        """The lists that it has and this gateway has not. Raises: NeighbourFailed."""
        body = encode(
            msgspec.to_builtins(
                ListsBody(held=held_sequences(self._journal.state)),
                enc_hook=encode_bytes_hook,
                builtin_types=(bytes,),
            )
        )
        raw = await _told(lambda: self._post(url, body))
        try:
            value = decode(raw, bytes_max=READ_BYTES_MAX)
            answer = msgspec.convert(value, ListsAnswer, dec_hook=decode_hook)
        except (ProtocolError, msgspec.ValidationError) as error:
            raise NeighbourFailed(f"an answer that is none: {error}") from error
        return [item.raw for item in answer.lists]

    async def _post(self, url: str, body: bytes) -> bytes:
        timeout_s = self._config.timeout_s
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))
        headers = {"Content-Type": CBOR, "Accept": CBOR}
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url.rstrip("/") + PATH,
                data=body,
                headers=headers,
                ssl=neighbour_tls(self._identity, serving=False),
                allow_redirects=False,
            ) as response,
        ):
            if response.status != 200:
                raise NeighbourFailed(f"it answered with status {response.status}")
            parts, size = [], 0
            async for part in response.content.iter_chunked(CHUNK_BYTES):
                size += len(part)
                if size > self._answer_bytes_max:
                    raise NeighbourFailed(f"an answer of more than {self._answer_bytes_max} bytes")
                parts.append(part)
            return b"".join(parts)


async def _told(ask: Callable[[], Awaitable[bytes]]) -> bytes:
    """What sockets, TLS and HTTP raise, as this room's error."""
    try:
        return await ask()
    except TimeoutError as error:
        raise NeighbourFailed("no answer in time") from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError) as error:
        # aiohttp's own words name the object of the TLS context, another one each time.
        raise NeighbourFailed(_reason(error)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NeighbourFailed(str(error) or type(error).__name__) from error


def _reason(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError,
) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate: {error.certificate_error}"
    return f"it cannot be reached: {error.os_error.strerror or error.os_error}"


def neighbour_tls(identity: Identity, *, serving: bool) -> ssl.SSLContext:
    """TLS 1.3 among gateways: the transport's certificate, under the transport's CA.

    An address on the branch's network is in no certificate: who holds one is a gateway of this
    issuer, whatever its address is today.
    """
    purpose = ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not serving:
        context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.cloud_ca)
    # Python's ssl reads keys from files alone: one that has no name and is in no file system.
    handle = os.memfd_create("transport")
    try:
        os.write(handle, (identity.transport_key + identity.transport_certificate).encode())
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return context
