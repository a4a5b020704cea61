"""Facts for the rules: refunded payments, lists by hash, roots, fetched for a segment at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from cloud.database import Connection
from cloud.reconciler import leaves as leaves_index
from cloud.reconciler.context import Facts
from cloud.reconciler.stored import stored_leaves
from wallet.protocol.context import Refundable
from wallet.protocol.entry import Entry, ListUpdate, Payment, decode_entry
from wallet.protocol.issued import Settlement, decode_list
from wallet.protocol.lists import SignedList
from wallet.protocol.replaying import refundable_of, roots_at

_ANY_AMOUNT = 2**62


def refunds(entries: Sequence[Entry]) -> bool:
    """Whether any of these entries refunds another."""
    return bool(_refunded(entries))


def asks(entries: Sequence[Entry]) -> bool:
    """Whether the rules need more than the state for these entries."""
    return refunds(entries) or any(
        isinstance(entry.body, ListUpdate | Settlement) for entry in entries
    )


def replay_facts(entries: Sequence[Entry]) -> dict[bytes, Refundable]:
    """Refunded payments as accepted refunds name them: here only their sum is counted."""
    found = {}
    for entry in entries:
        if isinstance(entry.body, Payment) and entry.body.order.refunded is not None:
            order = entry.body.order
            found[order.refunded or b""] = Refundable(
                payer=order.payee,
                payee=order.payer,
                amount_minor=_ANY_AMOUNT,
                time_ms=entry.time_ms,
            )
    return found


def replayed_roots(entries: Sequence[Entry]) -> dict[int, bytes]:
    """Roots as accepted settlements name them."""
    return {e.body.size: e.body.root for e in entries if isinstance(e.body, Settlement)}


async def facts_for(
    connection: Connection,
    epoch_id: int,
    entries: Sequence[Entry],
    *,
    known: Mapping[bytes, Refundable] = MappingProxyType({}),
    roots: Mapping[int, bytes] = MappingProxyType({}),
    leaves: Sequence[bytes] = (),
) -> Facts:
    """What these entries need beyond the state. `leaves`: those of the entries.

    `known` and `roots`: payments and roots that need not be looked for.
    """
    updates = [entry.body for entry in entries if isinstance(entry.body, ListUpdate)]
    sizes = replayed_roots(entries).keys() - roots.keys()
    missing = _refunded(entries) - known.keys()
    payments = dict(known)
    if missing:
        await leaves_index.fill(connection, epoch_id)
    for leaf in missing:
        payment = await find_payment(connection, epoch_id, leaf)
        if payment is not None:
            payments[leaf] = payment
    return Facts(
        payments=payments,
        roots=await _roots(connection, epoch_id, entries, sizes, leaves) if sizes else roots,
        lists=await lists_named(connection, updates),
    )


def _refunded(entries: Sequence[Entry]) -> set[bytes]:
    return {
        entry.body.order.refunded
        for entry in entries
        if isinstance(entry.body, Payment) and entry.body.order.refunded is not None
    }


async def find_payment(connection: Connection, epoch_id: int, leaf: bytes) -> Refundable | None:
    """The payment with this leaf hash."""
    entry = await leaves_index.find_entry(connection, epoch_id, leaf)
    return None if entry is None else refundable_of(decode_entry(entry))


async def _roots(
    connection: Connection,
    epoch_id: int,
    entries: Sequence[Entry],
    sizes: Set[int],
    leaves: Sequence[bytes],
) -> dict[int, bytes]:
    """Roots at sizes for which this issuer signed a settlement: a journal enters no others.

    One that it does not remember was signed after the backup that it was restored from. Its root
    is computed; that the settlement is the issuer's own, the rules see by its signature.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT size, root FROM settlement WHERE epoch_id = $1 AND size = ANY ($2)",
        *(epoch_id, list(sizes)),
    )
    found = {row["size"]: row["root"] for row in rows}
    missing = sizes - found.keys()
    if missing:
        before = await stored_leaves(connection, epoch_id, end=entries[0].index)
        found |= roots_at(missing, [*before, *leaves])
    return found


async def lists_named(
    connection: Connection, updates: Sequence[ListUpdate]
) -> dict[bytes, SignedList]:
    """The lists that entries name, by their hashes, as far as they are known."""
    found = {}
    for update in updates:
        rows = await connection.fetch(
            "SELECT object FROM issued_object WHERE series = $1 AND sequence = $2"
            " UNION ALL SELECT object FROM recovered_list WHERE hash = $3",
            *(f"list/{update.list_id}", update.sequence, update.hash),
        )
        for row in rows:
            listed = decode_list(row["object"])
            found[listed.hash] = listed
    return found
