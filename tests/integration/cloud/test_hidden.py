"""Entries that a gateway gave receipts for and hid: whoever kept to the policy is paid, once."""

from __future__ import annotations

import copy

import pytest

from cloud.database import Database
from cloud.reconciler.returns import return_expired_notes
from edge.pos.purse import DeviceKey
from tests.support.convictions import rows_of
from tests.support.issuer import Key
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    Box,
    Story,
    exchanged,
    forgotten,
    paid,
    redeemed,
)
from tests.support.reporting import Branch as Written
from tests.support.reporting import open_bank, reconciler, where
from tests.support.world import DAY_MS, NOW_MS
from wallet.journal import Receipted
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code

DORA, EMIL, FINN = Key("dora"), Key("emil"), Key("finn")


async def suspended(story: Story) -> list[bytes]:
    """Journals that are."""
    found: list[bytes] = []
    for _, database in story.cloud.cloud.shards:
        async with database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT journal FROM journal_epoch WHERE state = 'suspended'"
            )
        found += [row["journal"] for row in rows]
    return found


async def owned(story: Story, box: Box, *holders: DeviceKey) -> list[int]:
    """What the wallets of holders come to in the first epoch of a gateway."""
    async with story.books.transaction() as connection:
        rows = await connection.fetch("SELECT name, balance FROM ledger_account")
    held = {row["name"]: row["balance"] for row in rows}
    lead = f"offline/{journal_text(box.journal)}/1"
    return [held[f"{lead}/{wallet_text(WalletId(each.public.id))}"] for each in holders]


async def fill(story: Story, box: Box) -> None:
    """Another entry takes the place of what was hidden: a grant of 50 to Bert."""
    await story.fund(box, BERT, 50)
    await box.sync()


async def test_a_payee_of_a_payment_that_its_gateway_hid_gets_it_of_the_payer(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    await fill(story, north)
    assert await suspended(story) == []
    assert await story.hand_in(hidden) == ["taken"]
    assert await story.hand_in(hidden) == ["known"]
    assert await suspended(story) == [north.journal]
    closure = await story.closed(north, cause="compromised")
    await story.pass_window(closure)
    made = await story.stated(closure)
    assert (made["carried"], made["borne"], made["counted"]) == (1_050, 0, 1)
    assert await owned(story, north, ANNA, BERT) == [700, 350]
    found = await story.where()
    assert (found.loss, found.in_transit, found.suspense) == (0, 0, 0)


async def test_a_receipt_that_came_before_its_journal_told_of_another_entry_is_a_claim_too(
    story: Story, north: Box, south: Box
) -> None:
    async with forgotten(north) as branch:
        hidden, more = [await paid(branch, ANNA, BERT, amount) for amount in (300, 20)]
    assert await story.hand_in(hidden) == ["taken"]
    await fill(story, north)
    assert await suspended(story) == [north.journal]
    closure = await story.closed(north, cause="compromised")
    await story.pass_window(closure)
    made = await story.stated(closure)
    assert (made["counted"], made["borne"]) == (1, 0)
    # What comes after the statement is evidence and no claim.
    assert await story.hand_in(more, hidden) == ["late", "known"]
    assert await owned(story, north, ANNA, BERT) == [700, 350]


async def test_who_signs_twice_under_one_sequence_is_no_fault_of_the_payee(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    async with north.running(offline=True) as branch:
        await paid(branch, ANNA, ANNA, 10, kind=OrderKind.REDEEM)
    await north.sync()
    assert await story.hand_in(hidden) == ["taken"]
    closure = await story.closed(north, cause="compromised")
    await story.pass_window(closure)
    made = await story.stated(closure)
    assert (made["carried"], made["borne"], made["counted"]) == (1_290, 300, 1)
    assert await owned(story, north, ANNA, BERT) == [990, 300]
    assert (await story.where()).loss == -300


async def test_an_order_that_was_sent_again_is_paid_once(story: Story, north: Box) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    await fill(story, north)
    body = decode_entry(hidden.entry).body
    assert isinstance(body, Payment)
    async with north.running() as branch:
        again = await branch.opened.journal.pay(body.order.signed.raw)
        assert isinstance(again, Receipted) and again.index != hidden.index
        await exchanged(branch)
    assert await story.hand_in(hidden) == ["taken"]
    closure = await story.closed(north, cause="compromised")
    await story.pass_window(closure)
    draft = await story.statement_draft(closure)
    assert (draft["counted"], draft["refused"], draft["borne"]) == (0, 1, 0)
    one = f"/v1/issuer/statements/{draft['statement_id']}"
    _, page = await story.first.get(f"{one}/claims")
    assert [claim["code"] for claim in page["claims"]] == [Code.SEQUENCE_USED]
    await story.done(story.second, f"{one}/approve", {})
    assert await owned(story, north, ANNA, BERT) == [700, 350]


async def test_a_note_that_came_in_and_was_hidden_is_its_payee_s(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running() as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
        await exchanged(branch)
    async with forgotten(south) as branch:
        hidden = await redeemed(branch, note)
    await story.fund(south, CARA, 5)
    await south.sync()
    assert await story.hand_in(hidden) == ["taken"]
    assert await suspended(story) == [south.journal]
    closure = await story.closed(south, cause="compromised")
    await story.pass_window(closure)
    made = await story.stated(closure)
    assert (made["carried"], made["borne"]) == (205, 0)
    found = await story.where()
    assert (found.transit_notes, found.loss) == (0, 0)


async def test_the_issuer_bears_no_more_than_its_policy_says_unless_officers_say_so(
    story: Story, north: Box
) -> None:
    await story.policy({JournalLimit.CLAIMS_WINDOW_S: 1, JournalLimit.EXPOSURE_HARD: 250})
    await north.sync()
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    async with north.running(offline=True) as branch:
        await paid(branch, ANNA, ANNA, 10, kind=OrderKind.REDEEM)
    await north.sync()
    await story.hand_in(hidden)
    closure = await story.closed(north, cause="compromised")
    await story.pass_window(closure)
    path = f"{closure}/statements"
    for number, bear_max in enumerate((0, 299)):
        body = {"statement_id": f"{number:064x}", "hosted": "carry", "bear_max": bear_max}
        assert await story.refused(story.first, path, body) == "loss-above-limit"
    body = {"statement_id": "f" * 64, "hosted": "carry", "bear_max": 300}
    made = await story.done(story.first, path, body)
    assert (made["borne"], made["state"]) == (300, "draft")
    # One officer alone cannot.
    approve = f"/v1/issuer/statements/{made['statement_id']}/approve"
    assert await story.refused(story.first, approve, {}) == "four-eyes"
    await story.done(story.second, approve, {})
    assert (await story.where()).loss == -300


# ---- two notes at one index ---------------------------------------------------------------------


@pytest.fixture
async def west(database: Database) -> Written:
    """A journal of Dora, who has 1,000, and Emil."""
    await open_bank(database)
    branch = Written("west", journal={JournalLimit.CLAIMS_WINDOW_S: 1})
    branch.enrol(DORA, EMIL)
    await branch.fund(database, DORA, 1_000)
    return branch


@pytest.fixture
def east() -> Written:
    """A journal of Finn, who has nothing."""
    branch = Written("east")
    branch.enrol(FINN)
    return branch


@pytest.mark.parametrize("first", ["east", "west"])
@pytest.mark.parametrize("redeemed_too", [False, True])
async def test_of_two_notes_at_one_index_the_one_that_is_told_has_the_value_in_transit(
    database: Database, west: Written, east: Written, first: str, redeemed_too: bool
) -> None:
    reconciling, other, south = reconciler(database), copy.deepcopy(west), Written("south")
    south.enrol(FINN)
    east.take_in(other, other.pay_out(DORA, FINN, east, 250))
    told = west.pay_out(DORA, FINN, south, 100)
    for branch in (east, west) if first == "east" else (west, east):
        assert (await branch.sync(reconciling)).problem is None
    found = await where(database)
    assert (found.transit_notes, found.suspense, found.loss) == (100, 0, -250)
    assert {row.journal for row in await rows_of(database)} == {west.book.journal}
    if redeemed_too:
        south.take_in(west, told)
        await south.sync(reconciling)
    # The value in transit is the told note's: it is redeemed, or comes back to its payer.
    returned = await return_expired_notes(database, now_ms=NOW_MS + 3 * DAY_MS)
    assert returned == (0 if redeemed_too else 1)
    found = await where(database)
    assert (found.transit_notes, found.suspense, found.loss) == (0, 0, -250)
    assert found.offline == 900 + 250 + (100 if redeemed_too else 0)


@pytest.mark.parametrize("as_note", [False, True])
async def test_a_note_that_its_journal_hides_is_borne_once(
    database: Database, west: Written, east: Written, as_note: bool
) -> None:
    reconciling, other = reconciler(database), copy.deepcopy(west)
    hidden = other.pay_out(DORA, FINN, east, 250)
    east.take_in(other, hidden)
    if as_note:
        west.pay_out(DORA, FINN, Written("south"), 100)
    else:
        west.book.accept(west.book.pay(DORA, EMIL, 100))
    await west.sync(reconciling)
    await east.sync(reconciling)
    later = Written("east", epoch=2)
    later.enrol(FINN)
    index = later.take_in(other, hidden)
    await later.sync(reconciling)
    settlement = await later.settlement(reconciling)
    assert settlement is not None
    assert [(v.index, v.code) for v in settlement.verdicts] == [(index, Code.NOTE_REDEEMED)]
    kinds = {(row.journal, row.kind) for row in await rows_of(database)}
    assert kinds == {
        (west.book.journal, "hidden-entry"),
        (east.book.journal, "note-replayed"),
    }


@pytest.mark.parametrize("as_note", [False, True])
async def test_what_comes_in_of_a_journal_that_was_suspended_before_waits_for_officers(
    database: Database, west: Written, east: Written, as_note: bool
) -> None:
    reconciling, other = reconciler(database), copy.deepcopy(west)
    for amount in (1, 2):
        if as_note:
            west.pay_out(DORA, FINN, Written("south"), amount)
        else:
            west.book.accept(west.book.pay(DORA, EMIL, amount))
    await west.sync(reconciling)
    for amount, unsettled in ((250, 0), (300, 300)):
        # East's lists are old: it takes what the issuer knows better than to trust.
        index = east.take_in(other, other.pay_out(DORA, FINN, east, amount))
        await east.sync(reconciling)
        settlement = await east.settle(reconciling)
        assert east.book.balance(FINN)[1] == unsettled
    assert [(v.index, v.state, v.code) for v in settlement.verdicts] == [
        (index, VerdictState.HELD, Code.JOURNAL_REVOKED)
    ]
    found = await where(database)
    assert (found.loss, found.suspense) == (-550, 0)


async def test_a_note_among_claims_convicts_the_journal_that_hides_it(
    story: Story, north: Box, south: Box
) -> None:
    async with forgotten(north) as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    await fill(story, north)
    async with south.running(offline=True) as branch:
        arrived = await redeemed(branch, note)
    south.lose()
    assert await story.hand_in(arrived) == ["taken"]
    closure = await story.closed(south)
    await story.pass_window(closure)
    assert await suspended(story) == []
    made = await story.stated(closure)
    assert (made["carried"], made["counted"]) == (200, 1)
    assert await suspended(story) == [north.journal]
    found = await story.where()
    assert (found.transit_notes, found.suspense, found.loss) == (0, 0, -200)
