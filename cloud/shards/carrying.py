"""Messages between shards, carried while a block runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cloud.clock import Clock
from cloud.shards.relay import Relay, Taker
from cloud.shards.shards import Shards
from cloud.shards.upkeep import recall
from cloud.stream.api import Stream
from wallet.protocol.certificates import TrustAnchor


@contextlib.asynccontextmanager
async def carrying(
    shards: Shards, stream: Stream, *, anchor: TrustAnchor, clock: Clock
) -> AsyncIterator[None]:
    """Publish and take what shards tell each other; several processes may do so at once.

    What a restored shard has forgotten is sent again first. Raises: DatabaseError.
    """
    if len(shards) == 1:
        yield
        return
    await recall(shards)
    relay = Relay(shards, stream, clock)
    takers = [
        Taker(shards, number, anchor=anchor, stream=stream, clock=clock) for number, _ in shards
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in (relay.run(), *[each.run() for each in takers])]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
