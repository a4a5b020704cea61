"""Every cheat is found, kept, and proven to somebody who has the issuer's root and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cloud.database import Database
from cloud.evidence.proofs import piece_of, proof_of
from cloud.evidence.rows import EvidenceError, Row
from cloud.reconciler.evidence import ROWS_MAX, Evidence, suspend
from tests.support.breaches import body_of, forge, place, write
from tests.support.convictions import exported, rows_of, third_party
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank, reconciler, where
from tests.support.world import ANCHOR, DAY_MS, ISSUER, NOW_MS
from wallet.protocol.entry import Close, EntryKind
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code

ANNA, BERT, CARA, DORA = Key("anna"), Key("bert"), Key("cara"), Key("dora")
STALE = {JournalLimit.REVOCATION_AGE_HARD_S: 3_600}


@pytest.fixture
async def north(database: Database) -> Branch:
    """A journal of Anna, who has 1,000, and Bert."""
    await open_bank(database)
    branch = Branch("north", journal=STALE)
    branch.enrol(ANNA, BERT)
    await branch.fund(database, ANNA, 1_000)
    return branch


@pytest.fixture
def south() -> Branch:
    """A journal of Cara and Dora, who have nothing."""
    branch = Branch("south")
    branch.enrol(CARA, DORA)
    return branch


async def proven(database: Database, folder: Path, branch: Branch) -> tuple[Row, str]:
    """The one row against this branch, and the kind of proof that a third party has accepted."""
    (row,) = await rows_of(database)
    assert (row.journal, row.state) == (branch.book.journal, "suspended")
    proof, path = await exported(database, ANCHOR, row, folder)
    assert (proof.journal, proof.epoch) == (branch.book.journal, branch.book.epoch)
    assert third_party(ISSUER.root, path) == 0
    return row, proof.kind


# ---- violations -----------------------------------------------------------------------------


def overdraw(north: Branch) -> None:
    forge(north.book, north.book.pay(ANNA, BERT, 50_000))


def use_twice(north: Branch) -> None:
    """Another order under a sequence that was used."""
    double = copy.deepcopy(north)
    north.book.accept(north.book.pay(ANNA, BERT, 10))
    entry = double.book.accept(double.book.pay(ANNA, BERT, 20))
    write(north.book, place(north.book, EntryKind.PAY, body_of(entry)))


def use_again(north: Branch) -> None:
    """The very same order: its payee has been paid."""
    entry = north.book.accept(north.book.pay(ANNA, BERT, 10))
    write(north.book, place(north.book, EntryKind.PAY, body_of(entry)))


def go_back(north: Branch) -> None:
    north.book.now_ms += 10_000
    north.book.accept(north.book.pay(ANNA, BERT, 10))
    forge(north.book, north.book.pay(ANNA, BERT, 20), time_ms=north.book.now_ms - 1)


def date_back(north: Branch) -> None:
    """An order of tomorrow in an entry of today."""
    north.book.now_ms += DAY_MS
    forge(north.book, north.book.pay(ANNA, BERT, 20), time_ms=NOW_MS)


def expire(north: Branch) -> None:
    forge(north.book, north.book.pay(ANNA, BERT, 20), time_ms=NOW_MS + 2 * DAY_MS)


def scribble(north: Branch) -> None:
    write(north.book, b"nonsense")


def trust_old_lists(north: Branch) -> None:
    """A note leaves two hours after the lists of revocations were seen last."""
    book, other = north.book, Branch("south").book
    late = book.now_ms + 2 * 3_600_000
    order = book.pay(ANNA, CARA, 20, payee_journal=other.journal, expires_ms=late + DAY_MS)
    forge(book, order, time_ms=late)


# What the issuer pays to payees who kept to the policy: not twice for one order, nor for no order.
PAID: dict[Callable[[Branch], None], int] = {
    overdraw: -50_000,
    use_twice: -20,
    use_again: 0,
    go_back: -20,
    date_back: -20,
    expire: -20,
    scribble: 0,
    trust_old_lists: 0,
}


@pytest.mark.parametrize(
    ("cheat", "kind", "code", "proof"),
    [
        (overdraw, "violation", Code.INSUFFICIENT_FUNDS, "breach-replay"),
        (use_twice, "violation", Code.SEQUENCE_USED, "breach-pair"),
        (use_again, "violation", Code.SEQUENCE_USED, "breach-pair"),
        (go_back, "time-travel", Code.MALFORMED, "breach-pair"),
        (date_back, "time-travel", Code.ORDER_FROM_THE_FUTURE, "breach-entry"),
        (expire, "violation", Code.ORDER_EXPIRED, "breach-entry"),
        (scribble, "violation", Code.NOT_CANONICAL, "breach-entry"),
        (trust_old_lists, "stale-lists", Code.LISTS_STALE, "breach-replay"),
    ],
)
async def test_a_broken_rule_is_found_and_proven(
    database: Database,
    north: Branch,
    tmp_path: Path,
    cheat: Callable[[Branch], None],
    kind: str,
    code: str,
    proof: str,
) -> None:
    reconciling = reconciler(database)
    north.book.accept(north.book.pay(ANNA, BERT, 1))
    await north.sync(reconciling)
    cheat(north)
    assert (await north.sync(reconciling)).problem is None
    row, made = await proven(database, tmp_path, north)
    assert (row.kind, row.code, made) == (kind, code, proof)
    assert (await where(database)).loss == PAID[cheat]


# ---- notes ----------------------------------------------------------------------------------


async def test_a_note_that_is_replayed_is_found_and_proven(
    database: Database, north: Branch, south: Branch, tmp_path: Path
) -> None:
    reconciling = reconciler(database)
    first = south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await north.sync(reconciling)
    await south.sync(reconciling)
    entry = south.book.context.read[first]
    write(south.book, place(south.book, EntryKind.TRANSFER_IN, body_of(entry)))
    await south.sync(reconciling)
    row, kind = await proven(database, tmp_path, south)
    assert (row.kind, row.code, kind) == ("note-replayed", Code.NOTE_REDEEMED, "breach-pair")
    found = await where(database)
    assert (found.offline, found.loss) == (1_000, 0)


async def test_a_note_that_is_replayed_in_a_later_epoch_convicts_before_the_issuer_alone(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    note = north.pay_out(ANNA, CARA, south, 250)
    south.take_in(north, note)
    await north.sync(reconciling)
    await south.sync(reconciling)
    later = Branch("south", epoch=2)
    later.enrol(CARA)
    later.take_in(north, note)
    await later.sync(reconciling)
    (row,) = await rows_of(database)
    assert (row.kind, row.epoch) == ("note-replayed", 2)
    async with database.transaction() as connection:
        with pytest.raises(EvidenceError, match="not-proven"):
            await proof_of(connection, ANCHOR, row, now_ms=NOW_MS)
    found = await where(database)
    assert (found.offline, found.loss) == (1_250, -250)


# ---- forks and hidden entries ---------------------------------------------------------------


async def test_an_older_checkpoint_of_another_tree_is_a_fork_by_extension(
    database: Database, north: Branch, tmp_path: Path
) -> None:
    reconciling = reconciler(database)
    other = copy.deepcopy(north)
    for _ in range(5):
        north.book.accept(north.book.pay(ANNA, BERT, 7))
    for _ in range(3):
        other.book.accept(other.book.pay(ANNA, BERT, 3))
    await north.sync(reconciling)
    size = other.size
    lone = north.report(first=size, end=size, checkpoint=other.checkpoint())
    assert (await reconciling.ingest(lone, now_ms=NOW_MS)).problem == Code.PROOF_INVALID
    row, kind = await proven(database, tmp_path, north)
    assert (row.kind, kind) == ("fork", "fork-extension")


@pytest.mark.parametrize("told_first", [False, True])
@pytest.mark.parametrize("ahead", [0, 2])
async def test_a_receipt_of_an_entry_that_is_told_in_a_tree_that_is_not_is_a_fork(
    database: Database,
    north: Branch,
    south: Branch,
    tmp_path: Path,
    told_first: bool,
    ahead: int,
) -> None:
    reconciling = reconciler(database)
    common = north.book.accept(north.book.pay(ANNA, BERT, 1)).index
    other = copy.deepcopy(north)
    other.book.accept(other.book.pay(ANNA, BERT, 3))
    for _ in range(1 + ahead):
        north.book.accept(north.book.pay(ANNA, BERT, 7))
    receipt = (north.book.context.entries[common], other.book.receipt(common))
    reports = [north.report(), south.report(collected=(receipt,))]
    for up in reports if told_first else reversed(reports):
        assert (await reconciling.ingest(up, now_ms=NOW_MS)).problem is None
    row, kind = await proven(database, tmp_path, north)
    assert (row.kind, kind) == ("fork", "fork-extension" if ahead else "fork-size")


async def test_a_receipt_over_more_than_is_told_waits_for_the_rest(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    common = north.book.accept(north.book.pay(ANNA, BERT, 1)).index
    for _ in range(3):
        north.book.accept(north.book.pay(ANNA, BERT, 7))
    receipt = (north.book.context.entries[common], north.book.receipt(common))
    await north.sync(reconciling, end=common + 1)
    await south.sync(reconciling, collected=(receipt,))
    for end in (north.size - 1, north.size):
        assert await waiting(database) == 1
        await north.sync(reconciling, end=end)
    assert (await waiting(database), await rows_of(database)) == (0, [])


async def waiting(database: Database) -> int:
    """Receipts that wait for their journal."""
    async with database.transaction() as connection:
        found: int = await connection.fetchval("SELECT count(*) FROM collected_receipt")
    return found


async def test_roots_are_computed_where_older_segments_have_no_peaks(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    common = north.book.accept(north.book.pay(ANNA, BERT, 1)).index
    receipt = (north.book.context.entries[common], north.book.receipt(common))
    await north.sync(reconciling, end=3)
    north.book.accept(north.book.pay(ANNA, BERT, 7))
    await north.sync(reconciling)
    async with database.transaction() as connection:
        await connection.execute("ALTER TABLE journal_segment DISABLE TRIGGER USER")
        await connection.execute("UPDATE journal_segment SET peaks = NULL")
    await south.sync(reconciling, collected=(receipt,))
    assert await rows_of(database) == []


async def test_two_notes_of_one_place_convict_a_journal_that_never_told(
    database: Database, north: Branch, south: Branch, tmp_path: Path
) -> None:
    reconciling = reconciler(database)
    other, west = copy.deepcopy(north), Branch("west")
    west.enrol(DORA)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    west.take_in(other, other.pay_out(ANNA, DORA, west, 300))
    await south.sync(reconciling)
    await west.sync(reconciling)
    row, kind = await proven(database, tmp_path, north)
    assert (row.kind, kind) == ("hidden-entry", "fork-index")
    found = await where(database)
    assert (found.offline, found.suspense, found.loss) == (550, -250, -300)


async def test_two_notes_of_one_place_convict_an_epoch_that_was_over_before_it_told(
    database: Database, north: Branch, south: Branch, tmp_path: Path
) -> None:
    reconciling = reconciler(database)
    other, west = copy.deepcopy(north), Branch("west")
    west.enrol(DORA)
    await Branch("north", epoch=2).sync(reconciling)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    west.take_in(other, other.pay_out(ANNA, DORA, west, 300))
    await south.sync(reconciling)
    await west.sync(reconciling)
    row, _ = await proven(database, tmp_path, north)
    assert row.kind == "hidden-entry"


@pytest.mark.parametrize("told_first", [False, True])
async def test_a_receipt_of_an_entry_behind_the_end_of_the_epoch_convicts(
    database: Database, north: Branch, south: Branch, tmp_path: Path, told_first: bool
) -> None:
    reconciling = reconciler(database)
    hidden = copy.deepcopy(north)
    for amount in (1, 2):
        entry = hidden.book.accept(hidden.book.pay(ANNA, BERT, amount))
    shown = (entry.raw, hidden.book.receipt(entry.index))
    north.book.accept(Close(reason=0))
    assert entry.index == north.size
    reports = [north.report(), south.report(collected=(shown,))]
    for up in reports if told_first else reversed(reports):
        assert (await reconciling.ingest(up, now_ms=NOW_MS)).problem is None
    row, kind = await proven(database, tmp_path, north)
    assert (row.kind, row.code, kind) == ("hidden-entry", Code.WRONG_JOURNAL, "breach-pair")


async def test_a_settlement_behind_the_end_of_the_epoch_is_in_order(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    north.book.accept(Close(reason=0))
    await north.sync(reconciling)
    settlement = await north.settle(reconciling)
    assert settlement.size == north.size - 1
    last = north.size - 1
    shown = (north.book.context.entries[last], north.book.receipt(last))
    await south.sync(reconciling, collected=(shown,))
    await north.sync(reconciling)
    await north.sync(reconciling)
    assert (await rows_of(database), await waiting(database)) == ([], 0)


# ---- rows -----------------------------------------------------------------------------------


async def test_the_same_evidence_is_kept_once_and_of_one_kind_not_without_end(
    database: Database, north: Branch, south: Branch
) -> None:
    reconciling = reconciler(database)
    hidden = copy.deepcopy(north)
    entry = hidden.book.accept(hidden.book.pay(ANNA, BERT, 200))
    receipt = (entry.raw, hidden.book.receipt(entry.index))
    north.book.accept(north.book.pay(ANNA, BERT, 300))
    await north.sync(reconciling)
    for _ in range(2):
        await south.sync(reconciling, collected=(receipt, receipt))
    (row,) = await rows_of(database)
    async with database.transaction() as connection:
        for number in range(2 * ROWS_MAX):
            parts = (number.to_bytes(2, "big"),)
            found = Evidence(kind=row.kind, code=row.code, index=0, parts=parts)
            await suspend(connection, row.epoch_id, found, now_ms=NOW_MS)
    assert len(await rows_of(database)) == ROWS_MAX
    # What comes after that convicts nobody twice.
    more = hidden.book.accept(hidden.book.pay(ANNA, BERT, 1))
    again = (more.raw, hidden.book.receipt(more.index))
    await south.sync(reconciling, collected=(receipt, again))
    assert len(await rows_of(database)) == ROWS_MAX


async def test_a_proof_that_was_damaged_where_it_is_kept_is_none(
    database: Database, north: Branch, tmp_path: Path
) -> None:
    scribble(north)
    await north.sync(reconciler(database))
    row, _ = await proven(database, tmp_path, north)
    async with database.transaction() as connection:
        await connection.execute("ALTER TABLE evidence_proof DISABLE TRIGGER USER")
        await connection.execute("UPDATE evidence_proof SET proof = 'x'")
        with pytest.raises(EvidenceError, match="damaged"):
            await proof_of(connection, ANCHOR, row, now_ms=NOW_MS)
        other = msgspec.structs.replace(row, evidence_id=99)
        with pytest.raises(EvidenceError, match="not made yet"):
            await piece_of(connection, other, offset=0)
        assert await piece_of(connection, row, offset=10**15) == b""


async def test_what_convinces_nobody_but_the_issuer_says_so(
    database: Database, north: Branch
) -> None:
    await north.sync(reconciler(database))
    async with database.transaction() as connection:
        epoch_id = await connection.fetchval("SELECT epoch_id FROM journal_epoch")
        for index in (None, 2, 99):
            found = Evidence(
                kind="violation", code="malformed", index=index, parts=(b"x", bytes([index or 0]))
            )
            await suspend(connection, epoch_id, found, now_ms=NOW_MS + (index or 0))
        lone = Evidence(kind="attestation", code="malformed", index=None, parts=(b"x",))
        await suspend(connection, epoch_id, lone, now_ms=NOW_MS)
    for row in await rows_of(database):
        async with database.transaction() as connection:
            with pytest.raises(EvidenceError, match="not-proven"):
                await proof_of(connection, ANCHOR, row, now_ms=NOW_MS)
