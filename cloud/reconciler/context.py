"""The context of the rules at the issuer: facts from PostgreSQL, signatures checked before."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.context import Refundable, Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import ListUpdate, Note
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, SignedList
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.trust import ENDLESS_S, check_note, check_role


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the entries of a segment need beyond the state, fetched for all of them at once.

    `payments`: by leaf hash; those of the segment join it once they are accepted. `roots`: by
    size. `lists`: by hash.
    """

    payments: dict[bytes, Refundable] = {}
    roots: Mapping[int, bytes] = {}
    lists: Mapping[bytes, SignedList] = {}


class IssuerContext:
    """`Context` of the rules. `trusted`: by id of the object, the key its signature holds under."""

    def __init__(
        self, anchor: TrustAnchor, facts: Facts, *, trusted: Mapping[int, PublicKey]
    ) -> None:
        self._anchor = anchor
        self._facts = facts
        self._trusted = trusted

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """Raises: ProtocolError `bad-signature`."""
        if self._trusted.get(id(signed)) is not key:
            signed.verify(key)

    def check_role(self, signed: Sign1, role: str) -> None:
        """Raises: ProtocolError `certificate-invalid`, `wrong-role`, `bad-signature`."""
        check_role(self._anchor, signed, role, held_chains=NO_CHAINS)

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """Raises: ReceiptError."""
        return check_note(
            self._anchor,
            note,
            lists=lists,
            grace_s=certificate_grace_s,
            held_chains=NO_CHAINS,
        )

    def refundable(self, leaf: bytes) -> Refundable | None:
        """The payment that was fetched for this segment."""
        return self._facts.payments.get(leaf)

    def root_at(self, size: int) -> bytes | None:
        """The root that was fetched for this segment."""
        return self._facts.roots.get(size)

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """The list that was fetched for this segment."""
        return self._facts.lists.get(update.hash)


class ReplayContext(IssuerContext):
    """For entries that were accepted before: nothing about them is checked again."""

    def __init__(self, anchor: TrustAnchor, facts: Facts) -> None:
        super().__init__(anchor, facts, trusted={})

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """Checked when the entry was accepted."""

    def check_role(self, signed: Sign1, role: str) -> None:
        """Likewise."""

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """What the receipt said is what the order says."""
        order = note.order
        return Source(
            journal=order.payer_journal,
            epoch=order.payer_epoch,
            index=note.index,
            not_after_s=ENDLESS_S,
        )
