"""The audit log: each row's hash covers the row before it, so that no row changes unseen.

Rows cut off at the end leave no trace in the log itself: `verify_audit` gives the head, which the
caller compares with one that it kept elsewhere.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from wallet.store.connection import Connection
from wallet.store.errors import Tampered
from wallet.store.rows import values_of

COLUMNS = "seq, time_ms, action, details, previous, hash"
GENESIS = bytes(32)


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; `details` is JSON with sorted keys."""

    seq: int
    time_ms: int
    action: str
    details: bytes
    previous: bytes
    hash: bytes


def append_audit(
    conn: Connection, *, time_ms: int, action: str, details: Mapping[str, str | int | bool | None]
) -> AuditRow:
    """Append one row; never pass a key, a PIN, or an amount beside a name."""
    seq, previous = _head(conn)
    encoded = msgspec.json.encode(details, order="deterministic")
    row = AuditRow(
        seq=seq + 1,
        time_ms=time_ms,
        action=action,
        details=encoded,
        previous=previous,
        hash=_row_hash(previous, seq=seq + 1, time_ms=time_ms, action=action, details=encoded),
    )
    conn.execute(
        f"INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(row)
    )
    return row


def verify_audit(conn: Connection) -> tuple[int, bytes]:
    """Check every row; gives the last row's sequence and hash, or 0 and zeros.

    Raises: Tampered, naming the first row that does not follow.
    """
    seq, previous = 0, GENESIS
    for row in conn.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq"):
        (audited,) = values_of(AuditRow, [row])
        expected = _row_hash(
            previous,
            seq=seq + 1,
            time_ms=audited.time_ms,
            action=audited.action,
            details=audited.details,
        )
        if (audited.seq, audited.previous, audited.hash) != (seq + 1, previous, expected):
            raise Tampered(f"row {seq + 1} of the audit log is missing or was changed")
        seq, previous = audited.seq, audited.hash
    return seq, previous


def page_audit(conn: Connection, after: int, limit: int) -> list[AuditRow]:
    """Up to `limit` rows in order, from the one after this sequence."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
    )
    return values_of(AuditRow, rows)


def _head(conn: Connection) -> tuple[int, bytes]:
    row = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (int(row[0]), bytes(row[1]))


def _row_hash(previous: bytes, *, seq: int, time_ms: int, action: str, details: bytes) -> bytes:
    """SHA-256 over the previous hash, both numbers (8 bytes each), both texts with lengths."""
    digest = hashlib.sha256(previous)
    digest.update(seq.to_bytes(8, "big") + time_ms.to_bytes(8, "big"))
    for text in (action.encode(), details):
        digest.update(len(text).to_bytes(4, "big") + text)
    return digest.digest()
