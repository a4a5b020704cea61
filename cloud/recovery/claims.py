"""What holders claim of an epoch that was closed: receipts of entries that its journal never told.

They come with the reports of other gateways (`up` item 9), or are handed in at the issuer; some are
of entries that the journal hides behind others. A note that was redeemed before its parent was
known is a claim as well, and so is what a suspended journal told after the entry for which it was
suspended.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.ledger.accounts import Account, between, suspense
from cloud.reconciler import collected
from cloud.reconciler.collected import Received
from cloud.reconciler.stored import held_leaf
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, decode_entry
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.refusals import ProtocolError

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""
# Claims that are read and judged at a time: a closed epoch may have any number of them.
PAGE = 2_000


class Outcome(enum.StrEnum):
    """What became of a receipt that was handed in."""

    TAKEN = "taken"
    KNOWN = "known"
    INVALID = "invalid"
    LATE = "late"


class Redeemed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a note came in whose own journal has not told of it.

    `in_shard`: None where that is the shard of its own journal.
    """

    in_journal: bytes
    in_epoch: int
    in_index: int
    amount: int
    currency: str
    in_shard: int | None

    def waiting(self, source: str) -> Account:
        """What lacks its value: where it came in, or the way there. `source`: its journal."""
        if self.in_shard is not None:
            return between(self.in_shard, source, currency=self.currency)
        return suspense(journal_text(JournalId(self.in_journal)), currency=self.currency)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that is claimed. `redeemed`: a note that came in elsewhere already.

    `receipt` is None of what the journal told itself.
    """

    index: int
    leaf: bytes
    entry: Entry
    receipt: bytes | None
    redeemed: Redeemed | None = None

    def convicts_with(self, other: Claim) -> bool:
        """Whether the two are receipts for two entries at one index."""
        return self.index == other.index and None not in (self.receipt, other.receipt)


# ---- handing in -----------------------------------------------------------------------------


async def read(anchor: TrustAnchor, transfers: Sequence[Transfer]) -> list[Received | None]:
    """The receipts as officers and holders bring them; None for what proves nothing."""
    return await asyncio.to_thread(lambda: [_received(anchor, item) for item in transfers])


async def hand_in(
    connection: Connection,
    anchor: TrustAnchor,
    received: Sequence[Received],
    *,
    now_ms: int,
) -> list[Outcome]:
    """Take receipts of journals that live in this database; an answer for each.

    Each is judged like one that a gateway collected: against its journal, if that has told. What
    comes after the statement is kept as well: as evidence, and as what may be paid late.
    """
    if not received:
        return []
    # Whoever signs the statement has locked these rows: a claim is in it, or is late.
    rows = await connection.fetch(
        "SELECT journal, epoch, epoch_id, size, stated_ms FROM journal_epoch"
        " WHERE (journal, epoch) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[])) ORDER BY epoch_id FOR SHARE",
        *([item.verified.journal for item in received], [item.verified.epoch for item in received]),
    )
    places = {(row["journal"], row["epoch"]): row for row in rows}
    known = await _known(connection, received) | await _told(connection, received, places)
    outcomes = [_outcome(item, places, known) for item in received]
    await collected.keep(connection, anchor, received, now_ms=now_ms)
    return outcomes


def _received(anchor: TrustAnchor, transfer: Transfer) -> Received | None:
    """The receipt, if it holds and its entry can be read."""
    try:
        decode_entry(transfer[0])
    except ProtocolError:
        return None
    return collected.received(anchor, transfer)


Named = tuple[bytes, int, int, bytes]
"""Journal, epoch, index and leaf."""


async def _known(connection: Connection, received: Sequence[Received]) -> set[Named]:
    """What was handed in before."""
    rows = await connection.fetch(
        "SELECT journal, epoch, index, leaf FROM (SELECT journal, epoch, index, leaf"
        "  FROM collected_receipt UNION ALL SELECT journal, epoch, index, leaf FROM hidden_receipt"
        " ) AS kept WHERE (journal, epoch, index, leaf) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]))",
        [item.verified.journal for item in received],
        [item.verified.epoch for item in received],
        [item.verified.index for item in received],
        [item.verified.leaf for item in received],
    )
    return {tuple(row) for row in rows}


Places = Mapping[tuple[bytes, int], Any]
"""Rows of `journal_epoch` by journal and epoch."""


def _is_below(item: Received, places: Places) -> bool:
    """Whether the journal has told of the receipt's index."""
    row = places.get((item.verified.journal, item.verified.epoch))
    return row is not None and item.verified.index < row["size"]


async def _told(connection: Connection, received: Sequence[Received], places: Places) -> set[Named]:
    """Those whose entries their journals tell of."""
    found: set[Named] = set()
    for item in received:
        said = item.verified
        if _is_below(item, places):
            epoch_id = places[(said.journal, said.epoch)]["epoch_id"]
            if await held_leaf(connection, epoch_id, said.index) == said.leaf:
                found.add((said.journal, said.epoch, said.index, said.leaf))
    return found


def _outcome(item: Received, places: Places, known: set[Named]) -> Outcome:
    """What becomes of it; from now on it is known."""
    said = item.verified
    row = places.get((said.journal, said.epoch))
    named = (said.journal, said.epoch, said.index, said.leaf)
    if named in known:
        return Outcome.KNOWN
    known.add(named)
    return Outcome.TAKEN if row is None or row["stated_ms"] is None else Outcome.LATE


# ---- reading --------------------------------------------------------------------------------

# All claims on an epoch, each once, however often it came. The entry for which the journal was
# suspended is judged already, and its payee paid: what it told comes from the one after it on.
# $1 epoch_id, $2 applied, $3 journal, $4 epoch, $5 size.
CLAIMED = """
    WITH told AS (
        SELECT first + position - 1 AS index, entry FROM journal_segment,
            LATERAL unnest(entries) WITH ORDINALITY AS part (entry, position)
        WHERE epoch_id = $1 AND size > $2::bigint + 1 AND first + position - 1 > $2::bigint
    ), given AS (
        SELECT index, sha256('\\x00'::bytea || entry) AS leaf, entry, NULL::bytea AS receipt,
            NULL::bytea AS in_journal, NULL::bigint AS in_epoch, NULL::bigint AS in_index,
            NULL::bigint AS amount, NULL AS currency, NULL::smallint AS in_shard FROM told
        UNION ALL SELECT index, leaf, entry, receipt, NULL, NULL, NULL, NULL, NULL, NULL
        FROM collected_receipt WHERE journal = $3 AND epoch = $4 AND index >= $5
        UNION ALL SELECT index, leaf, entry, receipt, NULL, NULL, NULL, NULL, NULL, NULL
        FROM hidden_receipt WHERE journal = $3 AND epoch = $4
        UNION ALL SELECT index, leaf, entry, receipt, in_journal, in_epoch, in_index, amount,
            currency, in_shard FROM note WHERE journal = $3 AND epoch = $4 AND state = 'early'
    ), claimed AS (
        SELECT DISTINCT ON (index, leaf) * FROM given
        ORDER BY index, leaf, in_journal NULLS LAST, receipt NULLS LAST
    )
"""


def place_of(epoch_row: Any) -> tuple[Any, ...]:
    """What `CLAIMED` asks for, of a row of `journal_epoch`."""
    names = ("epoch_id", "applied", "journal", "epoch", "size")
    return tuple(epoch_row[name] for name in names)


async def claims_of(connection: Connection, epoch_row: Any) -> AsyncIterator[list[Claim]]:
    """All claims on an epoch in the order of their indexes, a page at a time.

    `epoch_row`: epoch_id, journal, epoch, size and applied of `journal_epoch`.
    """
    await connection.execute(
        "SELECT FROM note WHERE journal = $1 AND epoch = $2 AND state = 'early'"
        " ORDER BY index FOR UPDATE",
        *(epoch_row["journal"], epoch_row["epoch"]),
    )
    # Of two notes at one index, the one that was redeemed comes first.
    cursor = await connection.cursor(
        f"{CLAIMED} SELECT * FROM claimed ORDER BY index, in_journal IS NULL, leaf",
        *place_of(epoch_row),
    )
    while rows := await cursor.fetch(PAGE):
        yield await asyncio.to_thread(_claims, rows)


def _claims(rows: Sequence[Any]) -> list[Claim]:
    """Claims of rows; what cannot be read claims nothing."""
    found = []
    for row in rows:
        try:
            entry = decode_entry(row["entry"])
        except ProtocolError:
            continue
        found.append(
            Claim(
                index=row["index"],
                leaf=row["leaf"],
                entry=entry,
                receipt=row["receipt"],
                redeemed=_redeemed(row),
            )
        )
    return found


def _redeemed(row: Any) -> Redeemed | None:
    if row["in_journal"] is None:
        return None
    return Redeemed(**{name: row[name] for name in Redeemed.__struct_fields__})
