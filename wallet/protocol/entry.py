"""Entries of the journal: the leaves of its tree, and the typed bodies inside them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import decode, encode, head
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import (
    Enrolment,
    Grant,
    Settlement,
    Statement,
    decode_enrolment,
    decode_grant,
    decode_policy,
    decode_settlement,
    decode_statement,
)
from wallet.protocol.messages import Order, Request, decode_order, decode_request
from wallet.protocol.policy import Policy

ENTRY_BYTES_MAX = 64 * 1024 * 1024
NOTE_BYTES_MAX = 16 * 1024


class EntryKind(enum.IntEnum):
    """entry-kind of wire.cddl."""

    OPEN = 0
    FUND = 1
    PAY = 2
    TRANSFER_OUT = 3
    TRANSFER_IN = 4
    DEFUND = 5
    ENROL = 6
    POLICY = 7
    LIST = 8
    SETTLEMENT = 9
    VOID = 10
    CLOSE = 11


class Clock(enum.IntEnum):
    """Whether the journal trusted its clock when it wrote an entry."""

    SURE = 0
    UNCERTAIN = 1


class CloseReason(enum.IntEnum):
    """Why an epoch was closed."""

    PLANNED = 0
    LOST = 1
    COMPROMISED = 2
    MIGRATED = 3


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """The first entry of an epoch."""

    journal: JournalId
    epoch: int
    currency: str
    policy: Policy
    statement: Statement | None = None


class Payment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order with the request that it answers; a pay, transfer-out or defund."""

    order: Order
    request: Request | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Entry and receipt of a transfer-out, as bytes, with what the entry says."""

    entry: bytes
    receipt: bytes
    order: Order
    request: Request | None
    hop: int
    index: int


class ListUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A list that the journal holds from now on, by the hash of the whole signed list."""

    list_id: int
    sequence: int
    hash: bytes


class Void(msgspec.Struct, frozen=True, kw_only=True):
    """A request that must not be paid any more."""

    request: Request


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an epoch."""

    reason: int


Body = Open | Grant | Payment | Note | Enrolment | Policy | ListUpdate | Settlement | Void | Close


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decoded entry. `hop` is what the body of a transfer-out says, else None."""

    raw: bytes
    kind: int
    index: int
    time_ms: int
    clock: int
    body: Body
    hop: int | None = None


_ENTRY = {
    1: shapes.choice(*EntryKind),
    2: shapes.count,
    3: shapes.count,
    4: shapes.choice(*Clock),
    5: lambda value: value,
}
_OPEN = {1: shapes.identifier, 2: shapes.count, 3: shapes.currency, 4: shapes.binary}
_pair = shapes.fixed(shapes.binary, shapes.optional(shapes.binary))
_out = shapes.fixed(shapes.binary, shapes.optional(shapes.binary), shapes.count)
_transfer = shapes.fixed(shapes.binary, shapes.binary)
_update = shapes.fixed(shapes.choice(1, 2, 3, 4, 5, 6), shapes.count, shapes.digest)


def encode_entry(*, kind: int, index: int, time_ms: int, clock: int, body: bytes) -> bytes:
    """An entry around an encoded body."""
    return b"".join(
        (
            b"\xa5\x01",
            bytes((kind,)),
            b"\x02",
            head(0, index),
            b"\x03",
            head(0, time_ms),
            b"\x04",
            bytes((clock,)),
            b"\x05",
            body,
        )
    )


def encode_payment_body(payment: Payment, *, hop: int | None) -> bytes:
    """Encoded body of a pay, or with a hop of a transfer-out."""
    order = payment.order.signed.raw
    parts = [b"\x82" if hop is None else b"\x83", head(2, len(order)), order]
    if payment.request is None:
        parts.append(b"\xf6")
    else:
        request = payment.request.signed.raw
        parts += [head(2, len(request)), request]
    if hop is not None:
        parts.append(head(0, hop))
    return b"".join(parts)


def encode_open_body(
    *, journal: bytes, epoch: int, currency: str, policy: bytes, statement: bytes | None
) -> bytes:
    """Encoded body of an open."""
    fields = {1: journal, 2: epoch, 3: currency, 4: policy}
    return encode(fields if statement is None else {**fields, 5: statement})


def decode_entry(raw: bytes, *, bytes_max: int = ENTRY_BYTES_MAX) -> Entry:
    """An entry with its body, by shape alone.

    Raises: ProtocolError `too-large`, `not-canonical`, `malformed` and what the objects inside
    raise when they are decoded.
    """
    return _entry_of(raw, shapes.record(decode(raw, bytes_max=bytes_max), _ENTRY))


def _entry_of(raw: bytes, fields: dict[int, Any]) -> Entry:
    body, hop = _BODIES[EntryKind(fields[1])](fields[5])
    return Entry(
        raw=raw,
        kind=fields[1],
        index=fields[2],
        time_ms=fields[3],
        clock=fields[4],
        body=body,
        hop=hop,
    )


def decode_note(entry: bytes, receipt: bytes) -> Note:
    """A note by shape; its receipt is checked apart.

    Raises: ProtocolError as `decode_entry`; another kind of entry is `malformed`.
    """
    fields = shapes.record(decode(entry, bytes_max=NOTE_BYTES_MAX), _ENTRY)
    # Before the body is looked at: notes inside notes would nest without an end.
    if fields[1] != EntryKind.TRANSFER_OUT:
        raise shapes.malformed("a note is the entry of a transfer-out")
    payment, hop = _transfer_out(fields[5])
    return Note(
        entry=entry,
        receipt=receipt,
        order=payment.order,
        request=payment.request,
        hop=hop,
        index=fields[2],
    )


def _open(value: Any) -> tuple[Body, None]:
    fields = shapes.record(value, _OPEN, {5: shapes.binary})
    statement = decode_statement(fields[5]) if 5 in fields else None
    return Open(
        journal=fields[1],
        epoch=fields[2],
        currency=fields[3],
        policy=decode_policy(fields[4]),
        statement=statement,
    ), None


def _payment(order: bytes, request: bytes | None) -> Payment:
    return Payment(
        order=decode_order(order), request=None if request is None else decode_request(request)
    )


def _pay(value: Any) -> tuple[Body, None]:
    return _payment(*_pair(value)), None


def _transfer_out(value: Any) -> tuple[Payment, int]:
    order, request, hop = _out(value)
    return _payment(order, request), hop


def _transfer_in(value: Any) -> tuple[Body, None]:
    return decode_note(*_transfer(value)), None


def _defund(value: Any) -> tuple[Body, None]:
    return _payment(shapes.binary(value), None), None


def _update_of(value: Any) -> tuple[Body, None]:
    list_id, sequence, digest = _update(value)
    return ListUpdate(list_id=list_id, sequence=sequence, hash=digest), None


def _void(value: Any) -> tuple[Body, None]:
    return Void(request=decode_request(shapes.binary(value))), None


def _close(value: Any) -> tuple[Body, None]:
    return Close(reason=shapes.choice(*CloseReason)(value)), None


def _plain(decoder: Callable[[bytes], Body]) -> Callable[[Any], tuple[Body, None]]:
    return lambda value: (decoder(shapes.binary(value)), None)


_BODIES: dict[EntryKind, Callable[[Any], tuple[Body, int | None]]] = {
    EntryKind.OPEN: _open,
    EntryKind.FUND: _plain(decode_grant),
    EntryKind.PAY: _pay,
    EntryKind.TRANSFER_OUT: _transfer_out,
    EntryKind.TRANSFER_IN: _transfer_in,
    EntryKind.DEFUND: _defund,
    EntryKind.ENROL: _plain(decode_enrolment),
    EntryKind.POLICY: _plain(decode_policy),
    EntryKind.LIST: _update_of,
    EntryKind.SETTLEMENT: _plain(decode_settlement),
    EntryKind.VOID: _void,
    EntryKind.CLOSE: _close,
}
