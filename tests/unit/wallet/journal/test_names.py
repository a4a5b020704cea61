"""Names on their way from memory into the store: found at every moment, whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wallet.faults import Faults, Point
from wallet.journal.index import Recent, stored_names, stored_wallet_entries
from wallet.journal.names import BLOCKS_AT_ONCE, Names
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreError, StoreFailed
from wallet.store.journal import last_snapshot
from wallet.store.runs import BLOCK_BYTES, next_block

WALLETS = [bytes([number]) * 20 for number in range(3)]
RECORD_BYTES = 16
# More than one step of blocks.
MANY = (BLOCK_BYTES // RECORD_BYTES) * BLOCKS_AT_ONCE + 500


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "store.db", key=secrets.token_bytes(32))
    yield opened
    await opened.close()


def name(index: int) -> bytes:
    return hashlib.sha256(index.to_bytes(8, "big")).digest()


def fill(names: Names, first: int, count: int) -> None:
    for index in range(first, first + count):
        names.add(index, (name(index),), (WALLETS[index % 3],))


async def stored(database: Database, index: int) -> list[int]:
    return await database.read(lambda c: stored_names(c, name(index)))


async def find(names: Names, database: Database, index: int) -> list[int]:
    """As the look-ups of the journal do it: memory first, then the store."""
    recent = names.find(name(index))
    return sorted({*recent, *await stored(database, index)})


async def of_wallet(names: Names, database: Database, limit: int) -> list[int]:
    found = names.of_wallet(WALLETS[0], before=10**9, limit=limit)
    end = found[-1] if found else 10**9
    rest = limit - len(found)
    return found + await database.read(
        lambda c: stored_wallet_entries(c, WALLETS[0], before=end, limit=rest)
    )


def nothing(connection: Connection) -> None:
    """The last step of most flushes here."""


def full(connection: Connection) -> None:
    raise StoreFailed("the disk is full")


async def test_every_name_is_found_before_during_and_after_a_flush(database: Database) -> None:
    names = Names(Recent())
    fill(names, 0, MANY)
    assert not names.due or names.recent.entries == MANY
    names.begin()
    flush = asyncio.ensure_future(names.move(database, size=MANY, snapshot=b"state", last=nothing))
    index, looked = MANY, 0
    while not flush.done():
        fill(names, index, 1)
        index += 1
        for asked in (0, MANY // 2, MANY - 1, index - 1):
            assert await find(names, database, asked) == [asked]
        newest = await of_wallet(names, database, 5)
        assert newest == [n for n in range(index - 1, index - 16, -1) if n % 3 == 0][:5]
        looked += 1
    await flush
    assert looked > 3
    assert names.moving is None
    assert await find(names, database, 0) == [0]
    assert await database.read(last_snapshot) == (MANY, b"state")
    older = await of_wallet(names, database, index)
    assert older == [n for n in range(index - 1, -1, -1) if n % 3 == 0]


async def test_a_flush_that_fails_loses_nothing_and_is_made_again(database: Database) -> None:
    names = Names(Recent())
    fill(names, 0, MANY)
    names.begin()
    fill(names, MANY, 3)
    with pytest.raises(StoreError):
        await names.move(database, size=MANY, snapshot=b"state", last=full)
    assert await database.read(last_snapshot) is None
    assert names.recent.entries == MANY + 3
    for asked in (0, MANY - 1, MANY + 2):
        assert names.find(name(asked)) == (asked,)
        assert await stored(database, asked) == []
    left = await database.read(next_block)
    assert left > 1
    names.begin()
    await names.move(database, size=MANY + 3, snapshot=b"state", last=nothing)
    # The blocks that the first try left behind made room for these.
    assert await database.read(next_block) == left
    for asked in (0, MANY - 1, MANY + 2):
        assert names.find(name(asked)) == ()
        assert await find(names, database, asked) == [asked]


class EndsAt(Faults):
    """Ends a task where it passes a point: no watcher is quick enough on a machine that is busy."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.task: asyncio.Future[None] | None = None

    def at(self, point: str) -> None:
        """The end of the task, if this is the point and there is one."""
        if self.task is not None and point == self._point:
            self.task.cancel()


async def test_an_end_in_the_middle_leaves_blocks_that_the_next_flush_drops(
    database: Database,
) -> None:
    faults = EndsAt(Point.BLOCKS_DURABLE)
    names = Names(Recent(), faults=faults)
    fill(names, 0, 10)
    names.begin()
    await names.move(database, size=10, snapshot=b"first", last=nothing)
    blocks = await database.read(next_block)
    fill(names, 10, MANY)
    names.begin()
    faults.task = asyncio.ensure_future(names.move(database, size=20, snapshot=b"no", last=nothing))
    with pytest.raises(asyncio.CancelledError):
        await faults.task
    assert await database.read(next_block) == blocks + BLOCKS_AT_ONCE
    assert await database.read(last_snapshot) == (10, b"first")
    again = Names(Recent())
    fill(again, 10, 5)
    again.begin()
    await again.move(database, size=15, snapshot=b"second", last=nothing)
    for asked in range(15):
        assert await find(again, database, asked) == [asked]
    assert await of_wallet(again, database, 10) == [12, 9, 6, 3, 0]


async def test_nothing_recent_is_a_snapshot_alone(database: Database) -> None:
    names = Names(Recent())
    names.begin()
    await names.move(database, size=1, snapshot=b"state", last=nothing)
    assert await database.read(last_snapshot) == (1, b"state")
    assert await database.read(next_block) == 1
