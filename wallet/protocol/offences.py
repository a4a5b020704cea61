"""What is wrong with entries whatever the state is: one alone, or two of one journal together."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from wallet.protocol.entry import Body, Clock, Close, Entry, EntryKind, Note, Payment
from wallet.protocol.ids import JournalId, wallet_text
from wallet.protocol.issued import Grant, Settlement
from wallet.protocol.money import Currency, Money
from wallet.protocol.payments import FUTURE_MS
from wallet.protocol.refusals import Code

Source = Callable[[tuple[bytes, bytes]], tuple[bytes, int, int]]
"""(entry, receipt) of a note -> journal, epoch, index. Raises: ProtocolError."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry at the place that a journal signed."""

    journal: JournalId
    epoch: int
    index: int
    entry: Entry


class Offence(msgspec.Struct, frozen=True, kw_only=True):
    """The rule that is broken; `detail` goes on after the entry's name in a sentence."""

    code: str
    detail: str


def of_entry(placed: Placed) -> Offence | None:
    """An offence that no state could heal; None where the state decides."""
    entry = placed.entry
    if entry.index != placed.index:
        return Offence(code=Code.MALFORMED, detail=f"calls itself entry {entry.index}")
    what = describe(entry)
    code = _payment_code(placed) or _issued_code(placed)
    return None if code is None else Offence(code=code, detail=f"is {what}: {code}")


def _payment_code(placed: Placed) -> Code | None:
    entry, body = placed.entry, placed.entry.body
    if not isinstance(body, Payment | Note):
        return None
    order = body.order
    if isinstance(body, Note):
        if order.payee_journal != placed.journal:
            return Code.NOTE_NOT_FOR_US
        return Code.NOTE_EXPIRED if entry.time_ms > order.expires_ms else None
    if (order.payer_journal, order.payer_epoch) != (placed.journal, placed.epoch):
        return Code.WRONG_JOURNAL
    if entry.time_ms > order.expires_ms:
        return Code.ORDER_EXPIRED
    early = order.created_ms > entry.time_ms + FUTURE_MS and entry.clock == Clock.SURE
    return Code.ORDER_FROM_THE_FUTURE if early else None


def _issued_code(placed: Placed) -> Code | None:
    entry, body = placed.entry, placed.entry.body
    if not isinstance(body, Grant):
        return None
    if (body.journal, body.epoch) != (placed.journal, placed.epoch):
        return Code.WRONG_JOURNAL
    return Code.GRANT_EXPIRED if entry.time_ms > body.expires_ms else None


def of_pair(one: Placed, other: Placed, source: Source) -> Offence | None:
    """Why two entries of one epoch cannot both be right; `one` stands before `other`."""
    notes = one.entry.body, other.entry.body
    if isinstance(notes[0], Note) and isinstance(notes[1], Note):
        keys = [source((note.entry, note.receipt)) for note in notes if isinstance(note, Note)]
        if keys[0] == keys[1]:
            return Offence(code=Code.NOTE_REDEEMED, detail=f"both bring in {describe(other.entry)}")
    return _order_offence(one, other)


def _order_offence(one: Placed, other: Placed) -> Offence | None:
    before, after = one.entry, other.entry
    if before.time_ms > after.time_ms:
        fell = before.time_ms - after.time_ms
        return Offence(code=Code.MALFORMED, detail=f"are out of time: it falls by {fell} ms")
    if isinstance(before.body, Close) and not isinstance(after.body, Settlement):
        return Offence(code=Code.WRONG_JOURNAL, detail="stand on either side of the epoch's end")
    return _twice(before.body, after.body)


def _twice(one: Body, other: Body) -> Offence | None:
    """What may be used once was used twice."""
    if isinstance(one, Payment) and isinstance(other, Payment):
        used, again = one.order, other.order
        if (used.payer, used.sequence) == (again.payer, again.sequence):
            detail = f"both use sequence {again.sequence} of {wallet_text(again.payer)}"
            return Offence(code=Code.SEQUENCE_USED, detail=detail)
    elif isinstance(one, Grant) and isinstance(other, Grant) and one.sequence == other.sequence:
        return Offence(code=Code.GRANT_REPLAYED, detail=f"both enter grant {other.sequence}")
    return None


def describe(entry: Entry) -> str:
    """An entry in a few words: its kind, and whose value it moves where it moves any."""
    name = EntryKind(entry.kind).name.lower().replace("_", "-")
    article = "an" if name[0] in "aeio" else "a"
    body = entry.body
    if not isinstance(body, Payment | Note):
        return f"{article} {name}"
    order = body.order
    amount = Money(order.amount_minor, Currency(order.currency))
    way = f"from {wallet_text(order.payer)} to {wallet_text(order.payee)}"
    return f"{article} {name} of {amount} {way}"
