"""Who waits for what: proposals in the queue, those that were decided, and their receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from wallet.journal.index import names_of, payment_names, payment_wallets
from wallet.journal.names import Names
from wallet.journal.trust import NO_FACTS, Facts
from wallet.journal.values import Receipted
from wallet.protocol.checkpoint import PATH_LEAD, ReceiptMaker
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.merkle import Batch
from wallet.protocol.refusals import Refusal
from wallet.protocol.rules import Proposal
from wallet.protocol.state import Decision
from wallet.store.connection import Connection

Work = Callable[[Connection], None]


class Waiting(msgspec.Struct):
    """A proposal in the queue, and who waits for its outcome.

    `with_commit` writes in the same transaction as the entry, so that both stand or neither.
    """

    proposal: Proposal
    future: asyncio.Future[Receipted | Refusal]
    facts: Facts = NO_FACTS
    with_commit: Work | None = None


class Decided(msgspec.Struct, gc=False):
    """An accepted proposal on its way into the store."""

    waiting: Waiting
    decision: Decision
    entry: bytes
    leaf: bytes
    index: int


def answer(waiting: Waiting, outcome: Receipted | Refusal) -> None:
    """Tell one; whoever gave up waiting asks again by the order's identity."""
    if not waiting.future.done():
        waiting.future.set_result(outcome)


def file_names(names: Names, decided: list[Decided]) -> None:
    """File entries that are durable under their names."""
    for item in decided:
        proposal = item.waiting.proposal
        if isinstance(proposal, Payment):
            found = payment_names(proposal, item.leaf), payment_wallets(proposal)
        else:
            found = names_of(decode_entry(item.entry), item.leaf)
        names.add(item.index, *found)


def receipts_of(
    decided: list[Decided], tree: Batch, maker: ReceiptMaker, *, time_ms: int
) -> list[Receipted]:
    """The receipts of a batch that was signed, in its order."""
    return [
        Receipted(
            index=item.index,
            kind=item.decision.kind,
            time_ms=time_ms,
            entry=item.entry,
            receipt=maker.receipt(item.index, path),
            leaf=item.leaf,
            soft=item.decision.soft,
        )
        for item, path in zip(decided, tree.joined_paths(PATH_LEAD), strict=True)
    ]
