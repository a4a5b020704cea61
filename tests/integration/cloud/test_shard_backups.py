"""Whole shards that are restored, and what a head does that has forgotten where journals live."""

from __future__ import annotations

import secrets

from tests.integration.cloud.test_hidden import fill
from tests.integration.cloud.test_late_payments import shown
from tests.integration.cloud.test_refused_claims import refuse
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
from tests.support.recovery_shards import backed_up, emptied, restored, story
from wallet.journal import Receipted
from wallet.protocol.entry import Close, CloseReason, Payment, decode_entry
from wallet.protocol.policy import JournalLimit

__all__ = ["story"]


async def test_a_planned_end_is_told_again_to_a_shard_that_forgot_it(story: Story) -> None:
    north = await story.funded(await story.gateway("north"))
    await story.shards_have_heard()
    backup = await backed_up(story.books)
    async with north.running() as branch:
        await paid(branch, ANNA, BERT, 300)
        await branch.opened.journal.submit(Close(reason=CloseReason.PLANNED))
        await exchanged(branch)
    path = await story.closed(north, cause="planned")
    await story.stated(path)
    before = await story.where()
    await restored(story, backup)
    async with north.running() as branch:
        await branch.daemon.sync_now()
    await story.cloud.cloud.refresh()
    async with story.books.transaction() as connection:
        row = await connection.fetchrow("SELECT state, stated_ms FROM journal_epoch")
    assert (row["state"], row["stated_ms"] is None) == ("closed", False)
    assert await story.where() == before
    again = await story.successor(path, "north-again")
    async with again.running() as branch:
        await exchanged(branch)
        assert (balance(branch, ANNA), balance(branch, BERT)) == (700, 300)
    assert await story.where() == before


async def test_upkeep_goes_on_where_nothing_is_left_of_a_stated_epoch(story: Story) -> None:
    nothing = await backed_up(story.books)
    north = await story.funded(await story.gateway("north"))
    path = await story.closed(north)
    token = (await story.done(story.first, f"{path}/token", {}))["token"]
    for file in north.folder.glob("store*"):
        file.unlink()
    await story.pass_window(path)
    await story.stated(path)
    again = await story.gateway("north", token)
    await restored(story, nothing)
    async with again.running() as branch:
        # What it opens with is lost, and nobody can say that it is not.
        assert (await branch.daemon.sync_now())[0] == "failed"
    await story.cloud.cloud.refresh()
    async with story.books.transaction() as connection:
        rows = await connection.fetch("SELECT epoch, state FROM journal_epoch ORDER BY epoch")
    assert (1, "closed") in [tuple(row) for row in rows]


async def test_a_note_of_a_journal_whose_home_was_forgotten_is_told_once_it_is_known(
    story: Story, north: Box, south: Box
) -> None:
    shards = story.cloud.cloud.shards
    async with north.running() as branch:
        note = await paid(branch, ANNA, CARA, 100, payee_journal=south.journal)
        await exchanged(branch)
    await story.shards_have_heard()
    await emptied(story.database, "journal_home")
    shards.homes._known.clear()
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
        await story.cloud.cloud.refresh()
        await story.shards_have_heard()
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE note SET returns_ms = 1 WHERE state = 'out'")
    await story.cloud.cloud.refresh()
    found = await story.where()
    assert (found.offline, found.transit_notes, found.suspense, found.loss) == (1_000, 0, 0, 0)
    assert await story.online_of(ANNA) == 0


async def test_the_bound_counts_what_another_shard_would_let_the_issuer_bear(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        note = await paid(branch, ANNA, CARA, 400, payee_journal=south.journal)
    path = await story.closed(north)
    await story.pass_window(path)
    await story.stated(path)
    async with forgotten(south) as branch:
        arrived = await redeemed(branch, note)
    await story.policy({JournalLimit.CLAIMS_WINDOW_S: 1, JournalLimit.EXPOSURE_HARD: 100})
    await south.sync()
    path = await story.closed(south, cause="compromised")
    assert await story.hand_in(arrived) == ["taken"]
    await story.pass_window(path)
    body = {"statement_id": secrets.token_hex(32), "hosted": "everybody"}
    assert await story.refused(story.first, f"{path}/statements", body) == "loss-above-limit"
    await refuse(story, path, arrived)
    assert (await story.stated(path))["borne"] == 0


async def test_an_order_whose_claim_was_refused_is_not_paid_late(story: Story, north: Box) -> None:
    async with forgotten(north) as branch:
        one = await paid(branch, ANNA, BERT, 300)
    await fill(story, north)
    body = decode_entry(one.entry).body
    assert isinstance(body, Payment)
    async with north.running(offline=True) as branch:
        other = await branch.opened.journal.pay(body.order.signed.raw)
    assert isinstance(other, Receipted)
    path = await story.closed(north)
    assert await story.hand_in(other) == ["taken"]
    await refuse(story, path, other)
    await story.pass_window(path)
    await story.stated(path)
    assert await story.hand_in(one) == ["late"]
    assert await shown(story, path) == [("pay", 300, "sequence-used")]
