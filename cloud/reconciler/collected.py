"""Step 7: receipts that others handed in. A journal that hides an entry is found out by them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

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


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that holds, and what it says."""

    transfer: Transfer
    verified: VerifiedReceipt


def received(anchor: TrustAnchor, transfer: Transfer) -> Received | None:
    """The receipt, checked; None where it proves nothing."""
    entry, receipt = transfer
    try:
        verified = verify_receipt(
            receipt, entry, root=anchor, grace_s=ENDLESS_S, revoked=NOTHING_REVOKED
        )
    except ReceiptError:
        return None
    return Received(transfer=transfer, verified=verified)


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
    if transfers:
        found = await asyncio.to_thread(lambda: [received(anchor, item) for item in transfers])
        holding = [item for item in found if item is not None]
        await keep(connection, anchor, holding, now_ms=now_ms)


async def keep(
    connection: Connection, anchor: TrustAnchor, holding: Sequence[Received], *, now_ms: int
) -> None:
    """Do what `take` does with receipts that were checked."""
    rows = await connection.fetch(
        "SELECT journal, epoch, epoch_id, size FROM journal_epoch WHERE (journal, epoch) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[]))",
        *([item.verified.journal for item in holding], [item.verified.epoch for item in holding]),
    )
    places = {(row["journal"], row["epoch"]): row for row in rows}
    waiting = []
    for item in holding:
        row = places.get((item.verified.journal, item.verified.epoch))
        if row is None or row["size"] <= item.verified.index:
            waiting.append(item)
        else:
            await _compare(connection, anchor, row["epoch_id"], item, now_ms=now_ms)
    await _wait(connection, waiting, now_ms=now_ms)


async def _wait(connection: Connection, waiting: Sequence[Received], *, now_ms: int) -> None:
    """Keep receipts until their journals tell."""
    await connection.execute(
        "INSERT INTO collected_receipt SELECT *, $7::bigint FROM unnest($1::bytea[], $2::bigint[],"
        " $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[]) ON CONFLICT DO NOTHING",
        [item.verified.journal for item in waiting],
        [item.verified.epoch for item in waiting],
        [item.verified.index for item in waiting],
        [item.verified.leaf for item in waiting],
        [item.transfer[0] for item in waiting],
        [item.transfer[1] for item in waiting],
        now_ms,
    )


async def _compare(
    connection: Connection, anchor: TrustAnchor, epoch_id: int, item: Received, *, now_ms: int
) -> None:
    """The journal has told of this index: of the same entry, or it is convicted."""
    index = item.verified.index
    if await _held_leaf(connection, epoch_id, index) != item.verified.leaf:
        await _convict(connection, anchor, epoch_id, index, item.transfer, now_ms=now_ms)


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
