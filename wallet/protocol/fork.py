"""Evidence of a fork (wire.cddl, `fork`): anyone checks it with the issuer's root alone.

Each part is checked like a receipt, but for revocation: evidence outlives the key.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.checkpoint import (
    Checkpoint,
    Receipt,
    ReceiptError,
    decode_checkpoint,
    decode_receipt,
)
from wallet.protocol.codec import decode, encode
from wallet.protocol.ids import JournalId
from wallet.protocol.merkle import Node, cover, join
from wallet.protocol.receipt import (
    ENTRY_BYTES_MAX,
    NOTHING_REVOKED,
    VerifiedCheckpoint,
    VerifiedReceipt,
    verify_checkpoint,
    verify_receipt,
)
from wallet.protocol.refusals import Code, ProtocolError

# Two entries of the largest size and their receipts.
FORK_BYTES_MAX = 2 * ENTRY_BYTES_MAX + 64 * 1024


class ForkKind(enum.IntEnum):
    """The four kinds of evidence."""

    SIZE = 1
    INDEX = 2
    COUNTER = 3
    EXTENSION = 4


class ForkProof(msgspec.Struct, frozen=True, kw_only=True):
    """A journal's epoch that is proven to have forked. `finding`: a sentence about it."""

    kind: ForkKind
    journal: JournalId
    epoch: int
    finding: str


_Pair = tuple[VerifiedCheckpoint, VerifiedCheckpoint]
_transfer = shapes.fixed(shapes.binary, shapes.binary)
_nodes = shapes.listed(shapes.digest)
_FORMS = {
    ForkKind.SIZE: shapes.fixed(shapes.count, shapes.binary, shapes.binary),
    ForkKind.INDEX: shapes.fixed(shapes.count, _transfer, _transfer),
    ForkKind.COUNTER: shapes.fixed(shapes.count, shapes.binary, shapes.binary),
    ForkKind.EXTENSION: shapes.fixed(
        shapes.count,
        shapes.binary,
        shapes.binary,
        shapes.listed(shapes.digest, least=1),
        _nodes,
    ),
}
# Of the two checkpoints, in the order in which they stand.
_FINDINGS = {
    ForkKind.SIZE: "two different roots are signed for size {0.size}",
    ForkKind.COUNTER: "the counter was {0.counter} at size {0.size} and {1.counter} at {1.size}",
    ForkKind.EXTENSION: "the tree signed at size {1.size} does not extend the one at {0.size}",
}


def fork_size(one: bytes, other: bytes) -> bytes:
    """Evidence of two roots at one size, from two checkpoints."""
    return encode([int(ForkKind.SIZE), one, other])


def fork_index(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> bytes:
    """Evidence of two entries at one index, from (entry, receipt) twice."""
    return encode([int(ForkKind.INDEX), list(one), list(other)])


def fork_counter(smaller: bytes, larger: bytes) -> bytes:
    """Evidence of a counter that fell, from two checkpoints."""
    return encode([int(ForkKind.COUNTER), smaller, larger])


def fork_extension(
    smaller: bytes, larger: bytes, *, left: list[bytes], right: list[bytes]
) -> bytes:
    """Evidence of a larger tree that does not extend a smaller one.

    `left` and `right`: nodes of the larger tree, those of `cover(0, m)` and of `cover(m, n)`.
    """
    return encode([int(ForkKind.EXTENSION), smaller, larger, left, right])


def verify_fork(evidence: bytes, *, root: TrustAnchor, grace_s: int) -> ForkProof:
    """The fork that the evidence proves.

    Raises: ProtocolError `not-proven` for what is well formed and proves nothing; else
    `too-large`, `not-canonical`, `malformed`, `unknown-type` for what is no evidence.
    """
    kind, parts = _form(decode(evidence, bytes_max=FORK_BYTES_MAX))
    if kind is ForkKind.INDEX:
        (entry, receipt), (other_entry, other_receipt) = parts[1], parts[2]
        decoded = decode_receipt(receipt), decode_receipt(other_receipt)
        one = _receipt(decoded[0], entry, root, grace_s)
        return _fork_index(one, _receipt(decoded[1], other_entry, root, grace_s))
    heads = decode_checkpoint(parts[1]), decode_checkpoint(parts[2])
    pair = _checkpoint(heads[0], root, grace_s), _checkpoint(heads[1], root, grace_s)
    _check_same_epoch(*pair)
    if kind is ForkKind.SIZE:
        _check_size(pair)
    elif kind is ForkKind.COUNTER:
        _check_counter(pair)
    else:
        _check_extension(pair, left=parts[3], right=parts[4])
    finding = _FINDINGS[kind].format(*pair)
    return ForkProof(kind=kind, journal=pair[0].journal, epoch=pair[0].epoch, finding=finding)


def _form(value: Any) -> tuple[ForkKind, tuple[Any, ...]]:
    first = value[0] if type(value) is list and value else None
    kind = ForkKind(shapes.choice(*ForkKind)(first))
    return kind, _FORMS[kind](value)


def _checkpoint(checkpoint: Checkpoint, root: TrustAnchor, grace_s: int) -> VerifiedCheckpoint:
    try:
        return verify_checkpoint(checkpoint, root=root, grace_s=grace_s)
    except ReceiptError as error:
        raise _not_proven(f"a checkpoint is {error.code}") from error


def _receipt(receipt: Receipt, entry: bytes, root: TrustAnchor, grace_s: int) -> VerifiedReceipt:
    try:
        return verify_receipt(receipt, entry, root=root, grace_s=grace_s, revoked=NOTHING_REVOKED)
    except ReceiptError as error:
        raise _not_proven(f"a receipt is {error.code}") from error


def _fork_index(one: VerifiedReceipt, other: VerifiedReceipt) -> ForkProof:
    _check_same_epoch(one, other)
    if one.index != other.index or one.leaf == other.leaf:
        raise _not_proven("not two entries of one index")
    return ForkProof(
        kind=ForkKind.INDEX,
        journal=one.journal,
        epoch=one.epoch,
        finding=f"two different entries have receipts for index {one.index}",
    )


def _check_same_epoch(
    one: VerifiedCheckpoint | VerifiedReceipt, other: VerifiedCheckpoint | VerifiedReceipt
) -> None:
    if (one.journal, one.epoch) != (other.journal, other.epoch):
        raise _not_proven("not one journal and epoch")


def _check_size(pair: _Pair) -> None:
    if pair[0].size != pair[1].size or pair[0].root == pair[1].root:
        raise _not_proven("not two roots at one size")


def _check_counter(pair: _Pair) -> None:
    # The smaller size stands first (protocol.md). Either order proves the same, and whoever wrote
    # it the other way round holds as good a proof, so both are read.
    smaller, larger = sorted(pair, key=lambda checkpoint: checkpoint.size)
    if smaller.size == larger.size or smaller.counter <= larger.counter:
        raise _not_proven("the counter did not fall")


def _check_extension(pair: _Pair, *, left: tuple[bytes, ...], right: tuple[bytes, ...]) -> None:
    smaller, larger = pair
    if not 0 < smaller.size < larger.size:
        raise _not_proven("not a smaller and a larger tree, in this order")
    left_names = cover(0, smaller.size)
    right_names = cover(smaller.size, larger.size)
    if (len(left), len(right)) != (len(left_names), len(right_names)):
        raise _not_proven("not the subtrees of these sizes")
    lefts = _named(left_names, left)
    if join(lefts + _named(right_names, right)) != larger.root:
        raise _not_proven("the nodes are not the larger tree's")
    if join(lefts) == smaller.root:
        raise _not_proven("the larger tree extends the smaller one")


def _named(names: list[tuple[int, int]], hashes: tuple[bytes, ...]) -> list[Node]:
    return [Node(*name, hash_) for name, hash_ in zip(names, hashes, strict=True)]


def _not_proven(detail: str) -> ProtocolError:
    return ProtocolError(Code.NOT_PROVEN, detail)
