"""Checking receipts and checkpoints with the issuer's root alone.

The numbers of the steps are those of protocol.md, "Checking a receipt".
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Set
from typing import NoReturn

import msgspec

from wallet.protocol.certificates import Chain, JournalCertificate, TrustAnchor, journal_chain
from wallet.protocol.checkpoint import (
    PATH_LEAD,
    Checkpoint,
    Receipt,
    ReceiptError,
    ReceiptMaker,
    Step,
    TreeHead,
    assemble_checkpoint,
    assemble_receipt,
    checkpoint_protected,
    checkpoint_signed_bytes,
    decode_checkpoint,
    decode_receipt,
)
from wallet.protocol.codec import decode
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.keys import PublicKey
from wallet.protocol.merkle import leaf_hash, verify_inclusion
from wallet.protocol.refusals import Code, ProtocolError

__all__ = [
    "NOTHING_REVOKED",
    "NO_CHAINS",
    "PATH_LEAD",
    "Checkpoint",
    "Receipt",
    "ReceiptError",
    "ReceiptMaker",
    "Revocations",
    "TreeHead",
    "VerifiedCheckpoint",
    "VerifiedReceipt",
    "assemble_checkpoint",
    "assemble_receipt",
    "checkpoint_protected",
    "checkpoint_signed_bytes",
    "decode_checkpoint",
    "decode_receipt",
    "verify_checkpoint",
    "verify_receipt",
]

ENTRY_BYTES_MAX = 64 * 1024 * 1024
NO_CHAINS: Mapping[bytes, Chain] = types.MappingProxyType({})


class Revocations(msgspec.Struct, frozen=True, kw_only=True):
    """The newest revocation lists held. `serials` in either form: with or without leading zeroes.

    `epochs`: (journal, epoch).
    """

    serials: Set[bytes] = frozenset()
    epochs: Set[tuple[bytes, int]] = frozenset()

    def __post_init__(self) -> None:
        if any(serial[:1] == b"\x00" for serial in self.serials):
            # DER puts a zero before a serial whose highest bit is set.
            stripped = frozenset([serial.lstrip(b"\x00") for serial in self.serials])
            msgspec.structs.force_setattr(self, "serials", stripped)


NOTHING_REVOKED = Revocations()


class VerifiedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The root that a journal's certified key signed."""

    journal: JournalId
    epoch: int
    size: int
    root: bytes
    counter: int
    issued_s: int
    certificate: JournalCertificate


class VerifiedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that is in a journal. `leaf`: its leaf hash; `root`: the signed root above it."""

    journal: JournalId
    epoch: int
    index: int
    leaf: bytes
    size: int
    root: bytes
    counter: int
    issued_s: int
    certificate: JournalCertificate


def verify_receipt(
    receipt: bytes | Receipt,
    entry: bytes,
    *,
    root: TrustAnchor,
    grace_s: int,
    revoked: Revocations,
    held_chains: Mapping[bytes, Chain] = NO_CHAINS,
) -> VerifiedReceipt:
    """That the entry is in the journal which the receipt names, with no network.

    `held_chains`: by key id, for receipts that leave theirs out. Raises: ReceiptError.
    """
    # 1. Deterministic CBOR, shape, size. 2. No `typ`, header 395 is 1.
    decoded = decode_receipt(receipt) if isinstance(receipt, bytes) else receipt
    tree = decoded.head
    # 3. The chain up to the root, valid at iat; journal, epoch and key id are the claims'.
    certificate = _check_chain(tree, decoded.chain, root, grace_s, held_chains)
    # 4. Neither certificate nor journal epoch is revoked.
    _check_revoked(certificate, revoked)
    # 5. The entry is canonical, its index the proof's; the proof's size is the signed claim.
    with Step(5):
        _check_entry(entry, decoded)
    # 6. The path gives a root; the signature holds over that root.
    with Step(6):
        leaf = leaf_hash(entry)
        made = verify_inclusion(leaf, index=decoded.index, size=decoded.size, path=decoded.path)
        _check_signature(decoded, certificate.key, made)
    return VerifiedReceipt(
        journal=certificate.journal,
        epoch=tree.epoch,
        index=decoded.index,
        leaf=leaf,
        size=tree.size,
        root=made,
        counter=tree.counter,
        issued_s=tree.issued_s,
        certificate=certificate,
    )


def verify_checkpoint(
    checkpoint: bytes | Checkpoint,
    *,
    root: TrustAnchor,
    grace_s: int,
    held_chains: Mapping[bytes, Chain] = NO_CHAINS,
) -> VerifiedCheckpoint:
    """Steps 1 to 3 and the signature; whether it is revoked is the caller's to ask.

    Raises: ReceiptError; a signature that does not hold is `proof-invalid` in step 6.
    """
    decoded = decode_checkpoint(checkpoint) if isinstance(checkpoint, bytes) else checkpoint
    tree = decoded.head
    certificate = _check_chain(tree, decoded.chain, root, grace_s, held_chains)
    with Step(6):
        _check_signature(decoded, certificate.key, decoded.root)
    return VerifiedCheckpoint(
        journal=certificate.journal,
        epoch=tree.epoch,
        size=tree.size,
        root=decoded.root,
        counter=tree.counter,
        issued_s=tree.issued_s,
        certificate=certificate,
    )


def _check_chain(
    tree: TreeHead,
    given: Chain,
    root: TrustAnchor,
    grace_s: int,
    held_chains: Mapping[bytes, Chain],
) -> JournalCertificate:
    with Step(3):
        certificate = journal_chain(given or held_chains.get(tree.key_id, ()), root)
        certificate.check_time(tree.issued_s, grace_s=grace_s)
        if tree.issuer != journal_text(certificate.journal) or tree.epoch != certificate.epoch:
            _raise(Code.CERTIFICATE_INVALID, "certified for another journal or epoch")
        if tree.key_id != certificate.key.key_id:
            _raise(Code.CERTIFICATE_INVALID, "certified for another key")
        return certificate


def _check_revoked(certificate: JournalCertificate, revoked: Revocations) -> None:
    if not revoked.serials.isdisjoint(certificate.serials):
        raise ReceiptError(4, Code.JOURNAL_REVOKED, "a certificate is revoked")
    if (certificate.journal, certificate.epoch) in revoked.epochs:
        raise ReceiptError(4, Code.JOURNAL_REVOKED, "this epoch of the journal is revoked")


def _check_entry(entry: bytes, receipt: Receipt) -> None:
    try:
        fields = decode(entry, bytes_max=ENTRY_BYTES_MAX)
    except ProtocolError as error:
        raise ProtocolError(Code.PROOF_INVALID, f"the entry is {error.code}") from error
    index = fields.get(2) if type(fields) is dict else None
    if type(index) is not int or index != receipt.index:
        _raise(Code.PROOF_INVALID, "the proof is of another index")
    if receipt.size != receipt.head.size or receipt.index >= receipt.size:
        _raise(Code.PROOF_INVALID, "the proof is of another size")


def _check_signature(signed: Receipt | Checkpoint, key: PublicKey, root: bytes) -> None:
    if signed.head.algorithm != key.algorithm:
        _raise(Code.PROOF_INVALID, "another algorithm is named")
    try:
        key.verify(signed.signature, checkpoint_signed_bytes(signed.protected, root))
    except ProtocolError as error:
        raise ProtocolError(Code.PROOF_INVALID, "a wrong path or a wrong signature") from error


def _raise(code: Code, detail: str) -> NoReturn:
    raise ProtocolError(code, detail)
