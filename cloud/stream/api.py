"""The stream as the rest of the cloud sees it: durable messages, each delivered at least once."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
    """Messages of one subject come in their order; one at a time unless somebody failed."""

    async def publish(self, message: Message) -> None:
        """Keep a message; it is durable once this returns, as far as the stream is.

        Raises: StreamError.
        """

    def deliveries(self, subject: str) -> AsyncIterator[Delivery]:
        """What is published under a subject, from the first that is not done, without an end."""

    async def close(self) -> None:
        """Deliver no more."""
