"""What the rules ask of their surroundings, answered from a vector file."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from wallet.protocol.certificates import TrustAnchor, check_role_chain
from wallet.protocol.context import Refundable, Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Entry, EntryKind, ListUpdate, Note, Payment
from wallet.protocol.ids import JournalId
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, ListId, SignedList
from wallet.protocol.merkle import Frontier, leaf_hash
from wallet.protocol.messages import Order
from wallet.protocol.money import AMOUNT_MAX
from wallet.protocol.policy import Policy
from wallet.protocol.receipt import Revocations, verify_receipt
from wallet.protocol.refusals import InvariantBroken
from wallet.protocol.state import NEVER, State

_UNSIGNED = Sign1(b"", b"", 0, b"", "", (), b"", b"")


def unlimited_state(journal: bytes, epoch: int, currency: str) -> State:
    """An open journal under a policy without limits."""
    state = State(JournalId(journal), epoch)
    state.opened = True
    state.currency = currency
    state.policy = Policy(
        signed=_UNSIGNED,
        sequence=0,
        valid_from_ms=0,
        valid_until_ms=NEVER,
        currency=currency,
        tiers={},
        journal={},
    )
    state.refresh_deadlines()
    return state


class Surroundings:
    """A `Context` with the issuer's root, and what is known of one journal."""

    def __init__(self, root: TrustAnchor | None) -> None:
        self._root = root
        self.frontier = Frontier()
        self.roots: dict[int, bytes] = {0: self.frontier.root()}
        self.lists: dict[bytes, SignedList] = {}
        self._payments: dict[bytes, Refundable] = {}

    def append(self, entry: Entry) -> None:
        """One more entry of the journal, for its root and for refunds."""
        leaf = leaf_hash(entry.raw)
        self.frontier, _ = self.frontier.append(leaf)
        self.roots[self.frontier.size] = self.frontier.root()
        came = entry.kind in (EntryKind.PAY, EntryKind.TRANSFER_IN)
        if came and isinstance(entry.body, (Payment, Note)):
            order = entry.body.order
            self._payments[leaf] = Refundable(
                payer=order.payer,
                payee=order.payee,
                amount_minor=order.amount_minor,
                time_ms=entry.time_ms,
            )

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """See `Context`."""
        signed.verify(key)

    def check_role(self, signed: Sign1, role: str) -> None:
        """See `Context`."""
        signed.verify(check_role_chain(signed.chain, self._anchor(), role).key)

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """See `Context`."""
        verified = verify_receipt(
            note.receipt,
            note.entry,
            root=self._anchor(),
            grace_s=certificate_grace_s or 0,
            revoked=revocations(lists),
        )
        return Source(
            journal=verified.journal,
            epoch=verified.epoch,
            index=verified.index,
            not_after_s=verified.certificate.not_after_s,
        )

    def refundable(self, leaf: bytes) -> Refundable | None:
        """See `Context`."""
        return self._payments.get(leaf)

    def root_at(self, size: int) -> bytes | None:
        """See `Context`."""
        return self.roots.get(size)

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """See `Context`."""
        return self.lists.get(update.hash)

    def _anchor(self) -> TrustAnchor:
        if self._root is None:
            raise InvariantBroken("there is no issuer here")
        return self._root


class OneOrder(Surroundings):
    """Surroundings in which what a refund names was paid, and was enough."""

    def __init__(self, order: Order | None) -> None:
        super().__init__(None)
        self._order = order

    def refundable(self, leaf: bytes) -> Refundable | None:
        """The payment that this very order refunds."""
        if self._order is None:
            return None
        return Refundable(
            payer=self._order.payee,
            payee=self._order.payer,
            amount_minor=AMOUNT_MAX,
            time_ms=self._order.created_ms,
        )


def revocations(lists: dict[int, Held]) -> Revocations:
    """What the lists held revoke."""
    return Revocations(
        serials=_items(lists, ListId.CERTIFICATES), epochs=_items(lists, ListId.JOURNALS)
    )


def _items(lists: dict[int, Held], list_id: ListId) -> Set[Any]:
    held = lists.get(list_id)
    return frozenset() if held is None else held.items
