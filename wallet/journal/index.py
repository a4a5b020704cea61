"""Finding entries by name: an order's identity, a payment's id, a request, a reference, a wallet.

What is newer than the last flush is found in memory, the rest in the store's projection, which
takes these names in bulk (see wallet.store.names).
"""

from __future__ import annotations

import hashlib

from wallet.protocol.entry import Entry, Note, Payment, Void
from wallet.protocol.issued import Enrolment, Grant
from wallet.store.connection import Connection
from wallet.store.names import PREFIX_BYTES, find_names, index_key, wallet_entries

_NO_ONE: tuple[int, ...] = ()


def prefix_of(name: bytes) -> int:
    """The number under which a name of 32 bytes is filed."""
    return int.from_bytes(name[:8], "big")


def reference_name(reference: str) -> bytes:
    """The name of a reference: its hash, apart from all identities."""
    return hashlib.sha256(b"reference\x00" + reference.encode()).digest()


class Recent:
    """Names of the entries since the last flush, and their records as the store keeps them."""

    def __init__(self) -> None:
        self.names: dict[bytes, tuple[int, ...]] = {}
        self.wallets: dict[bytes, list[int]] = {}
        self.name_records: list[bytes] = []
        self.wallet_records: list[bytes] = []
        self.entries = 0

    def add_payment(
        self,
        index: int,
        names: tuple[bytes, ...],
        wallets: tuple[bytes, ...],
    ) -> None:
        """File one entry under its names and its wallets."""
        key = index_key(index)
        for name in names:
            prefix = name[:PREFIX_BYTES]
            self.names[prefix] = (*self.names.get(prefix, _NO_ONE), index)
            self.name_records.append(prefix + key)
        for wallet in wallets:
            self.wallets.setdefault(wallet, []).append(index)
            self.wallet_records.append(wallet + key)
        self.entries += 1

    def find(self, name: bytes) -> tuple[int, ...]:
        """Entries that may bear this name, oldest first."""
        return self.names.get(name[:PREFIX_BYTES], _NO_ONE)

    def of_wallet(self, wallet: bytes, *, before: int, limit: int) -> list[int]:
        """Newest entries of a wallet below `before`, newest first."""
        found: list[int] = []
        for index in reversed(self.wallets.get(wallet, [])):
            if index < before:
                found.append(index)
            if len(found) == limit:
                break
        return found

    def append(self, newer: Recent) -> None:
        """Take what was filed after this."""
        for prefix, found in newer.names.items():
            self.names[prefix] = (*self.names.get(prefix, _NO_ONE), *found)
        for wallet, indexes in newer.wallets.items():
            self.wallets.setdefault(wallet, []).extend(indexes)
        self.name_records += newer.name_records
        self.wallet_records += newer.wallet_records
        self.entries += newer.entries


def stored_names(connection: Connection, name: bytes) -> list[int]:
    """Entries that may bear this name, from the store."""
    return find_names(connection, prefix_of(name))


def stored_wallet_entries(
    connection: Connection, wallet: bytes, *, before: int, limit: int
) -> list[int]:
    """Entries of a wallet from the store, newest first."""
    return wallet_entries(connection, wallet, before, limit)


def names_of(entry: Entry, leaf: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(names, wallets) under which an entry is filed."""
    body = entry.body
    if isinstance(body, Payment):
        return payment_names(body, leaf), payment_wallets(body)
    if isinstance(body, Note):
        identity = body.order.identity
        names = (
            (leaf, identity) if body.request is None else (leaf, identity, body.request.identity)
        )
        return names, (body.order.payee,)
    if isinstance(body, Grant | Enrolment):
        return (leaf,), (body.wallet,)
    if isinstance(body, Void):
        return (leaf, body.request.identity), (body.request.payee,)
    return (leaf,), ()


def payment_names(payment: Payment, leaf: bytes) -> tuple[bytes, ...]:
    """Names of a payment: its id, the order's identity, the request's, the reference."""
    order = payment.order
    names: tuple[bytes, ...] = (leaf, order.identity)
    if payment.request is not None:
        names = (*names, payment.request.identity)
    if order.reference is not None:
        names = (*names, reference_name(order.reference))
    return names


def payment_wallets(payment: Payment) -> tuple[bytes, ...]:
    """Wallets of a payment; a payee of another journal has no statement here."""
    order = payment.order
    if order.payee == order.payer or order.payee_journal != order.payer_journal:
        return (order.payer,)
    return (order.payer, order.payee)


def bears(entry: Entry, leaf: bytes, name: bytes) -> bool:
    """Whether the entry really has this name: prefixes may collide."""
    return name in names_of(entry, leaf)[0]
