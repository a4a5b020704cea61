"""The context of the rules on a gateway or a device: certificates, and facts fetched before."""

from __future__ import annotations

import msgspec

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.context import Refundable, Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import ListUpdate, Note
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, SignedList
from wallet.protocol.trust import check_note, check_role


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one proposal needs beyond the state, fetched before it is decided.

    `trusted`: signatures that were checked under the enrolled key already.
    """

    trusted: tuple[Sign1, ...] = ()
    refundable: Refundable | None = None
    root: bytes | None = None
    listed: SignedList | None = None


NO_FACTS = Facts()


class TrustContext:
    """`Context` of the rules over the issuer's root. Set `facts` before each decision."""

    def __init__(self, anchor: TrustAnchor) -> None:
        self.anchor = anchor
        self.facts = NO_FACTS
        # Chains by key id, for objects that leave theirs out.
        self.chains: dict[bytes, tuple[bytes, ...]] = {}

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """Raises: ProtocolError `bad-signature`."""
        for trusted in self.facts.trusted:
            if trusted is signed:
                return
        signed.verify(key)

    def check_role(self, signed: Sign1, role: str) -> None:
        """Raises: ProtocolError `certificate-invalid`, `wrong-role`, `bad-signature`."""
        check_role(self.anchor, signed, role, held_chains=self.chains)

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """Raises: ReceiptError."""
        return check_note(
            self.anchor,
            note,
            lists=lists,
            grace_s=certificate_grace_s,
            held_chains=self.chains,
        )

    def refundable(self, leaf: bytes) -> Refundable | None:
        """The payment that was fetched for this proposal."""
        return self.facts.refundable

    def root_at(self, size: int) -> bytes | None:
        """The root that was fetched for this proposal."""
        return self.facts.root

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """The list that was fetched for this proposal."""
        return self.facts.listed
