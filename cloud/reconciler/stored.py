"""What is stored of a journal: leaves, roots and entries with receipts, by their places."""

from __future__ import annotations

from cloud.database import Connection
from cloud.reconciler.forks import receipt_under
from wallet.protocol.merkle import HASH_BYTES, Batch, Frontier


def split(joined: bytes) -> list[bytes]:
    """Hashes that stand one behind the other."""
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]


async def stored_leaves(connection: Connection, epoch_id: int, *, end: int) -> list[bytes]:
    """Leaf hashes of the entries below `end`."""
    rows = await connection.fetch(
        "SELECT leaves FROM journal_segment WHERE epoch_id = $1 AND first < $2 ORDER BY first",
        *(epoch_id, end),
    )
    return split(b"".join([row["leaves"] for row in rows]))[:end]


async def held_leaf(connection: Connection, epoch_id: int, index: int) -> bytes | None:
    """The leaf hash of an entry that is held, or None."""
    found: bytes | None = await connection.fetchval(
        "SELECT substring(leaves FROM (32 * ($2 - first) + 1)::int FOR 32) FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(epoch_id, index),
    )
    return found


async def held_root(connection: Connection, epoch_id: int, size: int) -> bytes:
    """The root of what is held, at a size up to that: of one segment and what stands before it."""
    row = await connection.fetchrow(
        "SELECT first, peaks, substring(leaves FROM 1 FOR (32 * ($2 - first))::int) AS leaves"
        " FROM journal_segment WHERE epoch_id = $1 AND first < $2 AND size >= $2",
        *(epoch_id, size),
    )
    if row["peaks"] is None:
        leaves = await stored_leaves(connection, epoch_id, end=size)
        return Batch(Frontier(), leaves).root
    return Batch(Frontier(row["first"], tuple(split(row["peaks"]))), split(row["leaves"])).root


async def held_entry(
    connection: Connection, epoch_id: int, index: int
) -> tuple[bytes, bytes] | None:
    """(entry, receipt) of an entry that is held, or None."""
    row = await connection.fetchrow(
        "SELECT size, checkpoint, entries[$2 - first + 1] AS entry FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(epoch_id, index),
    )
    if row is None:
        return None
    leaves = await stored_leaves(connection, epoch_id, end=row["size"])
    return row["entry"], receipt_under(row["checkpoint"], leaves, index)
