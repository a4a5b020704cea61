"""While a shard's database is away what others tell it waits, and none of it is set aside."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cloud.clock import SystemClock
from cloud.database import Database, migrate
from cloud.errors import DatabaseError
from cloud.shards.relay import Relay, Taker
from cloud.stream.api import Stream
from cloud.stream.jetstream import JetStream
from cloud.stream.local import LocalStream
from tests.integration.cloud.test_shard_stories import ANNA, CARA, Tale
from tests.support.clouds import Clouds
from tests.support.clusters import Cluster, cluster
from tests.support.nats import nats_server, stream_config
from tests.support.postgres import CONFIG
from tests.support.world import ANCHOR, NOW_MS
from wallet.protocol.messages import OrderKind

__all__ = ["cluster"]
WAIT_S = 60


class Watched(Database):
    """Counts the transactions that were possible, and those that were not."""

    passed = failures = 0

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """See `Database`."""
        try:
            async with super().transaction() as connection:
                yield connection
            self.passed += 1
        except DatabaseError:
            self.failures += 1
            raise


@contextlib.asynccontextmanager
async def some_stream(kind: str, folder: Path) -> AsyncIterator[Stream]:
    """A stream that parks what was delivered twice and not done."""
    if kind == "local":
        local = LocalStream(attempts_max=2)
        yield local
        await local.close()
        return
    async with nats_server(folder) as server:
        stream = await JetStream.connect(stream_config(server, attempts_max=2, ack_wait_s=1))
        yield stream
        await stream.close()


@contextlib.asynccontextmanager
async def running(*runs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """They run while the block does."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, asyncio.CancelledError), found


@pytest.mark.parametrize("hold_s", [300.0, 0.1], ids=["held", "handed-back"])
@pytest.mark.parametrize("kind", ["local", "jetstream"])
async def test_an_outage_parks_nothing_however_long_it_is(
    clouds: Clouds, cluster: Cluster, tmp_path: Path, kind: str, hold_s: float
) -> None:
    other = Watched.away(await cluster.address("one"), config=CONFIG)
    other.take_over(await Database.connect(other.dsn, config=CONFIG))
    await migrate(other, now_ms=NOW_MS)
    assert isinstance(other, Watched)
    tale = await Tale([await clouds.fresh(), other], random.Random(0)).begin((1, 0, 1))
    north, south = tale.north, tale.south
    await tale.sync(north, south)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    for branch in (north, south):
        await branch.sync(tale.reconciling)
    async with some_stream(kind, tmp_path) as stream:
        kinds: Any = {"anchor": ANCHOR, "stream": stream, "clock": SystemClock()}
        # As many as would park it, if each tried it; one that gives it back tries no more.
        numbers = (0, 1, 1, 1) if hold_s > 1 else (0, 1)
        takers = [
            Taker(tale.shards, number, again_s=0.05, hold_s=hold_s, **kinds) for number in numbers
        ]
        relay, before = Relay(tale.shards, stream, tale.clock), other.passed
        async with running(*[taker.run() for taker in takers]), asyncio.timeout(WAIT_S):
            # Each of them has seen its database and waits for messages.
            while other.passed < before + len(takers) - 1:
                await asyncio.sleep(0.01)
            await cluster.stop()
            assert await relay.publish(0) == 1
            before = other.failures
            while other.failures < before + 40:
                await asyncio.sleep(0.05)
            assert (await stream.figures()).parked == 0
            await cluster.start()
            async with running(relay.run()):
                while await tale.waiting() or (await stream.figures()).waiting:
                    await asyncio.sleep(0.05)
        assert (await stream.figures()).parked == 0
    await tale.drain()
    assert (await tale.where()).in_transit == 0
    await other.close()


@pytest.mark.parametrize("state", ["55P03", "P0001"], ids=["busy", "broken"])
async def test_a_message_that_breaks_each_time_is_parked_and_holds_up_no_other(
    clouds: Clouds, state: str
) -> None:
    databases = [await clouds.fresh() for _ in range(2)]
    tale = await Tale(databases, random.Random(0)).begin((1, 0, 1))
    north = tale.north
    for amount in (100, 150):
        north.book.accept(north.book.pay(ANNA, ANNA, amount, kind=OrderKind.REDEEM))
    await north.sync(tale.reconciling)
    async with tale.head.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END$$;"
            "CREATE TRIGGER refusing BEFORE INSERT ON shard_taken FOR EACH ROW"
            " WHEN (NEW.amount = 100) EXECUTE FUNCTION refuse()"
        )
    stream = LocalStream(attempts_max=2)
    taker = Taker(tale.shards, 0, anchor=ANCHOR, stream=stream, clock=tale.clock, again_s=0.01)
    relay = Relay(tale.shards, stream, tale.clock, batch_bytes_max=1)
    async with running(taker.run(), relay.run()), asyncio.timeout(WAIT_S):
        while await tale.waiting() > 1 or not (await stream.figures()).parked:
            await asyncio.sleep(0.05)
    assert (await stream.figures()).parked == 1
    assert (await tale.where()).between == 100
    await stream.close()
