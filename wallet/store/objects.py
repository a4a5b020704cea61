"""What the gateway holds for others: the issuer's objects, and receipts of other journals."""

import enum
from collections.abc import Sequence

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import is_full, value_of, values_of

RECEIPTS_MAX = 10_000


class HeldObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object of the issuer as it came: `policy`, `list-1`, `keys`, `grant`, `certificate`."""

    kind: str
    sequence: int
    object: bytes


class CollectedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt of another journal with its entry, for the next exchange; `hash` is the leaf's."""

    hash: bytes
    entry: bytes
    receipt: bytes
    state: str


class Kept(enum.StrEnum):
    """What became of something handed in."""

    NEW = "new"
    KNOWN = "known"
    FULL = "receipts-full"


def put_object(conn: Connection, held: HeldObject) -> None:
    """Store the object, in place of one with the same kind and sequence."""
    conn.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", msgspec.structs.astuple(held))


def newest_object(conn: Connection, kind: str) -> HeldObject | None:
    """The object with the highest sequence of its kind."""
    row = conn.execute(
        "SELECT kind, sequence, object FROM objects WHERE kind = ? ORDER BY sequence DESC LIMIT 1",
        (kind,),
    ).fetchone()
    return value_of(HeldObject, row)


def list_objects(conn: Connection, kind: str, after: int, limit: int) -> list[HeldObject]:
    """Up to `limit` objects of one kind by rising sequence, from the one after this sequence."""
    rows = conn.execute(
        "SELECT kind, sequence, object FROM objects WHERE kind = ? AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (kind, after, limit),
    )
    return values_of(HeldObject, rows)


def newest_objects(conn: Connection, kind: str, after: int, limit: int) -> list[HeldObject]:
    """Up to `limit` objects of one kind by falling sequence, down to the one after this sequence.

    The newest come first, so that who looks for the last one that stands alone may stop there.
    """
    rows = conn.execute(
        "SELECT kind, sequence, object FROM objects WHERE kind = ? AND sequence > ?"
        " ORDER BY sequence DESC LIMIT ?",
        (kind, after, limit),
    )
    return values_of(HeldObject, rows)


def objects_down_from(conn: Connection, kind: str, sequence: int, limit: int) -> list[HeldObject]:
    """Up to `limit` objects of one kind by falling sequence, from this sequence on."""
    rows = conn.execute(
        "SELECT kind, sequence, object FROM objects WHERE kind = ? AND sequence <= ?"
        " ORDER BY sequence DESC LIMIT ?",
        (kind, sequence, limit),
    )
    return values_of(HeldObject, rows)


def delete_object(conn: Connection, kind: str, sequence: int) -> None:
    """Forget one object."""
    conn.execute("DELETE FROM objects WHERE kind = ? AND sequence = ?", (kind, sequence))


def delete_objects_below(conn: Connection, kind: str, sequence: int) -> None:
    """Forget the objects of one kind that are older than this sequence."""
    conn.execute("DELETE FROM objects WHERE kind = ? AND sequence < ?", (kind, sequence))


def add_receipt(
    conn: Connection, collected: CollectedReceipt, *, receipts_max: int = RECEIPTS_MAX
) -> Kept:
    """Keep a receipt for the next exchange, unless it is known or too many are kept."""
    known = conn.execute(
        "SELECT 1 FROM collected_receipts WHERE hash = ?", (collected.hash,)
    ).fetchone()
    if known is not None:
        return Kept.KNOWN
    if is_full(conn, "collected_receipts", rows_max=receipts_max):
        return Kept.FULL
    conn.execute(
        "INSERT INTO collected_receipts (hash, entry, receipt, state) VALUES (?, ?, ?, ?)",
        msgspec.structs.astuple(collected),
    )
    return Kept.NEW


def oldest_receipts(conn: Connection, count: int) -> list[CollectedReceipt]:
    """Up to `count` receipts in the order in which they came; they stay until deleted."""
    rows = conn.execute(
        "SELECT hash, entry, receipt, state FROM collected_receipts ORDER BY seq LIMIT ?", (count,)
    )
    return values_of(CollectedReceipt, rows)


def set_receipts_state(conn: Connection, hashes: Sequence[bytes], state: str) -> None:
    """Mark receipts, such as those that an exchange under way carries."""
    conn.executemany(
        "UPDATE collected_receipts SET state = ? WHERE hash = ?", [(state, item) for item in hashes]
    )


def delete_receipts(conn: Connection, hashes: Sequence[bytes]) -> None:
    """Forget receipts that the issuer has."""
    conn.executemany("DELETE FROM collected_receipts WHERE hash = ?", [(item,) for item in hashes])
