"""What late receipts are held against, where no gateway would make such ones."""

from __future__ import annotations

import pytest

from cloud.database import Database
from cloud.recovery.late import LateBooks, Spent
from cloud.shards.homes import Site
from tests.integration.cloud.test_claims import ANNA, BERT, Lost, claim, entry_of
from tests.support.world import ANCHOR, EURO
from wallet.protocol.entry import Payment
from wallet.protocol.ids import JournalId
from wallet.protocol.refusals import Code
from wallet.protocol.state import State


def late_books(lost: Lost, *, state: State | None = None, **spent: set[bytes]) -> LateBooks:
    """The issuer's view of a stated epoch."""
    return LateBooks(
        ANCHOR,
        lost.book.replica if state is None else state,
        place=(lost.book.journal, 1),
        currency=EURO,
        keys={holder.public.id: holder.public for holder in (BERT, ANNA)},
        spent=Spent(**spent),
    )


@pytest.mark.parametrize("shown_by_entry", [True, False])
async def test_a_request_is_answered_once(database: Database, shown_by_entry: bool) -> None:
    lost = Lost()
    asked = lost.book.request(BERT, 300)
    payment = lost.book.pay(ANNA, BERT, 300, request=asked)
    if not shown_by_entry:
        # The journal leaves out of the entry what the order names.
        payment = Payment(order=payment.order)
    entry = entry_of(payment)
    async with database.transaction() as connection:
        for spent, code in ((set[bytes](), None), ({asked.identity}, Code.REQUEST_PAID)):
            books = late_books(lost, requests=spent)
            await books.add(Site.alone(connection), [claim(entry)])
            assert [item.code for item in books.judged] == [code]
            assert (books.borne, books.moves) == (0, [])


async def test_a_journal_that_told_of_no_policy_has_nothing_paid_late(database: Database) -> None:
    lost = Lost()
    entry = entry_of(lost.book.pay(ANNA, BERT, 300))
    books = late_books(lost, state=State(JournalId(lost.book.journal), 1))
    async with database.transaction() as connection:
        await books.add(Site.alone(connection), [claim(entry)])
    assert [item.code for item in books.judged] == [Code.NOT_PROVISIONED]
