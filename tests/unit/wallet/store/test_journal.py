"""Entries, nodes, checkpoints and snapshots."""

import pytest

from tests.unit.wallet.store.stores import append, entry
from wallet.store.database import Database
from wallet.store.errors import OutOfOrder
from wallet.store.journal import (
    append_entries,
    clear_journal,
    entry_count,
    get_node,
    get_nodes,
    last_checkpoint,
    last_snapshot,
    put_checkpoint,
    put_nodes,
    put_snapshot,
    read_entries,
    read_nodes,
)
from wallet.store.names import find_names, put_names, put_wallet_entries, wallet_entries


async def test_entries_come_back_by_their_index(store: Database) -> None:
    await append(store, 100)
    assert await store.read(lambda conn: read_entries(conn, 0, 3)) == [entry(0), entry(1), entry(2)]
    assert await store.read(lambda conn: read_entries(conn, 98, 50)) == [entry(98), entry(99)]
    assert await store.read(lambda conn: read_entries(conn, 100, 50)) == []
    assert await store.read(lambda conn: read_entries(conn, 5, 0)) == []


@pytest.mark.parametrize("first", [0, 9, 11, -1])
async def test_entries_leave_no_gap_and_overwrite_nothing(store: Database, first: int) -> None:
    await append(store, 10)
    with pytest.raises(OutOfOrder, match="next entry is 10"):
        await store.write(lambda conn: append_entries(conn, first, [b"entry"]))
    assert await store.read(entry_count) == 10


async def test_no_entries_change_nothing(store: Database) -> None:
    await store.write(lambda conn: append_entries(conn, 0, []))
    assert await store.read(entry_count) == 0


async def test_nodes_come_back_by_their_place(store: Database) -> None:
    rows = [(8, index, bytes([index]) * 32) for index in range(5)] + [(16, 0, b"r" * 32)]
    await store.write(lambda conn: put_nodes(conn, rows))
    await store.write(lambda conn: put_nodes(conn, rows[:1]))
    assert await store.read(lambda conn: get_node(conn, 8, 3)) == bytes([3]) * 32
    assert await store.read(lambda conn: get_node(conn, 24, 3)) is None
    places = [(16, 0), (8, 9), (8, 0)]
    assert await store.read(lambda conn: get_nodes(conn, places)) == [b"r" * 32, None, bytes(32)]
    assert await store.read(lambda conn: read_nodes(conn, 8, 3, 10)) == [
        bytes([3]) * 32,
        bytes([4]) * 32,
    ]


async def test_the_newest_64_checkpoints_stay(store: Database) -> None:
    assert await store.read(last_checkpoint) is None
    for size in range(1, 101):
        await store.write(lambda conn, size=size: put_checkpoint(conn, size, b"c%d" % size))  # type: ignore[misc]  # A default makes mypy lose the lambda's type.
    assert await store.read(last_checkpoint) == (100, b"c100")
    kept = await store.read(lambda conn: conn.execute("SELECT size FROM checkpoints").fetchall())
    assert kept == [(size,) for size in range(37, 101)]


async def test_a_checkpoint_signed_again_replaces_the_one_of_its_size(store: Database) -> None:
    await store.write(lambda conn: put_checkpoint(conn, 5, b"first"))
    await store.write(lambda conn: put_checkpoint(conn, 5, b"second"))
    assert await store.read(last_checkpoint) == (5, b"second")


async def test_the_newest_two_snapshots_stay(store: Database) -> None:
    assert await store.read(last_snapshot) is None
    for size in (10, 20, 30):
        await store.write(lambda conn, size=size: put_snapshot(conn, size, b"s%d" % size))  # type: ignore[misc]  # A default makes mypy lose the lambda's type.
    assert await store.read(last_snapshot) == (30, b"s30")
    assert await store.read(lambda conn: last_snapshot(conn, 30)) == (30, b"s30")
    assert await store.read(lambda conn: last_snapshot(conn, at_most_size=29)) == (20, b"s20")
    assert await store.read(lambda conn: last_snapshot(conn, 19)) is None


async def test_a_new_epoch_begins_at_nothing(store: Database) -> None:
    await append(store, 10)
    await store.write(lambda conn: put_nodes(conn, [(8, 0, bytes(32))]))
    await store.write(lambda conn: put_checkpoint(conn, 10, b"checkpoint"))
    await store.write(lambda conn: put_snapshot(conn, 10, b"state"))
    await store.write(lambda conn: put_names(conn, [(1, 2)]))
    await store.write(lambda conn: put_wallet_entries(conn, [(b"w" * 20, 2)]))
    await store.write(clear_journal)
    assert await store.read(entry_count) == 0
    assert await store.read(last_checkpoint) is None
    assert await store.read(last_snapshot) is None
    assert await store.read(lambda conn: get_node(conn, 8, 0)) is None
    assert await store.read(lambda conn: find_names(conn, 1)) == []
    assert await store.read(lambda conn: wallet_entries(conn, b"w" * 20, 10, 10)) == []
    await append(store, 10)
