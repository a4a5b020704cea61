"""Another implementation of the file format reads the store with the same raw key."""

from pathlib import Path

import apsw
import pytest

from tests.unit.wallet.store.stores import KEY, OTHER_KEY, entry, make_crashed_store, make_store


def read_with_another_library(path: Path, key: bytes) -> list[bytes]:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA cipher = 'sqlcipher'")
    connection.execute("PRAGMA legacy = 4")
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    rows = connection.execute("SELECT idx, entry FROM entries ORDER BY idx").fetchall()
    assert [index for index, _ in rows] == list(range(len(rows)))
    connection.close()
    return [content for _, content in rows if isinstance(content, bytes)]


async def test_another_library_reads_a_closed_store(path: Path) -> None:
    await make_store(path, entries=500)
    assert read_with_another_library(path, KEY) == [entry(index) for index in range(500)]


async def test_another_library_reads_the_log_that_a_crash_left(path: Path) -> None:
    await make_crashed_store(path, entries=200)
    assert read_with_another_library(path, KEY) == [entry(index) for index in range(200)]


async def test_another_library_is_refused_without_the_key(path: Path) -> None:
    await make_store(path, entries=10)
    with pytest.raises(apsw.NotADBError):
        read_with_another_library(path, OTHER_KEY)
