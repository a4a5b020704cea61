"""A shard that is away when a cloud starts is opened later, and then everything catches up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from cloud.config import DatabaseConfig, ShardConfig
from cloud.database import Database
from cloud.errors import CloudError, DatabaseError
from cloud.shards.homes import settle_down
from cloud.shards.messages import ShardError
from cloud.shards.shards import Shards, open_shards
from cloud.stream.settings import StreamConfig
from edge.errors import EnrolmentFailed
from tests.integration.cloud.test_workers import check_books, nothing_between
from tests.support.cloud_branch import MERCHANT, Funded, done, funded_branch, provisioned
from tests.support.cloud_local import StepClock
from tests.support.cloud_process import CloudProcess, running_cloud
from tests.support.clouds import Clouds
from tests.support.clusters import Cluster, cluster
from tests.support.nats import nats_server, stream_config, write_config
from tests.support.postgres import Server
from tests.support.shards import ISSUER
from tests.support.world import NOW_MS

__all__ = ["cluster"]
WAIT_S = 60


class Operator:
    """Starts and stops a cloud, with a worker where reports go through servers."""

    def __init__(self, cloud: CloudProcess, stack: contextlib.AsyncExitStack, stream: bool) -> None:
        self.cloud = cloud
        self._stack = stack
        self._stream = stream
        self._workers = 0

    async def start(self) -> None:
        """Start it: it is ready once this returns."""
        await self.cloud.start()
        if self._stream:
            self._workers += 1
            worker = self.cloud.worker(f"worker-{self._workers}")
            self.worker = await self._stack.enter_async_context(worker)
            await self.worker.ready()

    async def stop(self) -> None:
        """SIGTERM is no failure, whatever is away."""
        if self._stream:
            assert await self.worker.stop() == 0
        assert await self.cloud.stop() == 0

    def logged(self, action: str) -> list[dict[str, Any]]:
        """What any process of it said under an action."""
        logs = self.cloud.folder.parent.glob(f"{self.cloud.folder.name}*.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("action") == action]

    async def up(self) -> dict[str, float]:
        """Which shards are in reach, by the metric."""
        connector = aiohttp.TCPConnector(ssl=False)
        url = f"https://127.0.0.1:{self.cloud.ports['api_port']}/metrics"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as got:
            lines = (await got.text()).splitlines()
        found = [line for line in lines if line.startswith("cbdc_shard_up{")]
        return {line.split('"')[1]: float(line.split()[-1]) for line in found}


@contextlib.asynccontextmanager
async def operated(folder: Path, dsns: Sequence[str], *, stream: bool) -> AsyncIterator[Operator]:
    """A cloud of these databases while the block runs."""
    async with contextlib.AsyncExitStack() as stack:
        servers = StreamConfig()
        if stream:
            server = await stack.enter_async_context(nats_server(folder / "nats"))
            # A database that is restored at once says the same again: it is no repetition.
            servers = stream_config(server, repetition_s=1)
        config = write_config(folder / "cloud.toml", servers, dsns)
        cloud = await stack.enter_async_context(running_cloud(folder / "cloud", config=config))
        operator = Operator(cloud, stack, stream)
        await cloud.stop()
        await operator.start()
        yield operator


@pytest.mark.parametrize("stream", [False, True], ids=["alone", "with-a-worker"])
async def test_a_cloud_starts_while_a_shard_is_away_and_catches_up(
    dsn: str, cluster: Cluster, tmp_path: Path, stream: bool
) -> None:
    dsns = [dsn, await cluster.address("one")]
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        operator = await enter(operated(tmp_path, dsns, stream=stream))
        cloud = operator.cloud
        north, south = [
            await enter(funded_branch(cloud, tmp_path / name, bank=f"bank-{name}"))
            for name in ("north", "south")
        ]
        await exchange(north, south, 7)
        await nothing_between(dsns)
        await operator.stop()
        await cluster.stop()
        await cluster.back_up()
        await cluster.start()
        await operator.start()
        # In this direction: a verdict on an arrival that is forgotten would wait for half a minute.
        await exchange(south, north, 8)
        await nothing_between(dsns)
        await operator.stop()
        # What shard 1 took since the backup it has forgotten; and it is away.
        await cluster.stop()
        await cluster.restore()
        await operator.start()
        await goes_on_without(operator, north, south)
        await north.hand_over(9, to=south)
        await north.synchronise()
        await cluster.start()
        async with asyncio.timeout(WAIT_S):
            while await operator.up() != {"0": 1, "1": 1}:
                await asyncio.sleep(0.05)
        await held_again(dsns[1], south)
        await nothing_between(dsns)
        await check_books(dsns, [north, south])
        assert {line["target"] for line in operator.logged("messages.recalled")} == {1}
        assert operator.logged("shard.opened")
        await operator.stop()


async def exchange(payer: Funded, payee: Funded, amount: int) -> None:
    """A note that both have told of."""
    await payer.hand_over(amount, to=payee)
    for made in (payer, payee):
        await made.synchronise()


async def goes_on_without(operator: Operator, north: Funded, south: Funded) -> None:
    """What is at the head goes on; what needs shard 1 is refused at once, and tried again."""
    cloud = operator.cloud
    assert await operator.up() == {"0": 1, "1": 0}
    await north.pay(1, 2, 3)
    await north.synchronise()
    assert north.journal.acknowledged == north.journal.state.size
    result, detail = await south.branch.daemon.sync_now()
    assert (result, detail) == ("failed", "transport-status: status 503")
    async with cloud.api(cloud.officer("first")) as first:
        status, answer = await first.get("/v1/issuer/journals")
        assert (status, answer["code"]) == (503, "database-unavailable")
    # A new gateway may have been there, as far as anybody knows.
    async with cloud.api(cloud.officer("first")) as first:
        body = {"name": "west", "currency": "EUR", "tiers": [MERCHANT], "level": "software"}
        token = (await done(first, "/v1/issuer/gateways", body))["token"]
    with pytest.raises(EnrolmentFailed, match="database-unavailable"):
        await provisioned(cloud, cloud.folder.parent / "west", token)
    code, _, errors = await cloud.command("migrate")
    assert (code, errors.split(": ")[1:3]) == (1, ["database-unavailable", "shard 1"])
    assert [line["shard"] for line in operator.logged("shard.away")]


async def held_again(dsn: str, made: Funded) -> None:
    """Synchronise until a restored shard has the whole journal again."""
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        async with asyncio.timeout(WAIT_S):
            while await connection.fetchval("SELECT max(size) FROM journal_epoch") != (
                made.journal.state.size
            ):
                await made.branch.daemon.sync_now()
                await asyncio.sleep(0.05)
    finally:
        connection.terminate()


# ---- one process, whose shards a test opens -------------------------------------------------


@contextlib.asynccontextmanager
async def opened(head: Database, *dsns: str) -> AsyncIterator[Shards]:
    """Shards while the block runs; some of them may come later."""
    config = DatabaseConfig(shards=tuple(ShardConfig(dsn=dsn) for dsn in dsns))
    async with contextlib.AsyncExitStack() as stack:
        yield await open_shards(
            head, config, stack, random=ISSUER, now_ms=NOW_MS, later=StepClock()
        )


async def refused_of(shards: Shards, number: int) -> str:
    """The code by which a shard refuses a transaction."""
    with pytest.raises(DatabaseError) as refused:
        async with shards.database(number).transaction():
            pass
    return refused.value.code


async def content_of(dsn: str) -> list[Any]:
    """What an opening may have written: tables, the schema's version, the shard's name."""
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        tables = await connection.fetch(
            "SELECT relname::text, oid::bigint, xmin::text FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
        )
        names = {row["relname"] for row in tables} & {"shard", "schema_version"}
        rows = [await connection.fetch(f"SELECT xmin::text, * FROM {name}") for name in names]
        return [tables, *rows]
    finally:
        await connection.close(timeout=20)


# What makes of a migrated database something else than the next shard of this issuer.
WRONG = {
    "another number": "INSERT INTO shard (number, issuer) VALUES ({number} + 1, '{issuer}')",
    "another issuer": "INSERT INTO shard (number, issuer) VALUES ({number}, '{other}')",
    "a head": "INSERT INTO journal_epoch (journal, epoch, opened_ms, changed_ms)"
    " VALUES (decode(repeat('aa', 20), 'hex'), 1, 1, 1)",
    "an older head": "DROP TABLE shard",
    "a newer schema": "INSERT INTO shard (number, issuer) VALUES ({number}, '{issuer}');"
    " INSERT INTO schema_version VALUES (9999, 'new', '{issuer}', 1)",
    "somebody else's": "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE mine ()",
}


async def make_wrong(second: Server, name: str, number: int, change: str) -> list[Any]:
    """A database that is found at a shard's address and is another one; what is in it."""
    made = await second.create()
    issuers = {"issuer": f"\\x{ISSUER.hex()}", "other": f"\\x{bytes(16).hex()}"}
    connection = await asyncpg.connect(second.dsn(made), timeout=20)
    try:
        await connection.execute(change.format(number=number, **issuers))
    finally:
        await connection.close(timeout=20)
    found = await content_of(second.dsn(made))
    await second.command(f"ALTER DATABASE {made} RENAME TO {name}")
    return found


async def test_a_wrong_database_that_comes_later_is_never_written_to(
    clouds: Clouds, second: Server, caplog: pytest.LogCaptureFixture
) -> None:
    head, names = await clouds.fresh(), [f"late_{number}" for number in range(1, 1 + len(WRONG))]
    async with opened(head, *[second.dsn(name) for name in names]) as shards:
        numbers = range(1, len(shards))
        assert {await refused_of(shards, number) for number in numbers} == {"database-unavailable"}
        made = [
            await make_wrong(second, name, number, change)
            for number, name, change in zip(numbers, names, WRONG.values(), strict=True)
        ]
        async with asyncio.timeout(WAIT_S):
            while len(refusals(caplog)) < len(made):
                await asyncio.sleep(0.05)
        assert {await refused_of(shards, number) for number in numbers} == {"database-unavailable"}
        assert refusals(caplog) == {
            number: "schema-too-new" if kind == "a newer schema" else "shard-mismatch"
            for number, kind in zip(numbers, WRONG, strict=True)
        }
        # A cloud that finds it at its start does not start.
        with pytest.raises(ShardError, match="shard-mismatch"):
            async with opened(head, second.dsn(names[0])):
                pass
        assert [await content_of(second.dsn(name)) for name in names] == made
        # The right ones, empty as yet.
        for name in names:
            await second.drop(name)
            await second.command(f"CREATE DATABASE {name}")
        async with asyncio.timeout(WAIT_S):
            while not all([await shards.database(number).answers() for number in numbers]):
                await asyncio.sleep(0.05)
        for number in numbers:
            async with shards.database(number).transaction() as connection:
                found = await connection.fetchrow("SELECT number, issuer FROM shard")
                assert tuple(found) == (number, ISSUER)
    for name in names:
        await second.drop(name)


def refusals(caplog: pytest.LogCaptureFixture) -> dict[int, str]:
    """Shards that were refused, by the log, and why."""
    found = {}
    for record in caplog.records:
        if record.msg == "shard.refused" and record.exc_info is not None:
            assert isinstance(record.exc_info[1], CloudError)
            found[vars(record)["fields"]["shard"]] = record.exc_info[1].code
    return found


async def test_nobody_gets_a_home_while_a_shard_is_away_that_may_know_him(
    clouds: Clouds, second: Server
) -> None:
    head, known, here, new = await clouds.fresh(), bytes(20), b"h" * 20, b"n" * 20
    async with head.transaction() as connection:
        await settle_down(connection, known, 1, now_ms=NOW_MS)
        await connection.execute(
            "INSERT INTO journal_epoch (journal, epoch, size, root, checkpoint, opened_ms,"
            " changed_ms) VALUES ($1, 1, 1, $2, $2, 1, 1)",
            *(here, bytes(32)),
        )
    async with opened(head, second.dsn("late")) as shards:

        async def house(journal: bytes, **more: Any) -> int:
            async with head.transaction() as connection:
                return await shards.house(connection, journal, now_ms=NOW_MS, **more)

        assert [await house(known), await house(here)] == [1, 0]
        assert await house(b"f" * 20, before=here) == 0
        with pytest.raises(DatabaseError, match="database-unavailable"):
            await house(new)
        await second.command("CREATE DATABASE late")
        async with asyncio.timeout(WAIT_S):
            while not await shards.database(1).answers():
                await asyncio.sleep(0.05)
        assert await house(new) == 1
    with pytest.raises(ShardError, match="shard-missing"):
        async with opened(head):
            pass
    await second.drop("late")
