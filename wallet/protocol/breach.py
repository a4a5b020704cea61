"""Evidence of a broken rule (wire.cddl, `breach`): anyone checks it with the root alone.

As with forks, revocation does not matter: evidence outlives the key. An honest journal can be the
subject of none of these, whatever an accuser leaves out or puts beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from wallet.protocol import offences, shapes
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.checkpoint import (
    Checkpoint,
    Receipt,
    ReceiptError,
    decode_checkpoint,
    decode_receipt,
)
from wallet.protocol.codec import encode
from wallet.protocol.entry import decode_entry
from wallet.protocol.envelope import Up, verify_up
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import decode_list
from wallet.protocol.merkle import Batch, Frontier, Node, cover, join, leaf_hash, verify_inclusion
from wallet.protocol.offences import Offence, Placed
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    VerifiedCheckpoint,
    verify_checkpoint,
    verify_receipt,
)
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.replaying import first_refused

ENTRY, PAIR, REPLAY, REPORT = "entry", "pair", "replay", "report"
Transfer = tuple[bytes, bytes]
"""Entry and receipt."""


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal is proven to have done. `finding`: a sentence about it, for people."""

    kind: str
    journal: JournalId
    epoch: int
    code: str
    finding: str


_transfer = shapes.fixed(shapes.binary, shapes.binary)
_octets = shapes.listed(shapes.binary)
_nodes = shapes.listed(shapes.digest)
_FORMS = {
    ENTRY: shapes.fixed(shapes.text, _transfer),
    PAIR: shapes.fixed(shapes.text, _transfer, _transfer),
    REPLAY: shapes.fixed(
        shapes.text, shapes.binary, shapes.listed(shapes.binary, least=1), _nodes, _octets
    ),
    REPORT: shapes.fixed(shapes.text, shapes.binary, shapes.optional(shapes.binary), _nodes),
}


def breach_entry(transfer: Transfer) -> bytes:
    """Evidence of an entry that no state makes right, from it and its receipt."""
    return encode([ENTRY, list(transfer)])


def breach_pair(one: Transfer, other: Transfer) -> bytes:
    """Evidence of two entries of one journal that exclude each other."""
    return encode([PAIR, list(one), list(other)])


def breach_replay(
    checkpoint: bytes, entries: Sequence[bytes], *, rest: Sequence[bytes], lists: Sequence[bytes]
) -> bytes:
    """Evidence of an entry that the rules refuse: all entries up to it, in order.

    `rest`: the nodes of `cover(len(entries), n)` of the checkpoint's tree. `lists`: the signed
    lists that the entries name.
    """
    return encode([REPLAY, checkpoint, list(entries), list(rest), list(lists)])


def breach_report(up: bytes, before: bytes | None, *, left: Sequence[bytes]) -> bytes:
    """Evidence of a signed report whose entries do not give the root that it signs.

    `before`: a checkpoint that the entries begin at or go through; None of a report from entry 0
    on. `left`: the nodes of `cover(0, a)`, a being the size that the report begins at.
    """
    return encode([REPORT, up, before, list(left)])


def verify_breach(value: Any, *, root: TrustAnchor, grace_s: int) -> Breach:
    """What decoded evidence proves.

    Raises: ProtocolError `not-proven` for what is well formed and proves nothing; else `malformed`
    and what decoding its parts raises.
    """
    kind = value[0] if type(value) is list and value else None
    if type(kind) is not str or kind not in _FORMS:
        raise shapes.malformed("no such kind of evidence")
    parts = _FORMS[kind](value)
    return _CHECKS[kind](parts, root, grace_s)


# ---- one entry, two entries -----------------------------------------------------------------


def _check_entry(parts: tuple[Any, ...], root: TrustAnchor, grace_s: int) -> Breach:
    raw, receipt = parts[1]
    decoded = decode_receipt(receipt)
    head, index = _covering(raw, decoded, root, grace_s), decoded.index
    offence = _lone_offence(raw, head, index)
    if offence is None:
        raise not_proven("the entry alone breaks no rule")
    return _breach(ENTRY, head, offence.code, f"entry {index} {offence.detail}")


def _lone_offence(raw: bytes, head: VerifiedCheckpoint, index: int) -> Offence | None:
    try:
        entry = decode_entry(raw)
    except ProtocolError as error:
        if error.code == Code.UNKNOWN_VERSION:
            raise not_proven("a version that this program does not know") from error
        return Offence(code=error.code, detail=f"cannot be read: {error.code}")
    placed = Placed(journal=head.journal, epoch=head.epoch, index=index, entry=entry)
    return offences.of_entry(placed)


def _covering(
    entry: bytes, receipt: Receipt, root: TrustAnchor, grace_s: int
) -> VerifiedCheckpoint:
    """The checkpoint above a receipt's entry, whatever the entry's bytes are."""
    if receipt.size != receipt.head.size:
        raise not_proven("a receipt's proof is of another size")
    try:
        made = verify_inclusion(
            leaf_hash(entry), index=receipt.index, size=receipt.size, path=receipt.path
        )
        return verify_checkpoint(
            Checkpoint(
                raw=receipt.raw,
                protected=receipt.protected,
                head=receipt.head,
                chain=receipt.chain,
                root=made,
                signature=receipt.signature,
            ),
            root=root,
            grace_s=grace_s,
        )
    except ProtocolError as error:
        raise not_proven(f"a receipt is {error.code}") from error


def _check_pair(parts: tuple[Any, ...], root: TrustAnchor, grace_s: int) -> Breach:
    placed = sorted(
        (_placed(part, root, grace_s) for part in parts[1:]), key=lambda found: found.index
    )
    one, other = placed
    if (one.journal, one.epoch) != (other.journal, other.epoch):
        raise not_proven("not one journal and epoch")
    if one.index == other.index:
        raise not_proven("not two places in the journal")
    offence = offences.of_pair(one, other, _source(root, grace_s))
    if offence is None:
        raise not_proven("the two entries break no rule")
    return Breach(
        kind=PAIR,
        journal=one.journal,
        epoch=one.epoch,
        code=offence.code,
        finding=f"entries {one.index} and {other.index} {offence.detail}",
    )


def _placed(transfer: Transfer, root: TrustAnchor, grace_s: int) -> Placed:
    """An entry that its receipt places in a journal. Raises: `not-proven`, ..."""
    raw, receipt = transfer
    decoded, entry = decode_receipt(receipt), decode_entry(raw)
    try:
        found = verify_receipt(decoded, raw, root=root, grace_s=grace_s, revoked=NOTHING_REVOKED)
    except ReceiptError as error:
        raise not_proven(f"a receipt is {error.code}") from error
    return Placed(journal=found.journal, epoch=found.epoch, index=found.index, entry=entry)


def _source(root: TrustAnchor, grace_s: int) -> Callable[[Transfer], tuple[bytes, int, int]]:
    """How the place of a note in its own journal is known: by its receipt."""

    def place(transfer: Transfer) -> tuple[bytes, int, int]:
        found = _placed(transfer, root, grace_s)
        return found.journal, found.epoch, found.index

    return place


# ---- a journal run again --------------------------------------------------------------------


def _check_replay(parts: tuple[Any, ...], root: TrustAnchor, grace_s: int) -> Breach:
    _, checkpoint, raws, rest, lists = parts
    head = _head(checkpoint, root, grace_s)
    leaves = [leaf_hash(raw) for raw in raws]
    _check_root(leaves, rest, head)
    found = first_refused(
        raws,
        journal=head.journal,
        epoch=head.epoch,
        anchor=root,
        lists=[decode_list(raw) for raw in lists],
    )
    if found is None:
        raise not_proven("the rules accept every entry")
    if not found.is_certain:
        raise not_proven(f"entry {found.index} needs what is not in the evidence")
    what = "an entry" if found.entry is None else offences.describe(found.entry)
    finding = f"entry {found.index} is {what}, which the rules refuse: {found.code}"
    return _breach(REPLAY, head, found.code, finding)


def _check_root(leaves: list[bytes], rest: Sequence[bytes], head: VerifiedCheckpoint) -> None:
    size, names = len(leaves), cover(len(leaves), head.size)
    if size > head.size or len(rest) != len(names):
        raise not_proven("not the entries and subtrees of this size")
    peaks = Batch(Frontier(), leaves).frontier.peaks
    known = zip(cover(0, size), peaks, strict=True)
    right = zip(names, rest, strict=True)
    nodes = [Node(*name, hash_) for name, hash_ in [*known, *right]]
    if join(nodes) != head.root:
        raise not_proven("the entries do not give the signed root")


# ---- a report that contradicts itself -------------------------------------------------------


def _check_report(parts: tuple[Any, ...], root: TrustAnchor, grace_s: int) -> Breach:
    _, envelope, before, left = parts
    claims = _report(envelope, root)
    head, first = _head(claims.checkpoint, root, grace_s), claims.acknowledged_size
    size, leaves = first + len(claims.entries), [leaf_hash(raw) for raw in claims.entries]
    if (head.journal, head.epoch, head.size) != (claims.journal, claims.epoch, size):
        raise not_proven("the report's checkpoint is of another journal or size")
    if len(left) != len(cover(0, first)):
        raise not_proven("not the subtrees of the size that the report begins at")
    start = Frontier(first, tuple(left))
    if first:
        _check_before(before, start, leaves, head, root, grace_s)
    if Batch(start, leaves).root == head.root:
        raise not_proven("the entries give the signed root")
    finding = f"a report from entry {first} up to size {size} signs a root that it does not give"
    return _breach(REPORT, head, Code.PROOF_INVALID, finding)


def _report(envelope: bytes, root: TrustAnchor) -> Up:
    try:
        return verify_up(envelope, root=root).claims
    except ProtocolError as error:
        if error.code not in (Code.CERTIFICATE_INVALID, Code.BAD_SIGNATURE):
            raise
        raise not_proven(f"the report is {error.code}") from error


def _check_before(
    before: bytes | None,
    start: Frontier,
    leaves: list[bytes],
    head: VerifiedCheckpoint,
    root: TrustAnchor,
    grace_s: int,
) -> None:
    """That the journal itself signed what the report goes on from, or through."""
    if before is None:
        raise not_proven("no checkpoint of what stands before the report's entries")
    known = _head(before, root, grace_s)
    if (known.journal, known.epoch) != (head.journal, head.epoch):
        raise not_proven("not one journal and epoch")
    if not start.size <= known.size <= head.size:
        raise not_proven("the checkpoint before is of another size")
    if Batch(start, leaves[: known.size - start.size]).root != known.root:
        raise not_proven("the subtrees are not those of the checkpoint before")


def _head(checkpoint: bytes, root: TrustAnchor, grace_s: int) -> VerifiedCheckpoint:
    decoded = decode_checkpoint(checkpoint)
    try:
        return verify_checkpoint(decoded, root=root, grace_s=grace_s)
    except ReceiptError as error:
        raise not_proven(f"a checkpoint is {error.code}") from error


_CHECKS = {
    ENTRY: _check_entry,
    PAIR: _check_pair,
    REPLAY: _check_replay,
    REPORT: _check_report,
}


def _breach(kind: str, head: VerifiedCheckpoint, code: str, finding: str) -> Breach:
    return Breach(kind=kind, journal=head.journal, epoch=head.epoch, code=code, finding=finding)


def not_proven(detail: str) -> ProtocolError:
    """What well-formed evidence raises that proves nothing."""
    return ProtocolError(Code.NOT_PROVEN, detail)
