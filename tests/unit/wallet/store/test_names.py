"""The lookup projections, against a plain list that holds the same rows."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wallet.store.stores import KEY
from wallet.store import runs
from wallet.store.connection import Connection, connect
from wallet.store.errors import Tampered
from wallet.store.names import find_names, put_names, put_wallet_entries, wallet_entries
from wallet.store.schema import migrate, migrations

WALLETS = [bytes([number]) * 20 for number in (0, 1, 2, 254, 255)]
PREFIXES = [0, 1, 255, 256, 2**63 - 1, 2**63, 2**64 - 1]
ALL = 10**9


@pytest.fixture
def conn(path: Path) -> Iterator[Connection]:
    connection = connect(path, key=KEY, query_only=False)
    migrate(connection, migrations())
    yield connection
    connection.close()


def count_of(conn: Connection, table: str) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def test_nothing_is_found_where_nothing_is(conn: Connection) -> None:
    put_names(conn, [])
    assert find_names(conn, 7) == []
    assert wallet_entries(conn, WALLETS[0], ALL, 10) == []


def test_all_entries_with_a_prefix_are_found_in_order(conn: Connection) -> None:
    put_names(conn, [(prefix, index) for index, prefix in enumerate(PREFIXES)])
    put_names(conn, [(2**63, 100), (2**63, 99)])
    for index, prefix in enumerate(PREFIXES):
        assert find_names(conn, prefix) == ([5, 99, 100] if prefix == 2**63 else [index])
    assert find_names(conn, 2) == []


@pytest.mark.parametrize("prefix", [-1, 2**64])
def test_a_prefix_has_64_bits_and_no_sign(conn: Connection, prefix: int) -> None:
    with pytest.raises(OverflowError):
        put_names(conn, [(prefix, 0)])


def test_wallet_entries_come_newest_first_below_a_bound(conn: Connection) -> None:
    for first in range(0, 3000, 500):
        put_wallet_entries(
            conn, [(WALLETS[index % 3], index) for index in range(first, first + 500)]
        )
    assert wallet_entries(conn, WALLETS[1], ALL, 3) == [2998, 2995, 2992]
    assert wallet_entries(conn, WALLETS[1], 2992, 2) == [2989, 2986]
    assert wallet_entries(conn, WALLETS[1], ALL, ALL) == list(range(2998, 0, -3))
    assert wallet_entries(conn, WALLETS[1], 2, 5) == [1]
    assert wallet_entries(conn, WALLETS[1], 1, 5) == []
    assert wallet_entries(conn, WALLETS[1], 0, 5) == []
    assert wallet_entries(conn, WALLETS[1], ALL, 0) == []
    assert wallet_entries(conn, WALLETS[4], ALL, 5) == []


def test_small_flushes_share_a_run_and_their_old_blocks_go(conn: Connection) -> None:
    for index in range(50):
        put_names(conn, [(index % 7, index)])
    assert count_of(conn, "runs") == 1
    assert count_of(conn, "run_blocks") == 1
    assert find_names(conn, 3) == list(range(3, 50, 7))


def test_large_flushes_stay_in_runs_of_their_own(conn: Connection) -> None:
    size = runs.RECORDS_MIN
    for first in range(0, 3 * size, size):
        put_names(conn, [((index * 7919) % size, index) for index in range(first, first + size)])
    assert count_of(conn, "runs") == 3
    for prefix in (0, 1, 12_345, size - 1):
        expected = [index for index in range(3 * size) if (index * 7919) % size == prefix]
        assert find_names(conn, prefix) == expected


def test_one_prefix_may_fill_many_blocks(conn: Connection) -> None:
    put_names(conn, [(5, index) for index in range(2000)] + [(4, 1), (6, 2)])
    assert find_names(conn, 5) == list(range(2000))
    assert find_names(conn, 4) == [1]
    assert find_names(conn, 6) == [2]


def test_a_block_that_is_missing_is_no_empty_answer(conn: Connection) -> None:
    put_names(conn, [(5, 1)])
    conn.execute("DELETE FROM run_blocks")
    with pytest.raises(Tampered):
        find_names(conn, 5)


def test_records_of_two_widths_are_refused(conn: Connection) -> None:
    with pytest.raises(ValueError, match="one width"):
        put_wallet_entries(conn, [(b"w" * 20, 1), (b"w" * 19, 2)])


rows = st.tuples(st.sampled_from(WALLETS), st.sampled_from(PREFIXES))


@settings(max_examples=40)
@given(flushes=st.lists(st.lists(rows, max_size=300), max_size=5), data=st.data())
def test_lookups_agree_with_a_plain_list(
    flushes: list[list[tuple[bytes, int]]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        connection = connect(Path(folder) / "store.db", key=KEY, query_only=False)
        migrate(connection, migrations())
        flat: list[tuple[bytes, int]] = []
        for flush in flushes:
            numbered = list(enumerate(flush, start=len(flat)))
            put_wallet_entries(connection, [(wallet, index) for index, (wallet, _) in numbered])
            put_names(connection, [(prefix, index) for index, (_, prefix) in numbered])
            flat += flush
        before = data.draw(st.integers(0, len(flat) + 2))
        limit = data.draw(st.integers(1, len(flat) + 2))
        for wallet in WALLETS:
            of_wallet = [index for index, row in enumerate(flat[:before]) if row[0] == wallet]
            assert wallet_entries(connection, wallet, before, limit) == of_wallet[::-1][:limit]
        for prefix in PREFIXES:
            of_prefix = [index for index, row in enumerate(flat) if row[1] == prefix]
            assert find_names(connection, prefix) == of_prefix
        connection.close()
