"""Another signing key: the old epoch ends, the next one opens with all that the branch had."""

import shutil

import pytest

from edge.folder import Folder
from edge.http.wallets import wish_hosted
from edge.store_key import open_store
from edge.tamper import Mark, read_mark, store_mark
from hsm import software
from tests.support.branch import Command
from tests.support.branch_local import PASSPHRASE, Branch
from tests.support.recovery import (
    ANNA,
    BERT,
    Box,
    Story,
    balance,
    exchanged,
    paid,
)
from wallet.journal import Receipted
from wallet.protocol.ids import WalletId, parse_journal
from wallet.protocol.refusals import Code, Refusal

PIN = "2468"


async def command(box: Box, *words: str) -> tuple[int, str, str]:
    """`key rotate signing` on a box."""
    return await Command(box.folder).edge("key", "rotate", "signing", *words)


async def ended(story: Story, north: Box) -> str:
    """An epoch that its journal ended and two officers closed, with its statement: the path."""
    async with north.running():
        code, out, errors = await command(north, "--end")
        assert (code, "has ended" in out) == (0, True), errors
        # Asking again changes nothing.
        assert (await command(north, "--end"))[0] == 0
    path = await story.closed(north, cause="planned")
    await story.stated(path)
    return path


async def token_file(story: Story, path: str) -> str:
    """The successor's token in a file."""
    made = await story.done(story.first, f"{path}/token", {})
    file = story.folder / "successor.token"
    file.write_text(made["token"])
    return str(file)


async def hosted(branch: Branch) -> WalletId:
    """A hosted wallet, enrolled."""
    wallet = await wish_hosted(branch.opened, pin=PIN, tier=0, label=None)
    await exchanged(branch)
    return wallet


async def test_a_gateway_goes_on_under_another_key_with_all_that_it_had(
    story: Story, north: Box
) -> None:
    async with north.running() as branch:
        wallet = await hosted(branch)
        now = branch.opened.journal.now()[0]
        order = branch.order(ANNA, wallet, 400, created_ms=now, expires_ms=now + 60_000)
        assert isinstance(await branch.opened.journal.pay(order), Receipted)
        await branch.terminal()
    path = await ended(story, north)
    file = await token_file(story, path)
    code, out, errors = await command(north, "--token-file", file)
    assert (code, "another key" in out) == (0, True), errors
    async with north.running() as branch:
        await exchanged(branch)
        state = branch.opened.journal.state
        assert (state.epoch, state.journal != north.journal) == (2, True)
        assert (balance(branch, ANNA), state.wallets[wallet].balance) == (600, 400)
        outcome = await branch.opened.hosted.pay(
            wallet=wallet,
            pin=PIN,
            payee=WalletId(ANNA.public.id),
            payee_journal=state.journal,
            amount_minor=150,
        )
        assert isinstance(outcome, Receipted), outcome
        await paid(branch, ANNA, BERT, 50)
        await exchanged(branch)
        assert [item.id for item in await branch.opened.terminals.all()] == ["till"]
    found = await story.where()
    assert (found.offline, found.loss, await story.offline_in(north, 1)) == (1_000, 0, 0)
    kept = north.folder / "epoch-1"
    assert sorted(item.name for item in kept.iterdir()) == [
        *("prepared", "store.db", "store.db.keycheck", "store.key.sealed", "tls", "token"),
    ]
    shown = await Command(north.folder).edge("key", "show")
    assert parse_journal(shown[1].split()[1]) == state.journal


async def test_an_ended_epoch_takes_no_payment_and_an_unended_one_no_other_key(
    story: Story, north: Box
) -> None:
    file = story.folder / "token"
    file.write_text("cbo_" + "A" * 43)
    code, _, errors = await command(north, "--token-file", str(file))
    assert (code, "--end" in errors) == (1, True)
    for words in ((), ("--end", "--token-file", str(file))):
        assert (await command(north, *words))[0] == 2
    async with north.running(offline=True):
        code, _, errors = await command(north, "--end")
        assert (code, "synchronise first" in errors) == (1, True)
    async with north.running() as branch:
        assert (await command(north, "--end"))[0] == 0
        order = branch.order(ANNA, BERT.public.id, 1)
        outcome = await branch.opened.journal.pay(order)
        assert isinstance(outcome, Refusal) and outcome.code is Code.WRONG_JOURNAL
        code, _, errors = await command(north, "--token-file", str(file))
        assert (code, "open already" in errors) == (1, True)


async def test_a_token_of_another_closure_does_not_lead_on(story: Story, north: Box) -> None:
    path = await ended(story, north)
    body = {"name": "stranger", "currency": "EUR", "tiers": [0], "level": "software"}
    file = story.folder / "wrong.token"
    file.write_text((await story.done(story.first, "/v1/issuer/gateways", body))["token"])
    code, _, errors = await command(north, "--token-file", str(file))
    assert (code, "not of this closure" in errors) == (1, True)
    shutil.rmtree(north.folder / "next")
    right = await token_file(story, path)
    assert (await command(north, "--token-file", right))[0] == 0


@pytest.mark.parametrize("moved", [0, 2, 5])
async def test_a_switch_that_was_cut_off_is_finished_by_asking_again(
    story: Story, north: Box, moved: int
) -> None:
    path = await ended(story, north)
    file = await token_file(story, path)
    code, _, errors = await command(north, "--token-file", file)
    assert code == 0, errors
    # Back to the moment before the switch, then as far as the crash let it come.
    kept, following = north.folder / "epoch-1", north.folder / "next"
    (kept / "prepared").rename(following)
    parts = ("token", "store.db", "store.db.keycheck", "store.key.sealed", "tls")
    for part in parts[moved:]:
        (north.folder / part).rename(following / part)
        (kept / part).rename(north.folder / part)
    if 0 < moved < len(parts):
        # The old part had left its place, and the new one was not there yet.
        part = parts[moved]
        (north.folder / part).rename(kept / part)
    code, _, errors = await command(north, "--token-file", file)
    assert code == 0, errors
    assert not following.exists() and Folder(north.folder).store_key.exists()
    async with north.running() as branch:
        await exchanged(branch)
        assert (branch.opened.journal.state.epoch, balance(branch, ANNA)) == (2, 1_000)


async def test_a_box_that_was_opened_before_the_switch_does_not_go_on(
    story: Story, north: Box
) -> None:
    path = await ended(story, north)
    file = await token_file(story, path)
    code, _, errors = await command(north, "--token-file", file)
    assert code == 0, errors
    kept, following = north.folder / "epoch-1", north.folder / "next"
    (kept / "prepared").rename(following)
    for part in ("token", "store.db", "store.db.keycheck", "store.key.sealed", "tls"):
        (north.folder / part).rename(following / part)
        (kept / part).rename(north.folder / part)
    # The switch trips, and somebody takes the mark's file away: the old store remembers.
    mark = Mark(time_ms=1, source="file", reason="the lid is open")
    folder = Folder(north.folder)
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    database = await open_store(folder, token)
    await database.write(lambda connection: store_mark(connection, mark))
    await database.close()
    await token.close()
    code, _, errors = await command(north, "--token-file", file)
    assert (code, "edge-tampered" in errors) == (4, True), errors
    assert read_mark(folder) == mark and following.exists()
