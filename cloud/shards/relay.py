"""From the rows of one shard to the effects in another: the stream carries, the databases remember.

A row is published until the other shard is known to have taken it, so that nothing is lost with the
stream; and taken in the transaction of its effect, so that nothing happens twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Container, Sequence
from typing import Any

import msgspec

from cloud.clock import Clock
from cloud.database import Connection
from cloud.errors import CloudError, DatabaseError
from cloud.log import Log
from cloud.shards.effects import Effects
from cloud.shards.messages import Message, ShardError, decode_message, identity_of
from cloud.shards.shards import Shards
from cloud.stream import api
from cloud.stream.api import Delivery, Stream, StreamError
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.refusals import ProtocolError

ROWS_MAX = 50
# Below what a stream takes in one message.
BATCH_BYTES_MAX = 512 * 1024
# Effects that are under way at once.
TAKING_MAX = 4
POLL_S = 0.5
AGAIN_S = 1.0
# What was published and not taken is published again: first after twice this, then ever later.
RESEND_MS = 15_000
RESEND_MAX_MS = 900_000
# A message in hand waits so long for its database, and for so many outages. Then another process
# may have it: the way there may be broken here alone, or the message break every database.
HOLD_S, OUTAGES_MAX = 300.0, 3
_log = Log("shards")
_WAITING = (
    "SELECT message_id, identity, body, tries, created_ms FROM shard_message WHERE target = $1"
    " AND taken_ms IS NULL AND (sent_ms IS NULL OR sent_ms"
    f" + least({RESEND_MS} * (1::bigint << least(tries, 10)), {RESEND_MAX_MS}) <= $2)"
    f" ORDER BY message_id LIMIT {ROWS_MAX} FOR UPDATE SKIP LOCKED"
)


class Batch(msgspec.Struct, frozen=True):
    """Messages of one shard to another one, as they travel."""

    source: int
    bodies: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Batch)


def subject_of(number: int) -> str:
    """Where a shard's messages are."""
    return f"shard.{number}"


class Relay:
    """Publishes what waits in the shards. `away`: those that take nothing now."""

    def __init__(
        self,
        shards: Shards,
        stream: Stream,
        clock: Clock,
        *,
        away: Container[int] = (),
        poll_s: float = POLL_S,
        batch_bytes_max: int = BATCH_BYTES_MAX,
    ) -> None:
        self._shards = shards
        self._stream = stream
        self._clock = clock
        self._away = away
        self._poll_s = poll_s
        self._batch_bytes_max = batch_bytes_max

    async def run(self) -> None:
        """Publish without an end; what fails is tried again, and holds up nothing else."""
        async with asyncio.TaskGroup() as group:
            for number, _ in self._shards:
                group.create_task(self._run_one(number))

    async def _run_one(self, number: int) -> None:
        failed = ""
        while True:
            before, failed = failed, ""
            for target in self._others(number):
                try:
                    if target not in self._away:
                        await self._publish_all(number, target)
                except CloudError as error:
                    failed = error.code
                    if failed != before:
                        _log.warning("relay.failed", shard=number, target=target, code=failed)
                    if isinstance(error, DatabaseError):
                        break
            await asyncio.sleep(self._poll_s)

    def _others(self, number: int) -> list[int]:
        return [target for target, _ in self._shards if target != number]

    async def publish(self, number: int) -> int:
        """Publish all that waits in one shard; answers how many messages that were.

        Raises: DatabaseError, StreamError.
        """
        return sum([await self._publish_all(number, target) for target in self._others(number)])

    async def _publish_all(self, number: int, target: int) -> int:
        published = 0
        while done := await self._publish_batch(number, target):
            published += done
        return published

    async def _publish_batch(self, number: int, target: int) -> int:
        now_ms = self._clock.now_ms()
        async with self._shards.database(number).transaction() as connection:
            rows = _fitting(
                await connection.fetch(_WAITING, target, now_ms), bytes_max=self._batch_bytes_max
            )
            if rows:
                await self._stream.publish(_message(number, target, rows))
                await connection.execute(
                    "UPDATE shard_message SET sent_ms = $2, tries = tries + 1"
                    " WHERE message_id = ANY ($1)",
                    *([row["message_id"] for row in rows], now_ms),
                )
        return len(rows)


def _fitting(rows: Sequence[Any], *, bytes_max: int) -> list[Any]:
    """The first rows, as many as go into one message of the stream."""
    found: list[Any] = []
    room = bytes_max
    for row in rows:
        room -= len(row["body"])
        if found and room < 0:
            break
        found.append(row)
    return found


def _message(number: int, target: int, rows: Sequence[Any]) -> api.Message:
    """The same rows again, and no others, are the same message to the stream.

    Those that were written anew, because their shard was restored, are other rows.
    """
    told = [f"{row['tries']} {row['created_ms']} ".encode() + row["identity"] for row in rows]
    return api.Message(
        subject=subject_of(target),
        identity=hashlib.sha256(bytes((number,)) + b"".join(told)).digest(),
        body=_encode(Batch(number, [row["body"] for row in rows])),
    )


class Taker:
    """Takes what other shards tell one."""

    def __init__(
        self,
        shards: Shards,
        number: int,
        *,
        anchor: TrustAnchor,
        stream: Stream,
        clock: Clock,
        away: set[int] | None = None,
        again_s: float = AGAIN_S,
        hold_s: float = HOLD_S,
    ) -> None:
        """`away` gets the shard's number while its database is."""
        self._shards = shards
        self._number = number
        self._database = shards.database(number)
        self._effects = Effects(anchor, shards.here(number))
        self._away = set[int]() if away is None else away
        self._again_s = again_s
        self._hold_s = hold_s
        self._stream = stream
        self._clock = clock

    async def run(self) -> None:
        """Take without an end, while the database is there: what cannot be taken is left alone."""
        while True:
            await self._return()
            try:
                await self._take_all()
            except StreamError as error:
                _log.warning("taking.failed", shard=self._number, code=error.code)
            await asyncio.sleep(self._again_s)

    async def _take_all(self) -> None:
        """Until the database is away. Raises: StreamError."""
        subject = subject_of(self._number)
        async with contextlib.aclosing(self._stream.deliveries(subject)) as deliveries:
            async for delivery in deliveries:
                await self._take_delivery(delivery)
                if self._number in self._away:
                    return

    async def _take_delivery(self, delivery: Delivery) -> None:
        """Take what a message brings, or give it back. While the database is away it is held."""
        until = asyncio.get_running_loop().time() + self._hold_s
        for _ in range(OUTAGES_MAX):
            if await self._is_finished(delivery.message.body):
                return await delivery.done()
            # Where it is there, the message is to blame: it comes again until the stream parks it.
            if await self._is_there() or not await self._return(until=until):
                break
        await delivery.again(after_s=self._again_s)

    async def _is_finished(self, raw: bytes) -> bool:
        """Take a message, if that is possible; whether it need not come again."""
        try:
            await self.take(raw)
        except DatabaseError as error:
            _log.warning("taking.failed", shard=self._number, code=error.code)
            return False
        except ShardError as error:
            # Nobody can ever take it. Its rows are published again, by whom they can be read.
            _log.error("message.unreadable", cause=error, shard=self._number)
        except Exception as error:  # noqa: BLE001 - other messages go on; the log has it
            _log.error("message.broke", cause=error, shard=self._number)
            return False
        return True

    async def _return(self, *, until: float = math.inf) -> bool:
        """Wait until the database is there; whether it is in time."""
        if await self._is_there():
            return True
        _log.warning("shard.waits", shard=self._number)
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self._again_s)
            if await self._is_there():
                _log.info("shard.returned", shard=self._number)
                return True
        return False

    async def _is_there(self) -> bool:
        """Whether the database is: then others may send to it."""
        found = await self._database.answers()
        (self._away.discard if found else self._away.add)(self._number)
        return found

    async def take(self, raw: bytes) -> None:
        """Carry out what was not carried out before, and tell the shard that it came from.

        What is refused here stays with that shard, and comes again later; so does what it cannot be
        told of because it is away. Raises: DatabaseError, and then some of it was taken; ShardError
        `message-malformed`.
        """
        try:
            batch = _decoder.decode(raw)
        except msgspec.MsgspecError as error:
            raise ShardError("message-malformed", str(error)) from error
        turns = asyncio.Semaphore(TAKING_MAX)

        async def one(body: bytes) -> bytes | None:
            async with turns:
                return await self._take_one(batch.source, body)

        found = await asyncio.gather(*map(one, batch.bodies), return_exceptions=True)
        taken = [item for item in found if isinstance(item, bytes)]
        await self._tell(batch.source, taken)
        for item in found:
            if isinstance(item, BaseException):
                raise item

    async def _take_one(self, source: int, body: bytes) -> bytes | None:
        """The identity of a message that is taken, now or before; None of one that is refused."""
        identity, now_ms = identity_of(source, self._number, body), self._clock.now_ms()
        try:
            message = decode_message(body)
            async with self._database.transaction() as connection:
                if await _is_new(connection, source, identity, message, now_ms=now_ms):
                    await self._effects.apply(connection, source, message, now_ms=now_ms)
        except DatabaseError:
            raise
        except (CloudError, ProtocolError) as error:
            _log.warning("message.refused", shard=self._number, source=source, code=str(error.code))
            return None
        return identity

    async def _tell(self, source: int, taken: Sequence[bytes]) -> None:
        if not taken:
            return
        database = self._shards.database(source)
        try:
            async with database.transaction() as connection:
                await connection.execute(
                    "UPDATE shard_message SET taken_ms = $3"
                    " WHERE target = $1 AND identity = ANY ($2) AND taken_ms IS NULL",
                    *(self._number, list(taken), self._clock.now_ms()),
                )
        except DatabaseError as error:
            if await database.answers():
                raise
            _log.warning("taking.untold", shard=self._number, source=source, code=error.code)


async def _is_new(
    connection: Connection, source: int, identity: bytes, message: Message, *, now_ms: int
) -> bool:
    amount, currency = message.value
    made = await connection.fetchval(
        "INSERT INTO shard_taken VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        *(source, identity, currency, amount, now_ms),
    )
    return made is not None
