"""Opening, writing, reading and closing a store."""

import asyncio
import stat
import threading
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY, OTHER_KEY, all_entries, append, entry, make_store
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import (
    Conflict,
    SchemaTooNew,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreInUse,
    WrongKey,
)
from wallet.store.journal import append_entries, entry_count
from wallet.store.meta import get_meta, put_meta


async def test_what_was_written_is_there_after_a_new_start(path: Path) -> None:
    await make_store(path, entries=50)
    database = await Database.open(path, key=KEY)
    assert await all_entries(database) == [entry(index) for index in range(50)]
    await database.close()


async def test_write_and_read_give_what_their_work_gives(store: Database) -> None:
    assert await store.write(lambda conn: 7) == 7
    assert await store.read(lambda conn: "seven") == "seven"


async def test_connections_are_durable_encrypted_and_wiped(store: Database) -> None:
    pragmas = {
        "journal_mode": "wal",
        "synchronous": 2,
        "cipher_memory_security": "1",
        "foreign_keys": 1,
        "trusted_schema": 0,
        "temp_store": 2,
    }
    for run in (store.write, store.read):
        for name, expected in pragmas.items():
            row = await run(lambda conn, name=name: conn.execute(f"PRAGMA {name}").fetchone())  # type: ignore[misc]  # A default makes mypy lose the lambda's type.
            assert row == (expected,), name


async def test_nothing_of_the_content_is_readable_in_the_files(path: Path) -> None:
    database = await Database.open(path, key=KEY)
    await database.write(lambda conn: put_meta(conn, "a-name-of-note", b"a-value-of-note"))
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert b"of-note" not in content
        assert b"SQLite format" not in content
        assert KEY not in content
        assert KEY.hex().encode() not in content
    await database.close()


async def test_the_files_are_their_owners_alone(path: Path, store: Database) -> None:
    await append(store, 10)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_an_exception_of_the_work_rolls_everything_back(store: Database) -> None:
    def work(conn: Connection) -> None:
        append_entries(conn, 0, [b"one", b"two"])
        raise LookupError("after the entries")

    with pytest.raises(LookupError):
        await store.write(work)
    assert await store.read(entry_count) == 0
    await append(store, 10)


async def test_an_exit_asked_for_in_the_work_reaches_the_caller_and_no_thread_ends(
    store: Database,
) -> None:
    def work(conn: Connection) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await store.write(work)
    assert await store.write(entry_count) == 0


async def test_a_broken_constraint_is_a_conflict(store: Database) -> None:
    def work(conn: Connection) -> None:
        conn.execute("INSERT INTO meta VALUES ('name', x'01'), ('name', x'02')")

    with pytest.raises(Conflict):
        await store.write(work)
    assert await store.read(lambda conn: get_meta(conn, "name")) is None


async def test_reading_cannot_write(store: Database) -> None:
    with pytest.raises(StoreFailed, match="readonly"):
        await store.read(lambda conn: put_meta(conn, "name", b"value"))
    await store.write(lambda conn: put_meta(conn, "name", b"value"))


async def test_a_statement_that_the_engine_refuses_is_a_failure_with_a_code(
    store: Database,
) -> None:
    with pytest.raises(StoreFailed) as caught:
        await store.write(lambda conn: conn.execute("SELECT no_such_column"))
    assert caught.value.code == "store-failed"


async def test_a_reader_sees_one_moment_while_the_writer_goes_on(store: Database) -> None:
    await append(store, 10)
    looked, written = threading.Event(), threading.Event()

    def look_twice(conn: Connection) -> tuple[int, int]:
        before = entry_count(conn)
        looked.set()
        assert written.wait(timeout=30)
        return before, entry_count(conn)

    reading = asyncio.create_task(store.read(look_twice))
    await asyncio.to_thread(looked.wait, 30)
    await append(store, 10)
    written.set()
    assert await reading == (10, 10)
    assert await store.read(entry_count) == 20


async def test_work_runs_in_the_order_in_which_it_came(store: Database) -> None:
    order: list[int] = []
    await asyncio.gather(
        *(store.write(lambda conn, turn=turn: order.append(turn)) for turn in range(20))  # type: ignore[misc]  # A default makes mypy lose the lambda's type.
    )
    assert order == list(range(20))


async def test_a_full_queue_refuses(path: Path) -> None:
    database = await Database.open(path, key=KEY, jobs_max=2)
    go_on = threading.Event()
    waiting = [asyncio.create_task(database.write(lambda conn: go_on.wait(30))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy):
        await database.write(entry_count)
    go_on.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await database.write(entry_count) == 0
    await database.close()


async def test_work_of_a_cancelled_caller_is_done(store: Database) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(conn: Connection) -> None:
        started.set()
        assert go_on.wait(30)
        put_meta(conn, "name", b"value")

    writing = asyncio.create_task(store.write(work))
    await asyncio.to_thread(started.wait, 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await store.write(lambda conn: None)
    assert await store.read(lambda conn: get_meta(conn, "name")) == b"value"


async def test_a_closed_store_takes_no_work(path: Path) -> None:
    database = await Database.open(path, key=KEY)
    await database.close()
    await database.close()
    for run in (database.write, database.read):
        with pytest.raises(StoreClosed):
            await run(entry_count)


async def test_close_finishes_what_was_handed_over(path: Path) -> None:
    database = await Database.open(path, key=KEY)
    writing = asyncio.create_task(append(database, 10))
    await asyncio.sleep(0)
    await database.close()
    await writing
    assert not path.with_name("store.db-wal").exists()
    database = await Database.open(path, key=KEY)
    assert await database.read(entry_count) == 10
    await database.close()


async def test_one_store_is_open_once(path: Path, store: Database) -> None:
    with pytest.raises(StoreInUse) as caught:
        await Database.open(path, key=KEY)
    assert caught.value.code == "store-in-use"
    await append(store, 10)


async def test_a_closed_store_may_be_opened_again(path: Path) -> None:
    for _ in range(3):
        await (await Database.open(path, key=KEY)).close()


async def test_another_key_is_refused_as_that(path: Path) -> None:
    await make_store(path, entries=50)
    with pytest.raises(WrongKey) as caught:
        await Database.open(path, key=OTHER_KEY)
    assert caught.value.code == "store-wrong-key"
    database = await Database.open(path, key=KEY)
    assert await database.read(entry_count) == 50
    await database.close()


async def test_a_file_that_is_no_store_is_refused_as_a_wrong_key(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(WrongKey):
        await Database.open(path, key=KEY)
    assert path.read_bytes() == b"no database at all" * 1000


@pytest.mark.parametrize("length", [0, 31, 33])
async def test_a_key_has_32_bytes(path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        await Database.open(path, key=bytes(length))
    assert not path.exists()


async def test_the_key_is_in_no_error(path: Path) -> None:
    await make_store(path, entries=10)
    with pytest.raises(StoreError) as caught:
        await Database.open(path, key=OTHER_KEY)
    assert OTHER_KEY.hex() not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_store_of_a_newer_release_is_left_alone(path: Path) -> None:
    database = await Database.open(path, key=KEY)
    await database.write(lambda conn: conn.execute("INSERT INTO schema_version VALUES (999)"))
    await database.close()
    with pytest.raises(SchemaTooNew) as caught:
        await Database.open(path, key=KEY)
    assert caught.value.code == "store-schema-too-new"


async def test_a_folder_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed):
        await Database.open(tmp_path / "nowhere" / "store.db", key=KEY)


async def test_a_folder_where_the_database_should_be_is_a_failure(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreFailed):
        await Database.open(path, key=KEY)


async def test_a_key_check_that_cannot_be_written_is_a_failure(path: Path) -> None:
    path.with_name("store.db.keycheck.new").mkdir()
    with pytest.raises(StoreFailed):
        await Database.open(path, key=KEY)


async def test_a_store_without_its_key_check_gets_one(path: Path) -> None:
    await make_store(path, entries=10)
    check = path.with_name("store.db.keycheck")
    kept = check.read_bytes()
    check.unlink()
    await (await Database.open(path, key=KEY)).close()
    assert check.read_bytes() == kept
