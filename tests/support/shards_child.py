"""A process that carries messages between shards until it is killed: one address an argument."""

from __future__ import annotations

import asyncio
import sys

from cloud.clock import SystemClock
from cloud.database import Database
from cloud.shards.carrying import carrying
from cloud.shards.shards import Shards
from cloud.stream.local import LocalStream
from tests.support.postgres import CONFIG
from tests.support.world import ANCHOR


async def carry(addresses: list[str]) -> None:
    """Carry, and say so once it begins."""
    shards = Shards([await Database.connect(dsn, config=CONFIG) for dsn in addresses])
    async with carrying(shards, LocalStream(), anchor=ANCHOR, clock=SystemClock()):
        print("carrying", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(carry(sys.argv[1:]))
