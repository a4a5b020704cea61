"""The simulated disk is below the real store, and does what a disk may do."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.sim.disk import SECTOR_BYTES, Disk
from tests.support.vfs import OK, watched
from wallet.store.connection import Connection, EngineError, connect
from wallet.store.database import Database
from wallet.store.errors import DiskFull, StoreError, StoreFailed
from wallet.store.meta import get_meta, put_meta

KEY = bytes(32)
NAMES = ("first", "second")
# More than a page, so that a commit is many sectors.
VALUE = random.Random(0).randbytes(20_000)


class Box:
    """A store on a simulated disk."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.path = folder / "store.db"
        self.disk = disk
        self.database: Database

    async def open(self) -> None:
        """As the disk holds it."""
        self.database = await Database.open(self.path, key=KEY)

    async def cut(self) -> None:
        """The power fails, and comes back."""
        self.disk.cut()
        await self.database.close()
        self.disk.restart()
        await self.open()

    async def names(self) -> list[str]:
        """What is stored whole."""
        found = await self.database.read(lambda c: [get_meta(c, name) for name in NAMES])
        assert set(found) <= {VALUE, None}
        return [name for name, value in zip(NAMES, found, strict=True) if value is not None]


@asynccontextmanager
async def store(folder: Path, *, seed: int = 1) -> AsyncIterator[Box]:
    """A new store."""
    box = Box(folder, Disk(random.Random(seed)))
    with watched(folder.resolve(), box.disk):
        await box.open()
        yield box
        await box.database.close()


def put(*names: str) -> Callable[[Connection], None]:
    """A transaction of one value for each name."""

    def work(connection: Connection) -> None:
        for name in names:
            put_meta(connection, name, VALUE)

    return work


async def test_what_was_committed_is_there_after_a_power_cut(tmp_path: Path) -> None:
    async with store(tmp_path) as box:
        synced = box.disk.synced
        await box.database.write(put(*NAMES))
        assert box.disk.synced > synced
        await box.cut()
        assert await box.names() == list(NAMES)


async def test_a_commit_in_which_the_power_fails_is_there_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    outcomes = set()
    for seed in range(0, 45, 2):
        (tmp_path / str(seed)).mkdir()
        async with store(tmp_path / str(seed), seed=seed) as box:
            await box.database.write(put("first"))
            box.disk.steps_left = seed
            with contextlib.suppress(StoreError):
                await box.database.write(put(*NAMES))
            await box.cut()
            outcomes.add(tuple(await box.names()))
    assert outcomes == {("first",), NAMES}


async def test_a_disk_that_lies_loses_what_it_said_to_have(tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(24):
        (tmp_path / str(seed)).mkdir()
        async with store(tmp_path / str(seed), seed=seed) as box:
            box.disk.lies = True
            await box.database.write(put(*NAMES))
            await box.cut()
            outcomes.add(tuple(await box.names()))
    assert outcomes == {(), NAMES}


async def test_a_store_that_was_closed_keeps_nothing_of_its_disk(tmp_path: Path) -> None:
    async with store(tmp_path) as box:
        await box.database.write(put(*NAMES))
        await box.cut()
        disk = weakref.ref(box.disk)
    del box
    gc.collect()
    assert disk() is None


async def test_what_is_still_open_when_its_disk_goes_reaches_no_file(tmp_path: Path) -> None:
    async with store(tmp_path) as box:
        await box.database.write(put("first"))
        late = connect(box.path, key=KEY, query_only=False)
        assert late.execute("SELECT count(*) FROM meta").fetchone() is not None
        disk = weakref.ref(box.disk)
    path, before = box.path, box.path.read_bytes()
    del box
    gc.collect()
    assert disk() is None
    with pytest.raises(EngineError, match="disk I/O error"):
        put("second")(late)
    late.close()
    assert path.read_bytes() == before


async def test_a_full_disk_takes_a_part_and_says_so(tmp_path: Path) -> None:
    async with store(tmp_path) as box:
        box.disk.room_bytes = 9_000
        with pytest.raises(DiskFull):
            await box.database.write(put("first"))
        assert await box.names() == []
        box.disk.room_bytes = None
        await box.database.write(put("second"))
        await box.cut()
        assert await box.names() == ["second"]


async def test_a_sync_that_fails_fails_its_commit_and_no_other(tmp_path: Path) -> None:
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        async with store(tmp_path / str(seed), seed=seed) as box:
            box.disk.sync_fails = True
            with pytest.raises(StoreFailed):
                await box.database.write(put("first"))
            assert await box.names() == []
            await box.database.write(put("second"))
            await box.cut()
            assert await box.names() == ["second"]


def test_a_write_is_torn_at_sectors_alone(tmp_path: Path) -> None:
    torn = set()
    for seed in range(200):
        disk, path = Disk(random.Random(seed)), tmp_path / f"{seed}.db"
        path.write_bytes(b"-" * SECTOR_BYTES * 3)
        disk.opened(str(path))
        disk.write(str(path), 100, b"+" * SECTOR_BYTES * 2)
        disk.restart()
        content = path.read_bytes()
        ends = (0, 100, SECTOR_BYTES, SECTOR_BYTES * 2, SECTOR_BYTES * 2 + 100, SECTOR_BYTES * 3)
        parts = [content[a:b] for a, b in itertools.pairwise(ends)]
        assert all(len(set(part)) == 1 for part in parts)
        torn.add(b"".join(part[:1] for part in parts))
    assert len(torn) == 8


def test_what_rots_is_one_bit_a_byte_or_a_sector(tmp_path: Path) -> None:
    found = set()
    for seed in range(60):
        disk, path = Disk(random.Random(seed)), tmp_path / f"{seed}.db"
        path.write_bytes(b"-" * SECTOR_BYTES * 3)
        disk.opened(str(path))
        at = disk.rot(path)
        disk.restart()
        content = path.read_bytes()
        changed = [place for place, byte in enumerate(content) if byte != ord("-")]
        assert at <= changed[0] <= changed[-1] < at + SECTOR_BYTES
        found.add((len(changed) == 1, content[at] == 0))
    assert found == {(True, False), (False, False), (False, True)}


def test_a_write_that_goes_astray_leaves_what_it_should_have_replaced(tmp_path: Path) -> None:
    found = set()
    for seed in range(60):
        disk, path = Disk(random.Random(seed)), tmp_path / f"{seed}.db"
        path.write_bytes(b"-" * SECTOR_BYTES * 4)
        disk.opened(str(path))
        disk.astray_at = 1
        assert disk.write(str(path), 0, b"+" * SECTOR_BYTES * 2) == (0, OK)
        assert disk.sync(str(path)) == OK
        written = path.read_bytes()
        disk.restart()
        assert path.read_bytes() == written
        found.add(b"".join(written[at : at + 1] for at in range(0, len(written), SECTOR_BYTES)))
    # One of two sectors may also land on the other one's place, or on its own.
    assert {b"-++-", b"--++", b"-+--", b"+--+", b"-+-+"} <= found
