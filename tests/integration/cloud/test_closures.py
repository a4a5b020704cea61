"""Closing a gateway and signing its statement: who decides, in which order, what is refused."""

import asyncpg
import pytest

from cloud.issuer import lists, policies
from tests.support.recovery import ANNA, BERT, Box, Story, exchanged, paid
from wallet.journal import Mode, Receipted
from wallet.protocol.entry import Close, CloseReason
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.lists import ListId


async def test_what_is_claimed_after_the_draft_makes_it_stale(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = [await paid(branch, ANNA, BERT, amount) for amount in (10, 20)]
    path = await story.closed(north)
    await story.hand_in(made[0])
    await story.pass_window(path)
    draft = await story.statement_draft(path)
    await story.hand_in(made[1])
    one = f"/v1/issuer/statements/{draft['statement_id']}"
    assert await story.refused(story.second, f"{one}/approve", {}) == "draft-stale"
    assert (await story.done(story.second, f"{one}/reject", {}))["state"] == "rejected"
    assert (await story.done(story.second, f"{one}/reject", {}))["state"] == "rejected"
    assert await story.refused(story.second, f"{one}/approve", {}) == "draft-decided"
    story.cloud.clock.wall_ms += 1
    made_anew = await story.stated(path)
    assert made_anew["counted"] == 2
    _, page = await story.first.get(f"{path}/statements")
    assert [line["state"] for line in page["statements"]] == ["signed", "rejected"]
    later = {"statement_id": "1" * 64, "hosted": "carry"}
    assert await story.refused(story.first, f"{path}/statements", later) == "draft-decided"


async def test_a_gateway_goes_on_until_two_officers_say_otherwise(story: Story, north: Box) -> None:
    path = await story.drafted(north)
    body = {"closure_id": path[-64:], "journal": journal_text(north.journal), "cause": "lost"}
    body["reason"] = "stolen at night"
    assert (await story.done(story.first, "/v1/issuer/closures", body))["state"] == "draft"
    assert (
        await story.refused(story.first, "/v1/issuer/closures", {**body, "reason": "other"})
        == "draft-conflict"
    )
    another = {**body, "closure_id": "2" * 64}
    assert await story.refused(story.first, "/v1/issuer/closures", another) == "draft-conflict"
    statement = {"statement_id": "3" * 64, "hosted": "carry"}
    assert await story.refused(story.first, f"{path}/statements", statement) == "closure-open"
    assert await story.refused(story.first, f"{path}/claims", {}) == "method-not-allowed"
    assert (await story.done(story.second, f"{path}/reject", {}))["state"] == "rejected"
    assert (await story.done(story.second, f"{path}/reject", {}))["state"] == "rejected"
    assert await story.refused(story.second, f"{path}/approve", {}) == "draft-decided"
    await north.sync()


async def test_a_closed_gateway_gets_no_value_and_says_that_it_is_frozen(
    story: Story, north: Box
) -> None:
    bank = await story.done(
        story.first, "/v1/issuer/holders", {"holder": "bank", "wallet": "b", "currency": "EUR"}
    )
    path = await story.closed(north)
    again = await story.done(story.second, f"{path}/approve", {})
    assert again["state"] == "closed"
    async with story.cloud.api(bank["token"]) as holder:
        fund = {"funding_id": "4" * 64, "journal": journal_text(north.journal), "amount": 5}
        fund["offline_wallet"] = wallet_text(BERT.public.id)
        code = await story.refused(holder, "/v1/wallets/bank-eur/fundings", fund)
        assert code == "journal-closed"
    async with north.running() as branch:
        await branch.daemon.sync_now()
        assert branch.opened.journal.mode is Mode.FROZEN_BY_ISSUER


async def test_a_journal_without_a_claims_window_is_not_closed(story: Story, north: Box) -> None:
    async with story.database.transaction() as connection:
        await policies.next_policy(
            connection,
            story.cloud.cloud.desk,
            "EUR",
            tiers={},
            journal={},
            actor="test",
            now_ms=story.cloud.clock.now_ms(),
        )
    path = await story.drafted(north)
    assert await story.refused(story.second, f"{path}/approve", {}) == "window-unset"


async def test_held_entries_are_decided_before_a_statement_makes_them_final(
    story: Story, north: Box
) -> None:
    async with story.books.transaction() as connection:
        await connection.execute(
            "INSERT INTO verdict (epoch_id, index, state, code, decided_ms)"
            " SELECT epoch_id, 1, 'held', 'watched', 0 FROM journal_epoch"
        )
    path = await story.closed(north)
    await story.pass_window(path)
    body = {"statement_id": "5" * 64, "hosted": "carry"}
    assert await story.refused(story.first, f"{path}/statements", body) == "entries-held"


async def test_unknown_closures_and_statements_are_named(story: Story) -> None:
    nothing = "6" * 64
    path = f"/v1/issuer/closures/{nothing}"
    for verb in ("approve", "reject", "token"):
        assert await story.refused(story.first, f"{path}/{verb}", {}) == "closure-unknown"
    path = f"/v1/issuer/statements/{nothing}"
    for verb in ("approve", "reject"):
        assert await story.refused(story.first, f"{path}/{verb}", {}) == "statement-unknown"


async def test_a_planned_end_is_closed_once_the_journal_has_told_of_it(
    story: Story, north: Box
) -> None:
    path = await story.drafted(north, cause="planned")
    assert await story.refused(story.second, f"{path}/approve", {}) == "epoch-open"
    async with north.running() as branch:
        outcome = await branch.opened.journal.submit(Close(reason=CloseReason.PLANNED))
        assert isinstance(outcome, Receipted)
        await exchanged(branch)
        # Settlements that follow it, told by themselves, hide nothing.
        story.cloud.clock.wall_ms += 120_000
        await exchanged(branch)
    await story.done(story.second, f"{path}/approve", {})
    # Nothing is unknown: no window, and no receipt of the epoch loses its worth.
    assert (await story.stated(path))["carried"] == 1_000
    assert (await story.first.get(f"{path}/claims"))[1]["code"] == "closure-stated"
    async with story.database.transaction() as connection:
        for change in ("SET hosted = 'online'", "SET state = 'draft'"):
            with pytest.raises(asyncpg.PostgresError, match="decided once"):
                async with connection.transaction():
                    await connection.execute(f"UPDATE epoch_statement {change}")
    _, page = await story.first.get("/v1/issuer/closures?first=1")
    assert page == {"closures": []}
    async with story.database.transaction() as connection:
        held = await lists.held(connection, ListId.JOURNALS)
    assert held is not None and held.items == frozenset()
