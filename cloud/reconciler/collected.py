"""Step 7: receipts that others handed in. A journal that hides an entry is found out by them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.reconciler import forks, hidden
from cloud.reconciler.evidence import Evidence, is_convicted, suspend
from cloud.reconciler.stored import held_entry, held_leaf, held_root, stored_leaves
from cloud.reconciler.values import Segment
from cloud.shards.homes import Here
from cloud.shards.messages import Addressed, Collected, send
from wallet.protocol.breach import breach_pair
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Close
from wallet.protocol.evidence import verify_evidence
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    ReceiptError,
    VerifiedReceipt,
    verify_receipt,
)
from wallet.protocol.refusals import Code, ProtocolError
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


async def check(anchor: TrustAnchor, transfers: Sequence[Transfer]) -> list[Received]:
    """The receipts that hold: one that does not proves nothing and is left out."""
    if not transfers:
        return []
    found = await asyncio.to_thread(lambda: [received(anchor, item) for item in transfers])
    return [item for item in found if item is not None]


async def take(
    connection: Connection,
    anchor: TrustAnchor,
    holding: Sequence[Received],
    here: Here,
    *,
    now_ms: int,
) -> None:
    """Hold each receipt against the journal that it names, or keep it until that journal tells.

    Those of journals that live elsewhere go there.
    """
    if not holding:
        return
    ours = [item for item in holding if here.has(item.verified.journal)]
    if ours:
        await keep(connection, anchor, ours, now_ms=now_ms)
    others = [item for item in holding if not here.has(item.verified.journal)]
    messages = [_forwarded(item, here) for item in others]
    await send(connection, here.number, messages, now_ms=now_ms)


def _forwarded(item: Received, here: Here) -> Addressed:
    entry, receipt = item.transfer
    home = here.homes.of(item.verified.journal)
    return Addressed(target=home, message=Collected(entry=entry, receipt=receipt))


async def keep(
    connection: Connection, anchor: TrustAnchor, holding: Sequence[Received], *, now_ms: int
) -> None:
    """Do what `take` does with receipts of journals that live here."""
    rows = await connection.fetch(
        "SELECT journal, epoch, epoch_id, size, ended FROM journal_epoch WHERE (journal, epoch) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[]))",
        *([item.verified.journal for item in holding], [item.verified.epoch for item in holding]),
    )
    places = {(row["journal"], row["epoch"]): row for row in rows}
    waiting = []
    for item in holding:
        row = places.get((item.verified.journal, item.verified.epoch))
        told = 0 if row is None else row["size"]
        if told > item.verified.index:
            await _compare(connection, anchor, row, item, now_ms=now_ms)
        elif row is not None and row["ended"] is not None:
            await _compare_end(connection, anchor, row, item, now_ms=now_ms)
        if told < item.verified.size:
            waiting.append(item)
    if waiting:
        await _wait(connection, waiting, now_ms=now_ms)


async def _wait(connection: Connection, waiting: Sequence[Received], *, now_ms: int) -> None:
    """Keep receipts until their journals tell all that they are over."""
    await connection.execute(
        "INSERT INTO collected_receipt"
        " (journal, epoch, index, leaf, entry, receipt, size, received_ms)"
        " SELECT *, $8::bigint FROM unnest($1::bytea[], $2::bigint[], $3::bigint[],"
        " $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[]) ON CONFLICT DO NOTHING",
        [item.verified.journal for item in waiting],
        [item.verified.epoch for item in waiting],
        [item.verified.index for item in waiting],
        [item.verified.leaf for item in waiting],
        [item.transfer[0] for item in waiting],
        [item.transfer[1] for item in waiting],
        [item.verified.size for item in waiting],
        now_ms,
    )


async def _compare(
    connection: Connection, anchor: TrustAnchor, row: Any, item: Received, *, now_ms: int
) -> None:
    """The journal has told of this index: of the same entry, in the same tree, or it is convicted.

    `row`: epoch_id and size of its epoch.
    """
    said, epoch_id = item.verified, row["epoch_id"]
    if await held_leaf(connection, epoch_id, said.index) != said.leaf:
        await _convict_entry(connection, anchor, epoch_id, item, now_ms=now_ms)
    elif said.size <= row["size"] and await held_root(connection, epoch_id, said.size) != said.root:
        await _convict_root(connection, anchor, epoch_id, item, now_ms=now_ms)


async def compare_again(
    connection: Connection, anchor: TrustAnchor, row: Any, *, now_ms: int
) -> None:
    """A receipt that was kept while its journal told of its place.

    `row`: epoch_id and size of its epoch, and the row of the receipt.
    """
    item = _known(anchor, row)
    await _compare(connection, anchor, row, item, now_ms=now_ms)
    if item.verified.size <= row["size"]:
        await connection.execute(
            "DELETE FROM collected_receipt"
            " WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4",
            *(row["journal"], row["epoch"], row["index"], row["leaf"]),
        )


async def _compare_end(
    connection: Connection, anchor: TrustAnchor, row: Any, item: Received, *, now_ms: int
) -> None:
    """The journal has told of its end before this index: a settlement may follow, nothing else."""
    end = await held_entry(connection, row["epoch_id"], row["ended"])
    assert end is not None  # the journal has told of it
    proof = breach_pair(end, item.transfer)
    try:
        verify_evidence(proof, root=anchor)
    except ProtocolError:
        return
    found = Evidence(
        kind="hidden-entry", code=Code.WRONG_JOURNAL, index=item.verified.index, parts=(proof,)
    )
    await suspend(connection, row["epoch_id"], found, now_ms=now_ms)


async def check_end(
    connection: Connection, anchor: TrustAnchor, segment: Segment, *, now_ms: int
) -> None:
    """A journal that has ended its epoch: remember where, and look at what was handed in behind."""
    ended = [entry.index for entry in segment.entries if isinstance(entry.body, Close)]
    if not ended:
        return
    await connection.execute(
        "UPDATE journal_epoch SET ended = $2 WHERE epoch_id = $1", segment.epoch_id, ended[0]
    )
    rows = await connection.fetch(
        "SELECT entry, receipt FROM collected_receipt"
        " WHERE journal = $1 AND epoch = $2 AND index >= $3",
        *(segment.journal, segment.epoch, segment.size),
    )
    told = {"epoch_id": segment.epoch_id, "ended": ended[0]}
    for row in rows:
        item = _known(anchor, row)
        await _compare_end(connection, anchor, told, item, now_ms=now_ms)


def _known(anchor: TrustAnchor, row: Any) -> Received:
    """A receipt that was kept."""
    item = received(anchor, (row["entry"], row["receipt"]))
    assert item is not None  # it was checked before it was kept
    return item


async def check_own(
    connection: Connection, anchor: TrustAnchor, segment: Segment, *, now_ms: int
) -> None:
    """Hold what this journal tells now against the receipts that were handed in before."""
    rows = await connection.fetch(
        "SELECT index, leaf, entry, receipt FROM collected_receipt"
        " WHERE journal = $1 AND epoch = $2 AND index < $4"
        " AND (index >= $3 OR size <= $4)",
        *(segment.journal, segment.epoch, segment.first, segment.size),
    )
    if not rows:
        return
    told = {"epoch_id": segment.epoch_id, "size": segment.size}
    for row in rows:
        await _compare(connection, anchor, told, _known(anchor, row), now_ms=now_ms)
    await connection.execute(
        "DELETE FROM collected_receipt WHERE journal = $1 AND epoch = $2 AND index < $3"
        " AND (size IS NULL OR size <= $3)",
        *(segment.journal, segment.epoch, segment.size),
    )


async def _convict_entry(
    connection: Connection, anchor: TrustAnchor, epoch_id: int, item: Received, *, now_ms: int
) -> None:
    """A receipt of an entry that the journal does not tell of."""
    kind, index = "hidden-entry", item.verified.index
    await hidden.keep_receipt(connection, item.verified, item.transfer, now_ms=now_ms)
    if await is_convicted(connection, epoch_id, kind):
        return
    held = await held_entry(connection, epoch_id, index)
    assert held is not None  # the journal has told of this index
    parts = forks.of_index(anchor, item.transfer, held)
    found = Evidence(kind=kind, code=Code.PROOF_INVALID, index=index, parts=parts)
    await suspend(connection, epoch_id, found, now_ms=now_ms)


async def _convict_root(
    connection: Connection, anchor: TrustAnchor, epoch_id: int, item: Received, *, now_ms: int
) -> None:
    """A receipt of an entry that the journal tells of, in a tree that it does not."""
    if await is_convicted(connection, epoch_id, "fork"):
        return
    row = await connection.fetchrow(
        "SELECT size, checkpoint FROM journal_epoch WHERE epoch_id = $1", epoch_id
    )
    leaves = await stored_leaves(connection, epoch_id, end=row["size"])
    given = forks.checkpoint_of(item.transfer[1], item.verified.root)
    parts = forks.of_roots(anchor, given, row["checkpoint"], leaves)
    found = Evidence(kind="fork", code=Code.PROOF_INVALID, index=None, parts=parts)
    await suspend(connection, epoch_id, found, now_ms=now_ms)
