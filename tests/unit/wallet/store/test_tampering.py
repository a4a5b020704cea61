"""Changed files: the store refuses, and says that the key is not the reason."""

import os
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import (
    FRAME_BYTES,
    KEY,
    PAGE_BYTES,
    all_entries,
    append,
    entry,
    flip,
    frame_offset,
    make_crashed_store,
    make_store,
    seal_wal_again,
    wal_of,
)
from wallet.store.database import Database
from wallet.store.errors import StoreError, Tampered, WrongKey
from wallet.store.journal import entry_count
from wallet.store.meta import put_meta

ENTRIES = 600


async def refusal(path: Path, *, check: bool = True) -> Tampered:
    """What opening the store is refused with."""
    with pytest.raises(Tampered) as caught:
        await Database.open(path, key=KEY, check=check)
    assert caught.value.code == "store-tampered"
    return caught.value


@pytest.mark.parametrize("place", ["salt", "header", "body", "checksum"])
async def test_a_change_in_the_first_page_is_not_taken_for_a_wrong_key(
    path: Path, place: str
) -> None:
    await make_store(path, entries=ENTRIES)
    flip(path, {"salt": 3, "header": 50, "body": 3000, "checksum": PAGE_BYTES - 20}[place])
    assert "page 1" in (await refusal(path)).detail
    assert "page 1" in (await refusal(path, check=False)).detail


async def test_without_the_key_check_a_changed_first_page_looks_like_a_wrong_key(
    path: Path,
) -> None:
    await make_store(path, entries=ENTRIES)
    path.with_name("store.db.keycheck").unlink()
    flip(path, 50)
    with pytest.raises(WrongKey):
        await Database.open(path, key=KEY)


@pytest.mark.parametrize("byte", [0, 2000, PAGE_BYTES - 1 - 16])
async def test_a_change_in_any_page_is_found_at_the_start(path: Path, byte: int) -> None:
    await make_store(path, entries=ENTRIES)
    pages = path.stat().st_size // PAGE_BYTES
    whole = path.read_bytes()
    for page in range(2, pages + 1, 7):
        path.write_bytes(whole)
        flip(path, (page - 1) * PAGE_BYTES + byte)
        assert f"page {page}" in (await refusal(path)).detail
    path.write_bytes(whole)
    database = await Database.open(path, key=KEY)
    assert await database.read(entry_count) == ENTRIES
    await database.close()


async def test_without_the_start_check_a_change_is_found_when_it_is_read(path: Path) -> None:
    await make_store(path, entries=ENTRIES)
    flip(path, -PAGE_BYTES * 3 - 500)
    database = await Database.open(path, key=KEY, check=False)
    with pytest.raises(Tampered):
        await all_entries(database)
    with pytest.raises(Tampered):
        await database.write(lambda conn: put_meta(conn, "name", b"value"))
    await database.close()
    await refusal(path)


async def test_the_writer_finds_a_change_too(path: Path) -> None:
    await make_store(path, entries=ENTRIES)
    flip(path, -PAGE_BYTES * 3 - 500)
    database = await Database.open(path, key=KEY, check=False)
    for _ in range(2):
        with pytest.raises(Tampered):
            await database.write(lambda conn: conn.execute("DELETE FROM entries WHERE idx % 2"))
    await database.close()


async def test_a_cut_file_is_refused(path: Path) -> None:
    await make_store(path, entries=ENTRIES)
    os.truncate(path, path.stat().st_size - 4 * PAGE_BYTES)
    await refusal(path)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_missing_or_empty_database_is_no_new_store(path: Path, gone: bool) -> None:
    await make_store(path, entries=ENTRIES)
    path.unlink() if gone else os.truncate(path, 0)
    for _ in range(2):
        assert "missing" in (await refusal(path)).detail


async def test_pages_exchanged_for_one_another_are_refused(path: Path) -> None:
    await make_store(path, entries=ENTRIES)
    content = bytearray(path.read_bytes())
    first, second = slice(-8192, -4096), slice(-4096, None)
    content[first], content[second] = content[second], content[first]
    path.write_bytes(content)
    await refusal(path)


async def test_genuine_pages_of_another_time_are_refused(path: Path) -> None:
    # Each page's HMAC holds; only the structure tells that they do not belong together.
    await make_store(path, entries=ENTRIES)
    old = path.read_bytes()
    database = await Database.open(path, key=KEY)
    await append(database, ENTRIES)
    await database.close()
    path.write_bytes(path.read_bytes()[:PAGE_BYTES] + old[PAGE_BYTES:])
    await refusal(path)


async def test_what_a_crash_left_in_the_log_is_there(path: Path) -> None:
    await make_crashed_store(path, entries=200)
    database = await Database.open(path, key=KEY)
    assert await all_entries(database) == [entry(index) for index in range(200)]
    await database.close()


@pytest.mark.parametrize("byte", [2, 6, 10, 17, 22, 24, 2000, FRAME_BYTES - 1])
async def test_a_change_within_the_log_is_not_taken_for_a_crash(path: Path, byte: int) -> None:
    await make_crashed_store(path, entries=200)
    before = wal_of(path).read_bytes()
    for frame in (0, 7, 20):
        wal_of(path).write_bytes(before)
        flip(wal_of(path), frame_offset(frame, byte=byte))
        found = await refusal(path)
        assert "write-ahead log" in found.detail
        assert wal_of(path).stat().st_size == len(before), "the evidence stays"


@pytest.mark.parametrize("byte", [0, 5, 9, 13, 17, 21, 25, 31])
async def test_a_change_of_the_log_header_does_not_empty_the_log(path: Path, byte: int) -> None:
    await make_crashed_store(path, entries=200)
    flip(wal_of(path), byte)
    assert "header of the write-ahead log" in (await refusal(path, check=False)).detail


async def test_a_torn_last_transaction_is_a_crash_before_its_acknowledgement(path: Path) -> None:
    await make_crashed_store(path, entries=200)
    os.truncate(wal_of(path), wal_of(path).stat().st_size - 100)
    database = await Database.open(path, key=KEY)
    assert await all_entries(database) == [entry(index) for index in range(190)]
    await database.close()


@pytest.mark.parametrize("check", [True, False])
async def test_a_frame_forged_with_right_checksums_fails_its_hmac(path: Path, check: bool) -> None:
    await make_crashed_store(path, entries=200)
    flip(wal_of(path), -1000)
    seal_wal_again(wal_of(path))
    with pytest.raises(Tampered):
        database = await Database.open(path, key=KEY, check=check)
        try:
            await all_entries(database)
        finally:
            await database.close()


async def test_every_failure_has_its_own_code() -> None:
    kinds: list[type[StoreError]] = [StoreError, *StoreError.__subclasses__()]
    assert len({kind.code for kind in kinds}) == len(kinds)
