"""What crossed the report of its own journal on the way is found by upkeep."""

from __future__ import annotations

import copy

import pytest

from cloud.database import Database
from cloud.reconciler.reconciler import Reconciler
from cloud.reconciler.stragglers import sweep
from tests.support.breaches import forge
from tests.support.convictions import rows_of
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank, reconciler, where
from tests.support.world import ANCHOR, NOW_MS
from wallet.protocol.messages import OrderKind

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")


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
    """A journal of Cara and Bert, who have nothing."""
    branch = Branch("south")
    branch.enrol(CARA, BERT)
    return branch


async def cross(database: Database, reconciling: Reconciler, north: Branch, south: Branch) -> None:
    """South's notes come in while north's report is on its way: neither sees the other."""
    await south.sync(reconciling)
    async with database.transaction() as connection:
        await connection.execute("UPDATE note SET state = 'out'")
    await north.sync(reconciling)
    async with database.transaction() as connection:
        await connection.execute("UPDATE note SET state = 'early'")


async def states(database: Database) -> list[str]:
    """What became of the notes."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT index, state FROM note UNION ALL SELECT index, 'hidden' FROM hidden_note"
            " ORDER BY index"
        )
    return [row["state"] for row in rows]


async def test_a_note_of_a_hidden_entry_is_borne_and_convicts(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling, hidden = reconciler(database), copy.deepcopy(north)
    south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, 250))
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    await cross(database, reconciling, north, south)
    assert (await where(database)).suspense == -250
    for _ in range(2):
        await sweep(database, ANCHOR, now_ms=NOW_MS)
        assert await states(database) == ["hidden"]
        found = await where(database)
        assert (found.offline, found.suspense, found.loss) == (1_250, 0, -250)
    (row,) = await rows_of(database)
    assert (row.kind, row.journal) == ("hidden-entry", north.book.journal)
    await south.sync(reconciling)
    assert (await south.settle(reconciling)).verdicts == ()


async def test_a_note_that_was_refused_is_borne_but_not_one_behind_it_or_that_comes_home(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling, book, away = reconciler(database), north.book, south.book.journal
    refused = forge(book, book.pay(ANNA, CARA, 5_000, payee_journal=away))
    behind = forge(book, book.pay(ANNA, CARA, 6_000, payee_journal=away, sequence=0))
    for index in (refused, behind):
        south.take_in(north, index)
    await cross(database, reconciling, north, south)
    await sweep(database, ANCHOR, now_ms=NOW_MS)
    assert await states(database) == ["compensated", "early"]
    found = await where(database)
    assert (found.suspense, found.loss) == (-6_000, -5_000)


async def test_a_note_that_comes_home_and_was_refused_waits(
    database: Database, north: Branch, south: Branch
) -> None:
    book = north.book
    order = book.pay(BERT, BERT, 5_000, payee_journal=south.book.journal, kind=OrderKind.REHOME)
    south.take_in(north, forge(book, order))
    await cross(database, reconciler(database), north, south)
    await sweep(database, ANCHOR, now_ms=NOW_MS)
    assert await states(database) == ["early"]
    assert (await where(database)).loss == 0


@pytest.mark.parametrize("ahead", [False, True])
async def test_receipts_are_compared_once_more_and_go(
    database: Database, north: Branch, south: Branch, ahead: bool
) -> None:
    reconciling, hidden = reconciler(database), copy.deepcopy(north)
    common = north.size - 1
    other = hidden.book.accept(hidden.book.pay(ANNA, BERT, 200)).index
    entries, receipts = hidden.book.context.entries, hidden.book.receipt
    shown = [(entries[index], receipts(index)) for index in (common, other)]
    for _ in range(1 if ahead else 2):
        north.book.accept(north.book.pay(ANNA, BERT, 300))
    await south.sync(reconciling, collected=tuple(shown))
    async with database.transaction() as connection:
        await connection.execute("CREATE TABLE aside AS TABLE collected_receipt")
        await connection.execute("DELETE FROM collected_receipt")
    await north.sync(reconciling)
    assert await rows_of(database) == []
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO collected_receipt TABLE aside")
    await sweep(database, ANCHOR, now_ms=NOW_MS)
    assert {row.kind for row in await rows_of(database)} == {"fork", "hidden-entry"}
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM collected_receipt") == 0


async def test_a_receipt_over_more_than_is_told_stays(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    common = north.size - 1
    for _ in range(2):
        north.book.accept(north.book.pay(ANNA, BERT, 3))
    shown = (north.book.context.entries[common], north.book.receipt(common))
    await north.sync(reconciling, end=common + 1)
    await south.sync(reconciling, collected=(shown,))
    await sweep(database, ANCHOR, now_ms=NOW_MS)
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM collected_receipt") == 1
    assert await rows_of(database) == []


async def test_more_than_a_page_is_looked_at(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling, hidden = reconciler(database), copy.deepcopy(north)
    for amount in range(1, 6):
        south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, amount))
    for _ in range(5):
        north.book.accept(north.book.pay(ANNA, BERT, 1))
    await cross(database, reconciling, north, south)
    await sweep(database, ANCHOR, now_ms=NOW_MS, page=2)
    assert await states(database) == ["hidden"] * 5
    assert (await where(database)).loss == -15
