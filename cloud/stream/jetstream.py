"""The stream by NATS JetStream: a work queue for each family of subjects, on files.

A family is the first word of a subject: `ingest` or `shard`. What JetStream stores is never the
only copy: a gateway keeps its entries and an outbox its rows until they hear of the effect. That is
why it is no harm that a server answers before it has synchronised its disk (ADR 15).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from cloud.log import Log
from cloud.stream.api import Figures, Message, StreamError
from cloud.stream.labels import (
    IDENTITY,
    Label,
    Parked,
    headers_of,
    label_of,
    parked_headers,
    parked_of,
)
from cloud.stream.link import TROUBLE, Link, heed, pause, unavailable
from cloud.stream.making import EXPIRING, PARKED, PARTS, PREFIX, Making, stream_of
from cloud.stream.parts import PARTS_MAX, Cut, cut, joined, pieces
from cloud.stream.settings import StreamConfig

# The server counts headers as well, and drops the connection of whoever sends more.
HEADERS_BYTES = 4_096
PARTS_AT_ONCE = 4
TRIES = 6
PULL_S = 2.0
# Work that takes longer than this is taken for stuck, and its message goes to another one.
HELD_MAX_S = 900.0
PAGE = 1_000
_FULL = 10_077
_log = Log("stream")


class JetDelivery:
    """See `Delivery`. While this process lives and works, nobody else gets the message."""

    def __init__(self, stream: JetStream, raw: Msg, message: Message, *, parts: bool) -> None:
        self._stream = stream
        self._raw = raw
        self._parts = parts
        self.message = message
        self.attempt = raw.metadata.num_delivered
        self._keeping = stream.keep(self._keep())

    async def done(self) -> None:
        """See `Delivery`."""
        self._keeping.cancel()
        await self._stream.acknowledge(self._raw)
        if self._parts:
            await self._stream.forget_parts(self.message.identity)

    async def again(self, *, after_s: float) -> None:
        """See `Delivery`. Those behind it wait as well, where one at a time is delivered."""
        self._keeping.cancel()
        try:
            await self._raw.nak(delay=after_s)
        except TROUBLE as error:
            raise unavailable(error) from error

    async def _keep(self) -> None:
        """Say now and then that it is being worked on."""
        wait_s = self._stream.config.ack_wait_s / 3
        for _ in range(int(HELD_MAX_S / wait_s)):
            await asyncio.sleep(wait_s)
            with contextlib.suppress(*TROUBLE):
                await self._raw.in_progress()
        _log.warning("message.stuck", subject=self.message.subject)


class JetStream:
    """See `Stream` and `Notices`. What it needs at the servers is made when it is first used.

    `tries`: how often it publishes or acknowledges a message before it gives up.
    """

    def __init__(self, config: StreamConfig, *, tries: int = TRIES) -> None:
        self.config = config
        self._tries = tries
        self._link = Link(config)
        self._making = Making(self._link)
        self._keepers: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(cls, config: StreamConfig, *, tries: int = TRIES) -> JetStream:
        """Raises: StreamError `stream-unavailable`, ConfigError."""
        made = cls(config, tries=tries)
        await made._link.ready()
        return made

    async def close(self) -> None:
        """See `Stream`."""
        for keeper in self._keepers:
            keeper.cancel()
        await self._link.close()

    def keep(self, saying: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what says that a message is being worked on; it ends with this at the latest."""
        task = asyncio.create_task(saying)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)
        return task

    # ---- notices ----------------------------------------------------------------------------
    async def say(self, topic: str, body: bytes) -> None:
        """See `Notices`."""
        await self._link.say(f"{PREFIX}.notice.{topic}", body)

    def listening(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `Notices`."""
        return self._link.listening(f"{PREFIX}.notice.{topic}")

    # ---- publishing -------------------------------------------------------------------------
    async def publish(self, message: Message) -> None:
        """See `Stream`."""
        await self._publish(message)

    async def _publish(self, message: Message) -> bool:
        """Whether it is new to the server."""
        family = await self._making.family(message.subject)
        made = None
        body, part_bytes = message.body, await self._part_bytes()
        if len(body) > part_bytes:
            if family not in EXPIRING or len(body) > part_bytes * PARTS_MAX:
                raise StreamError("message-too-large", f"{len(body)} bytes")
            made = await self._put_parts(message, part_bytes)
            body = b""
        headers = headers_of(message.identity, made)
        return await self._put(f"{PREFIX}.{message.subject}", body, headers)

    async def _put_parts(self, message: Message, part_bytes: int) -> Cut:
        """Store the parts before the message that names them."""
        await self._making.ensure(PARTS)
        turns, identity = asyncio.Semaphore(PARTS_AT_ONCE), message.identity.hex()

        async def put(number: int, piece: bytes) -> None:
            async with turns:
                headers = {IDENTITY: f"{identity}.{number}"}
                await self._put(_part_subject(message.identity, number), piece, headers)

        made = cut(message.body, part_bytes=part_bytes)
        async with asyncio.TaskGroup() as group:
            for number, piece in enumerate(pieces(message.body, part_bytes=part_bytes)):
                group.create_task(put(number, piece))
        return made

    async def _put(self, subject: str, body: bytes, headers: dict[str, str]) -> bool:
        """Publish until the server says that it has it: again under the same identity.

        Whether this was the first time.
        """
        for attempt in range(1, self._tries + 1):
            try:
                jetstream = await self._link.jetstream()
                made = await jetstream.publish(subject, body, headers=dict(headers))
                heed()
                return not made.duplicate
            except nats.js.errors.APIError as error:
                if error.err_code == _FULL:
                    raise StreamError("stream-full", error.description or "") from error
                trouble: Exception = error
            except (*TROUBLE, StreamError) as error:
                trouble = error
                # Nobody keeps such a stream, it seems: it is looked after at the next message.
                self._making.forget()
            if attempt < self._tries:
                await pause(attempt)
        raise unavailable(trouble) from trouble

    async def _part_bytes(self) -> int:
        return (await self._link.ready()).max_payload - HEADERS_BYTES

    # ---- delivering -------------------------------------------------------------------------
    async def deliveries(
        self, subject: str, *, ahead: int = 1
    ) -> AsyncGenerator[JetDelivery, None]:
        """See `Stream`. Trouble with the servers is waited for here."""
        subscription, failures = None, 0
        try:
            while True:
                heed()
                try:
                    if subscription is None:
                        subscription = await self._subscribe(subject, ahead)
                    (raw,) = await subscription.fetch(1, timeout=PULL_S)
                    delivery = await self._delivery(raw, subject)
                except (nats.errors.TimeoutError, TimeoutError):
                    # Nothing came, or the request was lost with a connection.
                    failures = 0
                    continue
                except (*TROUBLE, StreamError) as error:
                    failures += 1
                    self._making.forget()
                    _log.info("stream.waits", subject=subject, error=type(error).__name__)
                    await _leave(subscription)
                    subscription = None
                    await pause(failures)
                    continue
                failures = 0
                if delivery is None:
                    continue
                try:
                    heed()
                except asyncio.CancelledError:
                    await delivery.again(after_s=0)
                    raise
                yield delivery
        finally:
            await _leave(subscription)

    async def _subscribe(self, subject: str, ahead: int) -> JetStreamContext.PullSubscription:
        stream = stream_of(await self._making.family(subject))
        durable = subject.replace(".", "_")
        jetstream = await self._link.jetstream()
        await jetstream.add_consumer(
            stream,
            durable_name=durable,
            filter_subject=f"{PREFIX}.{subject}",
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self.config.ack_wait_s,
            max_ack_pending=ahead,
            # Counted here, so that what is delivered too often is parked and not forgotten.
            max_deliver=-1,
        )
        return await jetstream.pull_subscribe_bind(durable, stream)

    async def _delivery(self, raw: Msg, subject: str) -> JetDelivery | None:
        """The message whole; None where it was parked.

        Raises: StreamError, and what the driver says.
        """
        label = label_of(raw)
        body: bytes | None = raw.data
        if label is not None and label.cut is not None:
            body = joined(await self._find_parts(label), label.cut)
        often = raw.metadata.num_delivered > self.config.attempts_max
        if label is None or body is None or often:
            await self._park(raw, subject, body or b"")
            return None
        message = Message(subject=subject, identity=label.identity, body=body)
        return JetDelivery(self, raw, message, parts=label.cut is not None)

    async def _find_parts(self, label: Label) -> list[bytes]:
        jetstream, found = await self._link.jetstream(), list[bytes]()
        parts = 0 if label.cut is None else label.cut.parts
        for number in range(min(parts, PARTS_MAX)):
            subject = _part_subject(label.identity, number)
            try:
                part = await jetstream.get_msg(PARTS, subject=subject, direct=True)
            except nats.js.errors.NotFoundError:
                break
            found.append(part.data or b"")
        return found

    async def acknowledge(self, raw: Msg) -> None:
        """Have the server say that it heard of it. Raises: StreamError."""
        trouble: Exception = TimeoutError()
        for attempt in range(1, self._tries + 1):
            try:
                await raw.ack_sync(timeout=self.config.request_timeout_s)
                heed()
                return
            except TROUBLE as error:
                trouble = error
                await pause(attempt)
        raise unavailable(trouble) from trouble

    async def forget_parts(self, identity: bytes) -> None:
        """What is left behind goes by its age."""
        try:
            jetstream = await self._link.jetstream()
            await jetstream.purge_stream(PARTS, subject=f"{PREFIX}.parts.{identity.hex()}.>")
        except (*TROUBLE, StreamError) as error:
            _log.info("parts.left", identity=identity.hex(), error=type(error).__name__)

    async def _park(self, raw: Msg, subject: str, body: bytes) -> None:
        """Set a message aside for people: kept where it fits into one, in any case told."""
        await self._making.ensure(PARKED)
        kept = body if len(body) <= await self._part_bytes() else b""
        headers = parked_headers(raw, subject)
        await self._put(f"{PREFIX}.parked.{subject}", kept, headers)
        await self.acknowledge(raw)
        attempts = raw.metadata.num_delivered
        _log.warning(
            "message.parked", subject=subject, identity=headers[IDENTITY], attempts=attempts
        )

    async def parked(self) -> list[Parked]:
        """What was set aside, oldest first; no more than a page. Raises: StreamError."""
        await self._making.ensure(PARKED)
        jetstream, found = await self._link.jetstream(), list[Parked]()
        try:
            state = (await jetstream.stream_info(PARKED)).state
            number = state.first_seq
            while number <= state.last_seq and len(found) < PAGE:
                try:
                    raw = await jetstream.get_msg(
                        PARKED, seq=number, subject="cbdc.parked.>", next=True
                    )
                except nats.js.errors.NotFoundError:
                    break
                found.append(parked_of(raw))
                number = found[-1].number + 1
        except TROUBLE as error:
            raise unavailable(error) from error
        return found

    async def retry(self, parked: Parked) -> bool:
        """Publish it again, and set it aside no more.

        False where that is not to be done, or its identity is so fresh that the server takes it for
        a repetition. Raises: StreamError.
        """
        message = parked.message
        if message is None or not await self._publish(message):
            return False
        try:
            jetstream = await self._link.jetstream()
            return await jetstream.delete_msg(PARKED, parked.number)
        except TROUBLE as error:
            raise unavailable(error) from error

    # ---- what there is ----------------------------------------------------------------------
    async def figures(self) -> Figures:
        """See `Stream`."""
        try:
            jetstream = await self._link.jetstream()
            waiting = redelivered = parked = 0
            for info in await jetstream.streams_info():
                if info.config.name == PARKED:
                    parked = info.state.messages
                elif (info.config.name or "").startswith("CBDC_") and info.config.name != PARTS:
                    waiting += info.state.messages
                    consumers = await jetstream.consumers_info(info.config.name or "")
                    redelivered += sum(one.num_redelivered or 0 for one in consumers)
        except TROUBLE as error:
            raise unavailable(error) from error
        return Figures(waiting=waiting, redelivered=redelivered, parked=parked)


def _part_subject(identity: bytes, number: int) -> str:
    return f"{PREFIX}.parts.{identity.hex()}.{number}"


async def _leave(subscription: JetStreamContext.PullSubscription | None) -> None:
    """Take nothing more; what came and was not handed out goes back at once."""
    if subscription is None:
        return
    with contextlib.suppress(*TROUBLE):
        while subscription.pending_msgs:
            for raw in await subscription.fetch(1, timeout=0.05):
                await raw.nak()
        await subscription.unsubscribe()
