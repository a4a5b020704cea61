"""Lost and replaced gateways whose journals live at another shard than the head."""

from __future__ import annotations

import pytest

from cloud.issuer.enrolments import grants_for
from cloud.issuer.gateways import find_gateway
from cloud.unasked import value_for
from tests.integration.cloud import (
    test_closures,
    test_hidden,
    test_late_payments,
    test_recovery,
    test_refused_claims,
)
from tests.integration.cloud import test_forked_claims as forked
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    Box,
    Story,
    balance,
    exchanged,
    forgotten,
    paid,
    redeemed,
)
from tests.support.recovery_shards import emptied, nothing_is_approved, state_of, story
from wallet.journal import Receipted
from wallet.protocol.entry import Payment, decode_entry

__all__ = ["story"]

# The stories of one database, with north at shard 1 and south at the head.
test_a_lost_gateway_goes_on = (
    test_recovery.test_a_lost_gateway_goes_on_elsewhere_and_every_cent_is_where_it_should_be
)
test_a_note_from_there_is_a_claim = (
    test_recovery.test_a_note_that_came_in_before_the_closure_is_a_claim_that_nobody_hands_in
)
test_what_came_in_is_claimed_or_goes_back = (
    test_recovery.test_what_came_into_a_lost_gateway_is_claimed_by_its_payee_or_goes_back
)
test_value_taken_online_is_claimed = (
    test_recovery.test_value_that_a_holder_took_online_is_claimed_like_any_other
)
test_a_signed_grant_is_the_holder_s = (
    test_recovery.test_a_grant_that_was_signed_is_the_holder_s_whether_or_not_it_arrived
)
test_a_holder_hands_in_receipts = test_recovery.test_a_holder_hands_in_receipts_as_an_officer_does
test_others_hand_in_receipts = (
    test_recovery.test_receipts_of_a_closed_journal_come_with_the_report_of_another_gateway
)
test_the_same_token_goes_on = (
    test_recovery.test_the_same_token_goes_on_in_the_next_epoch_of_its_journal
)
test_wallets_without_keys_are_paid_out = (
    test_recovery.test_value_of_wallets_whose_keys_are_lost_goes_to_their_holders_online
)
test_a_draft_becomes_stale = test_closures.test_what_is_claimed_after_the_draft_makes_it_stale
test_a_gateway_goes_on_until_two_decide = (
    test_closures.test_a_gateway_goes_on_until_two_officers_say_otherwise
)
test_held_entries_are_decided_first = (
    test_closures.test_held_entries_are_decided_before_a_statement_makes_them_final
)
test_a_planned_end = test_closures.test_a_planned_end_is_closed_once_the_journal_has_told_of_it
test_a_refused_claim_moves_nothing = (
    test_refused_claims.test_a_refused_claim_moves_nothing_and_stays_as_evidence
)
test_a_hidden_payment_is_a_claim = (
    test_hidden.test_a_payee_of_a_payment_that_its_gateway_hid_gets_it_of_the_payer
)
test_two_entries_at_one_index = (
    forked.test_two_entries_at_one_index_count_both_and_convict_the_journal
)
test_two_notes_at_one_index = (
    forked.test_of_two_notes_at_one_index_one_is_on_its_way_and_the_other_is_the_issuer_s_loss
)

test_a_hidden_payment_is_paid_late = (
    test_late_payments.test_who_was_paid_by_an_entry_that_a_planned_end_hid_is_paid_late
)
test_a_payment_behind_the_close_is_paid_late = (
    test_late_payments.test_who_was_paid_by_an_entry_behind_the_close_is_paid_late
)
test_a_lost_epoch_s_receipt_is_paid_late = (
    test_late_payments.test_a_receipt_of_a_lost_epoch_that_comes_after_its_window_is_paid_late
)
test_an_order_counts_once = (
    test_late_payments.test_an_order_that_was_told_or_counted_at_another_index_is_nothing
)
test_one_of_two_receipts_is_paid = test_late_payments.test_of_two_receipts_for_one_order_one_is_paid
test_who_is_listed_is_not_paid_late = (
    test_late_payments.test_a_payee_who_is_on_a_list_is_not_paid_late
)
test_nothing_else_is_paid_late = test_late_payments.test_nothing_but_a_payment_is_paid_late
test_late_payments_are_bounded = (
    test_late_payments.test_late_payments_are_bounded_unless_officers_say_how_much
)
test_what_cannot_be_paid_late = test_late_payments.test_what_cannot_be_paid_late_is_named


HEALING = ["again", "rejected", "upkeep"]


@pytest.mark.parametrize("healed", HEALING)
async def test_a_closure_that_the_head_did_not_commit_is_known_to_it_by_whatever_comes_next(
    story: Story, north: Box, healed: str
) -> None:
    path = await story.drafted(north)
    async with nothing_is_approved(story.database, "epoch_closure"):
        refused = await story.refused(story.second, f"{path}/approve", {})
    assert refused == "database-unavailable"
    assert await state_of(story, "epoch_closure") == "draft"
    # It is over where it lives: nothing is taken from it.
    async with story.books.transaction() as connection:
        assert await connection.fetchval("SELECT state FROM journal_epoch") == "closed"
    await heal(story, path, healed)
    assert await state_of(story, "epoch_closure") == "closed"
    _, lists = await story.first.get("/v1/issuer/lists")
    assert {line["list"]: line["items"] for line in lists["lists"]}["journals"] == 1
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_000
    await story.where()


@pytest.mark.parametrize("healed", HEALING)
async def test_a_statement_that_the_head_did_not_commit_is_known_to_it_by_whatever_comes_next(
    story: Story, north: Box, healed: str
) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
        out = await paid(branch, BERT, BERT, 100, kind=3)
    path = await story.closed(north)
    assert await story.hand_in(made, out) == ["taken", "taken"]
    await story.pass_window(path)
    draft = await story.statement_draft(path)
    one = f"/v1/issuer/statements/{draft['statement_id']}"
    async with nothing_is_approved(story.database, "epoch_statement"):
        refused = await story.refused(story.second, f"{one}/approve", {})
    assert refused == "database-unavailable"
    assert await state_of(story, "epoch_statement") == "draft"
    # What it moves is moved once, and all adds up.
    assert (await story.where()).offline == 900
    assert await story.online_of(BERT) == 100
    assert await story.hand_in(made) == ["known"]
    await heal(story, one, healed)
    assert await state_of(story, "epoch_statement") == "signed"
    found = await story.where()
    assert (found.offline, found.loss, found.suspense) == (900, 0, 0)
    assert await story.online_of(BERT) == 100
    again = await story.successor(path, "north-again")
    async with again.running() as branch:
        await exchanged(branch)
        assert (balance(branch, ANNA), balance(branch, BERT)) == (700, 200)
    assert await story.cloud.cloud.shards.home_of(again.journal) == 1
    await story.where()


@pytest.mark.parametrize("healed", HEALING)
async def test_a_late_payment_that_the_head_did_not_commit_is_known_to_it_by_whatever_comes_next(
    story: Story, north: Box, healed: str
) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    await story.pass_window(path)
    await story.stated(path)
    await story.hand_in(made)
    one, other = [await test_late_payments.drafted(story, path, made) for _ in range(2)]
    async with nothing_is_approved(story.database, "late_payment_draft"):
        refused = await story.refused(story.second, f"{one}/approve", {})
    assert refused == "database-unavailable"
    # It is paid, once, and no other draft pays it again.
    assert (await story.where()).loss == -300
    assert await story.refused(story.second, f"{other}/approve", {}) == "paid-late-already"
    assert await states_of(story) == ["draft", "draft"]
    await heal(story, one, healed)
    assert await states_of(story) == ["approved", "draft"]
    assert (await story.done(story.second, f"{other}/reject", {}))["state"] == "rejected"
    found = await story.where()
    assert (found.offline, found.loss, found.in_transit) == (1_000, -300, 0)
    assert await story.online_of(BERT) == 300


async def states_of(story: Story) -> list[str]:
    """Of all drafts of late payments."""
    async with story.database.transaction() as connection:
        rows = await connection.fetch("SELECT state FROM late_payment_draft ORDER BY state")
    return [row["state"] for row in rows]


async def heal(story: Story, path: str, how: str) -> None:
    """Let the head learn what was decided: the officer tries again, or another way."""
    if how == "again":
        await story.done(story.second, f"{path}/approve", {})
    elif how == "rejected":
        # Nobody can decide against what was carried out.
        assert await story.refused(story.second, f"{path}/reject", {}) == "draft-decided"
        # The refusal takes back what it learnt; the next one who approves finds it as well.
        await story.done(story.second, f"{path}/approve", {})
    else:
        await story.cloud.cloud.refresh()


async def test_a_head_that_forgot_a_statement_learns_it_from_where_the_journal_lives(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    await story.hand_in(made)
    await story.pass_window(path)
    before = await story.stated(path, hosted="everybody")
    # The head was restored from a backup of before the draft.
    await emptied(story.database, "statement_claim", "epoch_statement")
    after = await story.stated(path)
    names = ("hosted", "carried", "paid_out", "counted", "object", "state")
    assert [after[name] for name in names] == [before[name] for name in names]
    assert (await story.where()).offline == 0


async def test_a_head_that_forgot_a_closure_does_not_pay_again_what_was_counted_or_paid_late(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        other, late = [await paid(branch, ANNA, BERT, amount) for amount in (300, 20)]
    await test_hidden.fill(story, north)
    body = decode_entry(other.entry).body
    assert isinstance(body, Payment)
    async with north.running(offline=True) as branch:
        counted = await branch.opened.journal.pay(body.order.signed.raw)
        assert isinstance(counted, Receipted) and counted.index != other.index
    path = await story.closed(north)
    assert await story.hand_in(counted) == ["taken"]
    await story.pass_window(path)
    await story.stated(path)
    assert await story.hand_in(other, late) == ["late", "late"]
    one = await test_late_payments.drafted(story, path, late)
    await story.done(story.second, f"{one}/approve", {})
    before = await story.where()
    # The head was restored from a backup of before the closure, which is made anew.
    async with story.database.transaction() as connection:
        for table in ("late_payment_draft", "statement_claim", "epoch_statement", "epoch_closure"):
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            await connection.execute(f"DELETE FROM {table}")
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    anew = await story.closed(north)
    await story.pass_window(anew)
    await story.stated(anew)
    assert anew != path
    found = [code for _, _, code in await test_late_payments.shown(story, anew)]
    assert sorted(found, key=str) == ["paid-late-already", "sequence-used"]
    assert await story.where() == before


async def test_a_lost_gateway_s_notes_are_known_in_either_shard(
    story: Story, north: Box, south: Box
) -> None:
    """Notes both ways over the databases' border, claimed and told, at the end of an epoch."""
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running() as branch:
        coming = await paid(branch, CARA, ANNA, 60, payee_journal=north.journal)
    async with north.running(offline=True) as branch:
        arrived = await redeemed(branch, coming)
        going = [
            await paid(branch, ANNA, CARA, amount, payee_journal=south.journal)
            for amount in (200, 30)
        ]
    async with south.running() as branch:
        await redeemed(branch, going[0])
        await exchanged(branch)
    path = await story.closed(north)
    assert await story.hand_in(arrived, going[1]) == ["taken", "taken"]
    await story.pass_window(path)
    made = await story.stated(path)
    assert (made["carried"], made["borne"], made["counted"]) == (830, 0, 3)
    found = await story.where()
    assert (found.transit_notes, found.suspense, found.loss) == (30, 0, 0)
    async with south.running() as branch:
        await redeemed(branch, going[1])
        await exchanged(branch)
        await story.shards_have_heard()
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0
    found = await story.where()
    assert (found.offline, found.in_transit, found.suspense, found.loss) == (1_500, 0, 0, 0)


async def test_a_convicted_journal_of_another_shard_is_carried_no_value(
    story: Story, north: Box
) -> None:
    cloud = story.cloud.cloud
    await story.fund(north, ANNA, 70)
    async with story.database.transaction() as connection:
        gateway = await find_gateway(connection, north.journal)
        now_ms = story.cloud.clock.now_ms()
        await grants_for(connection, cloud.desk, gateway, held=None, now_ms=now_ms)
    async with (
        story.database.transaction() as connection,
        cloud.shards.site(connection, north.journal) as site,
    ):
        assert len(await value_for(site, gateway)) > len(gateway.chain)
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE journal_epoch SET state = 'suspended', reason = 'test'")
    async with (
        story.database.transaction() as connection,
        cloud.shards.site(connection, north.journal) as site,
    ):
        assert await value_for(site, gateway) == []
