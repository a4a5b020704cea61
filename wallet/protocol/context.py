"""What the rules ask of their surroundings: facts and checks, never decisions."""

from __future__ import annotations

from typing import Protocol

import msgspec

from wallet.protocol.cose import Sign1
from wallet.protocol.entry import ListUpdate, Note
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, SignedList


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a note comes from, once its receipt is verified; `not_after_s` of its certificate."""

    journal: JournalId
    epoch: int
    index: int
    not_after_s: int


class Refundable(msgspec.Struct, frozen=True, kw_only=True):
    """A payment in this journal that a refund may name."""

    payer: WalletId
    payee: WalletId
    amount_minor: int
    time_ms: int


class Context(Protocol):
    """Checks that need certificates, and facts that the state does not keep.

    The same facts must come from it on the gateway and at the issuer. The checks raise
    ProtocolError with the code of the page.
    """

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """The signature of a wallet. Raises: `bad-signature`."""

    def check_role(self, signed: Sign1, role: str) -> None:
        """The signature of an issuer's role. Raises: `certificate-invalid`, `wrong-role`, ..."""

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """Steps of "Checking a receipt". Raises: ReceiptError, the code of the first failure."""

    def refundable(self, leaf: bytes) -> Refundable | None:
        """The payment with this leaf hash in this journal and epoch, or None."""

    def root_at(self, size: int) -> bytes | None:
        """Root of this journal's tree at a size up to its own, or None where it is not known."""

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """The list that an entry names by its hash, or None where it is not known."""
