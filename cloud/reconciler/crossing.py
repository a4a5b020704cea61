"""What a segment moves to and from the head, where its journal lives elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from cloud.ledger.identities import of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler.values import Segment
from cloud.shards.homes import Here
from cloud.shards.messages import HEAD, Addressed, Funded, PaidOnline
from wallet.protocol.entry import EntryKind, Payment
from wallet.protocol.ids import wallet_text
from wallet.protocol.issued import Grant


def crossing(segment: Segment, here: Here) -> Iterable[Addressed]:
    """Grants that were entered, and value that goes online; nothing at the head itself."""
    if here.is_head:
        return
    for entry in segment.entries:
        body = entry.body
        if isinstance(body, Grant):
            yield Addressed(target=HEAD, message=_funded(segment, entry.index, body))
        elif entry.kind == EntryKind.DEFUND and isinstance(body, Payment):
            order = body.order
            message = PaidOnline(
                transfer=of_entry(segment.journal, epoch=segment.epoch, index=entry.index),
                journal=segment.journal,
                wallet=wallet_text(order.payer),
                amount=order.amount_minor,
                currency=order.currency,
                transfer_kind=TransferKind.DEFUND,
                reference=order.reference,
            )
            yield Addressed(target=HEAD, message=message)


def _funded(segment: Segment, index: int, grant: Grant) -> Funded:
    return Funded(
        journal=segment.journal,
        epoch=segment.epoch,
        index=index,
        grant=grant.signed.raw,
        amount=grant.amount_minor,
        currency=grant.currency,
    )
