"""Journals are checked, posted and settled; what breaks the rules changes no supply."""

from __future__ import annotations

import copy
import itertools

import msgspec
import pytest

from cloud.database import Database
from cloud.reconciler.values import Ingested
from tests.support.issuer import Key
from tests.support.reporting import SUPPLY, Branch, both, open_bank, reconciler, where
from tests.support.world import ANCHOR, NOW_MS, picture
from wallet.protocol import rules
from wallet.protocol.entry import Entry, decode_entry
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.fork import ForkKind, verify_fork
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.refusals import Code
from wallet.protocol.state import Decision

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


async def state_of(database: Database, branch: Branch) -> tuple[str, str | None]:
    """(state, reason) of the branch's epoch."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT state, reason FROM journal_epoch WHERE journal = $1", branch.book.journal
        )
    return row["state"], row["reason"]


async def evidence_of(database: Database) -> list[tuple[str, list[bytes]]]:
    """(kind, parts) of what was found, oldest first."""
    async with database.transaction() as connection:
        rows = await connection.fetch("SELECT kind, parts FROM journal_evidence ORDER BY 1")
    return [(row["kind"], row["parts"]) for row in rows]


def forged(branch: Branch, proposal: rules.Proposal) -> Entry:
    """Write what the rules do not allow, as a gateway that was broken into would."""
    book = branch.book
    loose = copy.deepcopy(book.state)
    for wallet in loose.wallets.values():
        wallet.settled += 10**6
    outcome = rules.decide(loose, proposal, book.context, now_ms=book.now_ms, clock=book.clock)
    assert isinstance(outcome, Decision)
    raw = rules.entry_bytes(book.state, outcome, time_ms=book.now_ms, clock=book.clock)
    entry = decode_entry(raw)
    book.context.append(entry)
    book.state.size += 1
    return entry


async def test_a_violation_is_rejected_and_its_payee_paid(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    good = north.book.accept(north.book.pay(ANNA, BERT, 300))
    bad = forged(north, north.book.pay(ANNA, BERT, 5_000))
    after = forged(north, north.book.pay(BERT, ANNA, 10))
    assert await north.sync(reconciling) == Ingested(acknowledged=north.size)
    assert await state_of(database, north) == ("suspended", Code.INSUFFICIENT_FUNDS)
    settlement = await north.settlement(reconciling)
    assert settlement is not None and settlement.size == north.size
    assert [(v.index, v.state, v.code) for v in settlement.verdicts] == [
        (bad.index, 3, Code.INSUFFICIENT_FUNDS),
        (after.index, 1, Code.FROZEN_BY_ISSUER),
    ]
    found = await where(database)
    assert (found.loss, found.offline, found.online) == (-5_000, 1_000, SUPPLY - 1_000 + 5_000)
    assert good.index < bad.index
    kinds = await evidence_of(database)
    assert [(kind, parts[0]) for kind, parts in kinds] == [("violation", bad.raw)]
    again = await north.sync(reconciling)
    assert again == Ingested(acknowledged=north.size, problem=Code.FROZEN_BY_ISSUER)
    restarted = reconciler(database)
    assert (await north.sync(restarted)).problem == Code.FROZEN_BY_ISSUER


async def test_an_entry_that_cannot_be_read_is_a_violation(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    north.book.context.leaves.append(leaf_hash(b"nonsense"))
    north.book.context.entries.append(b"nonsense")
    assert await north.sync(reconciling) == Ingested(acknowledged=north.size)
    assert await state_of(database, north) == ("suspended", Code.NOT_CANONICAL)
    found = await where(database)
    assert (found.loss, found.offline) == (0, 1_000)


async def fork_at_the_end(north: Branch) -> VerifiedUp:
    """The same journal with another last entry, under a checkpoint of its own."""
    other = copy.deepcopy(north)
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    other.book.accept(other.book.pay(ANNA, BERT, 200))
    return other.report(first=0)


async def test_another_entry_at_a_held_index_is_a_fork_with_proof(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    up = await fork_at_the_end(north)
    await north.sync(reconciling)
    answer = await reconciling.ingest(up, now_ms=NOW_MS)
    assert answer == Ingested(acknowledged=north.size, problem=Code.PROOF_INVALID)
    ((kind, (proof,)),) = await evidence_of(database)
    assert kind == "fork"
    assert verify_fork(proof, root=ANCHOR, grace_s=0).kind is ForkKind.INDEX
    assert await state_of(database, north) == ("suspended", Code.PROOF_INVALID)


async def test_two_roots_at_one_size_are_a_fork_with_proof(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    up = await fork_at_the_end(north)
    await north.sync(reconciling)
    lone = msgspec.structs.replace(
        north.report(first=north.size), claims=north.report(checkpoint=up.claims.checkpoint).claims
    )
    answer = await reconciling.ingest(lone, now_ms=NOW_MS)
    assert answer.problem == Code.PROOF_INVALID
    ((_, (proof,)),) = await evidence_of(database)
    assert verify_fork(proof, root=ANCHOR, grace_s=0).kind is ForkKind.SIZE


async def test_a_counter_that_falls_is_a_fork_with_proof(database: Database, north: Branch) -> None:
    reconciling = reconciler(database)
    await north.sync(reconciling, checkpoint=north.checkpoint(counter=7))
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    answer = await north.sync(reconciling, checkpoint=north.checkpoint(counter=6))
    assert answer.problem == Code.FROZEN_ROLLBACK
    ((_, (proof,)),) = await evidence_of(database)
    assert verify_fork(proof, root=ANCHOR, grace_s=0).kind is ForkKind.COUNTER


async def test_a_checkpoint_over_other_entries_convicts_without_proof(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    up = await fork_at_the_end(north)
    answer = await north.sync(reconciling, checkpoint=up.claims.checkpoint)
    assert answer == Ingested(acknowledged=0, problem=Code.PROOF_INVALID)
    ((_, parts),) = await evidence_of(database)
    assert parts[2:] == north.book.context.entries


@pytest.mark.parametrize("collected_first", [False, True])
async def test_a_hidden_entry_is_found_by_its_receipt(
    database: Database, north: Branch, south: Branch, collected_first: bool
) -> None:
    reconciling = reconciler(database)
    hidden = copy.deepcopy(north)
    entry = hidden.book.accept(hidden.book.pay(ANNA, BERT, 200))
    receipt = (entry.raw, hidden.book.receipt(entry.index))
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    reports = [north.report(), south.report(collected=(receipt, (b"bad", b"receipt")))]
    for up in reversed(reports) if collected_first else reports:
        assert (await reconciling.ingest(up, now_ms=NOW_MS)).problem is None
    assert await state_of(database, north) == ("suspended", Code.PROOF_INVALID)
    assert (await state_of(database, south))[0] == "open"
    ((kind, (proof,)),) = await evidence_of(database)
    assert kind == "hidden-entry"
    assert verify_fork(proof, root=ANCHOR, grace_s=0).kind is ForkKind.INDEX


@pytest.mark.parametrize("early", [False, True])
async def test_a_note_of_a_hidden_entry_is_borne_by_the_issuer(
    database: Database, north: Branch, south: Branch, early: bool
) -> None:
    reconciling = reconciler(database)
    hidden = copy.deepcopy(north)
    south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, 250))
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    for branch in (south, north) if early else (north, south):
        assert (await branch.sync(reconciling)).problem is None
    assert await state_of(database, north) == ("suspended", Code.PROOF_INVALID)
    assert (await state_of(database, south))[0] == "open"
    found = await where(database)
    assert found.offline == 1_250
    assert (found.suspense, found.loss) == (0, -250)


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
    reconciling.close()
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


@pytest.mark.parametrize("entries", [(), (b"one", b"two")])
async def test_a_checkpoint_of_another_size_is_a_bad_upload(
    database: Database, north: Branch, entries: tuple[bytes, ...]
) -> None:
    answer = await north.sync(reconciler(database), entries=entries)
    assert answer == Ingested(acknowledged=0, problem=Code.PROOF_INVALID)
    assert (await state_of(database, north))[0] == "open"


async def test_a_checkpoint_of_another_journal_is_a_bad_upload(
    database: Database, north: Branch, south: Branch
) -> None:
    answer = await north.sync(
        reconciler(database), entries=(), checkpoint=south.checkpoint(leaves=[])
    )
    assert answer == Ingested(acknowledged=0, problem=Code.PROOF_INVALID)
