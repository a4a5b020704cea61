"""What wallets sign: orders and requests, decoded and checked by shape."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import encode
from wallet.protocol.cose import (
    ORDER_TYPE,
    REQUEST_TYPE,
    Sign1,
    decode_sign1,
    identity,
    protected_header,
    sig_structure,
)
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.patterns import read_order


class OrderKind(enum.IntEnum):
    """order-kind of wire.cddl."""

    PAY = 0
    REFUND = 1
    REHOME = 2
    REDEEM = 3


class Authorisation(enum.IntEnum):
    """authorisation of wire.cddl."""

    DEVICE_KEY = 0
    PIN = 1
    PIN_AND_CARD = 2


# Looked up at every order: a global costs a tenth of an enum's member by name.
_PAY, _REFUND, _REDEEM = map(int, (OrderKind.PAY, OrderKind.REFUND, OrderKind.REDEEM))


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A payer's order. `identity` is the SHA-256 of the payload, times are Unix milliseconds."""

    signed: Sign1
    identity: bytes
    payer: WalletId
    sequence: int
    payee: WalletId
    payee_journal: JournalId
    amount_minor: int
    currency: str
    created_ms: int
    expires_ms: int
    kind: int
    authorisation: int
    reference: str | None = None
    request: bytes | None = None
    refunded: bytes | None = None
    category: str | None = None
    payer_journal: JournalId
    payer_epoch: int


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a payee asks for. `identity` is the SHA-256 of the payload."""

    signed: Sign1
    identity: bytes
    nonce: bytes
    payee: WalletId
    payee_journal: JournalId
    amount_minor: int
    currency: str
    created_ms: int
    expires_ms: int
    reference: str | None = None


_ORDER_REQUIRED = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.identifier,
    5: shapes.identifier,
    6: shapes.amount,
    7: shapes.currency,
    8: shapes.count,
    9: shapes.count,
    10: shapes.choice(*OrderKind),
    11: shapes.choice(*Authorisation),
    16: shapes.identifier,
    17: shapes.count,
}
_ORDER_ALLOWED = {
    12: shapes.reference,
    13: shapes.digest,
    14: shapes.digest,
    15: shapes.category,
}
_ORDER_NAMES = {
    2: "payer",
    3: "sequence",
    4: "payee",
    5: "payee_journal",
    6: "amount_minor",
    7: "currency",
    8: "created_ms",
    9: "expires_ms",
    10: "kind",
    11: "authorisation",
    12: "reference",
    13: "request",
    14: "refunded",
    15: "category",
    16: "payer_journal",
    17: "payer_epoch",
}
_REQUEST_REQUIRED = {
    1: shapes.count,
    2: shapes.nonce,
    3: shapes.identifier,
    4: shapes.identifier,
    5: shapes.amount,
    6: shapes.currency,
    7: shapes.count,
    8: shapes.count,
}
_REQUEST_ALLOWED = {9: shapes.reference}
_REQUEST_NAMES = {
    2: "nonce",
    3: "payee",
    4: "payee_journal",
    5: "amount_minor",
    6: "currency",
    7: "created_ms",
    8: "expires_ms",
    9: "reference",
}


def decode_order(raw: bytes) -> Order:
    """Step 1 of "Accepting an order": bytes, shape, typ, version, claims, parties.

    Raises: ProtocolError `too-large`, `not-canonical`, `malformed`, `unknown-type`,
    `unknown-version`.
    """
    order = read_order(raw, Order) or decode_order_strictly(raw)
    check_order(order)
    return order


def decode_order_strictly(raw: bytes) -> Order:
    """The same without the hot path, and without what the claims say of one another."""
    signed, claims = decode_sign1(raw, type_=ORDER_TYPE, with_chain=False)
    shapes.versioned(claims)
    fields = shapes.record(claims, _ORDER_REQUIRED, _ORDER_ALLOWED)
    return Order(
        signed=signed,
        identity=identity(signed.payload),
        **{name: fields[key] for key, name in _ORDER_NAMES.items() if key in fields},
    )


def check_order(order: Order) -> None:
    """What the claims say of one another. Raises: ProtocolError `malformed`."""
    kind = order.kind
    if order.expires_ms <= order.created_ms:
        raise shapes.malformed("expires no later than it was created")
    if (kind == _REFUND) != (order.refunded is not None):
        raise shapes.malformed("a refund names the refunded entry, nothing else does")
    wanted = order.payer != order.payee
    if kind != _PAY and kind != _REFUND:
        here = order.payer_journal == order.payee_journal
        wanted = not wanted and here == (kind == _REDEEM)
    if not wanted:
        raise shapes.malformed("the payee is none that this kind of order may have")


def order_payload(**claims: Any) -> bytes:
    """Payload of an order from claims by their names in `Order`; absent ones may be None."""
    return _payload(_ORDER_NAMES, claims)


def decode_request(raw: bytes) -> Request:
    """A request by shape; its signature is checked where the payee's key is known.

    Raises: ProtocolError as `decode_order` does.
    """
    signed, claims = decode_sign1(raw, type_=REQUEST_TYPE, with_chain=False)
    shapes.versioned(claims)
    fields = shapes.record(claims, _REQUEST_REQUIRED, _REQUEST_ALLOWED)
    if fields[8] <= fields[7]:
        raise shapes.malformed("expires no later than it was created")
    return Request(
        signed=signed,
        identity=identity(signed.payload),
        **{name: fields[key] for key, name in _REQUEST_NAMES.items() if key in fields},
    )


def request_payload(**claims: Any) -> bytes:
    """Payload of a request from claims by their names in `Request`; absent ones may be None."""
    return _payload(_REQUEST_NAMES, claims)


def _payload(names: dict[int, str], claims: dict[str, Any]) -> bytes:
    unknown = claims.keys() - set(names.values())
    if unknown:
        raise TypeError(f"no such claim: {', '.join(sorted(unknown))}")
    fields = {key: claims.get(name) for key, name in names.items()}
    return encode({1: 1, **{key: value for key, value in fields.items() if value is not None}})


def to_sign(key: PublicKey, type_: str, payload: bytes) -> tuple[bytes, bytes]:
    """(protected header, bytes to sign) of an object signed by `key`."""
    protected = protected_header(key.algorithm, key.key_id, type_)
    return protected, sig_structure(protected, payload)
