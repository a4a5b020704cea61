"""What holders claim of an epoch that was closed: receipts of entries that its journal never told.

They come with the reports of other gateways (`up` item 9), or are handed in at the issuer. A note
that was redeemed before its parent was known is a claim as well, and so is what a suspended journal
told after the entry for which it was suspended.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.reconciler import collected
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, decode_entry
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.receipt import NOTHING_REVOKED, VerifiedReceipt, verify_receipt
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""


class Outcome(enum.StrEnum):
    """What became of a receipt that was handed in."""

    TAKEN = "taken"
    KNOWN = "known"
    INVALID = "invalid"
    LATE = "late"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that is claimed. `redeemed`: the row of a note that came in elsewhere already.

    `receipt` is None of what the journal told itself.
    """

    index: int
    leaf: bytes
    entry: Entry
    receipt: bytes | None
    redeemed: Any = None


async def hand_in(
    connection: Connection, anchor: TrustAnchor, transfers: Sequence[Transfer], *, now_ms: int
) -> list[Outcome]:
    """Take receipts of any journals, as officers and holders bring them; an answer for each.

    Each is judged like one that a gateway collected: against its journal, if that has told.
    """
    return [await _hand_in(connection, anchor, transfer, now_ms=now_ms) for transfer in transfers]


async def _hand_in(
    connection: Connection, anchor: TrustAnchor, transfer: Transfer, *, now_ms: int
) -> Outcome:
    entry, receipt = transfer
    try:
        verified = verify_receipt(
            receipt, entry, root=anchor, grace_s=ENDLESS_S, revoked=NOTHING_REVOKED
        )
        decode_entry(entry)
    except ProtocolError:
        return Outcome.INVALID
    # Whoever signs the statement has locked this row: a claim is in it, or is late.
    row = await connection.fetchrow(
        "SELECT size, stated_ms FROM journal_epoch WHERE journal = $1 AND epoch = $2 FOR SHARE",
        *(verified.journal, verified.epoch),
    )
    is_told = row is not None and verified.index < row["size"]
    known = is_told or await _is_known(connection, verified)
    if not known and row is not None and row["stated_ms"] is not None:
        return Outcome.LATE
    await collected.take(connection, anchor, [transfer], now_ms=now_ms)
    return Outcome.KNOWN if known else Outcome.TAKEN


async def _is_known(connection: Connection, verified: VerifiedReceipt) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM collected_receipt"
        " WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4)",
        *(verified.journal, verified.epoch, verified.index, verified.leaf),
    )
    return found


async def claims_of(connection: Connection, epoch_row: Any) -> list[Claim]:
    """All claims on an epoch in the order of their indexes, each once, however often it came.

    `epoch_row`: epoch_id, journal, epoch, size and applied of `journal_epoch`.
    """
    place = (epoch_row["journal"], epoch_row["epoch"])
    found: dict[bytes, Claim] = {}
    # The entry for which the journal was suspended is judged already, and its payee paid.
    for row in await connection.fetch(
        "SELECT index, entry, NULL AS receipt FROM journal_entry"
        " WHERE epoch_id = $1 AND index > $2",
        *(epoch_row["epoch_id"], epoch_row["applied"]),
    ):
        _add(found, row)
    for row in await connection.fetch(
        "SELECT index, entry, receipt FROM collected_receipt"
        " WHERE journal = $1 AND epoch = $2 AND index >= $3",
        *(*place, epoch_row["size"]),
    ):
        _add(found, row)
    for row in await connection.fetch(
        "SELECT * FROM note WHERE journal = $1 AND epoch = $2 AND state = 'early' FOR UPDATE",
        *place,
    ):
        _add(found, row, redeemed=row)
    # Of two notes at one index, the one that was redeemed comes first.
    return sorted(
        found.values(), key=lambda claim: (claim.index, claim.redeemed is None, claim.leaf)
    )


def _add(found: dict[bytes, Claim], row: Any, *, redeemed: Any = None) -> None:
    """One claim; what cannot be read claims nothing."""
    raw = row["entry"]
    try:
        entry = decode_entry(raw)
    except ProtocolError:
        return
    leaf = leaf_hash(raw)
    found[leaf] = Claim(
        index=row["index"], leaf=leaf, entry=entry, receipt=row["receipt"], redeemed=redeemed
    )
