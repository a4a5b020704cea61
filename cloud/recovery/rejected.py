"""Entries of a closed epoch that officers rejected: where what they brought goes to."""

from __future__ import annotations

import enum

import msgspec

from cloud.database import Connection
from cloud.shards.homes import Site
from wallet.protocol.entry import Note, Payment, decode_entry
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order


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


async def rejected_in(site: Site, epoch_id: int) -> list[Rejected]:
    """Entries of an epoch that officers rejected, in their order."""
    decided = await site.head.fetch(
        "SELECT index FROM entry_decision"
        " WHERE epoch_id = $1 AND action = 'reject' AND state = 'approved'",
        epoch_id,
    )
    rows = await site.home.fetch(
        "SELECT decided.index, entry FROM unnest($2::bigint[]) AS decided (index)"
        " CROSS JOIN LATERAL (SELECT entries[decided.index - first + 1] AS entry"
        "  FROM journal_segment WHERE journal_segment.epoch_id = $1 AND first <= decided.index"
        "  ORDER BY first DESC LIMIT 1) AS told ORDER BY decided.index",
        *(epoch_id, [row["index"] for row in decided]),
    )
    found = []
    for row in rows:
        body = decode_entry(row["entry"]).body
        assert isinstance(body, Payment | Note)  # nothing else is rejected
        origin = await _origin(site.home, body) if isinstance(body, Note) else Origin.HERE
        found.append(Rejected(index=row["index"], order=body.order, origin=origin))
    return found


async def _origin(connection: Connection, note: Note) -> Origin:
    borne = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM note WHERE state = 'compensated'"
        "  AND (journal, epoch, index, leaf) = ($1, $2, $3, $4)) OR EXISTS (SELECT FROM hidden_note"
        "  WHERE (journal, epoch, index, leaf) = ($1, $2, $3, $4))",
        *(note.order.payer_journal, note.order.payer_epoch, note.index, leaf_hash(note.entry)),
    )
    return Origin.LOSS if borne else Origin.ONLINE
