"""A worker: takes reports from the stream, has them reconciled, and says what became of them.

It keeps nothing that another one could not load from the database: it may be started and killed at
will. A message is done after the commit, so that a kill in between brings it again, to this worker
or another; the reconciler then finds the entries held and gives the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from cloud.clock import Clock
from cloud.errors import CloudError
from cloud.ingest.handed import (
    Outcome,
    outcome_topic,
    pack,
    partition_subject,
    unpack_handed,
)
from cloud.ingest.intake import Ingesting
from cloud.ingest.members import Alone, Sharing
from cloud.log import Log
from cloud.stream.api import Carrier, Delivery, Message, StreamError
from hsm.api import HsmError
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.refusals import ProtocolError

# Reports of a partition in hand at once: the next one is checked and applied while one commits.
AHEAD = 4
DRAIN_S = 30.0
# A failure that may pass is tried again after 1, 2 and 4 seconds before the gateway is told.
TRIES, RETRY_S = 4, 1.0
_PASSING = ("database-unavailable", "database-busy", "token-gone", "token-timeout")
_log = Log("worker")


class Reconciling(Protocol):
    """What a worker needs of the reconciler."""

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingesting:
        """Take a segment."""

    def settled(self, journal: bytes, epoch: int) -> tuple[int, int] | None:
        """Size and time of the last settlement that the journal has entered, if it is at hand."""


class Opening(Protocol):
    """Opens sealed reports with the issuer's keys."""

    async def open(self, sealed: bytes) -> VerifiedUp:
        """Raises: ProtocolError, CloudError, HsmError."""


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was in a message: who waits, and the report or (code, detail) of what is wrong."""

    front: str | None
    up: VerifiedUp | None
    failure: tuple[str, str] | None


class Worker:
    """Takes the partitions that are its own, each in its order.

    `opened` gives reports that this process opened already. `retry_s`: the first wait after a
    failure that may pass; `drain_s`: how long it finishes what it has in hand when it stops.
    """

    def __init__(
        self,
        carrier: Carrier,
        reconciler: Reconciling,
        opening: Opening,
        *,
        clock: Clock,
        partitions: int,
        sharing: Sharing | None = None,
        opened: Callable[[Message], VerifiedUp | None] = lambda message: None,
        retry_s: float = RETRY_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._carrier = carrier
        self._reconciler = reconciler
        self._opening = opening
        self._clock = clock
        self._partitions = partitions
        self._sharing = sharing or Alone()
        self._opened = opened
        self._retry_s = retry_s
        self._drain_s = drain_s
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._in_hand: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until this is cancelled; what is in hand then is finished first, for a while."""
        try:
            while True:
                self._follow(self._sharing.owned(self._partitions))
                await self._watch(self._sharing.changed())
        finally:
            await self._drain()

    def _follow(self, owned: set[int]) -> None:
        """Take from these partitions and from no others; what is in hand is finished anyway."""
        for place in self._lanes.keys() - owned:
            self._lanes.pop(place).cancel()
        for place in owned - self._lanes.keys():
            self._lanes[place] = asyncio.create_task(self._lane(place))

    async def _watch(self, changed: Awaitable[None]) -> None:
        """Until the partitions may be others, or a lane ends: none does without a failure."""
        waiting = asyncio.ensure_future(changed)
        try:
            ended, _ = await asyncio.wait(
                [waiting, *self._lanes.values()], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        for task in ended:
            task.result()

    async def _lane(self, place: int) -> None:
        subject = partition_subject(place)
        async with contextlib.aclosing(
            self._carrier.deliveries(subject, ahead=AHEAD)
        ) as deliveries:
            async for delivery in deliveries:
                # Opened one after the other, so that a journal's reports stay in their order.
                try:
                    report = await self._read(delivery)
                except asyncio.CancelledError:
                    await self._finish(delivery.again(after_s=0))
                    raise
                task = asyncio.create_task(self._take(delivery, report))
                self._in_hand.add(task)
                task.add_done_callback(self._in_hand.discard)
        raise StreamError("stream-unavailable", f"{subject} has an end")

    async def _read(self, delivery: Delivery) -> _Report:
        message, handed = delivery.message, None
        try:
            handed = unpack_handed(message.body)
            up = self._opened(message) or await self._opening.open(handed.sealed)
            return _Report(front=handed.front, up=up, failure=None)
        except (CloudError, ProtocolError, HsmError) as error:
            front = None if handed is None else handed.front
            return _Report(front=front, up=None, failure=(str(error.code), str(error)))

    async def _drain(self) -> None:
        lanes = list(self._lanes.values())
        for lane in lanes:
            lane.cancel()
        if lanes:
            await asyncio.wait(lanes)
        if self._in_hand:
            # What is left after that comes again, elsewhere.
            _, late = await asyncio.wait(self._in_hand, timeout=self._drain_s)
            for task in late:
                task.cancel()

    async def _take(self, delivery: Delivery, report: _Report) -> None:
        """One report, from the stream's hands to the ledger's."""
        message = delivery.message
        if delivery.attempt > 1:
            _log.info("report.again", subject=message.subject, attempt=delivery.attempt)
        if report.front is None:
            # Nobody can be told: it comes again until the stream parks it.
            return await self._finish(delivery.again(after_s=self._retry_s))
        outcome = await self._outcome(message, report)
        if outcome.failure in _PASSING and delivery.attempt < TRIES:
            after_s = self._retry_s * 2 ** (delivery.attempt - 1)
            return await self._finish(delivery.again(after_s=after_s))
        if outcome.failure is not None:
            _log.warning("report.failed", subject=message.subject, code=outcome.failure)
        await self._finish(self._carrier.say(outcome_topic(report.front), pack(outcome)))
        # After a failure as well: the gateway is told of it and keeps what is not acknowledged.
        await self._finish(delivery.done())

    async def _outcome(self, message: Message, report: _Report) -> Outcome:
        identity, code, detail = message.identity, "internal-fault", ""
        if report.up is None or report.failure is not None:
            code, detail = report.failure or (code, detail)
            return Outcome(identity=identity, failure=code, detail=detail)
        claims = report.up.claims
        try:
            ingested = await self._reconciler.ingest(report.up, now_ms=self._clock.now_ms())
            return Outcome(
                identity=identity,
                acknowledged=ingested.acknowledged,
                problem=ingested.problem,
                settled=self._reconciler.settled(claims.journal, claims.epoch),
            )
        except CloudError as error:
            code, detail = error.code, error.detail
        except HsmError as error:
            code, detail = error.code, "the issuer's keys are not at hand"
        except Exception as error:  # noqa: BLE001 - other journals' reports go on; the log has it
            _log.error("report.broke", cause=error, subject=message.subject)
        return Outcome(identity=identity, failure=code, detail=detail)

    async def _finish(self, step: Awaitable[None]) -> None:
        """A step that may fail: the message then comes again, or the gateway sends it again."""
        try:
            await step
        except StreamError as error:
            _log.warning("report.untold", code=error.code)
