"""Orders in their commonest bytes, read by one pattern: the hot path of `decode_order`.

The pattern is the CDDL of an order spelled out in bytes, so what it matches is canonical by
construction: shortest integers, keys in order, nothing behind. What it does not match is no
refusal: the strict decoder looks at it then, and only that one refuses. Tests hold the two equal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeVar

from wallet.protocol.cose import ORDER_TYPE, Sign1
from wallet.protocol.keys import EDDSA, ES256
from wallet.protocol.money import AMOUNT_MAX

_UINT = (
    rb"([\x00-\x17]|\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00).{4}"
    rb"|\x1b(?!\x00\x00\x00\x00)\x00[\x00-\x1f].{6})"
)
_COSE = re.compile(
    rb"\x84\x58\x44(\xa3\x01([\x26\x27])\x04\x58\x20(.{32})\x10\x78\x1b"
    + re.escape(ORDER_TYPE.encode())
    + rb")\xa0(?:\x58([\x18-\xff])|\x59(?!\x00)(..))",
    re.DOTALL,
)
_CLAIMS = re.compile(
    rb"([\xad-\xb1])\x01\x01\x02\x54(.{20})\x03"
    + _UINT
    + rb"\x04\x54(.{20})\x05\x54(.{20})\x06"
    + _UINT
    + rb"\x07\x63([A-Z]{3})\x08"
    + _UINT
    + rb"\x09"
    + _UINT
    + rb"\x0a([\x00-\x03])\x0b([\x00-\x02])"
    # A reference of printable ASCII: what follows it is a key below 0x20, so it ends there.
    + rb"(?:\x0c([\x61-\x77]|\x78[\x18-\x40])([\x20-\x7e]{1,64}))?"
    + rb"(?:\x0d\x58\x20(.{32}))?(?:\x0e\x58\x20(.{32}))?(?:\x0f\x64([0-9]{4}))?"
    + rb"\x10\x54(.{20})\x11"
    + _UINT,
    re.DOTALL,
)
# One negative integer of CBOR each.
_ALGORITHMS = {b"\x27": EDDSA, b"\x26": ES256}
_REQUIRED = 0xA0 + 13
_SIGNATURE = b"\x58\x40"
_BYTES_MAX = 1024
Made = TypeVar("Made")


def read_order(raw: bytes, make: Callable[..., Made]) -> Made | None:
    """What `make` gives for the fields of an `Order`; None to ask the strict decoder."""
    if len(raw) > _BYTES_MAX or (start := _COSE.match(raw)) is None:
        return None
    protected, algorithm, key_id, short, long = start.groups()
    size = short[0] if short is not None else int.from_bytes(long, "big")
    begin = start.end()
    end = begin + size
    if len(raw) != end + 66 or raw[end : end + 2] != _SIGNATURE:
        return None
    payload = raw[begin:end]
    match = _CLAIMS.fullmatch(payload)
    if match is None:
        return None
    alg = _ALGORITHMS[algorithm]
    signed = Sign1(raw, protected, alg, key_id, ORDER_TYPE, (), payload, raw[end + 2 :])
    return _made(make, signed, match.groups())


def _made(make: Callable[..., Made], signed: Sign1, groups: tuple[Any, ...]) -> Made | None:
    members, payer, sequence, payee, payee_journal, amount, currency, created, expires, *rest = (
        groups
    )
    kind, authorisation, length, reference, request, refunded, category, journal, epoch = rest
    amount_minor = amount[0] if len(amount) == 1 else int.from_bytes(amount[1:], "big")
    present = 4 - (reference, request, refunded, category).count(None)
    if members[0] != _REQUIRED + present or not 1 <= amount_minor <= AMOUNT_MAX:
        return None
    # The head of a text: 0x60 and its length, or 0x78 and the length in a byte of its own.
    if reference is not None and len(reference) != (length[-1] - (0x60 if len(length) == 1 else 0)):
        return None
    return make(
        signed=signed,
        identity=hashlib.sha256(signed.payload).digest(),
        payer=payer,
        sequence=sequence[0] if len(sequence) == 1 else int.from_bytes(sequence[1:], "big"),
        payee=payee,
        payee_journal=payee_journal,
        amount_minor=amount_minor,
        currency=currency.decode(),
        created_ms=created[0] if len(created) == 1 else int.from_bytes(created[1:], "big"),
        expires_ms=expires[0] if len(expires) == 1 else int.from_bytes(expires[1:], "big"),
        kind=kind[0],
        authorisation=authorisation[0],
        reference=None if reference is None else reference.decode(),
        request=request,
        refunded=refunded,
        category=None if category is None else category.decode(),
        payer_journal=journal,
        payer_epoch=epoch[0] if len(epoch) == 1 else int.from_bytes(epoch[1:], "big"),
    )
