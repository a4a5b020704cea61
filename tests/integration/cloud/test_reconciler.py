"""Journals are checked, posted and settled; what breaks the rules changes no supply."""

from __future__ import annotations

import itertools

import pytest

from cloud.database import Connection, Database
from cloud.errors import DatabaseError
from cloud.reconciler.returns import return_expired_notes
from cloud.reconciler.settling import settle_entry
from cloud.reconciler.values import Ingested, ReconcilerError, Segment
from tests.support.issuer import Key
from tests.support.reporting import SUPPLY, Branch, both, open_bank, reconciler, where
from tests.support.world import DAY_MS, NOW_MS, list_of, picture
from wallet.protocol.entry import Entry, EntryKind
from wallet.protocol.lists import ListId, SignedList
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit
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


async def test_reports_of_two_journals_at_once_agree(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    for amount in range(1, 20):
        south.take_in(north, north.pay_out(ANNA, CARA, south, amount))
        north.take_in(south, south.pay_out(CARA, ANNA, north, 1))
    await both(*[branch.sync(reconciling) for branch in (north, south)])
    found = await where(database)
    assert (found.offline, found.in_transit, found.suspense) == (1_000, 0, 0)
    # Replicas that are rebuilt from what is stored go on as the others did.
    reconciling = reconciler(database)
    await both(*[branch.sync(reconciling) for branch in (north, south)])
    assert (await south.settle(reconciling)).verdicts == ()
    assert (await north.settle(reconciling)).verdicts == ()


async def test_segments_of_one_journal_may_be_under_way_together(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database, workers=1)
    paid = [north.book.accept(north.book.pay(ANNA, BERT, 1)) for _ in range(120)]
    cuts = [0, 4, 40, 44, 90, north.size]
    reports = [north.report(first, end) for first, end in itertools.pairwise(cuts)]
    answers = await both(*[reconciling.ingest(up, now_ms=NOW_MS) for up in reports])
    assert [answer.acknowledged for answer in answers] == cuts[1:]
    leaf = leaf_hash(paid[3].raw)
    refund = north.book.pay(BERT, ANNA, 1, kind=OrderKind.REFUND, refunded=leaf)
    north.book.accept(refund)
    assert await north.sync(reconciler(database), first=north.size - 1) == Ingested(
        acknowledged=north.size
    )
    await reconciling.close()
    await where(database)


async def test_a_report_ahead_of_what_is_held_learns_the_size(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    answer = await reconciling.ingest(north.report(first=2), now_ms=NOW_MS)
    assert answer == Ingested(acknowledged=0)
    await north.sync(reconciling)
    north.book.accept(north.book.pay(ANNA, BERT, 1))
    answer = await reconciling.ingest(north.report(first=1), now_ms=NOW_MS)
    assert answer == Ingested(acknowledged=north.size)
    answer = await reconciling.ingest(north.report(first=2, end=2), now_ms=NOW_MS)
    assert answer == Ingested(acknowledged=north.size)


async def test_an_epoch_that_was_followed_is_closed(database: Database, north: Branch) -> None:
    reconciling = reconciler(database)
    await north.sync(reconciling)
    later = Branch("north", epoch=2)
    await later.sync(reconciling)
    assert (await north.sync(reconciling)).problem == Code.WRONG_JOURNAL
    assert (await north.sync(reconciler(database))).problem == Code.WRONG_JOURNAL
    before = Branch("north", epoch=0)
    assert await before.sync(reconciling) == Ingested(acknowledged=0, problem=Code.WRONG_JOURNAL)


@pytest.mark.parametrize("late", [False, True])
async def test_a_note_that_nobody_redeems_comes_back_after_the_claims_window(
    database: Database, south: Branch, late: bool
) -> None:
    await open_bank(database)
    north = Branch("north", journal={JournalLimit.CLAIMS_WINDOW_S: 60})
    north.enrol(ANNA)
    await north.fund(database, ANNA, 1_000)
    reconciling = reconciler(database)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await north.sync(reconciling)
    due_ms = NOW_MS + DAY_MS + 60_000
    assert await return_expired_notes(database, now_ms=due_ms - 1) == 0
    assert await return_expired_notes(database, now_ms=due_ms) == 1
    assert await return_expired_notes(database, now_ms=due_ms) == 0
    found = await where(database)
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 750, 750, 0)
    if late:
        # It had been redeemed in time: the payee is paid, and the issuer bears it.
        await south.sync(reconciling)
        assert (await south.settle(reconciling)).verdicts == ()
        found = await where(database)
        assert (found.offline, found.loss) == (1_000, -250)


async def test_a_statement_carries_balances_into_the_next_epoch(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    north.enrol(CARA)
    await north.sync(reconciling)
    carried = [(ANNA.public.id, 1_000), (BERT.public.id, 0)]
    later = Branch("north", epoch=2, statement=north.book.statement(carried))
    await later.sync(reconciling)
    assert (await where(database)).offline == 1_000
    async with database.transaction() as connection:
        assert (
            await connection.fetchval(
                "SELECT balance FROM ledger_account WHERE name LIKE 'offline/%/2/%' AND balance > 0"
            )
            == 1_000
        )


class HoldPays:
    """A compliance that holds every pay."""

    async def review(self, connection: Connection, segment: Segment) -> dict[int, str]:
        """See `Compliance`."""
        pays = [entry.index for entry in segment.entries if entry.kind == EntryKind.PAY]
        return dict.fromkeys(pays, "watched")


async def test_what_compliance_holds_is_named_until_it_is_decided(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database, compliance=HoldPays())
    entry = north.book.accept(north.book.pay(ANNA, BERT, 300))
    await north.sync(reconciling)
    settlement = await north.settle(reconciling)
    assert [(v.index, v.state, v.code) for v in settlement.verdicts] == [
        (entry.index, 1, "watched")
    ]
    async with database.transaction() as connection:
        found = await connection.fetchval("SELECT epoch_id FROM journal_epoch")
        # It waits for a person, not for a parent.
        given = {"epoch_id": found, "index": entry.index, "now_ms": NOW_MS}
        assert not await settle_entry(connection, **given)
        await connection.execute("UPDATE verdict SET state = 'settled', told = false")
    await north.sync(reconciling)
    assert (await north.settle(reconciling)).verdicts == ()


async def test_a_restart_goes_on_from_a_snapshot(database: Database, north: Branch) -> None:
    reconciling = reconciler(database, snapshot_entries=10)
    for _ in range(3):
        paid = [north.book.accept(north.book.pay(ANNA, BERT, 2)) for _ in range(8)]
        await north.sync(reconciling)
    leaf = leaf_hash(paid[0].raw)
    for amount in (1, 1):
        refund = north.book.pay(BERT, ANNA, amount, kind=OrderKind.REFUND, refunded=leaf)
        north.book.accept(refund)
    lists = north.book.submit(list_of(ListId.WALLETS, []))
    assert isinstance(lists, Entry)
    await publish(database, list_of(ListId.WALLETS, []))
    await north.sync(reconciling)
    again = reconciler(database)
    north.book.accept(north.book.pay(ANNA, BERT, 2))
    assert await north.sync(again) == Ingested(acknowledged=north.size)
    replica = again._replicas[north.book.journal, 1]
    assert picture(replica.state) == picture(north.book.state)


async def publish(database: Database, listed: SignedList) -> None:
    """A list as the issuer keeps it."""
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO issued_object VALUES ($1, $2, $3, $4, $5)",
            *(f"list/{listed.list_id}", listed.sequence, listed.signed.raw),
            *(listed.base is None, listed.issued_ms),
        )


async def test_a_large_list_is_held_once_and_a_restart_puts_it_together(
    database: Database, north: Branch, south: Branch
) -> None:
    revoked = [number.to_bytes(20, "big") for number in range(5_000)]
    full = list_of(ListId.WALLETS, revoked)
    delta = list_of(ListId.WALLETS, [[b"\xff" * 20], revoked[:1]], sequence=1, base=full.hash)
    for listed in (full, delta):
        await publish(database, listed)
        for branch in (north, south):
            branch.book.accept(listed)
    reconciling = reconciler(database, snapshot_entries=1)
    held = []
    for again in (reconciling, reconciler(database)):
        for branch in (north, south):
            assert await branch.sync(again) == Ingested(acknowledged=branch.size)
            state = again._replicas[branch.book.journal, 1].state
            assert picture(state) == picture(branch.book.state)
            held.append(state.lists[ListId.WALLETS])
    assert all(item is held[0] for item in held) and len(held[0].items) == 5_000
    async with database.transaction() as connection:
        sizes = await connection.fetch("SELECT length(snapshot) AS bytes FROM journal_snapshot")
        assert all(row["bytes"] < 20_000 for row in sizes) and len(sizes) == 2
        await connection.execute("ALTER TABLE issued_object DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM issued_object WHERE sequence = 0")
    del again, held, state, reconciling
    with pytest.raises(ReconcilerError, match="list 2 is missing"):
        await north.sync(reconciler(database))


async def test_what_is_stored_and_what_is_computed_must_agree(
    database: Database, north: Branch
) -> None:
    await north.sync(reconciler(database))
    async with database.transaction() as connection:
        await connection.execute("UPDATE journal_epoch SET root = $1", bytes(32))
    with pytest.raises(ReconcilerError, match="root"):
        await north.sync(reconciler(database))
    async with database.transaction() as connection:
        await connection.execute("UPDATE journal_epoch SET size = size + 1")
    with pytest.raises(ReconcilerError, match="missing"):
        await north.sync(reconciler(database))


async def test_a_replica_that_another_process_overtook_is_loaded_anew(
    database: Database, north: Branch
) -> None:
    one, other = reconciler(database), reconciler(database)
    await north.sync(one)
    await north.sync(other)
    for turn in (one, other, one):
        north.book.accept(north.book.pay(ANNA, BERT, 2))
        assert await north.sync(turn) == Ingested(acknowledged=north.size)
    assert await north.sync(other) == Ingested(acknowledged=north.size)
    await where(database)


async def test_a_journal_that_never_reported_has_no_settlement(database: Database) -> None:
    assert await reconciler(database).settlements_after(bytes(20), 1, 0) == []


class Stumbling:
    """A compliance whose database connection dies under it, once."""

    def __init__(self) -> None:
        self.stumbled = False

    async def review(self, connection: Connection, segment: Segment) -> dict[int, str]:
        """See `Compliance`."""
        if not self.stumbled:
            self.stumbled = True
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return {}


async def test_a_transaction_that_dies_leaves_nothing_and_is_done_again(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database, compliance=Stumbling())
    up = north.report()
    with pytest.raises(DatabaseError, match="database-unavailable"):
        await reconciling.ingest(up, now_ms=NOW_MS)
    assert (await where(database)).offline == 0
    assert await reconciling.ingest(up, now_ms=NOW_MS) == Ingested(acknowledged=north.size)
    assert (await where(database)).offline == 1_000
