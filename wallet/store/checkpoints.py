"""Checkpoints kept for synchronisation: segments are cut where a checkpoint covers them.

A checkpoint of every batch would be too many; those are kept that stand some entries apart, and
the newest one.
"""

from __future__ import annotations

from wallet.store.connection import Connection


def replace_checkpoint(
    conn: Connection, *, size: int, checkpoint: bytes, replaced: int | None
) -> None:
    """Store the newest checkpoint; the one of size `replaced` goes."""
    if replaced is not None:
        changed = conn.execute(
            "UPDATE OR REPLACE checkpoints SET size = ?, checkpoint = ? WHERE size = ?",
            (size, checkpoint, replaced),
        )
        if changed.rowcount:
            return
    conn.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (size, checkpoint))


def prune_checkpoints(conn: Connection, *, below: int) -> None:
    """Forget the checkpoints of smaller sizes; the newest one always stays."""
    conn.execute(
        "DELETE FROM checkpoints WHERE size < ? AND size < (SELECT max(size) FROM checkpoints)",
        (below,),
    )


def checkpoint_for(conn: Connection, *, above: int, at_most: int) -> tuple[int, bytes] | None:
    """The largest checkpoint in above < size <= at_most, else the smallest one above."""
    row = conn.execute(
        "SELECT size, checkpoint FROM checkpoints WHERE size > ? AND size <= ?"
        " ORDER BY size DESC LIMIT 1",
        (above, at_most),
    ).fetchone()
    if row is None:
        row = conn.execute(
            "SELECT size, checkpoint FROM checkpoints WHERE size > ? ORDER BY size LIMIT 1",
            (above,),
        ).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))
