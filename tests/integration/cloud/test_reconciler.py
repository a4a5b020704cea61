"""Journals are checked, posted and settled; what breaks the rules changes no supply."""

from __future__ import annotations

import pytest

from cloud.database import Database
from cloud.reconciler.values import Ingested
from tests.support.issuer import Key
from tests.support.reporting import SUPPLY, Branch, open_bank, reconciler, where
from tests.support.world import picture
from wallet.protocol.messages import OrderKind
from wallet.protocol.refusals import Code

ANNA, BERT, CARA, DORA = Key("anna"), Key("bert"), Key("cara"), Key("dora")


@pytest.fixture
async def north(database: Database) -> Branch:
    """A journal of Anna, who has 1,000, and Bert."""
    await open_bank(database)
    branch = Branch("north")
    branch.enrol(ANNA, BERT)
    await branch.fund(database, ANNA, 1_000)
    return branch


@pytest.fixture
def south() -> Branch:
    """A journal of Cara and Dora, who have nothing."""
    branch = Branch("south")
    branch.enrol(CARA, DORA)
    return branch


async def test_a_journal_is_posted_and_settled(database: Database, north: Branch) -> None:
    reconciling = reconciler(database)
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    north.book.accept(north.book.pay(BERT, BERT, 100, kind=OrderKind.REDEEM, reference="rent"))
    assert await north.sync(reconciling) == Ingested(acknowledged=north.size)
    found = await where(database)
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 900, 900, 0)
    settlement = await north.settle(reconciling)
    assert (settlement.size, settlement.verdicts) == (6, ())
    assert await north.sync(reconciling) == Ingested(acknowledged=north.size)
    assert await north.settlement(reconciling) is None
    assert picture(reconciling._replicas[north.book.journal, 1].state) == picture(north.book.state)


async def test_the_same_report_again_changes_nothing(database: Database, north: Branch) -> None:
    reconciling = reconciler(database)
    up = north.report()
    first = await reconciling.ingest(up, now_ms=1)
    settled = await reconciling.settlements_after(north.book.journal, 1, 0)
    assert await reconciling.ingest(up, now_ms=2) == first
    assert await reconciling.settlements_after(north.book.journal, 1, 0) == settled
    assert await reconciler(database).ingest(up, now_ms=3) == first
    await where(database)


@pytest.mark.parametrize("early", [False, True])
async def test_a_note_moves_value_in_either_order_of_reports(
    database: Database, north: Branch, south: Branch, early: bool
) -> None:
    reconciling = reconciler(database)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    if early:
        await south.sync(reconciling)
        found = await where(database)
        assert (found.suspense, found.offline) == (-250, 250)
        pending = await south.settlement(reconciling)
        assert pending is not None
        assert [(v.state, v.code) for v in pending.verdicts] == [(2, Code.PARENT_MISSING)]
        await north.sync(reconciling)
    else:
        await north.sync(reconciling)
        found = await where(database)
        assert (found.offline, found.transit_notes) == (750, 250)
    await south.sync(reconciling, now_ms=2_000_000_000_000)
    found = await where(database)
    assert (found.offline, found.in_transit, found.suspense) == (1_000, 0, 0)
    assert (await south.settle(reconciling)).verdicts == ()
