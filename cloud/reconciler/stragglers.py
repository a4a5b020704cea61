"""Notes and receipts that crossed the report of their own journal on the way.

A journal that tells of an entry looks for what came in before, and what comes in looks at what the
journal has told. Two transactions at once may each miss the other: neither waits for the other,
because two journals often tell of each other's notes. So upkeep looks again.
"""

from __future__ import annotations

from typing import Any

from cloud.database import Connection, Database
from cloud.reconciler import collected, hidden, notes
from cloud.reconciler.evidence import suspend
from cloud.reconciler.postings import Batch, borne_note
from cloud.reconciler.stored import held_entry, held_leaf
from cloud.shards.messages import send_from_here
from wallet.protocol.certificates import TrustAnchor

PAGE = 500
_NOTES = (
    "SELECT note.*, epoch_id, applied FROM note JOIN journal_epoch USING (journal, epoch)"
    " WHERE note.state = 'early' AND stated_ms IS NULL AND index < size"
    " AND (journal, epoch, index) > ($1, $2, $3)"
    " ORDER BY journal, epoch, index LIMIT $4 FOR UPDATE OF note"
)
_RECEIPTS = (
    "SELECT journal, epoch, index, leaf, entry, receipt, epoch_id, made.size"
    " FROM collected_receipt JOIN journal_epoch AS made USING (journal, epoch)"
    " WHERE index < made.size AND (journal, epoch, index, leaf) > ($1, $2, $3, $4)"
    " ORDER BY journal, epoch, index, leaf LIMIT $5"
)


async def sweep(database: Database, anchor: TrustAnchor, *, now_ms: int, page: int = PAGE) -> None:
    """Match what crossed. Raises: DatabaseError, LedgerError."""
    place: tuple[Any, ...] | None = (b"", 0, 0)
    while place is not None:
        async with database.transaction() as connection:
            place = await _sweep_notes(connection, anchor, place, now_ms=now_ms, page=page)
    after: tuple[Any, ...] | None = (b"", 0, 0, b"")
    while after is not None:
        async with database.transaction() as connection:
            after = await _sweep_receipts(connection, anchor, after, now_ms=now_ms, page=page)


async def _sweep_notes(
    connection: Connection,
    anchor: TrustAnchor,
    after: tuple[Any, ...],
    *,
    now_ms: int,
    page: int,
) -> tuple[Any, ...] | None:
    """A page of early notes whose journals have told of their places; where the next one begins."""
    rows = await connection.fetch(_NOTES, *after, page)
    for row in rows:
        await _match(connection, anchor, row, now_ms=now_ms)
    return None if len(rows) < page else (rows[-1]["journal"], rows[-1]["epoch"], rows[-1]["index"])


async def _match(connection: Connection, anchor: TrustAnchor, row: Any, *, now_ms: int) -> None:
    index = row["index"]
    if await held_leaf(connection, row["epoch_id"], index) != row["leaf"]:
        held = await held_entry(connection, row["epoch_id"], index)
        assert held is not None  # the journal has told of it
        shown = row["entry"], row["receipt"]
        found = hidden.entry(anchor, shown, held, index=index)
        await suspend(connection, row["epoch_id"], found, now_ms=now_ms)
        key = (row["journal"], row["epoch"], index)
        arrived = (row["in_journal"], row["in_epoch"], row["in_index"])
        await hidden.set_aside(connection, key, row["leaf"], arrived=arrived)
    elif index != row["applied"] or hidden.comes_home(row["entry"], row["receipt"]):
        # Behind an entry that was refused it waits for a person, with its journal. Before one it
        # was accepted, and a note that is accepted never misses its arrival: both insert its row.
        return
    else:
        place = (row["journal"], row["epoch"])
        await hidden.set_resolved(connection, place, index, "compensated")
    await _bear(connection, row, now_ms=now_ms)


async def _bear(connection: Connection, row: Any, *, now_ms: int) -> None:
    """The payee kept to the policy: the issuer pays."""
    place, batch = (row["journal"], row["epoch"]), Batch()
    borne = [(borne_note(row["currency"]), row)]
    told = await notes.resolve(connection, place, borne, batch, now_ms=now_ms)
    await send_from_here(connection, told, now_ms=now_ms)
    await batch.post(connection, currency=row["currency"], now_ms=now_ms)


async def _sweep_receipts(
    connection: Connection,
    anchor: TrustAnchor,
    after: tuple[Any, ...],
    *,
    now_ms: int,
    page: int,
) -> tuple[Any, ...] | None:
    """A page of receipts whose journals have told of their places; where the next one begins."""
    rows = await connection.fetch(_RECEIPTS, *after, page)
    for row in rows:
        await collected.compare_again(connection, anchor, row, now_ms=now_ms)
    if len(rows) < page:
        return None
    return tuple(rows[-1][name] for name in ("journal", "epoch", "index", "leaf"))
