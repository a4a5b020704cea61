"""Stories of a cloud with two databases, and what can go wrong between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.database import Connection, Database
from cloud.shards.reconcilers import Reconcilers
from cloud.shards.upkeep import recall
from tests.support.clouds import Clouds
from tests.support.recovery import Story, told

# When what was never published was published last.
_NEVER_AGAIN_MS = 9_000_000_000_000_000


@pytest.fixture
async def story(clouds: Clouds, tmp_path: Path) -> AsyncIterator[Story]:
    """A cloud of two databases; one gateway is at the head, so that the next one is not."""
    head, other = await clouds.fresh(), await clouds.fresh()
    async with told(head, tmp_path, others=[other]) as opened:
        await opened.gateway("first")
        yield opened


@contextlib.asynccontextmanager
async def nothing_is_approved(head: Database, table: str) -> AsyncIterator[None]:
    """The head is lost at its commit, after the transaction where the journal lives has ended."""
    async with head.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '57P01'; END $$"
        )
        await connection.execute(
            f"CREATE CONSTRAINT TRIGGER lose AFTER UPDATE ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lose()"
        )
    yield
    async with head.transaction() as connection:
        await connection.execute("DROP FUNCTION lose() CASCADE")


@contextlib.asynccontextmanager
async def untold(database: Database, kind: str) -> AsyncIterator[None]:
    """Messages of a kind that this shard writes meanwhile are on their way until the block ends."""
    async with database.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION mute() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN NEW.sent_ms := {_NEVER_AGAIN_MS}; RETURN NEW; END $$"
        )
        await connection.execute(
            "CREATE TRIGGER mute BEFORE INSERT ON shard_message FOR EACH ROW"
            f" WHEN (NEW.kind = '{kind}') EXECUTE FUNCTION mute()"
        )
    yield
    async with database.transaction() as connection:
        await connection.execute("DROP FUNCTION mute() CASCADE")
        await connection.execute("UPDATE shard_message SET sent_ms = NULL WHERE taken_ms IS NULL")


async def state_of(story: Story, table: str) -> str:
    """Of the one draft in a table of the head."""
    async with story.database.transaction() as connection:
        found: str = await connection.fetchval(f"SELECT state FROM {table}")
    return found


async def emptied(database: Database, *tables: str) -> None:
    """A database that was restored from a backup of before there was anything in these."""
    async with database.transaction() as connection:
        for table in tables:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            await connection.execute(f"DELETE FROM {table}")
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


Rows = dict[str, list[tuple[Any, ...]]]


async def backed_up(database: Database) -> Rows:
    """All rows of a shard that is not the head."""
    async with database.transaction() as connection:
        return {
            name: [tuple(row) for row in await connection.fetch(f"SELECT * FROM {name}")]
            for name in await _tables(connection)
        }


async def restored(story: Story, backup: Rows) -> None:
    """Shard 1 is that of its backup, and the cloud is started again."""
    cloud = story.cloud.cloud
    async with story.books.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(f"TRUNCATE {', '.join(await _tables(connection))}")
        for name, rows in backup.items():
            if rows:
                await connection.copy_records_to_table(name, records=rows)
    assert isinstance(cloud.reconciler, Reconcilers)
    for each in cloud.reconciler._each:
        each._replicas.clear()
    story.cloud.clock.wall_ms += 1_000
    await recall(cloud.shards)


async def _tables(connection: Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname NOT IN ('shard', 'schema_version')"
    )
    return [row["relname"] for row in rows]
