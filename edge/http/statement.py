"""Entries of a journal as lines of a wallet's statement, and as totals."""

from __future__ import annotations

from edge.http.types import StatementEntry
from edge.verdicts import state_of
from wallet.protocol.entry import Entry, EntryKind, Note, Payment, decode_entry
from wallet.protocol.ids import WalletId, wallet_text
from wallet.protocol.issued import Grant, Verdict
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind

_NAMES = {
    EntryKind.FUND: "fund",
    EntryKind.PAY: "payment",
    EntryKind.TRANSFER_OUT: "transfer-out",
    EntryKind.TRANSFER_IN: "transfer-in",
    EntryKind.DEFUND: "redeem",
    EntryKind.ENROL: "enrolment",
    EntryKind.VOID: "void",
}


def statement_entry(
    raw: bytes, wallet: WalletId, *, settled_size: int, verdict: Verdict | None
) -> StatementEntry:
    """One line of a wallet's statement. The amount is negative for what left the wallet."""
    entry = decode_entry(raw)
    state, _ = state_of(entry.index, settled_size=settled_size, verdict=verdict)
    amount, other, reference = _moved(entry, wallet)
    return StatementEntry(
        index=entry.index,
        id=leaf_hash(raw).hex(),
        kind=kind_name(entry),
        time_ms=entry.time_ms,
        amount=amount,
        state=state,  # type: ignore[arg-type]  # one of the names that the type lists
        other=other,
        reference=reference,
    )


def kind_name(entry: Entry) -> str:
    """The entry's kind as people know it."""
    body = entry.body
    if isinstance(body, Payment) and body.order.kind == OrderKind.REFUND:
        return "refund"
    return _NAMES.get(EntryKind(entry.kind), EntryKind(entry.kind).name.lower())


def _moved(entry: Entry, wallet: WalletId) -> tuple[int, str | None, str | None]:
    """(amount, other party, reference)."""
    body = entry.body
    if isinstance(body, Grant):
        return body.amount_minor, None, None
    if not isinstance(body, Payment | Note):
        return 0, None, None
    order = body.order
    incoming = isinstance(body, Note) or order.payer != wallet
    if incoming:
        return order.amount_minor, wallet_text(order.payer), order.reference
    other = None if order.payee == order.payer else wallet_text(order.payee)
    return -order.amount_minor, other, order.reference
