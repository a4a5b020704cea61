"""Terminals that were paired with this gateway, and whether they still are."""

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import value_of, values_of

COLUMNS = "id, name, certificate_serial, created_ms, revoked_ms"


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal; the serial is that of its client certificate, big-endian."""

    id: str
    name: str
    certificate_serial: bytes
    created_ms: int
    revoked_ms: int | None = None


def insert_terminal(conn: Connection, terminal: Terminal) -> None:
    """Store a new terminal. Raises: Conflict (from the transaction) for a known id or serial."""
    conn.execute(
        f"INSERT INTO terminals ({COLUMNS}) VALUES (?, ?, ?, ?, ?)",
        msgspec.structs.astuple(terminal),
    )


def get_terminal(conn: Connection, terminal_id: str) -> Terminal | None:
    """The terminal with this id, revoked or not."""
    row = conn.execute(f"SELECT {COLUMNS} FROM terminals WHERE id = ?", (terminal_id,)).fetchone()
    return value_of(Terminal, row)


def terminal_by_serial(conn: Connection, certificate_serial: bytes) -> Terminal | None:
    """The terminal that holds this certificate, revoked or not."""
    row = conn.execute(
        f"SELECT {COLUMNS} FROM terminals WHERE certificate_serial = ?", (certificate_serial,)
    ).fetchone()
    return value_of(Terminal, row)


def list_terminals(conn: Connection, after: str, limit: int) -> list[Terminal]:
    """Up to `limit` terminals in the order of their ids, from the one after this id."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM terminals WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
    )
    return values_of(Terminal, rows)


def revoke_terminal(conn: Connection, terminal_id: str, *, now_ms: int) -> bool:
    """Revoke the terminal; false when it is unknown or was revoked before."""
    cursor = conn.execute(
        "UPDATE terminals SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL",
        (now_ms, terminal_id),
    )
    return cursor.rowcount == 1
