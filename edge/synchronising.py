"""Runs the exchange with the cloud for an open gateway: woken, bounded, patient when it fails.

It is offline, exchanging or idle. A session sends what the journal held when it began, segment by
segment; what the answers themselves add travels with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets

from edge.cloud_transport import CloudTransport
from edge.config import Config
from edge.errors import CloudRefused, CloudUnreachable, EdgeError
from edge.folder import Folder
from edge.gateway import Opened
from edge.journal_port import JournalPort
from edge.log import Log
from hsm.api import HsmError
from wallet.clock import Clock
from wallet.journal import JournalError
from wallet.protocol.envelope import UP_TYPE, Down, up_payload, verify_down
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import open_sealed, seal
from wallet.store.errors import StoreError

EXCHANGE_BYTES = 16
EXCHANGES_MAX = 1_000
RETRY_FIRST_S = 1.0
RETRY_MOST_S = 300.0
COMPLETED, FAILED = "completed", "failed"
_FAILURES = (EdgeError, ProtocolError, StoreError, JournalError, HsmError)
_log = Log("sync")


def retry_s(failures: int, jitter: float) -> float:
    """How long to wait after so many failures in a row; `jitter` is between 0 and 1."""
    longest = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(failures, 20))
    return longest * (0.5 + jitter / 2)


class Synchronising:
    """One open gateway's synchronisation."""

    def __init__(self, opened: Opened, config: Config, *, clock: Clock) -> None:
        self.online: bool | None = None
        self._opened = opened
        self._port = JournalPort(opened, folder=Folder(config.folder), clock=clock)
        self._transport = CloudTransport(
            opened.identity, url=config.sync.url, timeout_s=config.sync.timeout_s
        )
        self._woken = asyncio.Event()
        self._one = asyncio.Lock()
        self._failures = 0

    def wake(self) -> None:
        """Synchronise soon; from anywhere in the loop."""
        self._woken.set()

    async def run(self) -> None:
        """Synchronise when woken, and again after failures, until cancelled."""
        while True:
            await self._wait()
            self._woken.clear()
            await self.now()

    async def _wait(self) -> None:
        if self._failures == 0:
            await self._woken.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_s(self._failures, random.random())):
                await self._woken.wait()

    async def now(self) -> tuple[str, str]:
        """One session: (`completed` or `failed`, detail)."""
        async with self._one:
            self._tell("sync.started")
            try:
                exchanges = await self._session()
            except _FAILURES as error:
                return self._failed(error)
            self._failures = 0
            self._connected(True)
            self._tell("sync.completed", acknowledged=self._opened.journal.acknowledged)
            return COMPLETED, f"exchanges: {exchanges}"

    def _failed(self, error: Exception) -> tuple[str, str]:
        self._failures += 1
        code = str(getattr(error, "code", "unknown"))
        if isinstance(error, CloudUnreachable):
            self._connected(False)
        _log.warning("sync.failed", code=code, failures=self._failures)
        self._tell("sync.failed", code=code)
        return FAILED, str(error)

    async def _session(self) -> int:
        journal = self._opened.journal
        goal = journal.state.size
        for count in range(1, EXCHANGES_MAX + 1):
            before = journal.acknowledged
            await self._exchange()
            if journal.acknowledged >= goal:
                return count
            if journal.acknowledged == before:
                raise CloudRefused("the cloud took no entry")
            self._tell("sync.progress", acknowledged=journal.acknowledged, size=goal)
        return EXCHANGES_MAX

    async def _exchange(self) -> None:
        """One envelope there, one back. Raises: those of `_FAILURES`."""
        recipient = await self._port.recipient()
        exchange = secrets.token_bytes(EXCHANGE_BYTES)
        prepared = await self._port.up(exchange)
        if recipient is None or prepared is None:
            raise CloudRefused("no key of the issuer for envelopes, or no checkpoint, is held yet")
        claims, leaves = prepared
        envelope = await self._port.sign(up_payload(claims), UP_TYPE)
        sealed = await asyncio.to_thread(seal, envelope, recipient=recipient)
        down = await self._opened_down(await self._transport.exchange(sealed), exchange)
        intake = await self._port.take(down)
        _log.info(
            "sync.exchanged",
            sent=len(claims.entries),
            acknowledged=down.acknowledged_size,
            taken=intake.taken,
            refused=intake.refused,
        )
        if down.problem is not None:
            raise CloudRefused(down.problem)
        await self._port.handed_over(leaves)

    async def _opened_down(self, sealed: bytes, exchange: bytes) -> Down:
        """The answer, checked: by the role sync, to this journal, epoch and exchange."""
        envelope = await asyncio.to_thread(open_sealed, sealed, keys=self._port.own_keys())
        journal = self._opened.journal
        down = verify_down(envelope, root=journal.anchor).claims
        state = journal.state
        if (down.journal, down.epoch, down.exchange) != (state.journal, state.epoch, exchange):
            raise CloudRefused("an answer to something else")
        return down

    def _connected(self, online: bool) -> None:
        if online != self.online:
            self.online = online
            self._tell("connectivity.changed", online=online)

    def _tell(self, name: str, **data: object) -> None:
        self._opened.events.tell(name, **data)
