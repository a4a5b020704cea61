"""Entries that a journal gave receipts for and does not tell of."""

from __future__ import annotations

from cloud.database import Connection
from cloud.reconciler import forks
from cloud.reconciler.evidence import Evidence
from cloud.reconciler.replica import open_epoch
from cloud.reconciler.stored import stored_leaves
from cloud.reconciler.values import Segment
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.refusals import Code

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""


def entry(anchor: TrustAnchor, shown: Transfer, told: Transfer, *, index: int) -> Evidence:
    """Evidence of an entry that somebody shows, where the journal tells of another one."""
    parts = forks.of_index(anchor, shown, told)
    return Evidence(kind="hidden-entry", code=Code.PROOF_INVALID, index=index, parts=parts)


async def receipt_here(connection: Connection, segment: Segment, index: int) -> bytes:
    """The receipt of an entry of this segment, which is not stored yet."""
    leaves = await stored_leaves(connection, segment.epoch_id, end=segment.first)
    return forks.receipt_under(segment.checkpoint_raw, leaves + segment.leaves, index)


async def epoch_of(connection: Connection, key: tuple[bytes, int, int], *, now_ms: int) -> int:
    """The row of a note's own epoch; one is made where its journal never told of anything."""
    journal, epoch, _ = key
    found = await open_epoch(connection, journal=journal, epoch=epoch, now_ms=now_ms)
    if found is not None:
        return found
    # A later epoch is there already: this one is over.
    made: int = await connection.fetchval(
        "INSERT INTO journal_epoch (journal, epoch, state, opened_ms, changed_ms)"
        " VALUES ($1, $2, 'closed', $3, $3) RETURNING epoch_id",
        *(journal, epoch, now_ms),
    )
    return made
