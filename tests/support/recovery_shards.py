"""Stories of a cloud with two databases, and what can go wrong between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.database import Database
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
