"""What a party checks with the issuer's root and the lists that it holds: roles, notes, revocation.

The gateway and the issuer ask the same of both, so the checks stand here once.
"""

from __future__ import annotations

from collections.abc import Mapping

from wallet.protocol.certificates import TrustAnchor, check_role_chain
from wallet.protocol.context import Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Note
from wallet.protocol.lists import Held, ListId
from wallet.protocol.receipt import Revocations, verify_receipt
from wallet.protocol.refusals import Code, ProtocolError

# A limit that a policy leaves out is no limit: longer than any certificate lives.
ENDLESS_S = 2**40


def check_role(
    anchor: TrustAnchor,
    signed: Sign1,
    role: str,
    *,
    held_chains: Mapping[bytes, tuple[bytes, ...]],
) -> None:
    """That the issuer's role signed this.

    Raises: ProtocolError `certificate-invalid`, `wrong-role`, `bad-signature`.
    """
    chain = signed.chain or held_chains.get(signed.key_id, ())
    if not chain:
        raise ProtocolError(Code.CERTIFICATE_INVALID, "no certificate of its signer is held")
    signed.verify(check_role_chain(chain, anchor, role).key)


def check_note(
    anchor: TrustAnchor,
    note: Note,
    *,
    lists: Mapping[int, Held],
    grace_s: int | None,
    held_chains: Mapping[bytes, tuple[bytes, ...]],
) -> Source:
    """A note's receipt, judged with the lists held. Raises: ReceiptError."""
    verified = verify_receipt(
        note.receipt,
        note.entry,
        root=anchor,
        grace_s=ENDLESS_S if grace_s is None else grace_s,
        revoked=revocations(lists),
        held_chains=held_chains,
    )
    return Source(
        journal=verified.journal,
        epoch=verified.epoch,
        index=verified.index,
        not_after_s=verified.certificate.not_after_s,
    )


def revocations(lists: Mapping[int, Held]) -> Revocations:
    """Certificates and journal epochs that the newest lists revoke."""
    journals = lists.get(ListId.JOURNALS)
    certificates = lists.get(ListId.CERTIFICATES)
    return Revocations(
        serials=frozenset() if certificates is None else certificates.items,
        epochs=frozenset() if journals is None else journals.items,
    )
