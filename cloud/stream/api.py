"""The stream as the rest of the cloud sees it: durable messages, each delivered at least once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from cloud.errors import CloudError

IDENTITY_BYTES = 32


class StreamError(CloudError):
    """Codes: `stream-unavailable` (the outcome is unknown: send it again), `stream-full`,
    `message-too-large`."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """`subject` such as `ingest.3` or `shard.1`; `identity` (32 bytes) tells the same one again."""

    subject: str
    identity: bytes
    body: bytes


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages there are: not done yet, of these delivered again, and set aside."""

    waiting: int
    redelivered: int
    parked: int


class Delivery(Protocol):
    """A message in somebody's hands. Unless it is done it comes again, to this one or another."""

    @property
    def message(self) -> Message:
        """What was published."""

    @property
    def attempt(self) -> int:
        """1 for the first time."""

    async def done(self) -> None:
        """It is never delivered again. Raises: StreamError, and then it may be."""

    async def again(self, *, after_s: float) -> None:
        """Deliver it later. Raises: StreamError, and then it is after a time-out."""


class Stream(Protocol):
    """Messages of one subject come in their order; one at a time unless somebody failed.

    A message that was delivered too often without being done is parked: set aside, logged and
    counted, so that it holds up no other.
    """

    async def publish(self, message: Message) -> None:
        """Keep a message; it is durable once this returns, as far as the stream is.

        One of an identity that was published lately changes nothing. Raises: StreamError.
        """

    def deliveries(self, subject: str, *, ahead: int = 1) -> AsyncGenerator[Delivery, None]:
        """What is published under a subject, from the first that is not done, without an end.

        `ahead`: so many may be in somebody's hands at once, and then in any order.
        """

    async def figures(self) -> Figures:
        """Of all subjects. Raises: StreamError."""

    async def close(self) -> None:
        """Deliver no more."""


class Notices(Protocol):
    """Words between processes on which nothing depends: who listens hears them, at most once."""

    async def say(self, topic: str, body: bytes) -> None:
        """Tell all who listen. Raises: StreamError."""

    def listening(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What is said on a topic from here on. Raises: StreamError."""


class Carrier(Stream, Notices, Protocol):
    """Both: what one connection gives."""
