"""Receipts that come when their epoch has its statement: two officers may have them paid, once."""

from __future__ import annotations

import json
import secrets
from typing import Any

import asyncpg
import pytest

from cloud.issuer import lists
from cloud.issuer.lists import ListChange
from tests.integration.cloud.test_hidden import fill, suspended
from tests.support.cloud_commands import Commands
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
from wallet.journal import Receipted
from wallet.protocol.entry import Close, CloseReason, Payment, decode_entry
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code


def body(made: Receipted, **changed: Any) -> dict[str, Any]:
    """What an officer proposes."""
    claim = leaf_hash(made.entry).hex()
    return {"draft_id": secrets.token_hex(32), "claim": claim, "reason": "good faith", **changed}


async def ended(story: Story, box: Box) -> str:
    """The gateway ends its epoch in order, which gets its statement at once; the closure's path."""
    async with box.running() as branch:
        outcome = await branch.opened.journal.submit(Close(reason=CloseReason.PLANNED))
        assert isinstance(outcome, Receipted)
        await exchanged(branch)
    path = await story.closed(box, cause="planned")
    await story.stated(path)
    return path


async def drafted(story: Story, path: str, made: Receipted, **changed: Any) -> str:
    """A late payment that waits for a second officer; its path."""
    draft = body(made, **changed)
    await story.done(story.first, f"{path}/late-payments", draft)
    return f"/v1/issuer/late-payments/{draft['draft_id']}"


async def refused(story: Story, path: str, made: Receipted, **changed: Any) -> str:
    """The code of a draft that is refused."""
    return await story.refused(story.first, f"{path}/late-payments", body(made, **changed))


async def shown(story: Story, path: str) -> list[tuple[str, int, str | None]]:
    """What the issuer says of late receipts: kind, amount, and why they are not paid."""
    status, page = await story.second.get(f"{path}/late-receipts")
    assert status == 200, page
    return [(line["kind"], line["amount"], line["code"]) for line in page["receipts"]]


async def is_paid_once(story: Story, path: str, made: Receipted) -> None:
    """A receipt over 300 to Bert comes in late, and two officers have it paid, once."""
    before = await story.where()
    assert await story.hand_in(made, made) == ["late", "known"]
    assert await story.hand_in(made) == ["known"]
    assert await shown(story, path) == [("pay", 300, None)]
    one, other = [await drafted(story, path, made) for _ in range(2)]
    assert await story.refused(story.first, f"{one}/approve", {}) == "four-eyes"
    assert (await story.where()).loss == before.loss
    for _ in range(2):
        answer = await story.done(story.second, f"{one}/approve", {})
        assert (answer["state"], answer["amount"]) == ("approved", 300)
    # Neither a draft from before nor another one pays it again.
    assert await story.refused(story.second, f"{other}/approve", {}) == "paid-late-already"
    assert await refused(story, path, made) == "paid-late-already"
    assert await story.refused(story.second, f"{one}/reject", {}) == "draft-decided"
    assert await shown(story, path) == [("pay", 300, "paid-late-already")]
    found = await story.where()
    assert (found.loss, found.offline) == (before.loss - 300, before.offline)
    assert (found.in_transit, found.suspense) == (0, 0)
    assert await story.online_of(BERT) == 300


async def test_who_was_paid_by_an_entry_that_a_planned_end_hid_is_paid_late(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    await fill(story, north)
    path = await ended(story, north)
    assert await suspended(story) == []
    await is_paid_once(story, path, hidden)
    assert await suspended(story) == [north.journal]
    # Where the journal lives elsewhere, the head signs the list with its next upkeep.
    await story.cloud.cloud.refresh()
    _, page = await story.first.get("/v1/issuer/lists")
    assert {line["list"]: line["items"] for line in page["lists"]}["journals"] == 1
    for database, table in ((story.database, "late_payment_draft"), (story.books, "late_payment")):
        async with database.transaction() as connection:
            with pytest.raises(asyncpg.PostgresError, match=r"decided once|only ever added"):
                async with connection.transaction():
                    await connection.execute(f"UPDATE {table} SET amount = 1")


async def test_who_was_paid_by_an_entry_behind_the_close_is_paid_late(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        for _ in range(8):
            await paid(branch, ANNA, BERT, 1)
        hidden = await paid(branch, ANNA, BERT, 300)
    path = await ended(story, north)
    async with story.books.transaction() as connection:
        assert await connection.fetchval("SELECT size FROM journal_epoch") < hidden.index
    await is_paid_once(story, path, hidden)
    assert await suspended(story) == [north.journal]


async def test_a_receipt_of_a_lost_epoch_that_comes_after_its_window_is_paid_late(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        late = await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_000
    await is_paid_once(story, path, late)
    # Nothing convicts a gateway that told nothing else.
    assert await suspended(story) == []


async def test_an_order_that_was_told_or_counted_at_another_index_is_nothing(
    story: Story, north: Box
) -> None:
    async with forgotten(north) as branch:
        told, counted = [await paid(branch, ANNA, BERT, amount) for amount in (300, 20)]
    await fill(story, north)
    again = []
    for made in (told, counted):
        body_of = decode_entry(made.entry).body
        assert isinstance(body_of, Payment)
        async with north.running(offline=made is counted) as branch:
            outcome = await branch.opened.journal.pay(body_of.order.signed.raw)
            assert isinstance(outcome, Receipted) and outcome.index != made.index
            again.append(outcome)
            if made is told:
                await exchanged(branch)
    path = await story.closed(north)
    assert await story.hand_in(*again) == ["known", "taken"]
    await story.pass_window(path)
    await story.stated(path)
    before = await story.where()
    assert await story.hand_in(told, counted) == ["late", "late"]
    assert [code for _, _, code in await shown(story, path)] == [Code.SEQUENCE_USED] * 2
    for made in (told, counted):
        assert await refused(story, path, made) == Code.SEQUENCE_USED
    # What counted in the statement is no late payment.
    assert await refused(story, path, again[1]) == "claim-unknown"
    assert await story.where() == before


async def test_of_two_receipts_for_one_order_one_is_paid(story: Story, north: Box) -> None:
    async with forgotten(north) as branch:
        one = await paid(branch, ANNA, BERT, 300)
    await fill(story, north)
    body_of = decode_entry(one.entry).body
    assert isinstance(body_of, Payment)
    async with forgotten(north) as branch:
        other = await branch.opened.journal.pay(body_of.order.signed.raw)
        assert isinstance(other, Receipted) and other.index != one.index
    path = await ended(story, north)
    assert await story.hand_in(one, other) == ["late", "late"]
    # Each is judged by itself, until one of them is paid.
    assert [code for _, _, code in await shown(story, path)] == [None, None]
    first, second = [await drafted(story, path, made) for made in (one, other)]
    await story.done(story.second, f"{first}/approve", {})
    assert await story.refused(story.second, f"{second}/approve", {}) == Code.SEQUENCE_USED
    assert (await story.where()).loss == -300
    assert await story.online_of(BERT) == 300


async def test_a_payee_who_is_on_a_list_is_not_paid_late(story: Story, north: Box) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    cloud = story.cloud.cloud
    async with story.database.transaction() as connection:
        await lists.change_list(
            connection,
            cloud.desk,
            ListId.WALLETS,
            ListChange(added={BERT.public.id: ()}),
            actor="test",
            now_ms=cloud.clock.now_ms(),
        )
    await north.sync()
    path = await ended(story, north)
    assert await story.hand_in(hidden) == ["late"]
    assert await shown(story, path) == [("pay", 300, Code.WALLET_REVOKED)]
    assert await refused(story, path, hidden) == Code.WALLET_REVOKED
    assert (await story.where()).loss == 0


async def test_nothing_but_a_payment_is_paid_late(story: Story, north: Box, south: Box) -> None:
    await story.fund(south, CARA, 100)
    await south.sync()
    async with south.running() as branch:
        coming = await paid(branch, CARA, ANNA, 60, payee_journal=north.journal)
        await exchanged(branch)
    async with forgotten(north) as branch:
        made = [
            await paid(branch, ANNA, CARA, 200, payee_journal=south.journal),
            await paid(branch, ANNA, ANNA, 30, kind=OrderKind.REDEEM),
            await redeemed(branch, coming),
        ]
    await fill(story, north)
    path = await ended(story, north)
    assert await story.hand_in(*made) == ["late"] * 3
    found = await shown(story, path)
    assert {code for _, _, code in found} == {"not-a-payment"}
    assert [line[:2] for line in found] == [
        ("transfer-out", 200),
        ("defund", 30),
        ("transfer-in", 60),
    ]
    for each in made:
        assert await refused(story, path, each) == "not-a-payment"
    assert await suspended(story) == [north.journal]
    assert (await story.where()).loss == 0


async def test_late_payments_are_bounded_unless_officers_say_how_much(
    story: Story, north: Box
) -> None:
    await story.policy({JournalLimit.CLAIMS_WINDOW_S: 1, JournalLimit.EXPOSURE_HARD: 250})
    await north.sync()
    async with forgotten(north) as branch:
        claimed, one, other = [await paid(branch, ANNA, BERT, each) for each in (100, 90, 80)]
    async with north.running(offline=True) as branch:
        await paid(branch, ANNA, ANNA, 10, kind=OrderKind.REDEEM)
    await north.sync()
    # The payer signed twice: the statement bears a hundred.
    assert await story.hand_in(claimed) == ["taken"]
    path = await story.closed(north, cause="compromised")
    await story.pass_window(path)
    assert (await story.stated(path))["borne"] == 100
    assert await story.hand_in(one, other) == ["late", "late"]
    first, second = [await drafted(story, path, made) for made in (one, other)]
    await story.done(story.second, f"{first}/approve", {})
    # What was drafted within the bound is beyond it by now.
    assert await story.refused(story.second, f"{second}/approve", {}) == "loss-above-limit"
    assert (await story.done(story.second, f"{second}/reject", {}))["state"] == "rejected"
    for bear_max in (0, 269):
        assert await refused(story, path, other, bear_max=bear_max) == "loss-above-limit"
    status, page = await story.first.get(f"{path}/late-receipts")
    assert (status, page["borne"], page["bound"]) == (200, 190, 250)
    enough = await drafted(story, path, other, bear_max=270)
    assert (await story.done(story.second, f"{enough}/approve", {}))["bear_max"] == 270
    assert (await story.where()).loss == -270
    assert await story.online_of(BERT) == 170


async def test_what_cannot_be_paid_late_is_named(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        claimed, late = [await paid(branch, ANNA, BERT, each) for each in (10, 20)]
    path = await story.drafted(north)
    assert await refused(story, path, late) == "closure-open"
    await story.done(story.second, f"{path}/approve", {})
    await story.hand_in(claimed)
    assert await refused(story, path, claimed) == "closure-unstated"
    status, problem = await story.first.get(f"{path}/late-receipts")
    assert (status, problem["code"]) == (409, "closure-unstated")
    await story.pass_window(path)
    await story.stated(path)
    assert await shown(story, path) == []
    assert await refused(story, path, late) == "claim-unknown"
    await story.hand_in(late)
    draft = body(late)
    for _ in range(2):
        answer = await story.done(story.first, f"{path}/late-payments", draft)
        assert (answer["state"], answer["amount"], answer["index"]) == ("draft", 20, late.index)
    other = {**draft, "reason": "other"}
    assert await story.refused(story.first, f"{path}/late-payments", other) == "draft-conflict"
    one = f"/v1/issuer/late-payments/{draft['draft_id']}"
    assert await story.refused(story.first, f"{one}/reject", {}) == "four-eyes"
    for _ in range(2):
        assert (await story.done(story.second, f"{one}/reject", {}))["state"] == "rejected"
    assert await story.refused(story.second, f"{one}/approve", {}) == "draft-decided"
    assert (await story.where()).loss == 0
    unknown = f"/v1/issuer/late-payments/{'6' * 64}"
    for verb in ("approve", "reject"):
        assert await story.refused(story.second, f"{unknown}/{verb}", {}) == "draft-unknown"
    assert await refused(story, f"/v1/issuer/closures/{'6' * 64}", late) == "closure-unknown"


async def test_what_cannot_be_read_is_shown_and_pays_nobody(story: Story, north: Box) -> None:
    path = await ended(story, north)
    raw = b"\xff"
    async with story.books.transaction() as connection:
        await connection.execute(
            "INSERT INTO collected_receipt"
            " (journal, epoch, index, leaf, entry, receipt, size, received_ms)"
            " VALUES ($1, 1, 99, $2, $3, '', 100, 0)",
            *(north.journal, leaf_hash(raw), raw),
        )
    assert await shown(story, path) == [("unreadable", 0, "not-a-payment")]


async def test_two_officers_pay_a_late_receipt_by_commands(story: Story, north: Box) -> None:
    async with forgotten(north) as branch:
        hidden = await paid(branch, ANNA, BERT, 300)
    path = await ended(story, north)
    await story.hand_in(hidden)
    commands = await Commands.by(story.cloud, "ada", "bob")
    closure, claim = path.rpartition("/")[2], leaf_hash(hidden.entry).hex()
    payee = wallet_text(BERT.public.id)
    out = await commands.typed("ada", "gateway", "late", closure)
    assert out == f"entry {hidden.index}  pay  300  payable  {claim}\n"
    pay = ("gateway", "pay-late", closure, claim, "--reason", "good faith")
    out = await commands.typed("ada", *pay, "--bear", "300")
    draft = out.split()[1].rstrip(":")
    assert out.splitlines()[1] == f"300 to {payee}, borne by the issuer"
    out = await commands.typed("bob", "gateway", "approve-late", draft)
    assert out == f"claim {claim}: 300 paid to {payee}\n"
    out = await commands.typed("bob", "gateway", "late-payments", closure)
    assert out == f"{draft}  claim {claim}  300 to {payee}  approved  good faith\n"
    out = await commands.typed("bob", "gateway", "late", closure)
    assert "  refused: paid-late-already  " in out
    async with story.database.transaction() as connection:
        acts = await connection.fetch(
            "SELECT actor, action FROM audit_log WHERE action LIKE 'late-payment.%'"
            " ORDER BY sequence"
        )
        told = await connection.fetchval(
            "SELECT body FROM outbox WHERE topic = 'payment.paid-late'"
        )
    assert [tuple(row) for row in acts] == [
        ("ada", "late-payment.draft"),
        ("bob", "late-payment.approve"),
    ]
    assert json.loads(told) == {
        "journal": journal_text(north.journal),
        "epoch": 1,
        "index": hidden.index,
        "amount": 300,
    }
    assert (await story.where()).loss == -300
