"""Messages between shards, carried while a block runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cloud.clock import Clock
from cloud.errors import DatabaseError
from cloud.shards.relay import Relay, Taker
from cloud.shards.shards import Shards
from cloud.shards.upkeep import find_homes, pairs_of, recall, recall_all
from cloud.stream.api import Stream
from wallet.protocol.certificates import TrustAnchor


@contextlib.asynccontextmanager
async def carrying(
    shards: Shards, stream: Stream, *, anchor: TrustAnchor, clock: Clock
) -> AsyncIterator[None]:
    """Publish and take what shards tell each other; several processes may do so at once.

    What a restored shard has forgotten is sent again first, or once the shard is there.
    """
    if len(shards) == 1:
        yield
        return
    for number, _ in shards:
        with contextlib.suppress(DatabaseError):
            await find_homes(shards, number, now_ms=clock.now_ms())
    left, away = pairs_of(shards), set[int]()
    await recall(shards, left)
    relay = Relay(shards, stream, clock, away=away)
    takers = [
        Taker(shards, number, anchor=anchor, stream=stream, clock=clock, away=away)
        for number, _ in shards
    ]
    runs = [recall_all(shards, left), relay.run(), *[each.run() for each in takers]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in runs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
