"""Entries of a closed epoch that officers rejected: where what they brought goes to."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from cloud.database import Connection
from wallet.protocol.entry import Note, Payment, decode_entry
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order
from wallet.protocol.refusals import Code


class Origin(enum.StrEnum):
    """Where a rejected entry's value came from, and goes back to.

    `here`: the payer's wallet in this journal. `online`: a payer elsewhere, whose journal goes on
    as it is. `loss`: the issuer, which paid because the payer had the note back already, or because
    the payer's journal hides it.
    """

    HERE = "here"
    ONLINE = "online"
    LOSS = "loss"


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that brought value to a wallet of its journal."""

    index: int
    order: Order
    origin: Origin


async def rejected_in(connection: Connection, row: Any) -> list[Rejected]:
    """Entries of an epoch that officers rejected, in their order.

    `row`: epoch_id and applied of `journal_epoch`. Notes that had been redeemed before are rejected
    by nobody's decision: they were paid from the loss account, and convict.
    """
    rows = await connection.fetch(
        "SELECT decided.index, entry FROM verdict AS decided CROSS JOIN LATERAL"
        " (SELECT entries[decided.index - first + 1] AS entry FROM journal_segment"
        "  WHERE journal_segment.epoch_id = decided.epoch_id AND first <= decided.index"
        "  ORDER BY first DESC LIMIT 1) AS told"
        " WHERE epoch_id = $1 AND index < $2 AND state = 'rejected' AND code <> $3"
        " ORDER BY decided.index",
        *(row["epoch_id"], row["applied"], str(Code.NOTE_REDEEMED)),
    )
    found = []
    for told in rows:
        body = decode_entry(told["entry"]).body
        assert isinstance(body, Payment | Note)  # nothing else is rejected
        origin = await _origin(connection, body) if isinstance(body, Note) else Origin.HERE
        found.append(Rejected(index=told["index"], order=body.order, origin=origin))
    return found


async def _origin(connection: Connection, note: Note) -> Origin:
    borne = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM note WHERE state = 'compensated'"
        "  AND (journal, epoch, index, leaf) = ($1, $2, $3, $4)) OR EXISTS (SELECT FROM hidden_note"
        "  WHERE (journal, epoch, index, leaf) = ($1, $2, $3, $4))",
        *(note.order.payer_journal, note.order.payer_epoch, note.index, leaf_hash(note.entry)),
    )
    return Origin.LOSS if borne else Origin.ONLINE
