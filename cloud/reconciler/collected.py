"""Step 7: receipts that others handed in. A journal that hides an entry is found out by them."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.database import Connection
from cloud.reconciler import evidence
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.values import Segment
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    ReceiptError,
    VerifiedReceipt,
    verify_receipt,
)
from wallet.protocol.refusals import Code
from wallet.protocol.trust import ENDLESS_S

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""


async def take(
    connection: Connection,
    anchor: TrustAnchor,
    transfers: Sequence[Transfer],
    *,
    now_ms: int,
) -> None:
    """Hold each receipt against the journal that it names, or keep it until that journal tells.

    A receipt that does not hold proves nothing and is left out.
    """
    for transfer in transfers:
        entry, receipt = transfer
        try:
            verified = verify_receipt(
                receipt, entry, root=anchor, grace_s=ENDLESS_S, revoked=NOTHING_REVOKED
            )
        except ReceiptError:
            continue
        await _take(connection, anchor, transfer, verified, now_ms=now_ms)


async def _take(
    connection: Connection,
    anchor: TrustAnchor,
    transfer: Transfer,
    verified: VerifiedReceipt,
    *,
    now_ms: int,
) -> None:
    row = await connection.fetchrow(
        "SELECT epoch_id, size FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *(verified.journal, verified.epoch),
    )
    if row is None or row["size"] <= verified.index:
        await connection.execute(
            "INSERT INTO collected_receipt VALUES ($1, $2, $3, $4, $5, $6, $7)"
            " ON CONFLICT DO NOTHING",
            *(verified.journal, verified.epoch, verified.index, verified.leaf),
            *(*transfer, now_ms),
        )
        return
    held = await _held_leaf(connection, row["epoch_id"], verified.index)
    if held != verified.leaf:
        await _convict(connection, anchor, row["epoch_id"], verified.index, transfer, now_ms=now_ms)


async def _held_leaf(connection: Connection, epoch_id: int, index: int) -> bytes:
    found: bytes = await connection.fetchval(
        "SELECT substring(leaves FROM (32 * ($2 - first) + 1)::int FOR 32) FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(epoch_id, index),
    )
    return found


async def check_own(
    connection: Connection, anchor: TrustAnchor, segment: Segment, *, now_ms: int
) -> None:
    """Hold what this journal tells now against the receipts that were handed in before."""
    rows = await connection.fetch(
        "DELETE FROM collected_receipt"
        " WHERE journal = $1 AND epoch = $2 AND index >= $3 AND index < $4"
        " RETURNING index, entry, receipt",
        *(segment.journal, segment.epoch, segment.first, segment.size),
    )
    for row in rows:
        index, transfer = row["index"], (row["entry"], row["receipt"])
        if segment.leaves[index - segment.first] != leaf_hash(row["entry"]):
            await _convict(connection, anchor, segment.epoch_id, index, transfer, now_ms=now_ms)


async def _convict(
    connection: Connection,
    anchor: TrustAnchor,
    epoch_id: int,
    index: int,
    transfer: Transfer,
    *,
    now_ms: int,
) -> None:
    held = await evidence.held_entry(connection, epoch_id, index)
    assert held is not None  # the journal has told of this index
    parts = evidence.of_index(anchor, transfer, held)
    found = Evidence(kind="hidden-entry", code=Code.PROOF_INVALID, index=index, parts=parts)
    await suspend(connection, epoch_id, found, now_ms=now_ms)
