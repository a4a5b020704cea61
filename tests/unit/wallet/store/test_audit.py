"""The audit log tells when a row was changed, taken out or put in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.audit import GENESIS, append_audit, page_audit, verify_audit
from wallet.store.connection import Connection, connect
from wallet.store.errors import Tampered
from wallet.store.schema import migrate, migrations


@pytest.fixture
def conn(path: Path) -> Iterator[Connection]:
    connection = connect(path, key=KEY, query_only=False)
    migrate(connection, migrations())
    yield connection
    connection.close()


def fill(conn: Connection, count: int) -> None:
    for number in range(count):
        append_audit(conn, time_ms=number, action="device.pair", details={"terminal": number})


def test_an_empty_log_verifies(conn: Connection) -> None:
    assert verify_audit(conn) == (0, GENESIS)
    assert page_audit(conn, 0, 10) == []


def test_rows_come_in_pages_and_each_follows_the_one_before(conn: Connection) -> None:
    fill(conn, 5)
    rows = page_audit(conn, 0, 3) + page_audit(conn, 3, 3)
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert [row.previous for row in rows] == [GENESIS, *(row.hash for row in rows[:-1])]
    assert verify_audit(conn) == (5, rows[-1].hash)


def test_the_hash_is_what_its_description_says(conn: Connection) -> None:
    row = append_audit(conn, time_ms=258, action="key", details={"b": None, "a": True})
    details = b'{"a":true,"b":null}'
    numbers = bytes(7) + b"\x01" + bytes(6) + b"\x01\x02"
    texts = bytes(3) + b"\x03key" + bytes(3) + bytes([len(details)]) + details
    assert row.hash == hashlib.sha256(GENESIS + numbers + texts).digest()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET action = 'nothing' WHERE seq = 3",
        "UPDATE audit SET details = x'7b7d' WHERE seq = 3",
        "UPDATE audit SET time_ms = 77 WHERE seq = 3",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 3",
        "UPDATE audit SET previous = zeroblob(32) WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "UPDATE audit SET seq = 33 WHERE seq = 3",
    ],
)
def test_a_changed_row_is_named(conn: Connection, change: str) -> None:
    fill(conn, 6)
    conn.execute(change)
    with pytest.raises(Tampered, match="row 3 "):
        verify_audit(conn)


def test_rows_cut_off_at_the_end_show_in_the_head(conn: Connection) -> None:
    fill(conn, 6)
    head = verify_audit(conn)
    conn.execute("DELETE FROM audit WHERE seq = 6")
    assert verify_audit(conn) != head
