"""Messages of a stream, and taking them in a test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest

from cloud.stream.api import Delivery, Message
from cloud.stream.jetstream import JetStream

WAIT_S = 20


def message(word: str, *, subject: str = "ingest.3", body: bytes | None = None) -> Message:
    """A message that is known by a word."""
    identity = hashlib.sha256(word.encode()).digest()
    return Message(subject=subject, identity=identity, body=word.encode() if body is None else body)


@contextlib.asynccontextmanager
async def taking(
    stream: JetStream, subject: str = "ingest.3", *, ahead: int = 1
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Deliveries while the block runs."""
    async with contextlib.aclosing(stream.deliveries(subject, ahead=ahead)) as deliveries:
        yield deliveries


async def first(deliveries: AsyncIterator[Delivery]) -> Delivery:
    """The next one, in a bounded time."""
    async with asyncio.timeout(WAIT_S):
        return await anext(deliveries)


async def nothing_more(stream: JetStream, *, for_s: float = 0.3) -> None:
    """Nothing is delivered to another one for a while."""
    async with taking(stream) as deliveries:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(for_s):
                await anext(deliveries)
