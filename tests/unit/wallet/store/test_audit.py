"""The audit log tells when a row was changed, taken out or put in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.audit import (
    anchor_audit,
    append_audit,
    audit_head,
    page_audit,
    parse_head,
    prune_audit,
    verify_audit,
)
from wallet.store.connection import Connection, connect
from wallet.store.errors import Tampered
from wallet.store.schema import migrate, migrations
from wallet.trail import GENESIS, AuditHead


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
    assert verify_audit(conn) == AuditHead(0, GENESIS)
    assert page_audit(conn, 0, 10) == []


def test_rows_come_in_pages_and_each_follows_the_one_before(conn: Connection) -> None:
    fill(conn, 5)
    rows = page_audit(conn, 0, 3) + page_audit(conn, 3, 3)
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert [row.previous for row in rows] == [GENESIS, *(row.hash for row in rows[:-1])]
    assert verify_audit(conn) == audit_head(conn) == AuditHead(5, rows[-1].hash)


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
        "UPDATE audit SET seq = CASE seq WHEN 3 THEN -4 ELSE -3 END WHERE seq IN (3, 4);"
        "UPDATE audit SET seq = -seq WHERE seq < 0",
    ],
)
def test_a_changed_row_is_named(conn: Connection, change: str) -> None:
    fill(conn, 6)
    conn.executescript(change)
    with pytest.raises(Tampered, match="row 3 "):
        verify_audit(conn)


def test_rows_cut_off_at_the_end_are_missed_and_later_rows_do_not_heal_it(
    conn: Connection,
) -> None:
    fill(conn, 6)
    conn.execute("DELETE FROM audit WHERE seq > 4")
    with pytest.raises(Tampered, match=r"rows 5 to 6 .* at its end"):
        verify_audit(conn)
    fill(conn, 1)
    with pytest.raises(Tampered, match="row 5 "):
        verify_audit(conn)


def test_a_log_cut_off_together_with_its_head_is_found_by_a_head_that_was_told(
    conn: Connection,
) -> None:
    fill(conn, 4)
    earlier = audit_head(conn)
    fill(conn, 2)
    told = audit_head(conn)
    assert verify_audit(conn, [earlier, told]) == told
    conn.execute("DELETE FROM audit WHERE seq > 4")
    conn.execute("UPDATE meta SET value = ? WHERE name = 'audit-head'", (str(earlier).encode(),))
    assert verify_audit(conn, [earlier]) == earlier
    with pytest.raises(Tampered, match="rows 5 to 6 "):
        verify_audit(conn, [told])


def test_a_log_written_anew_is_found_by_a_head_that_was_told(conn: Connection) -> None:
    fill(conn, 3)
    anchor_audit(conn, audit_head(conn))
    conn.execute("DELETE FROM audit")
    conn.execute("DELETE FROM meta WHERE name = 'audit-head'")
    fill(conn, 1)
    append_audit(conn, time_ms=1, action="device.revoke", details={})
    fill(conn, 2)
    with pytest.raises(Tampered, match=r"row 3 .* not the one that was told"):
        verify_audit(conn)


@pytest.mark.parametrize("value", ["nonsense", "6:" + "00" * 32, "01:" + "00" * 32])
def test_a_head_that_was_changed_is_found(conn: Connection, value: str) -> None:
    fill(conn, 6)
    conn.execute("UPDATE meta SET value = ? WHERE name = 'audit-head'", (value.encode(),))
    with pytest.raises(Tampered):
        verify_audit(conn)


def test_a_head_is_read_back_from_its_text(conn: Connection) -> None:
    fill(conn, 3)
    head = audit_head(conn)
    assert parse_head(str(head)) == head
    assert parse_head(str(AuditHead())) == AuditHead()
    with pytest.raises(ValueError, match="NUMBER:HASH"):
        parse_head("3")


def test_a_bounded_log_begins_where_a_row_of_it_says(conn: Connection) -> None:
    fill(conn, 5)
    assert prune_audit(conn, kept=5, now_ms=9) == 0
    fill(conn, 5)
    told = audit_head(conn)
    assert prune_audit(conn, kept=4, now_ms=9) == 6
    assert [row.seq for row in page_audit(conn, 0, 99)] == [7, 8, 9, 10, 11]
    assert verify_audit(conn, [told]).seq == 11
    fill(conn, 3)
    assert prune_audit(conn, kept=2, now_ms=9) == 6
    assert verify_audit(conn, [told]).seq == 15


def test_rows_that_go_at_the_beginning_without_a_word_are_missed(conn: Connection) -> None:
    fill(conn, 9)
    base = page_audit(conn, 2, 1)[0]
    conn.execute("DELETE FROM audit WHERE seq <= 3")
    with pytest.raises(Tampered, match="row 1 "):
        verify_audit(conn)
    head = AuditHead(base.seq, base.hash)
    conn.execute("INSERT INTO meta VALUES ('audit-base', ?)", (str(head).encode(),))
    with pytest.raises(Tampered, match="rows up to 3 "):
        verify_audit(conn)
