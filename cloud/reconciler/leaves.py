"""Entries found by their leaf hashes: an index that is filled after the segments are stored.

Storing a segment is the busiest work of all and takes no part in it. Whoever looks for an entry
fills the index first, by a bounded step; upkeep fills it for everybody. What is not in it yet is
looked through, newest segments first.
"""

from __future__ import annotations

from cloud.database import Connection, Database

SEGMENTS_MAX = 50
STEPS_MAX = 200
_LEAF_BYTES = 32
_FILL = """
    WITH fresh AS MATERIALIZED (
        SELECT first, size, leaves || ''::bytea AS leaves FROM journal_segment
        WHERE epoch_id = $1 AND first >= $2 ORDER BY first LIMIT $3
    ), placed AS (
        INSERT INTO journal_leaf (epoch_id, lead, index)
        SELECT $1, substring(leaves FROM (32 * place)::int + 1 FOR 8), first + place
        FROM fresh, generate_series(0, size - first - 1) AS place
    )
    UPDATE journal_leaf_end SET size = coalesce((SELECT max(size) FROM fresh), $2)
    WHERE epoch_id = $1 RETURNING size
"""
INDEXED = """
    SELECT entries[placed.index - first + 1] AS entry FROM journal_leaf AS placed
    CROSS JOIN LATERAL (
        SELECT first, entries, leaves FROM journal_segment
        WHERE journal_segment.epoch_id = $1 AND first <= placed.index ORDER BY first DESC LIMIT 1
    ) AS segment
    WHERE placed.epoch_id = $1 AND placed.lead = substring($2::bytea FOR 8)
        AND substring(leaves FROM (32 * (placed.index - first))::int + 1 FOR 32) = $2
"""
_TAIL = """
    SELECT entries, position($2::bytea IN leaves) - 1 AS place FROM journal_segment
    WHERE epoch_id = $1 AND first >= $3 AND position($2::bytea IN leaves) > 0 ORDER BY first DESC
"""


async def fill(connection: Connection, epoch_id: int) -> int:
    """Take the next segments of an epoch into the index; gives how many entries are in it.

    While somebody else does that, nothing is done here.
    """
    await connection.execute(
        "INSERT INTO journal_leaf_end VALUES ($1, 0) ON CONFLICT DO NOTHING", epoch_id
    )
    end: int | None = await connection.fetchval(
        "SELECT size FROM journal_leaf_end WHERE epoch_id = $1 FOR UPDATE SKIP LOCKED", epoch_id
    )
    if end is None:
        return await _end(connection, epoch_id)
    filled: int = await connection.fetchval(_FILL, epoch_id, end, SEGMENTS_MAX)
    return filled


async def find_entry(connection: Connection, epoch_id: int, leaf: bytes) -> bytes | None:
    """The entry with this leaf hash, by the index; then what is not in it yet is looked through."""
    found: bytes | None = await connection.fetchval(INDEXED, epoch_id, leaf)
    if found is not None:
        return found
    rows = await connection.fetch(_TAIL, epoch_id, leaf, await _end(connection, epoch_id))
    for row in rows:
        # Bytes of two neighbours could look like a leaf; at a multiple of 32 stands a leaf.
        if row["place"] % _LEAF_BYTES == 0:
            entry: bytes = row["entries"][row["place"] // _LEAF_BYTES]
            return entry
    return None


async def fill_all(database: Database) -> int:
    """Take what all journals told since into the index, by bounded steps; gives how many.

    What is left is for the next time. Raises: DatabaseError.
    """
    steps = 0
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT epoch_id, journal_epoch.size FROM journal_epoch"
            " LEFT JOIN journal_leaf_end AS filled USING (epoch_id)"
            " WHERE journal_epoch.size > coalesce(filled.size, 0) ORDER BY epoch_id"
        )
    for row in rows:
        end = -1
        while steps < STEPS_MAX:
            async with database.transaction() as connection:
                before, end = end, await fill(connection, row["epoch_id"])
            steps += 1
            if end >= row["size"] or end == before:
                break
    return steps


async def _end(connection: Connection, epoch_id: int) -> int:
    found: int | None = await connection.fetchval(
        "SELECT size FROM journal_leaf_end WHERE epoch_id = $1", epoch_id
    )
    return found or 0
