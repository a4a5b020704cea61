"""What may go wrong between shards: addresses, refusals, backups, kills. Nothing is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from cloud.config import Config, DatabaseConfig, ShardConfig
from cloud.database import Database
from cloud.service import open_cloud
from cloud.shards.homes import settle_down
from cloud.shards.messages import PaidOnline, ShardError, encode_message
from cloud.shards.relay import Batch, Relay, Taker, _encode
from cloud.shards.shards import Shards, identify, open_shards
from cloud.shards.upkeep import KEEP_MS, forget, recall
from cloud.stream.api import Delivery, Message, StreamError
from cloud.wallets import set_redeem_target
from tests.integration.cloud.test_arrivals import history
from tests.integration.cloud.test_shard_stories import ANNA, CARA, Tale
from tests.support.arrivals import deliver, open_books, picture_of
from tests.support.cloud_local import StepClock
from tests.support.clouds import Clouds
from tests.support.postgres import CONFIG, Server
from tests.support.reporting import SUPPLY, open_bank, reconciler
from tests.support.shards import ISSUER, Mailbox, Several
from tests.support.world import ANCHOR, NOW_MS
from wallet.protocol.ids import wallet_text
from wallet.protocol.messages import OrderKind

KILLS = 4


@pytest.fixture
async def tale(clouds: Clouds) -> Tale:
    """North at shard 1, south at the head."""
    databases = [await clouds.fresh() for _ in range(2)]
    return await Tale(databases, random.Random(0)).begin((1, 0, 1))


async def test_a_message_that_is_refused_waits_and_holds_up_no_other(tale: Tale) -> None:
    north, south = tale.north, tale.south
    text = wallet_text(ANNA.public.id)
    await open_bank(tale.head, "USD")
    async with tale.head.transaction() as connection:
        await set_redeem_target(connection, text, "bank-USD")
    north.book.accept(north.book.pay(ANNA, ANNA, 100, kind=OrderKind.REDEEM))
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    for branch in (north, south):
        await branch.sync(tale.reconciling)
    for _ in range(2):
        for _ in range(3):
            for message in await tale.publish():
                await tale.deliver(message)
        assert await tale.waiting() == 1
        found, _ = await tale.everywhere()
        assert (found.offline, found.in_transit, found.between) == (900, 100, 100)
        tale.clock.ms += 10_000_000
    async with tale.head.transaction() as connection:
        await set_redeem_target(connection, text, "bank")
    await tale.drain()
    found, _ = await tale.everywhere()
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 900, 900, 0)


async def test_nobody_takes_what_is_no_message(tale: Tale) -> None:
    taker = tale.takers[0]
    with pytest.raises(ShardError, match="message-malformed"):
        await taker.take(b"\x00")
    unknown = encode_message(
        PaidOnline(
            transfer=bytes(31),
            journal=bytes(20),
            wallet="bank",
            amount=1,
            currency="EUR",
            transfer_kind=7,
            reference=None,
        )
    )
    await taker.take(_encode(Batch(1, [b"\x81\xa4kind", unknown])))
    async with tale.head.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM shard_taken") == 0


async def test_old_rows_are_summed_up_and_the_account_stays(tale: Tale) -> None:
    north, south = tale.north, tale.south
    north.book.accept(north.book.pay(ANNA, ANNA, 100, kind=OrderKind.REDEEM))
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await tale.sync(north, south)
    before = await tale.where()
    late_ms = tale.clock.ms + KEEP_MS + 1
    for now_ms in (NOW_MS, late_ms, late_ms + KEEP_MS, late_ms + 2 * KEEP_MS):
        for number, _ in tale.shards:
            await forget(tale.shards, number, now_ms=now_ms)
        assert await tale.where() == before
    for _, database in tale.shards:
        async with database.transaction() as connection:
            for table in ("shard_message", "shard_taken"):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
            assert await connection.fetchval("SELECT count(*) FROM shard_sum") > 0


class Handed:
    """A delivery, and what became of it."""

    attempt = 1

    def __init__(self, body: bytes) -> None:
        self.message = Message(subject="shard.0", identity=bytes(32), body=body)
        self.outcome = ""

    async def done(self) -> None:
        """See `Delivery`."""
        self.outcome = "done"

    async def again(self, *, after_s: float) -> None:
        """See `Delivery`."""
        self.outcome = "again"


class Faltering(Mailbox):
    """A stream that cannot be reached at first."""

    def __init__(self, deliveries: list[Handed]) -> None:
        super().__init__()
        self.failures = 2
        self.handed = deliveries

    async def publish(self, message: Message) -> None:
        """See `Stream`."""
        self.failures -= 1
        if self.failures >= 0:
            raise StreamError("stream-unavailable", "not yet")
        await super().publish(message)

    async def deliveries(self, subject: str, *, ahead: int = 1) -> AsyncGenerator[Delivery, None]:
        """See `Stream`."""
        for each in self.handed:
            yield each
        raise StreamError("stream-unavailable", subject)


async def test_the_stream_and_the_databases_may_be_away(tale: Tale) -> None:
    north, south = tale.north, tale.south
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await north.sync(tale.reconciling)
    stream = Faltering([])
    publishing = asyncio.create_task(Relay(tale.shards, stream, tale.clock, poll_s=0.01).run())
    async with asyncio.timeout(20):
        while not stream.messages:
            await asyncio.sleep(0.01)
    publishing.cancel()
    (message,) = stream.messages
    stream.handed = [Handed(b"no message"), Handed(message.body), Handed(message.body)]
    taker = Taker(tale.shards, 0, anchor=ANCHOR, stream=stream, clock=tale.clock, again_s=0.01)
    source = tale.shards.database(1)
    await source.close()
    taking = asyncio.create_task(taker.run())
    async with asyncio.timeout(20):
        while not stream.handed[1].outcome:
            await asyncio.sleep(0.01)
    # It is taken, whether or not the shard that it came from can be told of it.
    assert [each.outcome for each in stream.handed[:2]] == ["done", "done"]
    await reconnect(source)
    assert await tale.waiting() == 1
    async with asyncio.timeout(20):
        while stream.handed[2].outcome != "done" or await tale.waiting():
            await asyncio.sleep(0.01)
    taking.cancel()
    await asyncio.gather(publishing, taking, return_exceptions=True)
    await tale.where()


async def reconnect(database: Database) -> None:
    """Let a database be there again."""
    database.take_over(await Database.connect(database.dsn, config=CONFIG))


async def test_what_is_too_much_for_one_message_goes_in_several(tale: Tale) -> None:
    north = tale.north
    for _ in range(3):
        north.book.accept(north.book.pay(ANNA, ANNA, 100, kind=OrderKind.REDEEM))
    await north.sync(tale.reconciling)
    tale.relay = Relay(tale.shards, tale.box, tale.clock, batch_bytes_max=10)
    assert len(await tale.publish()) == 4
    tale.clock.ms += 10_000_000
    await tale.drain()
    assert (await tale.where()).online == SUPPLY - 700


@pytest.mark.parametrize("number", [0, 1])
async def test_a_shard_that_is_restored_is_told_again(
    postgres: Server, tale: Tale, number: int
) -> None:
    north, south = tale.north, tale.south
    await tale.sync(north, south)
    backup = await copy_of(postgres, tale.shards.database(number))
    north.book.accept(north.book.pay(ANNA, ANNA, 100, kind=OrderKind.REDEEM))
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await tale.sync(north, south)
    wanted = await tale.where()
    restored = await Database.connect(postgres.dsn(backup), config=CONFIG)
    databases = [restored if at == number else each for at, each in tale.shards]
    again = Tale(databases, random.Random(1))
    again.north, again.south, again.clock.ms = north, south, tale.clock.ms
    try:
        # Value is between the shards, and the account says so; nothing else is off.
        assert (await again.where()).issued == SUPPLY
        assert await recall(again.shards) > 0
        # Verdicts for arrivals that are forgotten come too early, and wait.
        for message in await again.publish():
            await again.deliver(message)
        assert (await again.waiting() > 0) == (number == 0)
        for branch in (south, north) if number == 0 else (north, south):
            branch.acknowledged = 0
            await branch.sync(again.reconciling)
        for _ in range(2):
            await again.drain()
        assert await recall(again.shards) == 0
        assert await again.where() == wanted
        assert await again.verdicts(south) == []
    finally:
        await restored.close()
        await postgres.drop(backup)


async def copy_of(postgres: Server, database: Database) -> str:
    """A backup of one database, as of now."""
    name = database.dsn.split("/@/")[-1].split("@/")[-1].split("?")[0]
    await database.close()
    await postgres.command(f"CREATE DATABASE {name}_backup TEMPLATE {name} STRATEGY file_copy")
    await reconnect(database)
    return f"{name}_backup"


async def test_an_address_of_another_database_is_found_out(clouds: Clouds) -> None:
    head, one, two = [await clouds.fresh() for _ in range(3)]

    async def opened(*others: Database) -> Shards:
        config = DatabaseConfig(shards=tuple(ShardConfig(dsn=each.dsn) for each in others))
        async with contextlib.AsyncExitStack() as stack:
            return await open_shards(head, config, stack, random=ISSUER, now_ms=NOW_MS)

    assert len(await opened(one, two)) == 3
    for wrong in ((two, one), (head, two), (one, one)):
        with pytest.raises(ShardError, match="shard-mismatch"):
            await opened(*wrong)
    async with two.transaction() as connection:
        with pytest.raises(ShardError, match="shard-mismatch"):
            await identify(connection, 2, bytes(16), ISSUER)
    async with head.transaction() as connection:
        await settle_down(connection, bytes(20), 2, now_ms=NOW_MS)
    assert len(await opened(one, two)) == 3
    with pytest.raises(ShardError, match="shard-missing"):
        await opened(one)
    with pytest.raises(ShardError, match="shard-missing"):
        Shards([head]).database(2)
    other = await clouds.fresh()
    async with other.transaction() as connection:
        await connection.execute(
            "INSERT INTO journal_epoch (journal, epoch, opened_ms, changed_ms)"
            " VALUES ($1, 1, 1, 1)",
            bytes(20),
        )
    with pytest.raises(ShardError, match="a head's"):
        await opened(one, two, other)


@pytest.fixture
async def two(clouds: Clouds, second: Server) -> AsyncIterator[list[Database]]:
    """A head and a shard in another cluster."""
    name = await second.create()
    other = await Database.connect(second.dsn(name), config=CONFIG)
    yield [await clouds.fresh(), other]
    await other.close()
    await second.drop(name)


async def test_two_clusters_lose_nothing_when_who_carries_is_killed(
    clouds: Clouds, two: list[Database]
) -> None:
    choice = random.Random(7)
    plot, made = history(choice)
    alone = await clouds.fresh()
    await open_books(alone, plot.branches)
    await deliver(reconciler(alone), made)
    many = await Several(two, choice).name()
    await many.house(*[(branch, at % 2) for at, branch in enumerate(plot.branches)])
    await open_books(many.head, plot.branches)
    size = -(-len(made) // KILLS)
    for at in range(0, len(made), size):
        child = await carrier(two)
        try:
            await deliver(many.reconciling, made[at : at + size])
            before = await many.taken()
            while await many.taken() == before and await many.waiting():
                await asyncio.sleep(0.01)
        finally:
            child.kill()
            await child.wait()
        await many.everywhere()
    child = await carrier(two)
    try:
        async with asyncio.timeout(60):
            while await many.waiting() or (await many.picture())["verdicts"]:
                await asyncio.sleep(0.1)
    finally:
        child.kill()
        await child.wait()
    assert await many.picture() == await picture_of(alone)
    for line in await many.everywhere():
        assert (line.suspense, line.loss, line.in_transit) == (0, 0, 0)


async def carrier(databases: list[Database]) -> asyncio.subprocess.Process:
    """A process that carries."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.shards_child"),
        *[database.dsn for database in databases],
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        assert await child.stdout.readline() == b"carrying\n"
    return child


async def test_opening_a_cloud_migrates_every_shard(second: Server, tmp_path: Path) -> None:
    await second.command("CREATE DATABASE bare")
    try:
        config = Config(
            folder=tmp_path,
            database=DatabaseConfig(shards=(ShardConfig(dsn=second.dsn("bare")),)),
        )
        (tmp_path / "passphrase").write_bytes(b"words")
        async with open_cloud(config, clock=StepClock(), create=True) as cloud:
            assert len(cloud.shards) == 2
            async with cloud.shards.database(1).transaction() as connection:
                assert await connection.fetchval("SELECT number FROM shard") == 1
            await cloud.refresh()
    finally:
        await second.drop("bare")
