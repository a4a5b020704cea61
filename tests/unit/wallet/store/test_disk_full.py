"""A full disk: refused with its code, nothing lost, and well again once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disk import SmallDisk, small_disk
from tests.unit.wallet.store.stores import KEY, all_entries, append, entry
from wallet.store.database import Database
from wallet.store.errors import DiskFull
from wallet.store.journal import entry_count

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, size_bytes=4 * MIB) as mounted:
        yield mounted


async def append_until_full(database: Database) -> DiskFull:
    with pytest.raises(DiskFull) as caught:
        await append(database, 100_000)
    assert caught.value.code == "store-full"
    return caught.value


async def test_a_full_disk_loses_nothing_and_recovers_by_itself(disk: SmallDisk) -> None:
    database = await Database.open(disk.path / "store.db", key=KEY)
    await append(database, 100)
    disk.fill(leave_bytes=100 * 1024)
    for _ in range(3):
        await append_until_full(database)
    kept = await database.read(entry_count)
    assert await all_entries(database) == [entry(index) for index in range(kept)]
    disk.free()
    await append(database, 100)
    assert await all_entries(database) == [entry(index) for index in range(kept + 100)]
    await database.close()


async def test_a_store_that_filled_its_disk_by_itself_opens_again(disk: SmallDisk) -> None:
    path = disk.path / "store.db"
    database = await Database.open(path, key=KEY)
    await append_until_full(database)
    kept = await database.read(entry_count)
    assert kept > 1000
    await database.close()
    # The log has no room in the file and stays; it counts, and the store can be read.
    assert path.with_name("store.db-wal").stat().st_size > 0
    database = await Database.open(path, key=KEY)
    assert await all_entries(database) == [entry(index) for index in range(kept)]
    await append_until_full(database)
    await database.close()


async def test_a_store_does_not_open_on_a_disk_without_room_for_its_files(
    disk: SmallDisk,
) -> None:
    path = disk.path / "store.db"
    await (await Database.open(path, key=KEY)).close()
    disk.fill()
    with pytest.raises(DiskFull):
        await Database.open(path, key=KEY)
    disk.free()
    await (await Database.open(path, key=KEY)).close()


async def test_a_store_that_could_not_be_made_for_want_of_room_is_made_later(
    disk: SmallDisk,
) -> None:
    refused = 0
    for leave_bytes in range(0, 100 * 1024, 8 * 1024):
        disk.fill(leave_bytes=leave_bytes)
        try:
            database = await Database.open(disk.path / "store.db", key=KEY)
        except DiskFull:
            refused += 1
        else:
            await database.close()
    assert refused > 5
    disk.free()
    database = await Database.open(disk.path / "store.db", key=KEY)
    await append(database, 10)
    await database.close()
