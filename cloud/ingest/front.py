"""The front: hands reports to the stream, and waits a bounded time for what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Protocol

from cloud.errors import CloudError
from cloud.ingest.handed import (
    Handed,
    Outcome,
    Unreadable,
    outcome_topic,
    pack,
    partition_of,
    partition_subject,
    unpack_outcome,
)
from cloud.ingest.intake import Taken
from cloud.log import Log
from cloud.stream.api import Carrier, Message
from wallet.protocol.envelope import VerifiedUp

_log = Log("front")


class Settlements(Protocol):
    """What a front needs of the reconciler, which reads it from the database."""

    async def settlements_after(
        self, journal: bytes, epoch: int, size: int, *, settled: tuple[int, int] | None = None
    ) -> list[bytes]:
        """Settlements that the journal has not entered."""


class Front:
    """An intake whose reports go through the stream.

    `name` is new in every process: outcomes come back by it. What a front says is held was
    committed by a worker, or stands in the database; a gateway that hears of nothing sends again.
    """

    def __init__(
        self,
        carrier: Carrier,
        settlements: Settlements,
        *,
        name: str,
        partitions: int,
        wait_s: float,
    ) -> None:
        self._carrier = carrier
        self._settlements = settlements
        self._name = name
        self._partitions = partitions
        self._wait_s = wait_s
        self._sent = 0
        self._waiting: dict[bytes, tuple[VerifiedUp, asyncio.Future[Outcome]]] = {}

    def opened(self, message: Message) -> VerifiedUp | None:
        """The report in a message, if this process opened it: it need not be opened again."""
        found = self._waiting.get(message.identity)
        return None if found is None else found[0]

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Outcomes are heard while the block runs."""
        async with self._carrier.listening(outcome_topic(self._name)) as heard:
            task = asyncio.create_task(self._hear(heard))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def take(self, sealed: bytes, up: VerifiedUp, *, now_ms: int) -> Taken:
        """See `Intake`. Raises: StreamError, and the failure that a worker met."""
        outcome = await self._outcome(sealed, up)
        claims = up.claims
        settlements = await self._settlements.settlements_after(
            claims.journal,
            claims.epoch,
            claims.acknowledged_size,
            settled=None if outcome is None else outcome.settled,
        )
        if outcome is None:
            return Taken(acknowledged=None, problem=None, settlements=settlements)
        return Taken(
            acknowledged=outcome.acknowledged,
            problem=outcome.problem,
            settlements=settlements,
            heard=True,
        )

    async def _outcome(self, sealed: bytes, up: VerifiedUp) -> Outcome | None:
        """What a worker says; None if none says anything in time."""
        message = self._message(sealed, up)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[message.identity] = (up, future)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._carrier.publish(message)
                outcome = await future
        except TimeoutError:
            _log.warning("outcome.late", subject=message.subject, identity=message.identity.hex())
            return None
        finally:
            del self._waiting[message.identity]
        if outcome.failure is not None:
            raise CloudError(outcome.failure, outcome.detail)
        return outcome

    def _message(self, sealed: bytes, up: VerifiedUp) -> Message:
        """A message of its own for every request: the same report again is asked again."""
        self._sent += 1
        place = partition_of(up.claims.journal, partitions=self._partitions)
        return Message(
            subject=partition_subject(place),
            identity=hashlib.sha256(f"{self._name}/{self._sent}".encode()).digest(),
            body=pack(Handed(front=self._name, sealed=sealed)),
        )

    async def _hear(self, heard: AsyncIterator[bytes]) -> None:
        async for raw in heard:
            try:
                outcome = unpack_outcome(raw)
            except Unreadable:
                _log.warning("outcome.unreadable", bytes=len(raw))
                continue
            found = self._waiting.get(outcome.identity)
            if found is not None and not found[1].done():
                found[1].set_result(outcome)
