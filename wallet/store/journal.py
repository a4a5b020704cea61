"""The journal of the current epoch: entries, stored Merkle nodes, checkpoints, snapshots.

Entries count from 0. All writes of one batch belong in one transaction of `Database.write`.
"""

from collections.abc import Iterable, Sequence

from wallet.store.connection import Connection
from wallet.store.errors import OutOfOrder
from wallet.store.many import insert_rows

CHECKPOINTS_KEPT = 64
SNAPSHOTS_KEPT = 2
TABLES = ("entries", "nodes", "checkpoints", "snapshots", "runs", "run_blocks")


def append_entries(conn: Connection, first_index: int, entries: Sequence[bytes]) -> None:
    """Store the entries from this index on.

    Raises: OutOfOrder unless the index is the journal's next one.
    """
    count = entry_count(conn)
    if first_index != count:
        raise OutOfOrder(f"the next entry is {count}, not {first_index}")
    insert_rows(conn, "entries", 2, list(enumerate(entries, first_index)))


def read_entries(conn: Connection, first: int, count: int) -> list[bytes]:
    """Up to `count` entries in order; fewer at the journal's end."""
    rows = conn.execute(
        "SELECT entry FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + count)
    )
    return [entry for (entry,) in rows]


def entry_count(conn: Connection) -> int:
    """The size of the journal, which is the index of its next entry."""
    # max() alone reads one path of the tree; entries have no gaps.
    row = conn.execute("SELECT max(idx) FROM entries").fetchone()
    return 0 if row is None or row[0] is None else int(row[0]) + 1


def count_entries(conn: Connection, below: int) -> int:
    """How many entries there are below an index: fewer than that where pages were lost.

    It reads every page of them: 1.3 s of one core for a million.
    """
    row = conn.execute("SELECT count(*) FROM entries WHERE idx < ?", (below,)).fetchone()
    return 0 if row is None else int(row[0])


def put_nodes(conn: Connection, rows: Iterable[tuple[int, int, bytes]]) -> None:
    """Store the hashes of perfect subtrees as (level, index, hash)."""
    clause = "ON CONFLICT (level, idx) DO UPDATE SET hash = excluded.hash"
    insert_rows(conn, "nodes", 3, list(rows), clause)


def get_node(conn: Connection, level: int, index: int) -> bytes | None:
    """The hash of one subtree, if it was stored."""
    row = conn.execute(
        "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
    ).fetchone()
    return None if row is None else bytes(row[0])


def get_nodes(conn: Connection, places: Sequence[tuple[int, int]]) -> list[bytes | None]:
    """The hashes at these (level, index), in the order asked for."""
    return [get_node(conn, level, index) for level, index in places]


def read_nodes(conn: Connection, level: int, first: int, count: int) -> list[bytes]:
    """Up to `count` hashes of one level, from this index on and in order."""
    rows = conn.execute(
        "SELECT hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
        (level, first, first + count),
    )
    return [node for (node,) in rows]


def put_checkpoint(conn: Connection, size: int, checkpoint: bytes) -> None:
    """Store the signed checkpoint of this size; the newest 64 stay."""
    conn.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (size, checkpoint))
    conn.execute(
        "DELETE FROM checkpoints WHERE size <="
        " (SELECT size FROM checkpoints ORDER BY size DESC LIMIT 1 OFFSET ?)",
        (CHECKPOINTS_KEPT,),
    )


def last_checkpoint(conn: Connection) -> tuple[int, bytes] | None:
    """The size and bytes of the newest checkpoint."""
    row = conn.execute(
        "SELECT size, checkpoint FROM checkpoints ORDER BY size DESC LIMIT 1"
    ).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def put_snapshot(conn: Connection, size: int, state: bytes) -> None:
    """Store the state after `size` entries; the newest two stay."""
    conn.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (size, state))
    conn.execute(
        "DELETE FROM snapshots WHERE size <="
        " (SELECT size FROM snapshots ORDER BY size DESC LIMIT 1 OFFSET ?)",
        (SNAPSHOTS_KEPT,),
    )


def last_snapshot(conn: Connection, at_most_size: int | None = None) -> tuple[int, bytes] | None:
    """The size and state of the newest snapshot, or of the newest one not above a size."""
    row = conn.execute(
        "SELECT size, state FROM snapshots WHERE ?1 IS NULL OR size <= ?1"
        " ORDER BY size DESC LIMIT 1",
        (at_most_size,),
    ).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def clear_journal(conn: Connection) -> None:
    """Empty the journal and its lookup projections, for a new epoch that begins at 0."""
    for table in TABLES:
        conn.execute(f"DELETE FROM {table}")
