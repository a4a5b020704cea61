"""The end of an epoch, in the database where its journal lives."""

from __future__ import annotations

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.reconciler.hidden import epoch_of
from cloud.reconciler.replica import open_epoch
from wallet.protocol.entry import EntryKind

# An entry begins with a map of five and its kind.
_CLOSE_LEAD = bytes((0xA5, 0x01, EntryKind.CLOSE))
_SETTLEMENT_LEAD = bytes((0xA5, 0x01, EntryKind.SETTLEMENT))


async def end_epoch(connection: Connection, place: tuple[bytes, int], *, now_ms: int) -> int:
    """Nothing more is taken from the journal in this epoch; a row is made where it never told.

    `place`: journal and epoch. Answers the number of the row. Raises: IssuerError `draft-conflict`.
    """
    epoch_id = await open_epoch(connection, journal=place[0], epoch=place[1], now_ms=now_ms)
    if epoch_id is None:
        raise IssuerError("draft-conflict", "a later epoch of this journal is open")
    # What a journal was suspended for stays in its evidence.
    await connection.execute(
        "UPDATE journal_epoch SET state = 'closed', reason = NULL, changed_ms = $2"
        " WHERE epoch_id = $1",
        *(epoch_id, now_ms),
    )
    return epoch_id


async def ended_itself(connection: Connection, epoch_id: int) -> bool:
    """Whether the journal's `close` is among what it told: settlements alone may follow it."""
    end = None
    while True:
        row = await connection.fetchrow(
            "SELECT first, entries FROM journal_segment WHERE epoch_id = $1"
            " AND ($2::bigint IS NULL OR first < $2) ORDER BY first DESC LIMIT 1",
            *(epoch_id, end),
        )
        if row is None:
            return False
        leads = [bytes(entry[: len(_CLOSE_LEAD)]) for entry in row["entries"]]
        others = [lead for lead in leads if lead != _SETTLEMENT_LEAD]
        if others:
            return others[-1] == _CLOSE_LEAD
        end = row["first"]


async def has_ended(connection: Connection, place: tuple[bytes, int]) -> bool:
    """The same by the journal and epoch, of which nothing may have been told."""
    epoch_id = await connection.fetchval(
        "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2", *place
    )
    return epoch_id is not None and await ended_itself(connection, epoch_id)


async def end_again(connection: Connection, place: tuple[bytes, int], *, now_ms: int) -> None:
    """As `end_epoch`, of one that was over before: a later epoch may be there already."""
    await epoch_of(connection, (*place, 0), now_ms=now_ms)
    await connection.execute(
        "UPDATE journal_epoch SET state = 'closed', reason = NULL, changed_ms = $3"
        " WHERE journal = $1 AND epoch = $2",
        *(*place, now_ms),
    )


async def last_expiry(connection: Connection, place: tuple[bytes, int]) -> int | None:
    """When the last order of a note on its way from an epoch expires; None where none is."""
    found: int | None = await connection.fetchval(
        "SELECT max(expires_ms) FROM note WHERE journal = $1 AND epoch = $2"
        " AND state IN ('out', 'early')",
        *place,
    )
    return found
