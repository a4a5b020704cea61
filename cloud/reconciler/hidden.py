"""Entries that a journal gave receipts for and does not tell of, and who is owed for them."""

from __future__ import annotations

from cloud.database import Connection
from cloud.reconciler import forks
from cloud.reconciler.evidence import Evidence
from cloud.reconciler.replica import open_epoch
from cloud.reconciler.stored import stored_leaves
from cloud.reconciler.values import Segment
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import decode_note
from wallet.protocol.receipt import VerifiedReceipt
from wallet.protocol.refusals import Code

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""
Place = tuple[bytes, int, int]
"""Journal, epoch, index."""


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


async def keep_receipt(
    connection: Connection, verified: VerifiedReceipt, shown: Transfer, *, now_ms: int
) -> None:
    """Keep the receipt of a hidden entry: its holder's claim, when the epoch is closed."""
    await connection.execute(
        "INSERT INTO hidden_receipt VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        *(verified.journal, verified.epoch, verified.index, verified.leaf, *shown, now_ms),
    )


async def set_aside(connection: Connection, key: Place, leaf: bytes, *, arrived: Place) -> bool:
    """Take a note out of the place of the entry that its journal tells of there.

    It is borne where it came in, at `arrived`; false where another place was first.
    """
    await connection.execute(
        "INSERT INTO hidden_note VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        *(*key, leaf, *arrived),
    )
    first = await connection.fetchrow(
        "SELECT in_journal, in_epoch, in_index FROM hidden_note"
        " WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4",
        *(*key, leaf),
    )
    await connection.execute(
        "DELETE FROM note WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4",
        *(*key, leaf),
    )
    return tuple(first) == arrived


def comes_home(entry: bytes, receipt: bytes) -> bool:
    """Whether a note's payee is its payer, who need not have kept to the policy."""
    order = decode_note(entry, receipt).order
    return order.payer == order.payee


async def set_resolved(
    connection: Connection, place: tuple[bytes, int], index: int, state: str
) -> None:
    """An early note waits no more. `place`: journal and epoch that it left."""
    await connection.execute(
        "UPDATE note SET state = $4, entry = NULL, receipt = NULL"
        " WHERE journal = $1 AND epoch = $2 AND index = $3",
        *(*place, index, state),
    )
