"""Tasks that wait for the driver end when they are cancelled, whatever comes in the same moment.

`asyncio.wait_for` before Python 3.12 gives a result that comes with a cancellation, and the
cancellation is lost. The driver waits so everywhere; here it always does.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cloud.stream.jetstream import JetStream
from cloud.stream.labels import headers_of
from cloud.stream.link import Link, heed
from cloud.stream.settings import StreamConfig

WAIT_S = 5
IDENTITY = b"\x07" * 32
SUBJECT = "ingest.3"


class Raw:
    """A message that was fetched; `returned`: it went back at once."""

    data = b"report"
    headers = headers_of(IDENTITY, None)
    metadata = SimpleNamespace(num_delivered=1)

    def __init__(self) -> None:
        self.returned = False

    async def nak(self, *, delay: float) -> None:
        self.returned = delay == 0


class Subscription:
    """Gives a message to whoever is cancelled, once."""

    pending_msgs = 0

    def __init__(self) -> None:
        self.raw, self.left = Raw(), False
        self.waiting = asyncio.Event()
        self._given = False

    async def next_msg(self, **options: float) -> Raw:
        self.waiting.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if self._given:
                raise
            self._given = True
        return self.raw

    async def fetch(self, batch: int, **options: float) -> list[Raw]:
        return [await self.next_msg()]

    async def unsubscribe(self) -> None:
        self.left = True


class Taking(JetStream):
    """Takes from a subscription of the test's; no server is asked for one."""

    def __init__(self, config: StreamConfig, subscription: Subscription) -> None:
        super().__init__(config)
        self._given: Any = subscription

    async def _subscribe(self, subject: str, ahead: int) -> Any:
        return self._given


@pytest.fixture
def config() -> StreamConfig:
    return StreamConfig(servers=("nats://127.0.0.1:1",))


async def ends(iterator: Any, subscription: Subscription) -> None:
    """Whoever takes from it is cancelled while the driver waits, and ends."""
    task = asyncio.create_task(all_of(iterator))
    await subscription.waiting.wait()
    task.cancel()
    await asyncio.wait([task], timeout=WAIT_S)
    assert task.cancelled()


async def all_of(iterator: Any) -> list[Any]:
    return [item async for item in iterator]


async def test_whoever_takes_deliveries_ends_and_gives_the_message_back(
    config: StreamConfig,
) -> None:
    subscription = Subscription()
    await ends(Taking(config, subscription).deliveries(SUBJECT), subscription)
    assert (subscription.raw.returned, subscription.left) == (True, True)


async def test_whoever_listens_ends(config: StreamConfig) -> None:
    subscription = Subscription()
    await ends(Link(config)._heard("workers", subscription), subscription)
    assert subscription.left


async def test_whoever_is_not_cancelled_goes_on() -> None:
    heed()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    heed()
