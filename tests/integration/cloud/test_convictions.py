"""What convicts a journal: violations, forks, hidden entries; its evidence, and who is paid."""

from __future__ import annotations

import copy

import msgspec
import pytest

from cloud.database import Database
from cloud.reconciler.values import Ingested
from tests.support.issuer import Key
from tests.support.reporting import SUPPLY, Branch, open_bank, reconciler, where
from tests.support.world import ANCHOR, NOW_MS, list_of
from wallet.protocol import rules
from wallet.protocol.entry import Entry, decode_entry
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.evidence import verify_evidence
from wallet.protocol.fork import ForkKind, verify_fork
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
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


async def test_a_checkpoint_over_other_entries_is_proven_by_the_report_itself(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    up = await fork_at_the_end(north)
    answer = await north.sync(reconciling, checkpoint=up.claims.checkpoint)
    assert answer == Ingested(acknowledged=0, problem=Code.PROOF_INVALID)
    ((_, (proof,)),) = await evidence_of(database)
    assert verify_evidence(proof, root=ANCHOR).kind == "breach-report"


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


async def test_a_note_is_not_redeemed_again_in_a_later_epoch(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    note = north.pay_out(ANNA, CARA, south, 250)
    south.take_in(north, note)
    await north.sync(reconciling)
    await south.sync(reconciling)
    later = Branch("south", epoch=2)
    later.enrol(CARA)
    index = later.take_in(north, note)
    await later.sync(reconciling)
    settlement = await later.settlement(reconciling)
    assert settlement is not None
    assert [(v.index, v.state, v.code) for v in settlement.verdicts] == [
        (index, 3, Code.NOTE_REDEEMED)
    ]
    found = await where(database)
    assert (found.offline, found.loss) == (1_250, -250)


async def test_a_refund_of_nothing_and_a_list_of_nobody_are_violations(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    lists = north.book.submit(list_of(ListId.WALLETS, []))
    assert isinstance(lists, Entry)
    # An issuer that was restored may have forgotten the list: the journal has to show it, once.
    answer = await north.sync(reconciling)
    assert answer == Ingested(acknowledged=0, problem=Code.PARENT_MISSING)
    await north.sync(reconciling, health={"lists": [b"\x80", 7]})
    assert await state_of(database, north) == ("suspended", Code.PARENT_MISSING)


async def test_two_notes_of_one_index_convict_their_journal(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    hidden = copy.deepcopy(north)
    south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, 250))
    north.pay_out(ANNA, CARA, south, 100)
    await north.sync(reconciling)
    await south.sync(reconciling)
    assert await state_of(database, north) == ("suspended", Code.PROOF_INVALID)
    found = await where(database)
    assert (found.offline, found.transit_notes, found.loss) == (1_150, 100, -250)


async def test_nobody_is_paid_for_a_payment_to_a_stranger(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database)
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    stranger = copy.deepcopy(north)
    stranger.enrol(CARA)
    order = stranger.book.pay(ANNA, CARA, 10)
    outcome = stranger.book.decide(order)
    assert isinstance(outcome, Decision)
    raw = rules.entry_bytes(
        north.book.state, outcome, time_ms=north.book.now_ms, clock=north.book.clock
    )
    north.book.context.append(decode_entry(raw))
    await north.sync(reconciling)
    assert await state_of(database, north) == ("suspended", Code.UNKNOWN_WALLET)
    assert (await where(database)).loss == 0
