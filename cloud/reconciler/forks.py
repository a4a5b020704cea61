"""Evidence of forks, made of what the journal signed and what is stored of it.

Each maker gives one part, the proof, where it holds; the bare parts where they prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from wallet.protocol.breach import breach_report
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.checkpoint import (
    assemble_checkpoint,
    assemble_receipt,
    decode_checkpoint,
    decode_receipt,
)
from wallet.protocol.evidence import verify_evidence
from wallet.protocol.fork import fork_counter, fork_extension, fork_index, fork_size
from wallet.protocol.merkle import Batch, Frontier, cover, inclusion_path
from wallet.protocol.refusals import ProtocolError

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""


def of_index(anchor: TrustAnchor, one: Transfer, other: Transfer) -> tuple[bytes, ...]:
    """Two entries at one index, each with its receipt."""
    return _if_proven(anchor, fork_index(one, other), (*one, *other))


def of_counter(known: bytes, given: bytes) -> tuple[bytes, ...]:
    """A counter that fell, from two checkpoints."""
    return (fork_counter(known, given),)


def of_roots(
    anchor: TrustAnchor, smaller: bytes, larger: bytes, leaves: Sequence[bytes]
) -> tuple[bytes, ...]:
    """Two checkpoints of which one does not extend the other; `leaves`: all of the larger tree."""
    size = decode_checkpoint(smaller).head.size
    if size == len(leaves):
        proof = fork_size(smaller, larger)
    else:
        proof = fork_extension(
            smaller,
            larger,
            left=nodes(leaves, 0, size),
            right=nodes(leaves, size, len(leaves)),
        )
    return _if_proven(anchor, proof, (smaller, larger))


def of_report(
    anchor: TrustAnchor,
    envelope: bytes,
    known: bytes | None,
    *,
    before: Sequence[bytes],
    bare: tuple[bytes, ...],
) -> tuple[bytes, ...]:
    """A report whose entries do not give its root. `before`: leaves of what it goes on from;
    `known`: the journal's checkpoint of these, or of the report's first entries as well.
    """
    given = known if before else None
    proof = breach_report(envelope, given, left=nodes(before, 0, len(before)))
    return _if_proven(anchor, proof, bare)


def _if_proven(anchor: TrustAnchor, proof: bytes, bare: tuple[bytes, ...]) -> tuple[bytes, ...]:
    try:
        verify_evidence(proof, root=anchor)
    except ProtocolError:
        return bare
    return (proof,)


def checkpoint_of(receipt: bytes, root: bytes) -> bytes:
    """The checkpoint that a receipt is under: it has the same signature, over the root."""
    decoded = decode_receipt(receipt)
    return assemble_checkpoint(
        decoded.protected, decoded.chain, root=root, signature=decoded.signature
    )


def receipt_under(checkpoint: bytes, leaves: Sequence[bytes], index: int) -> bytes:
    """The receipt of an entry under a checkpoint; `leaves` are all that the checkpoint covers."""
    decoded = decode_checkpoint(checkpoint)

    def node(level: int, at: int) -> bytes:
        return Batch(Frontier(), leaves[at << level : (at + 1) << level]).root

    return assemble_receipt(
        decoded.protected,
        decoded.chain,
        size=decoded.head.size,
        index=index,
        path=inclusion_path(index, decoded.head.size, node),
        signature=decoded.signature,
    )


def nodes(leaves: Sequence[bytes], start: int, end: int) -> list[bytes]:
    """Hashes of the largest perfect subtrees of the leaves start..end."""
    return [
        Batch(Frontier(), leaves[at << level : (at + 1) << level]).root
        for level, at in cover(start, end)
    ]
