"""What a report needs of other shards, asked for before its transaction: lists are at the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cloud.database import Connection
from cloud.reconciler import restored
from cloud.reconciler.collected import Received
from cloud.reconciler.facts import lists_named
from cloud.shards.homes import Here
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, ListUpdate, Note
from wallet.protocol.envelope import Up
from wallet.protocol.lists import SignedList


def named(entries: Sequence[Entry], received: Sequence[Received]) -> Iterator[bytes]:
    """Journals that notes and receipts come from."""
    for entry in entries:
        if isinstance(entry.body, Note):
            yield entry.body.order.payer_journal
    for item in received:
        yield item.verified.journal


async def lists_of_head(
    here: Here, anchor: TrustAnchor, up: Up, entries: Sequence[Entry], *, now_ms: int
) -> Mapping[bytes, SignedList] | None:
    """The lists that entries name, where this is not the head; None as `restored.take_lists`.

    Raises: DatabaseError.
    """
    updates = [entry.body for entry in entries if isinstance(entry.body, ListUpdate)]
    if here.head is None or here.is_head or not updates:
        return {}
    async with here.head.transaction() as connection:
        known = await lists_named(connection, updates)
        shown = await restored.take_lists(connection, anchor, up, known, entries, now_ms=now_ms)
    return None if shown is None else {**known, **shown}


async def keep_lists(
    connection: Connection, lists: Mapping[bytes, SignedList], *, now_ms: int
) -> None:
    """Remember here what entries name: a replica is rebuilt without the head."""
    for listed in lists.values():
        await connection.execute(
            "INSERT INTO recovered_list (hash, list_id, sequence, object, found_ms, merged)"
            " VALUES ($1, $2, $3, $4, $5, true) ON CONFLICT DO NOTHING",
            *(listed.hash, listed.list_id, listed.sequence, listed.signed.raw, now_ms),
        )
