"""Payment requests that tills made, until they are paid, void or long expired."""

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import value_of, values_of

COLUMNS = "identity, request, payee, reference, expires_ms, state"


class StoredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request and what a till looks it up by; the state is the caller's word."""

    identity: bytes
    request: bytes
    payee: bytes
    reference: str
    expires_ms: int
    state: str


def insert_request(conn: Connection, stored: StoredRequest) -> bool:
    """Store a new request; false, and nothing stored, when its identity is known."""
    cursor = conn.execute(
        f"INSERT INTO requests ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (identity) DO NOTHING",
        msgspec.structs.astuple(stored),
    )
    return cursor.rowcount == 1


def get_request(conn: Connection, identity: bytes) -> StoredRequest | None:
    """The request with this identity."""
    row = conn.execute(f"SELECT {COLUMNS} FROM requests WHERE identity = ?", (identity,)).fetchone()
    return value_of(StoredRequest, row)


def requests_by_reference(conn: Connection, reference: str, limit: int) -> list[StoredRequest]:
    """Up to `limit` requests with this reference, the one that expires last first."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM requests WHERE reference = ?"
        " ORDER BY expires_ms DESC, identity LIMIT ?",
        (reference, limit),
    )
    return values_of(StoredRequest, rows)


def set_request_state(conn: Connection, identity: bytes, state: str) -> bool:
    """Set the state; false when there is no such request."""
    cursor = conn.execute("UPDATE requests SET state = ? WHERE identity = ?", (state, identity))
    return cursor.rowcount == 1


def prune_requests(conn: Connection, expired_before_ms: int) -> int:
    """Forget the requests that expired before this time; gives how many."""
    return conn.execute("DELETE FROM requests WHERE expires_ms < ?", (expired_before_ms,)).rowcount
