"""Checkpoints and receipts as bytes: COSE Receipts (RFC 9942) of RFC 9162 trees.

Making and decoding; `receipt` checks them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.certificates import Chain
from wallet.protocol.codec import decode, encode, head
from wallet.protocol.cose import chain_of, chain_value, sig_structure
from wallet.protocol.ids import journal_text
from wallet.protocol.keys import EDDSA, ES256, SIGNATURE_BYTES, PublicKey
from wallet.protocol.refusals import Code, ProtocolError

RECEIPT_BYTES_MAX = 16 * 1024
PATH_LEAD = b"\x58\x20"
"""What stands before each node of a path: `Batch.joined_paths` takes it."""

SIZE_CLAIM, EPOCH_CLAIM, COUNTER_CLAIM = -70001, -70002, -70003
_RFC9162_SHA256 = 1


class ReceiptError(ProtocolError):
    """A receipt or checkpoint that does not hold; `step` is the number of the step that failed."""

    def __init__(self, step: int, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.step = step


class Step:
    """Gives a ProtocolError that is raised inside the number of its step."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ProtocolError):
            raise ReceiptError(self._number, error.code, error.detail) from error


class TreeHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal signs beside the root. `issuer`: the journal in its text form."""

    algorithm: int
    key_id: bytes
    issuer: str
    issued_s: int
    size: int
    epoch: int
    counter: int


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded checkpoint; nothing has been checked but its shape."""

    raw: bytes
    protected: bytes
    head: TreeHead
    chain: Chain
    root: bytes
    signature: bytes


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded receipt; nothing has been checked but its shape. `size` is the proof's."""

    raw: bytes
    protected: bytes
    head: TreeHead
    chain: Chain
    size: int
    index: int
    path: tuple[bytes, ...]
    signature: bytes


# ---- making -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _constant(algorithm: int, key_id: bytes, journal: bytes) -> bytes:
    fixed = {1: algorithm, 4: key_id}
    return b"\xa4" + encode(fixed)[1:] + b"\x0f\xa5\x01" + encode(journal_text(journal)) + b"\x06"


def checkpoint_protected(
    key: PublicKey, *, journal: bytes, epoch: int, size: int, counter: int, issued_s: int
) -> bytes:
    """Encoded protected header of a checkpoint, and of the receipts under it."""
    return b"".join(
        (
            _constant(key.algorithm, key.key_id, journal),
            head(0, issued_s),
            b"\x3a\x00\x01\x11\x70",  # -70001
            head(0, size),
            b"\x3a\x00\x01\x11\x71",
            head(0, epoch),
            b"\x3a\x00\x01\x11\x72",
            head(0, counter),
            b"\x19\x01\x8b\x01",  # 395: 1
        )
    )


def checkpoint_signed_bytes(protected: bytes, root: bytes) -> bytes:
    """What the journal's key signs: Sig_structure (RFC 9052 section 4.4) over the root."""
    return sig_structure(protected, root)


def assemble_checkpoint(protected: bytes, chain: Chain, *, root: bytes, signature: bytes) -> bytes:
    """The checkpoint as it travels; without a chain to who holds it."""
    unprotected = {33: chain_value(chain)} if chain else {}
    return encode([protected, unprotected, root, signature])


class ReceiptMaker:
    """Receipts under one checkpoint: all that is the same in them is encoded once."""

    __slots__ = ("_front", "_size", "_tail")

    def __init__(self, protected: bytes, chain: Chain, *, size: int, signature: bytes) -> None:
        given = b"\xa2\x18\x21" + encode(chain_value(chain)) if chain else b"\xa1"
        proofs = b"\x19\x01\x8c\xa1\x20\x81"  # 396: {-1: [
        self._front = b"\x84" + encode(protected) + given + proofs
        self._size = b"\x83" + head(0, size)
        self._tail = b"\xf6" + encode(signature)

    def receipt(self, index: int, joined_path: bytes) -> bytes:
        """The receipt of one leaf; `joined_path` as `Batch.joined_paths(PATH_LEAD)` gives it."""
        nodes = len(joined_path) // (len(PATH_LEAD) + 32)
        inclusion = b"".join((self._size, head(0, index), head(4, nodes), joined_path))
        return b"".join((self._front, head(2, len(inclusion)), inclusion, self._tail))


def assemble_receipt(
    protected: bytes,
    chain: Chain,
    *,
    size: int,
    index: int,
    path: Sequence[bytes],
    signature: bytes,
) -> bytes:
    """One receipt as it travels; without a chain to who holds it."""
    maker = ReceiptMaker(protected, chain, size=size, signature=signature)
    return maker.receipt(index, b"".join([PATH_LEAD + node for node in path]))


# ---- decoding -----------------------------------------------------------------------------

_CLAIMS = {
    1: shapes.text,
    6: shapes.count,
    SIZE_CLAIM: shapes.count,
    EPOCH_CLAIM: shapes.count,
    COUNTER_CLAIM: shapes.count,
}
_PROTECTED = {
    1: shapes.choice(EDDSA, ES256),
    4: shapes.digest,
    15: lambda value: shapes.record(value, _CLAIMS),
}
# Their values are judged in step 2, after the shape.
_TYPES = {16: lambda value: value, 395: lambda value: value}
_CHAIN = {33: chain_of}
_signature = shapes.octets(SIGNATURE_BYTES)
_inclusion = shapes.fixed(shapes.count, shapes.count, shapes.listed(shapes.digest))


def decode_checkpoint(raw: bytes) -> Checkpoint:
    """A checkpoint by shape: steps 1 and 2. Raises: ReceiptError."""
    with Step(1):
        protected, unprotected, root, signature = _parts(raw)
        fields = _fields(protected)
        chain = shapes.record(unprotected, {}, _CHAIN).get(33, ())
        shapes.digest(root)
    _check_type(fields)
    return Checkpoint(
        raw=raw,
        protected=protected,
        head=_head(fields),
        chain=chain,
        root=root,
        signature=signature,
    )


def decode_receipt(raw: bytes) -> Receipt:
    """A receipt by shape: steps 1 and 2. Raises: ReceiptError."""
    with Step(1):
        protected, unprotected, root, signature = _parts(raw)
        fields = _fields(protected)
        headers = shapes.record(unprotected, {396: _proof}, _CHAIN)
        if root is not None:
            raise shapes.malformed("the root is attached")
    _check_type(fields)
    size, index, path = headers[396]
    return Receipt(
        raw=raw,
        protected=protected,
        head=_head(fields),
        chain=headers.get(33, ()),
        size=size,
        index=index,
        path=path,
        signature=signature,
    )


def _parts(raw: bytes) -> list[Any]:
    parts = decode(raw, bytes_max=RECEIPT_BYTES_MAX)
    if type(parts) is not list or len(parts) != 4:
        raise shapes.malformed("no COSE_Sign1 of four parts")
    shapes.binary(parts[0])
    _signature(parts[3])
    return parts


def _fields(protected: bytes) -> dict[int, Any]:
    return shapes.record(decode(protected, bytes_max=RECEIPT_BYTES_MAX), _PROTECTED, _TYPES)


def _proof(value: Any) -> Any:
    """The one inclusion proof of header 396."""
    proofs = shapes.record(value, {-1: shapes.fixed(shapes.binary)})[-1]
    return _inclusion(decode(proofs[0], bytes_max=RECEIPT_BYTES_MAX))


def _check_type(fields: dict[int, Any]) -> None:
    """Step 2: no `typ`, and header 395 is 1."""
    structure = fields.get(395)
    if 16 in fields or type(structure) is not int or structure != _RFC9162_SHA256:
        raise ReceiptError(2, Code.UNKNOWN_TYPE, "no tree head of RFC9162_SHA256")


def _head(fields: dict[int, Any]) -> TreeHead:
    claims = fields[15]
    return TreeHead(
        algorithm=fields[1],
        key_id=fields[4],
        issuer=claims[1],
        issued_s=claims[6],
        size=claims[SIZE_CLAIM],
        epoch=claims[EPOCH_CLAIM],
        counter=claims[COUNTER_CLAIM],
    )
