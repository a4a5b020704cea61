"""A gateway is lost: closure, claims, statement, the gateway that goes on, and late notes."""

import json
import shutil

import pytest

from cloud.issuer.enrolments import grants_for
from cloud.issuer.gateways import find_gateway
from edge.errors import EnrolmentFailed
from edge.http.octets import to_text
from edge.http.wallets import wish_hosted
from edge.pos.client import Client
from tests.support.branch import Command
from tests.support.branch_local import Http
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    SUPPLY,
    Box,
    Story,
    balance,
    exchanged,
    forged,
    paid,
    redeemed,
)
from wallet.journal import Receipted
from wallet.protocol.ids import WalletId
from wallet.protocol.merkle import leaf_hash

PIN = "2468"


async def test_a_lost_gateway_goes_on_elsewhere_and_every_cent_is_where_it_should_be(
    story: Story, north: Box, south: Box
) -> None:
    away = {"payee_journal": south.journal}
    async with north.running(offline=True) as branch:
        to_bert = await paid(branch, ANNA, BERT, 300)
        first_note = await paid(branch, ANNA, CARA, 200, **away)
        late_note = await paid(branch, ANNA, CARA, 50, **away)
        # Nobody keeps this receipt: with the gateway the payment is gone.
        await paid(branch, BERT, ANNA, 40)
    async with south.running(offline=True) as branch:
        await redeemed(branch, first_note)
        await redeemed(branch, late_note)
    north.lose()
    held = await story.fund(north, BERT, 77)
    assert (await story.where()).in_transit == 77

    closure = await story.drafted(north)
    assert await story.refused(story.first, f"{closure}/approve", {}) == "four-eyes"
    await story.done(story.second, f"{closure}/approve", {})
    assert await state_of(story, held) == "returned"
    found = await story.where()
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 1_000, 1_000, 0)

    bad = forged(to_bert)
    assert await story.hand_in(to_bert, bad, first_note) == ["taken", "invalid", "taken"]
    assert await story.hand_in(to_bert) == ["known"]
    early = {"statement_id": "0" * 64, "hosted": "carry"}
    assert await story.refused(story.first, f"{closure}/statements", early) == "claims-open"
    token = (await story.done(story.first, f"{closure}/token", {}))["token"]

    await story.pass_window(closure)
    draft = await story.statement_draft(closure)
    assert (draft["carried"], draft["borne"], draft["counted"]) == (800, 0, 2)
    approve = f"/v1/issuer/statements/{draft['statement_id']}/approve"
    assert await story.refused(story.first, approve, {}) == "four-eyes"
    assert (await story.done(story.second, approve, {}))["state"] == "signed"
    found = await story.where()
    assert (found.offline, found.in_transit, found.loss) == (800, 200, 0)
    assert await story.hand_in(late_note) == ["late"]

    again = await story.gateway("north-again", token)
    assert again.journal != north.journal
    async with again.running() as branch:
        await exchanged(branch)
        assert branch.opened.journal.state.epoch == 2
        assert (balance(branch, ANNA), balance(branch, BERT)) == (500, 300)
        await paid(branch, BERT, ANNA, 10)
        await exchanged(branch)
    assert (await story.offline_in(north, 1), await story.offline_in(again, 2)) == (0, 800)

    # The note that was claimed comes out of transit; the other one is late, and the issuer's loss.
    await south.sync()
    found = await story.where()
    assert (found.offline, found.in_transit, found.suspense, found.loss) == (1_050, 0, 0, -50)
    async with south.running() as branch:
        await exchanged(branch)
        assert balance(branch, CARA) == 250
        # What the issuer bears of a closed journal is final once officers say so.
        assert branch.opened.journal.state.unsettled_total == 50
        _, page = await story.first.get("/v1/compliance/held")
        (line,) = page["entries"]
        assert (line["code"], line["amount"], line["decidable"]) == ("journal-revoked", 50, True)
        place = {name: line[name] for name in ("journal", "epoch", "index")}
        draft = {"draft_id": "7" * 64, **place, "action": "release", "reason": "in good faith"}
        await story.done(story.first, "/v1/compliance/decisions", draft)
        await story.done(story.second, f"/v1/compliance/decisions/{'7' * 64}/approve", {})
        assert (await story.where()).loss == -50
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0


async def state_of(story: Story, funding_id: bytes) -> str:
    """What became of a funding."""
    async with story.database.transaction() as connection:
        found: str = await connection.fetchval(
            "SELECT state FROM funding WHERE funding_id = $1", funding_id
        )
    return found


async def test_a_note_that_came_in_before_the_closure_is_a_claim_that_nobody_hands_in(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
    assert (await story.where()).suspense == -200
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 800
    found = await story.where()
    assert (found.suspense, found.loss, found.offline) == (0, 0, 1_000)
    async with south.running() as branch:
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0


async def test_what_came_into_a_lost_gateway_is_claimed_by_its_payee_or_goes_back(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running() as branch:
        notes = [
            await paid(branch, CARA, ANNA, amount, payee_journal=north.journal)
            for amount in (100, 30)
        ]
        await exchanged(branch)
    async with north.running(offline=True) as branch:
        arrived = await redeemed(branch, notes[0])
        await redeemed(branch, notes[1])
    path = await story.closed(north)
    await story.pass_window(path)
    story.cloud.clock.wall_ms += 3_600_000
    await story.cloud.cloud.refresh()
    # As long as a payee may claim them, they do not go back to their payer.
    assert (await story.where()).in_transit == 130
    assert await story.hand_in(arrived) == ["taken"]
    assert (await story.stated(path))["carried"] == 1_100
    found = await story.where()
    assert (found.offline, found.in_transit, found.loss) == (1_470, 30, 0)
    # Nobody claimed the second note: it is as if it had not been redeemed.
    await story.cloud.cloud.refresh()
    assert (await story.where()).in_transit == 0
    assert await story.online_of(CARA) == 30


async def test_value_that_a_holder_took_online_is_claimed_like_any_other(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        taken_out = await paid(branch, ANNA, ANNA, 250, kind=3)
    path = await story.closed(north)
    assert await story.hand_in(taken_out) == ["taken"]
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 750
    assert await story.online_of(ANNA) == 250
    assert (await story.where()).offline == 750


async def test_a_payee_is_paid_though_the_payer_s_own_income_was_not_claimed(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        await paid(branch, ANNA, BERT, 300)
        back = await paid(branch, BERT, ANNA, 120)
    path = await story.closed(north)
    await story.hand_in(back)
    await story.pass_window(path)
    made = await story.stated(path)
    assert (made["carried"], made["borne"]) == (1_120, 120)
    assert (await story.where()).loss == -120


async def test_a_grant_that_was_signed_is_the_holder_s_whether_or_not_it_arrived(
    story: Story, north: Box
) -> None:
    held = await story.fund(north, BERT, 77)
    async with story.database.transaction() as connection:
        gateway = await find_gateway(connection, north.journal)
        desk, now_ms = story.cloud.cloud.desk, story.cloud.clock.now_ms()
        await grants_for(connection, desk, gateway, held=None, now_ms=now_ms)
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_077
    assert await state_of(story, held) == "applied"
    assert (await story.where()).in_transit == 0


async def test_a_holder_hands_in_receipts_as_an_officer_does(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 10)
    path = await story.closed(north)
    body = {"holder": "bert", "wallet": "bert-eur", "currency": "EUR"}
    token = (await story.done(story.first, "/v1/issuer/holders", body))["token"]
    async with story.cloud.api(token) as holder:
        assert await story.hand_in(made, by=holder) == ["taken"]
    _, page = await story.first.get(f"{path}/claims")
    assert (page["carried"], page["wallets"]) == (1_000, 2)
    line = {"index": made.index, "kind": "pay", "amount": 10, "code": None}
    assert page["claims"] == [{"claim": leaf_hash(made.entry).hex(), **line}]


async def test_receipts_of_a_closed_journal_come_with_the_report_of_another_gateway(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 10)
    path = await story.closed(north)
    async with south.running() as branch, Client(await branch.terminal()) as client:
        await exchanged(branch)
        receipt = {"entry": to_text(made.entry), "receipt": to_text(made.receipt)}
        status, kept = await Http(client).post("/v1/receipts", {"receipts": [receipt]})
        assert (status, kept["answers"][0]["kept"]) == (200, "new"), kept
        await exchanged(branch)
    await story.pass_window(path)
    assert (await story.stated(path))["counted"] == 1


async def test_the_same_token_goes_on_in_the_next_epoch_of_its_journal(
    story: Story, north: Box
) -> None:
    path = await story.closed(north)
    token = (await story.done(story.first, f"{path}/token", {}))["token"]
    for file in north.folder.glob("store*"):
        file.unlink()
    with pytest.raises(EnrolmentFailed, match="statement-pending"):
        await story.gateway("north", token)
    await story.pass_window(path)
    await story.stated(path)
    again = await story.gateway("north", token)
    assert again.journal == north.journal
    async with again.running() as branch:
        await exchanged(branch)
        assert (branch.opened.journal.state.epoch, balance(branch, ANNA)) == (2, 1_000)
        await paid(branch, ANNA, BERT, 10)
        await exchanged(branch)
    assert (await story.offline_in(north, 1), await story.offline_in(north, 2)) == (0, 1_000)
    with pytest.raises(EnrolmentFailed, match="closure-used"):
        await story.successor(path, "somebody-else")


async def test_value_of_wallets_whose_keys_are_lost_goes_to_their_holders_online(
    story: Story, north: Box
) -> None:
    async with story.database.transaction() as connection:
        await connection.execute(
            "UPDATE wallet_enrolment SET hosted = true WHERE wallet = $1", ANNA.public.id
        )
    path = await story.closed(north)
    await story.pass_window(path)
    made = await story.stated(path, hosted="online")
    assert (made["carried"], made["paid_out"]) == (0, 1_000)
    assert await story.online_of(ANNA) == 1_000
    again = await story.successor(path, "north-again")
    async with again.running() as branch:
        await exchanged(branch)
        assert list(branch.opened.journal.state.wallets) == [BERT.public.id]


async def test_a_backup_claims_for_everybody_and_brings_the_hosted_wallets_along(
    story: Story, north: Box
) -> None:
    async with north.running() as branch:
        wallet = await wish_hosted(branch.opened, pin=PIN, tier=0, label=None)
        await exchanged(branch)
    words, file = story.folder / "words", story.folder / "backup"
    words.write_text("keep this elsewhere\n")
    async with north.running(offline=True) as branch:
        state = branch.opened.journal.state
        now = branch.opened.journal.now()[0]
        order = branch.order(ANNA, wallet, 400, created_ms=now, expires_ms=now + 60_000)
        assert isinstance(await branch.opened.journal.pay(order), Receipted)
        await done(north, "backup", str(file), "--passphrase-file", str(words))
        assert state.wallets[wallet].balance == 400
    shutil.rmtree(north.folder)

    path = await story.closed(north)
    restore = ("restore", str(file), "--passphrase-file", str(words))
    await done(north, *restore, "--receipts", str(story.folder / "receipts"))
    (receipt,) = [json.loads(f.read_text()) for f in (story.folder / "receipts").iterdir()]
    answer = await story.done(story.first, "/v1/issuer/claims", {"receipts": [receipt]})
    assert answer["outcomes"] == ["taken"]
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_000
    again = await story.successor(path, "north-again")
    assert "1 hosted wallets" in await done(again, *restore)
    assert "0 hosted wallets" in await done(again, *restore)
    async with again.running() as branch:
        await exchanged(branch)
        assert balance(branch, ANNA) == 600
        outcome = await branch.opened.hosted.pay(
            wallet=wallet,
            pin=PIN,
            payee=WalletId(ANNA.public.id),
            payee_journal=branch.opened.journal.state.journal,
            amount_minor=150,
        )
        assert isinstance(outcome, Receipted), outcome
        await exchanged(branch)
        assert balance(branch, ANNA) == 750
    found = await story.where()
    assert (found.offline, found.loss, found.suspense) == (1_000, 0, 0)


async def done(box: Box, *arguments: str) -> str:
    """A command of the gateway that passes."""
    code, out, errors = await Command(box.folder).edge(*arguments)
    assert code == 0, errors
    return out
